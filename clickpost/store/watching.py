"""What should be moving, for whoever watches that it does."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, or_
from sqlmodel import col, select

from clickpost.delivery import State
from clickpost.store._base import Base
from clickpost.store.tables import Connection, Delivery, Post
from clickpost.stuck import OVERDUE, Going

_GOING = (
    State.PLANNED,
    State.PREPARING,
    State.READY,
    State.SENDING,
    State.UNKNOWN,
    State.PROCESSING,
)


class Watching(Base):
    """Deliveries under way, and accounts that cannot be used."""

    async def going(self, moment: datetime) -> list[Going]:
        """Return what is under way for longer than a delivery usually is, oldest first."""
        late = moment - OVERDUE
        slow = col(Delivery.state).in_(_GOING) & (_due() < late)
        query = (
            select(Delivery, Connection, col(Post.flow_run_id))
            .join(Connection, col(Connection.id) == col(Delivery.connection_id))
            .join(Post, col(Post.id) == col(Delivery.post_id))
            .where(or_(slow, col(Delivery.takedown_at) < late))
            .order_by(_due())
            .limit(1000)
        )
        async with self.session() as session:
            rows = (await session.execute(query)).all()
        return [_going(*row) for row in rows]

    async def unusable(self) -> list[Connection]:
        """Return the connections that are paused or revoked."""
        async with self.session() as session:
            query = select(Connection).where(Connection.status != "active")
            return list((await session.scalars(query.order_by(col(Connection.updated_at)))).all())


def _due() -> Any:
    return func.greatest(Delivery.due_at, Delivery.not_before, Delivery.created_at)


def _going(row: Delivery, connection: Connection, run_id: str | None) -> Going:
    return Going(
        id=row.id,
        post_id=row.post_id,
        workspace_id=connection.workspace_id,
        connection_id=connection.id,
        platform=connection.platform,
        ref=connection.ref,
        state=row.state,
        reason=row.reason,
        who_acts=row.who_acts,
        run_id=run_id,
        due_at=row.due_at,
        not_before=row.not_before,
        sent_at=row.sent_at,
        takedown_at=row.takedown_at,
        lease_until=row.lease_until,
        created_at=row.created_at,
    )
