"""A cancel in the Prefect UI is believed: what is not sent yet stays unsent, whoever looks."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text as sql

from cli._publishing import started
from clickpost.delivery import State
from deployments import runs
from tests.flows.conftest import House

pytestmark = [pytest.mark.xdist_group("sending"), pytest.mark.timeout(150)]

TEXTS = ("bluesky/studio", "mastodon/studio")
WHY = "its run was cancelled in Prefect before it was sent"


def cancel(house: House, run_id: str) -> None:
    """Do what the button Cancel of a run's page does."""
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
    house.api("POST", f"/flow_runs/{run_id}/set_state", json=state)


async def scheduled(house: House, text: str, moment: datetime, *to: str) -> tuple[str, str]:
    """Schedule a post as the command line does; return its id and its moment's run."""
    post_id = await house.post(text, *to, at=moment)
    await started(house.settings, house.store, post_id, moment)
    return post_id, str((await house.store.post(post_id)).flow_run_id)


def swept(house: House) -> str:
    """Start a sweep now."""
    return runs.start(house.settings, "sweep-deliveries", {})


async def test_cancelling_a_scheduled_run_calls_off_its_posts_and_no_others(house: House) -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=20)).replace(microsecond=0)
    texts = [uuid.uuid4().hex for _ in range(3)]
    one, run_id = await scheduled(house, texts[0], moment, *TEXTS)
    two, same = await scheduled(house, texts[1], moment, "bluesky/studio")
    other, _ = await scheduled(house, texts[2], moment + timedelta(seconds=1), "bluesky/studio")
    assert same == run_id
    cancel(house, run_id)
    assert (await house.ended(run_id))["state_type"] == "CANCELLED"
    await house.ended(swept(house))
    lines = [line for post in (one, two) for line in await house.store.lines(post)]
    assert {(line.state, line.reason) for line in lines} == {(State.CANCELLED, WHY)}
    report = house.api("GET", f"/artifacts/{one.replace('_', '-')}/latest")
    assert "cancelled" in report["data"]
    assert (await house.settled(other))["bluesky/studio"].state is State.LIVE
    await house.ended(swept(house))
    assert house.there(texts[0]) == house.there(texts[1]) == []


async def test_what_a_cancelled_run_left_is_not_sent_by_another_moments_run(house: House) -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=5)).replace(microsecond=0)
    text = uuid.uuid4().hex
    post_id, run_id = await scheduled(house, text, moment, "bluesky/studio")
    cancel(house, run_id)
    later = moment + timedelta(seconds=1)
    await house.ended(
        runs.start(house.settings, "publish-due", {"moment": {"at": later.isoformat()}}, at=later)
    )
    assert house.there(text) == []
    async with house.store.engine.begin() as db:  # Two minutes pass.
        late = "UPDATE delivery SET updated_at = now() - interval '2 min' WHERE post_id = :post"
        await db.execute(sql(late), {"post": post_id})
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()) + 21)
    await house.ended(swept(house))
    line = (await house.settled(post_id, within=70))["bluesky/studio"]
    assert (line.state, line.reason) == (State.CANCELLED, WHY)
    assert house.there(text) == []


async def test_a_moment_whose_run_was_cancelled_can_be_used_again(house: House) -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=12)).replace(microsecond=0)
    texts = [uuid.uuid4().hex for _ in range(2)]
    _, off = await scheduled(house, texts[0], moment, "bluesky/studio")
    cancel(house, off)
    again, run_id = await scheduled(house, texts[1], moment, "bluesky/studio")
    assert run_id != off
    await house.ended(run_id)
    assert (await house.settled(again))["bluesky/studio"].state is State.LIVE
    assert house.there(texts[0]) == []


async def test_cancelling_a_running_run_sends_nothing_more_and_doubts_what_was_on_its_way(
    house: House,
) -> None:
    text = uuid.uuid4().hex
    house.order("mastodon", "rate_limit", "status", times=20)
    house.order("bluesky", "slow", "put_record", seconds=6)
    post_id = await house.post(text, *TEXTS)
    run_id = house.run("publish", post_id)

    async def states() -> dict[str, Any]:
        return {line.platform: line for line in await house.store.lines(post_id)}

    for _ in range(100):
        found = await states()
        if found["bluesky"].state is State.SENDING and found["mastodon"].attempts:
            break
        await asyncio.sleep(0.1)
    cancel(house, run_id)
    assert (await house.ended(run_id))["state_type"] == "CANCELLED"
    house.http.delete(f"{house.sandbox}/control/misbehave")
    found = await states()
    assert (found["mastodon"].state, found["mastodon"].reason) == (State.CANCELLED, WHY)
    assert found["bluesky"].state is State.UNKNOWN
    await asyncio.sleep(7)
    async with house.store.transaction() as session:  # As if it were quiet since long.
        await session.execute(
            sql("UPDATE delivery SET updated_at = now() - interval '1 hour' WHERE post_id = :id"),
            {"id": post_id},
        )
    await house.ended(swept(house))
    bluesky = (await house.settled(post_id))["bluesky/studio"]
    there = house.there(text)
    assert (bluesky.state, len(there)) in {(State.LIVE, 1), (State.CANCELLED, 0)}
