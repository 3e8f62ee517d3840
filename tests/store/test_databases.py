"""A database that was lent before is as a fresh one, or is not lent again."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.databases import Databases, picture

#: A value of each type that our columns have.
VALUES = {
    "bool": "true",
    "bytea": r"'\x01'",
    "date": "'2026-11-24'",
    "float8": "1",
    "int4": "1",
    "int8": "1",
    "interval": "'1 s'",
    "jsonb": "'{}'",
    "json": "'{}'",
    "inet": "'192.0.2.1'",
    "numeric": "1",
    "text": "'x'",
    "timestamptz": "now()",
    "uuid": "gen_random_uuid()",
    "varchar": "'x'",
}


def filled(connection: psycopg.Connection[Any]) -> None:
    """Give every table another row, change those that were there, and count every sequence up."""
    connection.execute("SET session_replication_role = replica")  # Rows need not fit together.
    for table in picture(connection).rows:
        connection.execute(f"DELETE FROM {table}")
        columns = connection.execute(
            "SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid"
            " WHERE attrelid = CAST(%s AS regclass) AND attnum > 0 AND attgenerated = ''"
            " AND NOT attisdropped",
            [table],
        ).fetchall()
        row = {name: VALUES[kind] for name, kind in columns}
        names = sql.SQL(", ").join(map(sql.Identifier, row))
        connection.execute(
            sql.SQL(f"INSERT INTO {table} ({{}}) OVERRIDING SYSTEM VALUE VALUES ({{}})").format(
                names, sql.SQL(", ".join(row.values()))
            )
        )
    for name in picture(connection).sequences:
        connection.execute("SELECT nextval(%s)", [name])


def test_a_wiped_database_is_as_a_fresh_one(databases: Databases) -> None:
    made = Databases(databases.server, databases.template)
    with made.lent() as url:
        number = made.number_of(url)
        with psycopg.connect(url, autocommit=True) as connection:
            fresh = picture(connection)
            filled(connection)
            used = picture(connection)
    assert all(used.rows.values())
    assert not [table for table, rows in used.rows.items() if rows == fresh.rows[table]]
    assert not [one for one, (_, last) in used.sequences.items() if last is None]
    with made.lent() as again:
        assert made.number_of(again) == number  # It is the same one ...
        assert again != url  # ... which nobody finds who knew it before.
        with psycopg.connect(again) as connection:
            assert picture(connection) == fresh
    made.close()


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE another (id int)",
        "ALTER TABLE member ADD COLUMN shoe_size text",
        "ALTER TABLE member DROP COLUMN name",
        "ALTER TABLE member ALTER COLUMN name SET DEFAULT 'x'",
        "ALTER TABLE delivery ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE ledger DISABLE TRIGGER ledger_append_only",
        "CREATE OR REPLACE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'",
        "CREATE SCHEMA another",
        "DROP TABLE attempt CASCADE",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = on', current_database()); END $$",
        "SELECT lo_create(0)",
    ],
)
def test_whatever_alters_a_database_is_noticed(database_url: str, change: str) -> None:
    with psycopg.connect(database_url) as connection:
        before = picture(connection).schema
        connection.execute(change)
        assert picture(connection).schema != before
        connection.rollback()
        assert picture(connection).schema == before


def test_a_database_that_was_altered_is_not_lent_again(databases: Databases) -> None:
    made = Databases(databases.server, databases.template)
    with made.lent() as url:
        number = made.number_of(url)
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE member ADD COLUMN shoe_size text")
    with made.lent() as another:
        assert made.number_of(another) != number
    made.close()


def test_a_database_that_someone_still_uses_is_not_lent_again(databases: Databases) -> None:
    made = Databases(databases.server, databases.template)
    with made.lent() as url:
        number = made.number_of(url)
        kept = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        kept.execute("SELECT 1")
    with made.lent() as another:
        assert made.number_of(another) != number
    made.close()
