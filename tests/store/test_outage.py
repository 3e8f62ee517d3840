"""The database goes away during a send: the verdict is kept, or the outcome is looked for."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.exc import OperationalError

from clickpost.delivery import State
from clickpost.media import Cache
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.database import is_away, migrate
from clickpost.store.tables import Connection
from clickpost.store.vault import Vault
from connectors._api import client
from deployments.postgres import Postgres
from sandbox.testing import serve
from tasks import _wiring, reconciling, renewing, sending
from tasks._wiring import House
from tests.desk import Desk

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """A server of its own, to be stopped at will."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)  # PostgreSQL runs as another user where we are root.
    made = Postgres(tmp_path / "own", lasting=False)
    made.start()
    made.make("clickpost")
    migrate(made.url("clickpost"))
    yield made
    made.stop()


@pytest.fixture
def patience() -> float:
    """Seconds for which a step waits for the database."""
    return 30.0


@pytest_asyncio.fixture
async def desk(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> AsyncIterator[Desk]:
    url = server.url("clickpost")
    settings = Settings(home=tmp_path / "home", database_url=url)
    store = await Store.open(url, Vault.of(settings), patience=patience)
    name = _wiring._name_of(_wiring.psutil.Process())
    house = House(settings, store, store.vault, client(), Cache(tmp_path), name)

    async def here() -> House:
        return house

    monkeypatch.setattr(_wiring, "house", here)
    with serve(tmp_path / "sandbox") as base:
        desk = Desk(house, base)
        for platform in ("bluesky", "mastodon"):
            await desk.connect(platform)
        yield desk
    await house.client.aclose()
    await store.close()


async def _while_away(desk: Desk, server: Postgres, delivery_id: str, away: float) -> sending.Step:
    """Send, slowly; meanwhile the database goes, and comes back `away` seconds later."""
    await desk.order("mastodon", "slow", "status", seconds=1.5)
    going = asyncio.create_task(sending.send(delivery_id))
    for _ in range(200):
        if await desk.state(delivery_id) is State.SENDING:
            break
        await asyncio.sleep(0.02)
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(away)
    await asyncio.to_thread(server.start)
    return await going


async def test_a_verdict_outlives_a_database_that_is_away_for_a_while(
    desk: Desk, server: Postgres
) -> None:
    text = uuid.uuid4().hex
    delivery_id = await desk.post("mastodon", text)
    assert (await _while_away(desk, server, delivery_id, 4)).state is State.LIVE
    row = await desk.store.delivery(delivery_id)
    assert (row.state, row.attempts, row.url is not None) == (State.LIVE, 1, True)
    assert [one.verdict for one in await desk.store.attempts_of(delivery_id)] == ["live"]
    assert await desk.there(text) == 1
    assert (await desk.store.verify()).broken is None


@pytest.mark.parametrize("patience", [0.0])
async def test_a_verdict_that_could_not_be_written_is_looked_for_at_once(
    desk: Desk, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = uuid.uuid4().hex
    delivery_id = await desk.post("mastodon", text)
    monkeypatch.setattr(sending, "WRITING", timedelta(seconds=0.2))
    with pytest.raises(OperationalError) as caught:
        await _while_away(desk, server, delivery_id, 4)
    assert is_away(caught.value)
    row = await desk.store.delivery(delivery_id)
    assert (row.state, row.lease_owner is not None) == (State.SENDING, True)
    assert await sending.lost() == [delivery_id]
    assert await desk.state(delivery_id) is State.UNKNOWN
    await desk.aged(delivery_id)
    assert (await reconciling.reconcile(delivery_id)).state is State.LIVE
    assert await desk.there(text) == 1


async def test_a_step_that_begins_while_the_database_is_away_waits_for_it(
    desk: Desk, server: Postgres
) -> None:
    text = uuid.uuid4().hex
    delivery_id = await desk.post("bluesky", text)
    await asyncio.to_thread(server.stop)
    going = asyncio.create_task(sending.send(delivery_id))
    await asyncio.sleep(2)
    assert not going.done()
    await asyncio.to_thread(server.start)
    assert (await going).state is State.LIVE
    assert await desk.there(text) == 1


async def _renewing(desk: Desk, server: Postgres, platform: str) -> Connection:
    """Renew a token, slowly; the database goes while the platform answers. Return it as it was."""
    before = await desk.store.connection(f"{platform}/studio")
    await desk.order(platform, "slow", "refresh", seconds=1.5)
    policy = desk.house.policy(before)
    going = asyncio.create_task(renewing.refresh(desk.house, before, policy))
    await asyncio.sleep(0.7)
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(4)
    assert not going.done()
    await asyncio.to_thread(server.start)
    await going
    return before


@pytest.mark.parametrize("patience", [0.0, 30.0])
async def test_renewed_tokens_outlive_a_database_that_is_away_for_a_while(
    desk: Desk, server: Postgres
) -> None:
    before = await _renewing(desk, server, "bluesky")
    row = await desk.store.connection(before.id)
    was, now = desk.store.opened(before).secrets, desk.store.opened(row).secrets
    assert row.status == "active"
    assert row.updated_at > before.updated_at
    assert now["refresh_jwt"] != was["refresh_jwt"]
    text = uuid.uuid4().hex
    delivery_id = await desk.post("bluesky", text)
    assert (await sending.send(delivery_id)).state is State.LIVE
    await renewing.refresh(desk.house, row, desk.house.policy(row))  # The lock is free again.
