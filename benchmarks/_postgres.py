"""A PostgreSQL of its own for a benchmark, which is removed afterwards, however it ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks._house import ended_well
from deployments.postgres import Postgres


@contextmanager
def server() -> Iterator[Postgres]:
    """Yield a running server in a folder of its own."""
    with ended_well(), tempfile.TemporaryDirectory(prefix="clickpost-bench-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # PostgreSQL runs as another user where we are root.
        made = Postgres(root)
        made.start()
        try:
            yield made
        finally:
            made.stop()


@contextmanager
def bare(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Take indexes and keys away while a database is filled: made at the end they cost a tenth."""
    connection.execute("SET session_replication_role = replica")
    connection.execute("SET synchronous_commit = off")
    connection.execute("SET maintenance_work_mem = '512MB'")
    made = connection.execute(
        """
        SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)
        """
    ).fetchall()
    for name, _ in made:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.SQL(name)))
    yield
    for _, said in made:
        connection.execute(said)
    connection.execute("VACUUM ANALYZE")
