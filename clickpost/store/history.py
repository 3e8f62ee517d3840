"""Prefect's own history, in Prefect's database: counted, and deleted batch by batch.

Never a run that has not ended, nor anything of it. Each batch is one transaction; a purge that was
killed is simply begun again, for what is gone is no longer found.
"""
# ruff: noqa: S608  # Every piece of a statement is written here; values are parameters.

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from clickpost.store._base import Base, append
from clickpost.store.database import url_of

Connection = psycopg.AsyncConnection[dict[str, Any]]

BATCH = 500
#: So long a batch waits for a lock: the server's own work comes first.
_PATIENCE = "SET lock_timeout = '2s'"
_ENDED: LiteralString = "('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')"
#: Of a run that has not ended nothing goes, however old.
_OVER: LiteralString = (
    "NOT EXISTS (SELECT 1 FROM flow_run WHERE flow_run.id = {table}.flow_run_id"
    f" AND (flow_run.state_type IS NULL OR flow_run.state_type NOT IN {_ENDED}))"
)
_LOGS: LiteralString = f"timestamp < %(before)s AND {_OVER.replace('{table}', 'log')}"
_ARTIFACTS: LiteralString = f"created < %(before)s AND {_OVER.replace('{table}', 'artifact')}"
_RUNS: LiteralString = f"state_type IN {_ENDED} AND end_time < %(before)s"

_WHERE: dict[str, tuple[LiteralString, LiteralString]] = {
    "runs": ("flow_run", _RUNS),
    "logs": ("log", _LOGS),
    "artifacts": ("artifact", _ARTIFACTS),
    "events": ("events", "occurred < %(before)s"),
}

_DELETE: dict[str, LiteralString] = {
    "runs": f"""
WITH doomed AS (
    SELECT id FROM flow_run WHERE {_RUNS}
    ORDER BY end_time LIMIT %(size)s FOR UPDATE SKIP LOCKED
), tasks AS (
    SELECT count(*) AS n FROM task_run WHERE flow_run_id IN (SELECT id FROM doomed)
), lines AS (
    DELETE FROM log WHERE flow_run_id IN (SELECT id FROM doomed) RETURNING 1
), pages AS (
    DELETE FROM artifact WHERE flow_run_id IN (SELECT id FROM doomed) RETURNING key
), gone AS (
    DELETE FROM flow_run WHERE id IN (SELECT id FROM doomed) RETURNING 1
)
SELECT (SELECT count(*) FROM gone) AS runs, (SELECT n FROM tasks) AS task_runs,
       (SELECT count(*) FROM lines) AS logs, (SELECT count(*) FROM pages) AS artifacts,
       (SELECT array_agg(DISTINCT key) FROM pages) AS keys""",
    "logs": f"""
WITH gone AS (
    DELETE FROM log WHERE id IN (SELECT id FROM log WHERE {_LOGS} LIMIT %(size)s) RETURNING 1
)
SELECT count(*) AS logs FROM gone""",
    "artifacts": f"""
WITH gone AS (
    DELETE FROM artifact
    WHERE id IN (SELECT id FROM artifact WHERE {_ARTIFACTS} LIMIT %(size)s) RETURNING key
)
SELECT count(*) AS artifacts, array_agg(DISTINCT key) AS keys FROM gone""",
    "events": """
WITH doomed AS (
    SELECT id FROM events WHERE occurred < %(before)s ORDER BY occurred LIMIT %(size)s
), names AS (
    DELETE FROM event_resources WHERE event_id IN (SELECT id FROM doomed) RETURNING 1
), gone AS (
    DELETE FROM events WHERE id IN (SELECT id FROM doomed) RETURNING 1
)
SELECT count(*) AS events FROM gone""",
}
#: The newest artifact of each key has a row of its own, which would outlive it.
_TIDY: LiteralString = """
DELETE FROM artifact_collection
WHERE key = ANY(%(keys)s)
    AND NOT EXISTS (SELECT 1 FROM artifact WHERE artifact.id = artifact_collection.latest_id)"""


async def write_down(
    store: Base, policy: str, version: str, counts: Counter[str], actor: str
) -> None:
    """Write into our ledger what was deleted there, under which version of the policy."""
    async with store.transaction() as session:
        await append(session, "history.purged", policy, {"policy": version, **counts}, actor)


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Connection]:
    """Yield a connection to Prefect's database at `address`, in whatever driver's words."""
    plain = url_of(address.replace("postgresql+asyncpg", "postgresql"))
    given = plain.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await psycopg.AsyncConnection.connect(
        given, autocommit=True, row_factory=dict_row, connect_timeout=10
    )
    async with connection:
        await connection.execute(_PATIENCE)
        yield connection


async def tally(connection: Connection, kind: str, before: datetime) -> tuple[int, int]:
    """Return how much of a kind is older than `before` and has ended, and how much there is."""
    table, where = _WHERE[kind]
    query: LiteralString = (
        f"SELECT count(*) FILTER (WHERE {where}) AS found, count(*) AS total FROM {table}"
    )
    row = await (await connection.execute(query, {"before": before})).fetchone()
    assert row is not None
    return int(row["found"]), int(row["total"])


async def purge(
    connection: Connection, kind: str, before: datetime, size: int = BATCH
) -> AsyncIterator[Counter[str]]:
    """Delete what `tally` finds, batch by batch; yield the counts of each once it is on disk."""
    while True:
        async with connection.transaction():
            given = {"before": before, "size": size}
            row = await (await connection.execute(_DELETE[kind], given)).fetchone()
            assert row is not None
            if keys := [one for one in row.pop("keys", None) or [] if one]:
                await connection.execute(_TIDY, {"keys": keys})
        if not row[kind]:
            return
        yield Counter({name: int(count) for name, count in row.items()})
