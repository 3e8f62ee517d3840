"""The same said again is recognised, something else is not, and nobody reads a text out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.draft import Enclosed, Wish
from clickpost.repeats import fingerprint

SECRET = b"s" * 32


def of(text: str, *assets: str, title: str = "") -> str | None:
    media = tuple(Enclosed(asset_id=one, kind="image", file=one) for one in assets)
    return fingerprint(Wish(text=text, title=title, media=media), SECRET)


@pytest.mark.parametrize(
    "other",
    [
        "good morning harbour",
        "Good  morning,\nharbour!!",
        "GOOD MORNING #harbour",
        "Ｇood morning harbour",
    ],
)
def test_what_differs_in_looks_only_is_the_same(other: str) -> None:
    assert of("Good morning, harbour!") == of(other)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (of("1 of 3"), of("2 of 3")),
        (of("hello", "a"), of("hello", "b")),
        (of("hello"), of("", title="hello")),
        (of("👍"), of("👎")),
        (of("ab", "c"), of("a", "bc")),
    ],
)
def test_what_says_or_shows_something_else_is_not_the_same(
    one: str | None, two: str | None
) -> None:
    assert one != two


def test_files_count_in_any_order_and_nothing_is_no_repetition() -> None:
    assert of("x", "a", "b") == of("x", "b", "a")
    assert of("") is None


@given(st.text(min_size=3))
def test_a_digest_needs_its_secret(text: str) -> None:
    other = fingerprint(Wish(text=text), b"t" * 32)
    assert of(text) is None or of(text) != other
