"""Series: what each post of one is made from, how far they are made, and whether it goes on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.delivery import State
from clickpost.draft import Enclosed, PostFile
from clickpost.errors import Conflict, InvalidInput
from clickpost.people import ENGINE, Right, person_of
from clickpost.recurrence import Occurrence, Recurrence, zone_of
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.connections import Connections
from clickpost.store.people import permit
from clickpost.store.posts import NewPost
from clickpost.store.tables import Delivery, Post, Series

PAUSED = "its series is paused"
ENDED = "its series was cancelled"
_WAITING = (State.PLANNED, State.PREPARING, State.READY, State.AWAITING_APPROVAL)


@dataclass(frozen=True)
class Begun:
    """The stored series; `existing` where its client key was known."""

    series_id: str
    existing: bool


class Repeating(Connections, Base):
    """Series."""

    async def create_series(self, new: NewPost, rule: Recurrence, first: Occurrence) -> Begun:
        """Store a series; its posts are made from it later, the first at `first`.

        The same client key again is the same series. Raises InvalidInput where that series says
        something else, NotAllowed for who may not publish.
        """
        workspace, moment = await self.workspace_id(), now()
        values = {
            "id": _id_of(workspace, new.post.key),
            "workspace_id": workspace,
            "body": new.body,
            "connection_ids": list(new.connection_ids),
            "rrule": rule.rule,
            "zone": rule.zone.key,
            "starts_at": rule.starts_at,
            "cap": rule.cap,
            "made": 0,
            "next_at": first.at,
            "status": "active",
            "author": person_of(new.by),
            "created_at": moment,
            "updated_at": moment,
        }
        async with self.transaction() as session:
            await permit(session, self.rules, new.by, Right.PUBLISH)
            made = await session.scalar(
                insert(Series).values(values).on_conflict_do_nothing().returning(Series.id)  # type: ignore[call-overload]
            )
            if made is None:
                known = await session.get_one(Series, values["id"])
                if PostFile.model_validate(known.body["post"]) != new.post:
                    raise InvalidInput(
                        f"key {new.post.key}: it is that of {known.id}, which says something else"
                    )
                return Begun(known.id, existing=True)
            facts = {"content": new.content_hash, "targets": len(new.connection_ids)}
            await append(session, "series.created", made, facts, new.by)
        return Begun(made, existing=False)

    async def series(self, series_id: str) -> Series:
        """Return one series; raise InvalidInput where there is none."""
        async with self.session() as session:
            found = await session.get(Series, series_id)
        if found is None:
            raise InvalidInput(f"no series {series_id}; see: clickpost series list")
        return found

    async def all_series(self, *, active: bool = False) -> list[Series]:
        """Return every series, or the active ones of which more is to be made, newest first."""
        query = select(Series).order_by(col(Series.created_at).desc())
        if active:
            query = query.where(Series.status == "active", col(Series.next_at).is_not(None))
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def posts_of_series(self, series_id: str, after: datetime) -> list[Post]:
        """Return the posts that were made of a series and are due after `after`, in order."""
        query = select(Post).where(Post.series_id == series_id, col(Post.due_at) > after)
        async with self.session() as session:
            return list((await session.scalars(query.order_by(col(Post.due_at)))).all())

    async def advance(
        self, seen: Series, following: Occurrence | None, *, made: int, skipped: int = 0
    ) -> Series:
        """Note that the occurrence at `next_at` is made, or `skipped` are left out as too late.

        `following` is the next one, None where the series is over. Raises Conflict where somebody
        else noted it, or where it does not go on.
        """
        over = following is None or (seen.cap is not None and seen.made + made >= seen.cap)
        async with self.transaction() as session:
            row: Series | None = await session.scalar(
                update(Series)
                .where(
                    col(Series.id) == seen.id,
                    col(Series.next_at) == seen.next_at,
                    col(Series.status) == "active",
                )
                .values(
                    next_at=None if over or following is None else following.at,
                    status="ended" if over else "active",
                    made=Series.made + made,
                    updated_at=now(),
                )
                .returning(Series)
                .execution_options(synchronize_session=False)
            )
            if row is None:
                raise Conflict(f"{seen.id} went on without us, or goes on no more")
            facts = {"made": row.made, "skipped": skipped, "to": row.status}
            await append(session, "series.advanced", seen.id, facts)
        return row

    async def pause_series(self, series_id: str, *, actor: str) -> int:
        """Make no more of it, and hold what is made and not sent; return how many deliveries."""
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CANCEL)
            await _turned(session, series_id, ("active",), "paused")
            rows = await _moved(
                session,
                series_id,
                col(Delivery.state).in_(_WAITING),
                state=State.HELD,
                reason=PAUSED,
                who_acts="an operator",
                lease_owner=None,
                lease_until=None,
            )
            await append(session, "series.paused", series_id, {"held": rows}, actor)
        return rows

    async def resume_series(
        self, series_id: str, following: Occurrence | None, *, actor: str
    ) -> int:
        """Go on with it: what was held and is not late is planned again, what is late is missed."""
        moment = now()
        held = (col(Delivery.state) == State.HELD, col(Delivery.reason) == PAUSED)
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.PUBLISH)
            await _turned(
                session, series_id, ("paused",), "active", next_at=following and following.at
            )
            await _moved(
                session,
                series_id,
                *held,
                col(Delivery.due_at) <= moment,
                state=State.MISSED,
                reason="its time passed while its series was paused",
                who_acts="an operator",
            )
            rows = await _moved(
                session, series_id, *held, state=State.PLANNED, reason=None, who_acts=None
            )
            await append(session, "series.resumed", series_id, {"released": rows}, actor)
        return rows

    async def cancel_series(self, series_id: str, *, actor: str) -> int:
        """End it for good, and cancel what is made and not sent; return how many deliveries."""
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CANCEL)
            await _turned(
                session, series_id, ("active", "paused", "ended"), "cancelled", next_at=None
            )
            rows = await _moved(
                session,
                series_id,
                col(Delivery.state).in_((*_WAITING, State.HELD)),
                state=State.CANCELLED,
                reason=ENDED,
                who_acts=None,
                lease_owner=None,
                lease_until=None,
            )
            await append(session, "series.cancelled", series_id, {"cancelled": rows}, actor)
        return rows


def rule_of(row: Series) -> Recurrence:
    """Return the rule of a stored series."""
    zone = zone_of(row.zone)
    start = row.starts_at.astimezone(zone).replace(tzinfo=None, fold=0)
    return Recurrence(row.rrule, zone, start, row.cap)


def post_of(row: Series, occurrence: Occurrence) -> NewPost:
    """Return the post of one occurrence: its client key makes it one, whoever makes it."""
    file = PostFile.model_validate(row.body["post"])
    said = {
        "repeat": None,
        "at": occurrence.at,
        "zone": None,
        "key": f"series:{row.id}:{occurrence.label}",
    }
    return NewPost(
        post=file.model_copy(update=said),
        media=tuple(Enclosed.model_validate(item) for item in row.body["media"]),
        connection_ids=tuple(row.connection_ids),
        due_at=occurrence.at,
        series_id=row.id,
        by=ENGINE,
        author=row.author,
    )


def _id_of(workspace: str, key: str | None) -> str:
    """Return a new id; with a client key always the same, so that the key is one series."""
    if key is None:
        return ids.new("series")
    return f"series_{hashlib.sha256(f'{workspace}:{key}'.encode()).hexdigest()[:16]}"


async def _turned(
    session: Any, series_id: str, before: tuple[str, ...], after: str, **more: Any
) -> None:
    change = (
        update(Series)
        .where(col(Series.id) == series_id, col(Series.status).in_(before))
        .values(status=after, updated_at=now(), **more)
        .returning(col(Series.id))
    )
    if await session.scalar(change) is None:
        row = await session.get(Series, series_id)
        status = f"is {row.status}" if row else "does not exist"
        raise InvalidInput(f"{series_id} {status}; see: clickpost series list")


async def _moved(session: Any, series_id: str, *conditions: Any, **values: Any) -> int:
    """Change the deliveries of a series that `conditions` name; return how many there were.

    What was missed is told; what is held was held by whoever paused the series, who knows.
    """
    ours = select(Post.id).where(Post.series_id == series_id)
    change = (
        update(Delivery)
        .where(col(Delivery.post_id).in_(ours), *conditions)
        .values(updated_at=now(), **values)
        .returning(Delivery)
        .execution_options(synchronize_session=False)
    )
    rows = (await session.scalars(change)).all()
    for row in rows:
        if row.state is State.MISSED:
            await notices.about_delivery(session, row)
    return len(rows)
