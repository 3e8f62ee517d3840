"""Compares the data map with the tables that there are, and draws it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from clickpost.policy.privacy import CATEGORIES, TREATMENTS, DataMap, PathMap, TableMap, places_of


@dataclass(frozen=True)
class Reference:
    """A foreign key: `column` of `table` holds an id of `to`."""

    table: str
    column: str
    to: str


@dataclass(frozen=True, order=True)
class Tie:
    """A foreign key that no path follows: of several columns of `table`, or to no primary key.

    `pairs` are its columns, each with the one that it refers to.
    """

    table: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Columns:
    """What a table has; a column's kind is `text`, `bytes`, `json`, `time`, `net` or `other`."""

    kinds: Mapping[str, str]
    references: tuple[Reference, ...] = ()
    nullable: frozenset[str] = frozenset()
    key: str = "id"
    """The column by which rows are told apart, and that foreign keys refer to."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Of a further database: each column's type as SQL writes it."""
    ties: tuple[Tie, ...] = ()
    """Of a further database: the other foreign keys that refer to rows of this table."""
    generated: frozenset[str] = frozenset()
    """Columns that the database computes from others, and lets nobody write."""
    indexed: frozenset[str] = frozenset()
    """The columns with which an index begins: by these rows are found without reading them all."""
    searched: tuple[str, ...] = ()
    """The columns of the index by which names are found in what people wrote; () without one."""


Schema = Mapping[str, Columns]


@dataclass(frozen=True, order=True)
class Gap:
    """A place where map and tables disagree; `path` is where in the map it would stand."""

    place: str
    why: str
    path: tuple[str, ...] = field(default=(), compare=False)


def gaps(tables: Mapping[str, TableMap], schema: Schema) -> list[Gap]:
    """Return every column that is unmapped or vanished, and every path that leads nowhere."""
    found = [
        Gap(f"{table}.{column}", "is not in the data map")
        for table, there in schema.items()
        for column in there.kinds
        if table not in tables or column not in tables[table].columns
    ]
    for name, table in tables.items():
        found += _of_table(name, table, schema)
    return sorted(found)


def _of_table(name: str, table: TableMap, schema: Schema) -> Iterator[Gap]:
    there = schema.get(name)
    if there is None:
        yield Gap(name, "is in the data map, and no table any more", ("tables", name))
        return
    for column, said in table.columns.items():
        place = ("tables", name, "columns", column)
        if column not in there.kinds:
            yield Gap(f"{name}.{column}", "is in the data map, and no column any more", place)
            continue
        kind = there.kinds[column]
        if said.paths is not None and kind != "json":
            yield Gap(f"{name}.{column}", "has paths, and is no JSON column", place)
        if kind == "json" and said.paths is None and said.not_personal is None:
            yield Gap(f"{name}.{column}", "is a JSON column: map it by paths", place)
        for at, one in places_of(column, said).items():
            if why := _unfit(one, kind, nullable=column in there.nullable, whole=at == column):
                yield Gap(f"{name}.{at}", why, place)
            if one.refers_to is not None and one.refers_to not in schema:
                yield Gap(f"{name}.{at}", f"refers to {one.refers_to}, which is no table", place)
    for path in table.subject:
        if follow(schema, name, path) is None:
            yield Gap(name, f"subject {path} leads nowhere", ("tables", name, "subject"))
    if table.platform is not None and follow(schema, name, table.platform) is None:
        yield Gap(name, f"platform {table.platform} leads nowhere", ("tables", name, "platform"))


#: Which kinds of column each treatment can be done to; inside JSON all that make sense there.
_FITS = {
    "blank": {"text", "bytes"},
    "mask": {"text"},
    "digest": {"text"},
    "network": {"text", "net"},
    "month": {"time"},
    "empty": {"json"},
}


def _unfit(one: PathMap, kind: str, *, nullable: bool, whole: bool) -> str | None:
    """Say why a treatment cannot be done to what stands there, None where it can."""
    how = one.treatment
    if how is None or how == "keep":
        return None
    if not whole:
        fine = how in ("clear", "blank", "mask", "empty")
        return None if fine else f"{how} cannot be done inside JSON"
    if how == "clear":
        return None if nullable else "may not be NULL, so it cannot be cleared"
    if kind not in _FITS[how]:
        return f"{how} cannot be done to a column of this kind ({kind})"
    return None


@dataclass(frozen=True)
class Step:
    """One step of a path: from a row of `table` by `column` to a row of `to`."""

    table: str
    column: str
    to: str


def follow(schema: Schema, table: str, path: str) -> tuple[tuple[Step, ...], str, str] | None:
    """Return the steps of a path, and the table and column where it ends; None where nowhere."""
    *through, last = path.split(".")
    steps: list[Step] = []
    for column in through:
        there = schema.get(table)
        to = there and next((one.to for one in there.references if one.column == column), None)
        if not to:
            return None
        steps.append(Step(table, column, to))
        table = to
    if table not in schema or last not in schema[table].kinds:
        return None
    return tuple(steps), table, last


def unmapped_keys(table: TableMap, column: str, keys: Mapping[str, int]) -> list[Gap]:
    """Return the paths found in a JSON column that its map does not know.

    `keys` are paths as they stand in rows, `media[].alt`, and how often.
    """
    paths = table.columns[column].paths if column in table.columns else None
    if paths is None or "*" in paths:
        return []
    return [
        Gap(f"{column}.{key}", "is in rows, and not in the data map")
        for key in sorted(keys)
        if not any(_covers(path, key) for path in paths)
    ]


def _covers(path: str, key: str) -> bool:
    return key == path or key.startswith((f"{path}.", f"{path}[]"))


def unindexed(tables: Mapping[str, TableMap], schema: Schema) -> list[Gap]:
    """Return the columns by which rows are found to be about somebody, and no index begins with.

    By each an erasure would read its whole table, for each person anew.
    """
    return sorted(
        {
            Gap(
                f"{on}.{column}",
                f"no index begins with it: each erasure reads all of {on}",
                ("tables", name, "subject"),
            )
            for name, table in tables.items()
            for path in table.subject
            for on, column in _columns_of(schema, name, path)
            if column not in schema[on].indexed
        }
    )


def _columns_of(schema: Schema, table: str, path: str) -> Iterator[tuple[str, str]]:
    led = follow(schema, table, path)
    if led is not None:
        steps, *last = led
        yield from ((step.table, step.column) for step in steps)
        yield last[0], last[1]


@dataclass(frozen=True)
class Line:
    """One place of the map, ready to be shown."""

    table: str
    place: str
    category: str
    subject: str
    origin: str
    purpose: str
    treatment: str


def lines(data_map: DataMap) -> list[Line]:
    """Return every mapped place, and every one that is not personal, in the map's order."""
    return [
        _line(name, table, place, one)
        for name, table in data_map.tables.items()
        for column, said in table.columns.items()
        for place, one in places_of(column, said).items()
    ]


def _line(name: str, table: TableMap, place: str, one: PathMap) -> Line:
    if one.not_personal is not None:
        return Line(name, place, "", "", "", one.not_personal, "")
    return Line(
        name,
        place,
        one.category or table.category or "",
        ", ".join(table.subject),
        one.origin or table.origin,
        one.purpose or table.purpose or "",
        one.treatment or "",
    )


def as_markdown(data_map: DataMap) -> str:
    """Return the map as a page with one table for each table and store."""
    parts = [
        "# Data map",
        "",
        "What stands where, about whom, what for, and what anonymization",
        "",
    ]
    parts[2] = "What stands where, about whom, what for, and what anonymization leaves of it."
    by_table: dict[str, list[Line]] = {}
    for line in lines(data_map):
        by_table.setdefault(line.table, []).append(line)
    for name, table in data_map.tables.items():
        subject = ", ".join(f"`{one}`" for one in table.subject) or "nobody"
        parts += [f"## {name}", "", f"{table.what} About: {subject}.", ""]
        parts += ["| Place | Category | From | What for | Anonymized |", "|---|---|---|---|---|"]
        for line in by_table[name]:
            if line.category:
                left = TREATMENTS[line.treatment]
                said = (CATEGORIES[line.category], line.origin, line.purpose, left)
            else:
                said = ("not personal", "", line.purpose, "")
            parts.append(f"| `{line.place}` | {' | '.join(_cell(one) for one in said)} |")
        parts.append("")
    parts += ["## Beside the tables", "", "| Store | Where | Holds | What for | Ends |"]
    parts.append("|---|---|---|---|---|")
    for name, store in data_map.stores.items():
        holds = (
            store.holds if store.category else f"{store.holds} Not personal: {store.not_personal}"
        )
        said_of = (name, store.where, holds, store.purpose, store.ends)
        parts.append(f"| {' | '.join(_cell(one) for one in said_of)} |")
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ").strip()
