"""Knows a restored database: its ledger has not the line that we know, outside of it, to be there.

A ledger line's hash is made of all before it, so that it is the epoch: another history, after a
restore, never has the same.
"""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import psycopg
from psycopg import sql
from sqlalchemy import text

from clickpost.delivery import STOPPABLE
from clickpost.errors import Restored, Unavailable
from clickpost.store._base import Base, append, append_all
from clickpost.store.database import url_of
from clickpost.store.tables import Erasure
from clickpost.store.tombstones import Buried, Head, Stamp, Tombstones
from clickpost.store.treatments import quoted

#: Seconds between two times that it is written, outside, how far the ledger is.
SEEN_EVERY = 10.0
#: Seconds for which a mark whose file is the same is taken as read: a folder that machines share
#: may show them its files that much later.
MARK_LASTS = 5.0
#: The ledger's subject under which it says how many tombstones there are.
SUBJECT = "tombstones"
#: What is said of a delivery that may have been sent in the time that the restore forgot.
MAY_BE_SENT = (
    "the database was restored: it may have been sent since the backup; look at the account,"
    " then retry or cancel it"
)
_HERE = text(
    "SELECT (SELECT encode(hash, 'hex') FROM ledger WHERE seq = :seq) AS there,"
    " seq, encode(hash, 'hex') AS hash FROM ledger_head"
)
_KNOWS = text("SELECT encode(hash, 'hex') FROM ledger WHERE seq = :seq")
_HOW_MANY = (
    "SELECT (facts->>'number')::bigint FROM ledger WHERE subject = 'tombstones'"
    " ORDER BY seq DESC LIMIT 1"
)
_DIGEST = "encode(sha256(:outer || sha256(:inner || convert_to({said}, 'UTF8'))), 'hex')"


def refuse(url: str, tombstones: Tombstones) -> None:
    """Raise Restored where the database at `url` was restored and nothing was replayed since.

    Raises Unavailable where tombstones that it knows of are not there.
    """
    count = tombstones.check()
    address = url_of(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        for head in tombstones.heads():
            query = sql.SQL("SELECT encode(hash, 'hex') FROM ledger WHERE seq = %s")
            row = connection.execute(query, (head.seq,)).fetchone()
            if head.seq and (row is None or row[0] != head.hash):
                raise Restored
        known = connection.execute(_HOW_MANY).fetchone()
    _compare(count, known[0] if known else 0)


def _compare(count: int, known: int) -> None:
    if count < known:
        raise Unavailable(
            f"the database knows of {known} tombstones, and {count} are here: set"
            " CLICKPOST_TOMBSTONES to the folder that all machines share, or bring it back"
        )


@dataclass(frozen=True)
class _Read:
    """The mark as it was read: from which file, and when (`monotonic`)."""

    mark: Head | None
    stamp: Stamp
    at: float


class Restores(Base):
    """Tells a restored database from one that went on."""

    #: Outside the database; None where nobody looks (a store opened for a test).
    tombstones: Tombstones | None = None
    _seen_at = float("-inf")
    _read: _Read | None = None

    async def refuse_restored(self) -> None:
        """Raise Restored where nobody may publish yet; else remember how far the ledger is."""
        if self.tombstones is None:
            return
        head = await self._head_after(await self._remembered(self.tombstones))
        if monotonic() - self._seen_at > SEEN_EVERY:
            await asyncio.to_thread(self.tombstones.advance, head)
            self._seen_at = monotonic()

    async def _remembered(self, tombstones: Tombstones) -> Head | None:
        """Return the mark; it is read anew where its file is another one, or it was long ago.

        The database itself is asked each time: one that is brought back meanwhile has not the line.
        """
        stamp, known = tombstones.stamp(), self._read
        if known is None or known.stamp != stamp or monotonic() - known.at > MARK_LASTS:
            at = monotonic()
            # Stamped before it is read: one that is written in between is read next time.
            known = self._read = _Read(await asyncio.to_thread(tombstones.mark), stamp, at)
        return known.mark

    async def _here(self, tombstones: Tombstones) -> Head:
        """Return where the ledger is; raise Restored where it is not the one that we know."""
        return await self._head_after(await asyncio.to_thread(tombstones.mark))

    async def _head_after(self, mark: Head | None) -> Head:
        async with self.session() as session:
            row = (await session.execute(_HERE, {"seq": mark.seq if mark else 0})).one()
        if mark is not None and mark.seq and row.there != mark.hash:
            raise Restored
        return Head(row.seq, row.hash)

    async def bury(self, row: Erasure, of: str, tombstones: Tombstones) -> None:
        """Write an erasure's tombstone, as `bury_all` does those of many."""
        await self.bury_all([row], of, tombstones)

    async def bury_all(self, rows: Sequence[Erasure], of: str, tombstones: Tombstones) -> None:
        """Write erasures' tombstones before any row goes; once, however often they are resumed.

        `of` is the table whose rows the subjects are. Raises Restored as `refuse_restored` does.
        """
        has = await asyncio.to_thread(lambda: {row.id for row in rows if tombstones.has(row.id)})
        new = [
            Buried(row.id, row.action, row.policy, f"{of}:{row.subject}", row.digest)
            for row in rows
            if row.id not in has
        ]
        if not new:
            return
        head = await self._here(tombstones)
        async with self.session() as session:
            known = await session.scalar(text(_HOW_MANY))
        _compare(await asyncio.to_thread(tombstones.check), known or 0)
        number = await asyncio.to_thread(tombstones.keep_all, new, head)
        told = [{"number": number, "erasure": one.erasure_id} for one in new]
        async with self.transaction() as session:
            await append_all(session, [("tombstone.kept", SUBJECT, facts) for facts in told])

    async def knows(self, head: Head) -> bool:
        """Say whether the ledger has this very line."""
        async with self.session() as session:
            return bool(await session.scalar(_KNOWS, {"seq": head.seq}) == head.hash)

    async def subjects_of(
        self, table: str, digests: Sequence[str], tombstones: Tombstones
    ) -> dict[str, str]:
        """Return the ids of the rows whose digests are asked for, by digest."""
        return await self._found(table, "id", f"{table}:", digests, tombstones)

    async def addresses_of(
        self, table: str, column: str, digests: Sequence[str], tombstones: Tombstones
    ) -> dict[str, str]:
        """Return the digests of addresses that rows of a table have, by the digest of either."""
        return await self._found(table, column, "address:", digests, tombstones)

    async def _found(
        self, table: str, column: str, prefix: str, digests: Sequence[str], tombstones: Tombstones
    ) -> dict[str, str]:
        digest = _DIGEST.format(said=f"(CAST(:prefix AS text) || {quoted(column)})")
        query = text(
            f"SELECT DISTINCT {quoted(column)} AS value, {digest} AS digest FROM {quoted(table)}"
            f" WHERE {quoted(column)} IS NOT NULL AND {digest} = ANY(CAST(:digests AS text[]))"
        )
        given = {"prefix": prefix, "digests": list(digests), **tombstones.pads()}
        async with self.session() as session:
            return {row.digest: row.value for row in await session.execute(query, given)}

    async def doubt_unsent(self) -> int:
        """Set aside what was due by now and is not sent here: it may be, in what was forgotten.

        Somebody looks at the account and says: retry, or cancel. Return how many there are.
        """
        change = text(
            "WITH before AS (SELECT id, state FROM delivery"
            " WHERE state = ANY(CAST(:states AS text[]))"
            " AND coalesce(due_at, created_at) <= now() ORDER BY id LIMIT 500 FOR UPDATE)"
            " UPDATE delivery d SET state = 'missed', reason = :reason,"
            " who_acts = 'an operator', updated_at = now(), lease_owner = NULL,"
            " lease_until = NULL FROM before b WHERE d.id = b.id RETURNING d.id, b.state"
        )
        given = {"states": [one.value for one in STOPPABLE], "reason": MAY_BE_SENT}
        total = 0
        while True:
            async with self.transaction() as session:
                rows = (await session.execute(change, given)).all()
                for row in rows:
                    facts = {"from": row.state, "to": "missed", "why": "restored"}
                    await append(session, "delivery.moved", row.id, facts)
            total += len(rows)
            if not rows:
                return total

    async def settle_restored(self, tombstones: Tombstones, facts: dict[str, int]) -> None:
        """Write that the replay is done, here and outside: from now on this is the database."""
        async with self.transaction() as session:
            number = await asyncio.to_thread(tombstones.check)
            told = {"number": number, **facts}
            await append(session, "database.replayed", SUBJECT, told)
        async with self.session() as session:
            row = (await session.execute(_HERE, {"seq": 0})).one()
        await asyncio.to_thread(tombstones.replayed, Head(row.seq, row.hash))
