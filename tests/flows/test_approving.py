"""What needs an approval goes out with it and not without, and an old time is a dead time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cli import _changing, approving
from cli._publishing import started
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.media import Cache
from clickpost.people import actor_of
from clickpost.recurrence import Repeat, occurrences, recurrence
from deployments import runs
from tasks import intake, signing_off
from tests.flows.conftest import House

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(150)]

REF = "mastodon/studio"


@pytest_asyncio.fixture
async def strict(house: House) -> AsyncIterator[House]:
    """The stack, with an account whose posts need an approval."""
    await house.store.require_approval(REF, on=True, actor="test")
    yield house
    await house.store.require_approval(REF, on=False, actor="test")


async def question(
    house: House, post_id: str, besides: str = "", keyed: str = ""
) -> dict[str, Any]:
    """Return the run that asks about the post, once it waits (with a form whose key ends so)."""
    sought = {"flow_runs": {"tags": {"all_": [f"post:{post_id}", "question"]}}}
    for _ in range(150):
        for run in house.api("POST", "/flow_runs/filter", json=sought):
            if (
                run["state_name"] == "Suspended"
                and run["id"] != besides
                and _key(run).endswith(keyed)
            ):
                return dict(run)
        await asyncio.sleep(0.2)
    raise AssertionError("nobody asks")


def _key(run: dict[str, Any]) -> str:
    return str(run["state"]["state_details"]["pause_key"])


def answer(house: House, run: dict[str, Any], decision: str) -> None:
    """Decide as an approver does who presses Resume."""
    given = {"run_input": {"decision": decision, "signed": "an"}}
    house.api("POST", f"/flow_runs/{run['id']}/resume", json=given)


async def test_what_was_approved_goes_out_and_what_was_changed_since_does_not(
    strict: House,
) -> None:
    old, new = uuid.uuid4().hex, uuid.uuid4().hex
    post_id = await strict.post(old, REF)
    await strict.ended(strict.run("publish", post_id))
    first = await question(strict, post_id)
    key = first["state"]["state_details"]["run_input_keyset"]["description"]
    words = str(strict.api("GET", f"/flow_runs/{first['id']}/input/{key}"))
    assert post_id in words
    assert REF in words
    assert old not in words
    changed = PostFile(text=new)
    await _changing._edited(strict.settings, post_id, changed, Path(), "operator:test")
    second = await question(strict, post_id, besides=first["id"])
    ended = await strict.ended(first["id"])
    assert ended["state"]["message"].startswith("nothing to approve any more")
    assert strict.there(old) == strict.there(new) == []
    answer(strict, second, "approve")
    assert (await strict.settled(post_id))[REF].state is State.LIVE
    assert (await strict.ended(second["id"]))["state"]["message"] == "approved: 1 live"
    assert (len(strict.there(old)), len(strict.there(new))) == (0, 1)
    *_, approval = await strict.store.approvals_of(post_id)
    assert (approval.verdict, approval.decided_by) == ("approved", "operator:an")


async def test_the_command_line_decides_and_ends_the_question(strict: House) -> None:
    text = uuid.uuid4().hex
    post_id = await strict.post(text, REF)
    await strict.ended(strict.run("publish", post_id))
    run = await question(strict, post_id)
    await approving._decided(strict.settings, post_id, [], False, "operator:test", "not like this")
    line = (await strict.settled(post_id))[REF]
    assert (line.state, line.who_acts) == (State.FAILED, "the writer")
    assert (await strict.ended(run["id"]))["state"]["message"] == "decided on the command line"
    assert strict.there(text) == []


async def test_where_people_are_declared_a_form_takes_a_code_once(strict: House) -> None:
    text, store = uuid.uuid4().hex, strict.store
    post_id = await strict.post(text, REF)
    await strict.ended(strict.run("publish", post_id))
    run = await question(strict, post_id)
    boss = await store.add_person("boss", ["admin", "approver", "operator"], "operator")
    try:
        who = actor_of(boss.person_id)
        answer(strict, run, "approve")  # As somebody whose form was open before.
        again = await question(strict, post_id, keyed="-1")
        assert strict.there(text) == []
        code = (await signing_off.code(store, who, (await store.lines(post_id))[0].id)).code
        given = {"run_input": {"decision": "approve", "code": code}}
        strict.api("POST", f"/flow_runs/{again['id']}/resume", json=given)
        assert (await strict.settled(post_id))[REF].state is State.LIVE
        *_, approval = await store.approvals_of(post_id)
        assert approval.decided_by == who
        down = await strict.ended(strict.run("takedown", post_id))
        assert down["state"]["message"].startswith("nothing was touched: this code is wrong")
        assert len(strict.there(text)) == 1
        code = (await signing_off.code(store, who, post_id, takedown=True)).code
        chosen = {"post": {"post_id": post_id, "code": code}}
        await strict.ended(runs.start(strict.settings, "takedown", chosen))
        assert (await store.lines(post_id))[0].state is State.REMOVED
    finally:
        await store.remove_person("boss", actor_of(boss.person_id))


async def test_a_draft_goes_out_from_the_form(house: House) -> None:
    text = uuid.uuid4().hex
    post_id = await house.post(text, "bluesky/studio", draft=True)
    await house.ended(house.run("publish", post_id))
    assert house.there(text) == []
    chosen = {"post": {"post_id": post_id, "also": "its drafts"}}
    run = await house.ended(runs.start(house.settings, "publish", chosen))
    assert run["state"]["message"] == "1 live"
    assert {f"post:{post_id}", "platform:bluesky"} <= set(run["tags"])  # As of a command.
    assert len(house.there(text)) == 1


async def test_a_rescheduled_post_goes_at_its_new_time_and_the_old_moment_finds_nothing(
    house: House,
) -> None:
    text = uuid.uuid4().hex
    moment = (datetime.now(UTC) + timedelta(seconds=14)).replace(microsecond=0)
    later = moment + timedelta(seconds=8)
    post_id = await house.post(text, "bluesky/studio", at=moment)
    await started(house.settings, house.store, post_id, moment)
    old = str((await house.store.post(post_id)).flow_run_id)
    await _changing._rescheduled(house.settings, post_id, later, "operator:test")
    assert (await house.ended(old))["state"]["message"] == "nothing to do"
    assert house.there(text) == []
    assert (await house.settled(post_id))["bluesky/studio"].state is State.LIVE
    (there,) = house.there(text)
    assert 0 <= there["received_at"] - later.timestamp() < 2


async def test_the_next_posts_of_a_series_are_scheduled_by_the_flow_that_plans_ahead(
    house: House,
) -> None:
    now = datetime.now(UTC)
    repeat = Repeat(rule="FREQ=DAILY;BYHOUR=9", zone="Europe/Berlin", cap=3)
    rule = recurrence(repeat, None, None, now)
    post = PostFile(text=uuid.uuid4().hex, to=["bluesky/studio"], repeat=repeat)
    to = await intake.targets(house.store, post.to)
    new = await intake.brought_in(house.store, Cache(house.settings.media_root), post, [], to)
    begun = await house.store.create_series(new, rule, next(occurrences(rule, now)))
    await house.ended(runs.start(house.settings, "plan-ahead", {}))
    posts = await house.store.posts_of_series(begun.series_id, now)
    assert len(posts) == 2
    for made in posts:
        run = house.api("GET", f"/flow_runs/{made.flow_run_id}")
        assert made.due_at is not None
        assert (run["name"], run["state_name"]) == (
            f"publish-due {made.due_at.isoformat()}",
            "Scheduled",
        )
    await house.store.cancel_series(begun.series_id, actor="test")
