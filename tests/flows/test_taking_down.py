"""A takedown ends when the post is down: trouble, lost answers and dead workers only delay it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from clickpost.delivery import State
from clickpost.errors import Conflict
from clickpost.media import Cache
from clickpost.settings import Settings
from clickpost.store import Store
from connectors._api import client
from sandbox.testing import serve
from tasks import _wiring, sending, taking_down
from tasks._wiring import House
from tests.flows.test_drifting import changed, events, live


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[str]:
    with serve(tmp_path / "sandbox") as base:
        yield base


@pytest_asyncio.fixture
async def house(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    made = House(settings, store, store.vault, client(), Cache(tmp_path), "test")

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    yield made
    await made.client.aclose()


async def order(house: House, sandbox: str, what: str, platform: str, times: int = 1) -> None:
    said = {"platform": platform, "what": what, "step": "*", "times": times}
    (await house.client.post(f"{sandbox}/control/misbehave", json=said)).raise_for_status()


async def up(house: House, sandbox: str) -> int:
    """Return how many posts the sandbox still shows."""
    rows = (await house.client.get(f"{sandbox}/control/posts")).json()
    return sum(not row["deleted"] for row in rows)


async def wanted(house: House, delivery_id: str) -> str:
    """Ask for the takedown of the delivery's post; return the post."""
    post_id = (await house.store.delivery(delivery_id)).post_id
    rows = await taking_down.ask(post_id)
    assert [row.delivery_id for row in rows] == [delivery_id]
    return post_id


async def later(house: House, delivery_id: str) -> None:
    """Let the wish be some minutes old, and its wait be over."""
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET takedown_at = takedown_at - interval '5 min', not_before = NULL"
            " WHERE id = %s",
            (delivery_id,),
        )


async def forced(house: House, delivery_id: str, state: State) -> None:
    """Put the delivery where a worker left it before anything of it was known."""
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET state = %s, receipts = NULL, remote_id = NULL, live_at = NULL,"
            " sent_at = now() - interval '5 min' WHERE id = %s",
            (state.value, delivery_id),
        )


@pytest.mark.parametrize("platform", ["mastodon", "bluesky"])
async def test_what_is_wanted_down_is_deleted(house: House, sandbox: str, platform: str) -> None:
    delivery_id = await live(house, sandbox, platform)
    await wanted(house, delivery_id)
    assert (await taking_down.take_down(delivery_id)).state is State.REMOVED
    assert await up(house, sandbox) == 0
    assert await taking_down.due() == []


@pytest.mark.parametrize("trouble", ["server_error", "rate_limit", "drop_before", "drop_after"])
async def test_trouble_leaves_it_open_with_a_reason_and_the_sweep_ends_it(
    house: House, sandbox: str, trouble: str
) -> None:
    delivery_id = await live(house, sandbox)
    await wanted(house, delivery_id)
    await order(house, sandbox, trouble, "mastodon", times=2)
    step = await taking_down.take_down(delivery_id)
    row = await house.store.delivery(delivery_id)
    assert (step.state, row.state) == (State.LIVE, State.LIVE)
    assert step.wait > 0
    assert "not taken down yet" in str(row.reason)
    assert row.who_acts == "nobody"
    assert await taking_down.due() == [], "before its time"
    for _ in range(3):
        await later(house, delivery_id)
        for found in await taking_down.due():
            await taking_down.take_down(found.delivery_id)
    row = await house.store.delivery(delivery_id)
    assert (row.state, row.reason, row.takedown_at) == (State.REMOVED, None, None)
    assert await up(house, sandbox) == 0
    assert await events(house) == []


async def test_an_ended_token_is_renewed_in_the_same_go(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox, "bluesky")
    await wanted(house, delivery_id)
    await order(house, sandbox, "expire_token", "bluesky")
    assert (await taking_down.take_down(delivery_id)).state is State.REMOVED
    assert await up(house, sandbox) == 0


async def test_a_revoked_grant_keeps_it_open_and_its_owner_is_told_once(
    house: House, sandbox: str
) -> None:
    delivery_id = await live(house, sandbox)
    await wanted(house, delivery_id)
    await order(house, sandbox, "revoke_token", "mastodon")
    for _ in range(3):
        assert (await taking_down.take_down(delivery_id)).parked
        await later(house, delivery_id)
    row = await house.store.delivery(delivery_id)
    assert (row.state, row.who_acts) == (State.LIVE, "the account's owner")
    assert set(await events(house)) == {"post.not_removed"}
    await house.client.delete(f"{sandbox}/control/misbehave")
    assert (await taking_down.take_down(delivery_id)).state is State.REMOVED


async def test_a_worker_that_died_leaves_the_wish_to_the_sweep(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox)
    await wanted(house, delivery_id)  # And it is gone before it did anything.
    assert await taking_down.due() == [], "its run has not had its time yet"
    await later(house, delivery_id)
    assert [row.delivery_id for row in await taking_down.due()] == [delivery_id]


async def test_an_unknown_outcome_is_looked_for_then_taken_down(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox, "bluesky")
    await forced(house, delivery_id, State.UNKNOWN)
    await wanted(house, delivery_id)
    assert (await taking_down.take_down(delivery_id)).state is State.REMOVED
    assert await up(house, sandbox) == 0


async def test_what_a_look_does_not_find_is_never_sent_again(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox, "bluesky")
    await changed(house, sandbox, delivery_id, deleted=True)
    await forced(house, delivery_id, State.UNKNOWN)
    await wanted(house, delivery_id)
    assert (await taking_down.take_down(delivery_id)).state is State.CANCELLED
    assert await up(house, sandbox) == 0


async def test_another_run_does_not_send_what_somebody_wants_down(
    house: House, sandbox: str
) -> None:
    delivery_id = await live(house, sandbox, "bluesky")
    await changed(house, sandbox, delivery_id, deleted=True)
    await forced(house, delivery_id, State.UNKNOWN)
    await wanted(house, delivery_id)
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET state = 'ready' WHERE id = %s", (delivery_id,)
        )
    with pytest.raises(Conflict):
        await house.store.begin_attempt(
            delivery_id,
            worker="w",
            part=0,
            intent={"content": "c"},
            lease=timedelta(minutes=1),
            run_id=None,
        )
    await sending.send(delivery_id)
    assert await up(house, sandbox) == 0
    assert (await taking_down.take_down(delivery_id)).state is State.CANCELLED


async def test_what_is_just_being_sent_is_taken_down_after_it(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox)
    row = await house.store.delivery(delivery_id)
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET state = 'sending' WHERE id = %s", (delivery_id,)
        )
    await wanted(house, delivery_id)
    step = await taking_down.take_down(delivery_id)
    assert (step.state, step.parked) == (State.SENDING, False)
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE delivery SET state = 'live' WHERE id = %s", (row.id,))
    assert (await taking_down.take_down(delivery_id)).state is State.REMOVED


async def test_a_post_that_vanished_already_is_down(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox)
    await changed(house, sandbox, delivery_id, deleted=True)
    await wanted(house, delivery_id)
    assert (await taking_down.take_down(delivery_id)).state is State.REMOVED


async def test_nothing_that_nobody_wants_down_is_touched(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox)
    assert (await taking_down.take_down(delivery_id)).state is State.LIVE
    assert await up(house, sandbox) == 1
    assert datetime.now(UTC) > (await house.store.delivery(delivery_id)).updated_at
