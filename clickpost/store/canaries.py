"""Canaries: rows that no command writes, what their runs came to, and a look into every table."""

# ruff: noqa: S608
# Names come from the catalogue and are quoted; values are parameters.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, select

from clickpost import ids
from clickpost.canary import SUBJECT, Flight, Looked, Trace
from clickpost.store import Store
from clickpost.store._base import append, now
from clickpost.store.tables import (
    Connection,
    Consent,
    Inference,
    LedgerLine,
    Member,
    TicketAttachment,
    TicketMessage,
    UsageEvent,
    Workspace,
)

_TABLES = text(
    "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'information_schema'"
    " AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1, 2"
)


class Cage(Store):
    """The store as it is within a canary's own workspace: what comes in belongs to that."""

    home: str

    @classmethod
    def at(cls, other: Store, workspace_id: str) -> Cage:
        """Return that of one canary, beside an open store."""
        made = cls.beside(other)
        made.home = workspace_id
        return made

    async def workspace_id(self) -> str:
        """Return the canary's workspace."""
        return self.home

    async def furnish(self, name: str) -> None:
        """Make the workspace, and write down that a canary lives there."""
        async with self.transaction() as session:
            session.add(Workspace(id=self.home, name=name, approval=False, created_at=now()))
            await session.flush()
            await append(session, "canary.planted", SUBJECT, {"workspace": self.home})

    async def clear_away(self) -> None:
        """Delete the bare row that an erasure leaves of a workspace: nobody refers to it."""
        async with self.session() as session:
            await session.execute(delete(Workspace).where(col(Workspace.id) == self.home))

    async def disarm(self, connection_id: str) -> None:
        """Let nothing be sent through a connection, ever; nobody has to be told."""
        change = update(Connection).where(col(Connection.id) == connection_id)
        async with self.session() as session:
            await session.execute(change.values(status="revoked", status_reason="a canary's"))

    async def use(self, member_id: str, said: str, address: str) -> None:
        """Write what programs write of people: an event of usage, and what is concluded from it."""
        moment = now()
        event = UsageEvent(
            id=ids.new("usage"),
            workspace_id=self.home,
            member_id=member_id,
            event="canary.flew",
            ip=address,
            agent=said,
            facts={"said": said},
            at=moment,
        )
        inference = Inference(
            id=ids.new("inf"), member_id=member_id, kind="song", value={"is": said}, made_at=moment
        )
        async with self.transaction() as session:
            session.add_all([event, inference])

    async def attach(self, ticket_id: str, name: str, digest: str, size: int, path: str) -> None:
        """Attach a file to the first message of a ticket."""
        query = select(TicketMessage.id).where(TicketMessage.ticket_id == ticket_id)
        async with self.transaction() as session:
            message_id = (await session.scalars(query.order_by(TicketMessage.id).limit(1))).one()
            session.add(
                TicketAttachment(
                    id=ids.new("file"),
                    message_id=message_id,
                    name=name,
                    mime="text/plain",
                    bytes=size,
                    sha256=digest,
                    stored_at=path,
                )
            )

    async def let_law_go(self) -> None:
        """Delete the consents that a law keeps: nobody is behind a canary, who could claim."""
        theirs = select(Member.id).where(Member.workspace_id == self.home)
        gone = delete(Consent).where(col(Consent.member_id).in_(theirs))
        async with self.session() as session:
            await session.execute(gone)

    async def is_there(self) -> bool:
        """Say whether the workspace is still there."""
        known = select(Workspace.id).where(Workspace.id == self.home)
        async with self.session() as session:
            return await session.scalar(known) is not None


async def write_down(store: Store, action: str, facts: Mapping[str, Any]) -> None:
    """Write a line of the ledger about the latest canary: `searched` or `failed`."""
    async with store.transaction() as session:
        await append(session, f"canary.{action}", SUBJECT, facts)


async def flights(engine: AsyncEngine) -> list[Flight]:
    """Return the latest that the ledger says of canaries, newest first."""
    query = (
        select(LedgerLine)
        .where(LedgerLine.subject == SUBJECT)
        .order_by(col(LedgerLine.seq).desc())
        .limit(10)
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return [Flight(row.action.removeprefix("canary."), row.at, row.facts) for row in rows]


async def look(engine: AsyncEngine, database: str, pattern: str) -> Looked:
    """Look for a pattern in every column of every table of a database; binary ones are in hex."""
    traces = []
    async with engine.connect() as connection:
        reading = await connection.execution_options(isolation_level="AUTOCOMMIT")
        tables = (await reading.execute(_TABLES)).all()
        for one in tables:
            table = f"{_quoted(one.schema)}.{_quoted(one.name)}"
            query = text(f"SELECT count(*) FROM {table} r WHERE CAST(r.* AS text) ~ :pattern")
            if count := await reading.scalar(query, {"pattern": pattern}):
                traces.append(Trace(f"{database}: table {one.schema}.{one.name}", int(count)))
    return Looked(tuple(traces), len(tables))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace(":", "\\:") + '"'
