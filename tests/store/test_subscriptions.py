"""While a subscription is suspended its workspace sends nothing, and loses nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlmodel import select
from typer.testing import CliRunner

from cli import _house, workspaces
from cli.main import app
from clickpost.delivery import State
from clickpost.errors import Conflict, InvalidInput
from clickpost.settings import Settings
from clickpost.store import NewChannel, Store
from clickpost.store.subscriptions import SUSPENDED
from clickpost.store.tables import Notice, Telling
from clickpost.telling import PAYER
from tasks import preparing, sending
from tests.desk import Desk, desk_at

BY = "operator:tests"
runner = CliRunner(env={"COLUMNS": "200"})


@pytest_asyncio.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    async with desk_at(store, settings, tmp_path, monkeypatch, "mastodon") as made:
        yield made


async def subscribed(store: Store) -> str:
    return (await store.subscribe(await store.workspace_id(), "studio", "sub_remote", BY)).id


async def notices(store: Store) -> list[Notice]:
    async with store.session() as session:
        return list((await session.scalars(select(Notice).order_by(Notice.id))).all())


async def test_suspending_holds_what_waits_and_reactivating_sends_it_once(desk: Desk) -> None:
    store = desk.store
    subscription = await subscribed(store)
    delivery_id = await desk.post("mastodon", "paid for")
    assert (await store.suspend(subscription, BY)).deliveries == 1
    row = await store.delivery(delivery_id)
    assert (row.state, row.reason, row.who_acts) == (State.HELD, SUSPENDED, PAYER)
    assert (await sending.send(delivery_id)).state is State.HELD
    assert await desk.there("paid for") == 0

    turned = await store.reactivate(subscription, BY)
    assert turned.post_ids == (row.post_id,)
    assert await desk.state(delivery_id) is State.PLANNED
    await preparing.compose(row.post_id)
    assert (await sending.send(delivery_id)).state is State.LIVE
    assert (await sending.send(delivery_id)).state is State.LIVE
    assert await desk.there("paid for") == 1


async def test_what_comes_in_meanwhile_is_held_when_it_is_due(desk: Desk) -> None:
    subscription = await subscribed(desk.store)
    await desk.store.suspend(subscription, BY)
    delivery_id = await desk.post("mastodon", "meanwhile")
    assert (await sending.send(delivery_id)).state is State.HELD
    assert await desk.there("meanwhile") == 0
    assert await desk.store.held_unpaid(await desk.store.workspace_id()) == 1


async def test_no_way_to_a_send_goes_around_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspended after the last look and before the intent: the guarded UPDATE refuses."""
    store = desk.store
    subscription = await subscribed(store)
    delivery_id = await desk.post("mastodon", "in between")
    begin = store.begin_attempt

    async def begun(*given: Any, **more: Any) -> Any:
        async with store.engine.begin() as db:  # Its status alone, as if the hold came too late.
            await db.exec_driver_sql("UPDATE subscription SET status = 'suspended'")
        return await begin(*given, **more)

    monkeypatch.setattr(store, "begin_attempt", begun)
    assert (await sending.send(delivery_id)).state is State.HELD
    assert await store.attempts_of(delivery_id) == []
    assert await desk.there("in between") == 0
    with pytest.raises(Conflict):
        await begin(
            delivery_id,
            worker="w",
            part=0,
            intent={"content": (await store.delivery(delivery_id)).content_hash},
            lease=timedelta(minutes=1),
            run_id=None,
        )
    assert subscription


async def test_it_is_told_once_for_all_that_it_holds(desk: Desk) -> None:
    store = desk.store
    subscription = await subscribed(store)
    new = NewChannel("ops", "webhook", {"url": "https://canary.example/x"}, ())
    await store.add_channel(await store.workspace_id(), new)
    for n in range(3):
        await desk.post("mastodon", f"held {n}")
    await store.suspend(subscription, BY)
    [told] = await notices(store)
    assert (told.event, told.subject) == ("subscription.suspended", subscription)
    assert told.facts["held"] == 3
    async with store.session() as session:
        assert len((await session.scalars(select(Telling))).all()) == 1


async def test_another_suspended_subscription_goes_on_holding(desk: Desk) -> None:
    store = desk.store
    first, second = await subscribed(store), await subscribed(store)
    delivery_id = await desk.post("mastodon", "twice")
    await store.suspend(first, BY)
    await store.suspend(second, BY)
    assert (await store.reactivate(first, BY)).deliveries == 0
    assert await desk.state(delivery_id) is State.HELD
    assert (await store.reactivate(second, BY)).deliveries == 1
    with pytest.raises(InvalidInput, match="is active"):
        await store.reactivate(second, BY)


async def test_an_end_cancels_what_was_held(desk: Desk) -> None:
    store = desk.store
    subscription = await subscribed(store)
    delivery_id = await desk.post("mastodon", "never")
    await store.suspend(subscription, BY)
    assert (await store.end_subscription(subscription, BY)).deliveries == 1
    assert await desk.state(delivery_id) is State.CANCELLED
    with pytest.raises(InvalidInput, match="is ended"):
        await store.suspend(subscription, BY)


async def test_the_commands_say_what_they_held(
    desk: Desk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_house, "settings", lambda: settings)
    begun: list[str] = []

    async def noted(_given: Settings, _store: Store, post_id: str) -> str:
        begun.append(post_id)
        return ""

    monkeypatch.setattr(workspaces, "scheduled", noted)
    await desk.post("mastodon", "by command")

    async def ran(*words: str, code: int = 0) -> Any:
        answer = await asyncio.to_thread(runner.invoke, app, ["workspaces", *words, "--json"])
        assert answer.exit_code == code, answer.output
        return json.loads(answer.stdout)

    made = (await ran("subscription", "add", "studio"))["subscription"]
    assert (await ran("subscription", "suspend", made))["held"] == 1
    assert (await ran("show"))["held"] == 1
    assert "is suspended" in (await ran("subscription", "suspend", made, code=2))["error"]
    released = await ran("subscription", "reactivate", made)
    assert (released["released"], released["posts"]) == (1, begun)
    [row] = await ran()
    assert [one["status"] for one in row["subscriptions"]] == ["active"]
    assert "no nobody" in (await ran("show", "nobody", code=2))["error"]
