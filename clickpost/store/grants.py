"""Ends grants that their owners took back: with the grant its tokens go, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import col, select

from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.tables import Connection, Member

#: Platforms say whole seconds: what was granted within the one that they name was before it.
_GRAIN = timedelta(seconds=1)


class Grants(Base):
    """What owners of connected accounts granted us."""

    async def of_user(
        self, platform: str, user_id: str, before: datetime | None
    ) -> list[Connection]:
        """Return what a platform's user granted, revoked or not, and not anew since `before`.

        The id is the one under which the platform's callbacks know them, or the account's own.
        """
        query = select(Connection).where(
            Connection.platform == platform,
            (col(Connection.app_user_id) == user_id) | (col(Connection.remote_id) == user_id),
        )
        async with self.session() as session:
            rows = (await session.scalars(query.order_by(Connection.id))).all()
        return [row for row in rows if not _is_anew(row, before)]

    async def end(self, connection_id: str, reason: str, before: datetime | None = None) -> bool:
        """Revoke a connection and erase its tokens; False where that is done, or it is gone.

        The clock of its origin's retention starts with this. What was granted anew since `before`
        stays: the row is looked at again under its lock.
        """
        async with self.transaction() as session:
            row = await session.get(Connection, connection_id, with_for_update=True)
            if row is None or (row.status == "revoked" and not row.data_key):
                return False
            if _is_anew(row, before):
                return False
            changes = row.status != "revoked"
            row.status, row.status_reason, row.updated_at = "revoked", reason, now()
            row.secrets, row.data_key, row.expires_at = b"", b"", None
            await session.flush()
            if changes:
                await notices.about_connection(session, row)
            await append(session, "connection.revoked", row.id, {"tokens": "erased"})
        return True

    async def sole_members(self, connection_ids: Sequence[str]) -> list[Member]:
        """Return whoever is the only member of a workspace that has one of these connections."""
        theirs = select(Connection.workspace_id).where(col(Connection.id).in_(connection_ids))
        query = select(Member).where(
            col(Member.workspace_id).in_(theirs), col(Member.left_at).is_(None)
        )
        async with self.session() as session:
            found = (await session.scalars(query.order_by(Member.id))).all()
        homes = [one.workspace_id for one in found]
        return [one for one in found if homes.count(one.workspace_id) == 1]


def _is_anew(row: Connection, before: datetime | None) -> bool:
    """Say whether its owner granted it again since `before`."""
    if before is None or row.connected_at is None:
        return False
    return row.connected_at > before + _GRAIN
