"""Decides whether an event comes from TikTok: HMAC-SHA256 of time and body, by our app's secret.

Its `authorization.removed` says that a person took their grant back; it is told at least once, for
up to three days, so hearing it again has to change nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

#: The header that signs.
HEADER = "tiktok-signature"
REMOVED = "authorization.removed"
#: Retries come for 72 h, and nothing says that each is signed anew; what is older is a replay. One
#: that is younger harms nobody: it ends what was granted before it, and that has ended.
OLDEST = timedelta(hours=73)
#: Clocks may differ by so much.
AHEAD = timedelta(minutes=5)
_HEADER = re.compile(r"t=(?P<at>\d{1,11}),s=(?P<mark>[0-9a-fA-F]{64})")


class Reason(StrEnum):
    """Why a grant ended, in our words."""

    UNKNOWN = "unknown"
    DISCONNECTED = "disconnected"
    ACCOUNT_DELETED = "account_deleted"
    AGE = "age"
    BANNED = "banned"
    BY_US = "by_us"


_REASONS = dict(enumerate(Reason))


@dataclass(frozen=True)
class SignedEvent:
    """What is said: which event, of whom, when; `reason` with `authorization.removed`."""

    event: str
    user_id: str
    at: datetime | None = None
    reason: Reason = Reason.UNKNOWN


def read(signature: str, body: bytes, secrets: Iterable[str], now: datetime) -> SignedEvent | None:
    """Return what is said where a holder of one of `secrets` said it lately; else None."""
    parts = _HEADER.fullmatch(signature.replace(" ", ""))
    if parts is None:
        return None
    message = parts["at"].encode() + b"." + body
    given = parts["mark"].lower()
    expected = [hmac.new(one.encode(), message, hashlib.sha256) for one in secrets if one]
    # All are compared, whichever fits: the time that it takes tells nothing.
    fits = [hmac.compare_digest(one.hexdigest(), given) for one in expected]
    signed_at = _moment(int(parts["at"]))
    if not any(fits) or signed_at is None or not now - OLDEST <= signed_at <= now + AHEAD:
        return None
    return _said(body)


def _said(body: bytes) -> SignedEvent | None:
    said = _object(body)
    event, user_id = said.get("event"), said.get("user_openid")
    if not isinstance(event, str) or not isinstance(user_id, str) or not user_id:
        return None
    content = _object(str(said.get("content") or "").encode())
    reason = content.get("reason")
    known = _REASONS.get(reason) if isinstance(reason, int) else None
    return SignedEvent(event, user_id, _moment(said.get("create_time")), known or Reason.UNKNOWN)


def _object(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _moment(value: Any) -> datetime | None:
    """Return the time of an epoch in seconds, None where it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return datetime.fromtimestamp(value, UTC) if value > 0 else None
    except (OverflowError, OSError, ValueError):
        return None
