"""The run of a moment that its last post has left does not stay among the upcoming ones."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prefect.settings import PREFECT_API_URL, temporary_settings

from cli._publishing import started
from clickpost.delivery import State
from clickpost.media import Cache
from clickpost.settings import Settings
from clickpost.store import Store
from connectors._api import client
from deployments import runs
from tasks import _runs, _wiring, planning
from tests.desk import Desk, desk_at
from tests.flows.conftest import House

LONG_AGO = datetime.now(UTC) - timedelta(hours=1)
MOMENT = (datetime.now(UTC) + timedelta(hours=3)).replace(microsecond=0)


class Prefect:
    """Runs that wait for their moments, and what became of them."""

    def __init__(self) -> None:
        self.waiting: dict[str, _runs.Upcoming] = {}
        self.meanwhile: Callable[[], Any] | None = None

    def add(self, moment: datetime, created_at: datetime = LONG_AGO) -> str:
        run_id = str(uuid.uuid4())
        parameters = {"moment": {"at": moment.isoformat()}}
        self.waiting[run_id] = _runs.Upcoming(run_id, parameters, created_at)
        return run_id

    async def upcoming(self, flow: str, after: datetime) -> list[_runs.Upcoming]:
        assert (flow, after > datetime.now(UTC)) == ("publish-due", True)
        return list(self.waiting.values())

    async def complete(self, run_id: str, why: str) -> None:
        del self.waiting[run_id]
        if self.meanwhile is not None:
            await self.meanwhile()

    async def begin(
        self, flow: str, parameters: Mapping[str, Any], *, at: datetime, **_: object
    ) -> str:
        moment = datetime.fromisoformat(parameters["moment"]["at"])
        assert (flow, at < moment) == ("publish-due", True)
        return self.add(moment)


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    made = Prefect()
    for name in ("upcoming", "complete", "begin"):
        monkeypatch.setattr(_runs, name, getattr(made, name))
    return made


@pytest_asyncio.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    async with desk_at(store, settings, tmp_path, monkeypatch, "bluesky") as made:
        yield made


async def _cancelled(desk: Desk, delivery_id: str) -> None:
    await desk.store.move(delivery_id, await desk.state(delivery_id), State.CANCELLED)


async def test_a_run_ends_when_the_last_of_its_posts_is_cancelled_or_moved(
    desk: Desk, prefect: Prefect
) -> None:
    first, second = [await desk.post("bluesky", text, at=MOMENT) for text in ("one", "two")]
    run_id = prefect.add(MOMENT)
    assert await planning.idle() == 0
    await _cancelled(desk, first)
    assert await planning.idle() == 0
    post_id = (await desk.store.delivery(second)).post_id
    later = MOMENT + timedelta(hours=1)
    await desk.store.reschedule(post_id, later, actor="anna")
    kept = prefect.add(later)
    assert await planning.idle() == 1
    assert set(prefect.waiting) == {kept} != {run_id}


async def test_a_held_post_keeps_its_moments_run(desk: Desk, prefect: Prefect) -> None:
    delivery_id = await desk.post("bluesky", "one", at=MOMENT)
    await desk.store.move(
        delivery_id, await desk.state(delivery_id), State.HELD, who_acts="the account's owner"
    )
    prefect.add(MOMENT)
    assert await planning.idle() == 0


async def test_a_young_run_is_left_alone(desk: Desk, prefect: Prefect) -> None:
    prefect.add(MOMENT, datetime.now(UTC))
    assert await planning.idle() == 0


async def test_who_plans_for_the_moment_meanwhile_gets_another_run(
    desk: Desk, prefect: Prefect
) -> None:
    given: list[str] = []
    old = prefect.add(MOMENT)

    async def planned() -> None:
        given.append(await desk.post("bluesky", "one", at=MOMENT))
        row = await desk.store.delivery(given[0])
        await desk.store.set_flow_run(row.post_id, old, MOMENT)

    prefect.meanwhile = planned
    assert await planning.idle() == 1
    row = await desk.store.delivery(given[0])
    assert [row.flow_run_id] == list(prefect.waiting) != [old]


@pytest.mark.xdist_group("stack")
@pytest.mark.timeout(150)
async def test_the_upcoming_list_forgets_a_moment_that_its_last_post_has_left(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs = _wiring.House(
        house.settings, house.store, house.store.vault, client(), Cache(tmp_path), "test"
    )

    async def here() -> _wiring.House:
        return theirs

    monkeypatch.setattr(_wiring, "house", here)
    monkeypatch.setattr(planning, "YOUNG", timedelta(0))
    moment = MOMENT + timedelta(seconds=uuid.uuid4().int % 3000)
    posts = [await house.post(uuid.uuid4().hex, "bluesky/studio", at=moment) for _ in range(2)]
    for post_id in posts:
        await started(house.settings, house.store, post_id, moment)
    run_id = str((await house.store.post(posts[0])).flow_run_id)
    with temporary_settings({PREFECT_API_URL: runs.api_url(house.settings)}):
        for post_id in posts:
            await planning.idle()
            assert run_id in {one.id for one in await _runs.upcoming("publish-due", LONG_AGO)}
            (line,) = await house.store.lines(post_id)
            await house.store.move(line.id, line.state, State.CANCELLED)
        await planning.idle()
        assert run_id not in {one.id for one in await _runs.upcoming("publish-due", LONG_AGO)}
    run = house.api("GET", f"/flow_runs/{run_id}")
    assert (run["state_type"], run["state"]["message"]) == (
        "COMPLETED",
        "nothing is due at its moment any more",
    )
    await theirs.client.aclose()
