"""Makes ids: a word for what it is, then 26 letters that sort by time."""

from __future__ import annotations

import secrets
import time
from datetime import datetime

_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, as ULIDs use.


def new(kind: str) -> str:
    """Return a new id, e.g. `post_01jd8x3v5t6h2k9m4q7r8s9tab`: 48 bits of time, 80 of chance."""
    return _written(kind, time.time_ns() // 1_000_000 << 80 | secrets.randbits(80))


def first_of(kind: str, moment: datetime) -> str:
    """Return the id before which no id stands that is made from `moment` on."""
    return _written(kind, int(moment.timestamp() * 1000) << 80)


def _written(kind: str, number: int) -> str:
    letters = (_LETTERS[number >> shift & 31] for shift in range(125, -1, -5))
    return f"{kind}_{''.join(letters)}"
