"""Whether a trigger may start now: quiet hours by a zone's clock, at most so many an hour."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.triggers import (
    HOUR,
    LONGEST_CHAIN,
    QuietHours,
    Skip,
    Start,
    Verdict,
    after,
    calls_in,
    circle,
    filled,
    fits,
    ids_of,
    judge,
    runs_in,
    sources_in,
)

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = QuietHours(time(22), time(7), BERLIN, waits=True)
NOON = QuietHours(time(12), time(13), BERLIN, waits=False)


def at(text: str) -> datetime:
    """Return a moment, as a clock in Berlin shows it."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "starts"),
    [
        ("2026-11-24T21:59", "2026-11-24T21:59"),
        ("2026-11-24T22:00", "2026-11-25T07:00"),
        ("2026-11-25T03:00", "2026-11-25T07:00"),
        ("2026-11-25T06:59", "2026-11-25T07:00"),
        ("2026-11-25T07:00", "2026-11-25T07:00"),
        # The night in which the clocks change is an hour shorter; seven stays seven.
        ("2026-03-28T23:00", "2026-03-29T07:00"),
        ("2026-10-24T23:00", "2026-10-25T07:00"),
    ],
)
def test_what_falls_into_the_night_waits_for_the_morning(now: str, starts: str) -> None:
    assert judge(at(now), NIGHT, None, []) == Start(at(starts))


def test_an_end_that_the_clocks_leave_out_comes_later() -> None:
    quiet = QuietHours(time(1), time(2, 30), BERLIN, waits=True)
    assert after(quiet, at("2026-03-29T01:30")) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_quiet_hours_that_skip_say_until_when() -> None:
    found = judge(at("2026-11-24T12:30"), NOON, None, [])
    assert found == Skip("quiet hours until 13:00 Europe/Berlin", Verdict.QUIET)
    assert judge(at("2026-11-24T13:00"), NOON, None, []) == Start(at("2026-11-24T13:00"))


def test_what_waits_counts_at_the_moment_for_which_it_waits() -> None:
    seven = at("2026-11-25T07:00")
    assert judge(at("2026-11-25T01:00"), NIGHT, 1, []) == Start(seven)
    skipped = judge(at("2026-11-25T02:00"), NIGHT, 1, [seven])
    assert skipped == Skip("1 within the hour already", Verdict.LEFT_OUT)


@given(
    st.integers(1, 5),
    st.lists(st.integers(0, 4 * 3600), max_size=60),
)
def test_no_hour_ever_holds_more_than_its_most(at_most: int, seconds: list[int]) -> None:
    begin = datetime(2026, 11, 24, tzinfo=UTC)
    started: list[datetime] = []
    for moment in (begin + timedelta(seconds=one) for one in seconds):  # In any order.
        if fits(at_most, started, moment):
            started.append(moment)
    for first in started:
        assert sum(first <= one < first + HOUR for one in started) <= at_most


def test_an_hour_later_there_is_room_again() -> None:
    now = datetime(2026, 11, 24, 9, tzinfo=UTC)
    assert not fits(1, [now - timedelta(minutes=59)], now)
    assert fits(1, [now - HOUR], now)


def test_ids_come_out_of_the_names_of_resources() -> None:
    names = ["clickpost.delivery.dlv_1", "clickpost.post.post_2", "clickpost.connection.conn_3"]
    run = "prefect.flow-run.0b5f0f2e-0000-4000-8000-000000000000"
    assert ids_of([*names, run, "prefect.flow.x", "nonsense"]) == {
        "event.delivery_id": "dlv_1",
        "event.post_id": "post_2",
        "event.connection_id": "conn_3",
        "event.flow_run_id": run.removeprefix("prefect.flow-run."),
    }


def test_parameters_are_filled_wherever_an_id_is_asked_for() -> None:
    asked = {"post": {"post_id": "event.post_id"}, "to": ["event.connection_id", "x"], "n": 3}
    assert sources_in(asked) == {"event.post_id", "event.connection_id"}
    ids = {"event.post_id": "post_1", "event.connection_id": "conn_1"}
    assert filled(asked, ids) == {"post": {"post_id": "post_1"}, "to": ["conn_1", "x"], "n": 3}
    with pytest.raises(KeyError):
        filled(asked, {})


def test_a_trigger_that_is_its_own_cause_is_not_started() -> None:
    assert circle("a", ()) is None
    assert circle("c", ("a", "b")) is None
    found = circle("a", ("a", "b"))
    assert found == Skip("it would start itself, again and again: a → b → a", Verdict.LOOP)
    itself = circle("a", ("a",))
    assert itself is not None
    assert itself.verdict is Verdict.LOOP


def test_a_line_of_triggers_has_an_end_though_none_comes_twice() -> None:
    line = [f"t{number}" for number in range(LONGEST_CHAIN)]
    assert circle("last", line[:-1]) is None
    found = circle("last", line)
    assert found is not None
    assert found.reason.startswith(f"more than {LONGEST_CHAIN} triggers")


def test_the_names_of_resources_say_which_calls_and_which_runs() -> None:
    names = ["clickpost.hook.hook_1", "clickpost.calls.note_1", "prefect.flow-run.4f-a", "x"]
    assert calls_in(names) == "note_1"
    assert calls_in(names[:1]) is None
    assert runs_in(names) == ["4f-a"]
