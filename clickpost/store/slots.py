"""Slots of connections: the next free one is taken under a lock, so that two never get the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import func, update
from sqlmodel import col, select

from clickpost.delivery import State
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.slots import Slots, upcoming
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.tables import Connection, Delivery

#: A slot is taken at least so long ahead: what is nearer could not be prepared in time.
LEAD = timedelta(seconds=60)
#: What stands so will not be sent at its moment any more: its slot is free.
_FREES = (State.CANCELLED, State.MISSED, State.REMOVED)
_AT_ONCE = 64


class QueueSlots(Base):
    """Slots of connections."""

    async def set_slots(self, connection_id: str, slots: Slots | None, *, actor: str) -> None:
        """Keep the connection's slots; what is scheduled already stays where it is.

        Raises NotAllowed for who may not plan posts.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.PUBLISH)
            given = slots.model_dump(mode="json") if slots is not None and slots.days else None
            change = update(Connection).where(col(Connection.id) == connection_id)
            await session.execute(change.values(slots=given))
            facts = {"slots": sum(map(len, slots.days.values())) if slots else 0}
            await append(session, "connection.slots", connection_id, facts, actor)

    async def free_slots(self, connection_id: str, number: int) -> list[datetime]:
        """Return the next free slots of a connection, without taking them."""
        async with self.session() as session:
            row = await session.get_one(Connection, connection_id)
            return await _free(session, row, now() + LEAD, number, ())


async def locked(session: Any, connection_ids: Sequence[str]) -> None:
    """Let one transaction at a time decide what comes when to these connections."""
    for one in sorted(set(connection_ids)):
        key = func.hashtextextended(f"queue:{one}", 0)
        await session.execute(select(func.pg_advisory_xact_lock(key)))


async def taken(
    session: Any, connection_ids: Sequence[str], *, besides: Sequence[str] = ()
) -> dict[str, datetime]:
    """Return for each connection its next free slot; it is free for nobody else from now on.

    The caller writes it into a delivery within the same transaction. `besides` are the deliveries
    that may keep or leave the slots they have. Raises InvalidInput where a connection has none.
    """
    await locked(session, connection_ids)
    found = {}
    for one in connection_ids:
        row = await session.get_one(Connection, one)
        free = await _free(session, row, now() + LEAD, 1, besides)
        if not free:
            raise InvalidInput(
                f"{row.ref} has no free slot; give it some:"
                f" clickpost connections slots {row.ref} --add 'mon-fri 09:00' --zone ZONE"
            )
        found[one] = free[0]
    return found


async def _free(
    session: Any, row: Connection, after: datetime, number: int, besides: Sequence[str]
) -> list[datetime]:
    if row.slots is None:
        return []
    ahead = upcoming(Slots.model_validate(row.slots), after)
    found: list[datetime] = []
    while len(found) < number and (some := list(islice(ahead, _AT_ONCE))):
        query = select(Delivery.due_at).where(
            Delivery.connection_id == row.id,
            col(Delivery.due_at).in_(some),
            col(Delivery.state).not_in(_FREES),
            col(Delivery.id).not_in(besides),
        )
        occupied = set((await session.scalars(query)).all())
        found += [one for one in some if one not in occupied]
    return found[:number]
