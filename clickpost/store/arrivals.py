"""What triggers saw at feeds, in folders and in mailboxes: each once, whatever is killed when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.arrivals import Arrived, State
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.connections import Connections
from clickpost.store.tables import Arrival, Inlet
from clickpost.telling import Event, Happening

_TRY = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
_BEFORE = "it was there before the first look"


class Arrivals(Connections, Base):
    """What arrived, and where triggers look for it."""

    @asynccontextmanager
    async def looking_for(self, trigger: str) -> AsyncIterator[bool]:
        """Say whether nobody else, in any process, looks for the trigger until this is left."""
        async with self.transaction() as session:
            yield bool(await session.scalar(_TRY, {"name": f"looking:{trigger}"}))

    async def inlet(self, trigger: str) -> Inlet | None:
        """Return how far a trigger has looked; None where it never did."""
        async with self.session() as session:
            return await session.get(Inlet, trigger)

    async def note_arrivals(
        self,
        trigger: str,
        place: str,
        marks: Mapping[str, Any],
        there: Iterable[Arrived],
        *,
        take: bool = True,
    ) -> int:
        """Note all that is there now, and how far that is, as one; return how much is new.

        Without `take` what is new was there before anybody asked for it, and is passed.
        """
        workspace, moment = await self.workspace_id(), now()
        rows = [_row(one, trigger, place, workspace, moment, take=take) for one in there]
        async with self.transaction() as session:
            fresh = 0
            for row in rows:
                seen = insert(Arrival).values(row)
                again = seen.on_conflict_do_update(
                    index_elements=["trigger", "place", "key"], set_={"seen_at": moment}
                )
                known = await session.scalar(again.returning(col(Arrival.id)))
                fresh += known == row["id"] and row["state"] == State.NEW
            values = {"place": place, "marks": dict(marks), "looked_at": moment}
            inlet = insert(Inlet).values(trigger=trigger, **values)
            await session.execute(
                inlet.on_conflict_do_update(index_elements=["trigger"], set_=values)
            )
        return fresh

    async def note_unchanged(self, inlet: Inlet) -> None:
        """Note that all which was there at the last look still is."""
        moment = now()
        last = (
            col(Arrival.trigger) == inlet.trigger,
            col(Arrival.seen_at) == inlet.looked_at,
        )
        async with self.transaction() as session:
            await session.execute(update(Arrival).where(*last).values(seen_at=moment))
            mine = update(Inlet).where(col(Inlet.trigger) == inlet.trigger)
            await session.execute(mine.values(looked_at=moment))

    async def waiting_arrivals(self, trigger: str, limit: int = 500) -> list[Arrival]:
        """Return what is not taken yet, the oldest first."""
        query = (
            select(Arrival)
            .where(Arrival.trigger == trigger, Arrival.state == State.NEW)
            .order_by(func.coalesce(Arrival.at, Arrival.arrived_at), Arrival.id)
            .limit(limit)
        )
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def arrivals_taken(self, trigger: str, since: datetime) -> list[datetime]:
        """Return when something of the trigger was taken, from a moment on."""
        query = select(Arrival.done_at).where(
            Arrival.trigger == trigger, Arrival.state == State.TAKEN, col(Arrival.done_at) > since
        )
        async with self.session() as session:
            return [one for one in (await session.scalars(query)).all() if one is not None]

    async def take_arrival(
        self, row: Arrival, event: Event | None, *, post_id: str | None, asset_id: str | None
    ) -> None:
        """Note that something is taken, and tell triggers; what it said is forgotten."""
        async with self.transaction() as session:
            values = {"post_id": post_id, "asset_id": asset_id}
            if not await _done(session, row.id, State.TAKEN, None, **values):
                return
            if event is not None:
                facts = {"arrival_id": row.id, "post_id": post_id, "who_acts": "nobody"}
                happening = Happening(event, row.id, f"{event}:{row.id}", facts)
                await notices.write(session, row.workspace_id, happening)
            ids_ = {key: value for key, value in values.items() if value}
            await append(session, "arrival.taken", row.id, ids_, f"trigger:{row.trigger}")

    async def pass_arrival(self, row: Arrival, reason: str) -> None:
        """Note that something is not meant, and why; what it said is forgotten."""
        async with self.transaction() as session:
            await _done(session, row.id, State.PASSED, reason)

    async def refuse_arrival(self, row: Arrival, reason: str, who_acts: str) -> None:
        """Note that something cannot be taken, and tell people why; what it said is forgotten."""
        async with self.transaction() as session:
            if await _done(session, row.id, State.REFUSED, reason):
                facts = {"where": row.trigger, "reason": reason, "who_acts": who_acts}
                once = f"{Event.ALERT}:{row.id}"
                happening = Happening(Event.ALERT, row.trigger, once, facts)
                await notices.write(session, row.workspace_id, happening)

    async def done_with(
        self, trigger: str, place: str, keys: Collection[str]
    ) -> dict[str, Arrival]:
        """Return by key what nobody has to look at again."""
        query = select(Arrival).where(
            Arrival.trigger == trigger,
            Arrival.place == place,
            col(Arrival.key).in_(keys),
            Arrival.state != State.NEW,
        )
        async with self.session() as session:
            return {row.key: row for row in (await session.scalars(query)).all()}


def _row(
    one: Arrived, trigger: str, place: str, workspace: str, moment: datetime, *, take: bool
) -> dict[str, Any]:
    passed = one.passed or (None if take else _BEFORE)
    return {
        "id": ids.new("arr"),
        "workspace_id": workspace,
        "trigger": trigger,
        "place": place,
        "key": one.key,
        "state": State.PASSED if passed else State.NEW,
        "facts": None if passed else dict(one.facts),
        "reason": passed,
        "at": one.at,
        "arrived_at": moment,
        "seen_at": moment,
        "done_at": moment if passed else None,
    }


async def _done(
    session: Any, arrival_id: str, state: State, reason: str | None, **more: Any
) -> bool:
    change = (
        update(Arrival)
        .where(col(Arrival.id) == arrival_id, col(Arrival.state) == State.NEW)
        .values(state=state, reason=reason, facts=None, done_at=now(), **more)
        .returning(col(Arrival.id))
    )
    return await session.scalar(change) is not None
