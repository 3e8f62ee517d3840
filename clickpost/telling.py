"""Decides what somebody has to be told, in which words, and when a telling is tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from clickpost import pausing
from clickpost.delivery import State


class Event(StrEnum):
    """What happened; the words are those of channels, of webhooks and of events in Prefect."""

    FAILED = "post.failed"
    MISSED = "post.missed"
    HELD = "post.held"
    UNKNOWN = "post.unknown"
    GONE = "post.gone"
    EDITED = "post.edited"
    AWAITING_APPROVAL = "post.awaiting_approval"
    NOT_REMOVED = "post.not_removed"
    STUCK = "delivery.stuck"
    PAUSED = "connection.paused"
    REVOKED = "connection.revoked"
    SUSPENDED = "subscription.suspended"
    REQUEST_DUE_SOON = "request.due_soon"
    REQUEST_WAITING = "request.waiting"
    COMPLIANCE = "compliance.red"
    GUARD = "guard.tripped"
    ALERT = "trigger.alert"
    LIVE = "post.live"
    ENTRY = "feed.entry"
    MEDIA_ADDED = "media.added"
    MAIL = "mail.received"
    TEST = "channel.test"


#: Who acts where a workspace is not paid for.
PAYER = "whoever pays for the workspace"
#: What nobody has to be told: it is an event in Prefect only, for triggers.
UNTOLD = (Event.LIVE, Event.ENTRY, Event.MEDIA_ADDED, Event.MAIL)
#: What an author of channels may choose from; a test goes to its one channel only.
EVENTS = tuple(event for event in Event if event not in (Event.TEST, *UNTOLD))

_OF_STATE = {
    State.FAILED: Event.FAILED,
    State.MISSED: Event.MISSED,
    State.HELD: Event.HELD,
    State.UNKNOWN: Event.UNKNOWN,
    State.GONE: Event.GONE,
    State.AWAITING_APPROVAL: Event.AWAITING_APPROVAL,
    State.LIVE: Event.LIVE,
}

_SAYS = {
    Event.FAILED: "was not published",
    Event.MISSED: "came too late and was not published",
    Event.HELD: "is held",
    Event.UNKNOWN: "was sent and nobody can tell whether it is there",
    Event.GONE: "vanished at the platform",
    Event.EDITED: "was changed at the platform",
    Event.AWAITING_APPROVAL: "waits for approval",
    Event.NOT_REMOVED: "could not be taken down",
    Event.STUCK: "is stuck",
    Event.PAUSED: "is paused: nothing is sent through it",
    Event.REVOKED: "is revoked: nothing is sent through it",
    Event.SUSPENDED: "a subscription is suspended: nothing of its workspace is sent",
    Event.REQUEST_DUE_SOON: "has to be answered soon",
    Event.REQUEST_WAITING: "waits for an operator",
    Event.COMPLIANCE: "a privacy promise is broken",
    Event.GUARD: "a guard stopped a run",
    Event.ALERT: "asks for your attention",
    Event.LIVE: "is live",
    Event.ENTRY: "a feed has a new entry",
    Event.MEDIA_ADDED: "a folder has a new file",
    Event.MAIL: "a mailbox has a new mail",
    Event.TEST: "a test: this channel works",
}

#: A telling that failed is tried again after 1, 2, 4, … 60 minutes, for a day.
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=1)
GIVE_UP_AFTER = timedelta(days=1)
#: So many notices go into one e-mail or chat message.
MOST_IN_ONE = 50
#: A receiver refuses a signature that is older: that is a replay.
REPLAY_WINDOW = timedelta(minutes=5)


@dataclass(frozen=True)
class Happening:
    """Something that somebody has to know; the same `once` is told once. No content in `facts`."""

    event: Event
    subject: str
    once: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """A notice as it is told: when it happened, and what is known of it."""

    id: str
    event: str
    subject: str
    facts: Mapping[str, Any]
    at: datetime


def event_of(state: State, who_acts: str | None) -> Event | None:
    """Return what a delivery's state has to tell; None where there is nothing to tell.

    An unknown outcome is told only once a look could not settle it.
    """
    if state is State.UNKNOWN and (who_acts or "nobody").startswith("nobody"):
        return None
    return _OF_STATE.get(state)


def again_in(tries: int, jitter: float) -> timedelta:
    """Return how long to wait after `tries` failed; `jitter` (0 to 1) spreads it by a fifth."""
    wait: timedelta = min(FIRST_WAIT * 2 ** min(max(tries - 1, 0), 10), LONGEST_WAIT)
    return wait * (0.9 + 0.2 * jitter)


def headline(said: Said) -> str:
    """Return one line: where, what."""
    where = said.facts.get("where") or said.facts.get("channel") or ""
    what = _SAYS.get(Event(said.event), said.event)
    if said.subject.startswith("dlv_"):
        return f"{where}: {said.facts.get('post_id', said.subject)} {what}"
    return f"{where}: {what}" if where else what


def body(said: Said, ui: str) -> str:
    """Return the notice in full: what, where, why, who acts next and how. `ui` is Prefect's."""
    facts = said.facts
    lines = [headline(said)]
    if reason := facts.get("reason"):
        lines.append(f"Reason: {reason}")
    if next_ := facts.get("next"):
        lines.append(f"What happens next: {next_}")
    lines.append(f"Who acts next: {facts.get('who_acts') or 'nobody'}")
    lines += [f"Next: {command}" for command in commands(said)]
    if run_id := facts.get("run_id"):
        lines.append(f"Run: {ui}/runs/flow-run/{run_id}")
    lines.append(f"Since: {said.at:%Y-%m-%d %H:%M:%S} UTC · notice {said.id}")
    return "\n".join(lines)


def digest(notices: Sequence[Said], ui: str) -> tuple[str, str]:
    """Return title and text of one message that tells all of `notices`."""
    more = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
    title = f"[ClickPost] {headline(notices[0])}{more}"
    return title, "\n\n".join(body(one, ui) for one in notices)


def commands(said: Said) -> list[str]:
    """Return the commands with which whoever acts goes on, the first one first."""
    post_id = said.facts.get("post_id", "POST")
    platform, _, name = str(said.facts.get("where", "PLATFORM/NAME")).partition("/")
    connect = f"clickpost connect {platform} --name {name}"
    settle = f"clickpost posts settle {post_id} --to {platform}/{name} --answer"
    match Event(said.event):
        case Event.FAILED | Event.MISSED:
            return [f"clickpost posts show {post_id}", f"clickpost posts retry {post_id}"]
        case Event.NOT_REMOVED if said.facts.get("ended"):  # By hand, at its permalink.
            return [f"clickpost posts show {post_id}"]
        case Event.HELD | Event.UNKNOWN | Event.NOT_REMOVED if _owner(said):
            return [connect]
        case Event.HELD if said.facts.get("who_acts") == PAYER:
            return ["clickpost workspaces show"]
        case Event.HELD if pausing.is_paused(said.facts.get("reason")):
            return [pausing.resume_of(platform)]
        case Event.HELD:
            return [f"{settle} publish", f"{settle} skip"]
        case Event.UNKNOWN:
            return [f"{settle} {answer}" for answer in ("there", "again", "give-up")]
        case Event.GONE | Event.EDITED:
            return [f"clickpost posts show {post_id}"]
        case Event.AWAITING_APPROVAL:
            return [f"clickpost approve {post_id}"]
        case Event.NOT_REMOVED:
            return [f"clickpost posts takedown {post_id}"]
        case Event.SUSPENDED:
            reactivate = f"clickpost workspaces subscription reactivate {said.subject}"
            return ["clickpost workspaces show", reactivate]
        case Event.REQUEST_DUE_SOON | Event.REQUEST_WAITING:
            return [f"clickpost privacy requests --id {said.subject}"]
        case Event.COMPLIANCE:
            return ["clickpost privacy status"]
        case Event.STUCK | Event.GUARD | Event.ALERT:
            return ["clickpost status"]
        case Event.LIVE:
            return [f"clickpost posts show {post_id}"]
        case Event.PAUSED | Event.REVOKED:
            return [connect]
        case Event.ENTRY | Event.MEDIA_ADDED | Event.MAIL:
            return ["clickpost posts list"]
        case Event.TEST:
            return []


def _owner(said: Said) -> bool:
    return said.facts.get("who_acts") == "the account's owner"


def payload(said: Said, ui: str) -> bytes:
    """Return the JSON body of a webhook: type, timestamp, data (Standard Webhooks)."""
    facts = {name: one for name, one in said.facts.items() if name != "by_run"}
    run_id = facts.get("run_id")
    data = facts | {
        "subject": said.subject,
        "says": headline(said),
        "commands": commands(said),
        "run_url": f"{ui}/runs/flow-run/{run_id}" if run_id else None,
    }
    whole = {"type": said.event, "timestamp": said.at.isoformat(), "data": data}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def signed(said_id: str, content: bytes, secret: str, at: datetime) -> dict[str, str]:
    """Return the headers that prove to a receiver who sent `content`, and when.

    Standard Webhooks: HMAC-SHA256 over `id.timestamp.body` under the bytes behind `whsec_`.
    """
    stamp = str(int(at.timestamp()))
    mark = hmac.new(key_of(secret), f"{said_id}.{stamp}.".encode() + content, hashlib.sha256)
    return {
        "webhook-id": said_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(mark.digest()).decode()}",
    }


def key_of(secret: str) -> bytes:
    """Return the key in a secret `whsec_BASE64`; ValueError where it holds less than 24 bytes."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    if not 24 <= len(key) <= 64:
        raise ValueError("needs 24 to 64 bytes")
    return key
