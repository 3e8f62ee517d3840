"""Notices and the channels that carry them: written with the change they tell of, told later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, literal, or_, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlmodel import col, select

from clickpost import causes, ids
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.store._base import Base, append, now
from clickpost.store.members import wants
from clickpost.store.people import permit
from clickpost.store.tables import Channel, Connection, Delivery, Notice, Post, Telling, Workspace
from clickpost.store.vault import Sealed
from clickpost.telling import GIVE_UP_AFTER, UNTOLD, Event, Happening, Said, event_of

#: A hook is kept among the channels and tells nobody (store/hooks.py).
_TELLS = col(Channel.kind) != "hook"


@dataclass(frozen=True)
class NewChannel:
    """A channel as somebody adds it; `secrets` are its address and keys."""

    name: str
    kind: str
    secrets: Mapping[str, str] = field(repr=False)
    events: tuple[str, ...] = ()
    member_id: str | None = None
    """Whose it is; None for one of nobody in particular."""


@dataclass(frozen=True)
class Due:
    """One notice that has to go through one channel; this is its try number `tries`."""

    telling_id: str
    tries: int
    said: Said


@dataclass(frozen=True)
class Outbox:
    """Whether there are notices and calls that Prefect has not heard of, and tellings that are due.

    What another run is emitting in this very moment counts as not heard.
    """

    notices: bool
    calls: bool
    tellings: bool


@dataclass(frozen=True)
class Untold:
    """A notice that a channel did not take: it is tried again at `again_at`, or given up."""

    telling_id: str
    channel: str
    event: str
    subject: str
    state: str
    tries: int
    reason: str | None
    since: datetime
    again_at: datetime | None


async def write(session: Any, workspace_id: str, what: Happening) -> str | None:
    """Write a notice, and a telling for each channel that wants it; None where it was there."""
    moment = now()
    by = {"by_run": run} if (run := causes.run()) else {}
    values = {
        "id": ids.new("note"),
        "workspace_id": workspace_id,
        "event": what.event.value,
        "subject": what.subject,
        "facts": {**what.facts, **by},
        "once": what.once,
        "created_at": moment,
    }
    made: str | None = await session.scalar(
        insert(Notice).values(values).on_conflict_do_nothing().returning(col(Notice.id))
    )
    if made is None or what.event in UNTOLD:
        return made
    wanted = or_(
        Channel.events == literal([], JSONB),  # type: ignore[arg-type]
        col(Channel.events).op("@>")(literal([what.event.value], JSONB)),
    )
    query = select(Channel.id).where(
        Channel.workspace_id == workspace_id,
        Channel.status == "active",
        wanted,
        wants(what.event.value),
    )
    for channel_id in (await session.scalars(query)).all():
        session.add(Telling(id=ids.new("tell"), notice_id=made, channel_id=channel_id))
    await session.flush()
    return made


async def about_delivery(
    session: Any, row: Delivery, event: Event | None = None, **more: Any
) -> None:
    """Write what a delivery's row has to tell, in the transaction that changed it.

    Each change is told once; an unknown outcome once for each send, however often it is noted.
    """
    event = event or event_of(row.state, row.who_acts)
    if event is None:
        return
    query = (
        select(Connection, col(Post.flow_run_id))
        .join(Post, literal(True))
        .where(Connection.id == row.connection_id, Post.id == row.post_id)
    )
    connection, run_id = (await session.execute(query)).one()
    moments = {Event.UNKNOWN: row.sent_at, Event.LIVE: row.live_at}
    since = moments.get(event) or row.updated_at
    facts = {
        "where": connection.ref,
        "state": row.state.value,
        "reason": row.reason,
        "who_acts": row.who_acts,
        "delivery_id": row.id,
        "post_id": row.post_id,
        "connection_id": connection.id,
        "run_id": row.question_run_id or run_id,
        **more,
    }
    once = f"{event}:{row.id}:{facts.pop('since', since.isoformat())}"
    await write(session, connection.workspace_id, Happening(event, row.id, once, facts))


async def about_connection(session: Any, row: Connection) -> None:
    """Write that a connection was paused or revoked, in the transaction that did so."""
    event = Event.REVOKED if row.status == "revoked" else Event.PAUSED
    facts = {
        "where": row.ref,
        "reason": row.status_reason,
        "who_acts": "the account's owner",
        "connection_id": row.id,
    }
    once = f"{event}:{row.id}:{row.updated_at.isoformat()}"
    await write(session, row.workspace_id, Happening(event, row.id, once, facts))


class Notices(Base):
    """Notices, channels, and what is on its way between them."""

    async def notify(self, what: Happening, workspace_id: str | None = None) -> str | None:
        """Write a notice that no change of a row brings with it; None where it was there."""
        async with self.transaction() as session:
            given = workspace_id or await session.scalar(
                select(Workspace.id).order_by(col(Workspace.created_at))
            )
            return await write(session, str(given), what)

    async def add_channel(
        self, workspace_id: str, new: NewChannel, *, actor: str = "operator"
    ) -> Channel:
        """Store a channel; raise InvalidInput where its name is taken, NotAllowed for who may not.

        Whoever is told learns what happens here.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CONNECT)
            known = select(Channel.id).where(
                Channel.workspace_id == workspace_id, Channel.name == new.name
            )
            if await session.scalar(known):
                raise InvalidInput(
                    f"a channel {new.name} exists; remove it first: clickpost notify remove"
                    f" {new.name}"
                )
            channel_id = ids.new("chan")
            sealed = self.vault.seal(channel_id, new.secrets)
            row = Channel(
                id=channel_id,
                workspace_id=workspace_id,
                name=new.name,
                kind=new.kind,
                member_id=new.member_id,
                events=sorted(new.events),
                secrets=sealed.secrets,
                data_key=sealed.data_key,
                key_id=sealed.key_id,
                created_at=now(),
            )
            session.add(row)
            await session.flush()
            await append(session, "channel.added", channel_id, {"kind": new.kind}, actor)
        return row

    async def channels(self) -> list[Channel]:
        """Return the channels by name."""
        async with self.session() as session:
            query = select(Channel).where(_TELLS).order_by(Channel.name)
            return list((await session.scalars(query)).all())

    async def channel(self, name: str) -> Channel:
        """Return a channel; raise InvalidInput where there is none of that name."""
        async with self.session() as session:
            query = select(Channel).where(_TELLS, Channel.name == name)
            row: Channel | None = await session.scalar(query)
        if row is None:
            raise InvalidInput(f"no channel {name}; see: clickpost notify list")
        return row

    def channel_secrets(self, row: Channel) -> dict[str, str]:
        """Return the channel's address and keys, opened."""
        return self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))

    async def remove_channel(self, name: str, *, actor: str = "operator") -> int:
        """Remove a channel and what waits for it; return how many notices it no longer tells.

        Raises NotAllowed for who may not.
        """
        row = await self.channel(name)
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CONNECT)
            waiting = select(func.count()).where(
                Telling.channel_id == row.id, Telling.state == "waiting"
            )
            count = int(await session.scalar(waiting) or 0)
            await session.execute(delete(Telling).where(col(Telling.channel_id) == row.id))
            await session.execute(delete(Channel).where(col(Channel.id) == row.id))
            await append(session, "channel.removed", row.id, {"kind": row.kind}, actor)
        return count

    async def seal_channels_anew(self) -> int:
        """Seal every channel's and hook's secrets under the current master key; return how many."""
        async with self.session() as session:
            rows = (await session.scalars(select(Channel))).all()
        for known in rows:
            async with self.transaction() as session:
                row = await session.get_one(Channel, known.id, with_for_update=True)
                sealed = self.vault.seal(row.id, self.channel_secrets(row))
                row.secrets, row.data_key = sealed.secrets, sealed.data_key
                row.key_id = sealed.key_id
                await session.flush()
                await append(session, "channel.rekeyed", row.id, {"key_id": sealed.key_id})
        return len(rows)

    async def channels_due(self, moment: datetime) -> list[Channel]:
        """Return the channels for which something is due."""
        waits = select(Telling.channel_id).where(_is_due(moment))
        async with self.session() as session:
            query = select(Channel).where(col(Channel.id).in_(waits)).order_by(Channel.id)
            return list((await session.scalars(query)).all())

    async def claim_tellings(
        self, channel_id: str, limit: int, moment: datetime, lease: timedelta
    ) -> list[Due]:
        """Take up to `limit` due tellings of a channel, oldest first, and count the try.

        Nobody else takes them before the lease ends; a worker that dies with them leaves them to
        the next one.
        """
        due = (
            select(Telling.id)
            .where(Telling.channel_id == channel_id, _is_due(moment))
            .order_by(Telling.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        claim = (
            update(Telling)
            .where(col(Telling.id).in_(select(due.c.id)))
            .values(tries=Telling.tries + 1, not_before=moment + lease)
            .returning(col(Telling.id))
            .execution_options(synchronize_session=False)
        )
        unwanted = (
            update(Telling)
            .where(
                col(Telling.channel_id) == channel_id,
                col(Notice.id) == col(Telling.notice_id),
                col(Channel.id) == col(Telling.channel_id),
                _is_due(moment),
                ~wants(col(Notice.event)),
            )
            .values(state="unwanted", not_before=None)
            .execution_options(synchronize_session=False)
        )
        async with self.transaction() as session:
            await session.execute(unwanted)  # They may have said so since it was written.
            taken = (await session.scalars(claim)).all()
            query = (
                select(col(Telling.id), col(Telling.tries), Notice)
                .join(Notice, col(Notice.id) == col(Telling.notice_id))
                .where(col(Telling.id).in_(taken))
                .order_by(col(Telling.id))
            )
            rows = (await session.execute(query)).all()
        return [Due(row[0], row[1], said_of(row[2])) for row in rows]

    async def told(self, telling_ids: Sequence[str]) -> None:
        """Note that a channel took these."""
        await self._mark(telling_ids, state="told", told_at=now(), not_before=None, reason=None)

    async def not_told(self, due: Sequence[Due], reason: str, again_at: datetime) -> int:
        """Note why a channel did not take these; return how many are given up, a day old."""
        old = [one for one in due if again_at - one.said.at > GIVE_UP_AFTER]
        fresh = [one.telling_id for one in due if one not in old]
        await self._mark(fresh, reason=reason, not_before=again_at)
        given_up = [one.telling_id for one in old]
        await self._mark(given_up, state="given_up", reason=reason, not_before=None)
        return len(old)

    async def _mark(self, telling_ids: Sequence[str], **values: Any) -> None:
        if telling_ids:
            change = update(Telling).where(
                col(Telling.id).in_(telling_ids), col(Telling.state) == "waiting"
            )
            async with self.session() as session:
                await session.execute(change.values(**values))

    @asynccontextmanager
    async def unemitted(self, limit: int) -> AsyncIterator[list[Said]]:
        """Yield the notices that Prefect has not heard of; they count as heard at the end.

        Calls of hooks are left to `unemitted_calls`.

        Their rows stay locked meanwhile, so that two of us never emit the same one; what raises
        in between leaves them as they were.
        """
        query = (
            select(Notice)
            .where(col(Notice.emitted_at).is_(None), ~col(Notice.event).startswith("hook."))
            .order_by(col(Notice.created_at))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self.transaction() as session:
            rows = list((await session.scalars(query)).all())
            yield [said_of(row) for row in rows]
            for row in rows:
                row.emitted_at = now()

    async def outbox(self, moment: datetime) -> Outbox:
        """Say what waits to be emitted or told at `moment`."""
        unheard = exists().where(col(Notice.emitted_at).is_(None))
        call = col(Notice.event).startswith("hook.")
        told = exists().where(_is_due(moment))
        query = select(unheard.where(~call), unheard.where(call), told)
        async with self.session() as session:
            return Outbox(*(await session.execute(query)).one())

    async def untold(self, moment: datetime) -> list[Untold]:
        """Return what channels did not take: given up in the last week, or tried in vain."""
        recent = (col(Telling.state) == "given_up") & (
            col(Notice.created_at) > moment - timedelta(days=7)
        )
        in_vain = (col(Telling.state) == "waiting") & col(Telling.reason).is_not(None)
        late = (col(Telling.state) == "waiting") & (
            col(Notice.created_at) < moment - timedelta(minutes=5)
        )
        query = (
            select(Telling, Notice, col(Channel.name))
            .join(Notice, col(Notice.id) == col(Telling.notice_id))
            .join(Channel, col(Channel.id) == col(Telling.channel_id))
            .where(or_(recent, in_vain, late))
            .order_by(col(Notice.created_at))
            .limit(200)
        )
        async with self.session() as session:
            rows = (await session.execute(query)).all()
        return [
            Untold(
                telling.id, name, notice.event, notice.subject, telling.state, telling.tries,
                telling.reason, notice.created_at, telling.not_before,
            )
            for telling, notice, name in rows
        ]  # fmt: skip


def said_of(row: Notice) -> Said:
    """Return a notice as it is told."""
    return Said(row.id, row.event, row.subject, row.facts, row.created_at)


def _is_due(moment: datetime) -> Any:
    return (col(Telling.state) == "waiting") & or_(
        col(Telling.not_before).is_(None), col(Telling.not_before) <= moment
    )
