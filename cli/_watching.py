"""What `clickpost status` says beside the parts: what is stuck, who acts, and what is untold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.table import Table

from cli import _house
from cli._output import out
from clickpost import pausing
from clickpost.settings import Settings
from clickpost.store.notices import Untold
from clickpost.store.pausing import Paused
from clickpost.store.tables import Connection
from clickpost.stuck import Stuck, age
from deployments import runs
from tasks import watching

#: A worker is heard of each half minute; Prefect takes one for gone after three silent ones.
SILENT_AFTER = timedelta(seconds=90)
#: So many lines of each kind are printed; `--json` has all.
_MOST = 20


#: What waits for people, and where they see what.
_WAITS = {
    state: f" [yellow]wait{what}[/]: clickpost posts list --state {state}"
    for state, what in {
        "awaiting_approval": " until somebody approves",
        "held": " until somebody acts",
        "unknown": " for a look, or for an answer",
    }.items()
}


@dataclass(frozen=True)
class Watched:
    """How things are at `now`."""

    now: datetime
    counts: dict[str, int]
    stuck: list[Stuck]
    unusable: list[Connection]
    untold: list[Untold]
    paused: list[Paused]
    heard_at: datetime | None

    @property
    def silent(self) -> bool:
        """Say whether no worker was heard of lately: then nothing is sent, and nobody told."""
        return self.heard_at is None or self.now - self.heard_at > SILENT_AFTER

    @property
    def calm(self) -> bool:
        """Say whether everything goes its way, and nothing waits for somebody."""
        return not (self.silent or self.stuck or self.unusable or self.untold)


async def look(given: Settings) -> Watched:
    """Read what there is to say."""
    now = datetime.now(UTC)
    async with _house.opened(given) as store:
        return Watched(
            now=now,
            counts=await store.counts(),
            stuck=await watching.found(given, store),
            unusable=await store.unusable(),
            untold=await store.untold(now),
            paused=await store.paused(),
            heard_at=runs.heartbeat(given),
        )


def as_json(seen: Watched) -> dict[str, Any]:
    """Return it for scripts: ids, states, times and seconds."""
    return {
        "deliveries": seen.counts,
        "calm": seen.calm,
        "worker_heard_at": seen.heard_at.isoformat() if seen.heard_at else None,
        "worker_silent": seen.silent,
        "stuck": [_stuck(one, seen.now) for one in seen.stuck],
        "connections": [
            {
                "connection": row.ref,
                "status": row.status,
                "reason": row.status_reason,
                "since": row.updated_at.isoformat(),
                "who_acts": "the account's owner",
                "command": _connect(row),
            }
            for row in seen.unusable
        ],
        "paused": [
            {
                "platform": one.platform,
                "since": one.paused_at.isoformat(),
                "by": one.paused_by,
                "held": one.held,
                "command": pausing.resume_of(one.platform),
            }
            for one in seen.paused
        ],
        "untold": [
            {
                "channel": one.channel,
                "event": one.event,
                "subject": one.subject,
                "state": one.state,
                "tries": one.tries,
                "reason": one.reason,
                "since": one.since.isoformat(),
                "again_at": one.again_at.isoformat() if one.again_at else None,
            }
            for one in seen.untold
        ],
    }


def _stuck(one: Stuck, now: datetime) -> dict[str, Any]:
    return {
        "delivery_id": one.going.id,
        "post_id": one.going.post_id,
        "connection": one.going.ref,
        "state": one.going.state.value,
        "since": one.since.isoformat(),
        "age_seconds": int((now - one.since).total_seconds()),
        "reason": one.going.reason,
        "next": one.next,
        "who_acts": one.who_acts,
    }


def _connect(row: Connection) -> str:
    return f"clickpost connect {row.platform} --name {row.name}"


def show(seen: Watched) -> None:
    """Print it for people."""
    for state, number in sorted(seen.counts.items()):
        out.print(f"  {number} {state}{_WAITS.get(state, '')}")
    if seen.silent:
        heard = f"for {age(seen.heard_at, seen.now)}" if seen.heard_at else "yet"
        out.print(
            f"[red]no worker was heard of {heard}[/]: until one is, nothing is sent, and nobody is"
            " told. Just after a start that is so for a moment; else run: clickpost up"
        )
    if seen.stuck:
        out.print(f"[red]{len(seen.stuck)} stuck[/]")
        out.print(_stuck_table(seen))
    for row in seen.unusable[:_MOST]:
        out.print(
            f"[red]{row.ref} is {row.status}[/] for {age(row.updated_at, seen.now)};"
            f" who acts: the account's owner. Run: {_connect(row)}"
        )
    for stop in seen.paused:
        out.print(
            f"[yellow]{stop.platform} is paused[/] for {age(stop.paused_at, seen.now)}, {stop.held}"
            f" held. To go on: {pausing.resume_of(stop.platform)}"
        )
    for one in seen.untold[:_MOST]:
        ends = "given up" if one.state == "given_up" else "tried again"
        out.print(
            f"[red]{one.channel} was not told[/] {one.event} ({one.subject}) for"
            f" {age(one.since, seen.now)}: {one.reason or 'it waits'}; {ends}."
            f" Try: clickpost notify test {one.channel}"
        )
    if seen.calm:
        out.print("nothing is stuck")


def _stuck_table(seen: Watched) -> Table:
    names = ("connection", "post", "state", "for", "what happens next", "who acts")
    table = Table(*names, box=None, header_style="dim")
    for one in seen.stuck[:_MOST]:
        state = "takedown" if one.going.takedown_at else one.going.state.value
        table.add_row(
            one.going.ref,
            one.going.post_id,
            state,
            age(one.since, seen.now),
            one.next,
            one.who_acts,
        )
    return table
