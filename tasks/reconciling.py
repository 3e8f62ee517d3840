"""Settles unknown outcomes by looking; it sends nothing, and believes no absence too early."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from clickpost import publishing
from clickpost.budget import Reading
from clickpost.contract import Absence, Finds, Pending, Prepared, Receipt, Sought
from clickpost.delivery import State
from clickpost.errors import Conflict, PlatformError, RateLimited, Reauthorize, TokenExpired
from clickpost.logs import logger
from clickpost.policy.shape import PlatformPolicy
from clickpost.store.tables import Connection, Delivery
from tasks import _wiring, budgeting, preparing, renewing
from tasks._wiring import House
from tasks.sending import Step, receipts_of

log = logger("reconciling")

#: A part that was sent so often, and looked for in vain each time, is for an operator.
MOST_IN_VAIN = 6
#: Once looks have failed for this long after the send, an operator is asked too; they go on.
LOOK_ALONE = timedelta(hours=1)
#: Seconds to the next look, where one failed; it grows with the time since the send.
_SHORTEST_WAIT = 5.0


async def reconcile(delivery_id: str) -> Step:
    """Settle an unknown outcome by looking: live, or not there, or for an operator to say.

    Waits out the platform's settle time first; an absence before it proves nothing.
    """
    house = await _wiring.house()
    delivery = await house.store.delivery(delivery_id)
    if delivery.state is not State.UNKNOWN:
        return Step(delivery.state)
    connection = await house.store.connection(delivery.connection_id)
    policy = house.policy(connection)
    left = policy.unknown.settle - (datetime.now(UTC) - _sent_at(delivery))
    if left > timedelta():
        return Step(State.UNKNOWN, left.total_seconds())
    try:
        return await _settled(house, delivery, connection, policy)
    except Conflict:  # Another look was faster, or the sender's own verdict came late.
        return Step((await house.store.delivery(delivery_id)).state, 1.0)


async def _settled(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> Step:
    try:
        found = await _looked(house, delivery, connection, policy)
    except Reauthorize as error:
        return await _no_leave(house, delivery, connection, error)
    except PlatformError as error:
        if isinstance(error, RateLimited):
            await budgeting.too_fast(house, connection, policy, error.retry_after, error.per)
        return await _look_failed(house, delivery, policy, error)
    return await _judged(house, delivery, policy, found)


async def _looked(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> Receipt | Pending | Absence:
    """Look; where the token has ended, refresh it once and look again."""
    try:
        return await _look(house, delivery, connection, policy)
    except TokenExpired:
        await renewing.refresh(house, connection, policy)
        return await _look(house, delivery, connection, policy)


async def _look(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> Receipt | Pending | Absence:
    readings: list[Reading] = []
    account = await house.store.account(connection.id)
    connector = house.connector(account, policy, readings.append)
    if not isinstance(connector, Finds):
        return Absence.CANNOT_TELL
    after = tuple(receipts_of(delivery))
    number = len(after)
    part = (delivery.message or [])[number]
    sought = Sought(
        key=preparing.part_key(delivery, number),
        prepared=Prepared((delivery.prepared or [])[number]["state"]),
        text=part["text"],
        sent_at=_sent_at(delivery),
        until=datetime.now(UTC),
        after=after,
        taken=await house.store.remote_ids(delivery),
        media=await preparing.outlines_of(house, part),
    )
    try:
        return await connector.find(sought)
    finally:  # Platforms count what they refuse, too.
        await budgeting.looked(house, delivery, connection, policy, readings)


async def _judged(
    house: House, seen: Delivery, policy: PlatformPolicy, found: Receipt | Pending | Absence
) -> Step:
    last = len(seen.receipts or []) == len(seen.message or []) - 1
    match found:
        case Receipt() | Pending():
            state = await house.store.adopt_found(seen, found, last=last)
            return Step(state, found.again_in if isinstance(found, Pending) else 0.0)
        case Absence.NOT_THERE if (times := await _in_vain(house, seen)) >= MOST_IN_VAIN:
            reason = f"looked: it is not there, after {times} sends"
            who = "an operator"
            await house.store.clear_unknown(seen, State.FAILED, reason=reason, who_acts=who)
            return Step(State.FAILED)
        case Absence.NOT_THERE:
            await house.store.clear_unknown(seen, State.READY, reason="looked: it is not there")
            return Step(State.READY)
        case Absence.CANNOT_TELL:
            reason = f"{policy.title} cannot tell whether it is there; look at the account"
            await house.store.note_unknown(seen, reason=reason, who_acts="an operator")
            return Step(State.UNKNOWN, parked=True)


async def _in_vain(house: House, seen: Delivery) -> int:
    """Return how often this part was sent and got lost, since somebody asked to retry.

    Tries that are known to have done nothing, and other parts of the thread, count elsewhere.
    """
    part = len(seen.receipts or [])
    rows = await house.store.attempts_of(seen.id)
    lately = rows[-seen.attempts :] if seen.attempts else []
    return sum(row.part == part and row.verdict in (None, "unknown") for row in lately)


async def _no_leave(
    house: House, delivery: Delivery, connection: Connection, error: Reauthorize
) -> Step:
    """Leave an unknown outcome until its account is connected again."""
    why = str(error)
    if connection.status == "active":
        await house.store.set_connection_status(connection.id, "paused", why)
    reason = f"sent, outcome unknown, and no leave to look: {why}"
    await house.store.note_unknown(delivery, reason=reason, who_acts=Reauthorize.who_acts)
    return Step(State.UNKNOWN, parked=True)


async def _look_failed(
    house: House, delivery: Delivery, policy: PlatformPolicy, error: PlatformError
) -> Step:
    """Look again later; where that has gone on for long, ask an operator as well."""
    log.info("look failed", delivery_id=delivery.id, error=type(error).__name__)
    since = datetime.now(UTC) - _sent_at(delivery)
    if since > LOOK_ALONE:
        hours = since.total_seconds() / 3600
        reason = f"{policy.title} has not answered a look for {hours:.0f} h; look at the account"
        await house.store.note_unknown(delivery, reason=reason, who_acts="an operator")
    wait = publishing.verdict_of(error, 1).wait
    wait = max(wait, _SHORTEST_WAIT, since.total_seconds() / 4)
    return Step(State.UNKNOWN, wait, parked=since > LOOK_ALONE)


def _sent_at(delivery: Delivery) -> datetime:
    return delivery.sent_at or delivery.updated_at
