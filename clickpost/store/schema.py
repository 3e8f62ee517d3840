"""Which tables and columns there are: as the code says, and as the database has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.types import DateTime, LargeBinary, String
from sqlmodel import SQLModel

from clickpost.datamap import Columns, Reference, Schema, Tie
from clickpost.settings import Settings
from clickpost.store import said, tables
from clickpost.store.database import url_of
from clickpost.store.treatments import quoted

#: Alembic's own: one row, the version of the schema.
_NOT_OURS = {"alembic_version"}
#: So many of the newest rows are looked at for JSON keys that the map does not know.
_SAMPLE = 2000


def in_code() -> Schema:
    """Return the schema as the table classes say it, for where no database is reachable."""
    assert tables
    return _of(SQLModel.metadata)


def in_database(connection: Connection) -> Schema:
    """Return the schema as the database has it."""
    found = MetaData()
    names = [name for name in inspect(connection).get_table_names() if name not in _NOT_OURS]
    found.reflect(connection, only=names)
    return _of(found)


#: All that a schema is read from, as one digest: what has the same is the same.
_FINGERPRINT = text(
    r"""
    SELECT md5(string_agg(said, E'\n' ORDER BY said)) FROM (
        SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                         a.attnotnull) AS said
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
          AND c.relnamespace = CAST(current_schema() AS regnamespace)
        UNION ALL
        SELECT concat_ws(' ', CAST(conrelid AS regclass), pg_get_constraintdef(oid))
        FROM pg_constraint WHERE connamespace = CAST(current_schema() AS regnamespace)
        UNION ALL
        SELECT pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = CAST(current_schema() AS regnamespace)
    ) AS parts
    """
)
#: Schemas by their digest: reading one takes fifty times as long as asking whether it changed.
_READ: dict[str, Schema] = {}


async def at_present(engine: AsyncEngine) -> Schema:
    """Return the schema as the database has it now; read again only where it changed."""
    async with engine.connect() as connection:
        digest = str(await connection.scalar(_FINGERPRINT))
        if digest not in _READ:
            if len(_READ) > 3:
                _READ.clear()
            _READ[digest] = await connection.run_sync(in_database)
        return _READ[digest]


def at_hand(settings: Settings) -> Schema:
    """Return the schema of the database that `settings` name, else that of the code.

    A database counts where it answers within two seconds and its tables are made.
    """
    file = settings.home / "database.url"
    if settings.database_url is None and not file.is_file():
        return in_code()
    given = settings.database_url.get_secret_value() if settings.database_url else file.read_text()
    engine = create_engine(
        url_of(given.strip()), poolclass=NullPool, connect_args={"connect_timeout": 2}
    )
    try:
        with engine.connect() as connection:
            return in_database(connection) or in_code()
    except OperationalError:
        return in_code()
    finally:
        engine.dispose()


def _of(metadata: MetaData) -> Schema:
    return {
        table.name: _columns(table)
        for table in metadata.sorted_tables
        if table.name not in _NOT_OURS
    }


#: All columns of the tables that an application made itself, each with its plain type.
_FURTHER = """
SELECT CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname
           AS of, a.attname AS name, NOT (a.attnotnull OR t.typnotnull) AS nullable,
       a.attgenerated <> '' AS generated, t.typtype IN ('b', 'd') AND t.typcategory <> 'A'
           AS plain,
       CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
           ELSE format_type(a.atttypid, a.atttypmod) END AS type,
       coalesce(a.attnum = k.conkey[1] AND cardinality(k.conkey) = 1, false) AS is_key,
       c.relkind = 'p' AS has_parts,
       CASE WHEN f.at = g.conkey[1] THEN f.to END AS refers_to
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
LEFT JOIN LATERAL (
    SELECT r.confkey[1] AS at, r.confrelid AS id,
           CASE WHEN pg_table_is_visible(r.confrelid) THEN '' ELSE m.nspname || '.' END
               || o.relname AS to
    FROM pg_constraint r
    JOIN pg_class o ON o.oid = r.confrelid JOIN pg_namespace m ON m.oid = o.relnamespace
    WHERE r.conrelid = c.oid AND r.contype = 'f' AND r.conkey = ARRAY[a.attnum]
) f ON true
LEFT JOIN pg_constraint g ON g.conrelid = f.id AND g.contype = 'p' AND cardinality(g.conkey) = 1
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, a.attnum
"""
#: The foreign keys that no path follows, each with its columns.
_TIES = """
SELECT CASE WHEN pg_table_is_visible(o.oid) THEN '' ELSE m.nspname || '.' END || o.relname AS to,
       CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname AS of,
       array_agg(a.attname ORDER BY u.nth) AS columns, array_agg(b.attname ORDER BY u.nth) AS theirs
FROM pg_constraint r
JOIN pg_class c ON c.oid = r.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class o ON o.oid = r.confrelid JOIN pg_namespace m ON m.oid = o.relnamespace
LEFT JOIN pg_constraint k ON k.conrelid = o.oid AND k.contype = 'p'
CROSS JOIN LATERAL unnest(r.conkey, r.confkey) WITH ORDINALITY AS u (mine, theirs, nth)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.mine
JOIN pg_attribute b ON b.attrelid = o.oid AND b.attnum = u.theirs
WHERE r.contype = 'f' AND NOT c.relispartition AND NOT o.relispartition
  AND (cardinality(r.conkey) > 1 OR r.confkey IS DISTINCT FROM k.conkey)
GROUP BY r.oid, 1, 2 ORDER BY 1, 2, r.oid
"""
#: What a type is to the treatments; all others can only be cleared, or kept.
_KINDS = {
    "json": "json", "jsonb": "json", "bytea": "bytes", "date": "time", "timestamp": "time",
    "inet": "net", "cidr": "net", "text": "text", "character": "text", "citext": "text",
}  # fmt: skip


def in_further(connection: Connection) -> Schema:
    """Return the tables of another application's database, each with its key and plain types.

    A key of several columns is none: such rows are told apart by where they lie (`ctid`), for as
    long as a statement takes. A table that no search path finds has its schema's name before it.
    """
    rows = connection.execute(text(_FURTHER)).all()
    ties = connection.execute(text(_TIES)).all()
    return {
        name: replace(
            _further(name, [row for row in rows if row.of == name]),
            ties=tuple(
                Tie(one.of, tuple(zip(one.columns, one.theirs, strict=True)))
                for one in ties
                if one.to == name
            ),
        )
        for name in sorted({row.of for row in rows} - _NOT_OURS)
    }


def _further(name: str, rows: Sequence[Any]) -> Columns:
    keys = {row.name for row in rows if row.is_key}
    types = {row.name: row.type for row in rows}
    if not keys:
        types["ctid"] = "tid"
        if any(row.has_parts for row in rows):  # Rows of two parts may lie in places of one name.
            types["tableoid"] = "oid"
    references = {Reference(name, row.name, row.refers_to) for row in rows if row.refers_to}
    return Columns(
        {row.name: _further_kind(row) for row in rows},
        tuple(sorted(references, key=lambda one: (one.column, one.to))),
        frozenset(row.name for row in rows if row.nullable),
        key=keys.pop() if keys else "ctid",
        types=types,
        generated=frozenset(row.name for row in rows if row.generated),
    )


def _further_kind(row: Any) -> str:
    return (
        _KINDS.get(row.type.partition("(")[0].partition(" ")[0], "other") if row.plain else "other"
    )


def _columns(table: Table) -> Columns:
    return Columns(
        {one.name: _kind(one.type) for one in table.columns},
        tuple(
            Reference(table.name, key.parent.name, key.column.table.name)
            for key in sorted(table.foreign_keys, key=lambda key: key.parent.name)
        ),
        frozenset(one.name for one in table.columns if one.nullable),
        indexed=_indexed(table),
        searched=_searched(table),
    )


def _indexed(table: Table) -> frozenset[str]:
    """Return the columns with which an index over all rows begins, a key's too."""
    lists = [list(one.columns) for one in table.indexes if _is_whole(one)]
    lists += [
        list(one.columns)
        for one in table.constraints
        if isinstance(one, PrimaryKeyConstraint | UniqueConstraint)
    ]
    return frozenset(columns[0].name for columns in lists if columns)


def _is_whole(index: Index) -> bool:
    """Say whether an index has all rows in an order."""
    options = index.dialect_options["postgresql"]
    return options["where"] is None and (options["using"] or "btree") == "btree"


def _searched(table: Table) -> tuple[str, ...]:
    made_of = [str(expression) for one in table.indexes for expression in one.expressions]
    return said.columns_of(made_of, [one.name for one in table.columns])


def _kind(type_: Any) -> str:
    if "JSON" in type(type_).__name__.upper():
        return "json"
    if isinstance(type_, DateTime):
        return "time"
    if isinstance(type_, LargeBinary):
        return "bytes"
    return "text" if isinstance(getattr(type_, "impl", type_), String) else "other"


#: Every path of the documents, `media[].alt`, that ends in a value; the values are left there.
_WALK = """
WITH RECURSIVE walk (path, node) AS (
    SELECT * FROM (
        SELECT ''::text, CAST({column} AS jsonb) FROM {table} WHERE {column} IS NOT NULL
        ORDER BY ctid DESC LIMIT :most
    ) AS newest
    UNION ALL
    SELECT inner_.path, inner_.node FROM walk CROSS JOIN LATERAL (
        SELECT CASE WHEN walk.path = '' THEN pair.key ELSE walk.path || '.' || pair.key END
                   AS path, pair.value AS node
        FROM jsonb_each(CASE jsonb_typeof(walk.node) WHEN 'object' THEN walk.node ELSE '{{}}' END)
            AS pair
        UNION ALL
        SELECT walk.path || '[]', item.value
        FROM jsonb_array_elements(
            CASE jsonb_typeof(walk.node) WHEN 'array' THEN walk.node ELSE '[]' END) AS item
    ) AS inner_
)
SELECT path, count(*) AS times FROM walk
WHERE path <> '' AND jsonb_typeof(node) NOT IN ('object', 'array') GROUP BY path
"""


async def json_keys(engine: AsyncEngine, table: str, column: str) -> Mapping[str, int]:
    """Return every path of the newest rows' documents, and how often: keys only, no values."""
    query = text(_WALK.format(table=quoted(table), column=quoted(column)))
    async with engine.connect() as connection:
        rows = await connection.execute(query, {"most": _SAMPLE})
        return {row.path: row.times for row in rows}
