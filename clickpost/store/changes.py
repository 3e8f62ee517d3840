"""Changes of what is not sent yet: another time, another content; the old one ends with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, literal, or_, update
from sqlmodel import col, select

from clickpost import ids
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import InvalidInput
from clickpost.people import Right, person_of
from clickpost.repeats import Guard, Said
from clickpost.store import slots
from clickpost.store._base import Base, append, now
from clickpost.store.approvals import gate
from clickpost.store.people import permit
from clickpost.store.posts import NewPost, Posts, new_delivery, repeated, write_variants
from clickpost.store.series import PAUSED
from clickpost.store.tables import Connection, Delivery, Post, Variant

S = State

#: What has another time by a changed moment alone.
_TIMED = (S.PLANNED, S.PREPARING, S.READY, S.AWAITING_APPROVAL)
#: What a new time sets going again.
_WOKEN = (S.MISSED, S.DRAFTED)
#: What can have another content: nothing of it has left.
_UNSENT = (*_TIMED, *_WOKEN, S.HELD, S.FAILED)


class Changes(Posts, Base):
    """Changes of posts that are not sent yet."""

    async def reschedule(self, post_id: str, at: datetime | None, *, actor: str) -> list[str]:
        """Give the post another time, or each account's next free slot where `at` is None.

        Touches what is not sent: what had become late, or was a draft, is planned again, and what
        had an approval needs one for the new time. Return the deliveries. Raises InvalidInput
        where nothing is left to send, NotAllowed for who may not publish.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.PUBLISH)
            rows = await _waiting(session, post_id)
            if not rows:
                raise InvalidInput(
                    f"{post_id}: nothing of it waits for its time;"
                    f" see: clickpost posts show {post_id}"
                )
            due = await _due(session, rows, at)
            chosen = [row.id for row in rows]
            for row in rows:
                await _put_off(session, row.id, due[row.connection_id])
            change = update(Post).where(col(Post.id) == post_id)
            await session.execute(
                change.values(due_at=min(due.values()), draft=False, flow_run_id=None)
            )
            await gate(session, chosen)
            for row in rows:
                facts = {"due_at": due[row.connection_id].isoformat()}
                await append(session, "delivery.rescheduled", row.id, facts, actor)
        return chosen

    async def due_between(
        self, start: datetime, end: datetime
    ) -> list[tuple[Delivery, Connection]]:
        """Return what is due in that time and nobody works on, with its connection."""
        free = or_(col(Delivery.lease_until).is_(None), col(Delivery.lease_until) < start)
        query = (
            select(Delivery, Connection)
            .join(Connection, col(Connection.id) == col(Delivery.connection_id))
            .where(
                col(Delivery.state).in_((S.PLANNED, S.PREPARING, S.READY)),
                col(Delivery.due_at).between(start, end),
                free,
                Connection.status == "active",
            )
        )
        async with self.session() as session:
            rows = (await session.execute(query)).all()
        return [(row[0], row[1]) for row in rows]

    async def waiting_at(self, moments: Sequence[datetime]) -> dict[datetime, set[str]]:
        """Return which posts may still go out at each moment; moments without any are left out."""
        query = select(col(Delivery.due_at), col(Delivery.post_id)).where(
            col(Delivery.due_at).in_(moments), col(Delivery.state).in_((*_TIMED, S.HELD))
        )
        found: dict[datetime, set[str]] = defaultdict(set)
        async with self.session() as session:
            for due_at, post_id in (await session.execute(query)).all():
                found[due_at].add(post_id)
        return dict(found)

    async def edit_post(self, post_id: str, new: NewPost, *, actor: str) -> tuple[Said, ...]:
        """Give a post that is not sent another content, other targets and, if `new` says one, time.

        What was prepared and approved of it is void. Return what else says the same by now.
        Raises InvalidInput where any of it has left, or may have, and where a policy blocks
        saying the same again; NotAllowed for who may not publish.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.PUBLISH)
            rows = await _locked(session, post_id)
            _nothing_left(post_id, rows)
            await _rewritten(session, post_id, new)
            kept = [row for row in rows if row.connection_id in new.connection_ids]
            due = await _edited_due(session, rows, new)
            repeats = await repeated(session, await _known_as(session, post_id, new), due, post_id)
            for row in kept:
                await _void(session, row, new, due[row.connection_id])
            for row in rows:
                if row not in kept and row.state is not S.CANCELLED:
                    await _dropped(session, row)
            known = {row.connection_id for row in rows}
            added = [one for one in new.connection_ids if one not in known]
            session.add_all(new_delivery(post_id, one, new, due[one]) for one in added)
            moments = [one for one in due.values() if one is not None]
            change = update(Post).where(col(Post.id) == post_id)
            written = {"author": person_of(actor), "flow_run_id": None}
            await session.execute(change.values(due_at=min(moments, default=None), **written))
            await session.flush()
            facts = {"content": new.content_hash, "deliveries": len(new.connection_ids)}
            await append(session, "post.edited", post_id, facts, actor)
        return repeats

    async def repeats_of(
        self, post_id: str, guards: Mapping[str, Guard], *, again: bool
    ) -> tuple[Said, ...]:
        """Return what says the same as a draft that is to go out now; raises as `edit_post`."""
        known = await self.post(post_id)
        new = NewPost(
            PostFile.model_validate(known.body["post"]),
            (),
            tuple(guards),
            guards=guards,
            again=again,
        )
        async with self.transaction() as session:
            return await repeated(session, new, dict.fromkeys(guards), post_id)


async def _locked(session: Any, post_id: str) -> list[Delivery]:
    query = select(Delivery).where(Delivery.post_id == post_id).order_by(Delivery.id)
    query = query.with_for_update().execution_options(populate_existing=True)
    return list((await session.scalars(query)).all())


async def _waiting(session: Any, post_id: str) -> list[Delivery]:
    """Return, locked, what a new time is for: no part of it has been sent."""
    return [
        row
        for row in await _locked(session, post_id)
        if not row.receipts and (row.state in (*_TIMED, *_WOKEN) or _is_late(row))
    ]


def _is_late(row: Delivery) -> bool:
    """Say whether a person was to say what becomes of it, because it had become late."""
    return row.state is S.HELD and row.who_acts == "an operator"


async def _due(session: Any, rows: Sequence[Delivery], at: datetime | None) -> dict[str, datetime]:
    connections = [row.connection_id for row in rows]
    if at is not None:
        return dict.fromkeys(connections, at)
    return await slots.taken(session, connections, besides=[row.id for row in rows])


async def _put_off(session: Any, delivery_id: str, due_at: datetime) -> None:
    kind = Delivery.__table__.c.state.type  # type: ignore[attr-defined]
    stays = col(Delivery.state).in_(_TIMED)
    await session.execute(
        update(Delivery)
        .where(col(Delivery.id) == delivery_id)
        .values(
            state=case((stays, col(Delivery.state)), else_=literal(S.PLANNED, kind)),
            reason=case((stays, col(Delivery.reason)), else_=None),
            who_acts=case((stays, col(Delivery.who_acts)), else_=None),
            due_at=due_at,
            flow_run_id=None,
            asked_at=None,
            updated_at=now(),
        )
    )


def _nothing_left(post_id: str, rows: Sequence[Delivery]) -> None:
    gone = [row for row in rows if row.receipts or row.state not in (*_UNSENT, S.CANCELLED)]
    if gone or not any(row.state in _UNSENT for row in rows):
        states = ", ".join(sorted({row.state.value for row in gone or rows}))
        raise InvalidInput(
            f"{post_id}: is {states} already, and only what is not sent can be edited."
            " Publish another post instead"
        )


async def _known_as(session: Any, post_id: str, new: NewPost) -> NewPost:
    """Return the new content as that of a draft, or of a series, where the post is one."""
    post = await session.get_one(Post, post_id)
    return replace(new, draft=post.draft, series_id=post.series_id)


async def _rewritten(session: Any, post_id: str, new: NewPost) -> None:
    values = {"body": new.body, "content_hash": new.content_hash, "late": new.post.late}
    await session.execute(update(Post).where(col(Post.id) == post_id).values(**values))
    await session.execute(delete(Variant).where(col(Variant.post_id) == post_id))
    await write_variants(session, post_id, new.post)


async def _edited_due(
    session: Any, rows: Sequence[Delivery], new: NewPost
) -> dict[str, datetime | None]:
    """Return by connection when it is due: as the file says, else as before."""
    if new.next_slot:
        ours = [row.id for row in rows]
        return dict(await slots.taken(session, new.connection_ids, besides=ours))
    if new.due_at is not None:
        return dict.fromkeys(new.connection_ids, new.due_at)
    known = {row.connection_id: row.due_at for row in rows}
    first = min((one for one in known.values() if one is not None), default=None)
    return {one: known.get(one, first) for one in new.connection_ids}


async def _void(session: Any, row: Delivery, new: NewPost, due_at: datetime | None) -> None:
    """Begin anew with what stays a target; with its key, for a platform may know the old one."""
    if row.state is S.CANCELLED:
        return
    guard = new.guards.get(row.connection_id)
    paused = row.state is S.HELD and row.reason == PAUSED  # Resuming its series lets it go on.
    stays = row.state is S.DRAFTED or paused
    await session.execute(
        update(Delivery)
        .where(col(Delivery.id) == row.id)
        .values(
            state=row.state if stays else S.PLANNED,
            key=ids.new("key"),
            fingerprint=guard.fingerprint if guard else None,
            content_hash=None,
            policy_hash=None,
            message=None,
            notes=None,
            prepared=None,
            prepared_at=None,
            reason=row.reason if paused else None,
            who_acts=row.who_acts if paused else None,
            attempts=0,
            due_at=due_at,
            not_before=None,
            flow_run_id=None,
            lease_owner=None,
            lease_until=None,
            asked_at=None,
            updated_at=now(),
        )
    )


async def _dropped(session: Any, row: Delivery) -> None:
    await session.execute(
        update(Delivery)
        .where(col(Delivery.id) == row.id)
        .values(
            state=S.CANCELLED,
            reason="no target of the post any more",
            who_acts=None,
            lease_owner=None,
            lease_until=None,
            updated_at=now(),
        )
    )
