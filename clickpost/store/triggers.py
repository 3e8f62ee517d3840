"""One at a time for each trigger: who counts its runs and starts one is alone meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy import text

from clickpost.store._base import Base, append

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class Turns(Base):
    """Turns of triggers."""

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
