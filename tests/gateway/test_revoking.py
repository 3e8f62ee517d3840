"""What a platform says of who removed our app: tokens go at once, and only by its own word."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from clickpost.contract import Tokens
from clickpost.errors import Reauthorize
from clickpost.policy import keeping
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewConnection, Store
from clickpost.store.grants import Grants
from clickpost.store.invitations import Sought
from clickpost.store.tables import Connection
from tasks import erasing
from tasks._wiring import House
from tests.core.test_signed_event import signed
from tests.gateway.conftest import Prefect, serving
from tests.store.test_erasure_runs import house

__all__ = ["house"]

EVENTS = "/callbacks/tiktok/events"
SECRET = "tiktok-app-secret"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a house that knows TikTok, of whom no connector is there yet."""
    policies = tmp_path / "policies"
    shutil.copytree(PROJECT / "policies", policies)
    said = (policies / "platforms" / "instagram.yaml").read_text()
    said = said.replace("name: instagram", "name: tiktok", 1)
    said = said.replace("callbacks: signed_request", "callbacks: signed_event")
    (policies / "platforms" / "tiktok.yaml").write_text(said)
    return settings.model_copy(update={"policies": policies})


@pytest_asyncio.fixture
async def http(
    settings: Settings, store: Store, prefect: Prefect
) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as made:
        yield made


async def connected(store: Store, name: str = "shop", remote_id: str = "act.ann") -> str:
    """Connect an account of TikTok's user through an app of ours."""
    base = "https://open.tiktokapis.com"
    app = {"client_id": "1", "client_secret": SECRET}
    await store.keep_client(Sought(await store.workspace_id(), "tiktok", base), app)
    new = NewConnection("tiktok", name, base, {"access_token": "t"}, remote_id=remote_id)
    return (await store.add_connection(new)).id


async def told(
    http: httpx.AsyncClient,
    event: str = "authorization.removed",
    who: str = "act.ann",
    *,
    at: datetime | None = None,
    reason: int = 1,
    secret: str = SECRET,
    to: str = EVENTS,
) -> int:
    """Tell an event as TikTok does; return the answer's status."""
    moment = at or datetime.now(UTC) + timedelta(seconds=1)
    said = {
        "client_key": "1",
        "event": event,
        "create_time": int(moment.timestamp()),
        "user_openid": who,
        "content": json.dumps({"reason": reason}),
    }
    body = json.dumps(said).encode()
    header = {"TikTok-Signature": signed(body, datetime.now(UTC), secret)}
    return (await http.post(to, content=body, headers=header)).status_code


async def row_of(store: Store, connection_id: str) -> Connection:
    async with store.session() as session:
        return await session.get_one(Connection, connection_id)


async def notices(store: Store) -> list[Any]:
    query = text("SELECT subject FROM notice WHERE event = 'connection.revoked'")
    async with store.engine.connect() as connection:
        return list((await connection.execute(query)).scalars())


async def test_a_removed_grant_ends_with_its_tokens_and_starts_its_clock(
    store: Store, http: httpx.AsyncClient
) -> None:
    gone, other = await connected(store), await connected(store, "other", "act.bob")
    before = (await row_of(store, gone)).updated_at
    assert [await told(http) for _ in range(3)] == [200] * 3, "it is told at least once"
    row = await row_of(store, gone)
    assert (row.status, row.secrets, row.data_key) == ("revoked", b"", b"")
    assert row.updated_at > before, "the retention of its origin counts from here"
    assert await notices(store) == [gone], "its owner is told, and once"
    assert (await row_of(store, other)).status == "active"
    assert await store.subject_requests() == [], "that is no wish to be forgotten"


async def test_whoever_is_not_the_platform_changes_nothing(
    store: Store, http: httpx.AsyncClient
) -> None:
    connection_id = await connected(store)
    assert await told(http, secret="another") == 404
    assert (await http.post(EVENTS, content=b"{}")).status_code == 404
    assert await told(http, to="/callbacks/instagram/events") == 404, "it signs otherwise"
    assert await told(http, to="/callbacks/parrot/events") == 404
    form = await http.post("/callbacks/tiktok/deauthorize", data={"signed_request": "x.y"})
    assert form.status_code == 404
    assert await told(http, "post.publish.complete") == 200, "heard, and nothing to do"
    assert await told(http, who="act.stranger") == 200, "whom we know is nobody's business"
    assert (await row_of(store, connection_id)).status == "active"


async def test_a_word_of_before_a_new_grant_came_late(
    store: Store, http: httpx.AsyncClient
) -> None:
    connection_id = await connected(store)
    assert await told(http, at=datetime.now(UTC) - timedelta(hours=5)) == 200
    assert (await row_of(store, connection_id)).status == "active"


async def test_an_account_that_is_no_more_is_erased(store: Store, http: httpx.AsyncClient) -> None:
    connection_id = await connected(store)
    moment = datetime.now(UTC) + timedelta(seconds=1)
    assert [await told(http, reason=2, at=moment) for _ in range(2)] == [200, 200]
    [request] = await store.subject_requests()
    assert (request.kind, request.state, request.door) == ("erasure", "verified", "platform")
    assert request.connection_ids == [connection_id]
    assert (await row_of(store, connection_id)).data_key == b""


async def test_a_renewal_that_was_on_its_way_keeps_nothing(store: Store) -> None:
    connection_id = await connected(store)
    assert await Grants(store.engine, store.vault).end(connection_id, "removed")
    await store.save_tokens(connection_id, Tokens({"access_token": "fresh"}))
    assert (await row_of(store, connection_id)).data_key == b""
    with pytest.raises(Reauthorize, match="its grant is gone"):
        await store.account(connection_id)


async def test_who_had_several_accounts_gets_the_certificate_of_each(
    settings: Settings, store: Store, http: httpx.AsyncClient, house: House
) -> None:
    await connected(store)
    await connected(store, "second")
    await told(http, reason=2)
    [request] = await store.subject_requests()
    page = f"/requests/{request.code}"
    assert "we are working on it" in (await http.get(page)).text
    assert (await http.get(f"{page}/certificate")).status_code == 404
    await erasing.run_request(request.id)
    shown = (await http.get(page)).text
    assert "It is done" in shown
    links = re.findall(r'href="(/requests/[^"]+)"', shown)
    assert len(links) == 2
    ids = {(await http.get(link)).json()["statement"]["certificate"] for link in links}
    assert len(ids) == 2
    assert (await http.get(f"{page}/certificate?number=3")).status_code == 404


def test_each_platform_that_tells_has_a_clock_for_what_is_left() -> None:
    policies = PROJECT / "policies"
    clocks = {
        one.platform
        for one in keeping.load(policies).retention.values()
        if one.data == "connection" and one.where.get("status") == ["revoked"]
    }
    telling = {
        name for name, one in load_platforms(policies).items() if one.oauth and one.oauth.callbacks
    }
    assert telling
    assert telling <= clocks
