"""A quantity has a unit, and the unit decides."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.policy.units import (
    BYTES,
    RATES,
    SPANS,
    bytes_of,
    day_of,
    rate_of,
    span_of,
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("16 MB", 16_000_000),
        ("16 MiB", 16_777_216),
        ("16MB", 16_000_000),
        (" 1.5 kB ", 1_500),
        ("0.29 GB", 290_000_000),  # Floats would make it 289,999,999.
        ("1 B", 1),
        ("0 B", 0),
    ],
)
def test_bytes_know_thousands_from_1024(written: str, meant: int) -> None:
    assert bytes_of(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("30 d", timedelta(days=30)),
        ("10 min", timedelta(minutes=10)),
        ("3 h", timedelta(hours=3)),
        ("90 s", timedelta(seconds=90)),
        ("250 ms", timedelta(milliseconds=250)),
        ("0 s", timedelta()),
    ],
)
def test_spans_are_read_as_they_are_written(written: str, meant: timedelta) -> None:
    assert span_of(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [("25 Mbit/s", 25_000_000), ("25 Mbps", 25_000_000), ("128 kbit/s", 128_000), ("9 bps", 9)],
)
def test_rates_are_bits_a_second(written: str, meant: int) -> None:
    assert rate_of(written) == meant


@pytest.mark.parametrize(
    "nonsense",
    [5, 5.0, True, None, "5", "", "MB", "-5 MB", "5 5 MB", "1e3 MB", "٥ MB", ["5 MB"], "9" * 99],
)
@pytest.mark.parametrize("read", [bytes_of, span_of, rate_of])
def test_a_number_without_its_unit_is_refused(read: Any, nonsense: Any) -> None:
    with pytest.raises(ValueError, match=r"needs a number with a unit|unknown unit"):
        read(nonsense)


@pytest.mark.parametrize(
    ("read", "written", "meant"),
    [
        (bytes_of, "5 mb", "MB"),
        (bytes_of, "5 MIB", "MiB"),
        (bytes_of, "5 K", "kB"),
        (span_of, "5 hours", "h"),
        (span_of, "5 sec", "s"),
        (span_of, "5 m", "min"),
        (span_of, "5 days", "d"),
        (rate_of, "5 mbit/s", "Mbit/s"),
        (rate_of, "5 Mb/s", "Mbit/s"),
    ],
)
def test_a_misspelt_unit_names_the_nearest(read: Any, written: str, meant: str) -> None:
    with pytest.raises(ValueError, match="unknown unit") as caught:
        read(written)
    assert f"did you mean '{meant}'?" in str(caught.value)


def test_a_unit_like_no_other_names_them_all() -> None:
    with pytest.raises(ValueError, match=r"unknown unit 'xyz' \(known: ms, s, min, h, d\)"):
        span_of("5 xyz")


def test_a_span_beyond_all_time_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than time lasts"):
        span_of("999999999999999 d")


@given(st.integers(0, 10**6), st.sampled_from([*BYTES]))
def test_whole_quantities_are_exact(number: int, unit: str) -> None:
    assert bytes_of(f"{number} {unit}") == number * BYTES[unit]


@given(st.text(max_size=20))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for read in (bytes_of, span_of, rate_of, day_of):
        try:
            read(text)
        except ValueError:
            continue


def test_no_unit_is_in_two_tables_with_two_meanings() -> None:
    assert not set(BYTES) & set(SPANS)
    assert not set(BYTES) & set(RATES)
    assert not set(SPANS) & set(RATES)


def test_a_day_may_be_quoted() -> None:
    assert day_of("2026-09-01") == day_of(date(2026, 9, 1)) == date(2026, 9, 1)


@pytest.mark.parametrize("nonsense", ["2026-9-1", "20260901", "2026-W36-2", 20260901, None, True])
def test_a_day_is_written_in_full(nonsense: Any) -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        day_of(nonsense)
