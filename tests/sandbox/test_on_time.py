"""What is due goes then: late ones as their post says, none with uploads that died meanwhile."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from clickpost.delivery import State
from clickpost.draft import Late
from clickpost.media import Cache
from clickpost.settings import Settings
from clickpost.store import Store
from connectors._api import client
from sandbox.testing import serve
from tasks import _wiring, planning, sending
from tasks._wiring import House
from tests.desk import Desk


@pytest_asyncio.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    house = House(settings, store, store.vault, client(), Cache(tmp_path), "test")

    async def here() -> House:
        return house

    monkeypatch.setattr(_wiring, "house", here)
    with serve(tmp_path / "sandbox") as base:
        made = Desk(house, base)
        await made.connect("bluesky")
        yield made
    await house.client.aclose()


@pytest.mark.parametrize(
    ("late", "state", "there"),
    [("publish", State.LIVE, 1), ("skip", State.MISSED, 0), ("ask", State.HELD, 0)],
)
async def test_what_passed_while_nothing_ran_follows_its_late_policy(
    desk: Desk, late: Late, state: State, there: int
) -> None:
    text = uuid.uuid4().hex
    due_at = datetime.now(UTC) - timedelta(minutes=20)
    delivery_id = await desk.post("bluesky", text, late=late, at=due_at)
    assert (await sending.send(delivery_id)).state is state
    assert await desk.there(text) == there
    row = await desk.store.delivery(delivery_id)
    assert (row.who_acts == "an operator") == (state is not State.LIVE)


@pytest.mark.parametrize("late", ["publish", "skip", "ask"])
async def test_a_little_late_is_on_time_for_every_policy(desk: Desk, late: Late) -> None:
    due_at = datetime.now(UTC) - timedelta(minutes=4)
    delivery_id = await desk.post("bluesky", uuid.uuid4().hex, late=late, at=due_at)
    assert (await sending.send(delivery_id)).state is State.LIVE


async def test_what_waits_for_approval_past_its_time_is_missed_only_where_it_says_skip(
    desk: Desk,
) -> None:
    await desk.store.require_approval("bluesky/studio", on=True, actor="anna")
    due_at = datetime.now(UTC) - timedelta(minutes=20)
    made = {}
    for late in ("publish", "skip", "ask"):
        made[late] = await desk.post("bluesky", uuid.uuid4().hex, late=late, at=due_at)
        await sending.ready(made[late])
        assert await desk.state(made[late]) is State.AWAITING_APPROVAL
    await desk.store.miss_unapproved()
    states = {late: await desk.state(delivery_id) for late, delivery_id in made.items()}
    waits = State.AWAITING_APPROVAL
    assert states == {"publish": waits, "skip": State.MISSED, "ask": waits}


async def test_what_would_be_stale_at_its_moment_is_prepared_anew_shortly_before(
    desk: Desk,
) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    delivery_id = await desk.post("bluesky", uuid.uuid4().hex, at=soon)
    assert (await sending.ready(delivery_id)).state is State.READY
    assert await planning.stale() == []
    async with desk.store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE delivery SET prepared_at = now() - interval '52 minutes'")
    (found,) = await planning.stale()
    assert (found.delivery_id, found.planned) == (delivery_id, False)
    assert (await sending.ready(delivery_id)).state is State.READY
    assert await planning.stale() == []


async def test_what_is_due_soon_and_was_never_prepared_is_found(desk: Desk) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    delivery_id = await desk.post("bluesky", uuid.uuid4().hex, at=soon)
    await desk.store.move(delivery_id, State.PREPARING, State.PLANNED)
    (found,) = await planning.stale()
    assert found.planned


async def test_a_wait_for_a_moment_ends_at_it_and_never_before() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=0.2)
    began = time.monotonic()
    await planning.until(moment)
    assert datetime.now(UTC) >= moment
    assert time.monotonic() - began < 1
    await planning.until(moment)
