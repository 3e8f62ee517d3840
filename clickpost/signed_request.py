"""Decides whether a `signed_request` comes from Meta: HMAC-SHA256 with a secret of one of our apps.

Meta's deauthorize and data deletion callbacks bring one (Facebook, Instagram, Threads).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: Characters that one may have; Meta's have some hundred.
LONGEST = 4096
#: A moment beyond this (the year 9999) is none.
_LATEST = 253_402_300_799


@dataclass(frozen=True)
class SignedRequest:
    """What Meta says: of whom, by the id that the app knows them under, and when it said so."""

    user_id: str
    issued_at: datetime | None = None


def read(given: str, secrets: Iterable[str], now: datetime) -> SignedRequest | None:
    """Return what is said where a holder of one of `secrets` said it, and it holds; else None.

    Which secret signs is not documented for every login, so all are tried. The signature is that
    of the payload as it came, in base64url.
    """
    mark, dot, payload = given.partition(".")
    signature = _decoded(mark) if dot and len(given) <= LONGEST else None
    expected = [hmac.new(one.encode(), payload.encode(), hashlib.sha256) for one in secrets if one]
    # All are compared, whichever fits: the time that it takes tells nothing.
    fits = [hmac.compare_digest(one.digest(), signature or b"") for one in expected]
    if signature is None or not any(fits):
        return None
    return _said(_decoded(payload), now)


def _decoded(text: str) -> bytes | None:
    """Return what base64url says; Meta leaves the padding out."""
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def _said(payload: bytes | None, now: datetime) -> SignedRequest | None:
    try:
        said = json.loads(payload or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or str(said.get("algorithm")).upper() != "HMAC-SHA256":
        return None
    ends, user_id = _moment(said.get("expires")), said.get("user_id")
    if ends is not None and ends <= now:
        return None
    if not isinstance(user_id, str | int) or isinstance(user_id, bool) or user_id == "":
        return None
    return SignedRequest(str(user_id), _moment(said.get("issued_at")))


def _moment(value: Any) -> datetime | None:
    """Return the time of an epoch; Meta says 0 where there is none."""
    if not isinstance(value, int | float) or not 0 < value <= _LATEST:
        return None
    return datetime.fromtimestamp(value, UTC)
