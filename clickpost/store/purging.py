"""Purges what has expired: batches by key, each one transaction with its receipt."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from clickpost import ids, retention
from clickpost.datamap import Gap, Schema, unmapped_keys
from clickpost.errors import Conflict, InvalidInput
from clickpost.people import ENGINE, Right
from clickpost.policy.privacy import TableMap
from clickpost.retention import Clock, Fate, Tally
from clickpost.store._base import Base, append, now
from clickpost.store.expiring import Compiled
from clickpost.store.holds import HOLDS
from clickpost.store.people import permit
from clickpost.store.schema import at_present, json_keys
from clickpost.store.tables import DoomedFile, PurgeBatch, PurgeRun
from clickpost.store.treatments import quoted

#: Rows of the policy's table in one batch.
BATCH = 2000
#: A batch that waits so long for a lock gives up what it has, and is tried again. Its joins begin
#: at its rows and go by index: whatever statistics say, it costs the same in a table of any size.
SETTINGS = ("lock_timeout = '2s'", "enable_hashjoin = off", "enable_mergejoin = off")
#: Deadlocks, lock timeouts, and rows that somebody began to refer to meanwhile.
_AGAIN = {"40001", "40P01", "55P03", "23503"}
Tables = Mapping[str, TableMap]


@dataclass(frozen=True)
class Batch:
    """One receipt: what one transaction did, by table."""

    run_id: str
    number: int
    counts: Mapping[str, int]


class Purging(Base):
    """Retention, as the policies say it."""

    async def schema(self) -> Schema:
        """Return the tables that there are."""
        return await at_present(self.engine)

    async def unmapped_json(self, tables: Tables) -> list[Gap]:
        """Return the keys of JSON columns that the newest rows have, and the map does not know."""
        found: list[Gap] = []
        for name, table in tables.items():
            for column, said in table.columns.items():
                if said.paths is not None and "*" not in said.paths:
                    keys = await json_keys(self.engine, name, column)
                    gaps = unmapped_keys(table, column, keys)
                    found += [Gap(f"{name}.{gap.place}", gap.why) for gap in gaps]
        return sorted(found)

    async def tally(self, compiled: Compiled, at: datetime) -> Tally:
        """Count what a purge at this moment would touch, and what has expired and stays."""
        query = tally_of(compiled)
        async with self.session() as session:
            row = (await session.execute(text(query), _given(compiled, at))).one()
        policy = compiled.policy
        return Tally(policy.name, policy.data, row.found, row.total, row.held, row.needed)

    @asynccontextmanager
    async def purge_lock(self, policy: str) -> AsyncIterator[None]:
        """Let one purge at a time work under a policy; raise Conflict where one does.

        The lock goes with the process: what was killed is resumed by the next.
        """
        async with self.alone(f"purge:{policy}") as taken:
            if not taken:
                raise Conflict(f"{policy}: another purge works under this policy")
            yield

    async def open_purge(
        self, policy: str, policy_hash: str, actor: str = ENGINE
    ) -> PurgeRun | None:
        """Return the purge that was begun and not finished under this very policy.

        One that was begun under another version of it is closed: its rules hold no more. Raises
        NotAllowed for who may not erase.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ERASE)
            query = select(PurgeRun).where(
                PurgeRun.policy == policy, col(PurgeRun.finished_at).is_(None)
            )
            run: PurgeRun | None = await session.scalar(query.with_for_update())
            if run is None or run.policy_hash == policy_hash:
                return run
            run.finished_at = now()
            facts = {"run": run.id, "superseded": True}
            await session.flush()
            await append(session, "retention.stopped", policy, facts)
        return None

    async def begin_purge(
        self,
        tally: Tally,
        policy_hash: str,
        at: datetime,
        flow_run_id: str | None,
        actor: str = ENGINE,
    ) -> PurgeRun:
        """Write that a purge begins, for the moment `at`; NotAllowed for who may not erase."""
        run = PurgeRun(
            id=ids.new("purge"),
            policy=tally.policy,
            policy_hash=policy_hash,
            data=tally.data,
            asked_at=at,
            found=tally.found,
            total=tally.total,
            flow_run_id=flow_run_id,
            started_at=now(),
        )
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.ERASE)
            session.add(run)
            await session.flush()
            facts = {"run": run.id, "found": tally.found, "total": tally.total}
            facts["policy"] = policy_hash
            await append(session, "retention.begun", tally.policy, facts, actor)
        return run

    async def purge(
        self, run: PurgeRun, compiled: Compiled, size: int = BATCH
    ) -> AsyncIterator[Batch]:
        """Do what is left of a run, batch by batch; yield each receipt once it is on disk."""
        number, after = await self.reached(run)
        statement = text(batch_of(compiled))
        given = {**_given(compiled, run.asked_at), **pads(), "size": size}
        if compiled.policy.then == "aggregate" and number == 0:
            yield await self._roll_up(run, compiled)
            number = 1
        while True:
            done = await self._one(run, number + 1, statement, {**given, "after": after})
            if done is None:
                return
            number, after = number + 1, done[0]
            yield Batch(run.id, number, done[1])

    async def reached(self, run: PurgeRun) -> tuple[int, str]:
        """Return the number of the run's last batch, and the key behind which the next begins."""
        query = (
            select(PurgeBatch.number, PurgeBatch.after)
            .where(PurgeBatch.run_id == run.id)
            .order_by(col(PurgeBatch.number).desc())
        )
        async with self.session() as session:
            row = (await session.execute(query.limit(1))).first()
        return (row.number, row.after) if row else (0, "")

    async def _one(
        self, run: PurgeRun, number: int, statement: Any, given: Mapping[str, Any]
    ) -> tuple[str, dict[str, int]] | None:
        """Do one batch and write its receipt, in one transaction; None where nothing is left."""
        async for attempt in tries():
            with attempt:
                async with self.transaction() as session:
                    for setting in SETTINGS:
                        await session.execute(text(f"SET LOCAL {setting}"))
                    await session.execute(
                        text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": HOLDS}
                    )
                    row = (await session.execute(statement, given)).one()
                    if row.after is None:
                        return None
                    counts = {name: count for name, count in row.counts.items() if count}
                    session.add(
                        PurgeBatch(
                            run_id=run.id, number=number, after=row.after, counts=counts, at=now()
                        )
                    )
                return row.after, counts
        raise AssertionError("unreachable")

    async def _roll_up(self, run: PurgeRun, compiled: Compiled) -> Batch:
        """Count the months that are over, before their first row goes; once for each month."""
        policy = compiled.policy
        by = ", ".join(f"r.{quoted(name)}" for name in policy.by)
        clock = ", ".join(f"r.{quoted(name)}" for name in policy.purposes[0].clock)
        person = f"r.{quoted(str(policy.person))}"
        query = f"""
            INSERT INTO rollup (policy, month, by, rows, people)
            SELECT :policy, date_trunc('month', coalesce({clock}), 'UTC'),
                   jsonb_build_array({by})::text, count(*), count(DISTINCT {person})
            FROM {compiled.table} r
            WHERE {compiled.concerned()} AND {compiled.expired()}
            GROUP BY 2, 3 HAVING count(DISTINCT {person}) >= :k
            ON CONFLICT DO NOTHING
        """
        given = {**_given(compiled, run.asked_at), "policy": policy.name, "k": policy.k}
        async with self.transaction() as session:
            made: Any = await session.execute(text(query), given)
            counts = {"rollup": int(made.rowcount)}
            session.add(PurgeBatch(run_id=run.id, number=1, after="", counts=counts, at=now()))
        return Batch(run.id, 1, counts)

    async def end_purge(self, run: PurgeRun) -> Counter[str]:
        """Write that a purge is through, and return what all its batches did, by table."""
        sums = text(
            "SELECT key, sum(value::bigint)::bigint AS rows FROM purge_batch,"
            " jsonb_each_text(counts) WHERE run_id = :run GROUP BY key ORDER BY key"
        )
        change = text("UPDATE purge_run SET finished_at = :at WHERE id = :run")
        async with self.transaction() as session:
            rows = (await session.execute(sums, {"run": run.id})).all()
            done = Counter({row.key: row.rows for row in rows})
            await session.execute(change, {"at": now(), "run": run.id})
            await append(
                session,
                "retention.purged",
                run.policy,
                {"run": run.id, "policy": run.policy_hash, **done},
            )
        return done

    async def doomed(self, after: str, number: int, older: timedelta) -> Sequence[str]:
        """Return the next files whose rows are gone, in their order, that nobody just doomed."""
        query = select(DoomedFile.stored_at).where(
            DoomedFile.stored_at > after, DoomedFile.doomed_at <= now() - older
        )
        async with self.session() as session:
            found = await session.scalars(query.order_by(DoomedFile.stored_at).limit(number))
            return list(found)

    async def named(self, files: Sequence[str], tables: Tables) -> set[str]:
        """Return those files that a row names, as where the same content came in again."""
        parts = [
            f"EXISTS (SELECT 1 FROM {quoted(name)} x WHERE x.{quoted(column)} = file)"
            for name, table in tables.items()
            for column, said in table.columns.items()
            if said.file
        ]
        query = text(
            "SELECT file FROM unnest(CAST(:files AS text[])) AS file"
            f" WHERE {' OR '.join(parts) or 'false'}"
        )
        async with self.session() as session:
            return set((await session.execute(query, {"files": list(files)})).scalars())

    async def forget_files(self, files: Sequence[str]) -> None:
        """Forget doomed files: they are gone, or have a row again."""
        query = text("DELETE FROM doomed_file WHERE stored_at = ANY(CAST(:files AS text[]))")
        async with self.session() as session:
            await session.execute(query, {"files": list(files)})

    async def personal_in_ledger(self, most: int = 10) -> list[int]:
        """Return the numbers of ledger lines that look as if they held a personal value.

        Whoever is a member is looked for by e-mail address; any other address by its form.
        """
        query = text(
            """
            SELECT seq FROM ledger
            WHERE (subject || ' ' || facts::text) ~ '[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+[.][a-zA-Z]'
               OR facts::text ~ '"(email|e-mail|address|phone|text|body)"'
            ORDER BY seq LIMIT :most
            """
        )
        async with self.session() as session:
            return list(await session.scalars(query, {"most": most}))

    async def fates(
        self, table: str, row_id: str, policies: Sequence[Compiled], at: datetime
    ) -> dict[str, Fate]:
        """Return what each policy that is about a row does to it; raise InvalidInput for no row."""
        found: dict[str, Fate] = {}
        async with self.session() as session:
            there = text(f"SELECT 1 FROM {quoted(table)} WHERE id = :id")
            if await session.scalar(there, {"id": row_id}) is None:
                raise InvalidInput(f"{table} has no row {row_id}")
            for one in policies:
                root = await session.scalar(text(root_of(one, table)), {"id": row_id})
                if root is not None and (fate := await fate_of(session, one, root, at)) is not None:
                    found[one.policy.name] = fate
        return found


def tally_of(compiled: Compiled) -> str:
    """Return the query that counts what a purge would touch."""
    held = " OR ".join(compiled.held().values())
    needed = " OR ".join(compiled.referred().values()) or "false"
    return f"""
        SELECT (SELECT count(*) FROM {compiled.table}) AS total,
               count(*) FILTER (WHERE NOT held AND NOT needed) AS found,
               count(*) FILTER (WHERE held) AS held,
               count(*) FILTER (WHERE needed AND NOT held) AS needed
        FROM (
            SELECT coalesce({held}, false) AS held, coalesce({needed}, false) AS needed
            FROM {compiled.table} r
            WHERE {compiled.concerned()} AND {compiled.expired()} AND {compiled.untreated()}
        ) AS expired
    """


def _given(compiled: Compiled, at: datetime) -> dict[str, Any]:
    return {**compiled.params, "at": at}


def pads() -> dict[str, bytes]:
    """Return both pads of HMAC-SHA256 with a key that nobody ever sees or keeps."""
    key = secrets.token_bytes(64)
    return {"inner": bytes(x ^ 0x36 for x in key), "outer": bytes(x ^ 0x5C for x in key)}


def tries() -> AsyncRetrying:
    """Return the tries of one batch: what goes away by itself costs only a while."""
    return AsyncRetrying(
        retry=retry_if_exception(may_be_repeated),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        stop=stop_after_attempt(8),
        reraise=True,
    )


def may_be_repeated(error: BaseException) -> bool:
    """Say whether a batch met what goes away by itself: a deadlock, a lock, a new referrer."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _AGAIN


def _picked(compiled: Compiled) -> str:
    return f"""
        picked AS MATERIALIZED (
            SELECT r.{compiled.key(compiled.policy.data)} AS id FROM {compiled.table} r
            WHERE {compiled.beyond()} AND {compiled.concerned()} AND {compiled.expired()}
              AND {compiled.untreated()} AND NOT {compiled.staying()}
            ORDER BY 1 LIMIT :size FOR UPDATE OF r
        )"""


def batch_of(compiled: Compiled) -> str:
    """Return the one statement of a batch: it picks rows, treats them, and counts by table."""
    if compiled.policy.then == "anonymize":
        return _anonymizing(compiled)
    return _deleting(compiled)


def _anonymizing(compiled: Compiled) -> str:
    sets = ", ".join(f"{quoted(one.column)} = {one.value}" for one in compiled.changes())
    name = compiled.policy.data
    return f"""
        WITH {_picked(compiled)},
        done AS (
            UPDATE {compiled.table} r SET {sets} FROM picked
            WHERE r.{compiled.key(name)} = picked.id RETURNING 1
        )
        SELECT {compiled.reached()} AS after,
               jsonb_build_object('{name}', (SELECT count(*) FROM done)) AS counts
    """


def _deleting(compiled: Compiled) -> str:
    """Return a statement that deletes rows and what belongs to them.

    One statement sees one state: PostgreSQL checks foreign keys at its end, when children and
    parents are gone alike.
    """
    owners = {compiled.policy.data: "picked"}
    plain = {name: name.replace(".", "_") for name in compiled.schema}
    parts = [_picked(compiled)]
    for key in compiled.below:
        owner, name = owners[key.to], f"p_{plain[key.table]}"
        owners[key.table] = name
        parts.append(
            f"{quoted(name)} AS MATERIALIZED (SELECT c.{compiled.key(key.table)} AS id"
            f" FROM {quoted(key.table)} c"
            f" WHERE c.{quoted(key.column)} IN (SELECT id FROM {quoted(owner)}))"
        )
    files = []
    for table in reversed(owners):
        named = [c for c, said in compiled.tables[table].columns.items() if said.file]
        kept = ", ".join(f"d.{quoted(one)}" for one in named) or "1"
        parts.append(
            f"{quoted(f'd_{plain[table]}')} AS (DELETE FROM {quoted(table)} d"
            f" USING {quoted(owners[table])} p WHERE d.{compiled.key(table)} = p.id"
            f" RETURNING {kept})"
        )
        files += [f"SELECT {quoted(one)} AS f FROM {quoted(f'd_{plain[table]}')}" for one in named]
    if files:
        parts.append(
            "files AS (INSERT INTO doomed_file (stored_at, doomed_at)"
            f" SELECT DISTINCT f, now() FROM ({' UNION ALL '.join(files)}) AS all_files"
            " ON CONFLICT DO NOTHING)"
        )
    counts = ", ".join(
        f"'{one}', (SELECT count(*) FROM {quoted(f'd_{plain[one]}')})" for one in owners
    )
    return f"""
        WITH {", ".join(parts)}
        SELECT {compiled.reached()} AS after, jsonb_build_object({counts}) AS counts
    """


def root_of(compiled: Compiled, table: str) -> str:
    """Return a query for the row of the policy's table to which row `:id` of `table` belongs."""
    query, at = "CAST(:id AS text)", table
    condition = f"CAST(x.{compiled.key(at)} AS text) = {query}" if compiled.schema[at].types else ""
    while at != compiled.policy.data:
        key = next(one for one in compiled.below if one.table == at)
        where = condition or f"x.{compiled.key(at)} = {query}"
        query = f"(SELECT x.{quoted(key.column)} FROM {quoted(at)} x WHERE {where})"
        at, condition = key.to, ""
    return f"SELECT CAST({query} AS text)"


async def fate_of(session: Any, compiled: Compiled, row_id: str, at: datetime) -> Fate | None:
    """Return what a policy does to one row; None where it is about other rows."""
    policy = compiled.policy
    wanted = [f"({compiled.concerned()})"]
    for one in policy.purposes:
        wanted += [f"({compiled.is_active(one)})", f"({compiled.until(one)})"]
    held, referred = compiled.held(), compiled.referred()
    wanted += [f"({one})" for one in (*held.values(), *referred.values())]
    query = text(f"SELECT {', '.join(wanted)} FROM {compiled.table} r WHERE {compiled.is_row()}")
    row = tuple((await session.execute(query, {**_given(compiled, at), "id": row_id})).one())
    if not row[0]:
        return None
    times = row[1 : 1 + 2 * len(policy.purposes)]
    clocks = [
        Clock(policy.name, policy.then, one.why, one.basis, one.cite, until, one.confirmed)
        for one, active, until in zip(policy.purposes, times[::2], times[1::2], strict=True)
        if active
    ]
    rest = row[1 + 2 * len(policy.purposes) :]
    holds = tuple(f"a hold on {name}" for name, yes in zip(held, rest, strict=False) if yes)
    needs = tuple(name for name, yes in zip(referred, rest[len(held) :], strict=True) if yes)
    return Fate(retention.longest(clocks), holds, needs, policy.mode)
