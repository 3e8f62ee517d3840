"""Holds: what has to stay, why, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from clickpost import ids
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.tables import Hold
from clickpost.store.treatments import quoted

#: The lock by which a hold waits for the batches that do not know it; any number will do.
HOLDS = 7_203_451_119
KINDS = ("legal", "dispute", "tax", "fraud", "security")


@dataclass(frozen=True)
class NewHold:
    """A hold to be placed on the row `target` of the table `scope`; without `until` open-ended."""

    kind: str
    scope: str
    target: str
    cite: str
    until: datetime | None = None


class Holds(Base):
    """Holds, each placed and ended by somebody, with a line in the ledger."""

    async def place_hold(self, new: NewHold, by: str, *, seen: bool = False) -> str:
        """Place a hold and return its id; raise InvalidInput for an unknown kind or row.

        `seen`: the row is of a further database, `billing.invoice`, and the caller looked for it.
        Raises NotAllowed for who may not hold.
        """
        if new.kind not in KINDS:
            raise InvalidInput(f"--kind: one of {', '.join(KINDS)}")
        if not new.cite.strip():
            raise InvalidInput("--cite: say which law, case or contract demands it")
        made = Hold(id=ids.new("hold"), **vars(new), placed_by=by, placed_at=now())
        there = text(f"SELECT 1 FROM {quoted(new.scope)} WHERE id = :id")  # noqa: S608  # quoted
        given = {"id": new.target}
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.HOLD)
            # A batch that runs ends first; each later one sees the hold.
            await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": HOLDS})
            if not seen and await session.scalar(there, given) is None:
                raise InvalidInput(f"{new.scope} has no row {new.target}")
            session.add(made)
            await session.flush()
            facts = {"hold": made.id, "kind": new.kind, "on": new.scope}
            await append(session, "hold.placed", new.target, facts, by)
        return made.id

    async def end_hold(self, hold_id: str, by: str) -> None:
        """End a hold; raise InvalidInput for one that is not there, or over."""
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.HOLD)
            row = await session.get(Hold, hold_id, with_for_update=True)
            if row is None or row.ended_at is not None:
                raise InvalidInput(f"there is no hold {hold_id} in force")
            row.ended_at = now()
            await session.flush()
            await append(session, "hold.ended", row.target, {"hold": hold_id}, by)
