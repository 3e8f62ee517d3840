"""Quantities with a unit, as a person writes them: `16 MB`, `3 h`, `25 Mbit/s`; and days."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_NUMBER = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z/]+)\s*")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
SPANS: dict[str, int | Decimal] = {"ms": Decimal("0.001"), "s": 1, "min": 60, "h": 3600, "d": 86400}
RATES = {
    "bps": 1,
    "kbps": 10**3,
    "Mbps": 10**6,
    "bit/s": 1,
    "kbit/s": 10**3,
    "Mbit/s": 10**6,
}

Units = Mapping[str, int | Decimal]


def _quantity(value: Any, units: Units) -> Decimal:
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is not None and match[2] in units:
        return Decimal(match[1]) * units[match[2]]
    if match is None:
        example = f"e.g. 5 {[*units][1]}"
        raise ValueError(f"needs a number with a unit ({', '.join(units)}), {example}")
    raise ValueError(f"unknown unit '{match[2]}' ({_nearest(match[2], units)})")


#: What people write and we do not, as difflib would not find it.
_MEANT = {"sec": "s", "second": "s", "minute": "min", "m": "min", "hr": "h", "hour": "h"}
_MEANT |= {"day": "d", "k": "kB", "m/s": "Mbps"}


def _nearest(unit: str, units: Units) -> str:
    """Return which unit was most likely meant, or all of them."""
    near = _MEANT.get(unit.lower().removesuffix("s")) or _MEANT.get(unit.lower(), "")
    if near not in units:
        by_case = {one.lower(): one for one in units}
        found = difflib.get_close_matches(unit.lower(), by_case, n=1, cutoff=0.5)
        near = by_case[found[0]] if found else ""
    return f"did you mean '{near}'?" if near else f"known: {', '.join(units)}"


def _schema(units: Units) -> WithJsonSchema:
    pattern = rf"^\s*[0-9]+(\.[0-9]+)?\s*({'|'.join(units)})\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern})


def bytes_of(value: Any) -> int:
    """Return the bytes that `16 MB` means; raise ValueError without a unit."""
    return int(_quantity(value, BYTES))


def span_of(value: Any) -> timedelta:
    """Return the span that `3 h` means; raise ValueError without a unit."""
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=float(_quantity(value, SPANS)))
    except OverflowError:
        raise ValueError("is longer than time lasts") from None


def rate_of(value: Any) -> int:
    """Return the bits per second that `25 Mbit/s` means; raise ValueError without a unit."""
    return int(_quantity(value, RATES))


def day_of(value: Any) -> date:
    """Return the day that `2026-09-01` means, quoted or not; raise ValueError for all else."""
    if type(value) is date:
        return value
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("needs a day of the calendar as YYYY-MM-DD")


Bytes = Annotated[int, BeforeValidator(bytes_of), _schema(BYTES)]
Span = Annotated[timedelta, BeforeValidator(span_of), _schema(SPANS)]
Rate = Annotated[int, BeforeValidator(rate_of), _schema(RATES)]
Day = Annotated[date, BeforeValidator(day_of), WithJsonSchema({"type": "string", "format": "date"})]


def no_shorter(least: timedelta) -> BeforeValidator:
    """Return what refuses a span that is shorter than `least`."""

    def long_enough(value: Any) -> timedelta:
        span = span_of(value)
        if span < least:
            raise ValueError(f"must be at least {least.total_seconds():.0f} s")
        return span

    return BeforeValidator(long_enough)
