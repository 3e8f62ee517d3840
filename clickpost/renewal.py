"""Decides when an access token is renewed: ahead of its end, and without haste where one failed."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from clickpost.policy.shape import TokenRules

#: A token that ends within this time is renewed before anything is sent with it.
SOON = timedelta(minutes=2)
#: After a renewal that came ahead of time and failed, the next one waits so long.
AGAIN = timedelta(hours=1)


class Need(StrEnum):
    """How urgent a renewal is: `AHEAD` may fail, as the token still works."""

    NONE = "none"
    AHEAD = "ahead"
    DUE = "due"


def need(
    ends: datetime | None, changed_at: datetime, rules: TokenRules | None, now: datetime
) -> Need:
    """Return whether a token that `ends` then is renewed `now`; its row `changed_at` that time."""
    if ends is None:
        return Need.NONE
    if ends - now < SOON:
        return Need.DUE
    if rules is not None and ends - now < rules.renew and now - changed_at >= AGAIN:
        return Need.AHEAD
    return Need.NONE
