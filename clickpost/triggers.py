"""Decides whether a trigger may start its run now, later or not at all, and about which ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

HOUR = timedelta(hours=1)

#: Where an id of the event may stand in `with`, and an id of each kind to check the form with.
SOURCES: Mapping[str, str] = {
    "event.post_id": "post_0",
    "event.delivery_id": "dlv_0",
    "event.connection_id": "conn_0",
    "event.arrival_id": "arr_0",
    "event.flow_run_id": "00000000-0000-0000-0000-000000000000",
}
#: The tag of a run whose posts wait for an approval.
APPROVAL = "approval:required"
_RESOURCE = re.compile(
    r"(?:clickpost\.(post|delivery|connection|arrival)|prefect\.(flow-run))\.([\w-]+)"
)
_CALLS, _RUN = "clickpost.calls.", "prefect.flow-run."
#: So many triggers may follow from one another.
LONGEST_CHAIN = 8


@dataclass(frozen=True)
class QuietHours:
    """From when to when nothing is started, by the wall clock of a zone; `then` waits or skips."""

    begin: time
    end: time
    zone: ZoneInfo
    waits: bool


class Verdict(StrEnum):
    """What one cause came to at one trigger."""

    FIRED = "fired"
    LEFT_OUT = "left_out"
    """`at_most` runs were there within the hour."""
    QUIET = "quiet"
    LOOP = "loop"
    LACKING = "lacking"
    """It names no id that the run needs."""


@dataclass(frozen=True)
class Start:
    """The run starts at this moment."""

    at: datetime


@dataclass(frozen=True)
class Skip:
    """The run does not start, for this reason."""

    reason: str
    verdict: Verdict


def judge(
    now: datetime, quiet: QuietHours | None, at_most: int | None, runs: Sequence[datetime]
) -> Start | Skip:
    """Say when the next run starts; `runs` are the moments of those that started, or will."""
    at = now if quiet is None else after(quiet, now)
    if quiet is not None and at != now and not quiet.waits:
        until = f"{at.astimezone(quiet.zone):%H:%M} {quiet.zone.key}"
        return Skip(f"quiet hours until {until}", Verdict.QUIET)
    if at_most is not None and not fits(at_most, runs, at):
        return Skip(f"{at_most} within the hour already", Verdict.LEFT_OUT)
    return Start(at)


def after(quiet: QuietHours, now: datetime) -> datetime:
    """Return `now`, or the end of the quiet hours that it falls into.

    An end that a change of the clocks leaves out comes later by what was left out.
    """
    local = now.astimezone(quiet.zone)
    clock = local.time().replace(fold=0)
    over_midnight = quiet.begin > quiet.end
    late = over_midnight and clock >= quiet.begin
    inside = late or (clock < quiet.end if over_midnight else quiet.begin <= clock < quiet.end)
    if not inside:
        return now
    day = local.date() + timedelta(days=1 if late else 0)
    # Through UTC: a wall-clock time that does not exist becomes one that does.
    return datetime.combine(day, quiet.end, quiet.zone).astimezone(UTC)


def fits(at_most: int, runs: Sequence[datetime], at: datetime) -> bool:
    """Say whether with one more at `at` no hour holds more than `at_most`."""
    near = sorted([*(one for one in runs if abs(one - at) < HOUR), at])
    return all(
        sum(first <= one < first + HOUR for one in near) <= at_most
        for first in near
        if first <= at < first + HOUR
    )


def circle(trigger: str, chain: Sequence[str]) -> Skip | None:
    """Say why `trigger` must not follow from `chain`, the triggers that led here, first one first.

    A trigger that is its own cause would go on for ever.
    """
    way = " → ".join((*chain, trigger))
    if trigger in chain:
        return Skip(f"it would start itself, again and again: {way}", Verdict.LOOP)
    if len(chain) >= LONGEST_CHAIN:
        said = f"more than {LONGEST_CHAIN} triggers would follow from one another: {way}"
        return Skip(said, Verdict.LOOP)
    return None


def calls_in(resources: Sequence[str]) -> str | None:
    """Return the name under which webhooks were told together; None for any other event."""
    names = (one.removeprefix(_CALLS) for one in resources if one.startswith(_CALLS))
    return next(names, None)


def runs_in(resources: Sequence[str]) -> list[str]:
    """Return the runs that an event is about, or comes from."""
    return [one.removeprefix(_RUN) for one in resources if one.startswith(_RUN)]


def ids_of(resources: Sequence[str]) -> dict[str, str]:
    """Return the ids in the names of an event's resources, by what `with` calls them."""
    found: dict[str, str] = {}
    for resource in resources:
        if match := _RESOURCE.fullmatch(resource):
            kind = (match[1] or match[2]).replace("-", "_")
            found.setdefault(f"event.{kind}_id", match[3])
    return found


def gate_of(tags: Iterable[str]) -> str | None:
    """Return the trigger that lets its run publish only what is approved; None without one."""
    known = set(tags)
    named = sorted(tag.removeprefix("trigger:") for tag in known if tag.startswith("trigger:"))
    if APPROVAL not in known:
        return None
    return named[0] if named else "by-hand"


def post_in(parameters: Mapping[str, Any]) -> str | None:
    """Return the post that a run with these parameters is about, where it is about one."""
    choice = parameters.get("post")
    return choice.get("post_id") if isinstance(choice, Mapping) else None


def sources_in(value: Any) -> set[str]:
    """Return the ids of the event that parameters ask for."""
    if isinstance(value, str):
        return {value} if value.startswith("event.") else set()
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list):
        return set()
    return {source for one in inner for source in sources_in(one)}


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    """Return parameters with the event's ids in their places; raise KeyError where one lacks."""
    match value:
        case str() if value.startswith("event."):
            return ids[value]
        case Mapping():
            return {key: filled(one, ids) for key, one in value.items()}
        case list():
            return [filled(one, ids) for one in value]
    return value
