"""What is stuck is named in minutes, with what happens next; what waits for its time is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from clickpost import stuck
from clickpost.delivery import SETTLED, State
from clickpost.stuck import Going

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
GIVE_UP = timedelta(minutes=30)
OLD = NOW - timedelta(days=2)
ONE = Going(
    id="dlv_1",
    post_id="post_1",
    workspace_id="ws_1",
    connection_id="conn_1",
    platform="bluesky",
    ref="bluesky/studio",
    state=State.READY,
    reason=None,
    who_acts=None,
    run_id=None,
    due_at=None,
    not_before=None,
    sent_at=OLD,
    takedown_at=None,
    lease_until=None,
    created_at=OLD,
)


@pytest.mark.parametrize("state", State)
def test_after_two_days_every_state_that_should_move_is_stuck(state: State) -> None:
    moves = state not in SETTLED and state is not State.AWAITING_APPROVAL
    assert (stuck.judge(replace(ONE, state=state), GIVE_UP, NOW) is not None) == moves


@pytest.mark.parametrize(
    ("field", "minutes", "is_stuck"),
    [("due_at", -2, False), ("due_at", -4, True), ("due_at", 5, False), ("not_before", 5, False)],
)
def test_what_waits_for_its_time_is_not_stuck(field: str, minutes: int, is_stuck: bool) -> None:
    one = replace(ONE, **{field: NOW + timedelta(minutes=minutes)})  # type: ignore[arg-type]
    assert (stuck.judge(one, GIVE_UP, NOW) is not None) == is_stuck


def test_a_worker_that_holds_it_has_longer() -> None:
    one = replace(ONE, due_at=NOW - timedelta(minutes=10), lease_until=NOW + timedelta(minutes=1))
    assert stuck.judge(one, GIVE_UP, NOW) is None
    assert stuck.judge(replace(one, lease_until=NOW - timedelta(seconds=1)), GIVE_UP, NOW)


def test_a_platform_may_process_as_long_as_its_policy_says() -> None:
    one = replace(ONE, state=State.PROCESSING, sent_at=NOW - timedelta(minutes=20))
    assert stuck.judge(one, GIVE_UP, NOW) is None
    assert stuck.judge(one, timedelta(minutes=10), NOW)


def test_a_takedown_that_is_not_done_is_stuck_also_where_the_post_is_live() -> None:
    one = replace(ONE, state=State.LIVE, takedown_at=NOW - timedelta(minutes=11))
    found = stuck.judge(one, GIVE_UP, NOW)
    assert found is not None
    assert "take it down" in found.next


def test_who_acts_is_whom_the_row_names_else_an_operator() -> None:
    one = replace(ONE, state=State.UNKNOWN, who_acts="the account's owner")
    found = stuck.judge(one, GIVE_UP, NOW)
    assert found is not None
    assert found.who_acts == "the account's owner"
    found = stuck.judge(replace(one, who_acts="nobody yet"), GIVE_UP, NOW)
    assert found is not None
    assert found.who_acts == "an operator"


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (timedelta(seconds=-5), "0 min"),
        (timedelta(minutes=7), "7 min"),
        (timedelta(hours=3, minutes=59), "3 h"),
        (timedelta(days=2), "2 d"),
    ],
)
def test_ages_are_said_shortly(span: timedelta, said: str) -> None:
    assert stuck.age(NOW - span, NOW) == said
