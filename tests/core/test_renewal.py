"""A token is renewed ahead of its end, and one that cannot be renewed is not asked for at once."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from clickpost.policy.shape import TokenRules
from clickpost.renewal import Need, need

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=30)
RULES = TokenRules.model_validate(
    {
        "lives": "60 d",
        "assumed": "8 d",
        "renew": "7 d",
        "source": "https://example.org/",
        "checked": date(2026, 11, 24),
    }
)


@pytest.mark.parametrize(
    ("left", "rules", "wanted"),
    [
        (timedelta(days=8), RULES, Need.NONE),
        (timedelta(days=6), RULES, Need.AHEAD),
        (timedelta(days=6), None, Need.NONE),
        (timedelta(minutes=1), RULES, Need.DUE),
        (timedelta(minutes=1), None, Need.DUE),
        (timedelta(days=-1), RULES, Need.DUE),
        (None, RULES, Need.NONE),
    ],
)
def test_how_urgent_a_renewal_is(
    left: timedelta | None, rules: TokenRules | None, wanted: Need
) -> None:
    ends = None if left is None else NOW + left
    assert need(ends, LONG_AGO, rules, NOW) is wanted


def test_a_renewal_that_failed_is_tried_again_after_an_hour_and_sooner_only_at_the_end() -> None:
    failed_at = NOW - timedelta(minutes=59)
    assert need(NOW + timedelta(days=6), failed_at, RULES, NOW) is Need.NONE
    assert need(NOW + timedelta(days=6), failed_at, RULES, NOW + timedelta(minutes=2)) is Need.AHEAD
    assert need(NOW + timedelta(minutes=1), failed_at, RULES, NOW) is Need.DUE
