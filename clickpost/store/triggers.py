"""What came of each cause at each trigger; and one at a time decides for a trigger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.store._base import Base, append, now
from clickpost.store.tables import Firing, Notice
from clickpost.triggers import Verdict

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
#: So many rows go into one statement.
_TOGETHER = 1000


class Turns(Base):
    """Turns of triggers, and what they decided."""

    @asynccontextmanager
    async def turn(self, trigger: str) -> AsyncIterator[None]:
        """Wait until nobody else, in any process, has the trigger's turn; give it back after."""
        async with self.transaction() as session:
            await session.execute(_LOCK, {"name": f"trigger:{trigger}"})
            yield

    async def note_fired(self, trigger: str, version: str, run_id: str, at: datetime) -> None:
        """Write down that a trigger started a run, under which version of its policy."""
        facts = {"run": run_id, "policy": version, "at": at.isoformat()}
        async with self.transaction() as session:
            await append(session, "trigger.fired", trigger, facts)

    async def decided(
        self,
        trigger: str,
        causes: Sequence[str],
        verdict: Verdict,
        *,
        reason: str | None = None,
        run_id: str | None = None,
        chain: Sequence[str] = (),
    ) -> None:
        """Note what causes came to; a cause that was decided before stays as it is."""
        values: list[dict[str, Any]] = [
            {
                "id": ids.new("fire"),
                "trigger": trigger,
                "cause": cause,
                "verdict": verdict.value,
                "reason": reason,
                "run_id": run_id,
                "chain": [*chain, trigger],
                "created_at": now(),
            }
            for cause in causes
        ]
        made = insert(Firing).on_conflict_do_nothing()
        async with self.session() as session:
            for first in range(0, len(values), _TOGETHER):
                await session.execute(made, values[first : first + _TOGETHER])

    async def undecided(self, trigger: str, causes: Sequence[str]) -> list[str]:
        """Return those of `causes` that the trigger has not decided about, in their order."""
        known: set[str] = set()
        async with self.session() as session:
            for first in range(0, len(causes), _TOGETHER):
                some = causes[first : first + _TOGETHER]
                query = select(Firing.cause).where(
                    Firing.trigger == trigger, col(Firing.cause).in_(some)
                )
                known.update((await session.scalars(query)).all())
        return [cause for cause in causes if cause not in known]

    async def firings(self, cause: str) -> list[Firing]:
        """Return what a cause came to, at each trigger that it reached."""
        query = select(Firing).where(Firing.cause == cause).order_by(Firing.trigger)
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def chain_of(self, run_ids: Collection[str]) -> tuple[str, ...]:
        """Return the longest line of triggers that led to one of these runs; none for others."""
        if not run_ids:
            return ()
        query = (
            select(Firing.chain)
            .where(col(Firing.run_id).in_(run_ids))
            .order_by(func.jsonb_array_length(Firing.chain).desc())
            .limit(1)
        )
        async with self.session() as session:
            return tuple(await session.scalar(query) or ())

    async def calls_heard_with(self, notice_id: str) -> list[str]:
        """Return the calls of a hook of which Prefect heard under one name, oldest first."""
        query = select(Notice.id).where(Notice.heard_with == notice_id).order_by(Notice.id)
        async with self.session() as session:
            return list((await session.scalars(query)).all())
