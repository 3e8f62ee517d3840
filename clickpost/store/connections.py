"""Connected accounts: their secrets sealed, their refresh under one lock for all workers."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text, update
from sqlmodel import col, select

from clickpost import ids, people
from clickpost.contract import Account, Tokens
from clickpost.delivery import State
from clickpost.errors import AnotherAccount, InvalidInput, Reauthorize
from clickpost.people import Right
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.database import AWAY
from clickpost.store.people import permit
from clickpost.store.tables import Connection, Delivery, Workspace
from clickpost.store.vault import Sealed


@dataclass(frozen=True)
class NewConnection:
    """An account that was just connected."""

    platform: str
    name: str
    api_base: str
    secrets: Mapping[str, str] = field(repr=False)
    handle: str | None = None
    remote_id: str | None = None
    url: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    expires_at: datetime | None = None
    app_user_id: str | None = None


def _fresh(workspace: str, new: NewConnection) -> Connection:
    return Connection(
        id=ids.new("conn"),
        workspace_id=workspace,
        platform=new.platform,
        name=new.name,
        api_base=new.api_base,
        secrets=b"",
        data_key=b"",
        key_id="",
        created_at=now(),
    )


class Connections(Base):
    """Connected accounts."""

    async def workspace_id(self) -> str:
        """Return the default workspace's id."""
        async with self.session() as session:
            found = await session.scalar(select(Workspace.id).order_by(col(Workspace.created_at)))
        if found is None:
            raise InvalidInput("the database has no workspace. Run: clickpost up")
        return str(found)

    async def add_connection(self, new: NewConnection, *, actor: str = people.ENGINE) -> Connection:
        """Store a connection; the same PLATFORM/NAME again is a reconnect and releases its held.

        Raises AnotherAccount where that is another one by now: what waits was meant for the
        one, and what it was given cannot be looked for at the other. Raises NotAllowed for who
        may not connect; of a sign-in by a link, whoever made the link might.
        """
        workspace = await self.workspace_id()
        async with self.transaction() as session:
            query = select(Connection).where(
                Connection.workspace_id == workspace,
                Connection.platform == new.platform,
                Connection.name == new.name,
            )
            await permit(session, self.rules, actor, Right.CONNECT)
            row = await session.scalar(query.with_for_update())
            again = row is not None
            if row is not None and row.remote_id and new.remote_id not in (None, row.remote_id):
                raise AnotherAccount(
                    row.ref, row.handle or row.remote_id, new.handle or str(new.remote_id)
                )
            if row is None:
                row = _fresh(workspace, new)
                session.add(row)
            sealed = self.vault.seal(row.id, new.secrets)
            row.secrets, row.data_key, row.key_id = sealed.secrets, sealed.data_key, sealed.key_id
            row.api_base, row.handle, row.remote_id = new.api_base, new.handle, new.remote_id
            row.url, row.app_user_id = new.url, new.app_user_id
            row.options, row.limits = dict(new.options), dict(new.limits)
            row.expires_at, row.status, row.status_reason = new.expires_at, "active", None
            row.connected_at = row.updated_at = now()
            await session.flush()
            released = await self._released(session, row.id) if again else 0
            action = "connection.reconnected" if again else "connection.added"
            facts = {"platform": new.platform, "released": released}
            await append(session, action, row.id, facts, actor)
        return row

    async def _released(self, session: Any, connection_id: str) -> int:
        change = (
            update(Delivery)
            .where(
                col(Delivery.connection_id) == connection_id,
                col(Delivery.state) == State.HELD,
                col(Delivery.who_acts) == "the account's owner",
            )
            .values(
                state=State.PLANNED,
                reason=None,
                who_acts=None,
                updated_at=now(),
                lease_owner=None,
                lease_until=None,
            )
            .returning(col(Delivery.id))
        )
        rows = (await session.execute(change)).scalars().all()
        for delivery_id in rows:
            facts = {"from": State.HELD.value, "to": State.PLANNED.value}
            await append(session, "delivery.moved", delivery_id, facts)
        return len(rows)

    async def connections(self) -> list[Connection]:
        """Return all connections, by platform and name."""
        async with self.session() as session:
            query = select(Connection).order_by(Connection.platform, Connection.name)
            return list((await session.scalars(query)).all())

    async def connection(self, ref: str) -> Connection:
        """Return the connection with this id or PLATFORM/NAME; an unknown one is InvalidInput."""
        async with self.session() as session:
            if "/" not in ref:
                found = await session.get(Connection, ref)
            else:
                platform, _, name = ref.partition("/")
                query = select(Connection).where(
                    Connection.platform == platform, Connection.name == name
                )
                found = await session.scalar(query)
        if found is not None:
            return found
        known = [row.ref for row in await self.connections()]
        near = difflib.get_close_matches(ref, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else "; see: clickpost connections"
        raise InvalidInput(f"no connection {ref}{hint}")

    async def account(self, connection_id: str) -> Account:
        """Return the account with its secrets opened."""
        return self.opened(await self.connection(connection_id))

    def opened(self, row: Connection) -> Account:
        """Return the account of a row; raise Reauthorize where its tokens went with its grant."""
        if not row.data_key:
            raise Reauthorize(f"{row.id}: its grant is gone, and its tokens with it")
        sealed = Sealed(row.secrets, row.data_key, row.key_id)
        return Account(
            connection_id=row.id,
            platform=row.platform,
            api_base=row.api_base,
            remote_id=row.remote_id,
            handle=row.handle,
            secrets=self.vault.open(row.id, sealed),
            options=row.options,
        )

    async def save_tokens(
        self, connection_id: str, tokens: Tokens, *, since: datetime | None = None
    ) -> None:
        """Keep renewed tokens; an empty value never overwrites a good one.

        A connection that was paused after `since`, when their renewal began, goes on: what was
        refused meanwhile was the token before.
        """
        fresh = {key: value for key, value in tokens.secrets.items() if value}
        async with self.transaction() as session:
            row = await session.get_one(Connection, connection_id, with_for_update=True)
            if not row.data_key:  # Its owner took the grant back meanwhile: nothing is kept.
                return
            before = self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))
            sealed = self.vault.seal(row.id, {**before, **fresh})
            row.secrets, row.data_key, row.key_id = sealed.secrets, sealed.data_key, sealed.key_id
            wakes = row.status == "paused" and since is not None and row.updated_at > since
            row.expires_at, row.updated_at = tokens.expires_at, now()
            if row.status == "active" or wakes:
                row.status, row.status_reason = "active", None
            await session.flush()
            facts: dict[str, Any] = {"keys": sorted(fresh)}
            if wakes:
                facts["released"] = await self._released(session, row.id)
            await append(session, "connection.refreshed", row.id, facts)

    async def set_connection_status(self, connection_id: str, status: str, reason: str) -> None:
        """Pause, revoke or wake a connection; what its owner revoked is not merely paused."""
        async with self.transaction() as session:
            row = await session.get_one(Connection, connection_id, with_for_update=True)
            if (row.status, status) == ("revoked", "paused"):
                return
            changes = row.status != status
            row.status, row.status_reason, row.updated_at = status, reason, now()
            await session.flush()
            if changes and status != "active":
                await notices.about_connection(session, row)
            await append(session, f"connection.{status}", row.id, {})

    async def note_renewal_failed(self, connection_id: str, reason: str) -> None:
        """Say why the token, which still works, was not renewed; a pause keeps its own reason."""
        async with self.transaction() as session:
            row = await session.get_one(Connection, connection_id, with_for_update=True)
            if row.status != "active":
                return
            row.status_reason, row.updated_at = reason, now()
            await session.flush()
            await append(session, "connection.not_renewed", row.id, {})

    @asynccontextmanager
    async def refresh_lock(self, connection_id: str) -> AsyncIterator[None]:
        """Hold the one lock for refreshing this account, among all workers.

        A database that goes away takes the lock with it; then there is none to give back.
        """
        key = {"key": zlib.crc32(f"refresh:{connection_id}".encode())}
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
            try:
                yield
            finally:
                with suppress(*AWAY):
                    await connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                    await connection.rollback()

    async def seal_anew(self) -> int:
        """Seal every connection's secrets with a new data key under the current master key.

        One transaction a connection: a kill leaves some with the old key and some with the new,
        and both open. Return how many were sealed.
        """
        count = 0
        for known in await self.connections():
            if not known.data_key:  # Its secrets were purged after the grant was gone.
                continue
            async with self.transaction() as session:
                row = await session.get_one(Connection, known.id, with_for_update=True)
                opened = self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))
                sealed = self.vault.seal(row.id, opened)
                row.secrets, row.data_key = sealed.secrets, sealed.data_key
                row.key_id = sealed.key_id
                await session.flush()
                await append(session, "connection.rekeyed", row.id, {"key_id": sealed.key_id})
            count += 1
        return count
