"""People a second of erasures among many, the nightly sweep over them, and the purge."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import event

from benchmarks import _people, purge
from benchmarks._postgres import server
from benchmarks._show import show
from clickpost.people import ENGINE
from clickpost.settings import Settings
from clickpost.store.database import migrate
from clickpost.store.erasures import Erasures
from deployments.postgres import Postgres
from tasks import _wiring, compliance, erasing
from tasks.erasing import Wanted

#: What a person would write to erase somebody, children first: no holds, receipts, proof or look.
_BY_HAND = """
WITH m AS (SELECT id, name, email FROM member WHERE id = ANY(%(ids)s)),
     t AS (SELECT id FROM ticket WHERE member_id IN (SELECT id FROM m)),
     s AS (SELECT id FROM ticket_message WHERE ticket_id IN (SELECT id FROM t)),
     c AS (SELECT id FROM channel WHERE member_id IN (SELECT id FROM m)),
     d1 AS (DELETE FROM consent WHERE member_id IN (SELECT id FROM m)),
     d2 AS (DELETE FROM preference WHERE member_id IN (SELECT id FROM m)),
     d3 AS (DELETE FROM inference WHERE member_id IN (SELECT id FROM m)),
     d4 AS (DELETE FROM usage_event WHERE member_id IN (SELECT id FROM m)),
     d5 AS (DELETE FROM ticket_attachment WHERE message_id IN (SELECT id FROM s)),
     d6 AS (DELETE FROM ticket_message WHERE id IN (SELECT id FROM s)),
     d7 AS (DELETE FROM ticket WHERE id IN (SELECT id FROM t)),
     d8 AS (DELETE FROM telling WHERE channel_id IN (SELECT id FROM c)),
     d9 AS (DELETE FROM channel WHERE id IN (SELECT id FROM c)),
     d10 AS (DELETE FROM invoice WHERE email IN (SELECT email FROM m))
DELETE FROM member WHERE id IN (SELECT id FROM m)
"""


@dataclass(frozen=True)
class Measured:
    """What erasures among so many people came to; seconds of all of them together."""

    people: int
    erased: int
    planning: float
    erasing: float
    by_hand: float
    statements: int


def main(*, as_json: bool, people: int, erased: int, rows: int) -> None:
    """Measure on an embedded PostgreSQL of its own, which is removed afterwards."""
    purge.main(as_json=as_json, rows=rows)
    few = max(people // 10, 3 * erased)
    with server() as postgres:
        with _home(postgres, "few"):
            small = asyncio.run(_erasures(few, erased))
        with _home(postgres, "many"):
            large = asyncio.run(_erasures(people, erased))
            minutes = asyncio.run(_sweep()) / 60
    show(
        f"erasure of {erased} people out of {people}, and the nightly sweep",
        [*_rows(small, large), _swept(minutes)],
        as_json=as_json,
    )


def _rows(small: Measured, large: Measured) -> list[dict[str, Any]]:
    rate, floor = large.erased / large.erasing, large.erased / large.by_hand
    growth = large.erasing / large.erased / (small.erasing / small.erased)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return [
        {
            "measure": "people erased a second, read back, with certificates",
            "value": f"{rate:.0f}",
            "floor": f"{floor:.0f} (one hand-written statement)",
            "ratio": f"{rate / floor:.2f}",
            "aim": ">= 50",
        },
        {"measure": "plans a second", "value": f"{large.erased / large.planning:.0f}"},
        {
            "measure": "statements for each person",
            "value": f"{large.statements / large.erased:.1f}",
        },
        {
            "measure": f"seconds for each person, of {large.people}",
            "value": f"{large.erasing / large.erased:.4f}",
            "floor": f"{small.erasing / small.erased:.4f} (of {small.people})",
            "ratio": f"{growth:.2f}",
            "aim": "does not grow",
        },
        {"measure": "peak memory of the process, MB", "value": memory},
    ]


def _swept(minutes: float) -> dict[str, Any]:
    return {
        "measure": "minutes of the nightly sweep", "value": f"{minutes:.2f}", "aim": "minutes",
    }  # fmt: skip


@contextmanager
def _home(postgres: Postgres, name: str) -> Iterator[None]:
    """Let this process be a house with an empty database of its own."""
    postgres.make(name)
    migrate(postgres.url(name))
    said = {
        "CLICKPOST_HOME": str(postgres.folder / name),
        "CLICKPOST_DATABASE_URL": postgres.url(name),
        "CLICKPOST_LOG_LEVEL": "ERROR",
    }
    before = {key: os.environ.get(key) for key in said}
    os.environ.update(said)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


async def _erasures(people: int, erased: int) -> Measured:
    """Fill a database, erase people by hand and others as the flow `resume-erasures` does."""
    house = await _wiring.house()
    url, media = _url(house.settings), house.settings.media_root
    await asyncio.to_thread(_people.fill, url, people, str(media))
    step = people // erased
    mine = [f"{n:09}" for n in range(1, people + 1, step)][:erased]
    others = [f"member_{n:09}" for n in range(2, people + 1, step)][:erased]
    _make_files(media, mine)
    by_hand = _timed_by_hand(url, others)
    erasures = Erasures(house.store.engine, house.vault)
    begun = time.perf_counter()
    for one in mine:
        row, _ = await erasing.plan(house.settings, house.store, Wanted("person", f"member_{one}"))
        await erasures.approve(row.id, ENGINE)
    planning = time.perf_counter() - begun
    count = _Counted(house.store.engine)
    begun = time.perf_counter()
    ended = await erasing.resume()
    took = time.perf_counter() - begun
    if {one.state for one in ended} != {"complete"} or len(ended) != erased:
        raise SystemExit(f"erased {len(ended)}: {[one.said for one in ended if not one.is_well]}")
    _look(url, media, mine)
    await _wiring.close()
    return Measured(people, erased, planning, took, by_hand, count.statements)


class _Counted:
    """Counts the statements that go to the database."""

    def __init__(self, engine: Any) -> None:
        self.statements = 0
        event.listen(engine.sync_engine, "before_cursor_execute", self._one)

    def _one(self, *_: object) -> None:
        self.statements += 1


def _make_files(media: Path, keys: Sequence[str]) -> None:
    media.mkdir(parents=True, exist_ok=True)
    for one in keys:
        (media / f"{one}.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def _timed_by_hand(url: str, ids: Sequence[str]) -> float:
    with psycopg.connect(url) as connection:
        begun = time.perf_counter()
        connection.execute(_BY_HAND, {"ids": list(ids)})
        connection.commit()
        return time.perf_counter() - begun


def _look(url: str, media: Path, keys: Sequence[str]) -> None:
    """End the benchmark where anything of anybody is left."""
    wanted = [f"Person{int(one)} Number{int(one)}" for one in keys]
    with psycopg.connect(url) as connection:
        left = connection.execute(
            "SELECT count(*) FROM member WHERE email_digest = ANY(%s)", [_digests(keys)]
        ).fetchone()
        named = connection.execute(
            "SELECT count(*) FROM post p JOIN unnest(%s::text[]) AS name"
            " ON privacy_pairs(NULL, p.body #>> '{post,text}') @> privacy_pairs(name)"
            " WHERE p.id = ANY(%s)",
            [wanted, [f"post_{one}" for one in keys]],
        ).fetchone()
    files = sum((media / f"{one}.png").exists() for one in keys)
    if left != (0,) or named != (0,) or files:
        raise SystemExit(f"left: {left} people, {named} named in posts, {files} files")


def _digests(keys: Sequence[str]) -> list[str]:
    return [f"digest_{one}" for one in keys]


async def _sweep() -> float:
    """Return the seconds of a nightly sweep."""
    house = await _wiring.house()
    begun = time.perf_counter()
    await compliance.sweep(house.store, house.settings)
    took = time.perf_counter() - begun
    await _wiring.close()
    return took


def _url(settings: Settings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()
