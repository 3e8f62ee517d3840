"""Further databases that an operator declares: their tables, and purges in them.

Receipts and holds stay in our own. Nothing that lasts is created there: the functions by which
values are masked are made anew for each connection, and go with it.
"""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlmodel import col, select

from clickpost import datamap, retention
from clickpost.datamap import Gap, Schema, Tie
from clickpost.errors import ClickPostError, InvalidInput, PolicyError, Unavailable
from clickpost.policy.privacy import Purpose, Retention, TableMap
from clickpost.retention import Fate, Place, Tally
from clickpost.store import purging
from clickpost.store._base import now
from clickpost.store.database import engine_of, is_away, url_of
from clickpost.store.expiring import Compiled
from clickpost.store.holds import HOLDS
from clickpost.store.purging import BATCH, Batch, Purging
from clickpost.store.schema import in_further, json_keys
from clickpost.store.tables import Hold, PurgeBatch, PurgeRun
from clickpost.store.treatments import Change, quoted

#: Our own functions, wherever their schema is; a connection there has its own copy of each.
_OURS = re.compile(r"(?:\b\w+\.)?\b(privacy_\w+\()")
#: What defines these functions, in the order in which they need each other.
_DEFINED = """
    SELECT pg_get_functiondef(p.oid) FROM pg_proc p
    WHERE p.proname LIKE 'privacy\\_%' AND pg_function_is_visible(p.oid) ORDER BY p.oid
"""
#: What a database that is away, or refuses, makes the driver raise.
ERRORS = (SQLAlchemyError, psycopg.Error, OSError)
#: Seconds until a database that does not answer is taken to be away.
_PATIENCE = 10


def there(said: str) -> str:
    """Return SQL that calls our functions so that it can be said in a further database."""
    return _OURS.sub(r"pg_temp.\1", said)


def key_type(schema: Schema, table: str) -> str:
    """Return the type of a table's key, as SQL writes it."""
    return schema[table].types[schema[table].key]


@dataclass
class Foreign(Compiled):
    """One policy over the tables of another database, whose ids may be of any type."""

    database: str = ""
    scopes: dict[str, str] = field(default_factory=dict)
    """The tables that holds may name, by the parameter that brings the ids."""

    def _ids(self, scope: str) -> str:
        name = f"held_{len(self.scopes)}"
        name = next((known for known, one in self.scopes.items() if one == scope), name)
        self.scopes[name] = scope
        ids = f"SELECT unnest(CAST(:{name} AS text[])) AS id"
        return f"SELECT CAST(h.id AS {key_type(self.schema, scope)}) FROM ({ids}) h"

    def changes(self) -> list[Change]:
        """Return what anonymization does to each column."""
        return [
            Change(one.column, there(one.value), there(one.differs)) for one in super().changes()
        ]

    def until(self, purpose: Purpose) -> str:
        """Return the moment at which one purpose ends; times without a zone are taken as UTC."""
        return f"CAST({super().until(purpose)} AS timestamptz)"

    def referred(self) -> dict[str, str]:
        """Return, by table, the conditions that rows outside still need row `r`."""
        found = super().referred()
        if self.policy.then != "anonymize":
            for tie in self.schema[self.policy.data].ties:
                self._add(found, tie.table, tied(tie))
        return found

    def is_row(self) -> str:
        """Return the condition that row `r` is the one with the key `:id`."""
        return f"CAST(r.{self.key(self.policy.data)} AS text) = CAST(:id AS text)"

    def beyond(self) -> str:
        """Return the condition that row `r` comes after those that are done."""
        return beyond(self.schema, self.policy.data)

    def reached(self) -> str:
        """Return the last key of a batch, as text."""
        return REACHED


def tied(tie: Tie) -> str:
    """Return the condition that some row refers to row `r` by a key that no path follows."""
    pairs = [f"x.{quoted(mine)} = r.{quoted(theirs)}" for mine, theirs in tie.pairs]
    return f"EXISTS (SELECT 1 FROM {quoted(tie.table)} x WHERE {' AND '.join(pairs)})"


#: The last key of a batch, as text: not all types have a largest one.
REACHED = "CAST((SELECT id FROM picked ORDER BY id DESC LIMIT 1) AS text)"


def beyond(schema: Schema, table: str) -> str:
    """Return the condition that row `r` comes after the key `:after`, a text; '' is before all."""
    after = f"CAST(nullif(CAST(:after AS text), '') AS {key_type(schema, table)})"
    return f"(CAST(:after AS text) = '' OR r.{quoted(schema[table].key)} > {after})"


def faults(one: Foreign) -> Iterator[tuple[Place, str]]:
    """Yield what a policy asks that cannot be done in another database."""
    policy = one.policy
    if policy.then == "aggregate":
        yield ("then",), "aggregate is for our own database"
    for table in (policy.data, *policy.beside):
        if "tableoid" in one.schema[table].types:
            yield ("data",), f"{table} has parts, and no primary key of one column"
        for column, said in one.tables[table].columns.items():
            if said.file:
                yield ("data",), f"{table}.{column}: files are removed for our own database only"


def live(name: str) -> Schema:
    """Return the tables of a further database, for where nothing is opened for longer.

    Raises InvalidInput where nothing tells its address, Unavailable where it does not answer.
    """
    engine = create_engine(_with_patience(url_of(address_of(name))), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return in_further(connection)
    except ERRORS as error:
        raise trouble(name, error) from None
    finally:
        engine.dispose()


def gaps_of(name: str, tables: Mapping[str, TableMap], schema: Schema) -> list[Gap]:
    """Return where a database's map and its tables disagree, each place with its name before it."""
    return [replace(gap, place=f"{name}.{gap.place}") for gap in datamap.gaps(tables, schema)]


def trouble(name: str, error: BaseException) -> ClickPostError:
    """Return what to say of an error there, without its words: they may name host, user or value.

    Unavailable where it is away or was left, so that it is tried again; PolicyError where it
    refuses, which goes on until somebody acts.
    """
    code = getattr(getattr(error, "orig", error), "sqlstate", None)
    if code is None or is_away(error):
        return Unavailable(f"{name} cannot be reached, or broke off: {type(error).__name__}")
    known = {"42501": "our user there has no right to it", "25006": "it only lets us read"}
    diag = getattr(getattr(error, "orig", error), "diag", None)
    places = (getattr(diag, f"{kind}_name", None) for kind in ("table", "constraint"))
    why = known.get(code) or ".".join(one for one in places if one) or "its log says why"
    return PolicyError(f"{name} refuses: {why} (SQLSTATE {code})")


def _with_patience(url: URL) -> URL:
    return (
        url
        if "connect_timeout" in url.query
        else url.update_query_dict({"connect_timeout": str(_PATIENCE)})
    )


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
        url = _with_patience(url_of(address_of(name)))
        engine = engine_of(url.render_as_string(hide_password=False), size=2)
        event.listen(engine.sync_engine, "connect", _prepares(await _functions(ours)))
        try:
            yield cls(name, engine, ours)
        except ERRORS as error:
            raise trouble(name, error) from None
        finally:
            await engine.dispose()

    async def schema(self) -> Schema:
        """Return the tables that there are."""
        async with self.engine.connect() as connection:
            return await connection.run_sync(in_further)

    async def gaps(self, tables: Mapping[str, TableMap], schema: Schema) -> list[str]:
        """Return where its map and its tables disagree, each place with its database's name.

        Keys of JSON columns in the newest rows count too.
        """
        if found := gaps_of(self.name, tables, schema):
            return [f"{gap.place} {gap.why}" for gap in found]
        unknown = []
        for name, table in tables.items():
            for column, said in table.columns.items():
                if said.paths is not None and "*" not in said.paths:
                    keys = await json_keys(self.engine, name, column)
                    unknown += [
                        f"{self.name}.{name}.{gap.place} {gap.why}"
                        for gap in datamap.unmapped_keys(table, column, keys)
                    ]
        return sorted(unknown)

    def compiled(
        self, policy: Retention, tables: Mapping[str, TableMap], schema: Schema
    ) -> Foreign:
        """Return a policy over its tables; raise InvalidInput where it does not fit them."""
        wrong = [why for _, why in retention.faults(policy, tables, schema)]
        if not wrong:
            one = Foreign(policy, tables, schema, database=self.name)
            wrong = [why for _, why in faults(one)]
        if wrong:
            raise InvalidInput(f"{policy.name}: {'; '.join(wrong)}")
        return one

    async def has(self, table: str, row_id: str) -> bool:
        """Say whether a table has this row; raise InvalidInput for a table that is not there."""
        schema = await self.schema()
        if table not in schema:
            raise InvalidInput(f"{self.name} has no table {table}")
        key = quoted(schema[table].key)
        query = text(f"SELECT 1 FROM {quoted(table)} WHERE CAST({key} AS text) = :id")
        async with self.engine.connect() as connection:
            return await connection.scalar(query, {"id": row_id}) is not None

    async def fates(
        self, table: str, row_id: str, policies: Sequence[Foreign], at: datetime
    ) -> dict[str, Fate]:
        """Return what each policy that is about a row does to it; raise InvalidInput for no row."""
        if not await self.has(table, row_id):
            raise InvalidInput(f"{self.name}.{table} has no row {row_id}")
        found: dict[str, Fate] = {}
        for one in policies:
            await self.bind(one, at)
            async with self.engine.connect() as connection:
                root = await connection.scalar(text(purging.root_of(one, table)), {"id": row_id})
                if root is None:
                    continue
                fate = await purging.fate_of(connection, one, root, at)
            if fate is not None:
                found[one.policy.name] = fate
        return found

    async def bind(self, one: Foreign, at: datetime) -> None:
        """Give a policy the ids that holds name at this moment, beside its own parameters."""
        one.held()
        one.params.update(await self._held(one, at))

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
        async for attempt in purging.tries():
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


async def _functions(ours: Purging) -> Sequence[str]:
    """Return what makes our functions of privacy in another database, for one connection."""
    async with ours.session() as session:
        found = (await session.scalars(text(_DEFINED))).all()
    return [there(one) for one in found]


def _prepares(functions: Sequence[str]) -> Callable[[Any, Any], None]:
    """Return what makes each new connection ready: our clock, and our functions."""

    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for statement in ("SET TIME ZONE 'UTC'", *functions):
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    return prepare
