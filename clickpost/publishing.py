"""Decides what a target gets, when it may go, and what follows an attempt; it does nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from clickpost.contract import Message, Pending, Receipt
from clickpost.delivery import State
from clickpost.draft import Enclosed, Late, Wish
from clickpost.errors import (
    ClickPostError,
    ContentRejected,
    Fault,
    NotReady,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    RateLimited,
    Reauthorize,
    TokenExpired,
    Transient,
    UnexpectedResponse,
    Whose,
)
from clickpost.policy.shape import PlatformPolicy

#: What could not be prepared so often: somebody has to look.
MOST_ATTEMPTS = 6
#: What has only failed for this long is given up: our own choice.
DEADLINE = timedelta(hours=1)
#: What a platform has put off for this long, again and again, is given up: our own choice.
LIMITED_DEADLINE = timedelta(days=3)
#: The longest wait between two tries.
LONGEST_BACKOFF = timedelta(minutes=5)
#: A run waits no longer than this, for it takes a place of the worker; the sweep goes on with it.
LONGEST_WAIT = timedelta(seconds=20)
#: How late a delivery may be before its `late` policy decides.
GRACE = timedelta(minutes=5)
#: How the reason ends of one that waits for a person to decide whether it still goes.
ASK = "its policy says ask"


def choose_media(wish: Wish, policy: PlatformPolicy) -> tuple[tuple[Enclosed, ...], list[str]]:
    """Return the media that the platform can take, and a note for each that it cannot.

    Where kinds cannot be mixed, the kind of the first acceptable file stays. Raises
    ContentRejected where the wish says `media_fit: refuse` or where nothing that is required
    is left.
    """
    faults: list[Fault] = []
    notes: list[str] = []
    kept: list[Enclosed] = []
    most = {"image": policy.images.max, "video": policy.video.max}
    mixed = policy.album is not None and policy.album.mixed
    total = policy.album.max if policy.album else max(most.values())
    for item in wish.media:
        fault = _no_room(item, kept, most, mixed=mixed, total=total)
        if fault is None:
            kept.append(item)
        else:
            faults.append(fault)
            notes.append(f"left out {Path(item.file).name}: {policy.title} {fault.limit}")
    if faults and wish.media_fit == "refuse":
        raise ContentRejected(policy.name, tuple(faults))
    if missing := _missing(kept, policy):
        raise ContentRejected(policy.name, (missing,))
    return tuple(kept), notes


def _no_room(
    item: Enclosed, kept: Sequence[Enclosed], most: dict[str, int], *, mixed: bool, total: int
) -> Fault | None:
    if most[item.kind] == 0:
        return Fault("media", f"takes no {item.kind}s", f"a {item.kind}")
    if kept and not mixed and kept[0].kind != item.kind:
        return Fault("media", "takes images or a video, not both", "both")
    same = sum(1 for other in kept if other.kind == item.kind)
    limit = total if mixed else most[item.kind]
    if (same if not mixed else len(kept)) >= limit:
        noun = "files" if mixed else f"{item.kind}s"
        return Fault("media", f"takes at most {limit} {noun}", f"{limit + 1} or more")
    return None


def _missing(kept: Sequence[Enclosed], policy: PlatformPolicy) -> Fault | None:
    required = policy.media.required
    if required == "any" and not kept:
        return Fault("media", "at least 1 image or video", "none")
    if required == "video" and not any(item.kind == "video" for item in kept):
        return Fault("media", "exactly 1 video", "none")
    return None


def content_hash(parts: Sequence[dict[str, Any]]) -> str:
    """Return the SHA-256 of what a target gets, in canonical JSON."""
    canonical = json.dumps(list(parts), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def as_json(message: Message, rendition_ids: Sequence[str]) -> dict[str, Any]:
    """Return `message` as it is stored: media by rendition id and description."""
    return {
        "text": message.text,
        "title": message.title,
        "language": message.language,
        "visibility": message.visibility,
        "sensitive": message.sensitive,
        "spoiler": message.spoiler,
        "tags": list(message.tags),
        "options": dict(message.options),
        "media": [
            {"rendition_id": one, "alt": file.alt}
            for one, file in zip(rendition_ids, message.media, strict=True)
        ],
    }


@dataclass(frozen=True)
class Go:
    """The delivery may be sent now."""


@dataclass(frozen=True)
class Wait:
    """Not yet: again at `until`."""

    until: datetime


@dataclass(frozen=True)
class TooLate:
    """Its moment has passed: it becomes `state`, because of `reason`."""

    state: State
    reason: str


def timing(
    due_at: datetime | None,
    not_before: datetime | None,
    late: Late,
    now: datetime,
    *,
    begun: bool = False,
) -> Go | Wait | TooLate:
    """Say whether a delivery goes now, waits, or came too late for its `late` policy.

    A thread that has `begun` was in time with its first part: its rest never comes too late.
    """
    start = max((moment for moment in (due_at, not_before) if moment), default=now)
    if start > now:
        return Wait(start)
    if due_at is None or begun or now - due_at <= GRACE or late == "publish":
        return Go()
    minutes = int((now - due_at).total_seconds() // 60)
    if late == "skip":
        return TooLate(State.MISSED, f"{minutes} min late; its policy says skip")
    return TooLate(State.HELD, f"{minutes} min late; {ASK}")


@dataclass(frozen=True)
class CalledOff:
    """The run that was to send it is cancelled: it becomes `state`, because of `reason`."""

    state: State
    reason: str
    who_acts: str | None = None


def called_off(parts_there: int) -> CalledOff:
    """Say what becomes of a delivery whose run was cancelled before all of it was sent."""
    if parts_there == 0:
        return CalledOff(State.CANCELLED, "its run was cancelled in Prefect before it was sent")
    count = "part 1" if parts_there == 1 else f"{parts_there} parts"
    reason = f"its run was cancelled in Prefect after {count} of its thread had been sent"
    return CalledOff(State.FAILED, reason, "an operator")


@dataclass(frozen=True)
class Verdict:
    """What an attempt came to: the row's next state, and who must act with which reason."""

    name: str
    state: State
    reason: str | None = None
    who_acts: str | None = None
    wait: float = 0.0
    again: bool = False
    per: Whose = "account"
    """Who is too fast, where the name is `rate_limited`."""

    @property
    def nothing_sent(self) -> bool:
        """Say whether it is certain that nothing was made visible."""
        return self.state in (State.READY, State.FAILED, State.HELD)


@dataclass(frozen=True)
class Try:
    """One attempt that is over: when it began, and its verdict's name."""

    started_at: datetime
    verdict: str | None


def failing_for(tries: Sequence[Try], now: datetime | None, *, limited: bool = False) -> timedelta:
    """Return for how long the tries, first to last, have done nothing but fail.

    A part of a thread that went out begins anew. So does a platform that asked us to wait, unless
    it is such waits that are counted (`limited`).
    """
    if now is None:
        return timedelta(0)
    since = now
    for one in reversed(tries):
        if one.verdict == "live" or (one.verdict == "rate_limited" and not limited):
            break
        since = one.started_at
    return now - since


def verdict_of(
    outcome: Receipt | Pending | BaseException,
    attempts: int,
    *,
    tries: Sequence[Try] = (),
    now: datetime | None = None,
    chance: float = 1.0,
) -> Verdict:
    """Judge one send. `attempts` counts this one; again means: nothing happened, it may go again.

    It may go again until the `tries` before it have failed too long by `now`; `chance` (0 to 1)
    is the jitter of the wait. An exception of any class that we do not know leaves the outcome
    unknown: only what is proven not to have happened may be sent again.
    """
    match outcome:
        case Receipt():
            return Verdict("live", State.LIVE)
        case Pending():
            return Verdict("processing", State.PROCESSING, wait=outcome.again_in)
        case RateLimited():
            late = failing_for(tries, now, limited=True) > LIMITED_DEADLINE
            verdict = _again("rate_limited", outcome, outcome.retry_after, late=late)
            return replace(verdict, per=outcome.per)
        case TokenExpired() | PrepareAgain() | NotReady() | Transient():
            name = _NAMES[type(outcome)]
            # The first new token or upload is used at once.
            at_once = attempts <= 1 and isinstance(outcome, TokenExpired | PrepareAgain)
            wait = 0.0 if at_once else backoff(attempts, chance)
            return _again(name, outcome, wait, late=failing_for(tries, now) > DEADLINE)
        case OutcomeUnknown():
            return Verdict("unknown", State.UNKNOWN, str(outcome), outcome.who_acts)
        case Reauthorize():
            return Verdict("reauthorize", State.HELD, _reason(outcome), outcome.who_acts)
        case PlatformRejected():
            return Verdict("rejected", State.FAILED, _reason(outcome), outcome.who_acts)
        case UnexpectedResponse(status=int(status)) if 200 <= status < 300:
            # It said yes, in words that we cannot read: the post may be there.
            return Verdict("unknown", State.UNKNOWN, _reason(outcome), OutcomeUnknown.who_acts)
        case PlatformError():
            return Verdict("unexpected", State.FAILED, _reason(outcome), _somebody(outcome))
        case ClickPostError():
            return Verdict("refused", State.FAILED, str(outcome), _somebody(outcome))
        case BaseException():
            return Verdict("unknown", State.UNKNOWN, type(outcome).__name__, "nobody yet")


def unsent(error: ClickPostError) -> ClickPostError:
    """Return what `error` means where nobody sees anything yet: such a step may run again.

    A lost answer, or a 2xx in words that we cannot read, proves nothing and harms nothing.
    """
    garbled = isinstance(error, UnexpectedResponse) and (error.status or 0) // 100 == 2
    if isinstance(error, OutcomeUnknown) or garbled:
        assert isinstance(error, PlatformError)
        return Transient(error.message, status=error.status, code=error.code, detail=error.detail)
    return error


_NAMES: dict[type[PlatformError], str] = {
    TokenExpired: "expired",
    PrepareAgain: "prepare_again",
    NotReady: "not_ready",
    Transient: "transient",
}


def _again(name: str, error: PlatformError, wait: float, *, late: bool) -> Verdict:
    if late:
        span = LIMITED_DEADLINE if name == "rate_limited" else DEADLINE
        hours = span.total_seconds() / 3600
        reason = f"{_reason(error)} (tried for more than {hours:g} h)"
        return Verdict(name, State.FAILED, reason, "an operator")
    return Verdict(name, State.READY, _reason(error), error.who_acts, wait=wait, again=True)


def _somebody(error: ClickPostError) -> str:
    """Return who acts on a delivery that has failed, which is never nobody."""
    return "an operator" if error.who_acts.startswith("nobody") else error.who_acts


def _reason(error: PlatformError) -> str:
    """Return the error's words with the platform's own, redacted, for our own database."""
    field = f"{error.field}: " if error.field else ""
    said = f"{field}{error}"
    return said if not error.detail or error.detail in said else f"{said}: {error.detail}"


def backoff(attempts: int, chance: float = 1.0) -> float:
    """Return the seconds before attempt `attempts + 1`: up to 1, 2, 4, … 300, full jitter.

    `chance` (0 to 1) chooses within that, so that what failed together does not return together.
    """
    return chance * min(LONGEST_BACKOFF.total_seconds(), 2.0 ** min(max(attempts - 1, 0), 20))


def said(counts: dict[State, int]) -> str:
    """Return the sentence that ends a run: how many deliveries are where."""
    if not counts:
        return "nothing to do"
    words = {State.UNKNOWN: "with unknown outcome", State.READY: "waiting"}
    return ", ".join(
        f"{counts[state]} {words.get(state, state.value)}" for state in State if counts.get(state)
    )
