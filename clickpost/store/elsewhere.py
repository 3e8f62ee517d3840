"""Purges in further databases that an operator declares; receipts and holds stay in our own."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, select
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from clickpost import datamap, retention
from clickpost.datamap import Schema
from clickpost.errors import InvalidInput, Unavailable
from clickpost.policy.privacy import Retention, TableMap
from clickpost.retention import Place, Tally
from clickpost.store import purging
from clickpost.store._base import now
from clickpost.store.database import engine_of
from clickpost.store.expiring import Compiled
from clickpost.store.holds import HOLDS
from clickpost.store.purging import BATCH, Batch, Purging
from clickpost.store.schema import in_database
from clickpost.store.tables import Hold, PurgeBatch, PurgeRun
from clickpost.store.treatments import quoted

#: Functions of our own database, which others do not have.
_OURS = re.compile(r"\bprivacy_\w+\(")


@dataclass
class Foreign(Compiled):
    """One policy over the tables of another database, whose ids may be of any type."""

    database: str = ""
    id_types: Mapping[str, str] = field(default_factory=dict)
    scopes: dict[str, str] = field(default_factory=dict)
    """The tables that holds may name, by the parameter that brings the ids."""

    def _ids(self, scope: str) -> str:
        name = f"held_{len(self.scopes)}"
        name = next((known for known, one in self.scopes.items() if one == scope), name)
        self.scopes[name] = scope
        ids = f"SELECT unnest(CAST(:{name} AS text[])) AS id"
        return f"SELECT CAST(h.id AS {self.id_types[scope]}) FROM ({ids}) h"

    def beyond(self) -> str:
        """Return the condition that row `r` comes after those that are done."""
        key = f"CAST(nullif(:after, '') AS {self.id_types[self.policy.data]})"
        return f"(CAST(:after AS text) = '' OR r.id > {key})"

    def reached(self) -> str:
        """Return the last key of a batch, as text."""
        return "CAST((SELECT id FROM picked ORDER BY id DESC LIMIT 1) AS text)"


def faults(one: Foreign) -> Iterator[tuple[Place, str]]:
    """Yield what a policy asks that cannot be done in another database."""
    policy = one.policy
    if policy.then == "aggregate":
        yield ("then",), "aggregate is for our own database"
    for table in (policy.data, *policy.beside):
        for column, said in one.tables[table].columns.items():
            if said.file:
                yield ("data",), f"{table}.{column}: files are removed for our own database only"
    if policy.then == "anonymize":
        for change in one.changes():
            if _OURS.search(change.value):
                why = "mask, network and parts of JSON are for our own database"
                yield ("then",), f"{policy.data}.{change.column}: {why}"


def address_of(name: str) -> str:
    """Return the URL of a database by its name; raise InvalidInput where nothing tells it.

    `CLICKPOST_DATABASE_BILLING` holds the URL of `billing`, or `CLICKPOST_DATABASE_BILLING_FILE`
    the path of a file that does.
    """
    variable = f"CLICKPOST_DATABASE_{name.upper()}"
    if given := os.environ.get(variable):
        return given
    file = os.environ.get(f"{variable}_FILE")
    if not file:
        raise InvalidInput(f"{name}: nothing tells its address; set {variable} or {variable}_FILE")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidInput(f"{variable}_FILE: cannot be read: {error.strerror}") from None


class Elsewhere:
    """One further database, and our own, which keeps the receipts."""

    def __init__(self, name: str, engine: AsyncEngine, ours: Purging) -> None:
        self.name, self.engine, self.ours = name, engine, ours

    @classmethod
    @asynccontextmanager
    async def opened(cls, name: str, ours: Purging) -> AsyncIterator[Elsewhere]:
        """Yield it; raise Unavailable where it cannot be reached, which is never `done`."""
        engine = engine_of(address_of(name), size=2)
        try:
            yield cls(name, engine, ours)
        except (SQLAlchemyError, OSError) as error:
            # What the driver says may name the host or the user.
            kind = type(error).__name__
            raise Unavailable(f"{name} cannot be reached, or broke off: {kind}") from None
        finally:
            await engine.dispose()

    async def schema(self) -> Schema:
        """Return the tables that there are."""
        async with self.engine.connect() as connection:
            return await connection.run_sync(in_database)

    def gaps(self, tables: Mapping[str, TableMap], schema: Schema) -> list[str]:
        """Return where its map and its tables disagree, each place with its database's name."""
        found = datamap.gaps(tables, schema)
        return [f"{self.name}: {gap.place} {gap.why}" for gap in found]

    async def compiled(
        self, policy: Retention, tables: Mapping[str, TableMap], schema: Schema
    ) -> Foreign:
        """Return a policy over its tables; raise InvalidInput where it does not fit them."""
        wrong = [why for _, why in retention.faults(policy, tables, schema)]
        if not wrong:
            types = await self._id_types(schema)
            one = Foreign(policy, tables, schema, database=self.name, id_types=types)
            wrong = [why for _, why in faults(one)]
        if wrong:
            raise InvalidInput(f"{policy.name}: {'; '.join(wrong)}")
        return one

    async def has(self, table: str, row_id: str) -> bool:
        """Say whether a table has this row."""
        query = text(f"SELECT 1 FROM {quoted(table)} WHERE CAST(id AS text) = :id")
        async with self.engine.connect() as connection:
            return await connection.scalar(query, {"id": row_id}) is not None

    async def _id_types(self, schema: Schema) -> dict[str, str]:
        """Return by table the type of its `id`, as SQL writes it."""
        async with self.engine.connect() as connection:
            dialect = connection.dialect

            def types(sync: Any) -> dict[str, str]:
                return {
                    table: one["type"].compile(dialect)
                    for table in schema
                    for one in inspect(sync).get_columns(table)
                    if one["name"] == "id"
                }

            return await connection.run_sync(types)

    async def tally(self, one: Foreign, at: datetime) -> Tally:
        """Count what a purge at this moment would touch, and what has expired and stays."""
        query = purging.tally_of(one)
        held = await self._held(one, at)
        async with self.engine.connect() as connection:
            row = (await connection.execute(text(query), {**one.params, "at": at, **held})).one()
        data = f"{self.name}.{one.policy.data}"
        return Tally(one.policy.name, data, row.found, row.total, row.held, row.needed)

    async def _held(self, one: Foreign, at: datetime, session: Any = None) -> dict[str, list[str]]:
        """Return the ids that holds name, by parameter; our own database keeps the holds."""
        if session is None:
            async with self.ours.session() as fresh:
                return await self._held(one, at, fresh)
        found = {}
        for name, table in one.scopes.items():
            query = select(Hold.target).where(
                Hold.scope == f"{self.name}.{table}",
                col(Hold.ended_at).is_(None),
                col(Hold.until).is_(None) | (col(Hold.until) > at),
            )
            found[name] = list((await session.scalars(query)).all())
        return found

    async def purge(self, run: PurgeRun, one: Foreign, size: int = BATCH) -> AsyncIterator[Batch]:
        """Do what is left of a run, batch by batch; yield each receipt once it is on disk.

        Each batch is one transaction there, its receipt one here right after it. A kill in between
        loses the receipt and no row: what is gone is not found again, so the run's counts may be
        too low by one batch, and never too high.
        """
        number, after = await self.ours.reached(run)
        statement = text(purging.batch_of(one))
        given = {**one.params, **purging.pads(), "at": run.asked_at, "size": size}
        while True:
            batch, after = await self._one(
                run, number + 1, one, statement, {**given, "after": after}
            )
            if batch is None:
                return
            number += 1
            yield batch

    async def _one(
        self, run: PurgeRun, number: int, one: Foreign, statement: Any, given: Mapping[str, Any]
    ) -> tuple[Batch | None, str]:
        tries = AsyncRetrying(
            retry=retry_if_exception(purging.may_be_repeated),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=stop_after_attempt(8),
            reraise=True,
        )
        async for attempt in tries:
            with attempt:
                # While we hold this, no hold is placed that the batch does not know.
                async with self.ours.transaction() as session:
                    lock = text("SELECT pg_advisory_xact_lock_shared(:key)")
                    await session.execute(lock, {"key": HOLDS})
                    held = await self._held(one, now(), session)
                    row = await self._there(statement, {**given, **held})
                    if row.after is None:
                        return None, ""
                    counts = {
                        f"{self.name}.{name}": count for name, count in row.counts.items() if count
                    }
                    session.add(
                        PurgeBatch(
                            run_id=run.id, number=number, after=row.after, counts=counts, at=now()
                        )
                    )
                return Batch(run.id, number, counts), row.after
        raise AssertionError("unreachable")

    async def _there(self, statement: Any, given: Mapping[str, Any]) -> Any:
        async with self.engine.begin() as connection:
            for setting in (*purging.SETTINGS, "plan_cache_mode = force_custom_plan"):
                await connection.execute(text(f"SET LOCAL {setting}"))
            return (await connection.execute(statement, given)).one()
