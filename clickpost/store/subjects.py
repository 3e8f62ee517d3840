"""Keyed digests of addresses, under a key of its own that outlives the master key's rotation."""

from __future__ import annotations

import base64
import secrets

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import subjects
from clickpost.errors import Unavailable
from clickpost.store._base import Base, append, now
from clickpost.store.tables import Member, SubjectKey
from clickpost.store.vault import Sealed

_SEALED_AS = "subject-key"


class Subjects(Base):
    """Finds people by digest."""

    _subject_key: bytes | None = None

    async def address_digest(self, address: str) -> str:
        """Return the keyed digest of an address: what `email_digest` columns hold."""
        return subjects.digest(await self.subject_key(), address)

    async def subject_key(self) -> bytes:
        """Return the key of all digests of addresses, made on first use."""
        if self._subject_key is None:
            row = await self._key_row() or await self._made()
            self._subject_key = self._opened(row)
        return self._subject_key

    async def _key_row(self) -> SubjectKey | None:
        async with self.session() as session:
            found: SubjectKey | None = await session.get(SubjectKey, True)
        return found

    async def _made(self) -> SubjectKey:
        fresh = base64.b64encode(secrets.token_bytes(32)).decode()
        sealed = self.vault.seal(_SEALED_AS, {"key": fresh})
        made = (
            insert(SubjectKey)
            .values(
                one=True,
                secrets=sealed.secrets,
                data_key=sealed.data_key,
                key_id=sealed.key_id,
                created_at=now(),
            )
            .on_conflict_do_nothing()
        )
        async with self.session() as session:
            await session.execute(made)
        row = await self._key_row()
        if row is None:
            raise Unavailable("the key of digests could not be kept; try again")
        return row

    def _opened(self, row: SubjectKey) -> bytes:
        sealed = Sealed(row.secrets, row.data_key, row.key_id)
        return base64.b64decode(self.vault.open(_SEALED_AS, sealed)["key"])

    async def seal_subject_key_anew(self) -> int:
        """Seal the key of digests under the current master key; the digests stay as they are."""
        async with self.transaction() as session:
            row = await session.get(SubjectKey, True, with_for_update=True)
            if row is None:
                return 0
            key = base64.b64encode(self._opened(row)).decode()
            sealed = self.vault.seal(_SEALED_AS, {"key": key})
            row.secrets, row.data_key = sealed.secrets, sealed.data_key
            row.key_id = sealed.key_id
            await session.flush()
            await append(session, "subject_key.rekeyed", _SEALED_AS, {"key_id": sealed.key_id})
        return 1

    async def members_at(self, address: str) -> list[Member]:
        """Return the memberships that stand under an address, oldest first."""
        digest = await self.address_digest(address)
        query = (
            select(Member)
            .where(
                (col(Member.email_digest) == digest)
                | (col(Member.email) == address.strip())
                | (col(Member.email) == subjects.spelled(address))
            )
            .order_by(col(Member.created_at))
        )
        async with self.session() as session:
            return list((await session.scalars(query)).all())
