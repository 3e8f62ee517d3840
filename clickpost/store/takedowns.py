"""What somebody wants taken down: the wish is kept until it is fulfilled, or cannot be."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_, update
from sqlmodel import col, select

from clickpost.delivery import STOPPABLE, State
from clickpost.people import ENGINE, Right
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.tables import Delivery
from clickpost.takedown import Ended, Open
from clickpost.telling import Event

_UNSENT = "its post was taken down before this was sent"
#: Of these something may be visible, or may become so.
_MAYBE_UP = (State.SENDING, State.UNKNOWN, State.PROCESSING, State.LIVE, State.GONE)


class Takedowns(Base):
    """Wishes to take down, one for each delivery."""

    async def want_down(self, post_id: str, actor: str = ENGINE) -> list[str]:
        """Keep the wish for all of a post that is, or may be, visible; return the deliveries.

        Parts of a thread are visible, whatever became of the rest. What has not left yet is
        cancelled: nobody wants it to appear afterwards. A second wish changes nothing. Raises
        NotAllowed for who may not take down.
        """
        locked = select(Delivery).where(Delivery.post_id == post_id).order_by(Delivery.id)
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.TAKEDOWN)
            rows = (await session.scalars(locked.with_for_update())).all()
            up = [row for row in rows if _may_be_up(row)]
            unsent = [row for row in rows if row.state in STOPPABLE and row not in up]
            for row in up:
                row.takedown_at = row.takedown_at or now()
            moved = [(row.id, row.state) for row in unsent]
            for row in unsent:
                row.state, row.reason, row.who_acts = State.CANCELLED, _UNSENT, None
                row.lease_owner, row.lease_until, row.updated_at = None, None, now()
            await session.flush()
            for one, before in moved:
                told = {"from": before.value, "to": State.CANCELLED.value, "why": "takedown"}
                await append(session, "delivery.moved", one, told, actor)
            facts = {"deliveries": len(up), "cancelled": len(unsent)}
            await append(session, "takedown.asked", post_id, facts, actor)
        return [row.id for row in up]

    async def is_new_wish(self, post_id: str) -> bool:
        """Say whether a wish to take the post down would change anything."""
        query = select(Delivery).where(Delivery.post_id == post_id)
        async with self.session() as session:
            rows = (await session.scalars(query)).all()
        return any(
            row.takedown_at is None and (_may_be_up(row) or row.state in STOPPABLE) for row in rows
        )

    async def downs_due(self, before: datetime, moment: datetime) -> list[str]:
        """Return what somebody wants down since before `before` and may be tried again."""
        query = (
            select(Delivery.id)
            .where(
                col(Delivery.takedown_at) < before,
                or_(col(Delivery.not_before).is_(None), col(Delivery.not_before) <= moment),
            )
            .order_by(col(Delivery.takedown_at))
            .limit(200)
        )
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def stays_up(self, seen: Delivery, why: Open | Ended) -> None:
        """Say why `seen` is not down; who has to act is told, once for each wish.

        Nothing changes where it has moved on since it was read.
        """
        change = (
            update(Delivery)
            .where(
                col(Delivery.id) == seen.id,
                col(Delivery.state) == seen.state,
                col(Delivery.takedown_at).is_not_distinct_from(seen.takedown_at),
            )
            .values(
                reason=why.reason,
                who_acts=why.who_acts,
                not_before=why.again_at if isinstance(why, Open) else None,
                takedown_at=seen.takedown_at if isinstance(why, Open) else None,
                updated_at=now(),
            )
            .returning(Delivery)
            .execution_options(synchronize_session=False)
        )
        async with self.transaction() as session:
            row = await session.scalar(change)
            if row is None or why.who_acts.startswith("nobody"):
                return
            since = (seen.takedown_at or row.updated_at).isoformat()
            told = {"since": f"{since}:{type(why).__name__}", "ended": isinstance(why, Ended)}
            await notices.about_delivery(session, row, Event.NOT_REMOVED, **told)
            await append(session, "takedown.not_done", row.id, {"ended": told["ended"]})

    async def forget_wish(self, delivery_id: str) -> None:
        """Drop the wish: nothing of the delivery is, or becomes, visible."""
        async with self.session() as session:
            change = update(Delivery).where(col(Delivery.id) == delivery_id)
            await session.execute(change.values(takedown_at=None))


def _may_be_up(row: Delivery) -> bool:
    there = bool(row.receipts) and row.state is not State.REMOVED
    return there or row.state in _MAYBE_UP
