"""Decides what a canary is marked with, in which spellings it is looked for, and what was found.

A canary is a made-up person and business: created as real ones are, erased as real ones are, and
then looked for everywhere. A mark is never written down but where the canary is.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: What the ledger knows the runs of canaries by.
SUBJECT = "canary"
_LETTERS = "bcdfghjklmnpqrstvwxz0123456789"
_LONG = 20


@dataclass(frozen=True)
class Marks:
    """One mark for all that is about the person, one for all else about their business."""

    person: str
    account: str

    @classmethod
    def new(cls) -> Marks:
        """Return marks that stand nowhere yet: 98 bits of chance each."""
        return cls(_mark(), _mark())

    @property
    def all(self) -> tuple[str, str]:
        """Both."""
        return self.person, self.account


def _mark() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(_LONG))


def name_of(mark: str) -> str:
    """Return the name of somebody who is marked so."""
    return f"Canary {mark}"


def address_of(mark: str) -> str:
    """Return their address: mail to `.invalid` goes nowhere (RFC 2606)."""
    return f"{mark}@canary.invalid"


def spellings(mark: str) -> tuple[str, ...]:
    """Return how a mark may stand somewhere: as it is, in hex, and in base64 wherever it begins.

    In base64 only the letters that no neighbour changes.
    """
    raw = mark.encode()
    found = [mark, raw.hex()]
    for shift, skip in ((0, 0), (1, 2), (2, 3)):
        whole = (shift + len(raw)) * 8 // 6
        found.append(base64.b64encode(b"\0" * shift + raw).decode()[skip:whole])
    return tuple(found)


def pattern(marks: Iterable[str]) -> str:
    """Return a regular expression, for SQL and Python, that finds any spelling of any mark."""
    return "|".join(re.escape(one) for mark in marks for one in spellings(mark))


@dataclass(frozen=True, order=True)
class Trace:
    """Where a mark was found, and in how many rows or files; the place, never the words."""

    place: str
    count: int


@dataclass(frozen=True)
class Looked:
    """What a look everywhere came to: traces, how many places, and where nobody could look."""

    traces: tuple[Trace, ...] = ()
    places: int = 0
    unsearched: tuple[str, ...] = ()

    def __add__(self, other: Looked) -> Looked:
        return Looked(
            tuple(sorted({*self.traces, *other.traces})),
            self.places + other.places,
            tuple(sorted({*self.unsearched, *other.unsearched})),
        )

    def as_facts(self) -> dict[str, Any]:
        """Return what the ledger keeps of it."""
        return {
            "found": {one.place: one.count for one in self.traces},
            "places": self.places,
            "unsearched": list(self.unsearched),
        }


@dataclass(frozen=True)
class Flight:
    """What the ledger says of a canary: `planted`, `searched` or `failed`, when, and the rest."""

    became: str
    at: datetime
    facts: Mapping[str, Any]

    @property
    def looked(self) -> Looked:
        """What its look came to."""
        found = dict(self.facts.get("found", {}))
        traces = tuple(Trace(place, int(count)) for place, count in sorted(found.items()))
        unsearched = tuple(self.facts.get("unsearched", ()))
        return Looked(traces, int(self.facts.get("places", 0)), unsearched)


def said(looked: Looked) -> str:
    """Say what a look came to, for people."""
    if looked.traces:
        found = ", ".join(f"{one.place} ({one.count})" for one in looked.traces)
        return f"the erased canary was found: {found}"
    unseen = f"; nobody could look at {', '.join(looked.unsearched)}" if looked.unsearched else ""
    return f"nothing of the erased canary in {looked.places} places{unseen}"


def stands_in(chunks: Iterable[bytes], wanted: re.Pattern[bytes]) -> bool:
    """Say whether any spelling stands in bytes that come in pieces, also across two of them."""
    rest = b""
    for chunk in chunks:
        if wanted.search(rest + chunk):
            return True
        rest = (rest + chunk)[-4 * _LONG :]
    return False
