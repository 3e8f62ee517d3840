"""Opens the database and brings its schema up to date, safe to run twice and from two processes."""

from __future__ import annotations

import select
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool
from tenacity import (
    AsyncRetrying,
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from clickpost.errors import InvalidInput, Unavailable

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Any number will do, as long as all processes take the same.
_LOCK = 7_203_451_118
#: Seconds for which a connection that was just used is taken to be alive.
_FRESH = 1.0


#: What a statement raises when the database is not there any more.
AWAY = (OperationalError, InterfaceError, psycopg.OperationalError)


def url_of(given: str) -> URL:
    """Return the SQLAlchemy URL of a postgresql:// (or postgres://) address, driver psycopg."""
    try:
        url = make_url(given)
    except ArgumentError:
        raise InvalidInput("CLICKPOST_DATABASE_URL: is no URL of the form postgresql://…") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        found = url.get_backend_name()
        raise InvalidInput(f"CLICKPOST_DATABASE_URL: needs postgresql://, found {found}://")
    return url.set(drivername="postgresql+psycopg")


def engine_of(given: str, *, size: int = 10, patience: float = 0.0) -> AsyncEngine:
    """Return an async engine with at most `size` + 10 connections.

    A database that is away is waited for, `patience` seconds: what could not even connect has
    changed nothing, so that it may be tried again.
    """
    url = url_of(given)
    more: dict[str, Any] = {}
    if patience:
        more["async_creator"] = _patient(url, patience)
        more["pool_timeout"] = patience + 30
    engine = create_async_engine(url, pool_size=size, max_overflow=10, **more)
    event.listen(engine.sync_engine, "checkin", _put_away)
    event.listen(engine.sync_engine, "checkout", _taken)
    return engine


def _patient(url: URL, patience: float) -> Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]:
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)

    @retry(
        retry=retry_if_exception_type(psycopg.OperationalError),
        wait=wait_random_exponential(multiplier=0.2, max=3),
        stop=stop_after_delay(patience),
        reraise=True,
    )
    async def connected() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(address)

    return connected


def is_away(error: BaseException) -> bool:
    """Say whether the database was not there for a statement, or went away meanwhile."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, psycopg.OperationalError | PoolTimeout)


async def insisted(write: Callable[[], Awaitable[None]], within: float) -> None:
    """Do a write that may be done twice; where the database is away, again for `within` seconds.

    Raises what the last try raised.
    """
    tries = AsyncRetrying(
        retry=retry_if_exception(is_away),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(within),
        reraise=True,
    )
    async for attempt in tries:
        with attempt:
            await write()


def _put_away(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["idle_since"] = monotonic()


def _taken(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection that was idle for a sign of life; the pool replaces one that is dead.

    SQLAlchemy's own `pool_pre_ping` asks at every use, which doubles the cost of a short query.
    """
    fresh = monotonic() - record.info.get("idle_since", monotonic()) < _FRESH
    if fresh and not _was_told(connection):
        return
    try:
        cursor = connection.cursor()
        cursor.execute(";")
        cursor.close()
        connection.rollback()
    except psycopg.Error:
        raise DisconnectionError from None


def _was_told(connection: DBAPIConnection) -> bool:
    """Say whether the server said something unasked, as it does when it goes away."""
    driver: Any = getattr(connection, "driver_connection", None)
    if driver is None or driver.closed:
        return True
    ready = select.poll()
    ready.register(driver.fileno(), select.POLLIN)
    return bool(ready.poll(0))


def migrate(given: str) -> str:
    """Bring the schema to the newest version and return it; a second call changes nothing.

    Two processes at once take turns. Raises Unavailable where the database does not answer, or
    is newer than this program.
    """
    engine = create_engine(url_of(given), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    head = str(scripts.get_current_head())
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            try:
                _upgrade(connection, config, scripts, head)
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
    except (OperationalError, psycopg.OperationalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise Unavailable(f"the database does not answer: {reason}") from None
    finally:
        engine.dispose()
    return head


def is_behind(given: str) -> bool:
    """Say whether `migrate` would change tables that there are; raise as it does.

    Then whoever works with them has to stop first: older code does not know the newer ones.
    """
    has, head = _versions(given)
    return has is not None and has != head


def refuse_other(given: str) -> str:
    """Return the version of the schema; raise Unavailable where this program is for another."""
    has, head = _versions(given)
    if has == head:
        return head
    raise Unavailable(
        f"the database is at version {has or 'none'}, and this ClickPost needs {head}."
        " Run: clickpost up"
    )


def _versions(given: str) -> tuple[str | None, str]:
    """Return what `versions` does; raise Unavailable where it is away, or newer than this code."""
    try:
        has, head = versions(given)
    except (OperationalError, psycopg.OperationalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise Unavailable(f"the database does not answer: {reason}") from None
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    known = {one.revision for one in ScriptDirectory.from_config(config).walk_revisions()}
    if has is not None and has not in known:
        raise _newer(has)
    return has, head


def _newer(has: str) -> Unavailable:
    return Unavailable(
        f"the database is at version {has}, which this ClickPost does not know;"
        " install the newer ClickPost again"
    )


def versions(given: str) -> tuple[str | None, str]:
    """Return the version that the schema has, and the newest one that this program knows."""
    from alembic.runtime.migration import MigrationContext

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    engine = create_engine(url_of(given), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            has = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return has, str(ScriptDirectory.from_config(config).get_current_head())


def _upgrade(connection: object, config: Config, scripts: ScriptDirectory, head: str) -> None:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    assert isinstance(connection, Connection)
    current = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    if current == head:
        return
    if current is not None and current not in {one.revision for one in scripts.walk_revisions()}:
        raise _newer(current)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
