"""A takedown that meets trouble is never taken for done, and says who has to act."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from clickpost import takedown
from clickpost.delivery import State, may_move
from clickpost.errors import (
    NotFound,
    OutcomeUnknown,
    PlatformError,
    RateLimited,
    Reauthorize,
    TokenExpired,
    Transient,
    UnexpectedResponse,
)
from clickpost.takedown import Ended, Open

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TROUBLE = [
    Transient("503"),
    RateLimited("429", retry_after=120),
    OutcomeUnknown("lost"),
    TokenExpired("expired"),
    Reauthorize("revoked"),
    NotFound("404"),
    UnexpectedResponse("418"),
]


@pytest.mark.parametrize("error", TROUBLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("hours", [0, 1, 48])
def test_it_stays_open_with_a_reason_and_a_time_within_the_hour(
    error: PlatformError, hours: int
) -> None:
    found = takedown.after(error, NOW - timedelta(hours=hours), NOW)
    assert isinstance(found, Open)
    assert str(error) in found.reason
    assert timedelta(seconds=5) <= found.again_at - NOW <= timedelta(hours=1)


def test_the_platforms_own_time_is_kept_to() -> None:
    found = takedown.after(RateLimited("429", retry_after=7200), NOW, NOW)
    assert isinstance(found, Open)
    assert found.again_at == NOW + timedelta(hours=2)


def test_only_what_a_person_can_mend_names_one() -> None:
    who = {type(one).__name__: takedown.after(one, NOW, NOW).who_acts for one in TROUBLE}
    assert who["Transient"] == who["RateLimited"] == who["OutcomeUnknown"] == "nobody"
    assert who["Reauthorize"] == "the account's owner"
    assert who["NotFound"] == "an operator"
    assert who["UnexpectedResponse"] == "a developer"


def test_after_a_week_somebody_has_to_do_it_by_hand() -> None:
    assert isinstance(takedown.after(Transient("503"), NOW - timedelta(days=8), NOW), Ended)


@pytest.mark.parametrize("state", ["live", "gone", "processing", "ready", "failed", "unknown"])
def test_a_way_leads_to_the_end(state: str) -> None:
    assert may_move(State(state), takedown.end_of(State(state)))
