"""When a post comes again: an RRULE by the clock on the wall of an IANA zone; it asks no clock.

A wall-clock time that a change of the clocks leaves out is moved forward by what was left out, as
RFC 5545 says (02:30 becomes 03:30); one that comes twice happens once, at its first coming.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrule, rrulestr
from pydantic import BeforeValidator, Field

from clickpost.errors import InvalidInput
from clickpost.policy.shape import Closed

#: So many posts a rule without COUNT, UNTIL, `count`, `until` or `cap` makes at most.
DEFAULT_CAP = 366
#: A rule is followed so far from its start; what comes later is not planned.
FARTHEST = timedelta(days=3660)
#: No change of the clocks leaves out more (Samoa once left out a day).
_LONGEST_GAP = timedelta(hours=25)
_FREQUENCIES = ("HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_PART = re.compile(r"([A-Z]+)=([^;=]+)")


def _day_or_more(value: Any) -> Any:
    """Return a plain day as one: else it would be taken for its midnight."""
    if isinstance(value, str) and len(value) == len("2026-12-31"):
        with suppress(ValueError):
            return date.fromisoformat(value)
    return value


class Repeat(Closed):
    """When a post comes again."""

    rule: str = Field(
        min_length=1,
        description="An RRULE (RFC 5545), e.g. FREQ=WEEKLY;BYDAY=MO;BYHOUR=9. At most hourly.",
    )
    zone: str | None = Field(
        None, description="IANA zone whose wall clock the rule means; else the post's `zone`."
    )
    count: int | None = Field(None, ge=1, description="So many occurrences.")
    until: Annotated[datetime | date | None, BeforeValidator(_day_or_more)] = Field(
        None,
        description="None after this moment, or this day; without an offset by the zone's clock.",
    )
    cap: int | None = Field(
        None,
        ge=1,
        description="At most so many posts, then the series ends; 366 where nothing bounds it.",
    )


@dataclass(frozen=True)
class Recurrence:
    """A rule that can be followed: `start` is of the wall clock in `zone`, and has no offset."""

    rule: str
    zone: ZoneInfo
    start: datetime
    cap: int | None = None

    @property
    def starts_at(self) -> datetime:
        """Return the start as a moment."""
        return instant_of(self.start, self.zone)


@dataclass(frozen=True, order=True)
class Occurrence:
    """One time at which a post is due; `local` is what the wall clock shows then."""

    at: datetime
    local: datetime

    @property
    def label(self) -> str:
        """Return the name of this occurrence among those of its series."""
        return self.local.isoformat(timespec="minutes")


def zone_of(name: str) -> ZoneInfo:
    """Return the IANA zone; raise InvalidInput where there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"zone: {name} is no IANA time zone (e.g. Europe/Berlin)") from None


def instant_of(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which the wall clock of `zone` shows `local`, or would have."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def exists(local: datetime, zone: ZoneInfo) -> bool:
    """Say whether the wall clock of `zone` ever shows `local`."""
    return instant_of(local, zone).astimezone(zone).replace(tzinfo=None, fold=0) == local


def recurrence(repeat: Repeat, at: datetime | None, zone: str | None, now: datetime) -> Recurrence:
    """Return the rule that a post file means; `at` is the post's own, the first time it may come.

    Raises InvalidInput, naming the place, for what cannot be followed.
    """
    name = repeat.zone or zone
    if name is None:
        raise InvalidInput("repeat.zone: name an IANA time zone (e.g. Europe/Berlin)")
    where = zone_of(name)
    parts = _parts(repeat.rule)
    start = _start(parts, at, where, now)
    if repeat.count is not None:
        parts["COUNT"] = str(repeat.count)
    if repeat.until is not None:
        parts["UNTIL"] = f"{_wall(repeat.until, where):%Y%m%dT%H%M%S}"
    elif "UNTIL" in parts:
        parts["UNTIL"] = f"{_until(parts['UNTIL'], where):%Y%m%dT%H%M%S}"
    bounded = {"COUNT", "UNTIL"} & parts.keys()
    cap = repeat.cap or (None if bounded else DEFAULT_CAP)
    rule = ";".join(f"{key}={value}" for key, value in parts.items())
    made = Recurrence(rule, where, start, cap)
    if next(occurrences(made, now), None) is None:
        raise InvalidInput(f"repeat.rule: {repeat.rule} never comes after now")
    return made


def occurrences(given: Recurrence, after: datetime) -> Iterator[Occurrence]:
    """Yield what comes after `after`, each moment once, in order."""
    last = after.astimezone(UTC)
    for at in _in_order(instant_of(wall, given.zone) for wall in _walls(given, last)):
        if at > last:
            last = at
            yield Occurrence(at, at.astimezone(given.zone).replace(tzinfo=None, fold=0))


def _walls(given: Recurrence, after: datetime) -> Iterable[datetime]:
    """Return the rule's wall-clock times, those at or before `after` perhaps left out."""
    parts = _parts(given.rule)
    count = parts.pop("COUNT", None)
    rule = _parsed(parts, given.start)
    if count is not None:
        return islice(rule, int(count))
    local = after.astimezone(given.zone).replace(tzinfo=None, fold=0)
    return rule.xafter(local - 2 * _LONGEST_GAP, inc=True)


def _in_order(moments: Iterable[datetime]) -> Iterator[datetime]:
    """Yield the moments sorted; what was moved forward may have been overtaken."""
    waiting: list[datetime] = []
    for at in moments:
        heapq.heappush(waiting, at)
        while waiting[0] < at - _LONGEST_GAP:
            yield heapq.heappop(waiting)
    while waiting:
        yield heapq.heappop(waiting)


def _parts(rule: str) -> dict[str, str]:
    words = rule.strip().upper().removeprefix("RRULE:").rstrip(";").split(";")
    matches = [_PART.fullmatch(word.strip()) for word in words]
    parts = {match[1]: match[2] for match in matches if match is not None}
    if None in matches or len(parts) != len(words):
        raise InvalidInput(
            "repeat.rule: needs KEY=VALUE pairs, each once, with semicolons between, e.g."
            f" FREQ=WEEKLY;BYDAY=MO;BYHOUR=9; found {rule!r}"
        )
    if parts.get("FREQ") not in _FREQUENCIES:
        raise InvalidInput(f"repeat.rule: FREQ is one of {', '.join(_FREQUENCIES)}")
    if not parts.get("COUNT", "1").isdigit() or not 1 <= int(parts.get("COUNT", "1")) <= 10000:
        raise InvalidInput("repeat.rule: COUNT is a number from 1 to 10000")
    return parts


def _parsed(parts: dict[str, str], start: datetime) -> rrule:
    until = _until(parts["UNTIL"], None) if "UNTIL" in parts else None
    text = "RRULE:" + ";".join(f"{key}={value}" for key, value in parts.items() if key != "UNTIL")
    try:
        rule = rrulestr(text, dtstart=start)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"repeat.rule: {error}") from None
    if not isinstance(rule, rrule):
        raise InvalidInput("repeat.rule: one rule, without further lines")
    # A rule that never matches (30 February) would be searched for until the year 9999.
    horizon = min(start, datetime(9999, 12, 31) - FARTHEST) + FARTHEST
    return rule.replace(until=min(until, horizon) if until else horizon)


def _start(parts: dict[str, str], at: datetime | None, zone: ZoneInfo, now: datetime) -> datetime:
    """Return the wall-clock time from which the rule counts."""
    if at is None:
        if "BYHOUR" not in parts:
            raise InvalidInput("repeat: say at which hour: `at`, or BYHOUR in the rule")
        return datetime.combine(now.astimezone(zone).date(), time())
    local = at if at.tzinfo is None else at.astimezone(zone).replace(tzinfo=None, fold=0)
    local = local.replace(microsecond=0)
    if not exists(local, zone):
        raise InvalidInput(f"at: {local} does not exist in {zone.key} (clocks go forward)")
    return local


def _wall(moment: datetime | date, zone: ZoneInfo) -> datetime:
    """Return `moment` by the wall clock of `zone`; a day means its end."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time(23, 59, 59))
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _until(word: str, zone: ZoneInfo | None) -> datetime:
    """Return an UNTIL by the wall clock: with a Z at its end it is of UTC, a day means its end."""
    try:
        if len(word) == len("20261231"):
            return datetime.combine(datetime.strptime(word, "%Y%m%d").date(), time(23, 59, 59))
        moment = datetime.strptime(word.removesuffix("Z"), "%Y%m%dT%H%M%S")
    except ValueError:
        raise InvalidInput(f"repeat.rule: UNTIL={word} is no day such as 20261231") from None
    return _wall(moment.replace(tzinfo=UTC), zone) if zone and word.endswith("Z") else moment
