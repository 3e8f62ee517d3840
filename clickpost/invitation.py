"""Decides what an invitation to connect an account is worth: links, states, permissions, words.

An operator makes an invitation, whoever holds its link signs in at the platform, and the platform
sends them back with a code and our `state`. Links and states are kept as digests alone.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from clickpost.errors import (
    AnotherAccount,
    ClickPostError,
    InvalidInput,
    OutcomeUnknown,
    PlatformError,
    RateLimited,
    Reauthorize,
    Transient,
)
from clickpost.policy.shape import OAuthRules, PlatformPolicy
from clickpost.reach import is_loopback

#: A link lives so long: time to send it to somebody, and for them to find a quiet minute.
LINK_LIVES = timedelta(hours=24)
#: From our page to the platform and back; a code itself lives for minutes there.
STATE_LIVES = timedelta(minutes=15)
#: What a platform calls it that it does not know our app (RFC 6749, 5.2).
NO_APP = frozenset({"invalid_client", "unauthorized_client"})


class Status(StrEnum):
    """How far an invitation has come; one that is `waiting` past its end has expired."""

    WAITING = "waiting"
    DONE = "done"


class Verdict(StrEnum):
    """What a `state` that came back is worth."""

    GOOD = "good"
    UNKNOWN = "unknown"
    USED = "used"
    EXPIRED = "expired"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Started:
    """What is known of a sign-in that began: who began it, until when it holds, if it came back."""

    platform: str
    browser_digest: str
    until: datetime
    used_at: datetime | None


def judge(started: Started | None, platform: str, browser: str | None, now: datetime) -> Verdict:
    """Say what a state is worth that came to `platform`'s callback in `browser`."""
    if started is None or started.platform != platform:
        return Verdict.UNKNOWN
    # Another browser learns nothing but that this is not the place.
    if browser is None or digest_of(browser) != started.browser_digest:
        return Verdict.ELSEWHERE
    if started.used_at is not None:
        return Verdict.USED
    return Verdict.GOOD if now < started.until else Verdict.EXPIRED


def new_word() -> str:
    """Return 256 bits of chance as text: a link's token, a state, a PKCE verifier."""
    return secrets.token_urlsafe(32)


def digest_of(word: str) -> str:
    """Return what we keep of a word of chance: it cannot be guessed, so no key is needed."""
    return hashlib.sha256(word.encode()).hexdigest()


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a PKCE verifier (RFC 7636)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def lacking(granted: Iterable[str] | None, asked: Iterable[str]) -> list[str]:
    """Return what of `asked` was not granted; None means that all was (RFC 6749, 5.1).

    A whole permission holds its parts, as Mastodon's `write` holds `write:media`.
    """
    if granted is None:
        return []
    known = set(granted)
    return [one for one in asked if one not in known and one.partition(":")[0] not in known]


def rules_of(policy: PlatformPolicy) -> OAuthRules:
    """Return how the platform grants access in a browser; raise InvalidInput where it cannot."""
    if policy.oauth is None:
        raise InvalidInput(
            f"{policy.title} is not connected in a browser; leave --browser out, and give"
            f" {', '.join(policy.credentials)}"
        )
    return policy.oauth


def reachable(policy: PlatformPolicy, gateway: str, api_base: str) -> None:
    """Raise InvalidInput where the platform would send nobody back to `gateway`."""
    parts, theirs = urlsplit(gateway), urlsplit(api_base).hostname or ""
    if parts.scheme == "https" or is_loopback(theirs):
        return
    if rules_of(policy).https:
        raise InvalidInput(
            f"{policy.title} sends people back to https addresses only, and the gateway is at"
            f" {gateway}; set CLICKPOST_PUBLIC_URL to the https address where it is reached"
        )
    if not is_loopback(parts.hostname or ""):
        raise InvalidInput(
            f"a sign-in may not travel in clear: the gateway is at {gateway}; set"
            " CLICKPOST_PUBLIC_URL to the https address where it is reached"
        )


def denied(error: str, title: str) -> str:
    """Say in plain words what `error` means, which the platform sent instead of a code."""
    match error:
        case "access_denied":
            return f"You chose not to let ClickPost in, so {title} has told us nothing."
        case "temporarily_unavailable" | "server_error":
            return f"{title} has trouble of its own just now. Try again in some minutes."
        case "invalid_scope":
            return f"{title} does not offer to this app what is needed to publish."
        case _:
            return f"{title} ended the sign-in without letting ClickPost in."


def trouble(error: ClickPostError | TimeoutError, title: str) -> str:
    """Say in plain words why a sign-in that came back did not connect the account."""
    match error:
        case AnotherAccount(expected=expected, found=found):
            return (
                f"This link is for {expected}, and you signed in as {found}. Sign in at {title} as"
                f" {expected} and try again, or ask for a link for {found}."
            )
        case InvalidInput():
            return str(error)
        case RateLimited(retry_after=seconds):
            minutes = max(round(seconds / 60), 1)
            return f"{title} asks us to wait. Try again in {minutes} min."
        case Transient() | OutcomeUnknown() | TimeoutError():
            return f"The line to {title} broke. Nothing was connected; try again."
        case PlatformError(code=code) if code in NO_APP:
            return (
                f"{title} does not know our app any more: its id or secret is wrong."
                " Tell whoever sent you the link."
            )
        case Reauthorize(status=None):  # Our own words: what the account lacks.
            said = str(error)
            return f"{said[:1].upper()}{said[1:]}."
        case _:
            return f"{title} did not accept the sign-in. Nothing was connected; try again."
