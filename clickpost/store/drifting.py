"""Which live posts are to be looked at, and what the looks leave behind."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, update
from sqlmodel import col, select

from clickpost.delivery import State
from clickpost.drift import CONFIRM_AFTER, LOOKS
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.tables import Connection, Delivery
from clickpost.telling import Event

#: A look that was to decide and never came to an answer is given up.
_DECIDES_WITHIN = timedelta(days=1)


class Drifting(Base):
    """Live posts, and whether they are still there."""

    async def to_look_at(
        self, moment: datetime, platforms: Iterable[str], limit: int
    ) -> list[Delivery]:
        """Return live deliveries that are due for a look, those that were missed first.

        Only those on `platforms`, of accounts that can be used, and that nobody is taking down.
        """
        second = col(Delivery.absent_at).between(moment - _DECIDES_WITHIN, moment - CONFIRM_AFTER)
        due = [
            and_(
                col(Delivery.live_at) + age <= moment,
                or_(
                    col(Delivery.checked_at).is_(None),
                    col(Delivery.checked_at) < col(Delivery.live_at) + age,
                ),
            )
            for age in LOOKS
        ]
        query = (
            select(Delivery)
            .join(Connection, col(Connection.id) == col(Delivery.connection_id))
            .where(
                Delivery.state == State.LIVE,
                col(Delivery.takedown_at).is_(None),
                col(Delivery.live_at) > moment - LOOKS[-1] * 2,
                col(Connection.status) == "active",
                col(Connection.platform).in_(list(platforms)),
                or_(second, *due),
            )
            .order_by(col(Delivery.absent_at).nulls_last(), col(Delivery.checked_at).nulls_first())
            .limit(limit)
        )
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def looked(
        self, delivery_id: str, *, absent_at: datetime | None, seen_hash: str | None
    ) -> None:
        """Note a look that changed nothing."""
        async with self.session() as session:
            change = update(Delivery).where(col(Delivery.id) == delivery_id)
            values = {"checked_at": now(), "absent_at": absent_at, "seen_hash": seen_hash}
            await session.execute(change.values(**values))

    async def edited(self, delivery_id: str, what: str, seen_hash: str | None) -> bool:
        """Note that a live post is another than it was, and tell it; False where it is not live."""
        moment = now()
        async with self.transaction() as session:
            row = await session.scalar(
                select(Delivery)
                .where(Delivery.id == delivery_id, Delivery.state == State.LIVE)
                .with_for_update()
            )
            if row is None:
                return False
            row.notes = [*(row.notes or []), f"{moment:%Y-%m-%d %H:%M} UTC: {what}"]
            row.checked_at, row.absent_at, row.seen_hash = moment, None, seen_hash
            row.updated_at = moment
            await session.flush()
            told = {"reason": what, "who_acts": "an operator"}
            await notices.about_delivery(session, row, Event.EDITED, **told)
            await append(session, "delivery.changed_outside", delivery_id, {"what": what})
        return True
