"""Triggers: what is wrong is said at once, and what is right is said in Prefect's words."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prefect._internal.schemas.validators import normalize_schedule_rrule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.events.schemas.automations import Posture

from clickpost.policy import triggering
from clickpost.policy.load import BrokenPolicies
from clickpost.policy.schema import schema_of
from clickpost.policy.source import Source, read
from clickpost.policy.triggers import ARRIVALS, Trigger, trigger_hash
from clickpost.settings import PROJECT
from clickpost.triggers import APPROVAL
from deployments import agreeing, queues
from deployments.agreeing import Policies, warnings_of
from deployments.triggers import FLOWS, KEEPERS, Automatic, Deployed, faults, wanted_of

FILE = "policies/triggers/parrot.yaml"
PLACES = queues.places_of(queues.load(PROJECT / "policies"))
SHIPPED = sorted((PROJECT / "policies" / "triggers").glob("*.yaml"))

HEAD = "kind: trigger\nname: parrot\ntitle: Squawks.\n"
DAILY = HEAD + 'when: {cron: "0 3 * * *", zone: Europe/Berlin}\nrun: check-drift\n'
REACTS = (
    HEAD
    + "when: {event: post.failed, match: {platform: mastodon}}\n"
    + "run: publish\nwith: {post: {post_id: event.post_id}}\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of policies, seen from its parent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies" / "triggers").mkdir(parents=True)
    return tmp_path / "policies"


def said(folder: Path, text: str) -> list[str]:
    """Write one trigger and return what is wrong with it."""
    (folder / "triggers" / "parrot.yaml").write_text(text)
    return [str(one) for one in triggering.check(folder, faults).problems]


def trigger(text: str) -> Trigger:
    source = read(text, "parrot.yaml")
    assert isinstance(source, Source)
    made = Trigger.model_validate(source.data)
    assert list(faults(source, made)) == []
    return made


def wanted(text: str) -> list[Any]:
    return wanted_of([trigger(text)], PLACES)


PAGE = (PROJECT / "docs" / "how-to" / "triggers.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?kind: trigger.*?)```", PAGE, re.S))
def test_the_examples_of_the_how_to_are_sound(text: str) -> None:
    trigger(text)


@pytest.mark.parametrize("when", re.findall(r"^\| `(\{.*?\})` \|", PAGE, re.M))
def test_the_schedules_of_the_how_to_can_be_followed(when: str) -> None:
    trigger(HEAD + f"when: {when}\nrun: check-drift\n")


def test_what_publishes_with_an_approval_says_so_in_the_tags_of_each_run() -> None:
    target, gate, _ = wanted(REACTS + "approval: required\n")
    assert APPROVAL in target.tags
    assert APPROVAL not in gate.tags
    assert APPROVAL not in wanted(REACTS)[0].tags


LOOKS = HEAD + "when: {feed: 'https://user:canary@a.example/feed', every: 5 min}\n"
POSTS = "post: {to: [mastodon/studio], text: '{title} {link}'}\n"


def test_what_looks_for_arrivals_tells_prefect_nothing_but_its_name_and_version() -> None:
    [look] = wanted(LOOKS + POSTS)
    assert look.full_name == "take-arrivals/parrot"
    assert look.schedule.interval == timedelta(minutes=5)
    version = trigger_hash(trigger(LOOKS + POSTS))
    assert look.parameters == {"inlet": {"trigger": "parrot", "version": version}}
    assert "canary" not in str(look)


def test_what_arrives_may_start_a_flow_with_its_ids() -> None:
    run = "run: publish\nwith: {post: {post_id: event.post_id}}\napproval: required\n"
    target, look = wanted(LOOKS + POSTS + run)
    assert (target.full_name, APPROVAL in target.tags) == ("publish/parrot", True)
    assert look.full_name == "take-arrivals/parrot"


@pytest.mark.parametrize("text", [DAILY, REACTS, LOOKS + POSTS])
def test_a_sound_trigger_has_no_faults(folder: Path, text: str) -> None:
    assert said(folder, text) == []


WRONG = [
    pytest.param(
        LOOKS + POSTS.replace("{link}", "{lnik}"),
        [
            f"{FILE}:5:1: post: there is no {{lnik}} (known: title, link, summary, author);"
            " did you mean 'link'?"
        ],
        id="word of an entry",
    ),
    pytest.param(
        LOOKS.replace("5 min", "5 s") + POSTS,
        [
            f"{FILE}:4:52: when.every: must be at least 60 s; found '5 s'"
            " (How often we look, e.g. 15 min)"
        ],
        id="feed too often",
    ),
    pytest.param(LOOKS, [f"{FILE}:1:1: needs `run`: the flow that runs"], id="nothing to do"),
    pytest.param(
        DAILY + "approval: required\n",
        [f"{FILE}:6:1: approval: goes with a trigger that runs publish; check-drift names no post"],
        id="approval of nothing",
    ),
    pytest.param(
        DAILY.replace("zone", "zoen"),
        [
            f"{FILE}:4:1: when.zone: is missing (IANA zone whose wall clock is meant)",
            f"{FILE}:4:27: when.zoen: unknown key; did you mean 'zone'?"
            " (IANA zone whose wall clock is meant)",
        ],
        id="unknown key",
    ),
    pytest.param(
        DAILY.replace("cron:", "corn:"),
        [
            f"{FILE}:4:1: when.cron: is missing (Minute, hour, day, month, weekday;"
            " e.g. 0 3 * * 1-5)",
            f"{FILE}:4:8: when.corn: unknown key; did you mean 'cron'?"
            " (Minute, hour, day, month, weekday; e.g. 0 3 * * 1-5)",
        ],
        id="misspelt kind",
    ),
    pytest.param(
        DAILY.replace("Europe/Berlin", "Europe/Berln"),
        [
            f"{FILE}:4:27: when.zone: needs an IANA time zone; did you mean 'Europe/Berlin'?;"
            " found 'Europe/Berln' (IANA zone whose wall clock is meant)"
        ],
        id="zone",
    ),
    pytest.param(
        DAILY.replace("0 3 * * *", "0 33 * * *"),
        [f"{FILE}:4:8: when.cron: cannot be followed: Invalid cron string"],
        id="cron that never comes",
    ),
    pytest.param(
        DAILY.replace('cron: "0 3 * * *"', "rrule: FREQ=DAYLY"),
        [f"{FILE}:4:8: when.rrule: cannot be followed: Invalid RRule string"],
        id="rule",
    ),
    pytest.param(
        DAILY.replace('cron: "0 3 * * *"', "rrule: FREQ=DAILY;COUNT=5"),
        [f"{FILE}:4:8: when.rrule: COUNT counts from a DTSTART, and there is none"],
        id="rule that has ended",
    ),
    pytest.param(
        DAILY.replace("check-drift", "chek-drift"),
        [f"{FILE}:5:1: run: there is no flow 'chek-drift'"],
        id="flow",
    ),
    pytest.param(
        REACTS.replace("post.failed", "post.faild"),
        [f"{FILE}:4:8: when.event.0: there is no such event; did you mean 'post.failed'?"],
        id="event",
    ),
    pytest.param(
        REACTS.replace("event.post_id", "event.pots_id"),
        [f"{FILE}:6:1: with: event.pots_id: it tells event.connection_id, event.delivery_id,"],
        id="id of the event",
    ),
    pytest.param(
        REACTS.replace("event.post_id", "event.delivery_id"),
        [f"{FILE}:6:15: with.post.post_id: String should match pattern '^post_[0-9a-z]+$'"],
        id="id of another kind",
    ),
    pytest.param(
        REACTS.replace("post_id:", "postid:"),
        [
            f"{FILE}:6:8: with.post.post_id: is missing",
            f"{FILE}:6:15: with.post.postid: unknown key; did you mean 'post_id'?",
        ],
        id="parameter",
    ),
    pytest.param(
        REACTS.replace("with: {post: {post_id: event.post_id}}\n", ""),
        [f"{FILE}:1:1: with.post: is missing"],
        id="parameter that lacks",
    ),
    pytest.param(
        HEAD + "when: {event: prefect.flow-run.Crashed}\nrun: sweep-deliveries\n",
        [f"{FILE}:4:1: when: prefect.flow-run.Crashed is told of each run, of its own too"],
        id="starts itself",
    ),
    pytest.param(
        HEAD + "when: {event: prefect.flow-run.Crashed, match: {flow: tell}}\nrun: tell\n",
        [f"{FILE}:4:41: when.match: it would start itself, again and again"],
        id="starts itself by name",
    ),
    pytest.param(
        HEAD + "when: {no: post.live, for: 5 s}\nrun: alert\n",
        [f"{FILE}:4:23: when.for: must be at least 10 s; found '5 s'"],
        id="absence",
    ),
    pytest.param(
        HEAD + "when: {mailbox: a.example, login: desk, every: 1 min, security: starttls}\n"
        "run: alert\n",
        [f"{FILE}:4:1: when: port 993 speaks TLS from the first; say `port: 143`"],
        id="a port that speaks otherwise",
    ),
    pytest.param(
        HEAD + "when: {socket: inbox}\nrun: alert\n",
        [
            f"{FILE}:4:1: when: needs one of the keys cron, every, rrule, event, no, webhook,"
            " feed, folder, mailbox"
        ],
        id="a kind that there is not",
    ),
    pytest.param(
        DAILY + "at_most: 5\nquiet: {from: '22:00', to: '24:00', zone: UTC}\n",
        [
            f"{FILE}:6:1: at_most: needs a number and its unit, e.g. 5 an hour; found 5",
            f"{FILE}:7:24: quiet.to: needs a time of day as HH:MM, in quotes; found '24:00'",
        ],
        id="all at once",
    ),
    pytest.param(
        DAILY.replace("name: parrot", "name: polly"),
        [f"{FILE}:2:1: name: must be the file's name, 'parrot'; found 'polly'"],
        id="name",
    ),
    pytest.param(
        DAILY.replace("kind: trigger", "kind: tigger"),
        [f"{FILE}:1:1: kind: must be `trigger` in this folder; found 'tigger'"],
        id="kind",
    ),
]


@pytest.mark.parametrize(("text", "begins"), WRONG)
def test_what_is_wrong_is_said_with_its_place(folder: Path, text: str, begins: list[str]) -> None:
    found = said(folder, text)
    assert len(found) == len(begins), found
    for one, begin in zip(found, begins, strict=True):
        assert one.startswith(begin), one


def test_a_trigger_is_not_named_as_its_flow(folder: Path) -> None:
    text = DAILY.replace("name: parrot", "name: check-drift")
    (folder / "triggers" / "check-drift.yaml").write_text(text)
    [found] = triggering.check(folder, faults).problems
    assert found.message.startswith("must be another name than its flow's")
    with pytest.raises(BrokenPolicies):
        triggering.load(folder, faults)


def test_a_folder_without_triggers_keeps_the_house_with_ours(tmp_path: Path) -> None:
    assert [one.name for one in triggering.load(tmp_path)] == [path.stem for path in SHIPPED]
    (tmp_path / "triggers").mkdir()
    assert triggering.load(tmp_path) == []
    assert len(list(warnings_of(Policies([], [], 0)))) == len(KEEPERS)


def test_the_shipped_triggers_are_sound_and_keep_the_house() -> None:
    found = triggering.load(PROJECT / "policies", faults)
    assert list(warnings_of(Policies(found, [], 0))) == []
    assert {one.run for one in found} >= set(KEEPERS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_an_editor_knows_what_we_ship(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=../schemas/trigger.schema.json\n")
    source = read(text, path.name)
    assert isinstance(source, Source)
    jsonschema.Draft202012Validator(json.loads(schema_of("trigger"))).validate(source.data)


@pytest.mark.parametrize(
    ("when", "schedule"),
    [
        (
            '{cron: "0 3 * * *", zone: Europe/Berlin}',
            CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin"),
        ),
        (
            "{rrule: FREQ=DAILY;BYHOUR=9, zone: Asia/Tokyo}",
            RRuleSchedule(rrule="FREQ=DAILY;BYHOUR=9", timezone="Asia/Tokyo"),
        ),
    ],
)
def test_a_schedule_keeps_its_zone(when: str, schedule: object) -> None:
    [one] = wanted(HEAD + f"when: {when}\nrun: check-drift\n")
    assert isinstance(one, Deployed)
    assert (one.full_name, one.schedule) == ("check-drift/parrot", schedule)


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9",
        "RRULE:FREQ=WEEKLY;INTERVAL=2",
        "FREQ=MINUTELY;INTERVAL=7",
        r"DTSTART:20270101T090000\nRRULE:FREQ=DAILY;COUNT=5",
        r"DTSTART:20270101T090000\nRRULE:FREQ=MINUTELY",
    ],
)
def test_a_rule_that_prefect_gave_a_start_is_the_same_rule(rule: str) -> None:
    [one] = wanted(HEAD + f'when: {{rrule: "{rule}", zone: Asia/Tokyo}}\nrun: check-drift\n')
    kept = normalize_schedule_rrule(one.schedule)
    assert "DTSTART" in kept.rrule
    assert agreeing._said(kept) == agreeing._said(one.schedule)
    other = one.schedule.model_copy(update={"rrule": kept.rrule.replace("T090000", "T100000")})
    assert (agreeing._said(other) == agreeing._said(kept)) is ("T090000" not in rule)


def test_an_interval_is_one() -> None:
    [one] = wanted(HEAD + "when: {every: 5 min}\nrun: check-drift\n")
    assert isinstance(one.schedule, IntervalSchedule)
    assert one.schedule.interval == timedelta(minutes=5)


def test_each_run_is_stamped_with_trigger_and_version() -> None:
    for text in (DAILY, REACTS):
        stamp = {"trigger:parrot", f"policy:{trigger_hash(trigger(text))}"}
        for one in wanted(text):
            assert stamp <= set(one.tags), one
            assert one.description.endswith(
                f"Made by `clickpost policy apply` from triggers/parrot.yaml, version"
                f" {trigger_hash(trigger(text))}."
            )


def test_another_content_is_another_version() -> None:
    assert trigger_hash(trigger(DAILY)) != trigger_hash(trigger(DAILY.replace("0 3", "0 4")))


def test_a_reaction_goes_through_the_gate_and_carries_ids_only() -> None:
    target, gate, automation = wanted(REACTS)
    assert (target.full_name, gate.full_name) == ("publish/parrot", "fire/parrot")
    rule = gate.parameters["rule"]
    assert rule["parameters"] == {"post": {"post_id": "event.post_id"}}
    assert (rule["deployment"], rule["at_most"]) == ("publish/parrot", 60)
    assert isinstance(automation, Automatic)
    assert automation.runs == gate.full_name
    assert automation.trigger.posture is Posture.Reactive
    assert automation.trigger.expect == {"post.failed"}
    templates = [one["template"] for one in automation.parameters["event"].values()]
    assert not any("payload" in one or "name" in one for one in templates)


def test_a_webhook_is_the_event_that_the_gateway_makes_of_it() -> None:
    *_, automation = wanted(HEAD + "when: {webhook: cms}\nrun: sweep-deliveries\n")
    assert automation.trigger.expect == {"hook.cms"}
    assert automation.trigger.posture is Posture.Reactive
    assert "event" in automation.parameters  # The same call twice starts one run.


def test_an_absence_is_watched_for_its_time() -> None:
    *_, automation = wanted(HEAD + "when: {no: post.live, for: 24 h}\nrun: alert\n")
    assert automation.trigger.posture is Posture.Proactive
    assert automation.trigger.within == timedelta(hours=24)
    assert automation.trigger.after == {"post.live"}, "its time begins anew with each one"


def test_conditions_put_the_gate_before_a_schedule() -> None:
    quiet = "quiet: {from: '22:00', to: '07:00', zone: Europe/Berlin, then: skip}\n"
    target, gate = wanted(DAILY + quiet)
    assert target.schedule is None
    assert isinstance(gate.schedule, CronSchedule)
    assert gate.parameters["rule"]["quiet"] == {
        "begin": "22:00", "end": "07:00", "zone": "Europe/Berlin", "waits": False
    }  # fmt: skip


def test_a_failure_is_followed_by_what_the_file_says() -> None:
    found = wanted(DAILY + "on_failure: {run: alert}\n")
    names = [one.full_name if isinstance(one, Deployed) else one.name for one in found]
    assert names == [
        "check-drift/parrot", "alert/parrot-failed", "fire/parrot-failed", "trigger parrot-failed"
    ]  # fmt: skip
    [automation] = [one for one in found if isinstance(one, Automatic)]
    assert "prefect.flow-run.Crashed" in automation.trigger.expect
    assert "prefect.tag.trigger:parrot" in str(automation.trigger.match_related)


KINDS = {
    "cron": 'cron: "0 3 * * *", zone: Europe/Berlin',
    "every": "every: 5 min",
    "rrule": "rrule: FREQ=DAILY;BYHOUR=9, zone: Asia/Tokyo",
    "event": "event: post.failed",
    "absence": "no: post.live, for: 24 h",
    "webhook": "webhook: cms",
    "feed": "feed: 'https://a.example/feed', every: 5 min",
    "folder": "folder: /srv/outbox, every: 30 s",
    "mailbox": "mailbox: imap.example.org, login: desk, every: 1 min",
}
CONDITIONS = (
    "quiet: {from: '22:00', to: '07:00', zone: Europe/Berlin}\n"
    "at_most: 7 an hour\non_failure: {run: alert}\n"
)


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_and_what_follows_a_failure_hold_for_every_kind(kind: str) -> None:
    text = f"{HEAD}when: {{{KINDS[kind]}}}\nrun: check-drift\n"
    found = wanted(text + CONDITIONS)
    deployed = {one.full_name: one for one in found if isinstance(one, Deployed)}
    automatic = {one.name: one for one in found if isinstance(one, Automatic)}
    failed = automatic.pop("trigger parrot-failed")
    assert failed.runs == "fire/parrot-failed"
    assert deployed["fire/parrot-failed"].parameters["rule"]["at_most"] == 60
    assert failed.trigger.expect == {
        f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")
    }
    [meant] = failed.trigger.match_related
    tag = meant.root["prefect.resource.id"][0].removeprefix("prefect.tag.")
    of_it = [one for name, one in deployed.items() if name.endswith("/parrot")]
    assert [tag in one.tags for one in of_it] == [True, True]
    # Nothing but what knows the conditions starts the run.
    assert deployed["check-drift/parrot"].schedule is None
    if kind in ARRIVALS:
        plain = {one.full_name: one for one in wanted(text) if isinstance(one, Deployed)}
        look, before = deployed["take-arrivals/parrot"], plain["take-arrivals/parrot"]
        assert look.schedule is not None
        assert automatic == {}
        # It reads them in the file, and only in the one that was applied.
        assert look.parameters["inlet"]["version"] != before.parameters["inlet"]["version"]
        return
    gate = deployed["fire/parrot"]
    rule = gate.parameters["rule"]
    assert (rule["deployment"], rule["at_most"]) == ("check-drift/parrot", 7)
    assert rule["quiet"] == {
        "begin": "22:00", "end": "07:00", "zone": "Europe/Berlin", "waits": True
    }  # fmt: skip
    assert (gate.schedule is None) == bool(automatic)
    assert {one.runs for one in automatic.values()} <= {gate.full_name}


def test_every_flow_but_those_that_triggers_are_made_of_can_be_run_by_a_trigger(
    folder: Path,
) -> None:
    for flow in FLOWS:
        found = said(folder, DAILY.replace("check-drift", flow))
        unknown = any("there is no flow" in one for one in found)
        assert unknown == (flow in ("fire", "take-arrivals")), (flow, found)
