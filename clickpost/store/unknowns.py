"""What a look, an answer or a vanished worker changes: each bound to the very send it is about.

A look takes time. Meanwhile another may have settled the same delivery and sent it again, so that
its state alone (`unknown` then, `unknown` now) proves nothing: the moment of the send has to be
the same too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import func, or_, text, update
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from clickpost.contract import Pending, Receipt
from clickpost.delivery import State, may_move
from clickpost.errors import Conflict
from clickpost.people import Right
from clickpost.publishing import Verdict
from clickpost.store import notices
from clickpost.store._base import append, now
from clickpost.store._deliveries import LINE, appended, changed, outcome_columns
from clickpost.store.deliveries import Deliveries, DeliveryLine
from clickpost.store.people import permit
from clickpost.store.tables import Attempt, Delivery

#: An unknown outcome that nobody has moved for this long has no run that looks for it.
LOOK_AFTER = timedelta(seconds=45)
#: Platforms tell times that differ from ours by less than this.
_ABOUT_THEN = timedelta(days=1)
_FREE: Mapping[str, Any] = MappingProxyType({"lease_owner": None, "lease_until": None})
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Unknowns(Deliveries):
    """Deliveries of unknown outcome, and those that a person has to settle."""

    async def adopt_found(self, seen: Delivery, found: Receipt | Pending, *, last: bool) -> State:
        """Take what a look at `seen` found as its outcome, and return its new state.

        A part of a thread makes it `ready` for the rest. Raises Conflict where it was settled or
        sent again since `seen` was read, and where another delivery has what was found: two
        posts of the same words and files are two, and one of them may be lost.
        """
        columns: dict[str, Any] = dict(_FREE)
        nobody = _nobodys(seen, found.remote_id) if isinstance(found, Receipt) else ()
        if isinstance(found, Receipt) and not last:
            state = State.READY
            columns["receipts"] = appended(found)
        else:
            verdict = _verdict_of(found)
            state = verdict.state
            columns |= outcome_columns(found, verdict, now(), last=True)
        same = (col(Delivery.sent_at).is_not_distinct_from(seen.sent_at), *nobody)
        await self._if_unchanged(seen, state, same, because={"looked": True}, **columns)
        return state

    async def remote_ids(self, seen: Delivery) -> frozenset[str]:
        """Return the ids of what other deliveries put on the same account about then."""
        lately = (seen.sent_at or seen.updated_at) - _ABOUT_THEN
        query = select(Delivery.receipts).where(
            Delivery.connection_id == seen.connection_id,
            Delivery.id != seen.id,
            col(Delivery.receipts).is_not(None),
            col(Delivery.sent_at) > lately,
        )
        async with self.session() as session:
            rows = (await session.scalars(query)).all()
        return frozenset(str(one["remote_id"]) for receipts in rows for one in receipts or [])

    async def clear_unknown(
        self, seen: Delivery, after: State, *, reason: str, who_acts: str | None = None
    ) -> None:
        """Move `seen`, at which a look found nothing, on to `after`; Conflict as `adopt_found`."""
        because = {"looked": True}
        await self._if_same_send(seen, after, reason=reason, who_acts=who_acts, because=because)

    async def note_unknown(self, seen: Delivery, *, reason: str, who_acts: str) -> None:
        """Say why `seen` stays unknown, and who acts; nothing where it was settled since."""
        async with self.transaction() as session:
            change = update(Delivery).where(
                col(Delivery.id) == seen.id,
                col(Delivery.state) == State.UNKNOWN,
                col(Delivery.sent_at).is_not_distinct_from(seen.sent_at),
            )
            values = {"reason": reason, "who_acts": who_acts, "updated_at": now()}
            row = await session.scalar(change.values(values).returning(Delivery))
            if row is not None:
                await notices.about_delivery(session, row)

    async def take_back(self, seen: Delivery, after: State, *, reason: str | None = None) -> None:
        """Take from a vanished worker what it held; Conflict where its lease is another by now."""
        same = (
            col(Delivery.lease_owner).is_not_distinct_from(seen.lease_owner),
            col(Delivery.lease_until).is_not_distinct_from(seen.lease_until),
        )
        who = "nobody yet" if after is State.UNKNOWN else None
        await self._if_unchanged(seen, after, same, reason=reason, who_acts=who, **_FREE)

    async def settle_by_answer(
        self,
        seen: Delivery,
        after: State,
        *,
        reason: str | None,
        actor: str,
        because: Mapping[str, Any],
        **columns: Any,
    ) -> None:
        """Move `seen` as a person decided; Conflict where it was settled or sent again since.

        Raises NotAllowed for who may not settle.
        """
        given = {**columns, **_FREE, "asked_at": None}
        told = {"reason": reason, "actor": actor, "because": because, "right": Right.SETTLE}
        await self._if_same_send(seen, after, **told, **given)

    async def unknown_lines(self, moment: datetime, also: Sequence[str] = ()) -> list[DeliveryLine]:
        """Return what is to be looked for now, the longest unknown first, and what `also` names.

        Where a look could not tell, the next one waits for a tenth of the time since the send.
        """
        since = moment - col(Delivery.sent_at)
        due = col(Delivery.updated_at) < moment - func.greatest(LOOK_AFTER, since / 10)
        looked = (col(Delivery.state) == State.UNKNOWN) & due
        query = LINE.where(or_(looked, col(Delivery.id).in_(also)))
        return await self._lines(query.order_by(None).order_by(col(Delivery.sent_at)).limit(500))

    async def unknown_of(self, run_id: str) -> list[str]:
        """Return the deliveries that the flow run sent last and whose outcome is unknown."""
        async with self.session() as session:
            query = select(Delivery.id).join(Attempt, col(Attempt.delivery_id) == Delivery.id)
            ours = (Attempt.flow_run_id == run_id, Attempt.started_at == Delivery.sent_at)
            found = await session.scalars(query.where(Delivery.state == State.UNKNOWN, *ours))
            return list(found.all())

    async def maybe_asking(self) -> list[Delivery]:
        """Return what a person may have to settle, and what still has a question open."""
        async with self.session() as session:
            operators = col(Delivery.who_acts) == "an operator"
            waits = col(Delivery.state).in_((State.UNKNOWN, State.HELD)) & operators
            there = func.jsonb_array_length(Delivery.receipts)
            short = there.between(1, func.jsonb_array_length(Delivery.message) - 1)
            broken = (col(Delivery.state) == State.FAILED) & short
            open_ = col(Delivery.question_run_id).is_not(None)
            query = select(Delivery).where(or_(waits, broken, open_))
            query = query.order_by(col(Delivery.asked_at).nulls_first()).limit(1000)
            return list((await session.scalars(query)).all())

    async def set_question(self, delivery_id: str, run_id: str | None) -> None:
        """Remember the run in which an operator is asked; None once that is over."""
        values: dict[str, Any] = {"question_run_id": run_id}
        if run_id is not None:
            values["asked_at"] = now()
        async with self.session() as session:
            change = update(Delivery).where(col(Delivery.id) == delivery_id)
            await session.execute(change.values(**values))

    async def _if_same_send(self, seen: Delivery, after: State, **told: Any) -> None:
        same = (col(Delivery.sent_at).is_not_distinct_from(seen.sent_at),)
        await self._if_unchanged(seen, after, same, **told)

    async def _if_unchanged(
        self,
        seen: Delivery,
        after: State,
        same: Sequence[Any],
        *,
        actor: str = "engine",
        because: Mapping[str, Any] = _NOTHING,
        reason: str | None = None,
        who_acts: str | None = None,
        right: Right | None = None,
        **columns: Any,
    ) -> None:
        if not may_move(seen.state, after):
            raise Conflict(f"no way leads from {seen.state} to {after}")
        told = {"state": after, "reason": reason, "who_acts": who_acts, **columns}
        async with self.transaction() as session:
            if right is not None:
                await permit(session, self.rules, actor, right)
            # Two looks at once may not find the same thing for two deliveries.
            key = {"key": zlib.crc32(f"adopt:{seen.connection_id}".encode())}
            await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), key)
            await changed(session, seen.id, (seen.state,), *same, **told)
            facts = {"from": seen.state.value, "to": after.value, **because}
            await append(session, "delivery.moved", seen.id, facts, actor)


def _nobodys(seen: Delivery, remote_id: str) -> tuple[Any, ...]:
    """Return the condition that no other delivery of the account has this id."""
    other = aliased(Delivery)
    has_it = col(other.receipts).contains([{"remote_id": remote_id}])
    theirs = (other.connection_id == seen.connection_id, other.id != seen.id, has_it)
    return (~select(other.id).where(*theirs).exists(),)


def _verdict_of(found: Receipt | Pending) -> Verdict:
    if isinstance(found, Receipt):
        return Verdict("live", State.LIVE)
    return Verdict("processing", State.PROCESSING, wait=found.again_in)
