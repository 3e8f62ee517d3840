"""Decides what an erasure touches: which rows are about whom, in which order, what may stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from clickpost.datamap import Schema, follow
from clickpost.policy.erasing import Erasure
from clickpost.policy.privacy import PathMap, Purpose, Retention, TableMap, places_of

Place = tuple[str | int, ...]
#: Purposes that hold against a request: GDPR art. 17(3)(b) and (e).
LEGAL = ("legal_obligation", "legal_claims")
Action = Literal["erasure", "anonymization"]


def faults(
    policy: Erasure,
    tables: Mapping[str, TableMap],
    retention: Mapping[str, Retention],
    schema: Schema,
) -> Iterator[tuple[Place, str]]:
    """Yield where a policy speaks of what is not there, and why."""
    if policy.of not in schema or policy.of not in tables:
        yield ("of",), f"{policy.of} is no table of the data map"
        return
    for table, path in policy.reaches.items():
        if table not in tables or table not in schema or not follow(schema, table, path):
            yield ("reaches", table), f"{path} does not lead from {table} through foreign keys"
            return
    tables = reaching(policy, tables)
    for number, table in enumerate(policy.anonymize):
        if table not in tables:
            yield ("anonymize", number), f"{table} is no table of the data map"
    for number, name in enumerate(policy.gives_way):
        if name not in retention:
            yield ("gives_way", number), f"{name} is no retention policy"
    for table, column in policy.ends.items():
        if table not in schema or schema[table].kinds.get(column) != "time":
            yield ("ends", table), f"{column} is no time of {table}"
    for number, place in enumerate(policy.names):
        table, _, column = place.partition(".")
        if table not in schema or schema[table].kinds.get(column) != "text":
            yield ("names", number), f"{place} is no column of text"
    for table in about(policy, tables, schema):
        if "id" not in schema[table].kinds:
            yield ("of",), f"{table} is about them and has no column id, by which rows are walked"


def reaching(policy: Erasure, tables: Mapping[str, TableMap]) -> dict[str, TableMap]:
    """Return the data map with the further paths by which rows are about the policy's subject."""
    found = dict(tables)
    for table, path in policy.reaches.items():
        if table not in tables:  # Another database has tables of its own.
            continue
        known = tables[table].subject
        subject = known if path in known else [*known, path]
        found[table] = tables[table].model_copy(update={"subject": subject})
    return found


@dataclass(frozen=True)
class Way:
    """By `column` a row is about the subject: it refers to a row of `to`, which is."""

    column: str
    to: str


def ways(table: str, tables: Mapping[str, TableMap], schema: Schema) -> list[Way]:
    """Return the first steps of the paths by which rows of a table lead to whom they are about."""
    if table not in tables or table not in schema:
        return []
    found: list[Way] = []
    for path in tables[table].subject:
        column = path.partition(".")[0]
        for one in schema[table].references:
            way = Way(column, one.to)
            if one.column == column and way not in found and follow(schema, table, path):
                found.append(way)
    return found


def about(policy: Erasure, tables: Mapping[str, TableMap], schema: Schema) -> list[str]:
    """Return the tables with rows about the subject, in the order in which rows can be deleted."""
    known = {policy.of}
    if policy.digest is not None:
        known |= {name for name in tables if _has(schema, name, policy.digest)}
    return led_to(known, tables, schema)


def led_to(roots: Iterable[str], tables: Mapping[str, TableMap], schema: Schema) -> list[str]:
    """Return some tables, and all whose rows lead to theirs, in an order for deleting."""
    known = set(roots)
    while True:
        more = {
            name
            for name in tables
            if name not in known and any(one.to in known for one in ways(name, tables, schema))
        }
        if not more:
            return in_order(known, tables, schema)
        known |= more


def _has(schema: Schema, table: str, column: str) -> bool:
    return table in schema and column in schema[table].kinds


def in_order(names: Iterable[str], tables: Mapping[str, TableMap], schema: Schema) -> list[str]:
    """Return tables so that rows go before those that they refer to, by key or in a document."""
    wanted = set(names)
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(sorted(wanted), ()))
    for table in sorted(wanted):
        for to in sorted(_referred(table, tables, schema) & wanted - {table}):
            sorter.add(to, table)
    try:
        return list(sorter.static_order())
    except CycleError:
        # What needs each other is anonymized, for neither can go first: any order will do.
        return sorted(wanted)


def _referred(table: str, tables: Mapping[str, TableMap], schema: Schema) -> set[str]:
    keys = {one.to for one in schema[table].references}
    places = (
        place
        for name, column in tables[table].columns.items()
        for place in places_of(name, column).values()
    )
    return keys | {place.refers_to for place in places if place.refers_to is not None}


def legal(
    policy: Erasure, table: str, retention: Mapping[str, Retention]
) -> list[tuple[Retention, Purpose]]:
    """Return the purposes that keep rows of a table whatever is asked."""
    return [
        (one, purpose)
        for name, one in sorted(retention.items())
        if one.data == table and one.then != "anonymize" and name not in policy.gives_way
        for purpose in one.purposes
        if purpose.basis in LEGAL
    ]


def thinned(table: str, retention: Mapping[str, Retention]) -> list[str]:
    """Return the columns that go even from rows which a law keeps: it does not speak of them."""
    found: list[str] = []
    for _, one in sorted(retention.items()):
        if one.data != table or one.then != "anonymize" or one.columns is None:
            continue
        if not any(purpose.basis in LEGAL for purpose in one.purposes):
            found += [name for name in one.columns if name not in found]
    return found


def written(tables: Mapping[str, TableMap], schema: Schema) -> dict[str, list[str]]:
    """Return, by table, the columns in which people write freely, so that others may be named."""
    found: dict[str, list[str]] = {}
    for name, table in tables.items():
        if schema[name].key == "id" and "id" not in schema[name].kinds:
            continue
        columns = [
            column
            for column, said in table.columns.items()
            if schema[name].kinds[column] in ("text", "json")
            and not said.file
            and column not in schema[name].generated
            and not any(one.column == column for one in schema[name].references)
            and any(_is_free(table, one) for one in places_of(column, said).values())
        ]
        if columns:
            found[name] = columns
    return found


def _is_free(table: TableMap, place: PathMap) -> bool:
    """Say whether people write there what they like: not their own name, no id of a platform."""
    category, origin = place.category or table.category, place.origin or table.origin
    written_there = place.treatment in ("mask", "blank", "clear", "empty")
    return written_there and category != "identity" and origin != "platform"


Kind = Literal["names", "ends", "delete", "rest", "thin", "loosen"]


@dataclass(frozen=True)
class Step:
    """One kind of work on one table; what was done by it is counted under `outcome`."""

    kind: Kind
    table: str

    @property
    def outcome(self) -> str | None:
        """What a row that it touched is counted as; None where only a clock was started."""
        match self.kind:
            case "delete":
                return "erased"
            case "names":
                return "masked"
            case "rest" | "thin":
                return "anonymized"
            case "ends" | "loosen":
                return None


def steps(
    policy: Erasure,
    action: Action,
    tables: Mapping[str, TableMap],
    schema: Schema,
    order: Sequence[str] | None = None,
) -> tuple[Step, ...]:
    """Return all work in its order: names while they are known, then rows, children first.

    What cannot be deleted, because something that stays refers to it, is anonymized; from what a
    law keeps goes what the law does not speak of. `order` are the tables, where it is not the
    policy that says which.
    """
    order = about(policy, tables, schema) if order is None else order
    found = [Step("names", table) for table in written(tables, schema)] if policy.names else []
    found += [Step("ends", table) for table in policy.ends if table in order]
    if action == "erasure":
        found += [Step("delete", table) for table in order if table not in policy.anonymize]
    found += [Step("rest", table) for table in order]
    found += [Step("thin", table) for table in order]
    return tuple(found)


def loosening(
    policy: Erasure,
    action: Action,
    tables: Mapping[str, TableMap],
    schema: Schema,
    order: Sequence[str] | None = None,
) -> tuple[Step, ...]:
    """Return the last work, once nothing is held: ids that lead to the subject leave what stays."""
    order = about(policy, tables, schema) if order is None else order
    stay = order if action == "anonymization" else [one for one in order if one in policy.anonymize]
    return tuple(Step("loosen", table) for table in stay)


def paths(policy: Erasure, table: str, tables: Mapping[str, TableMap], schema: Schema) -> set[str]:
    """Return the columns by which rows are found to be about the subject.

    They stay until nothing is held: a held row below would be lost without them.
    """
    found = {one.column for one in ways(table, tables, schema)}
    if policy.digest is not None and table != policy.of and _has(schema, table, policy.digest):
        found.add(policy.digest)
    return found


State = Literal["planned", "approved", "erasing", "waiting", "blocked", "parked", "complete"]
#: A run may take it up in these.
OPEN: Sequence[State] = ("approved", "erasing", "waiting", "blocked", "parked")
