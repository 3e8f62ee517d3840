"""A purge over four related tables: beside a statement by hand, row by row, and a publisher."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from benchmarks._postgres import bare, server
from benchmarks._publisher import publishing
from benchmarks._show import show
from clickpost.policy import keeping
from clickpost.policy.privacy import Retention
from clickpost.settings import PROJECT
from clickpost.store import Store
from clickpost.store.database import migrate
from clickpost.store.expiring import Compiled
from clickpost.store.purging import Purging
from clickpost.store.schema import in_code
from clickpost.store.vault import Vault
from deployments.postgres import Postgres

#: Half of the posts have expired; each has a variant, a delivery and its attempt.
_FILL = (
    """
    INSERT INTO connection (id, workspace_id, platform, name, api_base, options, limits, status,
                            secrets, data_key, key_id, created_at, updated_at)
    VALUES ('account_1', 'ws_default', 'mastodon', 'bench', 'https://m.example', '{}', '{}',
            'active', '', '', 'k', now(), now())
    """,
    """
    INSERT INTO post (id, workspace_id, body, content_hash, draft, late, created_at)
    SELECT 'post_' || lpad(n::text, 9, '0'), 'ws_default',
           jsonb_build_object('post', jsonb_build_object('text', repeat('words ', 20) || n)),
           md5(n::text), false, 'publish',
           CASE mod(n, 2) WHEN 0 THEN timestamptz '2020-01-01' ELSE now() END
    FROM generate_series(1, {posts}) n
    """,
    """
    INSERT INTO variant (id, post_id, target, body)
    SELECT 'variant_' || id, id, 'mastodon', '{"text": "shorter"}' FROM post
    """,
    """
    INSERT INTO delivery (id, post_id, connection_id, state, key, attempts, remote_id, created_at,
                          updated_at)
    SELECT 'delivery_' || id, id, 'account_1', 'live', id, 1, id, created_at, created_at FROM post
    """,
    """
    INSERT INTO attempt (id, delivery_id, number, intent, started_at, worker, part)
    SELECT 'attempt_' || id, id, 1, '{}', created_at, 'w', 0 FROM delivery
    """,
)
_TABLES = ("post", "variant", "delivery", "attempt")
#: What a person would write for the same: children first, one transaction.
_BY_HAND = """
WITH p AS (SELECT id FROM post WHERE created_at <= now() - interval '1096 days'),
d AS (SELECT id FROM delivery WHERE post_id IN (SELECT id FROM p)),
a AS (DELETE FROM attempt WHERE delivery_id IN (SELECT id FROM d)),
v AS (DELETE FROM variant WHERE post_id IN (SELECT id FROM p)),
e AS (DELETE FROM delivery WHERE id IN (SELECT id FROM d))
DELETE FROM post WHERE id IN (SELECT id FROM p)
"""
#: What tools do that know rows, and no sets: each statement by itself.
_ROW_BY_ROW = (
    "DELETE FROM attempt WHERE id = 'attempt_delivery_' || %s",
    "DELETE FROM delivery WHERE id = 'delivery_' || %s",
    "DELETE FROM variant WHERE id = 'variant_' || %s",
    "DELETE FROM post WHERE id = %s",
)
#: So many posts go row by row, and so long a publisher is measured alone, in seconds.
_SAMPLE, _ALONE = 500, 5.0


@dataclass
class Measured:
    """Rows a second; milliseconds of the publisher's statements; megabytes of this process."""

    by_hand: float
    row_by_row: float
    ours: float
    alone: Sequence[float]
    beside: Sequence[float]
    early: int
    late: int


def main(*, as_json: bool, rows: int) -> None:
    """Measure on an embedded PostgreSQL of its own, which is removed afterwards."""
    posts = rows // len(_TABLES)
    with server() as postgres:
        found = _measured(postgres, posts)
    title = f"purge of {posts * 2} of {posts * 4} rows in four tables"
    show(title, _lines(found), as_json=as_json)


def _measured(postgres: Postgres, posts: int) -> Measured:
    first, second = (_filled(postgres, name, posts) for name in ("first", "second"))
    slow = _timed(first, lambda: _row_by_row(first))
    hand = _timed(first, lambda: _by_hand(first))
    with publishing(second) as publisher:
        time.sleep(_ALONE)
        alone = publisher.stop()
    memory: list[int] = []
    with publishing(second) as publisher:
        ours = _timed(second, lambda: asyncio.run(_ours(second, memory)))
        beside = publisher.stop()
    return Measured(hand, slow, ours, alone, beside, memory[0], memory[-1])


def _lines(found: Measured) -> list[dict[str, Any]]:
    p99 = [sorted(times)[int(len(times) * 0.99)] for times in (found.alone, found.beside)]
    return [
        {
            "measure": "rows a second",
            "value": f"{found.ours:.0f}",
            "floor": f"{found.by_hand:.0f} (one hand-written statement)",
            "ratio": f"{found.ours / found.by_hand:.2f}",
            "aim": ">= 0.6",
        },
        {
            "measure": "the same",
            "value": f"{found.ours:.0f}",
            "floor": f"{found.row_by_row:.0f} (row by row)",
            "ratio": f"{found.ours / found.row_by_row:.0f}",
            "aim": ">= 50",
        },
        {
            "measure": "a publisher's statements meanwhile, p99 in ms",
            "value": f"{p99[1]:.2f}",
            "floor": f"{p99[0]:.2f} (without a purge)",
            "ratio": f"{p99[1] / p99[0]:.2f}",
            "aim": "<= 2",
        },
        {
            "measure": "peak memory of the process, MB",
            "value": found.late,
            "floor": f"{found.early} (after the first batches)",
            "ratio": f"{found.late / found.early:.2f}",
            "aim": "constant",
        },
    ]


def _filled(postgres: Postgres, name: str, posts: int) -> str:
    postgres.make(name)
    url = postgres.url(name)
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection, bare(connection):
        for said in _FILL:
            connection.execute(sql.SQL(said.replace("{posts}", str(posts))))
    return url


def _timed(url: str, work: Any) -> float:
    """Return rows that went a second."""
    before = _count(url)
    begun = time.perf_counter()
    work()
    took = time.perf_counter() - begun
    return (before - _count(url)) / took


def _count(url: str) -> int:
    counts = " + ".join(f"(SELECT count(*) FROM {one})" for one in _TABLES)
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT {counts}").fetchone()
    return int(row[0]) if row else 0


def _by_hand(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(_BY_HAND)


def _row_by_row(url: str) -> None:
    query = "SELECT id FROM post WHERE created_at <= now() - interval '1096 days' LIMIT %s"
    with psycopg.connect(url, autocommit=True) as connection:
        for (post,) in connection.execute(query, [_SAMPLE]).fetchall():
            for said in _ROW_BY_ROW:
                connection.execute(said, [post])


async def _ours(url: str, memory: list[int]) -> None:
    found = keeping.load(PROJECT / "policies")
    policy: Retention = found.retention["posts"]
    compiled = Compiled(policy, found.tables.tables, in_code())
    store = await Store.open(url, Vault(bytes(32)))
    purging = Purging(store.engine, store.vault)
    moment = datetime.now(UTC)
    run = await purging.begin_purge(await purging.tally(compiled, moment), "bench", moment, None)
    async for batch in purging.purge(run, compiled):
        if batch.number <= 3 or batch.number % 100 == 0:
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    await purging.end_purge(run)
    memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    memory[:] = memory[min(2, len(memory) - 1) :]
    await store.close()
