"""Clocks of people's requests end when the law says; codes and addresses have one spelling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import requests, subjects
from clickpost.errors import InvalidInput
from clickpost.policy import requesting
from clickpost.requests import CLOSED, WAYS, Clocks, Kind, Period, State, Urgency, urgency
from clickpost.settings import PROJECT

RULES = requesting.load(PROJECT / "policies")
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


def at(said: str) -> datetime:
    return datetime.fromisoformat(said).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("law", "kind", "received", "due"),
    [
        ("gdpr", "erasure", "2026-01-31T10:00", "2026-02-28T10:00"),
        ("gdpr", "access", "2024-01-31T10:00", "2024-02-29T10:00"),
        ("FR", "access", "2026-11-24T10:00", "2026-12-24T10:00"),
        ("uk", "access", "2026-11-24T10:00", "2026-12-24T10:00"),
        ("US-CA", "erasure", "2026-11-24T10:00", "2027-01-08T10:00"),
        ("US-IA", "erasure", "2026-11-24T10:00", "2027-02-22T10:00"),
        ("US-VA", "erasure", "2026-11-24T10:00", "2027-01-08T10:00"),
        ("default", "erasure", "2026-11-24T10:00", "2026-12-24T10:00"),
        ("ccpa", "child", "2026-11-24T10:00", "2026-11-27T10:00"),
    ],
)
def test_an_answer_is_due_when_the_law_says(law: str, kind: str, received: str, due: str) -> None:
    clocks = RULES.named(law).clocks(Kind(kind), at(received))
    assert clocks.due_at == at(due)


@pytest.mark.parametrize(
    ("received", "by"),
    [
        ("2026-11-24T10:00", "2026-12-08T10:00"),  # A Tuesday: two weekends in between.
        ("2026-11-27T10:00", "2026-12-11T10:00"),
        ("2026-11-28T10:00", "2026-12-11T10:00"),  # On a Saturday: Monday is the first.
    ],
)
def test_receipt_is_confirmed_within_ten_business_days(received: str, by: str) -> None:
    clocks = RULES.named("ccpa").clocks(Kind.ACCESS, at(received))
    assert clocks.acknowledge_by == at(by)
    assert RULES.named("gdpr").clocks(Kind.ACCESS, at(received)).acknowledge_by is None


def test_a_longer_time_is_taken_once_and_in_time() -> None:
    law = RULES.named("ccpa")
    clocks = law.clocks(Kind.ACCESS, at("2026-11-24T10:00"))
    later = law.extended(clocks, at("2027-01-01T00:00"))
    assert later - clocks.received_at == timedelta(days=90)
    again = Clocks(clocks.received_at, later, extended_at=at("2027-01-01T00:00"))
    with pytest.raises(InvalidInput, match="once"):
        law.extended(again, at("2027-01-02T00:00"))
    with pytest.raises(InvalidInput, match="run out"):
        law.extended(clocks, at("2027-01-09T00:00"))
    gdpr = RULES.named("gdpr")
    month = gdpr.clocks(Kind.ACCESS, at("2026-11-24T10:00"))
    assert gdpr.extended(month, at("2026-12-01T00:00")) == at("2027-02-24T10:00")


def test_a_clock_that_stands_still_ends_later_by_as_much() -> None:
    stood = Clocks(at("2026-11-01T00:00"), at("2026-12-01T00:00"), paused_at=at("2026-11-10T00:00"))
    assert stood.due(at("2026-11-20T00:00")) == at("2026-12-11T00:00")
    assert stood.resumed(at("2026-11-12T00:00")) == at("2026-12-03T00:00")
    with pytest.raises(InvalidInput):
        Clocks(stood.received_at, stood.due_at).resumed(at("2026-11-12T00:00"))
    # Only where the law says so.
    assert RULES.named("uk").stop is not None
    assert RULES.named("ccpa").stop is None


def test_an_alarm_comes_before_the_end_and_not_from_the_first_hour() -> None:
    warn = timedelta(days=7)
    clocks = Clocks(at("2026-11-01T00:00"), at("2026-12-01T00:00"), at("2026-11-10T00:00"))
    said = [
        urgency(clocks, done, warn, at(moment))
        for moment, done in [
            ("2026-11-02T00:00", False),
            ("2026-11-08T00:00", False),
            ("2026-11-11T00:00", False),
            ("2026-11-11T00:00", True),
            ("2026-11-25T00:00", True),
            ("2026-12-02T00:00", True),
        ]
    ]
    assert said == ["fine", "soon", "overdue", "fine", "soon", "overdue"]
    child = Clocks(at("2026-11-01T00:00"), at("2026-11-04T00:00"))
    assert urgency(child, True, warn, at("2026-11-02T00:00")) is Urgency.FINE
    assert urgency(child, True, warn, at("2026-11-03T12:00")) is Urgency.SOON


@given(MOMENTS, st.integers(1, 60))
def test_business_days_are_counted_and_no_weekend_ends_them(moment: datetime, days: int) -> None:
    end = Period(days, "business days").after(moment)
    assert end.weekday() < 5
    walked = (moment + timedelta(days=n) for n in range(1, (end.date() - moment.date()).days + 1))
    assert sum(day.weekday() < 5 for day in walked) == days


@given(MOMENTS)
def test_a_longer_period_never_ends_sooner(moment: datetime) -> None:
    for unit in ("h", "d", "business days", "months"):
        ends = [Period(count, unit).after(moment) for count in (1, 2, 3, 12)]  # type: ignore[arg-type]
        assert all(one < two for one, two in pairwise(ends))


@pytest.mark.parametrize("words", ["10", "0 d", "1 fortnight", "", "-1 d", "1.5 months"])
def test_what_is_no_period_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match="needs a number"):
        Period.of(words)


@pytest.mark.parametrize("words", ["1 month", "2 months", "10 business days", "45 d", "24 h"])
def test_a_period_is_shown_as_it_was_written(words: str) -> None:
    assert str(Period.of(words)) == words


def test_every_request_ends_and_what_was_begun_is_finished() -> None:
    for state in State:
        assert (not WAYS[state]) == (state in CLOSED)
    assert WAYS[State.EXECUTED] == {State.READ_BACK}


def test_a_code_is_found_however_it_was_typed() -> None:
    code = requests.new_code()
    typed = "-".join(code[n : n + 4] for n in range(0, 20, 4)).lower()
    assert requests.code_of(f" {typed} ") == code
    assert requests.code_of("req_01jd") is None
    assert requests.code_of(code + "A") is None


def test_an_address_has_one_spelling() -> None:
    key = bytes(32)
    one = subjects.digest(key, "Jörg.Müller@Bücher.example")
    assert subjects.digest(key, "  jörg.müller@BÜCHER.example. ".strip()) == one
    assert subjects.digest(key, "jörg.müller@xn--bcher-kva.example") == one
    assert subjects.digest(key, "other@bücher.example") != one
    assert subjects.digest(bytes([1]) * 32, "Jörg.Müller@Bücher.example") != one
