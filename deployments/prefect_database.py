"""Finds or makes the database of the Prefect server beside ours, on the same PostgreSQL."""

from __future__ import annotations

import psycopg
from psycopg import errors, sql
from sqlalchemy.engine import URL

from clickpost.errors import Unavailable
from clickpost.store.database import url_of


def beside(given: str) -> str:
    """Return the address of the database NAME_prefect on the server of `given`, made if need be.

    Raises Unavailable, with what to do, where the server does not answer or our role may not
    make databases.
    """
    ours = url_of(given)
    theirs = ours.set(database=f"{ours.database}_prefect")
    try:
        with psycopg.connect(_plain(ours), autocommit=True, connect_timeout=10) as connection:
            _make(connection, str(theirs.database))
    except errors.InsufficientPrivilege:
        raise Unavailable(
            f"Prefect needs a database of its own: create {theirs.database} on the same server,"
            " or set PREFECT_API_URL to a Prefect server that runs"
        ) from None
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise Unavailable(f"the database does not answer: {reason}") from None
    return _for_asyncpg(theirs)


def _make(connection: psycopg.Connection, name: str) -> None:
    known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if known is None:
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except errors.DuplicateDatabase:  # Another process was faster.
            return


def _plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _for_asyncpg(url: URL) -> str:
    """Return the address in the words of Prefect's driver, which calls `sslmode` `ssl`."""
    query = {("ssl" if key == "sslmode" else key): value for key, value in url.query.items()}
    made = url.set(drivername="postgresql+asyncpg", query=query)
    return made.render_as_string(hide_password=False)
