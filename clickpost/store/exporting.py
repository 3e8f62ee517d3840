"""Reads what is held about somebody, as an erasure would find it, in one look, row after row."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select

from clickpost import erasure, exporting
from clickpost.certificate import Statement
from clickpost.errors import Conflict, InvalidInput
from clickpost.policy.erasing import Erasure
from clickpost.requests import Kind, State
from clickpost.store._base import append
from clickpost.store.certificates import Certificates
from clickpost.store.erasing import Erasing
from clickpost.store.signer import Signer
from clickpost.store.tables import SubjectRequest
from clickpost.store.treatments import quoted

#: Rows that are read at once.
BATCH = 500
#: A row's id, its JSON text, and by column the file that belongs to it.
Row = tuple[str, str, Mapping[str, str | None]]


@dataclass(frozen=True)
class Subject:
    """About whom: the id of the row, and the digest by which their other rows are found."""

    id: str
    digest: str | None = None


@dataclass
class Exporting:
    """Which rows are handed out: all that the erasure finds, but for other people's."""

    erasing: Erasing
    people: Erasure | None = None
    """Where the subject is an account, the policy about its people: what is about one stays out."""

    @cached_property
    def tables(self) -> list[str]:
        """The tables with something to hand out, the subject itself first."""
        apart = self.people and self.people.of
        found = [one for one in reversed(self.erasing.order) if one != apart]
        return found + list(self._loose)

    @cached_property
    def _loose(self) -> dict[str, str]:
        """By table, the column that leads to a person without a foreign key: records outlive it."""
        if self.people is not None:
            return {}
        name = f"{self.erasing.policy.of}_id"
        return {
            table: name
            for table, said in self.erasing.tables.items()
            if name in said.subject and table not in self.erasing.order
            if name in self.erasing.schema[table].kinds
        }

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns that are handed out."""
        return exporting.columns(self.erasing.tables[table], self.erasing.schema[table])

    def query(self, table: str) -> str:
        """Return what reads the rows of a table: `id`, `said` as JSON, and files by `f0`, `f1`."""
        names = ", ".join(f"r.{quoted(one)}" for one in self.columns(table))
        files = exporting.file_columns(self.erasing.tables[table])
        more = "".join(f", r.{quoted(one)} AS f{number}" for number, one in enumerate(files))
        said = f"(SELECT CAST(row_to_json(s) AS text) FROM (SELECT {names}) s) AS said"
        where = self._where(table)
        return f"SELECT r.id AS id, {said}{more} FROM {quoted(table)} r WHERE {where} ORDER BY r.id"

    def count(self, table: str) -> str:
        """Return what counts the same rows."""
        return f"SELECT count(*) FROM {quoted(table)} r WHERE {self._where(table)}"

    def _where(self, table: str) -> str:
        if table in self._loose:
            of = self.erasing.policy.of
            ids = f"SELECT x.id FROM {quoted(of)} x WHERE {self.erasing.about(of, 'x')}"
            # Of somebody of whom no row is known, the subject is the request itself.
            return f"(r.id = :subject OR r.{quoted(self._loose[table])} = ANY(ARRAY({ids})))"
        about = self.erasing.about(table)
        of_others = self._of_a_person(table, "r")
        return f"{about} AND NOT coalesce({of_others}, false)" if of_others else about

    def _of_a_person(self, table: str, row: str) -> str | None:
        """Return the condition that a row is about one of an account's people; None: none is."""
        parts: list[str] = []
        for way in erasure.ways(table, self.erasing.tables, self.erasing.schema):
            if self.people is not None and way.to == self.people.of:
                parts.append(f"{row}.{quoted(way.column)} IS NOT NULL")
                digest = self.people.digest
                # Of somebody who wrote before they were a member.
                if digest is not None and digest in self.erasing.schema[table].kinds:
                    parts.append(f"{row}.{quoted(digest)} IS NOT NULL")
            elif way.to != table and (inner := self._of_a_person(way.to, f"{row}x")):
                key = f"{row}x.id = {row}.{quoted(way.column)}"
                parts.append(
                    f"EXISTS (SELECT 1 FROM {quoted(way.to)} {row}x WHERE {key} AND {inner})"
                )
        return f"({' OR '.join(parts)})" if parts else None


class Exports(Certificates):
    """Exports."""

    async def subject(self, made: Exporting, subject: str) -> Subject:
        """Return about whom a row is; raise InvalidInput where there is none."""
        of, digest = made.erasing.policy.of, made.erasing.policy.digest
        column = quoted(digest) if digest and digest in made.erasing.schema[of].kinds else "NULL"
        query = text(f"SELECT {column} AS digest FROM {quoted(of)} WHERE id = :id")
        async with self.session() as session:
            row = (await session.execute(query, {"id": subject})).first()
        if row is None:
            raise InvalidInput(f"{of} has no row {subject}")
        return Subject(subject, row.digest)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection to which the database stands still, and that changes nothing."""
        alike = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        async with self.engine.connect() as connection:
            await connection.execution_options(**alike)
            yield connection

    async def rows(
        self, connection: AsyncConnection, made: Exporting, table: str, subject: Subject
    ) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows of a table, by the batch, from a cursor of the server's."""
        files = exporting.file_columns(made.erasing.tables[table])
        given = {"subject": subject.id, "digest": subject.digest}
        query = text(made.query(table))
        async with connection.stream(query, given) as found:
            async for batch in found.partitions(BATCH):
                yield [
                    (row.id, row.said, {name: row[n + 2] for n, name in enumerate(files)})
                    for row in batch
                ]

    async def count(
        self, connection: AsyncConnection, made: Exporting, table: str, subject: Subject
    ) -> int:
        """Return how many rows of a table there are to hand out."""
        given = {"subject": subject.id, "digest": subject.digest}
        return int(await connection.scalar(text(made.count(table)), given) or 0)

    @asynccontextmanager
    async def export_lock(self, export_id: str) -> AsyncIterator[None]:
        """Let one process at a time make an export; raise Conflict where one does.

        The lock goes with the process: what was killed is made anew by the next.
        """
        key = {"key": zlib.crc32(f"export:{export_id}".encode())}
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            if not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key):
                raise Conflict(f"{export_id}: another run works on it")
            try:
                yield
            finally:
                await connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)

    async def note(self, action: str, export_id: str, facts: Mapping[str, Any], actor: str) -> None:
        """Write a line of the ledger: ids, counts and times."""
        async with self.transaction() as session:
            await append(session, action, export_id, facts, actor)

    async def certify(self, statement: Statement, signer: Signer) -> None:
        """Issue the certificate of an export."""
        async with self.transaction() as session:
            await self.issue(session, statement, signer)

    async def cut_short(self, kinds: Sequence[Kind]) -> Sequence[str]:
        """Return the requests of these kinds whose export was begun, and is not certified."""
        query = select(SubjectRequest.id).where(
            col(SubjectRequest.kind).in_([kind.value for kind in kinds]),
            col(SubjectRequest.state).in_(
                [State.PLANNED.value, State.EXECUTED.value, State.READ_BACK.value]
            ),
        )
        async with self.session() as session:
            return (await session.scalars(query.order_by(col(SubjectRequest.due_at)))).all()
