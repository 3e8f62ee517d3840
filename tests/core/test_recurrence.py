"""What comes again comes at its wall-clock time, each once, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.errors import InvalidInput
from clickpost.recurrence import (
    DEFAULT_CAP,
    Occurrence,
    Recurrence,
    Repeat,
    exists,
    instant_of,
    occurrences,
    recurrence,
)

BERLIN = "Europe/Berlin"
#: Zones with changes of an hour, of half an hour, at midnight, of a whole day, and with none.
ZONES = (
    BERLIN,
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Pacific/Apia",
    "Asia/Kolkata",
    "UTC",
)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def made(
    rule: str, zone: str = BERLIN, *, at: datetime | None = None, **more: object
) -> Recurrence:
    return recurrence(Repeat(rule=rule, zone=zone, **more), at, None, NOW)  # type: ignore[arg-type]


def first(given: Recurrence, number: int, after: datetime = NOW) -> list[Occurrence]:
    return list(islice(occurrences(given, after), number))


def test_nine_oclock_stays_nine_oclock_when_the_clocks_change() -> None:
    weekly = made("FREQ=WEEKLY;BYDAY=MO;BYHOUR=9")
    found = first(weekly, 30)
    assert {(one.local.hour, one.local.minute, one.local.weekday()) for one in found} == {(9, 0, 0)}
    assert {one.at.hour for one in found} == {7, 8}
    assert found[0].label == "2026-11-30T09:00"


def test_a_time_that_does_not_exist_is_moved_forward() -> None:
    daily = made("FREQ=DAILY;BYHOUR=2;BYMINUTE=30")
    around = first(daily, 3, datetime(2027, 3, 27, 0, tzinfo=UTC))
    assert [one.label for one in around] == [
        "2027-03-27T02:30",
        "2027-03-28T03:30",
        "2027-03-29T02:30",
    ]


def test_a_time_that_exists_twice_happens_once() -> None:
    daily = made("FREQ=DAILY;BYHOUR=2;BYMINUTE=30")
    around = first(daily, 3, datetime(2027, 10, 30, 12, tzinfo=UTC))
    assert [one.local.date() for one in around] == [
        date(2027, 10, 31),
        date(2027, 11, 1),
        date(2027, 11, 2),
    ]
    assert around[0].at == datetime(2027, 10, 31, 0, 30, tzinfo=UTC)


def test_a_day_that_was_left_out_comes_a_day_later_and_once() -> None:
    start = datetime(2011, 12, 28)
    daily = Recurrence("FREQ=DAILY;BYHOUR=9", ZoneInfo("Pacific/Apia"), start)
    found = first(daily, 4, datetime(2011, 12, 28, tzinfo=UTC))
    assert [one.local.day for one in found] == [28, 29, 31, 1]


@st.composite
def rules(draw: st.DrawFn) -> tuple[str, set[tuple[int, int]] | None]:
    """Return a rule, and the clock times that it names where it comes at those only."""
    if draw(st.booleans()):
        minutes = draw(st.sets(st.sampled_from([0, 15, 30, 45]), min_size=1))
        return f"FREQ=HOURLY;BYMINUTE={','.join(map(str, sorted(minutes)))}", None
    hours = draw(st.sets(st.integers(0, 23), min_size=1, max_size=3))
    minute = draw(st.sampled_from([0, 15, 30, 59]))
    clock = f"BYHOUR={','.join(map(str, sorted(hours)))};BYMINUTE={minute}"
    kind = draw(
        st.sampled_from(["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU,MO,SA", "FREQ=DAILY;INTERVAL=3"])
    )
    return f"{kind};{clock}", {(hour, minute) for hour in hours}


days = st.dates(date(2007, 1, 1), date(2030, 1, 1))


@given(rules(), st.sampled_from(ZONES), days)
def test_occurrences_rise_and_show_the_clock_of_the_rule_where_it_exists(
    rule: tuple[str, set[tuple[int, int]] | None], name: str, day: date
) -> None:
    zone, (words, clocks) = ZoneInfo(name), rule
    given = Recurrence(words, zone, datetime(day.year, day.month, day.day))
    found = first(given, 300, given.starts_at)
    assert all(one.at < two.at for one, two in pairwise(found))
    for one in found:
        assert one.local == one.at.astimezone(zone).replace(tzinfo=None, fold=0)
        if clocks is not None and (one.local.hour, one.local.minute) not in clocks:
            wanted = [
                one.local.replace(hour=hour, minute=minute) - timedelta(days=back)
                for hour, minute in clocks
                for back in (0, 1)
            ]
            assert any(
                not exists(wall, zone) and instant_of(wall, zone) == one.at for wall in wanted
            )


@given(st.sampled_from(ZONES), days, st.integers(0, 23), st.sampled_from([0, 30]))
def test_each_day_has_its_occurrence_exactly_once(
    name: str, day: date, hour: int, minute: int
) -> None:
    zone = ZoneInfo(name)
    start = datetime(day.year, day.month, day.day)
    given = Recurrence(f"FREQ=DAILY;BYHOUR={hour};BYMINUTE={minute}", zone, start)
    walls = [start.replace(hour=hour, minute=minute) + timedelta(days=n) for n in range(400)]
    expected = sorted({instant_of(wall, zone) for wall in walls})
    end = expected[390]
    found = first(given, 391, expected[0] - timedelta(microseconds=1))
    assert [one.at for one in found if one.at <= end] == expected[:391]


@given(rules(), st.sampled_from(ZONES), days, st.integers(0, 120))
def test_where_one_begins_to_look_changes_nothing_of_what_follows(
    rule: tuple[str, set[tuple[int, int]] | None], name: str, day: date, skip: int
) -> None:
    given = Recurrence(rule[0], ZoneInfo(name), datetime(day.year, day.month, day.day))
    found = first(given, 130, given.starts_at)
    assert first(given, 129 - skip, found[skip].at) == found[skip + 1 :][: 129 - skip]


@given(rules(), st.integers(1, 40))
def test_a_count_is_kept_to(rule: tuple[str, object], count: int) -> None:
    given = Recurrence(f"{rule[0]};COUNT={count}", ZoneInfo("UTC"), datetime(2026, 1, 1))
    assert len(first(given, 100, datetime(2025, 1, 1, tzinfo=UTC))) == count


@pytest.mark.parametrize(
    ("more", "last"),
    [
        ({"until": "2026-12-01"}, "2026-12-01T09:00"),
        ({"until": "2026-12-01T09:00"}, "2026-12-01T09:00"),
        ({"until": "2026-12-01T08:00:00Z"}, "2026-12-01T09:00"),
        ({"until": "2026-12-01T08:59"}, "2026-11-30T09:00"),
        ({"count": 7}, "2026-11-30T09:00"),
    ],
)
def test_an_end_is_of_the_zones_clock(more: dict[str, object], last: str) -> None:
    daily = made("FREQ=DAILY;BYHOUR=9", **more)
    assert daily.cap is None
    assert first(daily, 100)[-1].label == last


@pytest.mark.parametrize(
    ("until", "last"),
    [("20261201", "2026-12-01T09:00"), ("20261201T075959Z", "2026-11-30T09:00")],
)
def test_an_end_within_the_rule_counts_too(until: str, last: str) -> None:
    assert first(made(f"FREQ=DAILY;BYHOUR=9;UNTIL={until}"), 100)[-1].label == last


def test_a_rule_without_end_has_a_cap() -> None:
    assert made("FREQ=DAILY;BYHOUR=9").cap == DEFAULT_CAP
    assert made("FREQ=DAILY;BYHOUR=9", cap=5).cap == 5


def test_at_is_the_first_time_and_gives_the_clock() -> None:
    daily = made("FREQ=DAILY", at=datetime(2026, 12, 24, 17, 15, tzinfo=UTC))
    assert first(daily, 1)[0].label == "2026-12-24T18:15"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("FREQ=MINUTELY", "FREQ is one of"),
        ("every monday", "KEY=VALUE"),
        ("FREQ=DAILY", "at which hour"),
        ("FREQ=DAILY;BYHOUR=25", "repeat.rule"),
        ("FREQ=DAILY;BYHOUR=9;BYHOUR=10", "each once"),
        ("FREQ=DAILY;BYHOUR=9;NONSENSE=1", "repeat.rule"),
        ("FREQ=HOURLY;BYHOUR=9;BYMONTH=2;BYMONTHDAY=30", "never comes"),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20200101", "never comes"),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=soon", "UNTIL"),
        ("FREQ=DAILY;BYHOUR=9;COUNT=0", "COUNT"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(rule: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        made(rule)


def test_a_zone_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no IANA time zone"):
        made("FREQ=DAILY;BYHOUR=9", zone="Berlin")
    with pytest.raises(InvalidInput, match=r"repeat\.zone"):
        recurrence(Repeat(rule="FREQ=DAILY;BYHOUR=9"), None, None, NOW)
