"""Erasures: planned, approved, done in batches with receipts, read back, certified."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, TextClause, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from clickpost import ids
from clickpost.certificate import Outcome, Statement, as_json, stamp
from clickpost.delivery import STOPPABLE
from clickpost.delivery import State as DeliveryState
from clickpost.erasure import OPEN, State, Step
from clickpost.errors import Conflict, InvalidInput
from clickpost.people import ENGINE, Right
from clickpost.store._base import append, now
from clickpost.store.certificates import Certificates
from clickpost.store.erasing import Erasing
from clickpost.store.holds import HOLDS
from clickpost.store.people import permit
from clickpost.store.purging import BATCH, SETTINGS, tries
from clickpost.store.signer import Signer
from clickpost.store.tables import (
    Connection,
    Delivery,
    Erasure,
    ErasureBatch,
    ErasureElsewhere,
    ErasureElsewhereBatch,
    Post,
)
from clickpost.store.treatments import literal, quoted

#: What is held without an end is looked at again so often.
LOOK_AGAIN = timedelta(days=1)
#: Whose deliveries are meant: those of all posts of a workspace, or those to one account.
Of = Literal["workspace", "connection"]
_WHOSE: Mapping[Of, str] = {
    "workspace": "p.workspace_id = :subject",
    "connection": "d.connection_id = :subject",
}
#: What was sent, and still has to be looked at.
LOOKED_FOR = (DeliveryState.SENDING, DeliveryState.PROCESSING, DeliveryState.UNKNOWN)


@dataclass(frozen=True)
class Found:
    """What one table holds about the subject now; `left` is what nothing keeps, and is there."""

    table: str
    total: int
    left: int
    held: tuple[Outcome, ...]


@dataclass(frozen=True)
class Planned:
    """One line of a plan: where, how many, and what becomes of them."""

    location: str
    what: str
    then: str
    count: int
    rule: str | None = None
    until: str | None = None


@dataclass(frozen=True)
class Done:
    """One receipt: what one transaction did, by outcome and table."""

    number: int
    counts: Mapping[str, int]


class Erasures(Certificates):
    """Erasures and anonymizations."""

    async def plan(
        self,
        erasing: Erasing,
        subject: str,
        policy_hash: str,
        *,
        request: str | None = None,
        takedown: bool = False,
        digest: str | None = None,
        actor: str = ENGINE,
    ) -> Erasure:
        """Write what an erasure would do, and touch nothing; raise InvalidInput for nobody.

        Somebody of whom no row is known may be known by the `digest` of their address.

        The same subject, action and request again is the same erasure while it is not complete,
        with a new plan. Raises NotAllowed for who may not erase.
        """
        of = erasing.policy.of
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ERASE)
            row = await self._open_one(session, erasing, subject)
            if row is None:
                digest = digest or await self._digest(session, erasing, subject)
                row = Erasure(
                    id=ids.new("erasure"),
                    action=erasing.action,
                    policy=erasing.policy.name,
                    policy_hash=policy_hash,
                    subject=subject,
                    digest=digest,
                    nonce=secrets.token_bytes(32),
                    request=request,
                    state="planned",
                    plan=[],
                    outcomes=[],
                    asked_at=now(),
                )
                session.add(row)
            if row.state == "planned":
                row.takedown = row.takedown or takedown
                row.policy_hash = policy_hash
                row.plan = [asdict(one) for one in await self._planned(session, erasing, row)]
                await session.flush()
                facts = {"action": row.action, "of": of, "locations": len(row.plan)}
                await append(session, "erasure.planned", row.id, facts, actor)
        return row

    async def _open_one(
        self, session: AsyncSession, erasing: Erasing, subject: str
    ) -> Erasure | None:
        lock = {"key": zlib.crc32(f"erasure:{subject}".encode())}
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), lock)
        query = select(Erasure).where(
            Erasure.subject == subject,
            Erasure.policy == erasing.policy.name,
            Erasure.action == erasing.action,
            Erasure.state != "complete",
        )
        found: Erasure | None = await session.scalar(query.with_for_update())
        return found

    async def _digest(self, session: AsyncSession, erasing: Erasing, subject: str) -> str | None:
        of, digest = erasing.policy.of, erasing.policy.digest
        column = quoted(digest) if digest and digest in erasing.schema[of].kinds else "NULL"
        query = text(f"SELECT {column} AS digest FROM {quoted(of)} WHERE id = :id")
        row = (await session.execute(query, {"id": subject})).first()
        if row is None:
            raise InvalidInput(f"{of} has no row {subject}")
        return row.digest  # type: ignore[no-any-return]  # text, or nothing

    async def _planned(
        self, session: AsyncSession, erasing: Erasing, row: Erasure
    ) -> list[Planned]:
        found: list[Planned] = []
        given = await self._given(session, erasing, row)
        for table in erasing.order:
            there = await self._look(session, erasing, table, given)
            what = erasing.tables[table].what
            held = sum(one.count for one in there.held)
            for one in there.held:
                until = stamp(one.until) if one.until else None
                found.append(Planned(table, what, "held", one.count, one.rule, until))
            if there.total > held:
                then = "erased" if erasing.deletes(table) else "anonymized"
                found.append(Planned(table, what, then, there.total - held))
        for step in erasing.steps:
            if step.kind == "names" and (count := await self._named(session, erasing, step, given)):
                what = erasing.tables[step.table].what
                found.append(Planned(step.table, what, "masked", count))
        return found

    async def _named(
        self, session: AsyncSession, erasing: Erasing, step: Step, given: Mapping[str, Any]
    ) -> int:
        if not given["named"]:
            return 0
        return int(await session.scalar(erasing.naming(step.table), given) or 0)

    async def _given(self, session: AsyncSession, erasing: Erasing, row: Erasure) -> dict[str, Any]:
        """Return the parameters of all statements; names stay in the database, in a setting."""
        base = {"subject": row.subject, "digest": row.digest, "erasure": row.id, "at": now()}
        homes = (await session.execute(text(erasing.homes()), base)).scalars().all()
        named = bool(erasing.policy.names) and await session.scalar(text(erasing.pattern()), base)
        more = self._pads(row) if row.nonce else {}
        return {**base, "homes": list(homes), "named": named, **more}

    def _pads(self, row: Erasure) -> dict[str, bytes]:
        """Return both pads of HMAC-SHA256: one key for all tables and every resumption.

        It is made of the master key and the row's nonce, with which it is destroyed.
        """
        key = hmac.new(self.vault.derived("pseudonyms"), row.nonce or b"", hashlib.sha512).digest()
        return {"inner": bytes(x ^ 0x36 for x in key), "outer": bytes(x ^ 0x5C for x in key)}

    async def _look(
        self, session: AsyncSession, erasing: Erasing, table: str, given: Mapping[str, Any]
    ) -> Found:
        """Count what a table holds about the subject, what is held by which rule, what is left."""
        laws, holds = erasing.laws(table), erasing.held(table)
        query = erasing.look(table)
        row = (await session.execute(query, {**erasing.params, **given})).one()._mapping
        held = [
            Outcome(table, erasing.tables[table].what, "held", row[f"n{number}"], law.rule,
                    row[f"u{number}"])
            for number, law in enumerate(laws)
            if row[f"n{number}"]
        ]  # fmt: skip
        for number, scope in enumerate(holds):
            if count := row[f"h{number}"]:
                held.append(await self._holding(session, erasing, table, scope, count, given))
        return Found(table, row["total"], row["left_"], tuple(held))

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
        if scope in erasing.order:
            whose = f"SELECT r.id FROM {quoted(scope)} r WHERE {erasing.about(scope)}"
        else:
            whose = f"SELECT r.id FROM {quoted(scope)} r WHERE r.id = ANY(:homes)"
        query = text(
            "SELECT string_agg(DISTINCT h.kind || '\\: ' || h.cite, '; ') AS rule,"
            " CASE WHEN bool_or(h.until IS NULL) THEN NULL ELSE max(h.until) END AS until"
            f" FROM hold h WHERE h.scope = {literal(scope)} AND h.ended_at IS NULL"
            f" AND (h.until IS NULL OR h.until > :at) AND h.target IN ({whose})"
        )
        row = (await session.execute(query, given)).one()
        what = erasing.tables[table].what
        return Outcome(table, what, "held", count, row.rule or f"a hold on {scope}", row.until)

    async def approve(self, erasure_id: str, actor: str) -> None:
        """Let a planned erasure begin; raise InvalidInput for one that is not planned.

        Raises NotAllowed for who may not erase.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ERASE)
            row = await session.get(Erasure, erasure_id, with_for_update=True)
            if row is None or row.state != "planned":
                raise InvalidInput(f"there is no planned erasure {erasure_id}")
            row.state, row.approved_at = "approved", now()
            await session.flush()
            await append(session, "erasure.approved", erasure_id, {}, actor)

    async def erasure(self, erasure_id: str) -> Erasure:
        """Return an erasure; raise InvalidInput for none."""
        async with self.session() as session:
            row = await session.get(Erasure, erasure_id)
        if row is None:
            raise InvalidInput(f"there is no erasure {erasure_id}")
        return row

    async def erasures(self, limit: int = 50) -> Sequence[Erasure]:
        """Return the newest erasures."""
        async with self.session() as session:
            query = select(Erasure).order_by(col(Erasure.asked_at).desc()).limit(limit)
            return (await session.scalars(query)).all()

    async def due(self, moment: datetime) -> Sequence[str]:
        """Return what may go on: approved, left by its run, or parked until now.

        What is blocked waits for a person. What is held without an end, or by a hold that
        somebody ended, is looked at every day.
        """
        query = select(Erasure.id).where(
            col(Erasure.state).in_([one for one in OPEN if one != "blocked"]),
            (col(Erasure.again_at) <= moment) | col(Erasure.again_at).is_(None),
        )
        async with self.session() as session:
            return (await session.scalars(query.order_by(col(Erasure.asked_at)))).all()

    @asynccontextmanager
    async def erasure_lock(self, erasure_id: str) -> AsyncIterator[None]:
        """Let one process at a time work on an erasure; raise Conflict where one does.

        The lock goes with the process: what was killed is resumed by the next.
        """
        async with self.alone(f"erasing:{erasure_id}") as taken:
            if not taken:
                raise Conflict(f"{erasure_id}: another run works on it")
            yield

    async def begin(self, erasure_id: str) -> Erasure:
        """Take an erasure up; raise InvalidInput where it is not approved, or is complete."""
        async with self.transaction() as session:
            row = await session.get(Erasure, erasure_id, with_for_update=True)
            if row is None or row.state not in OPEN:
                said = row.state if row else "unknown"
                raise InvalidInput(f"{erasure_id} is {said}: it cannot be carried out")
            first = row.begun_at is None
            row.begun_at, row.state, row.reason = row.begun_at or now(), "erasing", None
            row.again_at = None
            await session.flush()
            if first:
                await append(session, "erasure.begun", erasure_id, {})
        return row

    async def add_to_plan(self, row: Erasure, lines: Sequence[Planned]) -> Erasure:
        """Add to a plan what would be done in further databases."""
        async with self.transaction() as session:
            found = await session.get_one(Erasure, row.id, with_for_update=True)
            if found.state == "planned":
                found.plan = [*found.plan, *(asdict(one) for one in lines)]
        return found

    async def stop(
        self,
        row: Erasure,
        state: State,
        reason: str,
        again_at: datetime | None = None,
        outcomes: Sequence[Outcome] = (),
    ) -> None:
        """Write why an erasure does not go on now, and what became of each location so far."""
        async with self.transaction() as session:
            found = await session.get_one(Erasure, row.id, with_for_update=True)
            found.state, found.reason, found.again_at = state, reason, again_at
            found.outcomes = [as_json(one) for one in outcomes] or found.outcomes
            await session.flush()
            await append(session, f"erasure.{state}", row.id, {})

    async def leave_up(self, erasure_id: str, actor: str) -> None:
        """Erase without taking anything down: the person was told what to do at the platforms."""
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ERASE)
            row = await session.get_one(Erasure, erasure_id, with_for_update=True)
            row.takedown = False
            if row.state == "blocked":
                row.state, row.again_at = "waiting", now()
            await session.flush()
            await append(session, "erasure.left_up", erasure_id, {}, actor)

    async def erase(self, row: Erasure, erasing: Erasing, size: int = BATCH) -> AsyncIterator[Done]:
        """Do what is left of this round, batch by batch; yield each receipt once it is on disk."""
        at = await self._reached(row)
        statements = [erasing.prepared(one) for one in erasing.steps]
        while at.step < len(erasing.steps):
            at, counts = await self._one(row, erasing, erasing.steps, statements, at, size)
            yield Done(at.number, counts)

    async def loosen(
        self, row: Erasure, erasing: Erasing, size: int = BATCH
    ) -> AsyncIterator[Done]:
        """Let what stays anonymized lead to nobody any more; only where nothing is held."""
        at = replace(await self._reached(row), step=0, after="")
        statements = [erasing.prepared(one) for one in erasing.loosening]
        while at.step < len(erasing.loosening):
            at, counts = await self._one(
                row, erasing, erasing.loosening, statements, at, size, shift=1000
            )
            yield Done(at.number, counts)

    async def is_through(self, row: Erasure, erasing: Erasing) -> bool:
        """Say whether this round has gone through all steps."""
        return (await self._reached(row)).step >= len(erasing.steps)

    async def next_round(self, row: Erasure) -> None:
        """Begin anew from the first step: something was parked, or came in meanwhile."""
        at = await self._reached(row)
        async with self.transaction() as session:
            session.add(_receipt(row, replace(at, number=at.number + 1, round=at.round + 1,
                                              step=0, after=""), {}))  # fmt: skip

    async def _reached(self, row: Erasure) -> Reached:
        query = (
            select(ErasureBatch)
            .where(ErasureBatch.erasure_id == row.id)
            .order_by(col(ErasureBatch.number).desc())
            .limit(1)
        )
        async with self.session() as session:
            last = await session.scalar(query)
        return (
            Reached(last.number, last.round, last.step, last.after)
            if last
            else Reached(0, 0, 0, "")
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
        """Do at most `size` rows, of as many steps as they last, and write the receipt."""
        async for attempt in tries():
            with attempt:
                async with self.transaction() as session:
                    for setting in SETTINGS:
                        await session.execute(text(f"SET LOCAL {setting}"))
                    lock = text("SELECT pg_advisory_xact_lock_shared(:key)")
                    await session.execute(lock, {"key": HOLDS})
                    given = {**erasing.params, **await self._given(session, erasing, row)}
                    reached, counts = await worked(session, steps, statements, at, given, size)
                    session.add(_receipt(row, replace(reached, step=reached.step + shift), counts))
                return reached, counts
        raise AssertionError("unreachable")

    async def read_back(self, row: Erasure, erasing: Erasing) -> list[Found]:
        """Ask every mapped location what it still holds about the subject."""
        async with self.session() as session:
            given = await self._given(session, erasing, row)
            return [await self._look(session, erasing, table, given) for table in erasing.order]

    async def counted(self, row: Erasure) -> Counter[str]:
        """Return what all batches did, by outcome and table: `erased ticket`."""
        sums = text(
            "SELECT key, sum(value::bigint)::bigint AS rows FROM erasure_batch,"
            " jsonb_each_text(counts) WHERE erasure_id = :id GROUP BY key ORDER BY key"
        )
        async with self.session() as session:
            found = (await session.execute(sums, {"id": row.id})).all()
        return Counter({one.key: one.rows for one in found})

    async def stop_unsent(self, subject: str, of: Of = "workspace") -> int:
        """Cancel all that is not sent yet of a workspace, or to a connection; return how many."""
        free = col(Delivery.lease_owner).is_(None)
        states = col(Delivery.state).in_(STOPPABLE)
        reason, whose = "its account is erased", _whose(subject, of)
        return await self._moved(whose, states & free, DeliveryState.CANCELLED, reason)

    async def give_up_looking(self, connection_id: str) -> int:
        """End what went to a connection and whose end nobody can look at without its grant.

        What a process works on right now is let be; return how many were ended.
        """
        ours = col(Delivery.lease_until).is_(None) | (col(Delivery.lease_until) < now())
        states = col(Delivery.state).in_(LOOKED_FOR)
        reason = "its account is erased: nobody can look whether it is there"
        whose = _whose(connection_id, "connection")
        return await self._moved(whose, states & ours, DeliveryState.FAILED, reason)

    async def _moved(
        self,
        whose: ColumnElement[bool],
        which: ColumnElement[bool],
        to: DeliveryState,
        reason: str,
    ) -> int:
        """Move deliveries to a state in which nothing happens by itself, each with its line."""
        query = (
            select(Delivery)
            .join(Post, col(Post.id) == col(Delivery.post_id))
            .where(whose, which)
            .order_by(col(Delivery.id))
            .limit(200)
            .with_for_update(of=Delivery)
        )
        moved = 0
        while True:
            async with self.transaction() as session:
                rows = (await session.scalars(query)).all()
                before = [(row.id, row.state.value) for row in rows]
                for row in rows:
                    row.state, row.reason = to, reason
                    row.who_acts, row.updated_at = None, now()
                    row.lease_owner, row.lease_until = None, None
                await session.flush()
                for delivery_id, state in before:
                    facts = {"from": state, "to": to.value, "why": "erasure"}
                    await append(session, "delivery.moved", delivery_id, facts)
            moved += len(before)
            if not before:
                return moved

    async def want_all_down(self, workspace_id: str) -> None:
        """Keep the wish to take down for all of a workspace that is visible; a second is none."""
        change = text(
            """
            UPDATE delivery d SET takedown_at = now(), updated_at = now() FROM post p
            WHERE p.id = d.post_id AND p.workspace_id = :workspace AND d.takedown_at IS NULL
              AND d.who_acts IS DISTINCT FROM :ended
              AND (d.state IN ('live', 'processing', 'sending', 'unknown')
                   OR (d.receipts IS NOT NULL AND d.state NOT IN ('removed', 'gone', 'cancelled')))
            """
        )
        ended = "the account's owner"
        async with self.session() as session:
            await session.execute(change, {"workspace": workspace_id, "ended": ended})

    async def wanted_down(self, workspace_id: str) -> Sequence[str]:
        """Return the deliveries that are still to be taken down."""
        return await self._deliveries(workspace_id, "d.takedown_at IS NOT NULL")

    async def on_the_way(self, subject: str, of: Of = "workspace") -> int:
        """Count what is being sent, worked on by the platform, or of unknown outcome."""
        busy = "(d.state IN ('sending', 'processing', 'unknown') OR d.lease_owner IS NOT NULL)"
        return len(await self._deliveries(subject, busy, of))

    async def _deliveries(self, subject: str, where: str, of: Of = "workspace") -> Sequence[str]:
        query = text(
            "SELECT d.id FROM delivery d JOIN post p ON p.id = d.post_id"
            f" WHERE {_WHOSE[of]} AND {where} ORDER BY d.id"
        )
        async with self.session() as session:
            found = await session.execute(query, {"subject": subject})
            return found.scalars().all()

    async def visible(self, subject: str, of: Of = "workspace") -> Counter[str]:
        """Count what is live, by platform."""
        return await self._by_platform(subject, "live", of)

    async def taken_down(self, workspace_id: str) -> int:
        """Count what we took down."""
        return sum((await self._by_platform(workspace_id, "removed")).values())

    async def _by_platform(self, subject: str, state: str, of: Of = "workspace") -> Counter[str]:
        query = text(
            "SELECT c.platform, count(*) AS rows FROM delivery d JOIN post p ON p.id = d.post_id"
            " JOIN connection c ON c.id = d.connection_id"
            f" WHERE {_WHOSE[of]} AND d.state = :state GROUP BY 1"
        )
        async with self.session() as session:
            given = {"subject": subject, "state": state}
            found = (await session.execute(query, given)).all()
        return Counter({one.platform: one.rows for one in found})

    async def connected(self, connection_id: str) -> Connection | None:
        """Return one connected account, None where it is gone."""
        async with self.session() as session:
            found: Connection | None = await session.get(Connection, connection_id)
        return found

    async def connections_of(self, workspace_id: str) -> Sequence[Connection]:
        """Return a workspace's connected accounts."""
        query = select(Connection).where(Connection.workspace_id == workspace_id)
        async with self.session() as session:
            return (await session.scalars(query.order_by(Connection.id))).all()

    async def of_request(self, request_id: str) -> Sequence[Erasure]:
        """Return all erasures that a request asked for, oldest first."""
        query = select(Erasure).where(Erasure.request == request_id)
        async with self.session() as session:
            return (await session.scalars(query.order_by(col(Erasure.asked_at)))).all()

    async def about(self, *subjects: str) -> Sequence[Erasure]:
        """Return all erasures of some subjects, oldest first."""
        query = select(Erasure).where(col(Erasure.subject).in_(subjects))
        async with self.session() as session:
            return (await session.scalars(query.order_by(col(Erasure.asked_at)))).all()

    async def files_left(
        self, rows: Sequence[Erasure], number: int = 500
    ) -> Sequence[tuple[str, str]]:
        """Return files whose last row one of these erasures removed: its id, and where it is."""
        query = text(
            "SELECT erasure_id, stored_at FROM doomed_file"
            " WHERE erasure_id = ANY(CAST(:ids AS text[])) ORDER BY stored_at LIMIT :number"
        )
        given = {"ids": [row.id for row in rows], "number": number}
        async with self.session() as session:
            return [(one.erasure_id, one.stored_at) for one in await session.execute(query, given)]

    async def certify(
        self,
        row: Erasure,
        erasing: Erasing,
        outcomes: Sequence[Outcome],
        remains: Sequence[str],
        signer: Signer,
    ) -> dict[str, Any]:
        """Write that an erasure is complete, or parked with what is open; issue its certificate.

        Open is what is held, and what a vendor still works on. With the last of it go the digest
        and the nonce, by which anything about the subject could be found or made again.
        """
        held = [one for one in outcomes if one.outcome in ("held", "vendor_pending")]
        moment = now()
        statement = Statement(
            certificate=ids.new("cert"),
            action=row.action,
            request=row.request or row.id,
            outcomes=tuple(outcomes),
            policy=erasing.policy.name,
            policy_sha256=row.policy_hash,
            asked_at=row.asked_at,
            begun_at=row.begun_at or moment,
            read_back_at=moment,
            certified_at=moment,
            remains=tuple(remains),
        )
        async with self.transaction() as session:
            found = await session.get_one(Erasure, row.id, with_for_update=True)
            found.outcomes = statement.as_json()["outcomes"]
            found.state = "parked" if held else "complete"
            found.reason = None
            found.again_at = _again(held, moment) if held else None
            found.ended_at = None if held else moment
            if not held:
                found.digest = found.nonce = None
                await _forget_elsewhere(session, row.id)
                forget = text("UPDATE processor_ask SET digest = NULL WHERE erasure_id = :id")
                await session.execute(forget, {"id": row.id})
            await session.flush()
            facts = {"outcomes": dict(Counter(one.outcome for one in outcomes))}
            await append(session, f"erasure.{found.state}", row.id, facts)
            return await self.issue(session, statement, signer)

    async def wake(self, erasure_id: str) -> None:
        """Let an erasure go on at once, for what it waited for is there."""
        change = text(
            "UPDATE erasure SET again_at = now(),"
            " state = CASE state WHEN 'blocked' THEN 'waiting' ELSE state END"
            " WHERE id = :id AND state IN ('waiting', 'blocked', 'parked')"
        )
        async with self.session() as session:
            await session.execute(change, {"id": erasure_id})


def _whose(subject: str, of: Of) -> ColumnElement[bool]:
    """Return the condition that a delivery is meant; as `_WHOSE` says it in SQL."""
    return col(Post.workspace_id if of == "workspace" else Delivery.connection_id) == subject


@dataclass(frozen=True)
class Reached:
    """How far the batches of an erasure came."""

    number: int
    round: int
    step: int
    after: str


async def _forget_elsewhere(session: AsyncSession, erasure_id: str) -> None:
    """Forget whom an erasure meant in further databases; what was done there stays counted."""
    of = col(ErasureElsewhere.erasure_id) == erasure_id
    await session.execute(update(ErasureElsewhere).where(of).values(ours={}, subjects={}))
    batches = col(ErasureElsewhereBatch.erasure_id) == erasure_id
    await session.execute(update(ErasureElsewhereBatch).where(batches).values(after=""))


def _receipt(row: Erasure, at: Reached, counts: Mapping[str, int]) -> ErasureBatch:
    return ErasureBatch(
        erasure_id=row.id,
        number=at.number,
        round=at.round,
        step=at.step,
        after=at.after,
        counts=dict(counts),
        at=now(),
    )


async def worked(
    session: AsyncSession,
    steps: Sequence[Step],
    statements: Sequence[TextClause | None],
    at: Reached,
    given: Mapping[str, Any],
    size: int,
) -> tuple[Reached, Counter[str]]:
    """Go through steps until `size` rows were touched, or all is done."""
    counts: Counter[str] = Counter()
    step, after, budget = at.step, at.after, size
    while step < len(steps) and budget > 0:
        statement, one = statements[step], steps[step]
        if statement is None or (one.kind == "names" and not given["named"]):
            step, after = step + 1, ""
            continue
        row = (await session.execute(statement, {**given, "after": after, "size": budget})).one()
        if row.rows and one.outcome is not None:
            counts[f"{one.outcome} {one.table}"] += row.rows
        if row.rows < budget:
            step, after = step + 1, ""
        else:
            after = row.after
        budget -= row.rows
    return replace(at, number=at.number + 1, step=step, after=after), counts


def _again(held: Sequence[Outcome], moment: datetime) -> datetime:
    """Return when to look again: as the first hold ends, and every day, for one may be ended."""
    ends = [one.until for one in held if one.until is not None]
    return min([*ends, moment + LOOK_AGAIN])
