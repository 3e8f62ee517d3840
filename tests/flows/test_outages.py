"""PostgreSQL or the Prefect server goes away during a send: all ends right by itself."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from clickpost.delivery import State
from deployments.postgres import Postgres
from deployments.stack import Stack
from tests.flows.conftest import House

pytestmark = [pytest.mark.xdist_group("sending"), pytest.mark.timeout(200)]


def worker(stack: Stack) -> int:
    """Return the worker's process id."""
    process = stack.processes.running("worker")
    assert process is not None
    return process.pid


async def being_sent(house: House, text: str) -> tuple[str, str]:
    """Publish a post whose send takes a while; return it and its run once it is on its way."""
    house.order("mastodon", "slow", "status", seconds=4)
    post_id = await house.post(text, "mastodon/studio")
    run_id = house.run("publish", post_id)
    for _ in range(300):
        if (await house.store.lines(post_id))[0].state is State.SENDING:
            return post_id, run_id
        await asyncio.sleep(0.1)
    raise AssertionError("it is not being sent")


async def works(house: House) -> None:
    """Publish another post, as if nothing had been."""
    text = uuid.uuid4().hex
    post_id = await house.post(text, "bluesky/studio")
    house.run("publish", post_id)
    assert (await house.settled(post_id))["bluesky/studio"].state is State.LIVE
    assert len(house.there(text)) == 1


async def ended(house: House, run_id: str) -> dict[str, Any]:
    """Wait until a run has ended, however often it had to be taken up."""
    return await house.ended(run_id, within=90)


async def test_postgres_goes_away_during_a_send(house: House, stack: Stack) -> None:
    text = uuid.uuid4().hex
    before = worker(stack)
    post_id, run_id = await being_sent(house, text)
    server = Postgres(stack.home)
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(8)
    await asyncio.to_thread(server.start)
    line = (await house.settled(post_id))["mastodon/studio"]
    assert (line.state, line.attempts) == (State.LIVE, 1)
    assert len(house.there(text)) == 1
    assert (await house.store.verify()).broken is None
    await ended(house, run_id)
    await works(house)
    assert worker(stack) == before


async def test_prefect_goes_away_during_a_send(house: House, stack: Stack) -> None:
    text = uuid.uuid4().hex
    before = worker(stack)
    post_id, run_id = await being_sent(house, text)
    await asyncio.to_thread(stack.processes.stop, "prefect")
    line = (await house.settled(post_id))["mastodon/studio"]
    assert (line.state, line.attempts) == (State.LIVE, 1)
    await asyncio.sleep(20)
    assert worker(stack) == before
    await asyncio.to_thread(stack.up, sandbox=True)
    await ended(house, run_id)
    await works(house)
    assert len(house.there(text)) == 1
    assert worker(stack) == before
