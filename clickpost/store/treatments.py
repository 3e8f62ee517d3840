"""Says treatments in SQL, so that no value leaves the database; each may be done twice."""

from __future__ import annotations

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
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Return a text as SQL writes it; colons are kept from looking like parameters."""
    return "'" + value.replace("'", "''").replace(":", r"\:") + "'"


def changes(mapped: Mapping[str, ColumnMap], names: list[str], table: Columns) -> list[Change]:
    """Return what anonymization does to the columns `names` of one row `r`."""
    return [change for name in names if (change := _change(name, mapped[name], table)) is not None]


def _change(name: str, said: ColumnMap, table: Columns) -> Change | None:
    column = f"r.{quoted(name)}"
    if table.kinds[name] == "json":
        value = _document(column, said, nullable=name in table.nullable)
        return Change(name, value, f"{column} IS DISTINCT FROM {value}") if value else None
    if said.treatment in (None, "keep"):
        return None
    value, differs = _plain(column, said.treatment, table.kinds[name])
    return Change(name, value, differs)


def _plain(column: str, how: Treatment | None, kind: str) -> tuple[str, str]:
    match how:
        case "clear":
            return "NULL", f"{column} IS NOT NULL"
        case "blank":
            value = "CAST('' AS bytea)" if kind == "bytes" else "''"
            return value, f"octet_length({column}) > 0"
        case "mask":
            value = f"privacy_mask({column})"
        case "network":
            value = f"privacy_network({column})"
        case "month":
            value = f"date_trunc('month', {column}, 'UTC')"
        case "digest":
            # HMAC-SHA256 without an extension; both pads come as parameters.
            inner = rf"sha256(CAST(:inner AS bytea) || convert_to({column}, 'UTF8'))"
            value = f"'gone\\:' || encode(sha256(CAST(:outer AS bytea) || {inner}), 'hex')"
            shape = literal(DIGEST)
            value = f"CASE WHEN {column} ~ {shape} THEN {column} ELSE {value} END"
            return value, f"{column} !~ {shape}"
        case _:
            raise AssertionError(how)
    return value, f"{column} IS DISTINCT FROM {value}"


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
