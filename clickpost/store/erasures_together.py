"""Carries erasures under one policy out together: one statement for each step, a receipt each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from clickpost.certificate import Outcome
from clickpost.erasure import OPEN, Step
from clickpost.store._base import append_all, now
from clickpost.store.erasing_together import Together
from clickpost.store.erasures import Erasures, Found
from clickpost.store.holds import HOLDS
from clickpost.store.purging import BATCH, SETTINGS, tries
from clickpost.store.tables import Erasure, ErasureBatch


@dataclass(frozen=True)
class Place:
    """How far the batches of one erasure came, as its last receipt says."""

    number: int = 0
    round: int = 0
    step: int = 0
    after: str = ""


@dataclass(frozen=True)
class _Work:
    """Steps with their statements; the receipts of the last steps are `shift` higher."""

    steps: Sequence[Step]
    statements: Sequence[TextClause | None]
    shift: int = 0


@dataclass
class _Given:
    """What all subjects share, and what is said of each, by erasure."""

    at: datetime
    common: Mapping[str, Any]
    """Parameters of the policies: each statement that is made may add some."""
    whom: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    named: bool = False
    """Whether there is any name to look for."""

    def params(self, after: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the parameters for these erasures, behind the keys they reached; or for all."""
        keys = dict.fromkeys(self.whom, "") if after is None else after
        whom = [{**self.whom[key], "after": reached} for key, reached in keys.items()]
        return {**self.common, "at": self.at, "whom": json.dumps(whom)}


class ErasuresTogether(Erasures):
    """Erasures of many subjects at once; each has its own receipts, outcomes and certificate."""

    async def chosen(self, ids_: Sequence[str]) -> Sequence[Erasure]:
        """Return erasures by their ids, oldest first."""
        query = select(Erasure).where(col(Erasure.id).in_(ids_)).order_by(col(Erasure.asked_at))
        async with self.session() as session:
            return (await session.scalars(query)).all()

    @asynccontextmanager
    async def erasure_locks(self, ids_: Sequence[str]) -> AsyncIterator[list[str]]:
        """Yield those erasures on which no other process works, as `erasure_lock` does one."""
        async with self.each_alone([f"erasing:{one}" for one in ids_]) as taken:
            yield [one.removeprefix("erasing:") for one in taken]

    async def begin_all(self, ids_: Sequence[str]) -> Sequence[Erasure]:
        """Take erasures up and return them; those that cannot be carried out stay as they are."""
        query = (
            select(Erasure)
            .where(col(Erasure.id).in_(ids_), col(Erasure.state).in_(OPEN))
            .order_by(Erasure.id)
            .with_for_update()
        )
        async with self.transaction() as session:
            rows: Sequence[Erasure] = (await session.scalars(query)).all()
            first = [row.id for row in rows if row.begun_at is None]
            for row in rows:
                row.begun_at, row.state, row.reason = row.begun_at or now(), "erasing", None
                row.again_at = None
            await session.flush()
            await append_all(session, [("erasure.begun", one, {}) for one in first])
        return rows

    async def erase_all(
        self, rows: Sequence[Erasure], erasing: Together, size: int = BATCH
    ) -> AsyncIterator[int]:
        """Do what is left of this round, in batches of `size` rows; yield the rows of each."""
        work = _Work(erasing.steps, [erasing.prepared(one) for one in erasing.steps])
        async for done in self._batches(rows, erasing, work, await self._places(rows), size):
            yield done

    async def loosen_all(
        self, rows: Sequence[Erasure], erasing: Together, size: int = BATCH
    ) -> AsyncIterator[int]:
        """Let what stays anonymized lead to nobody any more; only of whom nothing is held."""
        steps = erasing.loosening
        work = _Work(steps, [erasing.prepared(one) for one in steps], shift=1000)
        places = await self._places(rows)
        begun = {key: replace(place, step=0, after="") for key, place in places.items()}
        async for done in self._batches(rows, erasing, work, begun, size):
            yield done

    async def _batches(
        self,
        rows: Sequence[Erasure],
        erasing: Together,
        work: _Work,
        places: Mapping[str, Place],
        size: int,
    ) -> AsyncIterator[int]:
        at = dict(places)
        while open_ := [row for row in rows if at[row.id].step < len(work.steps)]:
            done, touched = await self._batch(open_, erasing, work, at, size)
            at |= done
            yield touched

    async def _batch(
        self,
        rows: Sequence[Erasure],
        erasing: Together,
        work: _Work,
        at: Mapping[str, Place],
        size: int,
    ) -> tuple[dict[str, Place], int]:
        """Do at most `size` rows, of as many steps as they last, with a receipt for each subject.

        All of it is one transaction: what is not on disk has not happened, of anybody.
        """
        async for attempt in tries():
            with attempt:
                async with self.transaction() as session:
                    for setting in SETTINGS:
                        await session.execute(text(f"SET LOCAL {setting}"))
                    lock = text("SELECT pg_advisory_xact_lock_shared(:key)")
                    await session.execute(lock, {"key": HOLDS})
                    given = await self._of_all(session, erasing, rows)
                    mine = {row.id: at[row.id] for row in rows}
                    done, counts = await _worked(session, work, mine, given, size)
                    session.add_all(
                        _receipt(key, replace(place, step=place.step + work.shift), counts[key])
                        for key, place in done.items()
                    )
                return done, sum(one.total() for one in counts.values())
        raise AssertionError("unreachable")

    async def through(self, rows: Sequence[Erasure], erasing: Together) -> list[Erasure]:
        """Return those whose round has gone through all steps."""
        places = await self._places(rows)
        return [row for row in rows if places[row.id].step >= len(erasing.steps)]

    async def next_rounds(self, rows: Sequence[Erasure]) -> None:
        """Begin anew from the first step: something was parked, or came in meanwhile."""
        places = await self._places(rows)
        async with self.transaction() as session:
            session.add_all(
                _receipt(key, Place(place.number + 1, place.round + 1), {})
                for key, place in places.items()
            )

    async def _places(self, rows: Sequence[Erasure]) -> dict[str, Place]:
        query = text(
            "SELECT w.id, b.* FROM unnest(CAST(:ids AS text[])) AS w (id) CROSS JOIN LATERAL ("
            " SELECT number, round, step, after FROM erasure_batch WHERE erasure_id = w.id"
            " ORDER BY number DESC LIMIT 1) AS b"
        )
        found = {row.id: Place() for row in rows}
        async with self.session() as session:
            for last in await session.execute(query, {"ids": list(found)}):
                found[last.id] = Place(last.number, last.round, last.step, last.after)
        return found

    async def read_back_all(
        self, rows: Sequence[Erasure], erasing: Together
    ) -> dict[str, list[Found]]:
        """Ask every mapped location what it still holds about each subject; by erasure."""
        found: dict[str, list[Found]] = {row.id: [] for row in rows}
        async with self.session() as session:
            given = await self._of_all(session, erasing, rows)
            for table in erasing.order:
                looked = await session.execute(erasing.look(table), given.params())
                for row in looked.mappings().all():
                    held = await self._held(session, erasing, table, row, given)
                    there = Found(table, row["total"], row["left_"], held)
                    found[row["erasure"]].append(there)
        return found

    async def _held(
        self,
        session: AsyncSession,
        erasing: Together,
        table: str,
        row: RowMapping,
        given: _Given,
    ) -> tuple[Outcome, ...]:
        what = erasing.tables[table].what
        by_law = [
            Outcome(table, what, "held", row[f"n{number}"], law.rule, row[f"u{number}"])
            for number, law in enumerate(erasing.laws(table))
            if row[f"n{number}"]
        ]
        whose = {"at": given.at, **given.whom[row["erasure"]]}
        by_hold = [
            await self._holding(session, erasing, table, scope, count, whose)
            for number, scope in enumerate(erasing.held(table))
            if (count := row[f"h{number}"])
        ]
        return (*by_law, *by_hold)

    async def _of_all(
        self, session: AsyncSession, erasing: Together, rows: Sequence[Erasure]
    ) -> _Given:
        """Return the parameters of all statements; names stay in the database, in a setting."""
        given = _Given(now(), erasing.params, {row.id: self._whom(row) for row in rows})
        for found in await session.execute(text(erasing.homes()), given.params()):
            given.whom[found.erasure]["homes"].append(found.home)
        if erasing.policy.names:
            given.named = bool(await session.scalar(text(erasing.pattern()), given.params()))
        return given

    def _whom(self, row: Erasure) -> dict[str, Any]:
        pads = self._pads(row) if row.nonce else {}
        said = {f"pad_{name}": rf"\x{value.hex()}" for name, value in pads.items()}
        return {
            "erasure": row.id, "subject": row.subject, "digest": row.digest, "homes": [], **said,
        }  # fmt: skip

    async def counted_all(self, rows: Sequence[Erasure]) -> dict[str, Counter[str]]:
        """Return, by erasure, what all batches did by outcome and table: `erased ticket`."""
        sums = text(
            "SELECT erasure_id, key, sum(value::bigint)::bigint AS rows FROM erasure_batch,"
            " jsonb_each_text(counts) WHERE erasure_id = ANY(CAST(:ids AS text[]))"
            " GROUP BY erasure_id, key ORDER BY key"
        )
        found: dict[str, Counter[str]] = {row.id: Counter() for row in rows}
        async with self.session() as session:
            for one in await session.execute(sums, {"ids": list(found)}):
                found[one.erasure_id][one.key] = one.rows
        return found


def _receipt(erasure_id: str, place: Place, counts: Mapping[str, int]) -> ErasureBatch:
    return ErasureBatch(erasure_id=erasure_id, **vars(place), counts=dict(counts), at=now())


async def _worked(
    session: AsyncSession, work: _Work, at: Mapping[str, Place], given: _Given, size: int
) -> tuple[dict[str, Place], dict[str, Counter[str]]]:
    """Go through steps until `size` rows were touched, or all is done; return who came further.

    Who is behind goes first, so that all come to the same step, and each gets the same share.
    """
    places, counts = dict(at), {key: Counter[str]() for key in at}
    budget = size
    while budget > 0 and (step := min(one.step for one in places.values())) < len(work.steps):
        behind = {key: one.after for key, one in places.items() if one.step == step}
        one, statement = work.steps[step], work.statements[step]
        share = max(1, budget // len(behind))
        touched: dict[str, Any] = {}
        if statement is not None and (one.kind != "names" or given.named):
            params = {**given.params(behind), "size": share}
            touched = {row.erasure: row for row in await session.execute(statement, params)}
        for key, row in touched.items():
            budget -= row.picked
            if row.rows and one.outcome is not None:
                counts[key][f"{one.outcome} {one.table}"] += row.rows
        more = {key: row.after for key, row in touched.items() if row.picked >= share}
        for key in behind:
            to = (step, more[key]) if key in more else (step + 1, "")
            places[key] = replace(places[key], step=to[0], after=to[1])
    further = {key: place for key, place in places.items() if place != at[key]}
    return {key: replace(one, number=one.number + 1) for key, one in further.items()}, counts
