"""What vendors are asked to erase: written before each call, and after it; sealed until it is over.

Who it is is read from the rows that are about the subject while they are there, so that vendors
are asked even where the rows are gone before all of them have answered.
"""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from clickpost import ids
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.policy.processors import ADDRESS, Processor
from clickpost.processors import OVER, Ask, Item, Stands, ask_of
from clickpost.store._base import append, now
from clickpost.store.erasing import Erasing
from clickpost.store.erasures import Erasures
from clickpost.store.people import permit
from clickpost.store.tables import Erasure, ProcessorAsk, SubjectRequest
from clickpost.store.treatments import quoted
from clickpost.store.vault import Sealed


@dataclass(frozen=True)
class Known:
    """Who a vendor is asked about, how many a hold keeps, how many belong to others as well."""

    who: frozenset[str]
    held: int = 0
    shared: int = 0


class Processors(Erasures):
    """Asks of vendors."""

    async def known(self, row: Erasure, erasing: Erasing, policy: Processor) -> Known:
        """Return by what a vendor knows the subject, as our rows say while they are there.

        What a hold keeps here is kept there, too. Of an account that goes, an address which is a
        member's of another account as well stays: that one did not ask.
        """
        who: set[str] = set()
        held: set[str] = set()
        shared: set[str] = set()
        async with self.session() as session:
            given = {**erasing.params, **await self._given(session, erasing, row)}
            for place in policy.who:
                table, _, column = place.partition(".")
                if place == ADDRESS or table not in erasing.order:
                    continue
                found = await session.execute(text(_values(erasing, table, column)), given)
                for one in found:
                    (held if one.held else shared if one.shared else who).add(one.value)
            who |= await self._asked_from(session, row) if ADDRESS in policy.who else set()
        return Known(frozenset(who - held - shared), len(held), len(shared - held))

    async def _asked_from(self, session: AsyncSession, row: Erasure) -> set[str]:
        """Return the address that a person's request came from, while it is known."""
        asked = await self._request_of(session, row)
        address = self._said(asked).get("address") if asked and asked.about == "person" else None
        return {address} if address else set()

    async def _request_of(self, session: AsyncSession, row: Erasure) -> SubjectRequest | None:
        return await session.get(SubjectRequest, row.request) if row.request else None

    def _said(self, asked: SubjectRequest) -> dict[str, str]:
        if not asked.data_key:  # It was told, and forgotten.
            return {}
        return self.vault.open(asked.id, Sealed(asked.secrets, asked.data_key, asked.key_id))

    async def want(self, row: Erasure, policy: Processor, known: Known) -> None:
        """Write whom a vendor has to be asked about; who was asked about already is no second."""
        async with self.transaction() as session:
            asked = await self._request_of(session, row)
            said = json.loads(self._said(asked).get("references") or "{}") if asked else {}
            for who in sorted(known.who):
                await self._add(session, row, policy, who, looked_for=True)
            if policy.references and policy.steps and policy.name in said:
                await self._add(session, row, policy, str(said[policy.name]), looked_for=False)

    async def _add(
        self, session: AsyncSession, row: Erasure, policy: Processor, who: str, *, looked_for: bool
    ) -> None:
        ask_id, moment = ids.new("ask"), now()
        # An id that the person named needs no look.
        items = () if looked_for else (Item(who, policy.steps[0].name),)
        sealed = self.vault.seal(ask_id, {"ask": Ask(ask_id, who, items).as_text()})
        made = {
            "id": ask_id,
            "erasure_id": row.id,
            "processor": policy.name,
            "digest": self._digest_for(row, policy, who),
            "looked_for": looked_for,
            "secrets": sealed.secrets,
            "data_key": sealed.data_key,
            "key_id": sealed.key_id,
            "state": "wanted" if policy.by_hand is None else "refused",
            "reason": policy.by_hand,
            "made_at": moment,
            "again_at": moment if policy.by_hand is None else None,
            "due_at": moment + policy.due,
            "calls": 0,
            "tries": 0,
            "erased": 0,
        }
        await session.execute(insert(ProcessorAsk).values(made).on_conflict_do_nothing())

    def _digest_for(self, row: Erasure, policy: Processor, who: str) -> str:
        said = f"{row.id}:{policy.name}:{who}".encode()
        return hmac.new(self.vault.derived("processors"), said, hashlib.sha256).hexdigest()

    async def asks(self, erasure_id: str) -> Sequence[ProcessorAsk]:
        """Return all asks of an erasure, oldest first."""
        query = select(ProcessorAsk).where(ProcessorAsk.erasure_id == erasure_id)
        async with self.session() as session:
            return (await session.scalars(query.order_by(ProcessorAsk.id))).all()

    async def asked(self, erasure_ids: Sequence[str]) -> set[str]:
        """Return those of which a vendor was asked, or is to be."""
        query = select(ProcessorAsk.erasure_id).where(
            col(ProcessorAsk.erasure_id).in_(list(erasure_ids))
        )
        async with self.session() as session:
            return set((await session.scalars(query)).all())

    async def to_be_asked(self, erasure_id: str, moment: datetime) -> Sequence[ProcessorAsk]:
        """Return the asks of an erasure that may go on: left by their run, or due by now."""
        found = await self.asks(erasure_id)
        return [
            one
            for one in found
            if one.state not in OVER
            and (one.state in ("wanted", "asking") or (one.again_at and one.again_at <= moment))
        ]

    async def erasures_to_ask(self, moment: datetime) -> Sequence[str]:
        """Return the erasures of which a vendor may be asked again."""
        query = (
            select(ProcessorAsk.erasure_id)
            .where(col(ProcessorAsk.state).not_in(OVER), col(ProcessorAsk.again_at) <= moment)
            .distinct()
        )
        async with self.session() as session:
            return (await session.scalars(query)).all()

    async def overdue(self, moment: datetime) -> Sequence[ProcessorAsk]:
        """Return the asks that should be over by now, and are not."""
        query = select(ProcessorAsk).where(
            col(ProcessorAsk.state).not_in(OVER), col(ProcessorAsk.due_at) <= moment
        )
        async with self.session() as session:
            return (await session.scalars(query.order_by(col(ProcessorAsk.due_at)))).all()

    async def refused(self) -> Sequence[ProcessorAsk]:
        """Return the asks that wait for a person."""
        query = select(ProcessorAsk).where(ProcessorAsk.state == "refused")
        async with self.session() as session:
            return (await session.scalars(query.order_by(ProcessorAsk.id))).all()

    def opened(self, row: ProcessorAsk) -> Ask:
        """Return who an ask is about; raise Unavailable where another key sealed it."""
        said = self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))
        return ask_of(row.id, said["ask"], is_looked_for=row.looked_for)

    async def begin_call(self, row: ProcessorAsk, step: str) -> ProcessorAsk:
        """Write, before a call, that it is made."""
        async with self.transaction() as session:
            found = await session.get_one(ProcessorAsk, row.id, with_for_update=True)
            is_first = found.asked_at is None
            found.state, found.step, found.calls = "asking", step, found.calls + 1
            found.asked_at = found.asked_at or now()
            await session.flush()
            if is_first:
                facts = {"ask": row.id, "processor": row.processor}
                await append(session, "processor.asked", row.erasure_id, facts)
        return found

    async def keep(self, row: ProcessorAsk, ask: Ask) -> ProcessorAsk:
        """Write what is known of an ask by now, while it goes on."""
        async with self.transaction() as session:
            found = await session.get_one(ProcessorAsk, row.id, with_for_update=True)
            self._seal(found, ask)
            found.erased = sum(one.erased for one in ask.items)
        return found

    async def pause(
        self, row: ProcessorAsk, ask: Ask, stands: Stands, reason: str, again_at: datetime | None
    ) -> ProcessorAsk:
        """Write that an ask waits: for the vendor, or, where it was refused, for a person."""
        async with self.transaction() as session:
            found = await session.get_one(ProcessorAsk, row.id, with_for_update=True)
            self._seal(found, ask)
            was = found.state
            found.erased = sum(one.erased for one in ask.items)
            found.state, found.reason, found.again_at = stands, reason or None, again_at
            found.tries = found.tries + 1 if stands == "again" else 0
            await session.flush()
            if stands == "refused" and was != "refused":
                facts = {"ask": row.id, "processor": row.processor}
                await append(session, "processor.refused", row.erasure_id, facts)
        return found

    async def end(self, row: ProcessorAsk, ask: Ask) -> ProcessorAsk:
        """Write that nothing is left there, and forget who it was."""
        async with self.transaction() as session:
            found = await session.get_one(ProcessorAsk, row.id, with_for_update=True)
            found.erased = sum(one.erased for one in ask.items)
            _over(found, "erased")
            await session.flush()
            facts = {"ask": row.id, "processor": row.processor, "erased": found.erased}
            await append(session, "processor.erased", row.erasure_id, facts)
        return found

    def _seal(self, row: ProcessorAsk, ask: Ask) -> None:
        sealed = self.vault.seal(row.id, {"ask": ask.as_text()})
        row.secrets, row.data_key, row.key_id = sealed.secrets, sealed.data_key, sealed.key_id

    async def settle(self, erasure_id: str, processor: str, actor: str) -> int:
        """Write that a person saw to it at a vendor, and let the erasure go on; return how many.

        Raises NotAllowed for who may not erase, InvalidInput where nothing is open there.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ERASE)
            query = select(ProcessorAsk).where(
                ProcessorAsk.erasure_id == erasure_id,
                ProcessorAsk.processor == processor,
                col(ProcessorAsk.state).not_in(OVER),
            )
            rows = (await session.scalars(query.with_for_update())).all()
            if not rows:
                raise InvalidInput(f"{erasure_id} has nothing open at {processor}")
            for row in rows:
                _over(row, "settled")
            await session.flush()
            facts = {"processor": processor, "asks": len(rows)}
            await append(session, "processor.settled", erasure_id, facts, actor)
        await self.wake(erasure_id)
        return len(rows)

    async def ask_again(self, erasure_id: str, processor: str, actor: str) -> int:
        """Let what a vendor refused, or was not to be had for, be asked now; return how many.

        Raises as `settle` does.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ERASE)
            query = select(ProcessorAsk).where(
                ProcessorAsk.erasure_id == erasure_id,
                ProcessorAsk.processor == processor,
                col(ProcessorAsk.state).in_(("refused", "again", "wait")),
            )
            rows = (await session.scalars(query.with_for_update())).all()
            if not rows:
                raise InvalidInput(f"{erasure_id} waits for nothing at {processor}")
            for row in rows:
                row.again_at = now()
            await session.flush()
            facts = {"processor": processor, "asks": len(rows)}
            await append(session, "processor.asked_again", erasure_id, facts, actor)
        return len(rows)

    async def seal_asks_anew(self) -> int:
        """Seal every open ask under the current master key; return how many."""
        query = select(ProcessorAsk.id).where(col(ProcessorAsk.data_key) != b"")
        async with self.session() as session:
            known = (await session.scalars(query)).all()
        for ask_id in known:
            async with self.transaction() as session:
                row = await session.get_one(ProcessorAsk, ask_id, with_for_update=True)
                if row.data_key:
                    self._seal(row, self.opened(row))
        return len(known)


def _over(row: ProcessorAsk, state: str) -> None:
    row.state, row.ended_at, row.reason, row.again_at = state, now(), None, None
    row.secrets, row.data_key = b"", b""


def _values(erasing: Erasing, table: str, column: str) -> str:
    """Return a query for what a column holds about the subject, and what keeps it."""
    value = f"r.{quoted(column)}"
    about = erasing.about(table)
    shared = "false"
    if erasing.policy.of == "workspace":
        others = f"o.email = {value} AND NOT coalesce({erasing.about('member', 'o')}, false)"
        shared = f"EXISTS (SELECT 1 FROM member o WHERE {others})"
    return (
        f"SELECT {value} AS value, bool_or({erasing.any_hold(table)}) AS held,"
        f" bool_or({shared}) AS shared FROM {quoted(table)} r"
        f" WHERE {about} AND btrim({value}) <> '' GROUP BY 1"
    )
