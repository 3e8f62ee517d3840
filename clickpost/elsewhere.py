"""Decides what an erasure does in a further database: whom it finds there, what cannot be done."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from clickpost import erasure
from clickpost.datamap import Schema
from clickpost.policy.erasing import Elsewhere, Erasure
from clickpost.policy.privacy import TableMap, Whose, places_of

Roots = Mapping[str, Mapping[str, Whose]]
#: The least room for a digest: its word, and so many characters that none is like another.
_DIGEST = len("gone:") + 32


def roots(policy: Erasure, tables: Mapping[str, TableMap]) -> Roots:
    """Return the tables whose own columns say that a row is about the subject, and which do.

    An account is known there by its id and by those of its members; a person by their id, and by
    their address.
    """
    wanted: set[str] = {policy.of}
    if policy.digest is not None:
        wanted.add("address")
    if policy.of == "workspace":
        wanted.add("member")
    found = {
        name: {column: whose for column, whose in table.found_by.items() if whose in wanted}
        for name, table in tables.items()
    }
    return {name: columns for name, columns in found.items() if columns}


def derived(policy: Erasure, name: str, found: Roots) -> Erasure:
    """Return the policy as it is followed in one database, whose tables are not ours."""
    there = policy.elsewhere.get(name, Elsewhere())
    addresses = [
        f"{table}.{column}"
        for table, columns in found.items()
        for column, whose in columns.items()
        if whose == "address"
    ]
    return policy.model_copy(
        update={
            "of": "",
            "digest": None,
            "reaches": {},
            "search": "everywhere",
            "names": addresses if there.names is None else there.names,
            "ends": there.ends,
            "anonymize": there.anonymize,
            "gives_way": there.gives_way,
        }
    )


def is_about(policy: Erasure, tables: Mapping[str, TableMap]) -> bool:
    """Say whether an erasure under a policy has anything to do with a database.

    A person may be in any that holds something personal; an account in those that know its id.
    """
    if roots(policy, tables):
        return True
    return policy.digest is not None and any(_is_about_people(one) for one in tables.values())


def _is_about_people(table: TableMap) -> bool:
    return bool(table.subject) and any(
        one.not_personal is None
        for name, column in table.columns.items()
        for one in places_of(name, column).values()
    )


def only(found: Roots, whose: str) -> Roots:
    """Return the roots that know the subject by this alone."""
    narrowed = {
        table: {column: one for column, one in columns.items() if one == whose}
        for table, columns in found.items()
    }
    return {table: columns for table, columns in narrowed.items() if columns}


def unled(tables: Mapping[str, TableMap], order: Collection[str]) -> list[str]:
    """Return the tables that are about people, and from which nothing leads to one; sorted."""
    return sorted(
        name for name, one in tables.items() if name not in order and _is_about_people(one)
    )


def faults(
    policy: Erasure, name: str, tables: Mapping[str, TableMap], schema: Schema
) -> Iterator[str]:
    """Yield what stands in the way of an erasure in the database `name`."""
    found = roots(policy, tables)
    for table in found:
        if schema[table].key == "ctid":
            yield f"{table} has no primary key of one column, by which a person is remembered"
    order = erasure.led_to(found, tables, schema)
    if policy.digest is not None:  # An account is in no more tables than those that know it.
        for table in unled(tables, order):
            yield f"{table} is about people, and nothing leads from its rows to an address"
    for table in order:
        for column, said in tables[table].columns.items():
            if said.file:
                yield f"{table}.{column}: files are removed for our own database only"
            if said.treatment == "digest" and _room(schema[table].types.get(column, "")) < _DIGEST:
                yield f"{table}.{column} has no room for a digest ({_DIGEST} characters)"
    yield from _unknown(derived(policy, name, found), tables, schema, order)


def _room(type_: str) -> int:
    _, _, size = type_.partition("(")
    return int(size.rstrip(")")) if size.rstrip(")").isdigit() else _DIGEST


def _unknown(
    policy: Erasure, tables: Mapping[str, TableMap], schema: Schema, order: list[str]
) -> Iterator[str]:
    for name in policy.anonymize:
        if name not in tables:
            yield f"anonymize: {name} is no table of the data map"
    for table, column in policy.ends.items():
        if table not in schema or schema[table].kinds.get(column) != "time":
            yield f"ends: {column} is no time of {table}"
    for said in policy.names:
        for place in said.split():
            table, _, column = place.rpartition(".")
            if table not in order or schema[table].kinds.get(column) != "text":
                yield f"names: {place} is no column of text in a table that leads to people"
