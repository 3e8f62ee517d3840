"""The times of a week at which an account likes to post, and which of them come next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta

from pydantic import Field

from clickpost.errors import InvalidInput
from clickpost.policy.shape import Closed
from clickpost.recurrence import instant_of, zone_of

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Slots are sought so far ahead; an account with more posts waiting has too few of them.
FARTHEST = timedelta(days=400)
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


class Slots(Closed):
    """An account's slots, by the wall clock of a zone."""

    zone: str = Field(description="IANA zone whose wall clock the times mean.")
    days: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="By weekday (mon … sun): times as HH:MM, sorted."
    )

    def with_times(self, more: Mapping[str, set[str]]) -> Slots:
        """Return these and `more`."""
        return self._of({day: {*self.days.get(day, ()), *more.get(day, ())} for day in DAYS})

    def without_times(self, less: Mapping[str, set[str]]) -> Slots:
        """Return these without `less`."""
        return self._of({day: {*self.days.get(day, ())} - less.get(day, set()) for day in DAYS})

    def _of(self, times: Mapping[str, set[str]]) -> Slots:
        kept = {day: tuple(sorted(times[day])) for day in DAYS if times[day]}
        return Slots(zone=self.zone, days=kept)


def times_of(words: str) -> dict[str, set[str]]:
    """Return by weekday what `mon-fri 09:00,17:30` means; raise InvalidInput for anything else.

    Days are names, ranges (fri-mon goes over the weekend), lists of them, or `daily`.
    """
    head, _, tail = words.strip().lower().partition(" ")
    clocks = [_clock(word, words) for word in re.split(r"[,\s]+", tail.strip())]
    return {day: set(clocks) for part in head.split(",") for day in _days(part, words)}


def _clock(word: str, words: str) -> str:
    match = _CLOCK.fullmatch(word)
    if match is None:
        raise _wrong(words)
    return f"{int(match[1]):02}:{match[2]}"


def _days(part: str, words: str) -> tuple[str, ...]:
    if part == "daily":
        return DAYS
    first, dash, last = part.partition("-")
    if first not in DAYS or (dash and last not in DAYS):
        raise _wrong(words)
    start = DAYS.index(first)
    length = (DAYS.index(last) - start) % 7 + 1 if dash else 1
    return (DAYS * 2)[start : start + length]


def _wrong(words: str) -> InvalidInput:
    return InvalidInput(
        f"slots: need days and times such as 'mon-fri 09:00,17:30', 'sat,sun 10:00' or"
        f" 'daily 12:00'; found {words!r}"
    )


def upcoming(slots: Slots, after: datetime) -> Iterator[datetime]:
    """Yield the slots that come after `after`, in order, each moment once, for over a year.

    Changes of the clocks count as for a recurrence: what is left out comes later, nothing twice.
    """
    zone = zone_of(slots.zone)
    last = after.astimezone(UTC)
    day = last.astimezone(zone).date() - timedelta(days=1)
    end = day + FARTHEST
    while day < end and slots.days:
        clocks = (time.fromisoformat(one) for one in slots.days.get(DAYS[day.weekday()], ()))
        for at in sorted(instant_of(datetime.combine(day, clock), zone) for clock in clocks):
            if at > last:
                last = at
                yield at
        day += timedelta(days=1)
