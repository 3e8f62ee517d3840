"""Deliveries and attempts: intent before the send, verdict after it, nothing in between is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import func, insert, or_, text, update
from sqlmodel import col, select

from clickpost import ids
from clickpost.contract import Pending, Receipt
from clickpost.delivery import STOPPABLE, State, may_move
from clickpost.draft import Late
from clickpost.errors import Conflict, PlatformError
from clickpost.publishing import Verdict
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store._deliveries import LINE, RUN, changed, later, outcome_columns
from clickpost.store.approvals import may_be_sent
from clickpost.store.pausing import is_open
from clickpost.store.subscriptions import is_paid_for
from clickpost.store.tables import Attempt, Connection, Delivery, Post, Rendition

#: A run that waits for a delivery's time takes it up within this; after it, the sweep does.
WAITED = timedelta(seconds=5)
#: What nobody has moved for this long has no live run.
STUCK_AFTER = timedelta(seconds=100)
_OPEN = (State.PLANNED, State.PREPARING, State.READY)
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class DeliveryLine:
    """One delivery as tables and flows show it: no content."""

    id: str
    post_id: str
    platform: str
    ref: str
    state: State
    reason: str | None
    who_acts: str | None
    url: str | None
    remote_id: str | None
    attempts: int
    rendition: str
    notes: list[str]
    has_media: bool
    due_at: datetime | None
    not_before: datetime | None
    live_at: datetime | None
    run_id: str | None
    created_at: datetime
    updated_at: datetime
    policy: str | None = None
    """The hash of the platform's policy under which it was prepared."""


@dataclass(frozen=True)
class Started:
    """An attempt whose intent is written; `prepared` is what it will send, frozen with it.

    `number` counts all attempts of the delivery, `tries` those since somebody asked to retry.
    """

    id: str
    delivery_id: str
    number: int
    tries: int
    part: int
    prepared: list[dict[str, Any]]
    worker: str
    at: datetime


@dataclass(frozen=True)
class ToSend:
    """A delivery and what decides whether it may go now, as read in one moment."""

    delivery: Delivery
    connection: Connection
    late: Late
    barred: bool
    """Whether its workspace's subscription is suspended, or its platform paused."""


class Deliveries(Base):
    """Deliveries and attempts."""

    async def to_send(self, delivery_id: str) -> ToSend:
        """Return one delivery with its connection, and what decides whether it may go."""
        late: Any = col(Post.body)["post"]["late"]
        query = (
            select(Delivery, Connection, late.astext, or_(~is_paid_for(), ~is_open()))
            .join(Connection, col(Connection.id) == col(Delivery.connection_id))
            .join(Post, col(Post.id) == col(Delivery.post_id))
            .where(col(Delivery.id) == delivery_id)
        )
        async with self.session() as session:
            return ToSend(*(await session.execute(query)).one())

    async def delivery(self, delivery_id: str) -> Delivery:
        """Return one delivery."""
        async with self.session() as session:
            return await session.get_one(Delivery, delivery_id)

    async def deliveries_of(self, post_id: str) -> list[Delivery]:
        """Return a post's deliveries."""
        async with self.session() as session:
            query = select(Delivery).where(Delivery.post_id == post_id).order_by(Delivery.id)
            return list((await session.scalars(query)).all())

    async def attempts_of(self, delivery_id: str) -> list[Attempt]:
        """Return a delivery's attempts, first to last."""
        async with self.session() as session:
            query = select(Attempt).where(Attempt.delivery_id == delivery_id)
            return list((await session.scalars(query.order_by(col(Attempt.number)))).all())

    async def move(
        self,
        delivery_id: str,
        before: State,
        after: State,
        *,
        reason: str | None = None,
        who_acts: str | None = None,
        actor: str = "engine",
        because: Mapping[str, str] = _NOTHING,
        **columns: Any,
    ) -> Delivery:
        """Move a delivery by one guarded UPDATE and one ledger line, which tells `because` too.

        Raises Conflict where it is no longer in `before`, or where no way leads there.
        """
        if not may_move(before, after):
            raise Conflict(f"no way leads from {before} to {after}")
        async with self.transaction() as session:
            row = await changed(
                session,
                delivery_id,
                (before,),
                state=after,
                reason=reason,
                who_acts=who_acts,
                **columns,
            )
            facts = {"from": before.value, "to": after.value, **because}
            await append(session, "delivery.moved", delivery_id, facts, actor)
        return row

    async def note(self, delivery_id: str, *, reason: str, who_acts: str) -> None:
        """Say why a delivery stays where it is, and who must act."""
        async with self.transaction() as session:
            change = update(Delivery).where(col(Delivery.id) == delivery_id)
            values = {"reason": reason, "who_acts": who_acts, "updated_at": now()}
            row = await session.scalar(change.values(values).returning(Delivery))
            if row is not None:
                await notices.about_delivery(session, row)

    async def save_message(
        self,
        delivery_id: str,
        *,
        message: list[dict[str, Any]],
        content_hash: str,
        policy_hash: str,
        notes: list[str],
        holder: str,
    ) -> None:
        """Keep what the target will get; Conflict where `holder` no longer prepares it."""
        async with self.session() as session:
            await changed(
                session,
                delivery_id,
                (State.PREPARING,),
                col(Delivery.lease_owner) == holder,
                message=message,
                content_hash=content_hash,
                policy_hash=policy_hash,
                notes=notes,
                prepared=[],
                prepared_at=None,
                lease_owner=None,
                lease_until=None,
            )

    async def save_prepared(
        self, delivery_id: str, prepared: list[dict[str, Any]], *, content: str | None = None
    ) -> Delivery:
        """Keep what was uploaded for `content` (None: whatever it is).

        Refused (Conflict) once the delivery is being sent, or has got another content.
        """
        same = [col(Delivery.content_hash) == content] if content is not None else []
        async with self.session() as session:
            return await changed(
                session,
                delivery_id,
                (State.PREPARING, State.READY),
                *same,
                prepared=prepared,
                prepared_at=now(),
            )

    async def lease(self, delivery_id: str, worker: str, lasts: timedelta) -> Delivery | None:
        """Take a delivery that is being prepared; None while another worker has it.

        Without its message it is still being written: only whoever does that holds on to it.
        """
        async with self.session() as session:
            change = (
                update(Delivery)
                .where(
                    col(Delivery.id) == delivery_id,
                    col(Delivery.state).in_((State.PREPARING, State.READY)),
                    or_(col(Delivery.message).is_not(None), col(Delivery.lease_owner) == worker),
                    or_(
                        col(Delivery.lease_until).is_(None),
                        col(Delivery.lease_until) < now(),
                        col(Delivery.lease_owner) == worker,
                    ),
                )
                .values(lease_owner=worker, lease_until=now() + lasts)
                .returning(Delivery)
                .execution_options(synchronize_session=False)
            )
            row: Delivery | None = await session.scalar(change)
            return row

    async def release(self, delivery_id: str, worker: str) -> None:
        """Give back what `lease` took."""
        async with self.session() as session:
            change = update(Delivery).where(
                col(Delivery.id) == delivery_id,
                col(Delivery.lease_owner) == worker,
                col(Delivery.state) != State.SENDING,
            )
            await session.execute(change.values(lease_owner=None, lease_until=None))

    async def barred(self, delivery_id: str) -> tuple[bool, bool]:
        """Say whether its workspace's subscription is suspended, and its platform paused."""
        query = select(~is_paid_for(), ~is_open()).where(col(Delivery.id) == delivery_id)
        async with self.session() as session:
            unpaid, paused = (await session.execute(query)).one()
        return bool(unpaid), bool(paused)

    async def begin_attempt(
        self,
        delivery_id: str,
        *,
        worker: str,
        part: int,
        intent: dict[str, Any],
        lease: timedelta,
        run_id: str | None,
        policy: str | None = None,
    ) -> Started:
        """Write the intent and take the delivery, in one transaction, before anything leaves.

        A first part goes from `ready` to `sending`; a further part of a thread needs our own
        lease on the `sending` delivery. Raises Conflict where somebody else was faster, where
        this part is there already, where its time was put off or its content changed meanwhile,
        where it needs an approval that it does not have, where its workspace's subscription is
        suspended, and where its platform is paused. `policy` is the hash of the policy that it
        follows.
        """
        moment = now()
        async with self.transaction() as session:
            row = await changed(
                session,
                delivery_id,
                (State.READY, State.SENDING),
                _taken_by(worker),
                _is_next(part),
                _is_due(moment),
                _is_wanted(),
                col(Delivery.content_hash) == intent["content"],
                may_be_sent(),
                is_paid_for(),
                is_open(),
                state=State.SENDING,
                attempts=Delivery.attempts + 1,
                lease_owner=worker,
                lease_until=moment + lease,
                sent_at=moment,
                reason=None,
                who_acts=None,
            )
            attempt = {
                "id": ids.new("try"),
                "delivery_id": delivery_id,
                "number": _next_number(delivery_id),
                "part": part,
                "intent": {**intent, "prepared": (row.prepared or [])[part]["state"]},
                "started_at": moment,
                "worker": worker,
                "flow_run_id": run_id,
                "policy_hash": policy,
            }
            added = insert(Attempt).values(attempt).returning(col(Attempt.number))
            number = int(await session.scalar(added) or 0)
            facts = {
                "attempt": number,
                "part": part,
                "content": intent["content"],
                "policy": policy,
            }
            await append(session, "delivery.sending", delivery_id, facts)
        return Started(
            id=attempt["id"],
            delivery_id=delivery_id,
            number=number,
            tries=row.attempts,
            part=part,
            prepared=list(row.prepared or []),
            worker=worker,
            at=moment,
        )

    async def settle(
        self,
        started: Started,
        verdict: Verdict,
        outcome: Receipt | Pending | BaseException,
        *,
        last: bool,
        seconds: float,
    ) -> None:
        """Write the verdict and move the delivery, in one transaction.

        Also where the send was taken for lost meanwhile, as long as nobody has sent or settled it
        since. Raises Conflict otherwise: the verdict is kept with its attempt, and moves nothing.
        May run again, as after an answer of the database that got lost: the first one counts.
        """
        async with self.transaction() as session:
            ended = (
                update(Attempt)
                .where(col(Attempt.id) == started.id, col(Attempt.finished_at).is_(None))
                .values(finished_at=now(), seconds=seconds, verdict=verdict.name, **_told(outcome))
                .returning(col(Attempt.delivery_id))
                .cte("ended")
            )
            query = select(Delivery).join(ended, ended.c.delivery_id == col(Delivery.id))
            row = await session.scalar(query.with_for_update(of=Delivery))
            if row is None:
                return
            state = _settled_state(row, started, verdict, outcome, last=last)
            if state is not None:
                await _settled(session, row, state, verdict, outcome, last=last)
            facts = {"attempt": started.number, "verdict": verdict.name, "to": state or "nowhere"}
            await append(session, "delivery.settled", started.delivery_id, facts)
        if state is None:
            raise Conflict(f"{started.delivery_id} was taken for lost, and settled by others")

    async def note_attempt(
        self,
        delivery_id: str,
        *,
        verdict: Verdict,
        error: BaseException,
        worker: str,
        before: State,
        policy: str | None = None,
    ) -> None:
        """Record a preparation that failed: nothing was sent, and the row says what comes next."""
        moment = now()
        after = State.PREPARING if verdict.state is State.READY else verdict.state
        async with self.transaction() as session:
            row = await changed(
                session,
                delivery_id,
                (before,),
                state=before if verdict.again else after,
                attempts=Delivery.attempts + 1,
                reason=verdict.reason,
                who_acts=verdict.who_acts,
                not_before=later(verdict, moment),
            )
            attempt = {
                "id": ids.new("try"),
                "delivery_id": delivery_id,
                "number": _next_number(delivery_id),
                "intent": {"step": "prepare"},
                "started_at": moment,
                "finished_at": moment,
                "verdict": verdict.name,
                "worker": worker,
                "policy_hash": policy,
                **_told(error),
            }
            added = insert(Attempt).values(attempt).returning(col(Attempt.number))
            number = int(await session.scalar(added) or 0)
            facts = {
                "attempt": number,
                "verdict": verdict.name,
                "to": row.state.value,
                "policy": policy,
            }
            await append(session, "delivery.not_prepared", delivery_id, facts)

    async def adopt(self, delivery_id: str, before: State, found: Receipt | Pending) -> None:
        """Take what processing came to as the delivery's outcome."""
        verdict = (
            Verdict("live", State.LIVE)
            if isinstance(found, Receipt)
            else Verdict("processing", State.PROCESSING, wait=found.again_in)
        )
        columns = outcome_columns(
            found, verdict, now(), last=True, replace=before is State.PROCESSING
        )
        async with self.transaction() as session:
            await changed(
                session,
                delivery_id,
                (before,),
                state=verdict.state,
                reason=None,
                who_acts=None,
                lease_owner=None,
                lease_until=None,
                absent_at=None,
                **columns,
            )
            facts = {"from": before.value, "to": verdict.state.value, "looked": True}
            await append(session, "delivery.moved", delivery_id, facts)

    async def leased(self, post_id: str | None = None) -> list[Delivery]:
        """Return what some worker holds, of one post or of all."""
        async with self.session() as session:
            query = select(Delivery).where(
                col(Delivery.state).in_((State.PREPARING, State.READY, State.SENDING)),
                col(Delivery.lease_owner).is_not(None),
            )
            if post_id is not None:
                query = query.where(Delivery.post_id == post_id)
            return list((await session.scalars(query)).all())

    async def lines(self, post_id: str) -> list[DeliveryLine]:
        """Return a post's deliveries for tables and flows."""
        return await self._lines(LINE.where(col(Delivery.post_id) == post_id))

    async def stoppable_lines(self, run_ids: Sequence[str]) -> list[DeliveryLine]:
        """Return what the flow runs `run_ids` were to send and what can still be called off."""
        stoppable = col(Delivery.state).in_(STOPPABLE)
        return await self._lines(LINE.where(RUN.in_(run_ids), stoppable))

    async def held_lines(self, ref: str) -> list[DeliveryLine]:
        """Return what is held on the connection PLATFORM/NAME."""
        platform, _, name = ref.partition("/")
        account = (col(Connection.platform) == platform) & (col(Connection.name) == name)
        return await self._lines(LINE.where(account, col(Delivery.state) == State.HELD))

    async def due_lines(self, moment: datetime) -> list[DeliveryLine]:
        """Return what is due at `moment`, to the second, and not yet sent.

        Not what was due before: each moment has its run, and where that was lost, the sweep. Many
        late runs that all took everything would do all the work many times over.
        """
        due = func.greatest(Delivery.due_at, Delivery.not_before)
        now_due = col(Delivery.due_at) > moment - timedelta(seconds=1)
        query = LINE.where(col(Delivery.state).in_(_OPEN), now_due, due <= moment)
        return await self._lines(query)

    async def stuck_lines(self, moment: datetime, also: Sequence[str] = ()) -> list[DeliveryLine]:
        """Return what should have moved and did not, and the deliveries `also` names.

        What waited for a time is taken up soon after it; what never began, once no run of its own
        can be on its way to it. The longest overdue come first, at most 500. Not what is unknown:
        `reconcile-deliveries` looks for that.
        """
        quiet = col(Delivery.updated_at) < moment - STUCK_AFTER
        due = func.coalesce(
            func.greatest(Delivery.due_at, Delivery.not_before), Delivery.updated_at
        )
        free = or_(col(Delivery.lease_until).is_(None), col(Delivery.lease_until) < moment)
        overdue = col(Delivery.state).in_(_OPEN) & (due <= moment - timedelta(seconds=20)) & free
        again = col(Delivery.not_before) <= moment - WAITED
        waited = col(Delivery.state).in_(_OPEN) & again & free
        going = col(Delivery.state) == State.PROCESSING
        named = col(Delivery.id).in_(also)
        query = LINE.where(or_(named, waited, quiet & or_(overdue, going)))
        return await self._lines(query.order_by(due).limit(500))

    async def counts(self) -> dict[str, int]:
        """Return how many deliveries stand in each state."""
        async with self.session() as session:
            query = select(Delivery.state, func.count()).group_by(col(Delivery.state))
            rows = (await session.execute(query)).all()
        return {str(row[0]): int(row[1]) for row in rows}

    async def _lines(self, query: Any) -> list[DeliveryLine]:
        async with self.session() as session:
            rows = (await session.execute(query)).all()
            wanted = {one for row in rows for one in _renditions(row[0].message)}
            labels = await self._labels(session, wanted)
        return [_line(row, labels) for row in rows]

    async def _labels(self, session: Any, wanted: set[str]) -> dict[str, str]:
        if not wanted:
            return {}
        query = select(Rendition.id, Rendition.label).where(col(Rendition.id).in_(wanted))
        return {row[0]: row[1] for row in (await session.execute(query)).all()}


def _renditions(message: list[dict[str, Any]] | None) -> list[str]:
    return [item["rendition_id"] for part in message or [] for item in part["media"]]


def _line(row: Any, labels: dict[str, str]) -> DeliveryLine:
    delivery, platform, name, run_id = row
    renditions = _renditions(delivery.message)
    return DeliveryLine(
        id=delivery.id,
        post_id=delivery.post_id,
        platform=platform,
        ref=f"{platform}/{name}",
        state=delivery.state,
        reason=delivery.reason,
        who_acts=delivery.who_acts,
        url=delivery.url,
        remote_id=delivery.remote_id,
        attempts=delivery.attempts,
        rendition=", ".join(labels.get(one, "gone") for one in renditions),
        notes=list(delivery.notes or []),
        has_media=bool(renditions),
        due_at=delivery.due_at,
        not_before=delivery.not_before,
        live_at=delivery.live_at,
        run_id=run_id,
        created_at=delivery.created_at,
        updated_at=delivery.updated_at,
        policy=delivery.policy_hash,
    )


def _taken_by(worker: str) -> Any:
    """Return the condition under which `worker` may send: nobody, or itself, holds the lease."""
    free = or_(col(Delivery.lease_until).is_(None), col(Delivery.lease_until) < now())
    ready = (col(Delivery.state) == State.READY) & or_(free, col(Delivery.lease_owner) == worker)
    ours = (col(Delivery.state) == State.SENDING) & (col(Delivery.lease_owner) == worker)
    return or_(ready, ours)


def _is_next(part: int) -> Any:
    """Return the condition that exactly the parts before `part` are there."""
    there = func.jsonb_array_length(func.coalesce(Delivery.receipts, text("'[]'::jsonb")))
    return there == part


def _is_due(moment: datetime) -> Any:
    """Return the condition that neither due time nor budget asks to wait."""
    return func.coalesce(func.greatest(Delivery.due_at, Delivery.not_before), moment) <= moment


def _is_wanted() -> Any:
    """Return the condition that nobody wants it down; a thread that is going out ends first."""
    return or_(col(Delivery.takedown_at).is_(None), col(Delivery.state) == State.SENDING)


def _next_number(delivery_id: str) -> Any:
    """Return the next attempt's number; the delivery's row is locked by the change before."""
    query = select(func.coalesce(func.max(Attempt.number), 0) + 1)
    return query.where(Attempt.delivery_id == delivery_id).scalar_subquery()


def _settled_state(
    row: Delivery,
    started: Started,
    verdict: Verdict,
    outcome: Receipt | Pending | BaseException,
    *,
    last: bool,
) -> State | None:
    """Return where a verdict moves the row, locked as it is; None where it is another's by now."""
    if row.sent_at != started.at:
        return None
    part_of_more = isinstance(outcome, Receipt) and not last
    if row.state is State.SENDING and row.lease_owner == started.worker:
        return State.SENDING if part_of_more else verdict.state
    # A look that came too early let it go, and it has not gone: what is there is there.
    too_early = isinstance(outcome, Receipt) and row.state is State.READY
    lost = row.state is State.UNKNOWN or too_early
    if not lost or len(row.receipts or []) != started.part:
        return None
    stays = verdict.state is State.UNKNOWN or may_move(State.UNKNOWN, verdict.state)
    return verdict.state if stays and not part_of_more else State.READY


async def _settled(
    session: Any,
    row: Delivery,
    state: State,
    verdict: Verdict,
    outcome: Receipt | Pending | BaseException,
    *,
    last: bool,
) -> None:
    columns = outcome_columns(outcome, verdict, now(), last=last)
    if state is not State.SENDING:
        columns.update(lease_owner=None, lease_until=None)
    told = {"state": state, "reason": verdict.reason, "who_acts": verdict.who_acts, **columns}
    await changed(session, row.id, (row.state,), **told)


def _told(outcome: object) -> dict[str, Any]:
    if not isinstance(outcome, PlatformError):
        return {}
    return {"status": outcome.status, "code": outcome.code, "detail": outcome.detail}
