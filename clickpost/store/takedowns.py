"""What somebody wants taken down: the wish is kept until it is fulfilled, or cannot be."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, or_, text, update
from sqlmodel import col, select

from clickpost.delivery import State
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.tables import Delivery
from clickpost.takedown import Ended, Open
from clickpost.telling import Event

#: Of these something may be visible, or may become so.
_MAYBE_UP = (State.SENDING, State.UNKNOWN, State.PROCESSING, State.LIVE, State.GONE)


class Takedowns(Base):
    """Wishes to take down, one for each delivery."""

    async def want_down(self, post_id: str, actor: str = "engine") -> list[str]:
        """Keep the wish for all of a post that is, or may be, visible; return the deliveries.

        Parts of a thread that failed are visible too. A second wish changes nothing.
        """
        parts = func.jsonb_array_length(func.coalesce(Delivery.receipts, text("'[]'::jsonb")))
        up = or_(
            col(Delivery.state).in_(_MAYBE_UP),
            col(Delivery.state).in_((State.READY, State.FAILED)) & (parts > 0),
        )
        change = (
            update(Delivery)
            .where(col(Delivery.post_id) == post_id, up)
            .values(takedown_at=func.coalesce(Delivery.takedown_at, now()))
            .returning(col(Delivery.id))
            .execution_options(synchronize_session=False)
        )
        async with self.transaction() as session:
            found = sorted((await session.scalars(change)).all())
            await append(session, "takedown.asked", post_id, {"deliveries": len(found)}, actor)
        return found

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
