"""Notices that an account is about to say the same again; it compares digests, never texts."""

from __future__ import annotations

import hmac
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from clickpost.draft import Wish
from clickpost.policy.shape import RepeatGuard

#: So long the same counts as said again, where a platform says nothing: our own choice.
WINDOW = timedelta(hours=24)


@dataclass(frozen=True)
class Guard:
    """What one delivery is compared by, and what happens where the same was said in `window`."""

    fingerprint: str
    window: timedelta
    blocks: bool


@dataclass(frozen=True)
class Said:
    """The same, as the account got it or shall get it: in which post, and when."""

    ref: str
    post_id: str
    at: datetime
    blocks: bool = False

    def __str__(self) -> str:
        return f"{self.ref} gets the same in {self.post_id}, {self.at:%Y-%m-%d %H:%M} UTC"


def guard(digest: str, rule: RepeatGuard | None) -> Guard:
    """Return the guard that a platform's policy asks for, or ours: a warning, within a day."""
    if rule is None:
        return Guard(digest, WINDOW, blocks=False)
    return Guard(digest, rule.window, blocks=rule.mode == "block")


def fingerprint(wish: Wish, secret: bytes) -> str | None:
    """Return the digest of what `wish` says and shows; None where it says and shows nothing.

    Case, spacing, punctuation, accents' encoding and the order of files make no difference.
    Without `secret` nobody finds the text by trying.
    """
    said = [normal(wish.title), normal(wish.text), *sorted(item.asset_id for item in wish.media)]
    if not any(said):
        return None
    return hmac.new(secret, "\x1f".join(said).encode(), sha256).hexdigest()


def normal(text: str) -> str:
    """Return the letters and digits of `text` alone; all of it where it has none."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(one for one in folded if one.isalnum()) or "".join(folded.split())
