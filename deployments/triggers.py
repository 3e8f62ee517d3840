"""Says triggers in Prefect's words: deployments with schedules, and automations that run them."""

from __future__ import annotations

import difflib
import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from clickpost import arrivals, hooks
from clickpost.policy.arriving import ByArrival
from clickpost.policy.load import faults_in
from clickpost.policy.source import Path_, Problem, Source
from clickpost.policy.triggers import (
    MOST_AN_HOUR,
    ByCron,
    ByInterval,
    ByRule,
    Match,
    OnAbsence,
    OnEvent,
    OnFailure,
    OnWebhook,
    Quiet,
    Trigger,
    trigger_hash,
)
from clickpost.triggers import APPROVAL, SOURCES, filled, sources_in
from deployments import forms
from deployments.queues import Places
from deployments.registry import DEPLOYMENTS, Spec

FLOWS: Mapping[str, Spec] = {spec.flow.name: spec for spec in DEPLOYMENTS}
#: The flow that stands between a trigger with conditions and its run.
GATE = "fire"
#: The flow that looks for what arrives.
LOOK = "take-arrivals"
#: The flows whose posts a trigger may hold until they are approved.
PUBLISHERS = ("publish",)
#: So ends the description of all that we make; what does not end so is never touched.
MADE = "Made by `clickpost policy apply` from triggers/{name}.yaml, version {version}."
#: And so that of a flow's own deployment, which every flow has.
MADE_OWN = "Made by `clickpost policy apply`."
#: What keeps the house: without a schedule, posts that got stuck stay so.
KEEPERS = ("sweep-deliveries", "reconcile-deliveries", "plan-ahead", "tell", "check-drift")

Schedule = CronSchedule | IntervalSchedule | RRuleSchedule

_FAILED = tuple(f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut"))
#: Names of resources only; a payload never passes.
_HAPPENED = {
    "id": {"__prefect_kind": "jinja", "template": "{{ event.id }}"},
    "resources": {
        "__prefect_kind": "jinja",
        "template": "{{ event.resource.id }} {{ event.related | map(attribute='id') | join(' ') }}",
    },
}


@dataclass(frozen=True)
class Deployed:
    """A deployment as a trigger wants it."""

    spec: Spec
    name: str
    tags: tuple[str, ...]
    description: str
    parameters: Mapping[str, Any]
    place: tuple[str, str]
    """Work pool and queue."""
    schedule: Schedule | None = None
    choices: forms.Choices | None = None
    """What its form offers."""

    @property
    def full_name(self) -> str:
        """Return FLOW/NAME."""
        return f"{self.spec.flow.name}/{self.name}"

    @property
    def form(self) -> dict[str, Any]:
        """Return the JSON schema of the flow's parameters, with what there is to choose."""
        schema = parameter_schema(self.spec.flow).model_dump(exclude_unset=True)
        made: dict[str, Any] = forms.filled(schema, self.choices)
        return made


@dataclass(frozen=True)
class Automatic:
    """An automation as a trigger wants it; `runs` is the deployment, FLOW/NAME."""

    name: str
    tags: tuple[str, ...]
    description: str
    trigger: EventTrigger
    runs: str
    parameters: Mapping[str, Any]


Wanted = Deployed | Automatic


def own_of(places: Places) -> list[Deployed]:
    """Return the deployment that each flow has of its own, for people and for our commands."""
    return [
        Deployed(
            spec,
            spec.flow.name,
            spec.tags,
            f"{spec.description}\n\n{MADE_OWN}",
            {},
            places.of(spec.flow.name),
        )
        for spec in DEPLOYMENTS
    ]


def wanted_of(triggers: Iterable[Trigger], places: Places) -> list[Wanted]:
    """Return all that the triggers want Prefect to have, deployments first."""
    found = [one for trigger in triggers for one in _wanted_of(trigger, places)]
    return sorted(found, key=lambda one: isinstance(one, Automatic))


def _wanted_of(trigger: Trigger, places: Places) -> Iterator[Wanted]:
    version = trigger_hash(trigger)
    approval = trigger.approval is not None
    made = _Making(trigger.name, trigger.name, version, trigger.title, places, approval)
    when = trigger.when
    if isinstance(when, ByArrival):
        yield from made.look(when, trigger.run, trigger.with_)
    elif trigger.run is None:
        raise AssertionError("only what arrives may need no flow")
    elif isinstance(when, OnEvent | OnAbsence | OnWebhook):
        at_most = trigger.at_most or MOST_AN_HOUR
        yield from made.reaction(when, trigger.run, trigger.with_, trigger.quiet, at_most)
    elif trigger.quiet is not None or trigger.at_most is not None:
        target = made.deployed(trigger.run, trigger.with_)
        rule = made.rule(target, trigger.with_, trigger.quiet, trigger.at_most)
        yield target
        yield made.deployed(GATE, {"rule": rule}, schedule_of(when))
    else:
        yield made.deployed(trigger.run, trigger.with_, schedule_of(when))
    if trigger.on_failure is not None:
        yield from _on_failure(trigger, trigger.on_failure, places)


def _on_failure(trigger: Trigger, wish: OnFailure, places: Places) -> Iterator[Wanted]:
    title = f"A run of {trigger.name} failed: {trigger.title}"
    version = trigger_hash(trigger)
    approval = trigger.approval is not None
    made = _Making(failed_name(trigger.name), trigger.name, version, title, places, approval)
    when = OnEvent(event=list(_FAILED), match=Match(trigger=[trigger.name]))
    yield from made.reaction(when, wish.run, wish.with_, None, MOST_AN_HOUR)


def failed_name(name: str) -> str:
    """Return the name under which runs what follows a failure of trigger `name`."""
    return f"{name}-failed"


@dataclass(frozen=True)
class _Making:
    """Makes what the trigger `name` of `file` wants."""

    name: str
    file: str
    version: str
    title: str
    places: Places
    approval: bool = False

    @property
    def tags(self) -> tuple[str, ...]:
        return (f"trigger:{self.name}", f"policy:{self.version}")

    def said(self, more: str = "") -> str:
        made = MADE.format(name=self.file, version=self.version)
        return "\n\n".join(part for part in (self.title, more, made) if part)

    def deployed(
        self, flow: str, parameters: Mapping[str, Any], schedule: Schedule | None = None
    ) -> Deployed:
        spec = FLOWS[flow]
        description = self.said(spec.description)
        place = self.places.of(flow)
        tags = self.tags_of(spec)
        return Deployed(spec, self.name, tags, description, parameters, place, schedule)

    def tags_of(self, spec: Spec) -> tuple[str, ...]:
        gate = (APPROVAL,) if self.approval and spec.flow.name in PUBLISHERS else ()
        return (*spec.tags, *self.tags, *gate)

    def rule(
        self,
        target: Deployed,
        parameters: Mapping[str, Any],
        quiet: Quiet | None,
        at_most: int | None,
    ) -> dict[str, Any]:
        return {
            "trigger": self.name,
            "deployment": target.full_name,
            "parameters": dict(parameters),
            "quiet": quiet and _quiet_of(quiet),
            "at_most": at_most,
        }

    def look(
        self, when: ByArrival, flow: str | None, parameters: Mapping[str, Any]
    ) -> Iterator[Wanted]:
        """Yield what looks again and again, and what it starts for each thing that arrived.

        Where it looks stays in the file: an address may hold what nobody else should read.
        """
        if flow is not None:
            yield self.deployed(flow, {} if sources_in(parameters) else parameters)
        inlet = {"trigger": self.name, "version": self.version}
        yield self.deployed(LOOK, {"inlet": inlet}, IntervalSchedule(interval=when.every))

    def reaction(
        self,
        when: OnEvent | OnAbsence | OnWebhook,
        flow: str,
        parameters: Mapping[str, Any],
        quiet: Quiet | None,
        at_most: int,
    ) -> Iterator[Wanted]:
        """Yield what runs `flow` in reaction: its deployment, the gate before it, the automation.

        The event's ids come with each run; as a default of the deployment they would be no ids.
        """
        target = self.deployed(flow, {} if sources_in(parameters) else parameters)
        rule = self.rule(target, parameters, quiet, at_most)
        gate = self.deployed(GATE, {"rule": rule})
        happened = {} if isinstance(when, OnAbsence) else {"event": _HAPPENED}
        yield target
        yield gate
        yield Automatic(
            f"trigger {self.name}",
            self.tags,
            self.said(),
            event_trigger_of(when),
            gate.full_name,
            happened,
        )


def _quiet_of(quiet: Quiet) -> dict[str, Any]:
    return {
        "begin": f"{quiet.from_:%H:%M}",
        "end": f"{quiet.to:%H:%M}",
        "zone": quiet.zone,
        "waits": quiet.then == "wait",
    }


def schedule_of(when: ByCron | ByInterval | ByRule) -> Schedule:
    """Say a schedule in Prefect's words; raise ValidationError for what Prefect cannot follow."""
    match when:
        case ByCron():
            return CronSchedule(cron=when.cron, timezone=when.zone)
        case ByInterval():
            return IntervalSchedule(interval=when.every, timezone=when.zone)
        case ByRule():
            return RRuleSchedule(rrule=when.rrule.removeprefix("RRULE:"), timezone=when.zone)


def event_trigger_of(when: OnEvent | OnAbsence | OnWebhook) -> EventTrigger:
    """Say in Prefect's words what happens, or does not."""
    if isinstance(when, OnWebhook):
        expect = {hooks.event_of(when.webhook)}
        return EventTrigger(posture=Posture.Reactive, within=timedelta(0), expect=expect)
    match, related = _labels_of(when.match)
    common: dict[str, Any] = {
        "expect": set(when.event if isinstance(when, OnEvent) else when.no),
        "match": match,
        "match_related": related,
        "threshold": 1,
    }
    if isinstance(when, OnEvent):
        # Each event by itself, also two at once about the same thing.
        return EventTrigger(posture=Posture.Reactive, within=timedelta(0), **common)
    # Each such event begins the time anew. Without `after`, Prefect looks at one span after the
    # other, and a silence is told only once it fills a whole one: after up to twice the time.
    return EventTrigger(
        posture=Posture.Proactive, within=when.within, after=common["expect"], **common
    )


def _labels_of(match: Match) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the labels of the event's own resource, and of those that it is related to."""
    own: dict[str, Any] = {"clickpost.platform": match.platform} if match.platform else {}
    related = [
        {"prefect.resource.role": role, "prefect.resource.id": [_resource(role, i) for i in ids]}
        for role, ids in (("connection", match.connection), ("post", match.post))
        if ids
    ]
    if match.flow:
        related.append({"prefect.resource.role": "flow", "prefect.resource.name": match.flow})
    if match.trigger:
        tags = [f"prefect.tag.trigger:{name}" for name in match.trigger]
        related.append({"prefect.resource.role": "tag", "prefect.resource.id": tags})
    return own, related


def _resource(role: str, one: str) -> str:
    return f"clickpost.{role}.{one}"


def faults(source: Source, trigger: Trigger) -> Iterator[Problem]:
    """Yield what is wrong with a trigger in view of the flows, their parameters and Prefect."""
    when = trigger.when
    if trigger.name in (trigger.run, LOOK):
        said = "must be another name than its flow's, which is that of the flow's own deployment"
        yield source.problem(("name",), said)
    if isinstance(when, OnEvent | OnAbsence):
        yield from _unmatchable(source, trigger, when)
    elif not isinstance(when, OnWebhook | ByArrival):
        yield from _unschedulable(source, when)
    if trigger.approval and not trigger.makes_posts and trigger.run not in PUBLISHERS:
        said = (
            f"goes with a trigger that runs {' or '.join(PUBLISHERS)}; {trigger.run} names no post"
        )
        yield source.problem(("approval",), said)
    yield from _unfillable(source, trigger)
    if trigger.run is not None:
        yield from _unrunnable(source, trigger.run, trigger.with_, _told_to(trigger), ())
    if (wish := trigger.on_failure) is not None:
        yield from _unrunnable(source, wish.run, wish.with_, _given(_FAILED), ("on_failure",))


def _told_to(trigger: Trigger) -> set[str]:
    """Return the ids that a run of the trigger may be told."""
    if isinstance(trigger.when, OnEvent):
        return _given(trigger.when.event)
    if isinstance(trigger.when, ByArrival):
        return {"event.arrival_id"} | ({"event.post_id"} if trigger.makes_posts else set())
    return set()


def _unfillable(source: Source, trigger: Trigger) -> Iterator[Problem]:
    if trigger.post is None or not isinstance(trigger.when, ByArrival):
        return
    known = arrivals.words_of(trigger.when)
    for word in sorted(arrivals.asked(trigger.post) - set(known)):
        near = difflib.get_close_matches(word, known, n=1)
        said = f"there is no {{{word}}} (known: {', '.join(known)})"
        yield source.problem(("post",), said, "", near[0] if near else "")


def _unrunnable(
    source: Source, flow: str, parameters: Mapping[str, Any], given: set[str], under: Path_
) -> Iterator[Problem]:
    if flow not in FLOWS or flow in (GATE, LOOK):
        known = sorted(set(FLOWS) - {GATE, LOOK})
        yield _unknown(source, (*under, "run"), "flow", flow, known)
        return
    place = (*under, "with")
    asked = sources_in(parameters)
    for one in sorted(asked - given):
        near = difflib.get_close_matches(one, given, n=1)
        told = ", ".join(sorted(given)) or "no ids"
        yield source.problem(place, f"{one}: it tells {told}", "", near[0] if near else "")
    if asked <= given:
        tried = filled(parameters, SOURCES)
        yield from faults_in(source, parameters_of(FLOWS[flow].flow), tried, place)


def _given(events: Iterable[str]) -> set[str]:
    """Return the ids that all of these events tell."""
    return set.intersection(*(_told_by(event) for event in events))


def _told_by(event: str) -> set[str]:
    if event.startswith("prefect.flow-run."):
        return {"event.flow_run_id"}
    if event.startswith(("feed.", "media.", "mail.")):
        return {"event.arrival_id"}
    if event.startswith(("connection.", "guard.")):
        return {"event.connection_id"}
    if event.startswith(("post.", "delivery.")):
        return {"event.post_id", "event.delivery_id", "event.connection_id"}
    return set()


_MATCHES = {
    "platform": ("post.", "delivery.", "connection.", "guard."),
    "connection": ("post.", "delivery."),
    "post": ("post.", "delivery."),
    "flow": ("prefect.flow-run.",),
    "trigger": ("prefect.flow-run.",),
}


def _unmatchable(source: Source, trigger: Trigger, when: OnEvent | OnAbsence) -> Iterator[Problem]:
    events = when.event if isinstance(when, OnEvent) else when.no
    for key, kinds in _MATCHES.items():
        strange = [event for event in events if not event.startswith(kinds)]
        if getattr(when.match, key) and strange:
            yield source.problem(("when", "match", key), f"{strange[0]} does not tell its {key}")
    for number, flow in enumerate(when.match.flow or ()):
        if flow not in FLOWS:
            yield _unknown(source, ("when", "match", "flow", number), "flow", flow, FLOWS)
    runs = [event for event in events if event.startswith("prefect.flow-run.")]
    if not runs or not isinstance(when, OnEvent):
        return
    if when.match.flow is None and when.match.trigger is None:
        said = f"{runs[0]} is told of each run, of its own too; say `match: {{flow: …}}`"
        yield source.problem(("when",), said)
    elif {trigger.run, GATE} & set(when.match.flow or ()) or trigger.name in (
        when.match.trigger or ()
    ):
        yield source.problem(("when", "match"), "it would start itself, again and again")


def _unschedulable(source: Source, when: ByCron | ByInterval | ByRule) -> Iterator[Problem]:
    key = {ByCron: "cron", ByInterval: "every", ByRule: "rrule"}[type(when)]
    try:
        schedule_of(when)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        yield source.problem(("when", key), f"cannot be followed: {said}")
    if isinstance(when, ByRule) and _COUNTS.search(when.rrule):
        said = "COUNT counts from a DTSTART, and there is none: it would have ended long ago"
        yield source.problem(("when", key), said)


#: A rule without a start begins in 2020 for Prefect.
_COUNTS = re.compile(r"\A(?!.*\bDTSTART\b).*\bCOUNT=", re.IGNORECASE | re.DOTALL)


def _unknown(source: Source, place: Path_, what: str, word: str, known: Iterable[str]) -> Problem:
    near = difflib.get_close_matches(word, list(known), n=1)
    said = f"there is no {what} {word!r} (known: {', '.join(known)})"
    return source.problem(place, said, "", near[0] if near else "")


def parameters_of(flow: Flow[Any, Any]) -> type[BaseModel]:
    """Return a model of the flow's parameters, closed as the flow's own call is."""
    hints = typing.get_type_hints(flow.fn, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if one.default is inspect.Parameter.empty else one.default)
        for name, one in inspect.signature(flow.fn).parameters.items()
    }
    return create_model(flow.name, __config__=ConfigDict(extra="forbid"), **fields)
