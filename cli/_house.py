"""What commands need of the house: settings, an open store, the policies of connections."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError, ProgrammingError

from clickpost.errors import InvalidInput, Unavailable
from clickpost.policy.load import load_platforms, narrowed
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Connection

T = TypeVar("T")


class NotStarted(Unavailable):
    """There is no database yet, or no table of ours in it."""


def settings() -> Settings:
    """Return the settings; raise InvalidInput naming the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(step) for step in first["loc"]).upper()
        raise InvalidInput(f"CLICKPOST_{name}: {first['msg']}") from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end."""
    return asyncio.run(work)


@asynccontextmanager
async def opened(given: Settings) -> AsyncIterator[Store]:
    """Yield the open store; say what to do where there is none."""
    try:
        store = await Store.of(given)
    except FileNotFoundError:
        raise NotStarted("ClickPost was never started here. Run: clickpost up") from None
    try:
        await store.ping()
        yield store
    except (OperationalError, psycopg.OperationalError):
        raise Unavailable(_away(given)) from None
    except ProgrammingError as error:
        if "does not exist" not in str(error):
            raise
        raise NotStarted("the database has no tables yet. Run: clickpost up") from None
    finally:
        await store.close()


def _away(given: Settings) -> str:
    full = given.database_url is None and shutil.disk_usage(given.home).free < 10_000_000
    if full:
        return f"the database does not answer: the disk of {given.home} is full. Free some room"
    return "the database does not answer. Run: clickpost up"


def policy_of(given: Settings, connection: Connection) -> PlatformPolicy:
    """Return the policy for one connection, narrowed by what its server told."""
    platforms = load_platforms(given.policies)
    return narrowed(platforms[connection.platform], connection.limits or {})
