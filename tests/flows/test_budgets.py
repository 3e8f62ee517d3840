"""Sends keep to budgets: in order and later, never earlier than the platform says, one refresh."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from clickpost.contract import Prepared, Tokens
from clickpost.delivery import State
from clickpost.draft import MediaItem, PostFile
from clickpost.errors import Transient
from clickpost.media import Cache
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.budgets import Taking
from clickpost.store.tables import Connection
from connectors import instagram, youtube
from connectors._api import client
from sandbox.testing import serve
from tasks import _wiring, budgeting, connecting, intake, preparing, renewing, sending
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


async def connected(house: House, sandbox: str, platform: str, name: str = "studio") -> Connection:
    """Connect an account of its own."""
    said = {"platform": platform, "name": f"a{datetime.now(UTC).timestamp()}"}
    row = (await house.client.post(f"{sandbox}/control/accounts", json=said)).json()
    policy = load_platforms(house.settings.policies)[platform]
    wish = connecting.Wish(platform, name, row["credentials"], row["api_base"], row["options"])
    return await connecting.connect(house.store, house.client, policy, wish)


async def posted(house: House, connection: Connection, count: int) -> list[str]:
    """Take posts in, word them, and return their deliveries."""
    found = []
    for number in range(count):
        post = PostFile(text=f"{connection.id} {number}", to=[connection.ref])
        made = await intake.take_in(house.store, house.cache, post, [], [connection])
        await preparing.compose(made.post_id)
        found.append((await house.store.deliveries_of(made.post_id))[0].id)
    return found


async def ordered(house: House, sandbox: str, platform: str, step: str, what: str) -> None:
    order = {"platform": platform, "step": step, "what": what, "times": 1}
    (await house.client.post(f"{sandbox}/control/misbehave", json=order)).raise_for_status()


async def there(house: House, sandbox: str, connection: Connection) -> list[str]:
    """Return the numbers of the posts that are there, first to last."""
    rows = (await house.client.get(f"{sandbox}/control/posts")).json()
    rows.sort(key=lambda row: float(row["received_at"]))
    return [one["text"].split()[1] for one in rows if one["text"].startswith(connection.id)]


async def later(house: House, span: timedelta) -> None:
    """Let time pass for budgets and what waits for them."""
    async with house.store.engine.begin() as db:
        for change in (
            "UPDATE spend SET at = at - %s",
            "UPDATE allowance SET resets_at = resets_at - %s, seen_at = seen_at - %s",
            "UPDATE delivery SET not_before = not_before - %s",
        ):
            await db.exec_driver_sql(change, (span,) * change.count("%s"))


async def test_posts_beyond_a_small_budget_go_later_and_in_their_order(
    house: House, sandbox: str
) -> None:
    connection = await connected(house, sandbox, "mastodon")
    await house.store.set_burst(connection.id, 2)
    deliveries = await posted(house, connection, 6)
    steps = [await sending.send(one) for one in deliveries]
    assert [step.state for step in steps[:2]] == [State.LIVE] * 2
    assert all(step.parked and step.wait > 3000 for step in steps[2:])
    assert await there(house, sandbox, connection) == ["0", "1"]
    for expected in (["2", "3"], ["4", "5"]):
        await later(house, timedelta(hours=1, seconds=1))
        waiting = [one for one in deliveries if (await _state(house, one)) is not State.LIVE]
        for one in reversed(waiting):  # Whoever asks first: the places in line decide.
            await sending.send(one)
        for one in waiting:
            await sending.send(one)
        assert sorted((await there(house, sandbox, connection))[-2:]) == expected
    assert len(await there(house, sandbox, connection)) == 6


async def _state(house: House, delivery_id: str) -> State:
    return (await house.store.delivery(delivery_id)).state


async def test_forty_sends_side_by_side_keep_to_the_guard(house: House, sandbox: str) -> None:
    connection = await connected(house, sandbox, "mastodon")
    await house.store.set_burst(connection.id, 5)
    deliveries = await posted(house, connection, 40)
    steps = await asyncio.gather(*(sending.send(one) for one in deliveries))
    assert sum(step.state is State.LIVE for step in steps) == 5
    assert len(await there(house, sandbox, connection)) == 5


async def test_too_fast_puts_off_all_of_the_account_and_gives_the_budget_back(
    house: House, sandbox: str
) -> None:
    connection = await connected(house, sandbox, "mastodon")
    first, second = await posted(house, connection, 2)
    await ordered(house, sandbox, "mastodon", "status", "rate_limit")
    step = await sending.send(first)
    assert step.state is State.READY
    refused = await house.store.delivery(first)
    assert (await sending.send(second)).state is not State.LIVE
    waits = await house.store.delivery(second)
    assert refused.not_before is not None
    assert waits.not_before is not None
    assert abs(waits.not_before - refused.not_before) < timedelta(seconds=1)
    assert str(waits.reason).startswith("the platform says: too fast; next at ")
    standings = await budgeting.standings(house.store, connection, house.policy(connection))
    assert {one.used for one in standings if one.pot.what in ("posts", "burst")} == {0}
    await later(house, timedelta(minutes=10))
    assert [(await sending.send(one)).state for one in (first, second)] == [State.LIVE] * 2


async def test_a_quota_of_the_app_that_is_used_up_stops_every_account_of_the_app(
    house: House, sandbox: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [await connected(house, sandbox, "youtube", name) for name in ("a", "b", "c")]
    asked: list[str | None] = []

    async def prepare(self: youtube.Connector, *_: Any) -> Prepared:
        asked.append(self.account.remote_id)
        google = httpx.Response(403, json={"error": {"code": 403, "errors": [QUOTA]}})
        problem = youtube.problem_of(google)
        raise self.api.error_of("POST videos", problem, step="prepare", repeatable=True)

    monkeypatch.setattr(youtube.Connector, "prepare", prepare)
    first, second = [await film(house, one, clip) for one in accounts[:2]]
    for one in (first, second):
        await sending.ready(one)
        assert await _state(house, one) is State.PREPARING
    assert asked == [accounts[0].remote_id]
    waits, met = await house.store.delivery(second), await house.store.delivery(first)
    assert waits.not_before is not None
    assert met.not_before is not None
    assert abs(waits.not_before - met.not_before) < timedelta(seconds=5)
    assert str(waits.reason).startswith("the platform says: too fast; next at ")
    await _other_app(house, accounts[2])
    third = await film(house, accounts[2], clip)
    await sending.ready(third)
    assert asked == [accounts[0].remote_id, accounts[2].remote_id]


QUOTA = {"domain": "youtube.quota", "reason": "quotaExceeded", "message": "used up"}


async def film(house: House, connection: Connection, clip: Path) -> str:
    """Take in a film, up to its upload; return its delivery."""
    media = [MediaItem(file=str(clip), alt="A clip")]
    post = PostFile(text="A clip", title=connection.id, media=media, to=[connection.id])
    looked = await intake.look(post, Path())
    made = await intake.take_in(house.store, house.cache, post, looked, [connection])
    await preparing.compose(made.post_id)
    return (await house.store.deliveries_of(made.post_id))[0].id


async def _other_app(house: House, connection: Connection) -> None:
    tokens = Tokens({"client_id": "another-app"})
    await house.store.save_tokens(connection.id, tokens)


async def test_what_answers_say_is_known_before_the_next_send(house: House, sandbox: str) -> None:
    connection = await connected(house, sandbox, "mastodon")
    (delivery_id,) = await posted(house, connection, 1)
    assert (await sending.send(delivery_id)).state is State.LIVE
    pots = budgeting.pots_of(house.store, connection, house.policy(connection))
    requests = next(pot for pot in pots if pot.what == "requests")
    told = await house.store.allowance_of(requests)
    assert told is not None
    assert (told.left, told.total) == (290, 300)


async def test_instagram_is_asked_for_its_own_quota_and_that_wins(
    house: House, sandbox: str
) -> None:
    connection = await connected(house, sandbox, "instagram")
    policy = house.policy(connection)
    connector = house.connector(house.store.opened(connection), policy)
    (delivery_id,) = await posted(house, await connected(house, sandbox, "mastodon"), 1)
    pots = budgeting.pots_of(house.store, connection, policy)
    taking = Taking(delivery_id, pots)
    assert await budgeting.reserved(house, taking, connection, connector) is None
    told = await house.store.allowance_of(pots[0])
    assert told is not None
    assert (told.left, told.total) == (50, 50)
    await later(house, timedelta(hours=1))
    await ordered(house, sandbox, "instagram", "quota", "rate_limit")
    short = await budgeting.reserved(house, taking, connection, connector)
    assert short is not None
    assert "too fast" in short.reason


async def test_two_workers_whose_token_ended_refresh_it_once(
    house: House, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await connected(house, sandbox, "instagram")
    policy = house.policy(connection)
    url = str(house.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    other_store = await Store.open(url, house.vault)
    other = House(house.settings, other_store, house.vault, house.client, house.cache, "other")
    calls = _counted(monkeypatch)
    await asyncio.gather(
        renewing.refresh(house, connection, policy), renewing.refresh(other, connection, policy)
    )
    await other_store.close()
    assert len(calls) == 1


async def test_a_blip_while_refreshing_disconnects_nobody(house: House, sandbox: str) -> None:
    connection = await connected(house, sandbox, "instagram")
    before = (await house.store.account(connection.id)).secrets
    await ordered(house, sandbox, "instagram", "refresh", "drop_before")
    with pytest.raises(Transient):
        await renewing.refresh(house, connection, house.policy(connection))
    after = await house.store.connection(connection.id)
    assert after.status == "active"
    assert (await house.store.account(connection.id)).secrets == before
    await renewing.refresh(house, connection, house.policy(connection))


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    real = instagram.Connector.refresh

    async def refresh(self: instagram.Connector) -> Any:
        calls.append(1)
        await asyncio.sleep(0.2)  # Long enough for the other worker to want one too.
        return await real(self)

    monkeypatch.setattr(instagram.Connector, "refresh", refresh)
    return calls


async def test_a_failure_never_takes_a_held_delivery_from_its_owner(
    house: House, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one run fails to upload, another one finds that the grant is gone."""
    connection = await connected(house, sandbox, "mastodon")
    (delivery_id,) = await posted(house, connection, 1)

    async def held_meanwhile(*_: Any) -> None:
        await house.store.move(
            delivery_id,
            State.PREPARING,
            State.HELD,
            reason="revoked",
            who_acts="the account's owner",
        )
        raise Transient("POST media got no answer")

    monkeypatch.setattr(preparing, "upload", held_meanwhile)
    assert (await sending.ready(delivery_id)).state is State.HELD
    held = await house.store.delivery(delivery_id)
    assert (held.reason, held.who_acts) == ("revoked", "the account's owner")
    assert held.attempts == 0
