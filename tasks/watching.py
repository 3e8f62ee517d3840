"""Tells what is stuck, once for each time that it gets stuck."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from clickpost import stuck
from clickpost.logs import logger
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.stuck import Stuck
from clickpost.telling import Event, Happening
from tasks import _wiring

log = logger("watching")


@asynccontextmanager
async def alone(name: str) -> AsyncIterator[bool]:
    """Yield whether no other run does `name` now; until this ends, none will."""
    house = await _wiring.house()
    async with house.store.alone(name) as taken:
        yield taken


async def tell_stuck() -> int:
    """Write a notice for each delivery that is newly stuck; return how many."""
    house = await _wiring.house()
    count = 0
    for one in await found(house.settings, house.store):
        made = await house.store.notify(happening(one), one.going.workspace_id)
        if made is not None:
            count += 1
            log.warning("stuck", delivery_id=one.going.id, state=one.going.state.value)
    return count


async def found(settings: Settings, store: Store) -> list[Stuck]:
    """Return what is stuck now, oldest first."""
    now = datetime.now(UTC)
    platforms = load_platforms(settings.policies)
    judged = [
        stuck.judge(going, platforms[going.platform].processing.give_up, now)
        for going in await store.going(now)
    ]
    return sorted((one for one in judged if one), key=lambda one: one.since)


def happening(one: Stuck) -> Happening:
    """Say that a delivery is stuck; in the same state since the same moment is told once."""
    going = one.going
    facts = {
        "where": going.ref,
        "state": going.state.value,
        "reason": f"{going.state.value} since {one.since:%Y-%m-%d %H:%M} UTC"
        + (f": {going.reason}" if going.reason else ""),
        "next": one.next,
        "who_acts": one.who_acts,
        "delivery_id": going.id,
        "post_id": going.post_id,
        "connection_id": going.connection_id,
        "run_id": going.run_id,
    }
    once = f"{Event.STUCK}:{going.id}:{going.state}:{one.since.isoformat()}"
    return Happening(Event.STUCK, going.id, once, facts)
