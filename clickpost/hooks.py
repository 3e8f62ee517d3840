"""Decides whether a webhook that comes in is genuine and fresh (Standard Webhooks)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as chance
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from clickpost.telling import REPLAY_WINDOW, key_of

#: The bytes that a hook may bring; what is larger is refused unread.
LARGEST = 256 * 1024
#: So many signatures of one call are looked at: a sender that rotates its key sends two.
_MOST_SIGNATURES = 5
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[\x21-\x7e]{1,256}")
#: Checked where no hook has the name, so that a wrong name takes as long as a wrong signature.
_NOBODYS = "whsec_" + base64.b64encode(bytes(32)).decode()


class Verdict(StrEnum):
    """What came of a call's check."""

    GENUINE = "genuine"
    FORGED = "forged"
    STALE = "stale"


@dataclass(frozen=True)
class Call:
    """A webhook as it came in."""

    id: str
    stamp: str
    signatures: str
    body: bytes

    @classmethod
    def of(cls, headers: Mapping[str, str], body: bytes) -> Call:
        """Return the call that `headers`, in small letters, and `body` make."""
        return cls(
            headers.get("webhook-id", ""),
            headers.get("webhook-timestamp", ""),
            headers.get("webhook-signature", ""),
            body,
        )


def new_secret() -> str:
    """Return a new secret of 32 random bytes, in the form `whsec_BASE64`."""
    return "whsec_" + base64.b64encode(chance.token_bytes(32)).decode()


def judge(call: Call, secret: str | None, now: datetime) -> Verdict:
    """Say whether the holder of `secret` made this call just now; None is nobody's secret.

    Only who can sign learns that a timestamp is too old or too far ahead.
    """
    expected = _marked(call, secret or _NOBODYS)
    given = [one.encode() for one in call.signatures.split(" ")[:_MOST_SIGNATURES]]
    # All are compared, whichever fits: the time that it takes tells nothing.
    fits = [hmac.compare_digest(expected, one) for one in given]
    if secret is None or not any(fits) or not _ID.fullmatch(call.id):
        return Verdict.FORGED
    if not call.stamp.isascii() or not call.stamp.isdigit() or len(call.stamp) > 12:
        return Verdict.STALE
    apart = abs(now.timestamp() - int(call.stamp))
    return Verdict.GENUINE if apart <= REPLAY_WINDOW.total_seconds() else Verdict.STALE


def _marked(call: Call, secret: str) -> bytes:
    said = f"{call.id}.{call.stamp}.".encode() + call.body
    try:
        mark = hmac.new(key_of(secret), said, hashlib.sha256).digest()
    except (ValueError, binascii.Error):
        raise ValueError("a hook's secret is damaged") from None
    return b"v1," + base64.b64encode(mark)


def once_of(hook_id: str, call_id: str) -> str:
    """Return what makes a second call with the same id the same happening; ids stay theirs."""
    return f"hook:{hook_id}:{hashlib.sha256(call_id.encode()).hexdigest()[:40]}"


def event_of(name: str) -> str:
    """Return the name of the event that a call to the hook `name` becomes."""
    return f"hook.{name}"
