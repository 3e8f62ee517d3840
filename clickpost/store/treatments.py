"""Says treatments in SQL, so that no value leaves the database; each may be done twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clickpost.datamap import Columns
from clickpost.policy.privacy import ColumnMap, Treatment, places_of

#: What a digest looks like; who reads one knows that its key is gone.
DIGEST = "^gone:[0-9a-f]{64}$"


@dataclass(frozen=True)
class Change:
    """A column's new value, and whether a row still has another one, both as SQL."""

    column: str
    value: str
    differs: str


def quoted(name: str) -> str:
    """Return a name as SQL writes it; `crm.person` is a table of the schema crm."""
    return '"' + name.replace('"', '""').replace(".", '"."') + '"'


def literal(value: str) -> str:
    """Return a text as SQL writes it; colons are kept from looking like parameters."""
    return "'" + value.replace("'", "''").replace(":", r"\:") + "'"


def changes(mapped: Mapping[str, ColumnMap], names: list[str], table: Columns) -> list[Change]:
    """Return what anonymization does to the columns `names` of one row `r`."""
    return [change for name in names if (change := _change(name, mapped[name], table)) is not None]


def _change(name: str, said: ColumnMap, table: Columns) -> Change | None:
    column = f"r.{quoted(name)}"
    if name in table.generated:  # It follows the columns that it is made of.
        return None
    if table.kinds[name] == "json":
        return _document_change(name, said, table)
    if said.treatment in (None, "keep"):
        return None
    value, differs = _plain(column, said.treatment, table.kinds[name], room(table, name))
    return Change(name, value, differs)


def room(table: Columns, name: str) -> int | None:
    """Return how many characters a column takes, None where there is no limit."""
    found = re.match(r"character(?: varying)?\((\d+)\)", table.types.get(name, ""))
    return int(found[1]) if found else None


def fitting(value: str, limit: int | None) -> str:
    """Return a value cut to the room that a column has."""
    return value if limit is None else f"left({value}, {limit})"


def _plain(
    column: str, how: Treatment | None, kind: str, limit: int | None = None
) -> tuple[str, str]:
    match how:
        case "clear":
            return "NULL", f"{column} IS NOT NULL"
        case "blank":
            value = "CAST('' AS bytea)" if kind == "bytes" else "''"
            return value, f"octet_length({column}) > 0"
        case "mask":
            value = fitting(f"privacy_mask({column})", limit)
        case "network" if kind == "net":
            length = f"CASE family({column}) WHEN 4 THEN 24 ELSE 48 END"
            value = f"CAST(network(set_masklen(CAST({column} AS inet), {length})) AS inet)"
        case "network":
            value = fitting(f"privacy_network({column})", limit)
        case "month":
            value = f"date_trunc('month', {column}, 'UTC')"
        case "digest":
            # HMAC-SHA256 without an extension; both pads come as parameters.
            inner = rf"sha256(CAST(:inner AS bytea) || convert_to({column}, 'UTF8'))"
            value = f"'gone\\:' || encode(sha256(CAST(:outer AS bytea) || {inner}), 'hex')"
            shape = literal(DIGEST if limit is None else DIGEST.replace("64", str(_hex(limit))))
            value = fitting(value, limit)
            value = f"CASE WHEN {column} ~ {shape} THEN {column} ELSE {value} END"
            return value, f"{column} !~ {shape}"
        case _:
            raise AssertionError(how)
    return value, f"{column} IS DISTINCT FROM {value}"


def _hex(limit: int) -> int:
    """Return how much of a digest there is room for, beside the word before it."""
    return min(64, limit - len("gone:"))


def is_plain_json(table: Columns, name: str) -> bool:
    """Say whether a column is JSON as text, which knows neither equality nor paths."""
    return table.types.get(name) == "json"


def _document_change(name: str, said: ColumnMap, table: Columns) -> Change | None:
    column = f"r.{quoted(name)}"
    plain = is_plain_json(table, name)
    column = f"CAST({column} AS jsonb)" if plain else column
    value = _document(column, said, nullable=name in table.nullable)
    if value is None:
        return None
    differs = f"{column} IS DISTINCT FROM {value}"
    return Change(name, f"CAST({value} AS json)" if plain else value, differs)


def _document(column: str, said: ColumnMap, *, nullable: bool) -> str | None:
    """Return a JSON column with every mapped path treated; None where nothing changes."""
    value = column
    for path, one in places_of("", said).items():
        if one.treatment in (None, "keep"):
            continue
        if path.removeprefix(".") == "*":
            if one.treatment == "clear" and nullable:
                return "NULL"
            return f"privacy_json({column}, '{{}}', 'empty')"
        steps = ", ".join(literal(step) for step in steps_of(path.removeprefix(".")))
        value = f"privacy_json({value}, ARRAY[{steps}], {literal(str(one.treatment))})"
    return None if value == column else value


def steps_of(path: str) -> list[str]:
    """Return the steps of `media[].alt`: media, [], alt."""
    return [step for step in path.replace("[]", ".[]").split(".") if step]


def jsonpath_of(path: str) -> str:
    """Return `media[].alt` as PostgreSQL's jsonpath."""
    return "$" + "".join(
        "[*]" if step == "[]" else '."' + step.replace('"', r"\"") + '"' for step in steps_of(path)
    )
