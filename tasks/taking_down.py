"""Takes posts down: what is unknown is looked for first, what meets trouble stays open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from clickpost import takedown
from clickpost.contract import Absence, Checks, Deletes, Receipt
from clickpost.delivery import State
from clickpost.errors import Conflict, NotFound, PlatformError, RateLimited, TokenExpired
from clickpost.logs import logger
from clickpost.people import ENGINE, Right
from clickpost.policy.shape import PlatformPolicy
from clickpost.store.tables import Connection, Delivery
from clickpost.takedown import Ended, Open
from tasks import _wiring, budgeting, reconciling, renewing, reporting, signing_off
from tasks._wiring import House
from tasks.sending import Step, receipts_of

log = logger("taking_down")

#: The sweep leaves a wish to the run that was started for it, for so long.
LEFT_TO_ITS_RUN = timedelta(seconds=100)
#: Seconds until what is being sent, or processed, is looked at again.
_SOON = 5.0


async def ask(post_id: str, code: str = "", run_id: str = "") -> list[reporting.Row]:
    """Keep the wish to take a post down; return what that is about.

    Where people are declared, a wish that nobody had yet takes the code of one who may: raises
    NotAllowed for one that does not hold.
    """
    house = await _wiring.house()
    by = ENGINE
    if await house.store.anybody() and await house.store.is_new_wish(post_id):
        about = signing_off.takedown_key(post_id)
        by = await house.store.sign_off(code, Right.TAKEDOWN, about, run_id)
    wanted = set(await house.store.want_down(post_id, by))
    return [row for row in await reporting.rows(post_id) if row.delivery_id in wanted]


async def due() -> list[reporting.Row]:
    """Return what still has to go down and has no run that works on it."""
    house = await _wiring.house()
    now = datetime.now(UTC)
    ids = await house.store.downs_due(now - LEFT_TO_ITS_RUN, now)
    return [row for one in ids for row in await reporting.rows_of(one)]


async def take_down(delivery_id: str) -> Step:
    """Delete what is visible of a delivery; say where that leaves it.

    `Step.wait` is the time to the next try where one makes sense; a parked one is for the sweep,
    or has ended with a reason.
    """
    house = await _wiring.house()
    if (await house.store.delivery(delivery_id)).state is State.UNKNOWN:
        await reconciling.reconcile(delivery_id)
    delivery = await house.store.delivery(delivery_id)
    if delivery.takedown_at is None:
        return Step(delivery.state, parked=True)
    try:
        return await _by_state(house, delivery)
    except Conflict:  # It moved in this very moment: again, as it is then.
        return Step((await house.store.delivery(delivery_id)).state, _SOON)


async def _by_state(house: House, delivery: Delivery) -> Step:
    visible = bool(delivery.receipts)
    match delivery.state:
        case State.SENDING:
            return Step(delivery.state, _SOON)
        case State.UNKNOWN:
            return Step(State.UNKNOWN, parked=True)
        case State.LIVE | State.GONE:
            return await _deleted(house, delivery)
        case state if visible and state is not State.REMOVED:
            return await _deleted(house, delivery)
        case State.PROCESSING:
            return Step(delivery.state, _SOON)
        case State.READY | State.PREPARING | State.PLANNED:
            reason = "it was to be taken down, and a look found that it was never there"
            return await _ended(house, delivery, State.CANCELLED, reason)
        case _:
            await house.store.forget_wish(delivery.id)
            return Step(delivery.state, parked=True)


async def _deleted(house: House, delivery: Delivery) -> Step:
    connection = await house.store.connection(delivery.connection_id)
    policy = house.policy(connection)
    if delivery.state is State.LIVE and not delivery.receipts:  # Somebody said that it is there.
        why = Ended("not taken down: its id at the platform is not known; delete it there")
        await house.store.stays_up(delivery, why)
        return Step(delivery.state, parked=True)
    try:
        if not await _delete(house, delivery, connection, policy):
            why = Ended(f"not taken down: {policy.title} offers no deletion by API")
            await house.store.stays_up(delivery, why)
            return Step(delivery.state, parked=True)
    except PlatformError as error:
        if isinstance(error, RateLimited):
            await budgeting.too_fast(house, connection, policy, error.retry_after, error.per)
        return await _trouble(house, delivery, error)
    return await _ended(house, delivery, takedown.end_of(delivery.state))


async def _delete(
    house: House,
    delivery: Delivery,
    connection: Connection,
    policy: PlatformPolicy,
    *,
    renewed: bool = False,
) -> bool:
    """Delete the parts, last first; False where the platform offers no deletion.

    A token that ended is renewed once.
    """
    connector = house.connector(await house.store.account(connection.id), policy)
    if not isinstance(connector, Deletes):
        return False
    try:
        for receipt in reversed(receipts_of(delivery)):
            await _part(connector, receipt)
        await budgeting.deleted(house, delivery, connection, policy)
    except TokenExpired:
        if renewed:
            raise
        await renewing.refresh(house, connection, policy)
        return await _delete(house, delivery, connection, policy, renewed=True)
    return True


async def _part(connector: Deletes, receipt: Receipt) -> None:
    """Delete one part; that it is not found counts where a look says that it is not there."""
    try:
        await connector.delete(receipt)
    except NotFound:
        if not isinstance(connector, Checks):
            raise
        if await connector.check(receipt) is not Absence.NOT_THERE:
            raise


async def _trouble(house: House, delivery: Delivery, error: PlatformError) -> Step:
    now = datetime.now(UTC)
    why = takedown.after(error, delivery.takedown_at or now, now)
    await house.store.stays_up(delivery, why)
    log.info("not taken down", delivery_id=delivery.id, error=type(error).__name__)
    if isinstance(why, Open) and why.who_acts.startswith("nobody"):
        return Step(delivery.state, (why.again_at - now).total_seconds())
    return Step(delivery.state, parked=True)


async def _ended(house: House, delivery: Delivery, end: State, reason: str | None = None) -> Step:
    await house.store.move(
        delivery.id, delivery.state, end, reason=reason, takedown_at=None, not_before=None
    )
    return Step(end)
