"""Decides when to look whether a live post is still there, and what the looks together say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from clickpost.contract import Absence, Presence

#: Ages of a post at which it is looked at: what is kept vanishes early, or hardly ever.
LOOKS = (timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30))
#: After a look that missed it, the look that decides comes no sooner.
CONFIRM_AFTER = timedelta(minutes=10)


@dataclass(frozen=True)
class Same:
    """It is there, as far as anybody can tell; `digest` is of its text, None where untold."""

    digest: str | None


@dataclass(frozen=True)
class Changed:
    """It is there, and differs: `what`, in a sentence; `digest` is of its text now."""

    what: str
    digest: str | None


@dataclass(frozen=True)
class Missed:
    """It was not there, for the first time: another look decides."""


@dataclass(frozen=True)
class Gone:
    """It was not there twice, some minutes apart."""


@dataclass(frozen=True)
class Untold:
    """The platform cannot tell: nothing follows from it."""


Seen = Same | Changed | Missed | Gone | Untold


def judge(
    parts: Sequence[Presence | Absence],
    known: str | None,
    absent_at: datetime | None,
    now: datetime,
) -> Seen:
    """Say what a look at a post's `parts` (one, or those of a thread) means.

    `known` is the digest of its text as it was first seen, `absent_at` when a look first missed
    it. A part of a thread that is missing is a change; a post is gone with all of its parts.
    """
    if not parts or Absence.CANNOT_TELL in parts:
        return Untold()
    there = [part for part in parts if isinstance(part, Presence)]
    if not there:
        again = absent_at is not None and now - absent_at >= CONFIRM_AFTER
        return Gone() if again else Missed()
    digest = digest_of(parts)
    if digest is None or known is None or digest == known:
        return Same(digest)
    if lost := len(parts) - len(there):
        return Changed(f"{lost} of its {len(parts)} parts vanished at the platform", digest)
    return Changed("its text was changed at the platform", digest)


def digest_of(parts: Sequence[Presence | Absence]) -> str | None:
    """Return one digest of all parts; None where the platform does not tell the text."""
    each = [part.digest if isinstance(part, Presence) else "" for part in parts]
    told = [one for one in each if one is not None]
    return " ".join(told) if len(told) == len(each) else None
