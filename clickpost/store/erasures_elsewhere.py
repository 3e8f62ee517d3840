"""Erasures in a further database: whom it knows, batches with receipts here, and the look back.

Nothing of ours is written there. A receipt is written here before the work is committed there,
with the number of the transaction; whoever finds one whose end nobody saw asks that database what
became of it. So no batch is counted that was not done, and none that was done is counted twice.
"""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, delete, false, or_, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlmodel import col, select
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from clickpost import subjects
from clickpost.certificate import Outcome
from clickpost.erasure import Step
from clickpost.errors import Unavailable
from clickpost.store._base import Base, now
from clickpost.store.database import is_away
from clickpost.store.elsewhere import Elsewhere
from clickpost.store.erasing import Erasing
from clickpost.store.erasing_elsewhere import OURS, ErasingElsewhere
from clickpost.store.erasures import Erasures, Found, Planned, Reached, worked
from clickpost.store.holds import HOLDS
from clickpost.store.purging import SETTINGS, may_be_repeated
from clickpost.store.subjects import Subjects
from clickpost.store.tables import Erasure, ErasureElsewhere, ErasureElsewhereBatch, Hold
from clickpost.store.treatments import quoted

Batch = ErasureElsewhereBatch
#: Addresses that are read at once, and compared here: the key of their digests stays at home.
_ADDRESSES = 5000
#: Seconds in which a transaction whose client is gone comes to its end.
_ENDS_WITHIN = 30


async def remember(erasures: Erasures, row: Erasure, erasing: Erasing, database: str) -> None:
    """Keep by which ids of ours a further database may know the subject, while we have them.

    Before the first row of ours goes; a second call changes nothing.
    """
    ours = await ours_of(erasures, erasing, row.subject, row.digest)
    made = insert(ErasureElsewhere).values(
        erasure_id=row.id, database=database, ours=ours, subjects={}
    )
    async with erasures.session() as session:
        await session.execute(made.on_conflict_do_nothing())


async def ours_of(
    store: Base, erasing: Erasing, subject: str, digest: str | None
) -> dict[str, list[str]]:
    """Return, by table of ours, the ids by which a further database may know the subject."""
    ours: dict[str, list[str]] = {}
    given = {"subject": subject, "digest": digest}
    for table in ("member", "workspace"):
        if table in erasing.order:
            query = text(f"SELECT r.id FROM {table} r WHERE {erasing.about(table)} ORDER BY r.id")
            async with store.session() as session:
                ours[table] = list((await session.scalars(query, given)).all())
    of = erasing.policy.of
    if subject not in ours.setdefault(of, []):
        ours[of].append(subject)
    return ours


async def sought(
    there: Elsewhere,
    erasing: ErasingElsewhere,
    ours: Mapping[str, Sequence[str]],
    key: bytes,
    digest: str | None,
) -> dict[str, set[str]]:
    """Return, by table there, the keys of rows that say by themselves that they are meant.

    `key` is that of the digests of addresses.
    """
    found: dict[str, set[str]] = {}
    for table, columns in erasing.roots.items():
        for column, whose in columns.items():
            keys = found.setdefault(table, set())
            if whose != "address":
                keys |= await _with_ids(there, erasing, table, column, ours.get(whose, ()))
            elif digest is not None:
                keys |= await _with_address(there, erasing, table, column, key, digest)
    return found


async def _with_ids(
    there: Elsewhere, erasing: ErasingElsewhere, table: str, column: str, ids: Sequence[str]
) -> set[str]:
    if not ids:
        return set()
    is_text = erasing.schema[table].kinds[column] == "text"
    value = f"r.{quoted(column)}" if is_text else f"CAST(r.{quoted(column)} AS text)"
    query = text(
        f"SELECT CAST(r.{erasing.key(table)} AS text) FROM {quoted(table)} r"
        f" WHERE {value} = ANY(:ids)"
    )
    async with there.engine.connect() as connection:
        return set((await connection.scalars(query, {"ids": list(ids)})).all())


async def _with_address(
    there: Elsewhere, erasing: ErasingElsewhere, table: str, column: str, key: bytes, digest: str
) -> set[str]:
    """Return the keys of rows with an address; addresses are compared here, one by one."""
    value = f"CAST(r.{quoted(column)} AS text)"
    query = text(
        f"SELECT CAST(r.{erasing.key(table)} AS text) AS key, {value} AS said"
        f" FROM {quoted(table)} r WHERE r.{quoted(column)} IS NOT NULL"
    )
    found: set[str] = set()
    async with there.engine.connect() as connection, connection.stream(query) as rows:
        async for part in rows.partitions(_ADDRESSES):
            some = [(one.key, one.said) for one in part]
            found |= await asyncio.to_thread(_same, some, key, digest)
    return found


async def addresses(there: Elsewhere, erasing: ErasingElsewhere) -> AsyncIterator[Sequence[str]]:
    """Yield all addresses by which people are known there, some at a time."""
    for table, columns in erasing.roots.items():
        for column in columns:
            value = f"CAST(r.{quoted(column)} AS text)"
            query = text(
                f"SELECT {value} FROM {quoted(table)} r WHERE r.{quoted(column)} IS NOT NULL"
            )
            async with there.engine.connect() as connection, connection.stream(query) as rows:
                async for part in rows.scalars().partitions(_ADDRESSES):
                    yield part


class ErasuresElsewhere(Erasures):
    """Erasures in one further database; what they share with our own is in `Erasures`."""

    def __init__(self, erasures: Erasures, there: Elsewhere) -> None:
        super().__init__(erasures.engine, erasures.vault)
        self.there = there
        self._sessions = async_sessionmaker(there.engine, expire_on_commit=False)

    async def find(self, row: Erasure, erasing: ErasingElsewhere) -> None:
        """Look for the subject's rows by address and by id, and remember their keys.

        What was found earlier stays known: its address may be gone by now.
        """
        known = await self._known(row)
        key = await Subjects(self.engine, self.vault).subject_key()
        fresh = await sought(self.there, erasing, known.ours, key, row.digest)
        for table, keys in known.subjects.items():
            fresh[table] = fresh.get(table, set()) | set(keys)
        change = update(ErasureElsewhere).where(
            col(ErasureElsewhere.erasure_id) == row.id,
            col(ErasureElsewhere.database) == self.there.name,
        )
        kept = {table: sorted(keys) for table, keys in fresh.items()}
        async with self.session() as session:
            await session.execute(change.values(subjects=kept))

    async def _known(self, row: Erasure) -> ErasureElsewhere:
        async with self.session() as session:
            return await session.get_one(ErasureElsewhere, (row.id, self.there.name))

    async def planned(self, row: Erasure, erasing: ErasingElsewhere) -> list[Planned]:
        """Return what an erasure would do there, and touch nothing."""
        await self.find(row, erasing)
        async with self._looking() as session:
            lines = await self._planned(session, erasing, row)
        return [replace(one, location=f"{self.there.name}.{one.location}") for one in lines]

    async def read_back(self, row: Erasure, erasing: Erasing) -> list[Found]:
        """Ask every mapped location what it still holds about the subject, who is looked for anew.

        Somebody may have come in meanwhile under the same address.
        """
        assert isinstance(erasing, ErasingElsewhere)
        await self.find(row, erasing)
        async with self._looking() as session:
            given = await self._given(session, erasing, row)
            return [await self._look(session, erasing, table, given) for table in erasing.order]

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[AsyncSession]:
        """Yield a session there that ends without a trace."""
        async with self._sessions() as session:
            try:
                yield session
            finally:
                await session.rollback()

    async def next_round(self, row: Erasure) -> None:
        """Begin anew from the first step: something was parked, or came in meanwhile."""
        at = await self._reached(row)
        fresh = replace(at, number=at.number + 1, round=at.round + 1, step=0, after="")
        async with self.session() as session:
            session.add(self._receipt(row, fresh, {}, None))
            await session.flush()

    async def counted(self, row: Erasure) -> Counter[str]:
        """Return what all batches did, by outcome and table: `erased customer`."""
        sums = text(
            "SELECT key, sum(value::bigint)::bigint AS rows FROM erasure_elsewhere_batch,"
            " jsonb_each_text(counts) WHERE erasure_id = :id AND database = :name AND committed"
            " GROUP BY key ORDER BY key"
        )
        async with self.session() as session:
            found = (await session.execute(sums, {"id": row.id, "name": self.there.name})).all()
        return Counter({one.key: one.rows for one in found})

    async def settle(self, row: Erasure) -> None:
        """Ask of every receipt whose end nobody saw whether its work was committed there.

        Raises Unavailable where that transaction still goes on.
        """
        query = select(Batch).where(*self._of(row), col(Batch.committed).is_(False))
        async with self.session() as session:
            unseen = (await session.scalars(query.order_by(col(Batch.number)))).all()
        for one in unseen:
            if await self._was_committed(str(one.xid)):
                await self._seen(row, one.number)
            else:
                this = (*self._of(row), col(Batch.number) == one.number)
                async with self.session() as session:
                    await session.execute(delete(Batch).where(*this))

    def _of(self, row: Erasure) -> tuple[Any, Any]:
        return (col(Batch.erasure_id) == row.id, col(Batch.database) == self.there.name)

    async def _seen(self, row: Erasure, number: int) -> None:
        this = (*self._of(row), col(Batch.number) == number)
        async with self.session() as session:
            await session.execute(update(Batch).where(*this).values(committed=True))

    async def _was_committed(self, xid: str) -> bool:
        tries = AsyncRetrying(
            retry=retry_if_result(lambda fate: fate == "in progress"),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_delay(_ENDS_WITHIN),
            retry_error_callback=lambda _: "in progress",
        )
        fate: str | None = await tries(self._fate, xid)
        if fate == "in progress":
            raise Unavailable(f"{self.there.name}: an earlier batch has not come to its end there")
        return bool(fate == "committed")

    async def _fate(self, xid: str) -> str | None:
        """Return what became of a transaction; None for one that the database does not know.

        It was restored, or forgot: then what is left is found and done again, whatever it was.
        """
        query = text("SELECT pg_xact_status(CAST(CAST(:xid AS text) AS xid8))")
        try:
            async with self.there.engine.connect() as connection:
                found: str | None = await connection.scalar(query, {"xid": xid})
        except DBAPIError as error:
            if is_away(error):
                raise
            return None
        return found

    async def _reached(self, row: Erasure) -> Reached:
        query = select(Batch).where(*self._of(row)).order_by(col(Batch.number).desc()).limit(1)
        async with self.session() as session:
            last = await session.scalar(query)
        return Reached(last.number, last.round, last.step, last.after) if last else _BEGIN

    def _receipt(
        self, row: Erasure, at: Reached, counts: Mapping[str, int], xid: str | None
    ) -> Batch:
        return Batch(
            erasure_id=row.id,
            database=self.there.name,
            number=at.number,
            round=at.round,
            step=at.step,
            after=at.after,
            counts=dict(counts),
            xid=xid,
            committed=xid is None,
            at=now(),
        )

    async def _one(
        self,
        row: Erasure,
        erasing: Erasing,
        steps: Sequence[Step],
        statements: Sequence[TextClause | None],
        at: Reached,
        size: int,
        shift: int = 0,
    ) -> tuple[Reached, Counter[str]]:
        """Do at most `size` rows there, of as many steps as they last; the receipt is written here.

        Here first, then there: what a kill leaves between the two is settled by the next run.
        """
        tries = AsyncRetrying(
            retry=retry_if_exception(may_be_repeated),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=stop_after_attempt(8),
            reraise=True,
        )
        async for attempt in tries:
            with attempt:
                await self.settle(row)
                # While we hold this, no hold is placed that the batch does not know.
                async with self.transaction() as ours:
                    lock = text("SELECT pg_advisory_xact_lock_shared(:key)")
                    await ours.execute(lock, {"key": HOLDS})
                    reached, counts, xid = await self._there(
                        row, erasing, steps, statements, at, size, shift
                    )
                if xid is not None:
                    await self._seen(row, reached.number)
                return reached, counts
        raise AssertionError("unreachable")

    async def _there(
        self,
        row: Erasure,
        erasing: Erasing,
        steps: Sequence[Step],
        statements: Sequence[TextClause | None],
        at: Reached,
        size: int,
        shift: int,
    ) -> tuple[Reached, Counter[str], str | None]:
        """Work in one transaction there, whose last word before its commit is the receipt here."""
        async with self._sessions() as session, session.begin():
            for setting in (*SETTINGS, "plan_cache_mode = force_custom_plan"):
                await session.execute(text(f"SET LOCAL {setting}"))
            given = {**erasing.params, **await self._given(session, erasing, row)}
            reached, counts = await worked(session, steps, statements, at, given, size)
            # What it refuses at the end shows now, before anything is said here.
            await session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
            mine = text("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")
            xid: str | None = await session.scalar(mine)
            receipt = self._receipt(row, replace(reached, step=reached.step + shift), counts, xid)
            async with self.transaction() as here:
                here.add(receipt)
        return reached, counts, xid

    async def _given(self, session: AsyncSession, erasing: Erasing, row: Erasure) -> dict[str, Any]:
        """Return the parameters of all statements; names stay there, in a setting."""
        assert isinstance(erasing, ErasingElsewhere)
        known, at = await self._known(row), now()
        base: dict[str, Any] = {"at": at, **await self._held(erasing, known, at)}
        for table, parameter in erasing.keys.items():
            base[parameter] = known.subjects.get(table, [])
        named = bool(erasing.policy.names) and await session.scalar(text(erasing.pattern()), base)
        more = self._pads(row) if row.nonce else {}
        return {**base, "ours": known.ours, "named": named, **more}

    def _pads(self, row: Erasure) -> dict[str, bytes]:
        """Return pads of this database's own: a digest there is like none in another."""
        pads = super()._pads(row)
        key = hmac.new(pads["inner"], self.there.name.encode(), hashlib.sha512).digest()
        return {"inner": bytes(x ^ 0x36 for x in key), "outer": bytes(x ^ 0x5C for x in key)}

    async def _held(
        self, erasing: ErasingElsewhere, known: ErasureElsewhere, at: datetime
    ) -> dict[str, Any]:
        """Return the keys that holds name, by parameter; our own database keeps the holds."""
        found: dict[str, Any] = {}
        async with self.session() as session:
            for parameter, table in erasing.held_by.items():
                query = select(Hold.target).where(
                    Hold.scope == f"{self.there.name}.{table}", *_in_force(at)
                )
                found[parameter] = list((await session.scalars(query)).all())
            held = await session.scalars(_of_ours(select(Hold.id), known.ours, at).limit(1))
            found["held_of_ours"] = held.first() is not None
        return found

    async def _holding(
        self,
        session: AsyncSession,
        erasing: Erasing,
        table: str,
        scope: str,
        count: int,
        given: Mapping[str, Any],
    ) -> Outcome:
        """Return what is held by the holds on rows of `scope`, and until when all have ended."""
        assert isinstance(erasing, ErasingElsewhere)
        at: datetime = given["at"]
        if scope == OURS:
            query = _of_ours(select(Hold), given["ours"], at)
        else:
            query = select(Hold).where(Hold.scope == f"{self.there.name}.{scope}", *_in_force(at))
            if scope in erasing.order:
                whose = text(
                    f"SELECT CAST(r.{erasing.key(scope)} AS text) FROM {quoted(scope)} r"
                    f" WHERE {erasing.about(scope)}"
                )
                theirs = (await session.scalars(whose, dict(given))).all()
                query = query.where(col(Hold.target).in_(theirs))
        async with self.session() as ours:
            holds = (await ours.scalars(query)).all()
        rule = "; ".join(sorted({f"{one.kind}: {one.cite}" for one in holds}))
        ends = [one.until for one in holds if one.until is not None]
        until = max(ends) if holds and len(ends) == len(holds) else None
        what = erasing.tables[table].what
        return Outcome(table, what, "held", count, rule or f"a hold on {scope}", until)


_BEGIN = Reached(0, 0, 0, "")


def _same(rows: Sequence[tuple[str, str]], key: bytes, digest: str) -> set[str]:
    return {row for row, said in rows if subjects.digest(key, said) == digest}


def _in_force(at: datetime) -> tuple[Any, Any]:
    return (
        col(Hold.ended_at).is_(None),
        col(Hold.until).is_(None) | (col(Hold.until) > at),
    )


def _of_ours(query: Any, known: Mapping[str, Sequence[str]], at: datetime) -> Any:
    """Narrow a query to the holds on the member, or the workspace, of ours that is meant."""
    meant = [(col(Hold.scope) == table) & col(Hold.target).in_(ids) for table, ids in known.items()]
    return query.where(or_(false(), *meant), *_in_force(at))
