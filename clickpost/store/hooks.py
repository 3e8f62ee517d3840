"""Webhooks that come in: each hook's sealed secret, and every accepted call, once.

A hook is a row of `channel` that tells nobody (`status` inbound); an accepted call is a row of
`notice`, whose `once` drops what comes twice, and which waits there until Prefect took it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from sqlmodel import col, delete, select

from clickpost import ids
from clickpost.errors import InvalidInput
from clickpost.hooks import NAME, Call, event_of, once_of
from clickpost.people import Right
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.tables import Channel, Notice
from clickpost.store.vault import Sealed
from clickpost.telling import Said

KIND, INBOUND = "hook", "inbound"


class Hooks(Base):
    """Hooks and the calls that came through them."""

    async def add_hook(
        self, workspace_id: str, name: str, secret: str, *, actor: str = "operator"
    ) -> Channel:
        """Store a hook, its secret sealed; raise InvalidInput for a name that is wrong or taken.

        Raises NotAllowed for who may not say who starts something here.
        """
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
            await permit(session, self.rules, actor, Right.CONNECT)
            made = insert(Channel).values(values).on_conflict_do_nothing().returning(Channel)
            row: Channel | None = (await session.scalars(made)).one_or_none()
            if row is None:
                raise InvalidInput(
                    f"a hook {name} exists; remove it first: clickpost hooks remove {name}"
                )
            await append(session, "hook.added", hook_id, {}, actor)
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

    async def remove_hook(self, name: str, *, actor: str = "operator") -> None:
        """Remove a hook: its secret opens nothing any more; raise InvalidInput for none.

        Raises NotAllowed for who may not.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CONNECT)
            gone = (
                delete(Channel)
                .where(col(Channel.kind) == KIND, col(Channel.name) == _kept_as(name))
                .returning(col(Channel.id))
            )
            hook_id = (await session.scalars(gone)).one_or_none()
            if hook_id is None:
                raise InvalidInput(f"no hook {name}; see: clickpost hooks list")
            await append(session, "hook.removed", hook_id, {}, actor)

    def hook_secret(self, row: Channel) -> str:
        """Return the hook's secret, opened."""
        return self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))["secret"]

    async def accept(self, row: Channel, call: Call) -> tuple[str, bool]:
        """Keep a genuine call; return its notice's id, and whether it is new.

        When this returns it is durable. The body is sealed: `hook_body` opens it.
        """
        return (await self.accept_all([(row, call)]))[0]

    async def accept_all(self, calls: Sequence[tuple[Channel, Call]]) -> list[tuple[str, bool]]:
        """Keep genuine calls as `accept` does, all in one statement: a disk is waited for once."""
        values = [self._values(row, call) for row, call in calls]
        made = insert(Notice).on_conflict_do_nothing().returning(col(Notice.id))
        async with self.session() as session:
            new = set((await session.scalars(made, values)).all())
            old = [one for one in values if one["id"] not in new]
            known = await self._accepted_before(session, old) if old else {}
        return [
            (one["id"], True)
            if one["id"] in new
            else (known[one["workspace_id"], one["once"]], False)
            for one in values
        ]

    def _values(self, row: Channel, call: Call) -> dict[str, Any]:
        notice_id = ids.new("note")
        sealed = self.vault.seal(notice_id, {"body": base64.b64encode(call.body).decode()})
        return {
            "id": notice_id,
            "workspace_id": row.workspace_id,
            "event": event_of(name_of(row)),
            "subject": row.id,
            "facts": {
                "sealed": base64.b64encode(sealed.secrets).decode(),
                "data_key": base64.b64encode(sealed.data_key).decode(),
                "key_id": sealed.key_id,
            },
            "once": once_of(row.id, call.id),
            "created_at": now(),
        }

    async def _accepted_before(
        self, session: AsyncSession, values: Sequence[Mapping[str, Any]]
    ) -> dict[tuple[str, str], str]:
        """Return the ids of the notices that stand for these already."""
        query = select(col(Notice.workspace_id), col(Notice.once), col(Notice.id)).where(
            tuple_(col(Notice.workspace_id), col(Notice.once)).in_(
                {(one["workspace_id"], one["once"]) for one in values}
            )
        )
        return {(row[0], row[1]): row[2] for row in (await session.execute(query)).all()}

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
        """Yield the calls that Prefect has not heard of, one for all of a hook that wait.

        They count as heard at the end; what raises in between leaves them as they were. Which call
        stands for which is kept before anybody hears of it, so that a crash in between changes
        nothing about it; `calls_heard_with` returns it. At most `limit` calls are put together.
        """
        await self._put_together(limit)
        waiting = col(Notice.emitted_at).is_(None), col(Notice.heard_with).is_not(None)
        query = (
            select(Notice)
            .options(defer(Notice.facts))  # type: ignore[arg-type]  # Bodies are not needed.
            .where(*waiting, Notice.heard_with == Notice.id)
            .order_by(col(Notice.created_at))
            .with_for_update(skip_locked=True)
        )
        async with self.transaction() as session:
            rows = list((await session.scalars(query)).all())
            yield [Said(row.id, row.event, row.subject, {}, row.created_at) for row in rows]
            heard = col(Notice.heard_with).in_([row.id for row in rows])
            await session.execute(update(Notice).where(*waiting, heard).values(emitted_at=now()))

    async def _put_together(self, limit: int) -> None:
        query = (
            select(col(Notice.id), col(Notice.subject))
            .where(
                col(Notice.emitted_at).is_(None),
                col(Notice.heard_with).is_(None),
                col(Notice.event).startswith("hook."),
            )
            .order_by(col(Notice.created_at), col(Notice.id))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self.transaction() as session:
            together: dict[str, list[str]] = {}
            for notice_id, subject in (await session.execute(query)).all():
                together.setdefault(subject, []).append(notice_id)
            for calls in together.values():
                change = update(Notice).where(col(Notice.id).in_(calls))
                await session.execute(change.values(heard_with=calls[0]))


def name_of(row: Channel) -> str:
    """Return a hook's name."""
    return row.name.removeprefix("/hooks/")


def _kept_as(name: str) -> str:
    """Return the name in the table: a channel that tells people may have the same one."""
    return f"/hooks/{name}"
