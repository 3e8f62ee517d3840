"""What the platform says of its processing: only words about the post change its state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from clickpost.delivery import State
from clickpost.draft import MediaItem
from clickpost.settings import Settings
from clickpost.store import Store
from tasks import sending
from tests.desk import Desk, desk_at


@pytest_asyncio.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    async with desk_at(store, settings, tmp_path, monkeypatch, "youtube") as made:
        yield made


async def _processing(desk: Desk, clip: Path) -> str:
    media = [MediaItem(file=str(clip))]
    delivery_id = await desk.post("youtube", "a film", title="A film", media=media)
    assert (await sending.ready(delivery_id)).state is State.READY
    assert (await sending.send(delivery_id)).state is State.PROCESSING
    return delivery_id


@pytest.mark.parametrize("what", ["garbage", "server_error", "drop_after", "expire_token"])
async def test_an_answer_that_tells_nothing_changes_nothing(
    desk: Desk, clip: Path, what: str
) -> None:
    delivery_id = await _processing(desk, clip)
    await desk.order("youtube", what, "videos_list")
    assert (await sending.follow(delivery_id, 0)).state is State.PROCESSING
    await desk.calm()
    assert (await sending.follow(delivery_id, 20)).state is State.LIVE


async def test_a_grant_that_is_gone_meanwhile_is_no_failure_of_the_post(
    desk: Desk, clip: Path
) -> None:
    delivery_id = await _processing(desk, clip)
    await desk.order("youtube", "revoke_token", "videos_list")
    await sending.follow(delivery_id, 0)
    await sending.follow(delivery_id, 0)
    row = await desk.store.delivery(delivery_id)
    assert (row.state, row.who_acts) == (State.PROCESSING, "the account's owner")
    assert (await desk.store.connection(row.connection_id)).status == "paused"
    await desk.calm()
    await desk.connect("youtube")
    assert (await sending.follow(delivery_id, 20)).state is State.LIVE


async def _shown(desk: Desk, delivery_id: str, *, deleted: bool) -> None:
    """Let the platform list the film, or not."""
    row = await desk.store.delivery(delivery_id)
    said = {"platform": "youtube", "id": row.remote_id, "deleted": deleted}
    done = await desk.house.client.post(f"{desk.sandbox}/control/posts", json=said)
    done.raise_for_status()


async def _missed_for(desk: Desk, span: timedelta) -> None:
    async with desk.store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE delivery SET absent_at = absent_at - %s", (span,))


async def test_a_film_that_is_not_listed_yet_is_not_gone(desk: Desk, clip: Path) -> None:
    delivery_id = await _processing(desk, clip)
    await _shown(desk, delivery_id, deleted=True)
    for _ in range(2):
        assert (await sending.follow(delivery_id, 0)).state is State.PROCESSING
    await _shown(desk, delivery_id, deleted=False)
    await _missed_for(desk, timedelta(minutes=20))
    assert (await sending.follow(delivery_id, 20)).state is State.LIVE
    assert (await desk.store.delivery(delivery_id)).absent_at is None


async def test_a_film_that_two_looks_some_time_apart_miss_is_gone(desk: Desk, clip: Path) -> None:
    delivery_id = await _processing(desk, clip)
    await _shown(desk, delivery_id, deleted=True)
    assert (await sending.follow(delivery_id, 0)).state is State.PROCESSING
    await _missed_for(desk, timedelta(minutes=11))
    assert (await sending.follow(delivery_id, 0)).state is State.GONE
    row = await desk.store.delivery(delivery_id)
    assert row.who_acts == "an operator"


async def test_a_film_that_the_platform_cannot_process_has_failed(desk: Desk, clip: Path) -> None:
    await desk.order("youtube", "fail_processing", "bytes")
    delivery_id = await _processing(desk, clip)
    assert (await sending.follow(delivery_id, 20)).state is State.FAILED
