"""Reads OAuth's token answers (RFC 6749, 5.1): which tokens came, and when they end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from clickpost.contract import Tokens
from connectors._api import Answer, text_at

#: A longer time than any platform means: thirty years.
_LONGEST = 10**9


def tokens_of(answer: Answer, usual: timedelta, *, call: str) -> Tokens:
    """Return what a refresh brought; it lives as long as `usual` where `answer` does not tell.

    Where no refresh token came, the old one stays good. Raises UnexpectedResponse without an
    access token.
    """
    fresh = {"access_token": text_at(answer, "access_token", call=call)}
    if refresh := answer.get("refresh_token"):
        fresh["refresh_token"] = str(refresh)
    return Tokens(fresh, expires_at=end_of(answer) or datetime.now(UTC) + usual)


def alone(access_token: str, usual: timedelta) -> Tokens:
    """Return an access token that somebody gave us by itself: nobody can renew it."""
    return Tokens({"access_token": access_token}, expires_at=datetime.now(UTC) + usual)


def end_of(answer: Mapping[str, Any]) -> datetime | None:
    """Return when a token ends, None where the answer does not tell."""
    seconds = seconds_of(answer.get("expires_in"))
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)


def seconds_of(value: object) -> float | None:
    """Return a number of seconds that a platform names, None where it names none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < _LONGEST else None
