"""Decides what follows a takedown that met trouble: it stays open with a reason, or it ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from clickpost.delivery import State, may_move
from clickpost.errors import OutcomeUnknown, PlatformError, RateLimited, Reauthorize, Transient

#: Tries come after a quarter of the time since somebody asked, within these.
SHORTEST, LONGEST = timedelta(seconds=5), timedelta(hours=1)
#: Who asked has to act once it was in vain for so long.
GIVE_UP_AFTER = timedelta(days=7)


@dataclass(frozen=True)
class Open:
    """Not down yet: because of `reason`, again at `again_at`; `who_acts` may hasten it."""

    reason: str
    who_acts: str
    again_at: datetime


@dataclass(frozen=True)
class Ended:
    """It stays up: because of `reason`, `who_acts` has to take it down by hand."""

    reason: str
    who_acts: str = "the account's owner"


def after(error: PlatformError, asked_at: datetime, now: datetime) -> Open | Ended:
    """Say what follows a deletion that failed with `error`."""
    if now - asked_at > GIVE_UP_AFTER:
        return Ended(f"not taken down, for a week: {error}")
    wait = min(max((now - asked_at) / 4, SHORTEST), LONGEST)
    match error:
        case RateLimited():
            wait = max(wait, timedelta(seconds=error.retry_after))
            who = "nobody"
        case Transient() | OutcomeUnknown():  # A deletion may be repeated.
            who = "nobody"
        case Reauthorize():
            wait, who = LONGEST, error.who_acts
        case _:
            wait = LONGEST
            who = "an operator" if error.who_acts.startswith("nobody") else error.who_acts
    return Open(f"not taken down yet: {error}", who, now + wait)


def end_of(state: State) -> State:
    """Return what a delivery becomes, once all that was visible of it is deleted."""
    return State.REMOVED if may_move(state, State.REMOVED) else State.CANCELLED
