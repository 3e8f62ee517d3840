"""Databases to lend to tests: wiped and lent again, for to make and drop one costs 0.2 s."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from deployments.postgres import Postgres

#: Seconds that a test's last connections have to go.
_GOING = 0.5
#: Bytes that a used database may be larger than a fresh one.
_WORN = 20_000_000

#: Whatever defines something writes a row here with a transaction number above all others, or
#: removes one: number of rows and highest number are the same only where nothing was defined.
_CATALOGS = {
    "pg_class": "true",
    "pg_attribute": "true",
    "pg_attrdef": "true",
    "pg_constraint": "true",
    "pg_index": "true",
    "pg_inherits": "true",
    "pg_trigger": "true",
    "pg_rewrite": "true",
    "pg_policy": "true",
    "pg_proc": "true",
    "pg_type": "true",
    "pg_enum": "true",
    "pg_extension": "true",
    "pg_event_trigger": "true",
    "pg_publication": "true",
    "pg_description": "true",
    "pg_default_acl": "true",
    "pg_largeobject_metadata": "true",
    # Made for a connection's temporary tables, and left empty.
    "pg_namespace": "nspname !~ '^pg_(toast_)?temp_'",
    "pg_db_role_setting": "setdatabase ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())",
}
_SCHEMA = " UNION ALL ".join(
    f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM {name} WHERE {which}"
    for name, which in _CATALOGS.items()
)
_TABLES = """
    SELECT format('%I.%I', nspname, relname)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema')
      AND nspname !~ '^pg_(toast|temp)'
    ORDER BY 1
"""
_SEQUENCES = """
    SELECT format('%I.%I', schemaname, sequencename), start_value, last_value FROM pg_sequences
"""
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

Rows = dict[str, list[str]]
Schema = list[tuple[str, int, int | None]]


@dataclass(frozen=True)
class Picture:
    """All that a database holds."""

    schema: Schema
    rows: Rows
    sequences: Mapping[str, tuple[int, int | None]]


def picture(connection: psycopg.Connection[Any]) -> Picture:
    """Take a picture of a database: what is defined in it, each row, each sequence."""
    return Picture(_schema(connection), _rows(connection), _sequences(connection))


class Databases:
    """Databases out of one template, of one process of the run."""

    def __init__(self, server: Postgres, template: str) -> None:
        self.server, self.template = server, template
        self._admin = psycopg.connect(server.url(), autocommit=True)
        self._free: list[str] = []
        self._fresh: Picture | None = None
        self._size = 0

    def close(self) -> None:
        """Lend no more; what waits goes with the server."""
        self._admin.close()

    def number_of(self, url: str) -> int:
        """Return the number that a database keeps under all its names."""
        query = "SELECT oid FROM pg_database WHERE datname = %s"
        [number] = self._admin.execute(query, [conninfo_to_dict(url)["dbname"]]).fetchone() or [0]
        return int(number)

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Lend a database as if it were just made out of the template; yield its address.

        It has a name of its own, so that what outlived another test never finds it.
        """
        name = self._free.pop() if self._free else self._made()
        yield self.server.url(name)
        self._take_back(name)

    def _made(self) -> str:
        name = _name()
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(self.template)
            )
        )
        if self._fresh is None:
            with psycopg.connect(self.server.url(name)) as connection:
                self._fresh, self._size = picture(connection), _size(connection)
        return name

    def _take_back(self, name: str) -> None:
        """Wipe what can be wiped for certain; drop the rest: used by someone, changed, or large."""
        if self._in_use(name):
            return self._drop(name)
        again = _name()
        self._admin.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                sql.Identifier(name), sql.Identifier(again)
            )
        )
        with psycopg.connect(self.server.url(again)) as connection:
            assert self._fresh is not None
            as_made = _schema(connection) == self._fresh.schema
            good = as_made and _size(connection) < self._size + _WORN
            if good:
                wipe(connection, self._fresh)
        return self._free.append(again) if good else self._drop(again)

    def _in_use(self, name: str) -> bool:
        """Say whether connections stay: whoever holds one may write again."""
        until = time.monotonic() + _GOING
        while (row := self._admin.execute(_OTHERS, [name]).fetchone()) != (0,):
            if row is None or time.monotonic() > until:
                return True
            time.sleep(0.005)
        return False

    def _drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def wipe(connection: psycopg.Connection[Any], fresh: Picture) -> None:
    """Bring the rows and sequences of a database, whose schema is `fresh`'s, back to `fresh`."""
    # Neither triggers nor foreign keys have a say: not even what is append-only stays.
    connection.execute("SET LOCAL session_replication_role = replica")
    seeds = {table for table, rows in fresh.rows.items() if rows}
    for table in sorted(seeds | _filled(connection, list(fresh.rows))):
        connection.execute(f"DELETE FROM {table}")
        for row in fresh.rows[table]:
            connection.execute(
                f"INSERT INTO {table} OVERRIDING SYSTEM VALUE"
                f" SELECT * FROM jsonb_populate_record(NULL::{table}, %s)",
                [row],
            )
    for name, (start, last) in _sequences(connection).items():
        was = fresh.sequences[name][1]
        if last != was:
            called = was is not None
            connection.execute("SELECT setval(%s, %s, %s)", [name, was or start, called])


def _name() -> str:
    return f"t_{uuid.uuid4().hex[:16]}"


def _schema(connection: psycopg.Connection[Any]) -> Schema:
    return connection.execute(_SCHEMA).fetchall()


def _rows(connection: psycopg.Connection[Any]) -> Rows:
    tables = [row[0] for row in connection.execute(_TABLES).fetchall()]
    found: Rows = {table: [] for table in tables}
    for table in _filled(connection, tables):
        query = f'SELECT to_jsonb("its row")::text FROM {table} AS "its row" ORDER BY 1'
        found[table] = [row[0] for row in connection.execute(query).fetchall()]
    return found


def _filled(connection: psycopg.Connection[Any], tables: list[str]) -> set[str]:
    """Return the tables that have rows."""
    query = " UNION ALL ".join(
        f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in tables
    )
    return {row[0] for row in connection.execute(query).fetchall()}


def _sequences(
    connection: psycopg.Connection[Any],
) -> dict[str, tuple[int, int | None]]:
    rows = connection.execute(_SEQUENCES).fetchall()
    return {name: (start, last) for name, start, last in rows}


def _size(connection: psycopg.Connection[Any]) -> int:
    [size] = connection.execute("SELECT pg_database_size(current_database())").fetchone() or [0]
    return int(size)
