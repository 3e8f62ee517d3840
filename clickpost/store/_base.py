"""What all parts of the store share: the engine, the vault, a transaction, a ledger line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.sql.expression import bindparam

from clickpost.people import Rules
from clickpost.policy import roles
from clickpost.settings import PROJECT
from clickpost.store.database import engine_of
from clickpost.store.vault import Vault

_APPEND = text("SELECT ledger_append(:actor, :action, :subject, :facts)").bindparams(
    bindparam("facts", type_=JSONB)
)

_APPEND_ALL = text(
    "SELECT ledger_append(:actor, one.action, one.subject, one.facts)"
    " FROM jsonb_to_recordset(:lines) AS one (action text, subject text, facts jsonb)"
).bindparams(bindparam("lines", type_=JSONB))

_TRY = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) AS name"
    " WHERE pg_try_advisory_lock(hashtextextended(name, 0))"
)
_GIVE_BACK = text(
    "SELECT pg_advisory_unlock(hashtextextended(name, 0))"
    " FROM unnest(CAST(:names AS text[])) AS name"
)
_OURS = "clickpost:"


class Base:
    """An open store."""

    #: Where the policy is that says what each role may do.
    policies = PROJECT / "policies"

    def __init__(self, engine: AsyncEngine, vault: Vault) -> None:
        self.engine = engine
        self.vault = vault
        alone = engine.execution_options(isolation_level="AUTOCOMMIT")
        #: For reading and for single statements, each committed by itself.
        self.session = async_sessionmaker(alone, expire_on_commit=False)
        self._together = async_sessionmaker(engine, expire_on_commit=False)

    @property
    def rules(self) -> Rules:
        """Return what each role may do; raise BrokenPolicies where the file is wrong."""
        return roles.load(self.policies)

    @classmethod
    async def open(cls, url: str, vault: Vault, *, size: int = 10, patience: float = 0.0) -> Self:
        """Open the store at `url`; raise InvalidInput for an address that is none.

        A database that is away is waited for, `patience` seconds.
        """
        return cls(engine_of(url, size=size, patience=patience), vault)

    @classmethod
    def beside(cls, other: Base) -> Self:
        """Return another part of the same open store, which asks the same roles for rights."""
        made = cls(other.engine, other.vault)
        made.policies = other.policies
        return made

    async def close(self) -> None:
        """Give the connections back."""
        await self.engine.dispose()

    async def version(self) -> str | None:
        """Return the version of the schema, as the last migration left it."""
        async with self.engine.connect() as connection:
            found = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        return None if found is None else str(found)

    async def ping(self) -> None:
        """Ask the database for a sign of life."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[bool]:
        """Yield whether nobody else does `name` now; until this ends, nobody else will.

        It is a lock of the connection's, so whoever is killed gives it back.
        """
        async with self.each_alone([name]) as taken:
            yield bool(taken)

    @asynccontextmanager
    async def each_alone(self, names: Sequence[str]) -> AsyncIterator[list[str]]:
        """Yield those of `names` that nobody else does now, as `alone` does for one."""
        async with self.engine.connect() as pooled:
            connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
            found = await connection.execute(_TRY, {"names": [_OURS + one for one in names]})
            taken = list(found.scalars())
            try:
                yield [one.removeprefix(_OURS) for one in taken]
            finally:
                if taken:
                    with suppress(SQLAlchemyError):  # Gone with its connection.
                        await connection.execute(_GIVE_BACK, {"names": taken})

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Yield a session whose work is committed as one, or not at all."""
        async with self._together() as session, session.begin():
            yield session


async def append(
    session: AsyncSession,
    action: str,
    subject: str,
    facts: Mapping[str, Any],
    actor: str = "engine",
) -> None:
    """Append a ledger line: the transaction's last statement, for it holds the chain's lock."""
    given = {"actor": actor, "action": action, "subject": subject, "facts": dict(facts)}
    await session.execute(_APPEND, given)


async def append_all(
    session: AsyncSession,
    lines: Sequence[tuple[str, str, Mapping[str, Any]]],
    actor: str = "engine",
) -> None:
    """Append ledger lines, each an action, a subject and facts, as `append` does one."""
    said = [{"action": one, "subject": of, "facts": dict(facts)} for one, of, facts in lines]
    if said:
        await session.execute(_APPEND_ALL, {"actor": actor, "lines": said})


def now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)
