"""Running policies: what is wrong is said at once, and nothing that we ship holds up a due post."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clickpost.policy.load import BrokenPolicies
from clickpost.policy.running import ASKED, Limit
from clickpost.settings import PROJECT, Settings
from deployments import queues
from deployments.registry import DEPLOYMENTS

FILE = "policies/running/clickpost.yaml"
SOUND = """\
kind: running
name: clickpost
title: All of it.
queues:
  due: {title: Due., priority: 1, flows: [publish-due]}
  rest: {title: The rest., priority: 2, at_once: 3}
others: rest
limits:
  looks: {title: Looks., calls: 5, per: 1 s}
"""
SECOND = """\
kind: running
name: studio
title: Another machine.
queues:
  encodes: {title: Encodes., priority: 1, flows: [prepare]}
"""
PAGE = (PROJECT / "docs" / "how-to" / "run-at-once.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of policies, seen from its parent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies" / "running").mkdir(parents=True)
    return tmp_path / "policies"


def said(folder: Path, text: str, second: str = "") -> list[str]:
    (folder / "running" / "clickpost.yaml").write_text(text)
    if second:
        (folder / "running" / "studio.yaml").write_text(second)
    return [str(one) for one in queues.check(folder).problems]


def test_a_sound_policy_and_a_second_pool_have_no_faults(folder: Path) -> None:
    assert said(folder, SOUND) == []
    assert said(folder, SOUND, SECOND) == []
    places = queues.places_of(queues.load(folder))
    assert places.of("publish-due") == ("clickpost", "due")
    assert places.of("prepare") == ("studio", "encodes")
    assert places.of("tell") == ("clickpost", "rest")


WRONG = [
    pytest.param(
        SOUND.replace("priority: 2", "prioriti: 2"),
        [
            f"{FILE}:6:3: queues.rest.priority: is missing"
            " (Who is first where several wait: 1 before 2)",
            f"{FILE}:6:28: queues.rest.prioriti: unknown key; did you mean 'priority'?"
            " (Who is first where several wait: 1 before 2)",
        ],
        id="unknown key",
    ),
    pytest.param(
        SOUND.replace("priority: 2", "priority: 1"),
        [f"{FILE}:6:28: queues.rest.priority: 1 is the priority of due; each queue has its own"],
        id="priority twice",
    ),
    pytest.param(
        SOUND.replace("[publish-due]", "[publish-dew]"),
        [f"{FILE}:5:43: queues.due.flows.0: there is no flow 'publish-dew'"],
        id="flow",
    ),
    pytest.param(
        SOUND.replace("at_once: 3", "at_once: 3, flows: [tell, publish-due, tell]"),
        [
            f"{FILE}:6:67: queues.rest.flows.1: is said already, in {FILE}:5:43",
            f"{FILE}:6:80: queues.rest.flows.2: is said already, in {FILE}:6:61",
        ],
        id="flow twice",
    ),
    pytest.param(
        SOUND.replace("others: rest", "others: rst"),
        [f"{FILE}:7:1: others: there is no queue 'rst'"],
        id="queue",
    ),
    pytest.param(
        SOUND.replace("others: rest\n", ""),
        [f"{FILE}:1:1: others: no file says in which queue all other flows wait"],
        id="no queue for others",
    ),
    pytest.param(
        SOUND.replace("looks:", "look:"),
        [f"{FILE}:9:3: limits.look: there is no limit that is asked for 'look'"],
        id="limit that nobody asks",
    ),
    pytest.param(
        SOUND.replace("per: 1 s", "per: 1"),
        [f"{FILE}:9:36: limits.looks.per: needs a number with a unit (ms, s, min, h, d)"],
        id="unit",
    ),
    pytest.param(
        SOUND.replace(", per: 1 s", ""),
        [f"{FILE}:9:3: limits.looks: `calls` and `per` belong together"],
        id="half a rate",
    ),
    pytest.param(
        SOUND.replace("name: clickpost", "name: clickpots"),
        [f"{FILE}:2:1: name: must be the file's name, 'clickpost'; found 'clickpots'"],
        id="name",
    ),
    pytest.param(
        SOUND.replace("  due:", "  default:"),
        [f"{FILE}:5:3: queues.default: is the name of Prefect's own queue; choose another"],
        id="Prefect's own queue",
    ),
    pytest.param(
        SOUND.replace("kind: running", "kind: runing"),
        [f"{FILE}:1:1: kind: must be `running` in this folder; found 'runing'"],
        id="kind",
    ),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_what_is_wrong_is_said_with_its_place(folder: Path, text: str, expected: list[str]) -> None:
    found = said(folder, text)
    for one, begin in zip(found, expected, strict=True):
        assert one.startswith(begin)
    with pytest.raises(BrokenPolicies):
        queues.load(folder)


def test_a_rate_is_slots_that_come_free_by_themselves() -> None:
    rate = Limit.model_validate({"title": "T", "calls": 30, "per": "1 min"})
    assert (rate.slots, rate.decay) == (30, 0.5)
    places = Limit.model_validate({"title": "T", "at_once": 2})
    assert (places.slots, places.decay) == (2, 0.0)


def test_what_we_ship_leaves_room_for_posts_that_are_due() -> None:
    shipped = queues.load(PROJECT / "policies")
    assert list(queues.warnings_of(shipped, Settings().worker_limit)) == []
    assert {name for one in shipped for name in one.limits} == set(ASKED)
    places = queues.places_of(shipped)
    alone = places.of("publish-due")
    assert [one.flow.name for one in DEPLOYMENTS if places.of(one.flow.name) == alone] == [
        "publish-due"
    ]


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        (SOUND.replace("at_once: 3", "at_once: 24"), "the queues beside due may run 24 at once"),
        (SOUND.replace(", at_once: 3", ""), "a queue beside due has no limit"),
        (SOUND.replace("priority: 1,", "priority: 1, at_once: 2,"), "posts that are due wait for"),
        (SOUND.replace("priority: 1", "priority: 7"), "posts that are due wait behind others"),
        (SOUND.replace("[publish-due]", "[publish-due, tell]"), "posts that are due wait with"),
    ],
)
def test_what_may_hold_up_a_due_post_is_a_warning(folder: Path, text: str, begin: str) -> None:
    assert said(folder, text) == []
    [warning] = queues.warnings_of(queues.load(folder), 24)
    assert warning.startswith(begin)


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?kind: running.*?)```", PAGE, re.S))
def test_the_examples_of_the_how_to_are_sound(folder: Path, text: str) -> None:
    name = re.search(r"^name: (.*)$", text, re.M)
    assert name is not None
    (folder / "running" / f"{name[1]}.yaml").write_text(text)
    if name[1] != "clickpost":
        (folder / "running" / "clickpost.yaml").write_text(SOUND)
    assert queues.check(folder).problems == []
