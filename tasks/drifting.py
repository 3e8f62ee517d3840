"""Looks whether what is live is still there: few requests, and no change without proof."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import connectors
from clickpost import drift
from clickpost.budget import Reading
from clickpost.contract import Checks
from clickpost.delivery import State
from clickpost.drift import Changed, Gone, Missed, Same, Seen, Untold
from clickpost.errors import ClickPostError, Conflict, RateLimited, TokenExpired, Transient
from clickpost.logs import logger
from clickpost.store.tables import Delivery
from tasks import _wiring, budgeting, limiting, renewing
from tasks._wiring import House
from tasks.sending import receipts_of

log = logger("drifting")

#: So many posts one run looks at, and so many of one account, one after another.
MOST, MOST_OF_ONE = 200, 20


async def check() -> Counter[str]:
    """Look at what is due; return how often each kind of answer came (`Same`, `Gone`, …)."""
    house = await _wiring.house()
    able = [name for name, can in connectors.capabilities().items() if "check" in can]
    due: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in await house.store.to_look_at(datetime.now(UTC), able, MOST):
        due[delivery.connection_id].append(delivery)
    counts: Counter[str] = Counter()
    await asyncio.gather(*(_of_one(house, rows[:MOST_OF_ONE], counts) for rows in due.values()))
    return counts


async def _of_one(house: House, rows: Sequence[Delivery], counts: Counter[str]) -> None:
    """Look at one account's posts; the first trouble ends it until the next run."""
    for delivery in rows:
        connection = await house.store.connection(delivery.connection_id)
        policy = house.policy(connection)
        if await budgeting.look_waits(house, delivery, connection, policy):
            counts["NoBudget"] += 1
            return
        await limiting.turn("looks")
        try:
            seen = await _look(house, delivery)
            await _keep(house, delivery, seen)
        except ClickPostError as error:  # It proves nothing, so nothing changes.
            log.info("no look", delivery_id=delivery.id, error=type(error).__name__)
            counts["NoAnswer"] += 1
            if isinstance(error, RateLimited):
                wait, per = error.retry_after, error.per
                await budgeting.too_fast(house, connection, policy, wait, per)
            if not isinstance(error, Transient | RateLimited):  # Asking again soon is no use.
                await house.store.looked(
                    delivery.id, absent_at=delivery.absent_at, seen_hash=delivery.seen_hash
                )
            return
        counts[type(seen).__name__] += 1


async def _look(house: House, delivery: Delivery, *, renewed: bool = False) -> Seen:
    connection = await house.store.connection(delivery.connection_id)
    policy = house.policy(connection)
    readings: list[Reading] = []
    connector = house.connector(house.store.opened(connection), policy, readings.append)
    if not isinstance(connector, Checks):
        return Untold()
    receipts = receipts_of(delivery)
    try:
        parts = [await connector.check(receipt) for receipt in receipts]
    except TokenExpired:
        if renewed:
            raise
        await renewing.refresh(house, connection, policy)
        return await _look(house, delivery, renewed=True)
    finally:  # Platforms count what they refuse, too.
        await budgeting.looked(house, delivery, connection, policy, readings, len(receipts))
    return drift.judge(parts, delivery.seen_hash, delivery.absent_at, datetime.now(UTC))


async def _keep(house: House, delivery: Delivery, seen: Seen) -> None:
    store = house.store
    match seen:
        case Same(digest=digest):
            kept = delivery.seen_hash or digest
            await store.looked(delivery.id, absent_at=None, seen_hash=kept)
        case Untold():
            await store.looked(delivery.id, absent_at=None, seen_hash=delivery.seen_hash)
        case Missed():
            since = delivery.absent_at or datetime.now(UTC)
            await store.looked(delivery.id, absent_at=since, seen_hash=delivery.seen_hash)
        case Changed(what=what, digest=digest):
            await store.edited(delivery.id, what, digest)
        case Gone():
            with suppress(Conflict):  # We took it down meanwhile.
                await store.move(
                    delivery.id,
                    State.LIVE,
                    State.GONE,
                    reason="it is no longer there, and nobody took it down here",
                    who_acts="an operator",
                    because={"looks": "2"},
                    checked_at=datetime.now(UTC),
                )
            log.warning("gone", delivery_id=delivery.id)
