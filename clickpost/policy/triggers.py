"""The closed shape of trigger policies: when which flow runs, about what, and how often at most."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from datetime import time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from clickpost.hooks import NAME as HOOK
from clickpost.policy.arriving import ByArrival, ByFeed, ByFolder, ByMailbox, Template
from clickpost.policy.shape import Facts, LastingSpan, Words
from clickpost.policy.units import no_shorter
from clickpost.telling import Event

#: What happens to a run of a flow, in Prefect's words: its states.
RUN_STATES = (
    *("Scheduled", "Late", "Pending", "Running", "Completed", "Failed", "Crashed", "TimedOut"),
    *("Cancelling", "Cancelled", "Paused", "Suspended", "Resuming", "Retrying", "AwaitingRetry"),
)
#: Events of Prefect's own that a trigger may react to.
PREFECT_EVENTS = (
    *(f"prefect.flow-run.{state}" for state in RUN_STATES),
    *("prefect.work-pool.ready", "prefect.work-pool.not-ready", "prefect.work-pool.paused"),
    *("prefect.deployment.ready", "prefect.deployment.not-ready"),
)
#: Ours: what people are told, and what is live.
OUR_EVENTS = tuple(one.value for one in Event if one not in (Event.TEST, Event.ALERT))
EVENTS = (*OUR_EVENTS, *PREFECT_EVENTS)
#: A reaction to events runs at most so often an hour, unless its policy says otherwise.
MOST_AN_HOUR = 60
#: Prefect looks for an absence every few seconds; shorter ones mean nothing.
SHORTEST_ABSENCE = timedelta(seconds=10)
SHORTEST_INTERVAL = timedelta(seconds=10)
#: Between trigger and deployment: the flow's own deployment has its name, so a trigger has not.
NAME = r"^[a-z][a-z0-9-]{1,48}$"


def _zone(zone: str) -> str:
    if zone not in available_timezones():
        near = difflib.get_close_matches(zone, available_timezones(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ", e.g. Europe/Berlin"
        raise ValueError(f"needs an IANA time zone{hint}")
    return zone


def _event(event: str) -> str:
    if event not in EVENTS:
        near = difflib.get_close_matches(event, EVENTS, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"ours are {', '.join(OUR_EVENTS)}"
        raise ValueError(f"there is no such event; {known}")
    return event


def _list_of(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _clock(value: Any) -> time:
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        return time.fromisoformat(value)
    raise ValueError("needs a time of day as HH:MM, in quotes")


def _per_hour(value: Any) -> int:
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*an hour\s*", value) if isinstance(value, str) else None
    if match is None or int(match[1]) < 1:
        raise ValueError("needs a number and its unit, e.g. 5 an hour")
    return int(match[1])


Zone = Annotated[str, AfterValidator(_zone)]
EventName = Annotated[str, AfterValidator(_event)]
_one_or_more = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
EventNames = Annotated[
    list[EventName], BeforeValidator(_list_of), Field(min_length=1), _one_or_more
]
Several = Annotated[list[Words], BeforeValidator(_list_of), Field(min_length=1), _one_or_more]
Clock = Annotated[
    time,
    BeforeValidator(_clock),
    WithJsonSchema({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}),
]
PerHour = Annotated[
    int,
    BeforeValidator(_per_hour),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+ an hour$"}),
]


class ByCron(Facts):
    """At the times that a cron line names."""

    cron: Words = Field(description="Minute, hour, day, month, weekday; e.g. 0 3 * * 1-5.")
    zone: Zone = Field(description="IANA zone whose wall clock is meant.")


class ByInterval(Facts):
    """Again and again, after the same span."""

    every: Annotated[LastingSpan, no_shorter(SHORTEST_INTERVAL)] = Field(
        description="The span between two runs, e.g. 5 min; at least 10 s."
    )
    zone: Zone = Field("UTC", description="IANA zone in which spans of days keep their hour.")


class ByRule(Facts):
    """At the times of a calendar rule."""

    rrule: Words = Field(description="An RRULE (RFC 5545), e.g. FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9.")
    zone: Zone = Field(description="IANA zone whose wall clock is meant.")


class Match(Facts):
    """Which events are meant: all that is given must hold, one of each list."""

    platform: Several | None = Field(None, description="Platforms, e.g. mastodon.")
    connection: Several | None = Field(None, description="Ids of connections.")
    post: Several | None = Field(None, description="Ids of posts.")
    flow: Several | None = Field(None, description="Flows, for events of runs.")
    trigger: Several | None = Field(None, description="Triggers that started the run.")


class OnEvent(Facts):
    """As soon as something happens."""

    event: EventNames = Field(description="What happens: one event, or a list of them.")
    match: Match = Field(default_factory=lambda: Match(), description="Which of these events.")


class OnAbsence(Facts):
    """When something has not happened for a while; again after each further while."""

    no: EventNames = Field(description="What does not happen: one event, or a list of them.")
    within: Annotated[LastingSpan, no_shorter(SHORTEST_ABSENCE)] = Field(
        alias="for", description="For how long, e.g. 24 h; at least 10 s."
    )
    match: Match = Field(default_factory=lambda: Match(), description="Which of these events.")


class OnWebhook(Facts):
    """When somebody calls a hook of ours, and proves who it is."""

    webhook: str = Field(
        pattern=f"^{HOOK.pattern}$",
        description="The hook's name, as `clickpost hooks add` made it.",
    )


_KINDS: Mapping[str, str] = {
    "cron": "cron", "every": "every", "rrule": "rrule", "event": "event", "no": "absence",
    "webhook": "webhook", "feed": "feed", "folder": "folder", "mailbox": "mailbox",
}  # fmt: skip
#: The kinds that look for what arrives.
ARRIVALS = ("feed", "folder", "mailbox")


def _kind_of(value: Any) -> str | None:
    """Return which kind of `when` is meant, by its telling key or the nearest spelling of one."""
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if not isinstance(value, Mapping):
        return None
    known = [_KINDS[key] for key in _KINDS if key in value]
    if known:
        # What looks for arrivals says how often, with the key of an interval.
        telling = [kind for kind in known if kind in ARRIVALS]
        return f"[{(telling or known)[0]}]"
    for key in value:
        if near := difflib.get_close_matches(str(key), _KINDS, n=1):
            return f"[{_KINDS[near[0]]}]"
    return None


# The brackets keep a tag apart from a key of the file, where errors tell their place.
When = Annotated[
    Annotated[ByCron, Tag("[cron]")]
    | Annotated[ByInterval, Tag("[every]")]
    | Annotated[ByRule, Tag("[rrule]")]
    | Annotated[OnEvent, Tag("[event]")]
    | Annotated[OnAbsence, Tag("[absence]")]
    | Annotated[OnWebhook, Tag("[webhook]")]
    | Annotated[ByFeed, Tag("[feed]")]
    | Annotated[ByFolder, Tag("[folder]")]
    | Annotated[ByMailbox, Tag("[mailbox]")],
    Discriminator(
        _kind_of,
        custom_error_type="no_kind",
        custom_error_message="needs one of the keys cron, every, rrule, event, no, webhook,"
        " feed, folder, mailbox",
    ),
]


class Quiet(Facts):
    """Hours in which nothing is started."""

    from_: Clock = Field(alias="from", description="First minute, HH:MM by the wall clock.")
    to: Clock = Field(description="First minute after; earlier than `from` means the next day.")
    zone: Zone = Field(description="IANA zone whose wall clock is meant.")
    then: Literal["wait", "skip"] = Field(
        "wait", description="`wait`: it runs when they end; `skip`: it does not run."
    )

    @model_validator(mode="after")
    def _some(self) -> Quiet:
        if self.from_ == self.to:
            raise ValueError("quiet hours must end at another time than they begin")
        return self


class OnFailure(Facts):
    """What runs when a run of this trigger failed, crashed or took too long."""

    run: Words = Field(description="The flow that runs then.")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="Its parameters; ids only."
    )


class Trigger(Facts):
    """One reason for which a flow runs."""

    kind: Literal["trigger"] = Field(description="What this file is.")
    name: str = Field(pattern=NAME, description="The trigger's name, that of its file.")
    title: Words = Field(description="What it is for, in a sentence for operators.")
    when: When = Field(description="When it runs.")
    run: Words | None = Field(
        None, description="The flow that runs; not needed where `post` says what is made."
    )
    with_: dict[str, Any] = Field(
        default_factory=dict,
        alias="with",
        description="Its parameters: ids and small choices, or ids of the event: event.post_id.",
    )
    post: Template | None = Field(
        None, description="The post that is made of each entry or file, where one is."
    )
    quiet: Quiet | None = Field(None, description="Hours in which nothing is started.")
    at_most: PerHour | None = Field(
        None,
        description="So many runs within any hour, e.g. 5 an hour; for events and arrivals 60.",
    )
    approval: Literal["required"] | None = Field(
        None, description="`required`: what it publishes waits until somebody approves it."
    )
    on_failure: OnFailure | None = Field(None, description="What runs when a run of it fails.")

    @model_validator(mode="after")
    def _does_something(self) -> Trigger:
        if self.post is not None and not isinstance(self.when, ByFeed | ByFolder):
            raise ValueError("`post` goes with `feed` or `folder`")
        if self.run is None and not self.makes_posts:
            raise ValueError("needs `run`: the flow that runs")
        if self.run is None and self.with_:
            raise ValueError("`with` needs `run`: these are its parameters")
        return self

    @property
    def makes_posts(self) -> bool:
        """Say whether what arrives becomes a post."""
        of_files = isinstance(self.when, ByFolder) and self.when.of == "posts"
        return of_files or self.post is not None

    @property
    def reacts(self) -> bool:
        """Say whether it waits for something that happens, or does not."""
        return isinstance(self.when, OnEvent | OnAbsence | OnWebhook | ByArrival)


def trigger_hash(trigger: Trigger) -> str:
    """Return the first 12 digits of the SHA-256 of its canonical JSON: the version that runs."""
    return hashlib.sha256(trigger.model_dump_json(by_alias=True).encode()).hexdigest()[:12]
