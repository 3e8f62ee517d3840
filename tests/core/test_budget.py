"""Budgets: nothing is overspent, what waits waits no longer than it has to, and takes turns."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import budget
from clickpost.budget import Ask, Pot, Reading, Spent, Told, Waiting
from clickpost.policy.load import load_platforms
from clickpost.policy.shape import Costs
from clickpost.settings import PROJECT

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
POLICIES = load_platforms(PROJECT / "policies")
HOUR = timedelta(hours=1)

AGES = st.integers(0, 7200).map(lambda seconds: NOW - timedelta(seconds=seconds))
SPENT = st.lists(st.builds(Spent, st.integers(1, 5), AGES), max_size=30)
TOLD = st.none() | st.builds(
    Told,
    left=st.integers(0, 40),
    resets_at=st.integers(-600, 3600).map(lambda s: NOW + timedelta(seconds=s)),
    seen_at=AGES,
    total=st.none() | st.integers(1, 40),
)


def pot(total: int = 10, resets: str | None = None, **more: object) -> Pot:
    window = timedelta(days=1) if resets else HOUR
    return Pot("account:x", "posts", total, window, Costs(post=1), resets, **more)  # type: ignore[arg-type]


@given(SPENT, TOLD, st.integers(0, 40), st.integers(1, 50), st.sampled_from([None, "Asia/Tokyo"]))
def test_what_waits_fits_when_its_time_comes_and_not_before(
    spent: list[Spent], told: Told | None, total: int, need: int, resets: str | None
) -> None:
    own = pot(total, resets)
    at = budget.free_at(own, spent, told, need, NOW)
    assert at >= NOW
    if budget.total_of(own, told) == 0:
        assert at > NOW
        return
    assert budget.free_at(own, spent, told, need, at) == at
    if at > NOW:
        early = at - timedelta(microseconds=1)
        assert budget.free_at(own, spent, told, need, early) == at


@given(st.lists(st.integers(1, 4), min_size=1, max_size=60), st.integers(4, 12))
def test_no_window_ever_holds_more_than_its_total(needs: list[int], total: int) -> None:
    own, spent, now = pot(total), list[Spent](), NOW
    for need in needs:
        now = budget.free_at(own, spent, None, need, now)
        spent.append(Spent(need, now))
    for one in spent:
        inside = [other for other in spent if one.at - HOUR < other.at <= one.at]
        assert sum(other.amount for other in inside) <= total


def test_a_daily_quota_begins_anew_at_midnight_of_its_zone() -> None:
    own = pot(2, "America/Los_Angeles")
    before = Spent(2, datetime(2026, 11, 24, 7, 59, tzinfo=UTC))
    assert budget.free_at(own, [before], None, 1, NOW) == NOW
    today = Spent(2, datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    midnight = datetime(2026, 11, 25, 8, tzinfo=UTC)
    assert budget.free_at(own, [today], None, 1, NOW) == midnight


def test_what_the_platform_says_wins_in_both_directions() -> None:
    own, until = pot(10), NOW + HOUR / 2
    others = Told(left=0, resets_at=until, seen_at=NOW, total=10)
    assert budget.free_at(own, [], others, 1, NOW) == until
    assert budget.used_of(own, [], others, NOW) == 10
    larger = Told(left=90, resets_at=until, seen_at=NOW, total=100)
    assert budget.free_at(own, [Spent(10, NOW)], larger, 1, NOW) == NOW


def test_what_left_after_the_platform_spoke_counts_too() -> None:
    told = Told(left=3, resets_at=NOW + HOUR, seen_at=NOW - timedelta(minutes=1))
    spent = [Spent(2, NOW)]
    assert budget.free_at(pot(10), spent, told, 1, NOW) == NOW
    assert budget.free_at(pot(10), spent, told, 2, NOW) == NOW + HOUR


def test_a_thread_longer_than_the_budget_goes_once_nothing_else_is_used() -> None:
    assert budget.free_at(pot(5), [], None, 30, NOW) == NOW
    assert budget.free_at(pot(5), [Spent(1, NOW)], None, 30, NOW) == NOW + HOUR


WORKSPACES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1000)), max_size=40)


def line_of(drawn: list[tuple[str, int]]) -> list[Waiting]:
    return [
        Waiting(f"d{n}", workspace, NOW - timedelta(seconds=age))
        for n, (workspace, age) in enumerate(drawn)
    ]


@given(WORKSPACES)
def test_workspaces_take_turns_and_each_keeps_its_own_order(drawn: list[tuple[str, int]]) -> None:
    order = budget.in_order(line_of(drawn), {})
    total = Counter(one.workspace_id for one in order)
    assert sum(total.values()) == len(drawn)
    served: Counter[str] = Counter()
    for one in order:
        served[one.workspace_id] += 1
        waiting = [name for name in total if served[name] < total[name]]
        for a, b in itertools.permutations(waiting, 2):
            assert served[a] - served[b] <= 1
    for name in total:
        own = [one.queued_at for one in order if one.workspace_id == name]
        assert own == sorted(own)


@given(st.integers(1, 100), st.integers(1, 5))
def test_a_large_customer_never_starves_a_small_one(large: int, small: int) -> None:
    """Each time one place is free, whoever is first goes; the small one came last."""
    line = line_of([("large", 900)] * large + [("small", 1)] * small)
    served_at: dict[str, datetime] = {"large": NOW - HOUR}
    went: list[str] = []
    for tick in range(large + small):
        first = budget.in_order(line, served_at)[0]
        line.remove(first)
        served_at[first.workspace_id] = NOW + timedelta(seconds=tick)
        went.append(first.workspace_id)
    assert went[: 2 * min(small, large)].count("small") == min(small, large)


def test_nobody_overtakes_those_who_stand_before_them() -> None:
    room_for_one = Ask(pot(10), need=1, ahead=1, spent=(Spent(9, NOW - HOUR / 2),))
    short = budget.decide([room_for_one], NOW)
    assert short is not None
    assert short.until == NOW + HOUR / 2
    assert budget.decide([Ask(pot(10), need=1, spent=(Spent(9, NOW),))], NOW) is None
    last_of_many = budget.decide([Ask(pot(10), need=1, ahead=500)], NOW)
    assert last_of_many is not None
    assert last_of_many.until > NOW


def test_the_pot_that_takes_longest_decides_and_says_so() -> None:
    day = Pot("app:x", "units", 5, timedelta(days=1), Costs(post=1), "UTC")
    full = (Spent(10, NOW - HOUR / 2),)
    short = budget.decide([Ask(pot(10), 1, spent=full), Ask(day, 1, spent=full)], NOW)
    assert short is not None
    assert short.holder == "app:x"
    assert short.reason == "no budget: 10 units a day are used; next at 2026-11-25 00:00 UTC"
    short = budget.decide([Ask(pot(10), 1, spent=full)], NOW)
    assert short is not None
    assert short.reason == "no budget: 10 posts in 1 h are used; next at 2026-11-24 12:30 UTC"


def test_a_few_behind_the_burst_guard_are_nobodys_business_and_many_an_operators() -> None:
    assert budget.guarded("why", budget.A_FEW) == ("why", "nobody")
    reason, who = budget.guarded("why", budget.A_FEW + 1)
    assert (reason[:4], who) == ("why;", "an operator")


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_platform_has_a_burst_guard_which_a_connection_may_change(name: str) -> None:
    holders = budget.holders_of(name, "https://one.example", "acc")
    guard = budget.pots_of(POLICIES[name], holders)[-1]
    assert (guard.guard, guard.total, guard.window) == (True, 25, HOUR)
    assert budget.pots_of(POLICIES[name], holders, 3)[-1].total == 3
    assert budget.need_of(guard, posts=30) == 1


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_platform_counts_posts_in_some_budget(name: str) -> None:
    assert any(one.costs.post for one in POLICIES[name].budget)


def test_the_same_account_has_one_budget_and_its_key_names_nobody() -> None:
    one = budget.holders_of("mastodon", "https://a.example/", "4711", "app")
    again = budget.holders_of("mastodon", "https://a.example", "4711", "app")
    other = budget.holders_of("mastodon", "https://b.example", "4711", "app")
    assert one == again
    assert one.account != other.account
    assert "4711" not in one.account


@pytest.mark.parametrize(
    ("platform", "total", "window", "resets_in", "what"),
    [
        ("mastodon", 300, None, 200, ("requests", 300)),
        ("mastodon", 300, None, 9000, ("posts", 10800)),
        ("mastodon", 30, None, 900, ("uploads", 1800)),
        ("mastodon", 7500, None, 200, None),
        ("bluesky", 3000, 300, 300, ("requests", 300)),
        ("bluesky", 5000, None, 3600, ("points", 3600)),
        ("bluesky", 30, 300, 300, None),
    ],
)
def test_headers_are_about_the_pot_that_they_name(
    platform: str, total: int, window: int | None, resets_in: int, what: tuple[str, int] | None
) -> None:
    holders = budget.holders_of(platform, "https://a.example", "acc")
    pots = budget.pots_of(POLICIES[platform], holders)
    span = timedelta(seconds=window) if window else None
    reading = Reading(1, NOW + timedelta(seconds=resets_in), NOW, total, span)
    found = budget.pot_of(reading, pots)
    assert (found and (found.what, found.seconds)) == what


def test_the_tightest_pot_is_the_one_of_which_most_is_used() -> None:
    free = budget.standing(pot(10), [], None, NOW)
    used = budget.standing(pot(100), [Spent(50, NOW)], None, NOW)
    assert budget.tightest([free, used]) == [used, free]
    assert (free.full_at, used.full_at) == (None, NOW + HOUR)
    assert budget.said(used) == "50 of 100 posts in 1 h, free again at 2026-11-24 13:00 UTC"
    assert budget.said(free) == "0 of 10 posts in 1 h"
    units = Pot("app:x", "units", 5, timedelta(days=1), Costs(post=1), "UTC")
    assert budget.said(budget.standing(units, [], None, NOW)) == "0 of 5 units of the app a day"
