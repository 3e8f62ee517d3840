"""Rows a second of a purge over three related tables, beside one hand-written statement."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import _house
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

#: Half of the tickets have expired; each has two messages, one of them an attachment.
_FILL = """
INSERT INTO ticket (id, title, status, email, opened_at, closed_at)
SELECT 'ticket_' || lpad(n::text, 9, '0'), 'Help', 'closed', n || '@example.org',
       '2020-01-01', CASE n % 2 WHEN 0 THEN timestamptz '2020-01-01' ELSE now() END
FROM generate_series(1, {tickets}) n;
INSERT INTO ticket_message (id, ticket_id, author, body, at)
SELECT id || m, id, 'person', repeat('words ', 20), '2020-01-01'
FROM ticket, generate_series(1, 2) m;
INSERT INTO ticket_attachment (id, message_id, name, mime, bytes, sha256, stored_at)
SELECT id || 'f', id, 'a.png', 'image/png', 1, 's', '/nowhere/' || id
FROM ticket_message WHERE id LIKE '%1';
ANALYZE;
"""
#: What a person would write for the same: children first, one transaction.
_BY_HAND = """
WITH t AS (SELECT id FROM ticket WHERE closed_at <= now() - interval '730 days'),
m AS (SELECT id FROM ticket_message WHERE ticket_id IN (SELECT id FROM t)),
a AS (DELETE FROM ticket_attachment WHERE message_id IN (SELECT id FROM m)),
b AS (DELETE FROM ticket_message WHERE id IN (SELECT id FROM m))
DELETE FROM ticket WHERE id IN (SELECT id FROM t)
"""
_COUNT = """
SELECT (SELECT count(*) FROM ticket) + (SELECT count(*) FROM ticket_message)
     + (SELECT count(*) FROM ticket_attachment)
"""


def main(*, as_json: bool, tickets: int) -> None:
    """Measure on an embedded PostgreSQL of its own, which is removed afterwards."""
    with _house.ended_well(), tempfile.TemporaryDirectory(prefix="clickpost-bench-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # PostgreSQL runs as another user where we are root.
        server = Postgres(root)
        server.start()
        try:
            rows = _measured(server, tickets)
        finally:
            server.stop()
    show(f"purge of {tickets} tickets, half of them expired", rows, as_json=as_json)


def _measured(server: Postgres, tickets: int) -> list[dict[str, Any]]:
    server.make("first", "second")
    for name in ("first", "second"):
        migrate(server.url(name))
        with psycopg.connect(server.url(name)) as connection:
            connection.execute(_FILL.format(tickets=tickets))
    hand = _timed(server.url("first"), lambda: _by_hand(server.url("first")))
    ours = _timed(server.url("second"), lambda: asyncio.run(_ours(server.url("second"))))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return [
        {
            "measure": "rows a second",
            "value": f"{ours:.0f}",
            "floor": f"{hand:.0f} (one hand-written statement)",
            "ratio": f"{ours / hand:.2f}",
            "aim": ">= 0.6",
        },
        {"measure": "peak memory of the process, MB", "value": memory},
    ]


def _timed(url: str, work: Any) -> float:
    """Return rows that went a second."""
    before = _count(url)
    begun = time.perf_counter()
    work()
    return (before - _count(url)) / (time.perf_counter() - begun)


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        return int((connection.execute(_COUNT).fetchone() or [0])[0])


def _by_hand(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(_BY_HAND)


async def _ours(url: str) -> None:
    found = keeping.load(PROJECT / "policies")
    policy: Retention = found.retention["tickets"]
    compiled = Compiled(policy, found.tables.tables, in_code())
    store = await Store.open(url, Vault(bytes(32)))
    purging = Purging(store.engine, store.vault)
    moment = datetime.now(UTC)
    run = await purging.begin_purge(await purging.tally(compiled, moment), "bench", moment, None)
    async for _ in purging.purge(run, compiled):
        pass
    await purging.end_purge(run)
    await store.close()
