"""A look proves little; two of them, and the platform's own word, prove that a post is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from clickpost import drift
from clickpost.contract import Absence, Presence
from clickpost.drift import CONFIRM_AFTER, Changed, Gone, Missed, Same, Untold

NOW = datetime(2026, 11, 24, tzinfo=UTC)
A, B = Presence("a"), Presence("b")
ABSENT, DOUBT = Absence.NOT_THERE, Absence.CANNOT_TELL
PARTS = some.lists(some.sampled_from([A, B, Presence(), ABSENT, DOUBT]), max_size=4)


@given(PARTS, some.none() | some.sampled_from(["a", "b"]), some.none() | some.integers(0, 3600))
def test_gone_needs_every_part_absent_twice_and_far_enough_apart(
    parts: list[Presence | Absence], known: str | None, ago: int | None
) -> None:
    absent_at = None if ago is None else NOW - timedelta(seconds=ago)
    seen = drift.judge(parts, known, absent_at, NOW)
    proof = bool(parts) and set(parts) == {ABSENT} and (ago or 0) >= CONFIRM_AFTER.total_seconds()
    assert isinstance(seen, Gone) == proof
    assert isinstance(seen, Untold) == (not parts or DOUBT in parts)


@pytest.mark.parametrize(
    ("parts", "known", "kind"),
    [
        ([A], None, Same),
        ([A], "a", Same),
        ([B], "a", Changed),
        ([Presence()], "a", Same),
        ([ABSENT], "a", Missed),
        ([A, ABSENT], "a b", Changed),
        ([A, B], "a b", Same),
    ],
)
def test_what_a_look_means(parts: list[Presence | Absence], known: str | None, kind: type) -> None:
    assert isinstance(drift.judge(parts, known, None, NOW), kind)


def test_a_lost_part_of_a_thread_is_told_once() -> None:
    seen = drift.judge([A, ABSENT], "a b", None, NOW)
    assert isinstance(seen, Changed)
    assert seen.what == "1 of its 2 parts vanished at the platform"
    assert drift.judge([A, ABSENT], seen.digest, None, NOW) == Same(seen.digest)
