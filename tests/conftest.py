"""One embedded PostgreSQL for the whole run, and a fresh database for each test."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.database import migrate
from clickpost.store.vault import Vault
from deployments.postgres import Postgres
from tests.databases import Databases

TEMPLATE = "clickpost_template"


def pytest_configure(config: pytest.Config) -> None:
    # A test must never meet the user's own stack.
    for name in [name for name in os.environ if name.startswith(("CLICKPOST_", "PREFECT_"))]:
        if name != "CLICKPOST_TEST_ROOT":
            del os.environ[name]
    if not hasattr(config, "workerinput") and "CLICKPOST_TEST_ROOT" not in os.environ:
        os.environ["CLICKPOST_TEST_ROOT"] = tempfile.mkdtemp(prefix="clickpost-test-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    root = Path(os.environ["CLICKPOST_TEST_ROOT"])
    if (root / "postgres").exists():
        Postgres(root).stop()
    shutil.rmtree(root, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process of the run in at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def postgres() -> Postgres:
    """The run's one server, with a migrated template database."""
    root = Path(os.environ["CLICKPOST_TEST_ROOT"])
    with locked(root / "lock"):
        server = Postgres(root, lasting=False)
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)
            ).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {TEMPLATE}")
                migrate(server.url(TEMPLATE))
    assert psutil.pid_exists(server.pid() or 0)
    return server


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Iterator[Databases]:
    """Databases with our schema, to be lent."""
    made = Databases(postgres, TEMPLATE)
    yield made
    made.close()


@contextmanager
def database(server: Postgres, template: str) -> Iterator[str]:
    """Make a database out of `template` and drop it afterwards."""
    name = f"t_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        yield server.url(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """An empty database with our schema."""
    with databases.lent() as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A database without any table."""
    with database(postgres, "template1") as url:
        yield url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a house of its own."""
    return Settings(home=tmp_path / "home", database_url=database_url)


@pytest_asyncio.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """An open store on an empty database."""
    opened = await Store.open(str(settings.database_url.get_secret_value()), Vault.of(settings))
    yield opened
    await opened.close()
