"""Posts: stored once with all their deliveries, the same client key is the same post."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.delivery import State
from clickpost.draft import Enclosed, PostFile
from clickpost.errors import Conflict, InvalidInput
from clickpost.people import Right, person_of
from clickpost.repeats import Guard, Said
from clickpost.store import slots
from clickpost.store._base import Base, append, now
from clickpost.store.connections import Connections
from clickpost.store.people import permit
from clickpost.store.tables import Connection, Delivery, Post, Series, Variant

#: What stands so is not said and will not be: the same may be said again.
_UNSAID = (State.CANCELLED, State.FAILED, State.MISSED, State.DRAFTED, State.REMOVED)


@dataclass(frozen=True)
class NewPost:
    """A post as it comes in.

    `next_slot`: each connection gets its own next free slot, whatever `due_at` says. `guards` are
    by connection id; `again` says that whoever publishes knows of the repetition. `by` brings it
    in, for the ledger; `author` is the person who wrote it where that is somebody else.
    """

    post: PostFile
    media: tuple[Enclosed, ...]
    connection_ids: tuple[str, ...]
    due_at: datetime | None = None
    draft: bool = False
    next_slot: bool = False
    series_id: str | None = None
    guards: Mapping[str, Guard] = field(default_factory=dict)
    again: bool = False
    by: str = "operator"
    author: str | None = None
    approval: str | None = None
    """The trigger that lets it out only after an approval."""

    @property
    def body(self) -> dict[str, Any]:
        """Return what is stored of its words and files."""
        return {
            "post": self.post.model_dump(mode="json"),
            "media": [item.model_dump(mode="json") for item in self.media],
        }

    @property
    def content_hash(self) -> str:
        """Return the digest of all that its author asked for."""
        canonical = json.dumps(self.body, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Created:
    """The stored post; `existing` where its client key was known.

    `repeats` is what says the same to the same accounts.
    """

    post_id: str
    existing: bool
    repeats: tuple[Said, ...] = ()


class Posts(Connections, Base):
    """Posts."""

    async def create_post(self, new: NewPost) -> Created:
        """Store the post, its variants and deliveries in one transaction.

        The same client key again is the same post. Raises InvalidInput where that post asks for
        something else, where an account has no free slot, or where its policy blocks saying the
        same again; Conflict where the post's series goes on no more; NotAllowed for who may not
        publish.
        """
        workspace, moment = await self.workspace_id(), now()
        values = {
            "id": ids.new("post"),
            "workspace_id": workspace,
            "client_key": new.post.key,
            "body": new.body,
            "content_hash": new.content_hash,
            "draft": new.draft,
            "due_at": new.due_at,
            "late": new.post.late,
            "series_id": new.series_id,
            "author": new.author or person_of(new.by),
            "approval": new.approval,
            "created_at": moment,
        }
        async with self.transaction() as session:
            await permit(session, self.rules, new.by, Right.PUBLISH)
            made = await session.scalar(
                insert(Post).values(values).on_conflict_do_nothing().returning(Post.id)  # type: ignore[call-overload]
            )
            if made is None:
                return await _existing(session, workspace, new)
            if new.series_id is not None:
                await _goes_on(session, new.series_id)
            due = await due_of(session, new)
            repeats = await repeated(session, new, due, made)
            await write_variants(session, made, new.post)
            if new.next_slot:
                change = update(Post).where(col(Post.id) == made)
                await session.execute(change.values(due_at=min(due.values())))  # type: ignore[type-var]
            session.add_all(new_delivery(made, one, new, due[one]) for one in new.connection_ids)
            await session.flush()
            facts = {"deliveries": len(new.connection_ids), "content": values["content_hash"]}
            await append(session, "post.created", made, facts, new.by)
        return Created(made, existing=False, repeats=repeats)

    async def post(self, post_id: str) -> Post:
        """Return one post; raise InvalidInput where there is none."""
        async with self.session() as session:
            found = await session.get(Post, post_id)
        if found is None:
            raise InvalidInput(f"no post {post_id}; see: clickpost posts list")
        return found

    async def posts(self, limit: int = 20, state: State | None = None) -> list[Post]:
        """Return the newest posts; or of those with a delivery that stands at `state`."""
        async with self.session() as session:
            query = select(Post).order_by(col(Post.created_at).desc()).limit(limit)
            if state is not None:
                some = select(Delivery.post_id).where(Delivery.state == state)
                query = query.where(col(Post.id).in_(some))
            return list((await session.scalars(query)).all())

    async def set_flow_run(
        self, post_id: str, flow_run_id: str, due_at: datetime | None = None
    ) -> None:
        """Remember which run works on the post; on those deliveries only that are due at `due_at`.

        Without it, the run takes all that is not due later.
        """
        theirs = (
            col(Delivery.due_at) == due_at
            if due_at is not None
            else or_(col(Delivery.due_at).is_(None), col(Delivery.due_at) <= now())
        )
        post = update(Post).where(col(Post.id) == post_id).values(flow_run_id=flow_run_id)
        change = update(Delivery).where(col(Delivery.post_id) == post_id, theirs)
        async with self.session() as session:
            await session.execute(
                change.values(flow_run_id=flow_run_id)
                .add_cte(post.cte("post_too"))
                .execution_options(synchronize_session=False)
            )

    async def set_progress(self, post_id: str, share: float | None) -> None:
        """Note how far the post's renditions have come, 0 to 1; None when that is over."""
        async with self.session() as session:
            change = update(Post).where(col(Post.id) == post_id)
            await session.execute(change.values(progress=share))


async def _existing(session: Any, workspace: str, new: NewPost) -> Created:
    """Return the post that has the client key already; it has to be the same one."""
    query = select(Post).where(Post.workspace_id == workspace, Post.client_key == new.post.key)
    known: Post = (await session.scalars(query)).one()
    if PostFile.model_validate(known.body["post"]) != new.post or _files(known.body) != new.media:
        raise InvalidInput(
            f"key {new.post.key}: it is that of {known.id}, which says something else. Use another"
            f" key for another post, or change that one: clickpost posts edit {known.id} FILE"
        )
    return Created(known.id, existing=True)


def _files(body: Mapping[str, Any]) -> tuple[Enclosed, ...]:
    return tuple(Enclosed.model_validate(item) for item in body["media"])


async def _goes_on(session: Any, series_id: str) -> None:
    """Hold the series as it is until the post is stored; raise Conflict where it is over."""
    query = select(Series.status).where(Series.id == series_id).with_for_update(read=True)
    status = await session.scalar(query)
    if status != "active":
        raise Conflict(f"{series_id} is {status}")


async def due_of(session: Any, new: NewPost) -> dict[str, datetime | None]:
    """Return by connection when the post is due there, taking slots where it wants them."""
    if not new.next_slot:
        return dict.fromkeys(new.connection_ids, new.due_at)
    return dict(await slots.taken(session, new.connection_ids))


async def repeated(
    session: Any, new: NewPost, due: Mapping[str, datetime | None], post_id: str
) -> tuple[Said, ...]:
    """Return what else says the same to the same accounts; raise InvalidInput where that is barred.

    Posts of one series may: saying it again is what they are for.
    """
    if new.again or new.draft or new.series_id is not None:
        return ()
    blocking = [one for one, guard in new.guards.items() if guard.blocks]
    await slots.locked(session, blocking)  # Of two at once, the second sees the first.
    found = [
        said
        for one, guard in new.guards.items()
        for said in await _said(session, one, guard, due[one] or now(), post_id)
    ]
    if barred := [said for said in found if said.blocks]:
        raise InvalidInput(
            f"{'; '.join(map(str, barred))}, and the platform's policy blocks saying it again."
            " Publish it nevertheless with --again"
        )
    return tuple(found)


async def _said(
    session: Any, connection_id: str, guard: Guard, at: datetime, post_id: str
) -> list[Said]:
    when = func.coalesce(Delivery.live_at, Delivery.due_at, Delivery.created_at)
    query = (
        select(Delivery, Connection, when)
        .join(Connection, col(Connection.id) == col(Delivery.connection_id))
        .where(
            Delivery.connection_id == connection_id,
            Delivery.fingerprint == guard.fingerprint,
            col(Delivery.state).not_in(_UNSAID),
            Delivery.post_id != post_id,
            when > at - guard.window,
            when < at + guard.window,
        )
        .order_by(when)
    )
    rows = (await session.execute(query)).all()
    return [Said(row[1].ref, row[0].post_id, row[2], guard.blocks) for row in rows]


async def write_variants(session: Any, post_id: str, post: PostFile) -> None:
    """Store what the post says otherwise for one platform or one account."""
    session.add_all(
        Variant(id=ids.new("var"), post_id=post_id, target=name, body=variant.model_dump())
        for name, variant in post.variants.items()
    )


def new_delivery(
    post_id: str, connection_id: str, new: NewPost, due_at: datetime | None
) -> Delivery:
    """Return a delivery at its beginning."""
    moment = now()
    guard = new.guards.get(connection_id)
    return Delivery(
        id=ids.new("dlv"),
        post_id=post_id,
        connection_id=connection_id,
        state=State.DRAFTED if new.draft else State.PLANNED,
        key=ids.new("key"),
        fingerprint=guard.fingerprint if guard else None,
        due_at=due_at,
        created_at=moment,
        updated_at=moment,
    )
