"""A paused platform: what falls due is held and not failed, and a resume lets it go on."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from cli.main import app
from clickpost.delivery import State
from clickpost.pausing import is_paused
from clickpost.policy.load import load_platforms, narrowed, policy_hash
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from clickpost.telling import Event, Said, commands
from flows import _run
from tasks import _wiring, preparing, sending
from tests.desk import Desk, desk_at

runner = CliRunner()


@pytest_asyncio.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    shutil.copytree(PROJECT / "policies" / "platforms", tmp_path / "policies" / "platforms")
    own = settings.model_copy(update={"policies": tmp_path / "policies"})
    async with desk_at(store, own, tmp_path, monkeypatch, "bluesky", "mastodon") as made:
        yield made


async def test_what_falls_due_is_held_and_goes_on_with_a_resume(desk: Desk) -> None:
    stopped = await desk.post("mastodon", "waits for its platform")
    other = await desk.post("bluesky", "goes out all the same")
    assert await desk.store.pause("mastodon", actor="operator:anna")
    assert not await desk.store.pause("mastodon", actor="operator:ben")

    step = await sending.send(stopped)
    assert (step.state, step.paused) == (State.HELD, True)
    assert (await sending.send(other)).state is State.LIVE
    assert await desk.there("waits for its platform") == 0
    assert "1 held" in str(_run.ended([step]).message)
    assert _run.ended([step]).is_completed()
    assert _run.ended([sending.Step(State.HELD)]).is_failed()  # Of an account, somebody must act.
    row = await desk.store.delivery(stopped)
    assert is_paused(row.reason)
    facts = {"where": "mastodon/studio", "reason": row.reason, "who_acts": row.who_acts}
    said = Said("", Event.HELD, stopped, facts, row.updated_at)
    assert commands(said) == ["clickpost platforms resume mastodon"]
    [paused] = await desk.store.paused()
    assert (paused.platform, paused.held, paused.paused_by) == ("mastodon", 1, "operator:anna")

    assert await desk.store.resume("mastodon", actor="operator:anna") == [stopped]
    assert await desk.store.resume("mastodon", actor="operator:anna") is None
    await preparing.compose(row.post_id)
    assert (await sending.send(stopped)).state is State.LIVE
    assert await desk.there("waits for its platform") == 1
    assert await desk.store.paused() == []


async def test_nothing_stays_held_where_pause_and_resume_meet_a_send(desk: Desk) -> None:
    held = [await desk.post("mastodon", f"meets a pause {number}") for number in range(6)]
    await desk.store.pause("mastodon", actor="operator:anna")
    sends = [asyncio.create_task(sending.send(one)) for one in held]
    await asyncio.sleep(0.01)
    await desk.store.resume("mastodon", actor="operator:anna")
    await asyncio.gather(*sends)
    assert {await desk.state(one) for one in held} <= {State.PLANNED, State.LIVE}


async def test_uploads_wait_too_and_nothing_is_lost_by_a_try(desk: Desk) -> None:
    delivery_id = await desk.post("mastodon", "is not even uploaded")
    await desk.store.pause("mastodon", actor="operator:anna")
    before = await desk.store.delivery(delivery_id)
    assert (await sending.ready(delivery_id)).parked
    assert await desk.store.delivery(delivery_id) == before


async def test_each_attempt_and_its_line_name_the_policy_that_was_followed(desk: Desk) -> None:
    delivery_id = await desk.post("mastodon", "follows a version")
    connection = await desk.store.connection("mastodon/studio")
    await sending.send(delivery_id)
    policy = load_platforms(desk.house.settings.policies)["mastodon"]
    expected = policy_hash(narrowed(policy, connection.limits))
    [attempt] = await desk.store.attempts_of(delivery_id)
    assert attempt.policy_hash == expected == (await desk.store.delivery(delivery_id)).policy_hash
    query = "SELECT facts->>'policy' FROM ledger WHERE action = 'delivery.sending'"
    async with desk.store.engine.connect() as db:
        assert (await db.exec_driver_sql(query)).scalars().all() == [expected]


async def test_what_began_under_one_version_ends_under_it(desk: Desk) -> None:
    file = desk.house.settings.policies / "platforms" / "bluesky.yaml"
    connection = await desk.store.connection("bluesky/studio")
    with _wiring.one_version(desk.house.settings.policies):
        begun = desk.house.policy(connection)
        file.write_text(file.read_text().replace("limit: 300", "limit: 10"))
        first = await desk.post("bluesky", "longer than ten characters")
        assert await asyncio.create_task(_policy(desk)) == begun  # In its tasks as well.
        assert (await sending.send(first)).state is State.LIVE
    assert desk.house.policy(connection) != begun
    second = await desk.post("bluesky", "also longer than ten characters")
    assert await desk.state(second) is State.FAILED


async def _policy(desk: Desk) -> object:
    return desk.house.policy(await desk.store.connection("bluesky/studio"))


def test_an_operator_pauses_and_resumes_from_the_command_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.database_url is not None
    monkeypatch.setenv("CLICKPOST_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("CLICKPOST_HOME", str(settings.home))
    settings.home.mkdir()

    def told(*words: str, code: int = 0) -> object:
        done = runner.invoke(app, ["platforms", *words, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    first = told("pause", "mastodon", "--as", "anna")
    assert first == {"platform": "mastodon", "paused": True, "was_paused": False}
    assert "did you mean mastodon?" in str(told("pause", "mastodn", code=2))
    [listed] = told("list")  # type: ignore[misc]
    assert listed["paused_by"] == "operator:anna"
    assert told("resume", "mastodon") == {"platform": "mastodon", "released": []}
    assert "is not paused" in str(told("resume", "mastodon", code=2))


async def test_a_pause_that_comes_while_a_post_is_made_ready_stops_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery_id = await desk.post("mastodon", "is paused on its way")
    begin = Store.begin_attempt

    async def paused_before(self: Store, *given: Any, **more: Any) -> Any:
        await self.pause("mastodon", actor="operator:anna")
        return await begin(self, *given, **more)

    monkeypatch.setattr(Store, "begin_attempt", paused_before)
    step = await sending.send(delivery_id)
    assert (step.state, step.paused) == (State.HELD, True)
    assert await desk.there("is paused on its way") == 0
    assert await desk.store.attempts_of(delivery_id) == []
    assert await desk.store.resume("mastodon", actor="operator:anna") == [delivery_id]
