"""Webhooks that come in: each hook's sealed secret, and every accepted call, once.

A hook is a row of `channel` that tells nobody (`status` inbound); an accepted call is a row of
`notice`, whose `once` drops what comes twice, and which waits there until Prefect took it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, delete, select

from clickpost import ids
from clickpost.errors import InvalidInput
from clickpost.hooks import NAME, Call, event_of, once_of
from clickpost.store._base import Base, append, now
from clickpost.store.notices import said_of
from clickpost.store.tables import Channel, Notice
from clickpost.store.vault import Sealed
from clickpost.telling import Said

KIND, INBOUND = "hook", "inbound"


class Hooks(Base):
    """Hooks and the calls that came through them."""

    async def add_hook(self, workspace_id: str, name: str, secret: str) -> Channel:
        """Store a hook, its secret sealed; raise InvalidInput for a name that is wrong or taken."""
        if not NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} is no name for a hook: up to 63 small letters, digits and hyphens"
            )
        hook_id = ids.new("hook")
        sealed = self.vault.seal(hook_id, {"secret": secret})
        values = {
            "id": hook_id,
            "workspace_id": workspace_id,
            "name": _kept_as(name),
            "kind": KIND,
            "events": [],
            "status": INBOUND,
            "secrets": sealed.secrets,
            "data_key": sealed.data_key,
            "key_id": sealed.key_id,
            "created_at": now(),
        }
        async with self.transaction() as session:
            made = insert(Channel).values(values).on_conflict_do_nothing().returning(Channel)
            row: Channel | None = (await session.scalars(made)).one_or_none()
            if row is None:
                raise InvalidInput(
                    f"a hook {name} exists; remove it first: clickpost hooks remove {name}"
                )
            await append(session, "hook.added", hook_id, {}, "operator")
        return row

    async def hooks(self) -> list[Channel]:
        """Return the hooks by name."""
        async with self.session() as session:
            query = select(Channel).where(Channel.kind == KIND).order_by(Channel.name)
            return list((await session.scalars(query)).all())

    async def hook(self, name: str) -> Channel | None:
        """Return the hook of that name, None where there is none."""
        query = select(Channel).where(Channel.kind == KIND, Channel.name == _kept_as(name))
        async with self.session() as session:
            found: Channel | None = await session.scalar(query)
        return found

    async def remove_hook(self, name: str) -> None:
        """Remove a hook: its secret opens nothing any more; raise InvalidInput for none."""
        async with self.transaction() as session:
            gone = (
                delete(Channel)
                .where(col(Channel.kind) == KIND, col(Channel.name) == _kept_as(name))
                .returning(col(Channel.id))
            )
            hook_id = (await session.scalars(gone)).one_or_none()
            if hook_id is None:
                raise InvalidInput(f"no hook {name}; see: clickpost hooks list")
            await append(session, "hook.removed", hook_id, {}, "operator")

    def hook_secret(self, row: Channel) -> str:
        """Return the hook's secret, opened."""
        return self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))["secret"]

    async def accept(self, row: Channel, call: Call) -> tuple[str, bool]:
        """Keep a genuine call; return its notice's id, and whether it is new.

        When this returns it is durable. The body is sealed: `hook_body` opens it.
        """
        notice_id, once = ids.new("note"), once_of(row.id, call.id)
        sealed = self.vault.seal(notice_id, {"body": base64.b64encode(call.body).decode()})
        values = {
            "id": notice_id,
            "workspace_id": row.workspace_id,
            "event": event_of(name_of(row)),
            "subject": row.id,
            "facts": {
                "sealed": base64.b64encode(sealed.secrets).decode(),
                "data_key": base64.b64encode(sealed.data_key).decode(),
                "key_id": sealed.key_id,
            },
            "once": once,
            "created_at": now(),
        }
        made = insert(Notice).values(values).on_conflict_do_nothing().returning(col(Notice.id))
        known = select(Notice.id).where(
            Notice.workspace_id == row.workspace_id, Notice.once == once
        )
        async with self.session() as session:
            if await session.scalar(made) is not None:
                return notice_id, True
            return str(await session.scalar(known)), False

    async def hook_body(self, notice_id: str) -> bytes:
        """Return what a call brought; raise InvalidInput where there is no such call."""
        async with self.session() as session:
            row = await session.get(Notice, notice_id)
        if row is None or "sealed" not in row.facts:
            raise InvalidInput(f"no call of a hook has the id {notice_id}")
        sealed = Sealed(
            base64.b64decode(row.facts["sealed"]),
            base64.b64decode(row.facts["data_key"]),
            row.facts["key_id"],
        )
        return base64.b64decode(self.vault.open(row.id, sealed)["body"])

    @asynccontextmanager
    async def unemitted_calls(self, limit: int) -> AsyncIterator[list[Said]]:
        """Yield calls that Prefect has not heard of; they count as heard at the end.

        As `unemitted`, which takes them too where the gateway is gone: rows are locked meanwhile.
        """
        query = (
            select(Notice)
            .where(col(Notice.emitted_at).is_(None), col(Notice.event).startswith("hook."))
            .order_by(col(Notice.created_at))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self.transaction() as session:
            rows = list((await session.scalars(query)).all())
            yield [said_of(row) for row in rows]
            for row in rows:
                row.emitted_at = now()


def name_of(row: Channel) -> str:
    """Return a hook's name."""
    return row.name.removeprefix("/hooks/")


def _kept_as(name: str) -> str:
    """Return the name in the table: a channel that tells people may have the same one."""
    return f"/hooks/{name}"
