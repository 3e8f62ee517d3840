"""Prefect agrees with the triggers on a real server, and what they wait for starts their runs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from cli import approving
from clickpost.delivery import State
from clickpost.policy import triggering
from clickpost.settings import PROJECT
from clickpost.triggers import APPROVAL
from deployments import agreeing, queues, runs
from deployments.triggers import faults
from tests.flows.conftest import House

pytestmark = pytest.mark.xdist_group("stack")

ZONE = ZoneInfo("Asia/Tokyo")
ASKS = "approval: required\n"


class Folder:
    """A folder of triggers, the shipped ones among them, and Prefect's view of it."""

    def __init__(self, path: Path, house: House) -> None:
        self.path, self.house = path, house
        self.path.joinpath("triggers").mkdir(parents=True)
        for shipped in (PROJECT / "policies" / "triggers").glob("*.yaml"):
            self.path.joinpath("triggers", shipped.name).write_text(shipped.read_text())

    def write(self, name: str, text: str) -> None:
        head = f"kind: trigger\nname: {name}\ntitle: A test's.\n"
        self.path.joinpath("triggers", f"{name}.yaml").write_text(head + text)

    def remove(self, name: str) -> None:
        self.path.joinpath("triggers", f"{name}.yaml").unlink()

    def policies(self) -> agreeing.Policies:
        triggers = triggering.load(self.path, faults)
        return agreeing.Policies(triggers, queues.load(self.path))

    async def plan(self) -> list[tuple[str, str]]:
        made = await agreeing.plan(self.policies())
        return [(one.action, one.name) for one in made.changes]

    async def apply(self) -> list[tuple[str, str]]:
        made = await agreeing.apply(self.policies())
        return [(one.action, one.name) for one in made.changes]

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        found = self.house.api("GET", f"/deployments/name/{deployment}")
        body = {"deployments": {"id": {"any_": [found["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return list(self.house.api("POST", "/flow_runs/filter", json=body))

    def automations(self) -> list[str]:
        found = self.house.api("POST", "/automations/filter", json={})
        return sorted(one["name"] for one in found)


@pytest_asyncio.fixture
async def folder(house: House, tmp_path: Path) -> AsyncIterator[Folder]:
    with temporary_settings({PREFECT_API_URL: runs.api_url(house.settings)}):
        made = Folder(tmp_path / "policies", house)
        yield made
        await agreeing.apply(agreeing.policies_of(house.settings))


async def test_prefect_agrees_with_the_files_and_nothing_else_is_touched(folder: Folder) -> None:
    house = folder.house
    assert await folder.plan() == []  # `up` has applied what we ship.
    tell = house.api("GET", "/deployments/name/tell/tell")
    others = {"name": "somebody's", "trigger": {"type": "event", "posture": "Reactive"}}
    theirs = house.api("POST", "/automations/", json={**others, "actions": []})

    folder.write("berlin", 'when: {cron: "0 3 * * *", zone: Europe/Berlin}\nrun: check-drift\n')
    folder.write("on-gone", "when: {event: post.gone}\nrun: alert\non_failure: {run: alert}\n")
    added = await folder.apply()
    assert {action for action, _ in added} == {"add"}
    assert ("add", "check-drift/berlin") in added
    assert ("add", "trigger on-gone") in added
    assert await folder.apply() == []

    await house.until(lambda: bool(folder.runs("check-drift/berlin")))
    run = folder.runs("check-drift/berlin")[0]
    starts = datetime.fromisoformat(run["expected_start_time"])
    assert starts.astimezone(ZoneInfo("Europe/Berlin")).strftime("%H:%M") == "03:00"
    assert "trigger:berlin" in run["tags"]

    known = house.api("GET", "/deployments/name/check-drift/berlin")
    house.api("POST", f"/deployments/{known['id']}/pause_deployment")
    folder.write("berlin", 'when: {cron: "0 4 * * *", zone: Europe/Berlin}\nrun: check-drift\n')
    assert await folder.plan() == [("change", "check-drift/berlin")]
    assert await folder.apply() == [("change", "check-drift/berlin")]
    changed = house.api("GET", "/deployments/name/check-drift/berlin")
    assert changed["schedules"][0]["schedule"]["cron"] == "0 4 * * *"
    assert (changed["id"], changed["paused"]) == (known["id"], True)
    assert changed["tags"] != known["tags"]  # Its runs carry the new version.

    folder.remove("berlin")
    folder.remove("on-gone")
    assert {action for action, _ in await folder.apply()} == {"remove"}
    assert await folder.plan() == []
    assert folder.automations() == ["somebody's"]
    assert house.api("GET", "/deployments/name/tell/tell")["updated"] == tell["updated"]
    house.api("DELETE", f"/automations/{theirs['id']}")


async def test_an_apply_that_was_stopped_anywhere_is_completed_by_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("on-gone", "when: {event: post.gone}\nrun: alert\non_failure: {run: alert}\n")
    steps = await folder.plan()
    assert len(steps) == 6
    for stop in range(1, 6):
        with monkeypatch.context() as patched:
            left = [stop]

            def counted(do: Any, left: list[int] = left) -> Any:
                async def step(*given: Any) -> None:
                    await do(*given)
                    left[0] -= 1
                    if left[0] == 0:
                        raise KeyboardInterrupt

                return step

            for name in ("_deploy", "_automate", "_remove"):
                patched.setattr(agreeing, name, counted(getattr(agreeing, name)))
            with pytest.raises(KeyboardInterrupt):
                await folder.apply()
        assert len(await folder.plan()) == len(steps) - stop
        await folder.apply()
        assert await folder.plan() == []
        assert folder.automations() == ["trigger on-gone", "trigger on-gone-failed"]
        folder.write("on-gone", "when: {every: 1 d}\nrun: tell\n")
        await folder.apply()
        assert folder.automations() == []
        folder.write("on-gone", "when: {event: post.gone}\nrun: alert\non_failure: {run: alert}\n")
        folder.house.api("GET", "/deployments/name/tell/on-gone")
        steps = await folder.plan()


async def test_what_happens_starts_a_run_at_once_within_its_conditions(folder: Folder) -> None:
    house, now = folder.house, datetime.now(ZONE)
    what = "{event: post.live, match: {platform: mastodon}}"
    run = "run: reconcile-deliveries\nwith: {delivery: {delivery_id: event.delivery_id}}\n"
    begin, end = now - timedelta(hours=2), now + timedelta(hours=3)
    quiet = f"{{from: '{begin:%H:%M}', to: '{end:%H:%M}', zone: Asia/Tokyo, then: wait}}"
    folder.write("at-once", f"when: {what}\n{run}at_most: 1 an hour\n")
    folder.write("by-day", f"when: {what}\n{run}quiet: {quiet}\n")
    folder.write("silence", "when: {no: post.gone, for: 10 s}\nrun: alert\n")
    # What other tests left to be told is told before anybody listens.
    await house.ended(runs.start(house.settings, "tell", {}))
    await asyncio.sleep(2)
    await folder.apply()
    await asyncio.sleep(1)  # Until Prefect has loaded its new automations.

    post_id = await house.post("canary triggered", "mastodon")
    await house.ended(house.run("publish", post_id))
    [line] = (await house.settled(post_id)).values()
    await house.until(lambda: bool(folder.runs("reconcile-deliveries/at-once")))
    [started] = folder.runs("reconcile-deliveries/at-once")
    assert started["parameters"] == {"delivery": {"delivery_id": line.id}}
    assert {"trigger:at-once"} < set(started["tags"])
    assert any(tag.startswith("policy:") for tag in started["tags"])
    ended = await house.ended(started["id"])
    assert line.live_at is not None
    waited = datetime.fromisoformat(ended["start_time"]) - line.live_at
    assert waited < timedelta(seconds=10)

    await house.until(lambda: bool(folder.runs("reconcile-deliveries/by-day")))
    [later] = folder.runs("reconcile-deliveries/by-day")
    moment = datetime.fromisoformat(later["expected_start_time"])
    assert moment == end.replace(second=0, microsecond=0).astimezone(UTC)

    again = await house.post("canary triggered again", "mastodon")
    await house.ended(house.run("publish", again))
    await house.until(lambda: len(folder.runs("fire/at-once")) == 2)
    skipped = await house.ended(folder.runs("fire/at-once")[1]["id"])
    assert skipped["state"]["message"] == "not started: 1 within the hour already"
    assert len(folder.runs("reconcile-deliveries/at-once")) == 1

    await house.until(lambda: bool(folder.runs("alert/silence")), within=40)
    [alert, *_] = folder.runs("alert/silence")
    assert (await house.ended(alert["id"]))["state"]["message"] == "silence is told"
    assert "canary" not in str([*folder.runs("fire/at-once"), started, later])
    async with get_client() as client:  # What waits for the morning goes with its trigger.
        await client.delete_flow_run(later["id"])


async def test_what_a_trigger_publishes_is_asked_for_before_and_sent_after_its_approval(
    folder: Folder,
) -> None:
    house, words = folder.house, uuid.uuid4().hex
    post_id = await house.post(words, "mastodon/studio")
    when = "when: {every: 30 d}\nat_most: 5 an hour\n"  # The condition puts `fire` before the run.
    folder.write("careful", f"{when}run: publish\nwith: {{post: {{post_id: {post_id}}}}}\n{ASKS}")
    await folder.apply()
    gate = house.api("GET", "/deployments/name/fire/careful")
    fired = house.api("POST", f"/deployments/{gate['id']}/create_flow_run", json={})
    await house.ended(fired["id"])
    assert (await house.store.post(post_id)).approval == "careful"
    [run] = [one for one in folder.runs("publish/careful") if not one["auto_scheduled"]]
    assert APPROVAL in run["tags"]
    await house.ended(run["id"])
    [line] = await house.store.lines(post_id)
    assert line.state is State.AWAITING_APPROVAL
    await house.ended(house.run("publish", post_id))  # Nor does another run send it.
    assert house.there(words) == []
    await approving._decided(house.settings, post_id, [], True, "operator:test", "")
    [line] = (await house.settled(post_id)).values()
    assert line.state is State.LIVE
    assert len(house.there(words)) == 1
