"""Opens the database and brings its schema up to date, safe to run twice and from two processes."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from clickpost.errors import InvalidInput, Unavailable

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Any number will do, as long as all processes take the same.
_LOCK = 7_203_451_118


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


def engine_of(given: str, *, size: int = 10) -> AsyncEngine:
    """Return an async engine with at most `size` + 10 connections."""
    return create_async_engine(url_of(given), pool_size=size, max_overflow=10, pool_pre_ping=True)


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


def _upgrade(connection: object, config: Config, scripts: ScriptDirectory, head: str) -> None:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    assert isinstance(connection, Connection)
    current = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    if current == head:
        return
    if current is not None and current not in {one.revision for one in scripts.walk_revisions()}:
        raise Unavailable(
            f"the database is at version {current}, which this ClickPost does not know;"
            " install the newer ClickPost again"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
