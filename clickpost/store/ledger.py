"""The audit log: append-only, hash-chained by the database, checked here line by line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import text

from clickpost.store._base import Base

#: The very text that the database hashes; see the migration that makes `ledger_append`.
_WALK = text(
    """
    SELECT seq, prev, hash,
           jsonb_build_array(seq, extract(epoch FROM at), actor, action, subject, facts)::text
               AS said
    FROM ledger WHERE seq > :after ORDER BY seq LIMIT 1000
    """
)


@dataclass(frozen=True)
class Broken:
    """The first line that does not fit the chain, and why."""

    seq: int
    why: str


@dataclass(frozen=True)
class Walked:
    """What a walk along the chain found."""

    lines: int
    head: str
    broken: Broken | None


class Ledger(Base):
    """The audit log."""

    async def verify(self) -> Walked:
        """Walk the whole chain, in constant memory, and name the first broken line."""
        prev, seq = bytes(32), 0
        async with self.engine.connect() as connection:
            # One snapshot: what is appended meanwhile is for the next walk.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            head = (await connection.execute(text("SELECT seq, hash FROM ledger_head"))).one()
            while rows := (await connection.execute(_WALK, {"after": seq})).all():
                for row in rows:
                    if why := _wrong(row.seq, seq, row.prev, prev, row.said, row.hash):
                        return Walked(seq, prev.hex(), Broken(seq + 1, why))
                    prev, seq = row.hash, row.seq
        if seq < head.seq:
            return Walked(seq, prev.hex(), Broken(seq + 1, f"lines up to {head.seq} are missing"))
        if seq > head.seq or prev != head.hash:
            return Walked(seq, prev.hex(), Broken(seq, "the head does not point at the last line"))
        return Walked(seq, prev.hex(), None)


def _wrong(
    number: int, before: int, prev: bytes, expected: bytes, said: str, found: bytes
) -> str | None:
    if number != before + 1:
        return f"line {before + 1} is missing"
    if prev != expected:
        return "it does not point at the line before"
    if hashlib.sha256(prev + said.encode()).digest() != found:
        return "its content is not what was written"
    return None
