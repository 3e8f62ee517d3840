"""Keeps sends within their budgets: reserves before, gives back after, learns from answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from clickpost import budget, publishing
from clickpost.budget import Holders, Pot, Reading, Short, Standing, Told
from clickpost.contract import Pending, Quota, Receipt, ReportsQuota
from clickpost.errors import PlatformError, RateLimited, Whose
from clickpost.logs import logger
from clickpost.policy.shape import PlatformPolicy
from clickpost.publishing import Try, Verdict
from clickpost.store import Store
from clickpost.store.budgets import Taking
from clickpost.store.tables import Connection, Delivery
from clickpost.wording import Link, entities
from tasks import _wiring
from tasks._wiring import House

log = logger("budgeting")


def pots_of(store: Store, connection: Connection, policy: PlatformPolicy) -> tuple[Pot, ...]:
    """Return the pots that an account takes from."""
    return budget.pots_of(policy, _holders_of(store, connection, policy), connection.burst)


def _holders_of(store: Store, connection: Connection, policy: PlatformPolicy) -> Holders:
    app = None
    has_tokens = bool(connection.data_key)  # They go with a grant that its owner took back.
    if has_tokens and any(one.per == "app" for one in policy.budget):
        app = store.opened(connection).secrets.get("client_id")
    account = connection.remote_id or connection.id
    return budget.holders_of(connection.platform, connection.api_base, account, app)


def posts_of(delivery: Delivery, pots: tuple[Pot, ...]) -> Taking:
    """Return what the parts of a delivery that are not there yet take."""
    first, parts = len(delivery.receipts or []), delivery.message or []
    linked = frozenset(number for number, part in enumerate(parts) if has_link(part["text"]))
    return Taking(delivery.id, pots, first, max(len(parts), first), linked=linked)


def has_link(text: str) -> bool:
    """Say whether a text has an address in it, which some platforms charge for."""
    return any(isinstance(one, Link) for one in entities(text))


def uploads_of(delivery: Delivery, pots: tuple[Pot, ...]) -> Taking | None:
    """Return what the uploads of a delivery take, once; None where it has no files."""
    files = sum(len(part["media"]) for part in delivery.message or [])
    if not files:
        return None
    # What was begun is counted; it only waits where the platform lets nothing through.
    return Taking(delivery.id, pots, 0, 0, 0 if delivery.prepared else files)


async def reserved(
    house: House, taking: Taking, connection: Connection, connector: object
) -> Short | None:
    """Take what is about to be sent from its budgets; None where there was room for all of it.

    Otherwise the delivery stands in line, and its row says until when.
    """
    policy = house.policy(connection)
    if "quota" in policy.capabilities and isinstance(connector, ReportsQuota):
        try:
            await _asked(house, taking.pots, connector)
        except RateLimited as error:
            await too_fast(house, connection, policy, error.retry_after, error.per)
    short = await house.store.reserve(taking)
    if short is not None:
        log.info("no budget", delivery_id=taking.delivery_id, until=short.until.isoformat())
    return short


async def _asked(house: House, pots: Sequence[Pot], connector: ReportsQuota) -> None:
    """Ask the platform itself how much is left, where it was not asked lately."""
    pot = next((one for one in pots if one.what == "posts" and not one.guard), None)
    now = datetime.now(UTC)
    if pot is None or ((told := await house.store.allowance_of(pot)) and told.resets_at > now):
        return
    try:
        quota = await connector.quota()
    except RateLimited:
        raise
    except PlatformError as error:  # Without an answer the policy's number holds.
        log.warning("quota not told", holder=pot.holder, error=type(error).__name__)
        return
    if (fresh := _told_of(quota, now)) is not None:
        await house.store.allow(pot.holder, pot.what, pot.seconds, fresh)


def _told_of(quota: Quota, now: datetime) -> Told | None:
    if quota.used is None or quota.total is None:
        return None
    until = quota.resets_at or now + budget.HOLDS
    return Told(max(quota.total - quota.used, 0), until, now, quota.total)


async def upload_waits(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> Short | None:
    """Take what a delivery's files need before they are uploaded; say where that has to wait."""
    taking = uploads_of(delivery, pots_of(house.store, connection, policy))
    return None if taking is None else await house.store.reserve(taking)


async def settled(
    house: House, taking: Taking, part: int, verdict: Verdict, readings: list[Reading]
) -> None:
    """Give back what was not sent, this part and those after it; keep what headers said."""
    if verdict.nothing_sent:
        await house.store.give_back(taking, part)
    await _heard(house, taking.pots, readings)


async def _heard(house: House, pots: Sequence[Pot], readings: list[Reading]) -> None:
    """Keep what headers said, and forget the readings."""
    while readings:
        reading = readings.pop(0)
        if (pot := budget.pot_of(reading, pots)) is not None:
            told = Told(reading.left, reading.resets_at, reading.seen_at, reading.total)
            await house.store.allow(pot.holder, pot.what, pot.seconds, told)


async def forget() -> None:
    """Remove what was taken longer ago than any budget looks back."""
    await (await _wiring.house()).store.forget_spent()


async def tries(house: House, delivery: Delivery) -> list[Try]:
    """Return the tries so far, since somebody asked to retry; read before a send, never after."""
    if not delivery.attempts:
        return []
    rows = await house.store.attempts_of(delivery.id)
    return [Try(row.started_at, row.verdict) for row in rows[-delivery.attempts :]]


def judged(
    outcome: Receipt | Pending | BaseException, attempts: int, before: Sequence[Try]
) -> Verdict:
    """Judge one send by the clock and with a jitter of its own."""
    now, chance = datetime.now(UTC), random.random()  # noqa: S311  # spreads waits, no secret
    return publishing.verdict_of(outcome, attempts, tries=before, now=now, chance=chance)


async def deleted(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> None:
    """Count a takedown, which waits for no budget: it is the more urgent one."""
    pots = [pot for pot in pots_of(house.store, connection, policy) if not pot.guard]
    count = len(delivery.receipts or [])
    await house.store.spend(delivery.id, "delete", pots, deletes=count)


async def look_waits(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> Short | None:
    """Say whether a look that nobody waits for has no room now; posts in line go before it."""
    pots = pots_of(house.store, connection, policy)
    return await house.store.foresee(pots, looks=len(delivery.receipts or []))


async def looked(
    house: House,
    delivery: Delivery,
    connection: Connection,
    policy: PlatformPolicy,
    readings: list[Reading],
    looks: int = 1,
) -> None:
    """Count looks that were made, and keep what headers said."""
    pots = [pot for pot in pots_of(house.store, connection, policy) if not pot.guard]
    each = f"look {datetime.now(UTC).isoformat()}"
    await house.store.spend(delivery.id, each, pots, looks=looks)
    await _heard(house, pots, readings)


async def too_fast(
    house: House, connection: Connection, policy: PlatformPolicy, wait: float, per: Whose
) -> None:
    """Let nothing leave for `wait` seconds, as the platform asks: of the account, or of all.

    `per` is the policy's word for whom the platform means: account, app or address.
    """
    holder = _holders_of(house.store, connection, policy).of(per)
    await house.store.stop(holder, datetime.now(UTC) + timedelta(seconds=wait))


async def standings(store: Store, connection: Connection, policy: PlatformPolicy) -> list[Standing]:
    """Return how an account's pots stand, the one that ends first in front."""
    return budget.tightest(await store.standings(pots_of(store, connection, policy)))
