"""Signed links of limited life to renditions, for platforms that fetch media themselves."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta

#: A platform fetches within minutes; Instagram keeps a container for a day.
LIVES = timedelta(hours=24)


def media_link(base: str, key: bytes, rendition_id: str, suffix: str, now: datetime) -> str:
    """Return the link under `base` that serves one rendition until it expires."""
    expires = int((now + LIVES).timestamp())
    return f"{base}/media/{rendition_id}/{expires}/{_mark(key, rendition_id, expires)}{suffix}"


def may_fetch(key: bytes, rendition_id: str, expires: int, mark: str, now: datetime) -> bool:
    """Say whether the link's mark is ours and still lives."""
    good = hmac.compare_digest(_mark(key, rendition_id, expires).encode(), mark.encode())
    return good and now.timestamp() <= expires


def _mark(key: bytes, rendition_id: str, expires: int) -> str:
    return hmac.new(key, f"media:{rendition_id}:{expires}".encode(), hashlib.sha256).hexdigest()
