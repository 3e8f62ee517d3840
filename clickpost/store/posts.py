"""Posts: stored once with all their deliveries, the same client key is the same post."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.delivery import State
from clickpost.draft import Enclosed, PostFile
from clickpost.errors import InvalidInput
from clickpost.store._base import Base, append, now
from clickpost.store.connections import Connections
from clickpost.store.tables import Delivery, Post, Variant


@dataclass(frozen=True)
class NewPost:
    """A post as it comes in."""

    post: PostFile
    media: tuple[Enclosed, ...]
    connection_ids: tuple[str, ...]
    due_at: datetime | None = None
    draft: bool = False


@dataclass(frozen=True)
class Created:
    """The stored post; `existing` where its client key was known."""

    post_id: str
    existing: bool


class Posts(Connections, Base):
    """Posts."""

    async def create_post(self, new: NewPost) -> Created:
        """Store the post, its variants and deliveries in one transaction."""
        workspace, moment = await self.workspace_id(), now()
        body = {
            "post": new.post.model_dump(mode="json"),
            "media": [item.model_dump(mode="json") for item in new.media],
        }
        canonical = json.dumps(body, sort_keys=True, ensure_ascii=False)
        values = {
            "id": ids.new("post"),
            "workspace_id": workspace,
            "client_key": new.post.key,
            "body": body,
            "content_hash": hashlib.sha256(canonical.encode()).hexdigest(),
            "draft": new.draft,
            "due_at": new.due_at,
            "late": new.post.late,
            "created_at": moment,
        }
        async with self.transaction() as session:
            made = await session.scalar(
                insert(Post).values(values).on_conflict_do_nothing().returning(Post.id)  # type: ignore[call-overload]
            )
            if made is None:
                known = select(Post.id).where(
                    Post.workspace_id == workspace, Post.client_key == new.post.key
                )
                return Created(str((await session.scalars(known)).one()), existing=True)
            session.add_all(
                Variant(id=ids.new("var"), post_id=made, target=name, body=variant.model_dump())
                for name, variant in new.post.variants.items()
            )
            session.add_all(_delivery(made, one, new, moment) for one in new.connection_ids)
            await session.flush()
            facts = {"deliveries": len(new.connection_ids), "content": values["content_hash"]}
            await append(session, "post.created", made, facts)
        return Created(made, existing=False)

    async def post(self, post_id: str) -> Post:
        """Return one post; raise InvalidInput where there is none."""
        async with self.session() as session:
            found = await session.get(Post, post_id)
        if found is None:
            raise InvalidInput(f"no post {post_id}; see: clickpost posts list")
        return found

    async def posts(self, limit: int = 20) -> list[Post]:
        """Return the newest posts."""
        async with self.session() as session:
            query = select(Post).order_by(col(Post.created_at).desc()).limit(limit)
            return list((await session.scalars(query)).all())

    async def set_flow_run(self, post_id: str, flow_run_id: str) -> None:
        """Remember which run works on the post."""
        async with self.session() as session:
            change = update(Post).where(col(Post.id) == post_id)
            await session.execute(change.values(flow_run_id=flow_run_id))

    async def set_progress(self, post_id: str, share: float | None) -> None:
        """Note how far the post's renditions have come, 0 to 1; None when that is over."""
        async with self.session() as session:
            change = update(Post).where(col(Post.id) == post_id)
            await session.execute(change.values(progress=share))


def _delivery(post_id: str, connection_id: str, new: NewPost, moment: datetime) -> Delivery:
    return Delivery(
        id=ids.new("dlv"),
        post_id=post_id,
        connection_id=connection_id,
        state=State.DRAFTED if new.draft else State.PLANNED,
        key=ids.new("key"),
        due_at=new.due_at,
        created_at=moment,
        updated_at=moment,
    )
