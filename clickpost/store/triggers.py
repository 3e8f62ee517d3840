"""One at a time for each trigger: who counts its runs and starts one is alone meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from clickpost.store._base import Base

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class Turns(Base):
    """Turns of triggers."""

    @asynccontextmanager
    async def turn(self, trigger: str) -> AsyncIterator[None]:
        """Wait until nobody else, in any process, has the trigger's turn; give it back after."""
        async with self.transaction() as session:
            await session.execute(_LOCK, {"name": f"trigger:{trigger}"})
            yield
