"""Queues and limits on a real server: the worker keeps to them, and changes count at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prefect.settings import PREFECT_API_URL, temporary_settings

from clickpost.policy import triggering
from clickpost.policy.load import load_platforms, narrowed, policy_hash
from clickpost.settings import PROJECT
from clickpost.store.tables import Attempt
from deployments import agreeing, forms, queues, runs
from deployments.triggers import faults
from tests.flows.conftest import House

pytestmark = pytest.mark.xdist_group("stack")

SHIPPED = (PROJECT / "policies" / "running" / "clickpost.yaml").read_text()
SLOW = """\
  slow:
    title: "One at a time."
    priority: 9
    at_once: 1
    flows: [publish-due]
others: house
"""


class Folder:
    """A folder with running policies, and Prefect's view of it."""

    def __init__(self, path: Path, house: House) -> None:
        self.path, self.house = path, house
        self.path.joinpath("running").mkdir(parents=True)
        self.write(SHIPPED)

    def write(self, text: str) -> None:
        self.path.joinpath("running", "clickpost.yaml").write_text(text)

    def policies(self) -> agreeing.Policies:
        return agreeing.Policies(triggering.load(self.path, faults), queues.load(self.path))

    async def apply(self) -> list[tuple[str, str, str]]:
        made = await agreeing.apply(self.policies())
        assert (await agreeing.plan(self.policies())).changes == ()
        return [(one.action, one.kind, one.name) for one in made.changes]

    def queue(self, name: str) -> Any:
        return self.house.api("GET", f"/work_pools/clickpost/queues/{name}")


@pytest_asyncio.fixture
async def folder(house: House, tmp_path: Path) -> AsyncIterator[Folder]:
    with temporary_settings({PREFECT_API_URL: runs.api_url(house.settings)}):
        made = Folder(tmp_path / "policies", house)
        yield made
        await agreeing.apply(agreeing.policies_of(house.settings))


async def test_prefect_agrees_with_queues_and_limits_and_a_pause_is_kept(folder: Folder) -> None:
    house = folder.house
    assert await folder.apply() == []  # `up` has applied what we ship.
    offers = await agreeing.with_choices(folder.policies(), house.settings)
    await agreeing.apply(offers)
    assert (await agreeing.plan(offers)).changes == ()
    assert await folder.apply() == []  # Who does not know what is connected changes no form.
    form = house.api("GET", "/deployments/name/pause-platform/pause-platform")
    choices = form["parameter_openapi_schema"]["definitions"]["PlatformChoice"]["properties"]
    assert {"bluesky", "mastodon"} <= set(choices["platform"]["enum"])
    given = offers.choices
    assert given is not None
    assert forms.refresh(house.settings, given) == 0
    assert forms.refresh(house.settings, {**given, "platforms": ["bluesky"]}) == 2
    assert forms.refresh(house.settings, given) == 2
    assert [folder.queue(name)["priority"] for name in ("due", "now", "heavy")] == [1, 2, 6]
    theirs = {"name": "somebody's", "limit": 3}
    house.api("POST", "/v2/concurrency_limits/", json=theirs)
    house.api("PATCH", "/work_pools/clickpost/queues/heavy", json={"is_paused": True})

    swapped = SHIPPED.replace("priority: 4", "priority: 0").replace("priority: 5", "priority: 4")
    text = swapped.replace("priority: 0", "priority: 5").replace("calls: 20", "calls: 10")
    folder.write(text.replace("at_once: 2", "at_once: 3"))
    assert await folder.apply() == [
        ("change", "queue", "clickpost/preparing"),
        ("change", "queue", "clickpost/house"),
        ("change", "queue", "clickpost/heavy"),
        ("change", "limit", "clickpost:looks"),
    ]
    assert [folder.queue(name)["priority"] for name in ("preparing", "house")] == [4, 5]
    heavy = folder.queue("heavy")
    assert (heavy["concurrency_limit"], heavy["is_paused"]) == (3, True)

    folder.write(SHIPPED[: SHIPPED.index("limits:")])
    assert ("remove", "limit", "clickpost:looks") in await folder.apply()
    folder.write(SHIPPED)
    assert ("add", "limit", "clickpost:looks") in await folder.apply()
    house.api("PATCH", "/work_pools/clickpost/queues/heavy", json={"is_paused": False})
    known = house.api("POST", "/v2/concurrency_limits/filter", json={})
    assert {"somebody's", "clickpost:looks"} <= {one["name"] for one in known}
    house.api("DELETE", "/v2/concurrency_limits/somebody's")


async def test_the_worker_keeps_to_a_queue_until_its_policy_changes(folder: Folder) -> None:
    house = folder.house
    text = SHIPPED.replace("flows: [publish-due]", "flows: []").replace("others: house\n", SLOW)
    # The queues come before `others`.
    folder.write(text)
    assert ("add", "queue", "clickpost/slow") in await folder.apply()
    later = datetime.now(UTC) + timedelta(seconds=40)
    waits = [
        runs.start(house.settings, "publish-due", {"moment": {"at": moment.isoformat()}})
        for moment in (later, later + timedelta(microseconds=1))
    ]

    def states() -> list[str]:
        return [house.api("GET", f"/flow_runs/{one}")["state_type"] for one in waits]

    await house.until(lambda: "RUNNING" in states())
    tell = runs.start(house.settings, "tell", {})
    assert (await house.ended(tell, within=20))["state_type"] == "COMPLETED"
    assert sorted(states()) == ["RUNNING", "SCHEDULED"]  # The one line waits, the other does not.

    folder.write(SHIPPED)
    made = await folder.apply()
    assert ("change", "deployment", "publish-due/publish-due") in made
    assert ("remove", "queue", "clickpost/slow") not in made  # Runs wait in it.
    folder.write(text.replace("at_once: 1\n    flows: [publish-due]", "flows: [publish-due]"))
    await folder.apply()
    await house.until(lambda: states() == ["RUNNING", "RUNNING"])  # No worker was restarted.

    for one in waits:
        cancelling = {"state": {"type": "CANCELLING"}, "force": True}
        house.api("POST", f"/flow_runs/{one}/set_state", json=cancelling)
    for one in waits:
        await house.ended(one)
    folder.write(SHIPPED)
    assert ("remove", "queue", "clickpost/slow") in await folder.apply()


async def test_a_run_ends_under_the_version_with_which_it_began(folder: Folder) -> None:
    house = folder.house
    file = house.settings.policies / "platforms" / "bluesky.yaml"
    known = file.read_text()
    connection = await house.store.connection("bluesky/studio")

    def version() -> str:
        policy = load_platforms(house.settings.policies)["bluesky"]
        return policy_hash(narrowed(policy, connection.limits))

    before = version()
    at = datetime.now(UTC) + timedelta(seconds=8)
    post_id = await house.post("a version of its own", "bluesky/studio", at=at)
    run = runs.start(house.settings, "publish-due", {"moment": {"at": at.isoformat()}})
    try:
        await house.until(lambda: house.api("GET", f"/flow_runs/{run}")["state_type"] == "RUNNING")
        file.write_text(known.replace("title: Bluesky", "title: Bluesky, as of now"))
        assert version() != before
        await house.settled(post_id)
        [attempt] = await _attempts(house, post_id)
        assert attempt.policy_hash == before
        second = await house.post("the next version", "bluesky/studio")
        house.run("publish", second)
        await house.settled(second)
        [attempt] = await _attempts(house, second)
        assert attempt.policy_hash == version()
    finally:
        file.write_text(known)


async def _attempts(house: House, post_id: str) -> list[Attempt]:
    [delivery] = await house.store.deliveries_of(post_id)
    return list(await house.store.attempts_of(delivery.id))
