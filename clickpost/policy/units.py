"""Quantities with a unit, as a person writes them: `16 MB`, `3 h`, `25 Mbps`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_NUMBER = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$")

BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
SPANS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
RATES = {"bps": 1, "kbps": 10**3, "Mbps": 10**6}


def _quantity(value: Any, units: dict[str, Any]) -> float:
    match = _NUMBER.match(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"needs a number with a unit ({', '.join(units)}), e.g. 5 {[*units][1]}")
    return float(match[1]) * float(units[match[2]])


def _schema(units: dict[str, Any]) -> WithJsonSchema:
    pattern = rf"^\s*\d+(\.\d+)?\s*({'|'.join(units)})\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern})


def bytes_of(value: Any) -> int:
    """Return the bytes that `16 MB` means; raise ValueError without a unit."""
    return value if type(value) is int else int(_quantity(value, BYTES))


def span_of(value: Any) -> timedelta:
    """Return the span that `3 h` means; raise ValueError without a unit."""
    return value if isinstance(value, timedelta) else timedelta(seconds=_quantity(value, SPANS))


def rate_of(value: Any) -> int:
    """Return the bits per second that `25 Mbps` means; raise ValueError without a unit."""
    return value if type(value) is int else int(_quantity(value, RATES))


Bytes = Annotated[int, BeforeValidator(lambda v: int(_quantity(v, BYTES))), _schema(BYTES)]
Span = Annotated[timedelta, BeforeValidator(span_of), _schema(SPANS)]
Rate = Annotated[int, BeforeValidator(lambda v: int(_quantity(v, RATES))), _schema(RATES)]
