"""Tokens that end are renewed in time, also where nothing is sent, and a failure stops no post."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clickpost.media import Cache
from clickpost.policy.load import load_platforms
from clickpost.renewal import Need
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Connection
from connectors._api import client
from sandbox.testing import serve
from tasks import _wiring, connecting, renewing
from tasks._wiring import House


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("sandbox")) as base:
        yield base


@pytest.fixture
def house(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> House:
    made = House(settings, store, store.vault, client(), Cache(tmp_path), "test")

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    return made


async def connected(house: House, sandbox: str) -> Connection:
    """Connect an Instagram account of its own."""
    said = {"platform": "instagram", "name": f"a{datetime.now(UTC).timestamp()}"}
    row = (await house.client.post(f"{sandbox}/control/accounts", json=said)).json()
    policy = load_platforms(house.settings.policies)["instagram"]
    wish = connecting.Wish("instagram", "studio", row["credentials"], row["api_base"])
    return await connecting.connect(house.store, house.client, policy, wish)


async def ends(house: House, connection: Connection, left: timedelta) -> Connection:
    """Let the token end in a while, and let the last change of its row be long ago."""
    now = datetime.now(UTC)
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE connection SET expires_at = %s, updated_at = %s WHERE id = %s",
            (now + left, now - timedelta(hours=2), connection.id),
        )
    return await house.store.connection(connection.id)


async def token(house: House, connection: Connection) -> str:
    return (await house.store.account(connection.id)).secrets["access_token"]


async def test_a_connection_knows_until_when_its_token_is_trusted(
    house: House, sandbox: str
) -> None:
    connection = await connected(house, sandbox)
    assert connection.expires_at is not None
    left = connection.expires_at - datetime.now(UTC)
    assert timedelta(days=7, hours=23) < left <= timedelta(days=8)
    assert await renewing.due() == 0


async def test_the_sweep_renews_what_ends_within_the_policys_window(
    house: House, sandbox: str
) -> None:
    connection = await connected(house, sandbox)
    before = await token(house, connection)
    await ends(house, connection, timedelta(days=6))
    assert await renewing.due() == 1
    assert await token(house, connection) != before
    after = await house.store.connection(connection.id)
    assert after.expires_at is not None
    assert after.expires_at > datetime.now(UTC) + timedelta(days=59)
    assert await renewing.due() == 0


async def test_a_renewal_ahead_of_time_that_fails_stops_nothing_and_says_why(
    house: House, sandbox: str
) -> None:
    connection = await connected(house, sandbox)
    order = {"platform": "instagram", "step": "refresh", "what": "server_error", "times": 1}
    (await house.client.post(f"{sandbox}/control/misbehave", json=order)).raise_for_status()
    row = await ends(house, connection, timedelta(days=6))
    assert await renewing.renewed(house, row, house.policy(row)) is Need.AHEAD
    after = await house.store.connection(connection.id)
    assert (after.status, after.expires_at) == ("active", row.expires_at)
    assert "not renewed" in str(after.status_reason)
    assert await renewing.due() == 0  # Not again within the hour.
    await ends(house, after, timedelta(days=6))
    assert await renewing.due() == 1
    assert (await house.store.connection(connection.id)).status_reason is None


async def test_a_grant_that_is_gone_pauses_its_connection_before_a_post_meets_it(
    house: House, sandbox: str
) -> None:
    connection = await connected(house, sandbox)
    await ends(house, connection, timedelta(minutes=1))
    order = {"platform": "instagram", "step": "refresh", "what": "revoke_token", "times": 1}
    (await house.client.post(f"{sandbox}/control/misbehave", json=order)).raise_for_status()
    await renewing.due()
    assert (await house.store.connection(connection.id)).status == "paused"
