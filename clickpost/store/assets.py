"""Files that came in, and what platforms get of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import select

from clickpost import ids
from clickpost.store._base import Base, now
from clickpost.store.connections import Connections
from clickpost.store.tables import Asset, Rendition


@dataclass(frozen=True)
class FileFacts:
    """What is kept about a file: `bytes` its size, `duration` in seconds, `stored_at` its path."""

    sha256: str
    kind: str
    mime: str
    bytes: int
    width: int
    height: int
    duration: float | None
    stored_at: str


class Assets(Connections, Base):
    """Assets and renditions."""

    async def add_asset(self, facts: FileFacts) -> Asset:
        """Store an asset; the same content is the same asset."""
        values = {**vars(facts), "id": ids.new("asset"), "created_at": now()}
        values["workspace_id"] = await self.workspace_id()
        async with self.transaction() as session:
            await session.execute(insert(Asset).values(values).on_conflict_do_nothing())
            query = select(Asset).where(
                Asset.sha256 == facts.sha256, Asset.workspace_id == values["workspace_id"]
            )
            made: Asset = (await session.scalars(query)).one()
        return made

    async def asset(self, asset_id: str) -> Asset:
        """Return one asset."""
        async with self.session() as session:
            return await session.get_one(Asset, asset_id)

    async def add_rendition(
        self, asset_id: str, profile_hash: str, label: str, facts: FileFacts
    ) -> Rendition:
        """Store a rendition; the same profile of the same asset is the same rendition."""
        values: Mapping[str, object] = {
            **vars(facts),
            "id": ids.new("rend"),
            "asset_id": asset_id,
            "profile_hash": profile_hash,
            "label": label,
            "created_at": now(),
        }
        change = insert(Rendition).values(values)
        fresh = {"stored_at": facts.stored_at, "sha256": facts.sha256, "bytes": facts.bytes}
        async with self.transaction() as session:
            await session.execute(
                change.on_conflict_do_update(
                    index_elements=["asset_id", "profile_hash"], set_=fresh
                )
            )
            query = select(Rendition).where(
                Rendition.asset_id == asset_id, Rendition.profile_hash == profile_hash
            )
            made: Rendition = (await session.scalars(query)).one()
        return made

    async def rendition(self, rendition_id: str) -> Rendition | None:
        """Return one rendition, None where there is none."""
        async with self.session() as session:
            return await session.get(Rendition, rendition_id)
