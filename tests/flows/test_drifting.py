"""Posts that vanish outside are noticed; trouble at the platform makes none of them vanish."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlmodel import col, select

from clickpost.contract import Receipt
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.media import Cache
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import NewPost, Store
from clickpost.store.tables import Delivery, Notice
from clickpost.telling import UNTOLD
from connectors._api import client
from sandbox.testing import serve
from tasks import _wiring, budgeting, connecting, drifting, preparing, sending
from tasks._wiring import House


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[str]:
    with serve(tmp_path / "sandbox") as base:
        yield base


@pytest_asyncio.fixture
async def house(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    made = House(settings, store, store.vault, client(), Cache(tmp_path), "test")

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    yield made
    await made.client.aclose()


async def live(house: House, sandbox: str, platform: str = "mastodon") -> str:
    """Publish a post in the sandbox; return the delivery's id."""
    rows = (await house.client.get(f"{sandbox}/control/accounts")).json()
    row = next(row for row in rows if row["platform"] == platform)
    policy = load_platforms(house.settings.policies)[platform]
    wish = connecting.Wish(platform, "studio", row["credentials"], row["api_base"], row["options"])
    connection = await connecting.connect(house.store, house.client, policy, wish)
    text = f"canary words {datetime.now(UTC)}"
    made = await house.store.create_post(NewPost(PostFile(text=text), (), (connection.id,)))
    await preparing.compose(made.post_id)
    delivery_id = (await house.store.deliveries_of(made.post_id))[0].id
    assert (await sending.send(delivery_id)).state is State.LIVE
    return delivery_id


async def ages(house: House, delivery_id: str, by: timedelta) -> None:
    """Let a post, and the looks at it, be older."""
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET live_at = live_at - %s, checked_at = checked_at - %s,"
            " absent_at = absent_at - %s WHERE id = %s",
            (by, by, by, delivery_id),
        )


async def changed(house: House, sandbox: str, delivery_id: str, **what: Any) -> None:
    """Let the owner change the post in the platform's own app."""
    row = await house.store.delivery(delivery_id)
    platform = (await house.store.connection(row.connection_id)).platform
    post_id = str(row.remote_id).rpartition("/")[2]
    said = {"platform": platform, "id": post_id, **what}
    (await house.client.post(f"{sandbox}/control/posts", json=said)).raise_for_status()


async def events(house: House) -> list[str]:
    """Return what people are told; that a post is live is for triggers only."""
    query = select(Notice.event).where(col(Notice.event).not_in(UNTOLD)).order_by(Notice.id)
    async with house.store.session() as session:
        return list((await session.scalars(query)).all())


async def asked(house: House, sandbox: str) -> int:
    return len((await house.client.get(f"{sandbox}/control/requests?platform=mastodon")).json())


async def test_a_post_is_looked_at_after_an_hour_a_day_a_week_a_month_and_no_more(
    house: House, sandbox: str
) -> None:
    delivery_id = await live(house, sandbox)
    assert await drifting.check() == {}
    before = await asked(house, sandbox)
    for days in range(1, 70):
        await ages(house, delivery_id, timedelta(days=1) if days > 1 else timedelta(hours=2))
        await drifting.check()
        await drifting.check()
    assert await asked(house, sandbox) - before == 4
    assert (await house.store.delivery(delivery_id)).state is State.LIVE


@pytest.mark.parametrize("platform", ["mastodon", "bluesky"])
async def test_a_post_that_two_looks_miss_is_gone_and_told(
    house: House, sandbox: str, platform: str
) -> None:
    delivery_id = await live(house, sandbox, platform)
    await changed(house, sandbox, delivery_id, deleted=True)
    await ages(house, delivery_id, timedelta(hours=2))
    assert await drifting.check() == {"Missed": 1}
    assert (await house.store.delivery(delivery_id)).state is State.LIVE
    assert await drifting.check() == {}, "looks again at once"
    await ages(house, delivery_id, timedelta(minutes=11))
    assert await drifting.check() == {"Gone": 1}
    row = await house.store.delivery(delivery_id)
    assert (row.state, row.who_acts) == (State.GONE, "an operator")
    assert await events(house) == ["post.gone"]
    assert await drifting.check() == {}


async def test_a_post_that_is_back_at_the_second_look_was_never_gone(
    house: House, sandbox: str
) -> None:
    delivery_id = await live(house, sandbox)
    await changed(house, sandbox, delivery_id, deleted=True)
    await ages(house, delivery_id, timedelta(hours=2))
    await drifting.check()
    await changed(house, sandbox, delivery_id, deleted=False)
    await ages(house, delivery_id, timedelta(minutes=11))
    assert await drifting.check() == {"Same": 1}
    assert (await house.store.delivery(delivery_id)).absent_at is None
    assert await events(house) == []


@pytest.mark.parametrize(
    "trouble", ["server_error", "drop_before", "rate_limit", "garbage", "revoke_token"]
)
async def test_trouble_makes_nothing_vanish_and_ends_the_run_for_that_account(
    house: House, sandbox: str, trouble: str
) -> None:
    first, second = await live(house, sandbox), await live(house, sandbox)
    for delivery_id in (first, second):
        await ages(house, delivery_id, timedelta(hours=2))
    order = {"platform": "mastodon", "what": trouble, "times": 100}
    (await house.client.post(f"{sandbox}/control/misbehave", json=order)).raise_for_status()
    before = await asked(house, sandbox)
    for _ in range(3):
        # A dead token is not asked again, and an account that is limited is left alone.
        assert await drifting.check() in ({"NoAnswer": 1}, {"NoBudget": 1}, {})
        for delivery_id in (first, second):
            await ages(house, delivery_id, timedelta(minutes=11))
    assert await asked(house, sandbox) - before <= 3
    assert {(await house.store.delivery(one)).state for one in (first, second)} == {State.LIVE}
    assert await events(house) == []
    assert (await house.store.connections())[0].status == "active"


async def stand(house: House, connection_id: str) -> dict[str, int]:
    """Return what is used of the account's budgets."""
    connection = await house.store.connection(connection_id)
    found = await budgeting.standings(house.store, connection, house.policy(connection))
    return {one.pot.what: one.used for one in found}


async def test_looks_count_in_budgets_and_leave_an_account_alone_that_is_limited(
    house: House, sandbox: str
) -> None:
    delivery_id = await live(house, sandbox)
    row = await house.store.delivery(delivery_id)
    await ages(house, delivery_id, timedelta(hours=2))
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql("DELETE FROM allowance")
    before = await stand(house, row.connection_id)
    assert await drifting.check() == {"Same": 1}
    after = await stand(house, row.connection_id)
    assert after["requests"] > before["requests"]
    assert (after["posts"], after["burst"]) == (before["posts"], before["burst"])
    await ages(house, delivery_id, timedelta(days=2))
    connection = await house.store.connection(row.connection_id)
    policy = house.policy(connection)
    await budgeting.too_fast(house, connection, policy, 600, "account")
    asked_before = await asked(house, sandbox)
    assert await drifting.check() == {"NoBudget": 1}
    assert await asked(house, sandbox) == asked_before


async def test_a_limit_that_a_look_meets_stops_the_account(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox)
    await ages(house, delivery_id, timedelta(hours=2))
    order = {"platform": "mastodon", "what": "rate_limit", "times": 1}
    (await house.client.post(f"{sandbox}/control/misbehave", json=order)).raise_for_status()
    assert await drifting.check() == {"NoAnswer": 1}
    assert await drifting.check() == {"NoBudget": 1}
    assert (await house.store.delivery(delivery_id)).state is State.LIVE


async def test_another_text_is_noted_and_told_once(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox)
    await ages(house, delivery_id, timedelta(hours=2))
    assert await drifting.check() == {"Same": 1}
    await changed(house, sandbox, delivery_id, text="Other words")
    await ages(house, delivery_id, timedelta(days=1))
    assert await drifting.check() == {"Changed": 1}
    await ages(house, delivery_id, timedelta(days=7))
    assert await drifting.check() == {"Same": 1}
    row = await house.store.delivery(delivery_id)
    assert row.state is State.LIVE
    assert [note for note in row.notes or [] if "text was changed" in note]
    assert await events(house) == ["post.edited"]
    assert (await house.store.verify()).broken is None


async def test_an_ended_token_is_renewed_and_the_look_made(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox, "bluesky")
    await ages(house, delivery_id, timedelta(hours=2))
    order = {"platform": "bluesky", "what": "expire_token", "times": 1}
    (await house.client.post(f"{sandbox}/control/misbehave", json=order)).raise_for_status()
    assert await drifting.check() == {"Same": 1}


async def test_a_paused_account_is_left_alone(house: House, sandbox: str) -> None:
    delivery_id = await live(house, sandbox)
    await ages(house, delivery_id, timedelta(hours=2))
    row: Delivery = await house.store.delivery(delivery_id)
    assert Receipt(**(row.receipts or [])[0]).remote_id == row.remote_id
    await house.store.set_connection_status(row.connection_id, "paused", "revoked")
    assert await drifting.check() == {}
