"""Makes ids: a word for what it is, then 26 letters that sort by time."""

from __future__ import annotations

import secrets
import time

_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, as ULIDs use.


def new(kind: str) -> str:
    """Return a new id, e.g. `post_01jd8x3v5t6h2k9m4q7r8s9tab`: 48 bits of time, 80 of chance."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    letters = (_LETTERS[number >> shift & 31] for shift in range(125, -1, -5))
    return f"{kind}_{''.join(letters)}"
