"""Slots come at their wall-clock times, in order, and are written as people say them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.errors import InvalidInput
from clickpost.slots import DAYS, Slots, times_of, upcoming

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def slots(words: str, zone: str = "Europe/Berlin") -> Slots:
    return Slots(zone=zone).with_times(times_of(words))


def test_a_week_of_slots() -> None:
    found = list(islice(upcoming(slots("mon-fri 09:00,17:30"), NOW), 5))
    local = [one.astimezone(ZoneInfo("Europe/Berlin")).strftime("%a %H:%M") for one in found]
    assert local == ["Tue 17:30", "Wed 09:00", "Wed 17:30", "Thu 09:00", "Thu 17:30"]


@pytest.mark.parametrize(
    ("words", "days"),
    [
        ("fri-mon 9:00", {"fri", "sat", "sun", "mon"}),
        ("sat,sun 09:00", {"sat", "sun"}),
        ("DAILY 09:00", set(DAYS)),
    ],
)
def test_days_are_names_ranges_and_lists(words: str, days: set[str]) -> None:
    assert times_of(words) == {day: {"09:00"} for day in days}


@pytest.mark.parametrize("words", ["", "mon", "mon 25:00", "mond 09:00", "mon-xyz 09:00", "9:00"])
def test_what_is_no_slot_is_refused(words: str) -> None:
    with pytest.raises(InvalidInput, match="mon-fri 09:00"):
        times_of(words)


def test_slots_are_added_and_removed() -> None:
    some = slots("mon,tue 17:30,09:00").without_times(times_of("mon 09:00"))
    assert some.days == {"mon": ("17:30",), "tue": ("09:00", "17:30")}
    assert list(upcoming(some.without_times(times_of("daily 09:00,17:30")), NOW)) == []


clocks = st.sets(st.tuples(st.integers(0, 23), st.sampled_from([0, 30])), min_size=1, max_size=4)
zones = st.sampled_from(["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "UTC"])


@given(clocks, zones, st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)))
def test_slots_rise_and_each_day_has_its_own(
    times: set[tuple[int, int]], zone: str, after: datetime
) -> None:
    words = ",".join(f"{hour:02}:{minute:02}" for hour, minute in times)
    moment = after.replace(tzinfo=UTC)
    found = list(islice(upcoming(slots(f"daily {words}", zone), moment), 300))
    assert found[0] > moment
    assert all(one < two for one, two in pairwise(found))
    on = [one.astimezone(ZoneInfo(zone)).date() for one in found]
    full = [on.count(day) for day in sorted(set(on))[1:-1]]
    # At a change of the clocks two of them may fall together, or one beyond midnight.
    assert sum(count == len(times) for count in full) >= len(full) - 4
