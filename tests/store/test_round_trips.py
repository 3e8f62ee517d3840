"""What a send costs the database: each statement is a round trip, and each of them counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from clickpost.contract import Receipt
from clickpost.delivery import State
from clickpost.publishing import Verdict
from clickpost.settings import Settings
from clickpost.store import Store
from tasks import sending, telling
from tests.desk import Desk, desk_at

#: What it took when this was written. More needs a reason; less is welcome.
SEND, WAKE = 24, 5


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Yield the statements that follow; a transaction's begin and end are one each."""
    said: list[str] = []

    def executed(*given: Any) -> None:
        said.append(given[2])

    def committed(_connection: Any) -> None:
        said.extend(("BEGIN", "COMMIT"))

    engine = store.engine.sync_engine
    event.listen(engine, "before_cursor_execute", executed)
    event.listen(engine, "commit", committed)
    yield said
    event.remove(engine, "before_cursor_execute", executed)
    event.remove(engine, "commit", committed)


@pytest.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    async with desk_at(store, settings, tmp_path, monkeypatch, "mastodon") as made:
        yield made


async def test_a_send_takes_few_round_trips(desk: Desk) -> None:
    first, second = [await desk.post("mastodon", words) for words in ("one", "another")]
    await sending.send(first)
    with counted(desk.store) as said:
        assert (await sending.send(second)).state is State.LIVE
    assert len(said) <= SEND, said


async def test_waking_who_tells_takes_few_round_trips(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(waiting: Any) -> int:
        async with waiting as notices:
            return len(notices)

    monkeypatch.setattr(telling, "_some_emitted", taken)
    await sending.send(await desk.post("mastodon", "told"))
    with counted(desk.store) as said:
        assert not await telling.wake()
    assert len(said) <= WAKE, said
    with counted(desk.store) as said:
        assert not await telling.wake()
    assert len(said) == 1


async def test_a_verdict_waits_for_whoever_changes_its_delivery_and_sees_the_change(
    desk: Desk,
) -> None:
    delivery_id = await desk.post("mastodon", "looked for too early")
    await sending.ready(delivery_id)
    content = (await desk.store.delivery(delivery_id)).content_hash
    started = await desk.store.begin_attempt(
        delivery_id,
        worker="here",
        part=0,
        intent={"content": content, "key": "k"},
        lease=sending.LEASE,
        run_id=None,
    )
    receipt, verdict = Receipt("1", "https://mastodon.example/1"), Verdict("live", State.LIVE)
    settle = desk.store.settle(started, verdict, receipt, last=True, seconds=0.1)
    async with desk.store.engine.begin() as db:
        freed = "UPDATE delivery SET state = 'ready', lease_owner = NULL, lease_until = NULL"
        await db.execute(text(freed))
        settling = asyncio.create_task(settle)
        await asyncio.sleep(0.2)
        assert not settling.done()
    await settling
    assert await desk.state(delivery_id) is State.LIVE
