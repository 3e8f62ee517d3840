"""Sends a delivery once: intent written before, verdict after, nothing repeated blindly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

import anyio

from clickpost import drift, publishing
from clickpost.budget import Reading
from clickpost.contract import Absence, Pending, Prepared, Publishes, Receipt, Resumes
from clickpost.delivery import SETTLED, State
from clickpost.errors import (
    ClickPostError,
    Conflict,
    NotFound,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    Reauthorize,
    Transient,
    UnexpectedResponse,
)
from clickpost.logs import logger
from clickpost.policy.load import policy_hash
from clickpost.policy.shape import PlatformPolicy
from clickpost.publishing import Verdict
from clickpost.renewal import Need
from clickpost.store import ToSend
from clickpost.store.database import insisted
from clickpost.store.tables import Connection, Delivery
from tasks import _wiring, budgeting, preparing, renewing
from tasks._wiring import House

log = logger("sending")

#: A lease outlives the slowest send; after it, a delivery still `sending` is `unknown`.
LEASE = timedelta(minutes=15)
#: Seconds for which a run itself waits for budget; what waits longer makes room for others.
SHORT_WAIT = 10.0
#: As long as nobody takes the lease, a verdict that the database does not take is written again.
WRITING = LEASE - timedelta(minutes=2)


@dataclass(frozen=True)
class Step:
    """Where a delivery stands after one try: its state, and seconds until the next one."""

    state: State
    wait: float = 0.0
    parked: bool = False
    paused: bool = False
    """Whether it is held because an operator paused its platform: nobody has to be told."""

    @property
    def ended(self) -> bool:
        """Say whether nothing further happens by itself."""
        return self.state in SETTLED


async def send(delivery_id: str, run_id: str | None = None) -> Step:
    """Send one delivery, at most once, if its time has come; return where it stands."""
    house = await _wiring.house()
    await house.store.refuse_restored()
    given = await house.store.to_send(delivery_id)
    if given.delivery.state not in (State.PREPARING, State.READY):
        return Step(given.delivery.state, parked=True)
    try:
        return await _timely(house, given, run_id)
    except Conflict:  # Somebody else was faster, or it may not go; nothing was sent by us.
        with suppress(Conflict):
            if step := await _barred(house, await house.store.delivery(delivery_id)):
                return step
        await house.store.regate(delivery_id)
        return Step((await house.store.delivery(delivery_id)).state, 1.0, parked=True)


async def ready(delivery_id: str) -> Step:
    """Upload what one delivery needs, without sending it; return where it stands."""
    house = await _wiring.house()
    delivery = await house.store.delivery(delivery_id)
    try:
        return await _uploaded(house, delivery)
    except Conflict:  # Somebody else was faster, also in saying what went wrong.
        return Step((await house.store.delivery(delivery_id)).state, parked=True)


async def _uploaded(house: House, delivery: Delivery) -> Step:
    connection = await house.store.connection(delivery.connection_id)
    if await house.store.is_paused(connection.platform):
        return Step(delivery.state, parked=True)
    policy = house.policy(connection)
    try:
        connection = await _renewed(house, connection, policy)
        if await budgeting.upload_waits(house, delivery, connection, policy):
            return Step(delivery.state, parked=True)
        done = await preparing.upload(delivery.id, connection)
    except Conflict:
        raise
    except ClickPostError as error:
        return await _not_prepared(house, delivery, connection, policy, error)
    return Step(done.delivery.state, done.wait or 0.0)


async def _timely(house: House, given: ToSend, run_id: str | None) -> Step:
    delivery, now = given.delivery, datetime.now(UTC)
    begun = bool(delivery.receipts)
    match publishing.timing(delivery.due_at, delivery.not_before, given.late, now, begun=begun):
        case publishing.Wait(until=until):
            return Step(delivery.state, (until - now).total_seconds())
        case publishing.TooLate(state=state, reason=reason):
            await house.store.move(
                delivery.id, delivery.state, state, reason=reason, who_acts="an operator"
            )
            return Step(state)
        case publishing.Go():
            return await _prepared(house, given, run_id)


async def _prepared(house: House, given: ToSend, run_id: str | None) -> Step:
    delivery, connection = given.delivery, given.connection
    if connection.status != "active":
        return await _held(house, delivery, f"the connection is {connection.status}")
    if given.barred and (step := await _barred(house, delivery)):
        return step
    policy = house.policy(connection)
    try:
        connection = await _renewed(house, connection, policy)
        done = await _made_ready(house, delivery, connection, policy)
    except Conflict:  # Somebody else is at it: that is no failure of the post.
        raise
    except ClickPostError as error:
        return await _not_prepared(house, delivery, connection, policy, error)
    if done.wait is not None or done.delivery.state is not State.READY:
        return Step(done.delivery.state, done.wait or 0.0)
    return await _parts(house, done.delivery, connection, policy, run_id)


async def _barred(house: House, delivery: Delivery) -> Step | None:
    """Hold what nobody pays for, or whose platform is paused; None where it may go.

    Raises Conflict where it went on meanwhile.
    """
    unpaid, paused = await house.store.barred(delivery.id)
    if unpaid and await house.store.hold_unpaid(delivery.id):
        return Step(State.HELD)
    if paused and delivery.state in (State.PREPARING, State.READY):
        platform = (await house.store.connection(delivery.connection_id)).platform
        if await house.store.hold_if_paused(delivery, platform):
            return Step(State.HELD, paused=True)
    return None


async def _made_ready(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> preparing.Uploaded:
    """Return the delivery as it is when it was prepared ahead, else upload what it needs."""
    if delivery.state is State.READY and preparing.fresh(delivery, policy, datetime.now(UTC)):
        return preparing.Uploaded(delivery)
    if short := await budgeting.upload_waits(house, delivery, connection, policy):
        return preparing.Uploaded(delivery, short.wait(datetime.now(UTC)))
    return await preparing.upload(delivery.id, connection)


async def _renewed(house: House, connection: Connection, policy: PlatformPolicy) -> Connection:
    """Return the connection as it is after a renewal of its token, where one was needed."""
    if await renewing.renewed(house, connection, policy) is Need.NONE:
        return connection
    return await house.store.connection(connection.id)


async def _held(house: House, delivery: Delivery, reason: str) -> Step:
    await house.store.move(
        delivery.id, delivery.state, State.HELD, reason=reason, who_acts=Reauthorize.who_acts
    )
    return Step(State.HELD)


async def _not_prepared(
    house: House,
    delivery: Delivery,
    connection: Connection,
    policy: PlatformPolicy,
    error: ClickPostError,
) -> Step:
    """Record a failed preparation as an attempt that sent nothing.

    Raises Conflict where another run has taken it elsewhere meanwhile: its word stays, for who is
    to act is told by it.
    """
    current = await house.store.delivery(delivery.id)
    if current.state not in (State.PREPARING, State.READY):
        raise Conflict(f"{current.id} is {current.state} by now")
    error = publishing.unsent(error)
    verdict = budgeting.judged(error, current.attempts + 1, await budgeting.tries(house, current))
    await house.store.note_attempt(
        current.id,
        verdict=verdict,
        error=error,
        worker=house.name,
        before=current.state,
        policy=policy_hash(policy),
    )
    return await _after(house, current.id, connection, policy, verdict)


async def _parts(
    house: House,
    delivery: Delivery,
    connection: Connection,
    policy: PlatformPolicy,
    run_id: str | None,
) -> Step:
    readings: list[Reading] = []
    connector = house.connector(house.store.opened(connection), policy, readings.append)
    if not isinstance(connector, Publishes):
        raise UnexpectedResponse(f"{connection.platform} cannot publish")
    taking = budgeting.posts_of(delivery, budgeting.pots_of(house.store, connection, policy))
    if short := await budgeting.reserved(house, taking, connection, connector):
        wait = short.wait(datetime.now(UTC))
        return Step(delivery.state, wait, parked=wait > SHORT_WAIT)
    receipts = receipts_of(delivery)
    job = Sending(house, delivery, connector, house.holder(), run_id, policy_hash(policy))
    for number in range(len(receipts), len(delivery.message or [])):
        try:
            outcome, verdict = await _part(job, number, tuple(receipts))
            await budgeting.settled(house, taking, number, verdict, readings)
        except Exception:
            _wiring.leave(job.holder)  # Whatever the row says: from here nothing more comes.
            raise
        if not isinstance(outcome, Receipt):
            return await _after(house, delivery.id, connection, policy, verdict)
        receipts.append(outcome)
    return Step(State.LIVE)


@dataclass(frozen=True)
class Sending:
    """One going through a delivery's parts; its holder's lease keeps every other one out."""

    house: House
    delivery: Delivery
    connector: Publishes
    holder: str
    run_id: str | None
    policy: str


async def _part(
    job: Sending, number: int, after: tuple[Receipt, ...]
) -> tuple[Receipt | Pending | BaseException, Verdict]:
    """Write the intent, make the one call, write the verdict."""
    house, delivery = job.house, job.delivery
    key = preparing.part_key(delivery, number)
    tries = await budgeting.tries(house, delivery)
    attempt = await house.store.begin_attempt(
        delivery.id,
        worker=job.holder,
        part=number,
        intent={"content": delivery.content_hash, "key": key},
        lease=LEASE,
        run_id=job.run_id,
        policy=job.policy,
    )
    began = monotonic()
    outcome: Receipt | Pending | BaseException
    try:
        outcome = await job.connector.publish(
            Prepared(attempt.prepared[number]["state"]), key, after
        )
    except BaseException as error:
        outcome = error
    last = number == len(delivery.message or []) - 1
    verdict = budgeting.judged(outcome, attempt.tries, tries)
    seconds = monotonic() - began
    with anyio.CancelScope(shield=True):  # A cancel may not lose what came of the send.
        await insisted(
            lambda: house.store.settle(attempt, verdict, outcome, last=last, seconds=seconds),
            within=WRITING.total_seconds(),
        )
    log.info(
        "attempted",
        delivery_id=delivery.id,
        attempt=attempt.number,
        part=number,
        verdict=verdict.name,
        state=verdict.state.value,
    )
    if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
        raise outcome
    return outcome, verdict


async def _after(
    house: House,
    delivery_id: str,
    connection: Connection,
    policy: PlatformPolicy,
    verdict: Verdict,
) -> Step:
    """Do what a verdict asks for beside the row: refresh, pause, forget what was prepared."""
    match verdict.name:
        case "expired":
            return await _refreshed(house, delivery_id, connection, policy)
        case "reauthorize":
            await house.store.set_connection_status(
                connection.id, "paused", verdict.reason or "the grant is gone"
            )
        case "rate_limited":
            await budgeting.too_fast(house, connection, policy, verdict.wait, verdict.per)
        case "prepare_again":
            await house.store.save_prepared(delivery_id, [])
        case _:
            log.debug("settled", delivery_id=delivery_id, verdict=verdict.name)
    return Step(verdict.state, verdict.wait)


async def _refreshed(
    house: House, delivery_id: str, connection: Connection, policy: PlatformPolicy
) -> Step:
    try:
        await renewing.refresh(house, connection, policy)
    except Reauthorize as error:
        delivery = await house.store.delivery(delivery_id)
        if delivery.state is State.PROCESSING:  # It is out: only we do not hear of it.
            await _not_told(house, delivery, connection, error)
            return Step(State.PROCESSING, publishing.LONGEST_WAIT.total_seconds(), parked=True)
        await house.store.set_connection_status(connection.id, "paused", str(error))
        return await _held(house, delivery, str(error))
    except PlatformError as error:
        log.warning("refresh failed", connection_id=connection.id, error=type(error).__name__)
        return Step((await house.store.delivery(delivery_id)).state, 5.0)
    return Step((await house.store.delivery(delivery_id)).state, 0.0)


def receipts_of(delivery: Delivery) -> list[Receipt]:
    """Return the receipts of the parts that are there."""
    return [Receipt(**row) for row in delivery.receipts or []]


async def follow(delivery_id: str, patience: float) -> Step:
    """Ask how far the platform has come, for at most `patience` seconds."""
    house = await _wiring.house()
    delivery = await house.store.delivery(delivery_id)
    connection = await house.store.connection(delivery.connection_id)
    policy = house.policy(connection)
    until = monotonic() + patience
    poll = policy.processing.poll.total_seconds()
    while delivery.state is State.PROCESSING:
        wait = await _asked(house, delivery, connection, policy)
        delivery = await house.store.delivery(delivery_id)
        if wait is None or monotonic() + (wait or poll) > until:
            break
        await asyncio.sleep(wait or poll)
    return Step(delivery.state, poll, parked=delivery.state is State.PROCESSING)


async def _asked(
    house: House, delivery: Delivery, connection: Connection, policy: PlatformPolicy
) -> float | None:
    """Ask once; return seconds until the next question, None when it is settled."""
    connector = house.connector(await house.store.account(connection.id), policy)
    if not isinstance(connector, Resumes):
        await house.store.move(delivery.id, State.PROCESSING, State.LIVE)
        return None
    try:
        answer = await connector.resume(delivery.ticket or {})
    except NotFound as error:
        return await _missed(house, delivery, policy, error)
    except (Transient, OutcomeUnknown):
        return 5.0
    except PlatformError as error:
        if isinstance(publishing.unsent(error), Transient):  # Garbled: asking again does no harm.
            return 5.0
        if publishing.verdict_of(error, 1).again:
            return await _again_later(house, delivery, connection, policy, error)
        if not isinstance(error, PlatformRejected):
            await _not_told(house, delivery, connection, error)
            return None
        await house.store.move(
            delivery.id, State.PROCESSING, State.FAILED, reason=str(error), who_acts=error.who_acts
        )
        return None
    if isinstance(answer, Pending):
        if delivery.absent_at is not None:
            await house.store.looked(delivery.id, absent_at=None, seen_hash=delivery.seen_hash)
        return answer.again_in
    await house.store.adopt(delivery.id, State.PROCESSING, answer)
    return None


async def _missed(
    house: House, delivery: Delivery, policy: PlatformPolicy, error: NotFound
) -> float | None:
    """Take it for gone once two looks, some time apart, missed it: lists lag after an upload."""
    now = datetime.now(UTC)
    if isinstance(drift.judge([Absence.NOT_THERE], None, delivery.absent_at, now), drift.Gone):
        reason, who = f"{error}, ten minutes after the first time too", "an operator"
        await house.store.move(
            delivery.id, State.PROCESSING, State.GONE, reason=reason, who_acts=who
        )
        return None
    since = delivery.absent_at or now
    await house.store.looked(delivery.id, absent_at=since, seen_hash=delivery.seen_hash)
    return policy.processing.poll.total_seconds()


async def _not_told(
    house: House, delivery: Delivery, connection: Connection, error: PlatformError
) -> None:
    """Leave it processing where the answer is about us, and not about the post."""
    if isinstance(error, Reauthorize) and connection.status == "active":
        await house.store.set_connection_status(connection.id, "paused", str(error))
    reason = f"sent; the platform does not say how far it is: {error}"
    await house.store.note(delivery.id, reason=reason, who_acts=error.who_acts)


async def _again_later(
    house: House,
    delivery: Delivery,
    connection: Connection,
    policy: PlatformPolicy,
    error: PlatformError,
) -> float:
    verdict = publishing.verdict_of(error, 1)
    if verdict.name == "expired":
        return (await _refreshed(house, delivery.id, connection, policy)).wait
    if verdict.name == "rate_limited":
        await budgeting.too_fast(house, connection, policy, verdict.wait, verdict.per)
    return verdict.wait


async def lost(post_id: str | None = None) -> list[str]:
    """Take away from vanished workers what they held; return the ids of what may go on.

    A send becomes `unknown` and is looked for; what was only being prepared starts again.
    """
    house = await _wiring.house()
    found = []
    for delivery in await house.store.leased(post_id):
        if not _vanished(delivery):
            continue
        with suppress(Conflict):  # It went on in this very moment.
            await _taken_back(house, delivery)
            found.append(delivery.id)
    return found


def _vanished(delivery: Delivery) -> bool:
    over = delivery.lease_until is None or delivery.lease_until < datetime.now(UTC)
    return over or _wiring.is_dead(delivery.lease_owner or "")


async def _taken_back(house: House, delivery: Delivery) -> None:
    log.warning("its worker vanished", delivery_id=delivery.id, state=delivery.state.value)
    if delivery.state is State.SENDING:
        reason = "its worker vanished during the send"
        await house.store.take_back(delivery, State.UNKNOWN, reason=reason)
    elif delivery.message is None:
        await house.store.take_back(delivery, State.PLANNED)
    else:
        await house.store.release(delivery.id, delivery.lease_owner or "")


def counted(steps: Iterable[Step]) -> dict[State, int]:
    """Return how many deliveries stand where."""
    counts: dict[State, int] = {}
    for step in steps:
        counts[step.state] = counts.get(step.state, 0) + 1
    return counts
