"""Decides which deliveries are stuck, what will happen to them next, and who acts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from clickpost.delivery import State

#: What is due and has not moved for so long is overdue; the sweep takes up far younger ones.
OVERDUE = timedelta(minutes=3)
#: A worker may hold a delivery for so long while it makes renditions or uploads.
WORKING = timedelta(minutes=15)
SENDING = timedelta(minutes=10)
UNKNOWN = timedelta(minutes=5)
TAKEDOWN = timedelta(minutes=10)


@dataclass(frozen=True)
class Going:
    """A delivery that should go on by itself, as the store has it."""

    id: str
    post_id: str
    workspace_id: str
    connection_id: str
    platform: str
    ref: str
    state: State
    reason: str | None
    who_acts: str | None
    run_id: str | None
    due_at: datetime | None
    not_before: datetime | None
    sent_at: datetime | None
    takedown_at: datetime | None
    lease_until: datetime | None
    created_at: datetime


@dataclass(frozen=True)
class Stuck:
    """One that should have moved: since when, what happens next, who acts."""

    going: Going
    since: datetime
    next: str
    who_acts: str


def judge(going: Going, give_up: timedelta, now: datetime) -> Stuck | None:
    """Return why a delivery counts as stuck, None where it does not.

    `give_up` is how long its platform may process a post.
    """
    if going.takedown_at is not None:
        return _late(
            going, going.takedown_at, TAKEDOWN, now, "the sweep tries again to take it down"
        )
    match going.state:
        case State.PLANNED | State.PREPARING | State.READY:
            held = going.lease_until is not None and going.lease_until > now
            what = "a worker prepares it" if held else "the sweep takes it up within two minutes"
            return _late(going, _due(going), WORKING if held else OVERDUE, now, what)
        case State.SENDING:
            what = "its worker ends, or is taken for lost; then it is looked for, not sent again"
            return _late(going, _sent(going), SENDING, now, what)
        case State.UNKNOWN:
            return _late(going, _sent(going), UNKNOWN, now, "it is looked for again")
        case State.PROCESSING:
            what = "the platform is asked again; look at the account whether it hangs there"
            return _late(going, _sent(going), give_up, now, what)
        case _:
            return None


def _late(
    going: Going, since: datetime, after: timedelta, now: datetime, what: str
) -> Stuck | None:
    if now - since <= after:
        return None
    named = going.who_acts if going.who_acts and not going.who_acts.startswith("nobody") else None
    return Stuck(going, since, what, named or "an operator")


def _due(going: Going) -> datetime:
    return max(one for one in (going.due_at, going.not_before, going.created_at) if one)


def _sent(going: Going) -> datetime:
    return going.sent_at or going.created_at


def age(since: datetime, now: datetime) -> str:
    """Return a span as people say it: `7 min`, `3 h`, `2 d`."""
    minutes = max(int((now - since).total_seconds() // 60), 0)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"
