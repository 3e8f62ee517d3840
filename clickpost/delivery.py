"""The states of a delivery and the ways between them; it never touches a row."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a delivery stands; the words are those of the database, the UI and the reports."""

    PLANNED = "planned"
    PREPARING = "preparing"
    READY = "ready"
    SENDING = "sending"
    LIVE = "live"
    AWAITING_APPROVAL = "awaiting_approval"
    PROCESSING = "processing"
    DRAFTED = "drafted"
    UNKNOWN = "unknown"
    FAILED = "failed"
    MISSED = "missed"
    HELD = "held"
    CANCELLED = "cancelled"
    REMOVED = "removed"
    GONE = "gone"


S = State

#: From each state, where a delivery may go. Nothing leads from `unknown` to `sending`: a look
#: comes in between, and only its verdict "not there" makes the delivery `ready` again.
WAYS: dict[State, frozenset[State]] = {
    S.PLANNED: frozenset(
        {S.PREPARING, S.AWAITING_APPROVAL, S.CANCELLED, S.HELD, S.FAILED, S.MISSED, S.DRAFTED}
    ),
    S.AWAITING_APPROVAL: frozenset({S.PLANNED, S.READY, S.CANCELLED, S.MISSED, S.HELD, S.FAILED}),
    S.PREPARING: frozenset(
        {S.READY, S.AWAITING_APPROVAL, S.FAILED, S.PLANNED, S.CANCELLED, S.HELD, S.MISSED}
    ),
    S.READY: frozenset(
        {
            S.SENDING,
            S.LIVE,  # A look came too early, and the sender's own answer after it.
            S.PREPARING,
            S.PLANNED,
            S.AWAITING_APPROVAL,
            S.CANCELLED,
            S.HELD,
            S.FAILED,
            S.MISSED,
        }
    ),
    S.SENDING: frozenset({S.LIVE, S.PROCESSING, S.UNKNOWN, S.FAILED, S.READY, S.HELD, S.DRAFTED}),
    S.PROCESSING: frozenset({S.LIVE, S.FAILED, S.UNKNOWN, S.REMOVED, S.GONE}),
    S.UNKNOWN: frozenset({S.LIVE, S.PROCESSING, S.READY, S.FAILED, S.CANCELLED}),
    S.FAILED: frozenset({S.PLANNED, S.CANCELLED}),
    S.MISSED: frozenset({S.PLANNED, S.CANCELLED}),
    S.HELD: frozenset({S.PLANNED, S.READY, S.CANCELLED, S.MISSED, S.FAILED}),
    S.DRAFTED: frozenset({S.PLANNED, S.CANCELLED, S.REMOVED}),
    S.LIVE: frozenset({S.REMOVED, S.GONE}),
    S.CANCELLED: frozenset({S.REMOVED}),  # Parts of its thread that were there.
    S.REMOVED: frozenset(),
    S.GONE: frozenset({S.REMOVED}),
}

#: States in which nothing further happens by itself.
SETTLED = frozenset({S.LIVE, S.FAILED, S.MISSED, S.CANCELLED, S.REMOVED, S.GONE, S.DRAFTED, S.HELD})

#: States that a cancel can still stop: nothing has been sent.
CANCELLABLE = frozenset(
    {S.PLANNED, S.PREPARING, S.READY, S.AWAITING_APPROVAL, S.HELD, S.FAILED, S.MISSED, S.DRAFTED}
)

#: States that would go on by themselves (a held one, once its account is connected again), and
#: from which nothing has left: these end when the run that was to send them is cancelled.
STOPPABLE = frozenset({S.PLANNED, S.PREPARING, S.READY, S.AWAITING_APPROVAL, S.HELD})


def may_move(before: State, after: State) -> bool:
    """Say whether a delivery may go from `before` to `after`."""
    return after in WAYS[before]
