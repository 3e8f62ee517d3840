"""Approvals: no send without one where one is required, each bound to one content at one time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.delivery import State
from clickpost.errors import Conflict
from clickpost.people import Right
from clickpost.publishing import GRACE
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.people import apart, permit
from clickpost.store.tables import Approval, Connection, Delivery, Post, Workspace

APPROVED, REFUSED = "approved", "refused"
_WHY = "somebody has to approve it"
WHO = "an approver"


def _is_about() -> ColumnElement[bool]:
    """Return the condition that an approval is about what the delivery says, and when, now."""
    return and_(
        col(Approval.delivery_id) == col(Delivery.id),
        col(Approval.content_hash) == col(Delivery.content_hash),
        col(Approval.due_at).is_not_distinct_from(col(Delivery.due_at)),
    )


def may_be_sent() -> ColumnElement[bool]:
    """Return the condition that no approval is needed, or that exactly this was approved.

    It stands in the guarded UPDATE that begins an attempt: no way to a send goes around it.
    """
    required = (
        exists()
        .where(
            col(Connection.id) == col(Delivery.connection_id),
            col(Workspace.id) == col(Connection.workspace_id),
            col(Post.id) == col(Delivery.post_id),
            or_(col(Connection.approval), col(Workspace.approval), col(Post.approval).is_not(None)),
        )
        .correlate(Delivery)
    )
    given = exists().where(_is_about(), col(Approval.verdict) == APPROVED).correlate(Delivery)
    return or_(~required, given)


def _lacking() -> ColumnElement[bool]:
    """Return the condition that a delivery is ready, lacks its approval and nobody works on it."""
    free = or_(col(Delivery.lease_until).is_(None), col(Delivery.lease_until) < now())
    return and_(col(Delivery.state) == State.READY, free, ~may_be_sent())


@dataclass(frozen=True)
class Asked:
    """One delivery that somebody has to approve: what is shown of it, and what it is bound to."""

    delivery_id: str
    post_id: str
    ref: str
    content_hash: str
    due_at: datetime | None
    parts: int
    media: int
    run_id: str | None


class Approvals(Base):
    """Approvals."""

    async def made_ready(
        self,
        delivery_id: str,
        content: str | None,
        prepared: list[dict[str, Any]] | None = None,
    ) -> Delivery:
        """Move what is prepared to `ready`, or to `awaiting_approval` where it needs one first.

        Keeps with it what was uploaded last, where `prepared` says so, and gives the lease back.
        Raises Conflict where it is no longer prepared, or where it got another content than
        `content` meanwhile.
        """
        async with self.transaction() as session:
            row = await _gated(
                session,
                col(Delivery.id) == delivery_id,
                col(Delivery.state) == State.PREPARING,
                col(Delivery.content_hash).is_not_distinct_from(content),
                **({} if prepared is None else {"prepared": prepared, "prepared_at": now()}),
            )
            if not row:
                raise Conflict(f"{delivery_id} is no longer preparing this content")
            await _asked(session, row)
            facts = {"from": State.PREPARING.value, "to": row[0].state.value}
            await append(session, "delivery.moved", delivery_id, facts)
        return row[0]

    async def regate(self, delivery_id: str | None = None) -> list[str]:
        """Set apart what is ready and lacks its approval, and free what no longer lacks one.

        Of one delivery, or of all; return the posts that this touched.
        """
        chosen = [col(Delivery.id) == delivery_id] if delivery_id else []
        lacking = _lacking()
        freed = and_(col(Delivery.state) == State.AWAITING_APPROVAL, may_be_sent())
        async with self.transaction() as session:
            rows = await _gated(session, or_(lacking, freed), *chosen)
            await _asked(session, rows)
            for row in rows:
                facts = {"to": row.state.value, "why": "approval"}
                await append(session, "delivery.moved", row.id, facts)
        return sorted({row.post_id for row in rows})

    async def require_approval(self, ref: str | None, *, on: bool, actor: str) -> list[str]:
        """Require approval of a connection's posts (PLATFORM/NAME), or of all of the workspace's.

        What is ready already is held to it as well. Return the posts that this touched. Raises
        NotAllowed for who may not say so.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ADMINISTER)
            if ref is None:
                change = update(Workspace).values(approval=on).returning(col(Workspace.id))
            else:
                platform, _, name = ref.partition("/")
                change = (
                    update(Connection)
                    .where(col(Connection.platform) == platform, col(Connection.name) == name)
                    .values(approval=on)
                    .returning(col(Connection.id))
                )
            changed = (await session.execute(change)).scalars().all()
            for subject in changed:
                await append(session, "approval.required", subject, {"on": on}, actor)
        return await self.regate()

    async def require_approval_of(self, post_id: str, trigger: str) -> None:
        """Let nothing of a post be sent from now on without an approval: `trigger` wants it so.

        What is ready already is held to it as well; a second time changes nothing.
        """
        known = select(Delivery.id).where(Delivery.post_id == post_id).order_by(col(Delivery.id))
        wants = update(Post).where(col(Post.id) == post_id, col(Post.approval).is_(None))
        async with self.transaction() as session:
            await session.execute(known.with_for_update())  # Before the post, as an edit does.
            change = wants.values(approval=trigger).returning(col(Post.id))
            if await session.scalar(change) is None:
                return
            rows = await _gated(session, col(Delivery.post_id) == post_id, _lacking())
            await _asked(session, rows)
            for row in rows:
                facts = {"to": row.state.value, "why": "approval"}
                await append(session, "delivery.moved", row.id, facts)
            actor = f"trigger:{trigger}"
            await append(session, "approval.required", post_id, {"on": True}, actor)

    async def open_approvals(
        self, *, post_id: str | None = None, run_id: str | None = None
    ) -> list[Asked]:
        """Return what waits for an approval: of a post, of one question's run, or all of it."""
        query = (
            select(Delivery, Approval, col(Connection.platform), col(Connection.name))
            .join(Approval, _is_about())
            .join(Connection, col(Connection.id) == col(Delivery.connection_id))
            .where(col(Delivery.state) == State.AWAITING_APPROVAL, col(Approval.verdict).is_(None))
            .order_by(col(Connection.platform), col(Connection.name))
        )
        if post_id is not None:
            query = query.where(Delivery.post_id == post_id)
        if run_id is not None:
            query = query.where(Approval.run_id == run_id)
        async with self.session() as session:
            rows = (await session.execute(query)).all()
        return [_asked_of(*row) for row in rows]

    async def former_approval_runs(self, post_id: str | None = None) -> list[str]:
        """Return the runs that ask about what is different by now, of one post or of all."""
        query = (
            select(Approval.run_id)
            .join(Delivery, col(Delivery.id) == col(Approval.delivery_id))
            .where(
                col(Approval.run_id).is_not(None),
                col(Approval.verdict).is_(None),
                or_(~_is_about(), col(Delivery.state) != State.AWAITING_APPROVAL),
            )
        )
        if post_id is not None:
            query = query.where(Delivery.post_id == post_id)
        async with self.session() as session:
            return sorted({str(one) for one in (await session.scalars(query)).all()})

    async def set_approval_run(self, asked: Sequence[Asked], run_id: str) -> None:
        """Remember which run asks."""
        async with self.session() as session:
            for one in asked:
                await session.execute(
                    update(Approval)
                    .where(
                        col(Approval.delivery_id) == one.delivery_id,
                        col(Approval.content_hash) == one.content_hash,
                    )
                    .values(run_id=run_id)
                )

    async def forget_approval_run(self, run_id: str) -> None:
        """Forget a run that asks no more."""
        async with self.session() as session:
            change = update(Approval).where(col(Approval.run_id) == run_id)
            await session.execute(change.values(run_id=None))

    async def miss_unapproved(self) -> list[str]:
        """Give up what nobody approved in time and whose `late` says skip; return its posts."""
        skips = select(Post.id).where(Post.late == "skip")
        change = (
            update(Delivery)
            .where(
                col(Delivery.state) == State.AWAITING_APPROVAL,
                col(Delivery.due_at) < now() - GRACE,
                col(Delivery.receipts).is_(None),  # A thread that has begun is not too late.
                col(Delivery.post_id).in_(skips),
            )
            .values(
                state=State.MISSED,
                reason="not approved in time; its policy says skip",
                who_acts="an operator",
                updated_at=now(),
            )
            .returning(Delivery)
            .execution_options(synchronize_session=False)
        )
        async with self.transaction() as session:
            rows = (await session.scalars(change)).all()
            for row in rows:
                await notices.about_delivery(session, row)
            for row in rows:
                facts = {"from": State.AWAITING_APPROVAL.value, "to": State.MISSED.value}
                await append(session, "delivery.moved", row.id, facts)
        return sorted({row.post_id for row in rows})

    async def decide(self, asked: Asked, *, approve: bool, by: str, note: str = "") -> State:
        """Write down what somebody decided about exactly what was asked; return the new state.

        Raises Conflict where its text, media or time changed since, or it was decided already;
        NotAllowed for who may not approve, and for the author where that takes two people.
        """
        verdict, after = (APPROVED, State.READY) if approve else (REFUSED, State.FAILED)
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.APPROVE)
            await apart(session, self.rules, by, asked.post_id)
            row = await session.scalar(
                update(Approval)
                .where(
                    col(Approval.delivery_id) == asked.delivery_id,
                    col(Approval.content_hash) == asked.content_hash,
                    col(Approval.due_at).is_not_distinct_from(asked.due_at),
                    col(Approval.verdict).is_(None),
                )
                .values(verdict=verdict, decided_by=by, decided_at=now(), note=note or None)
                .returning(col(Approval.id))
            )
            moved = await session.scalar(
                update(Delivery)
                .where(
                    col(Delivery.id) == asked.delivery_id,
                    col(Delivery.state) == State.AWAITING_APPROVAL,
                    col(Delivery.content_hash) == asked.content_hash,
                    col(Delivery.due_at).is_not_distinct_from(asked.due_at),
                )
                .values(
                    state=after,
                    reason=None if approve else "its approval was refused",
                    who_acts=None if approve else "the writer",
                    notes=_noted(verdict, by, note) if note.strip() else col(Delivery.notes),
                    updated_at=now(),
                )
                .returning(Delivery)
                .execution_options(synchronize_session=False)
            )
            if row is None or moved is None:
                raise Conflict(
                    f"{asked.delivery_id} changed since it was asked about, or is decided"
                )
            await notices.about_delivery(session, moved)
            facts = {"content": asked.content_hash, "verdict": verdict, "to": after.value}
            await append(session, "approval.decided", asked.delivery_id, facts, by)
        return after

    async def approvals_of(self, post_id: str) -> list[Approval]:
        """Return what was asked and decided about a post's deliveries, first to last."""
        query = (
            select(Approval)
            .join(Delivery, col(Delivery.id) == col(Approval.delivery_id))
            .where(Delivery.post_id == post_id)
            .order_by(col(Approval.asked_at))
        )
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def posts_to_approve(self, *, unasked: bool = False) -> list[str]:
        """Return the posts of which something waits for approval; or only where no run asks yet."""
        query = (
            select(Delivery.post_id)
            .join(Approval, _is_about())
            .join(Post, col(Post.id) == col(Delivery.post_id))
            .where(col(Delivery.state) == State.AWAITING_APPROVAL, col(Approval.verdict).is_(None))
        )
        if unasked:
            query = query.where(col(Approval.run_id).is_(None))
        async with self.session() as session:
            return sorted(set((await session.scalars(query)).all()))


async def gate(session: Any, delivery_ids: Sequence[str]) -> None:
    """Within a transaction that changed them: ask anew for what is prepared and not approved so."""
    prepared = col(Delivery.state).in_((State.READY, State.AWAITING_APPROVAL))
    await _asked(session, await _gated(session, col(Delivery.id).in_(delivery_ids), prepared))


async def _gated(session: Any, *conditions: Any, **more: Any) -> list[Delivery]:
    """Move the deliveries that `conditions` name to `ready`, or to wait for their approval.

    `more` columns are written with it.
    """
    allowed = may_be_sent()
    kind = Delivery.__table__.c.state.type  # type: ignore[attr-defined]
    change = (
        update(Delivery)
        .where(*conditions)
        .values(
            state=case(
                (allowed, literal(State.READY, kind)),
                else_=literal(State.AWAITING_APPROVAL, kind),
            ),
            reason=case((allowed, None), else_=_WHY),
            who_acts=case((allowed, None), else_=WHO),
            lease_owner=None,
            lease_until=None,
            updated_at=now(),
            **more,
        )
        .returning(Delivery)
        .execution_options(synchronize_session=False)
    )
    return list((await session.scalars(change)).all())


async def _asked(session: Any, rows: Sequence[Delivery]) -> None:
    """Note for each that waits what is asked; a former refusal, or another time, is asked anew."""
    for row in rows:
        if row.state is not State.AWAITING_APPROVAL:
            continue
        fresh: dict[str, Any] = {
            "due_at": row.due_at,
            "asked_at": now(),
            "run_id": None,
            "verdict": None,
            "decided_by": None,
            "decided_at": None,
            "note": None,
        }
        values = {
            "id": ids.new("appr"),
            "delivery_id": row.id,
            "content_hash": row.content_hash,
            **fresh,
        }
        await session.execute(
            insert(Approval)
            .values(values)
            .on_conflict_do_update(index_elements=["delivery_id", "content_hash"], set_=fresh)
        )
        await notices.about_delivery(session, row)


def _noted(verdict: str, by: str, note: str) -> Any:
    """Return the delivery's notes and that of who decided: the writer reads it there."""
    said = cast(literal([f"{verdict} by {by}: {note.strip()}"], JSONB), JSONB)
    return func.coalesce(Delivery.notes, text("'[]'::jsonb")).op("||")(said)


def _asked_of(delivery: Delivery, approval: Approval, platform: str, name: str) -> Asked:
    parts = delivery.message or []
    return Asked(
        delivery_id=delivery.id,
        post_id=delivery.post_id,
        ref=f"{platform}/{name}",
        content_hash=approval.content_hash,
        due_at=delivery.due_at,
        parts=len(parts),
        media=sum(len(part["media"]) for part in parts),
        run_id=approval.run_id,
    )
