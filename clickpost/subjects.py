"""Knows a person by their address without keeping it: its one spelling, and its keyed digest."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from contextlib import suppress


def spelled(address: str) -> str:
    """Return an e-mail address as mail knows it: one spelling, whatever the case.

    What comes before the @ may be told apart by case in theory; no provider does.
    """
    name, _, domain = unicodedata.normalize("NFC", address).strip().rpartition("@")
    with suppress(UnicodeError):  # No name that DNS could hold: it stays as somebody typed it.
        domain = domain.rstrip(".").encode("idna").decode()
    return f"{name}@{domain}".casefold() if name else domain.casefold()


def digest(key: bytes, address: str) -> str:
    """Return the keyed digest of an address, the same for all its spellings."""
    return hmac.new(key, spelled(address).encode(), hashlib.sha256).hexdigest()
