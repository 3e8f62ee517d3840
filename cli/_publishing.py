"""Follows a post to its end and shows where it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table

from cli._output import DONE, FAILED, err
from clickpost.delivery import SETTLED, State
from clickpost.store import DeliveryLine, Store

_COLOURS = {
    State.LIVE: "green",
    State.FAILED: "red",
    State.UNKNOWN: "yellow",
    State.HELD: "yellow",
    State.MISSED: "red",
}


@dataclass
class Follow:
    """Watches one post's deliveries; gives up after `patience` seconds without an end."""

    store: Store
    post_id: str
    patience: float = 900.0

    async def to_the_end(self) -> tuple[int, dict[str, Any]]:
        """Show progress until every delivery has settled; return exit code and report."""
        until = monotonic() + self.patience
        with Live(console=err, refresh_per_second=8, transient=True) as live:
            while True:
                lines = await self.store.lines(self.post_id)
                live.update(await self._picture(lines))
                if all(_rests(line) for line in lines) or monotonic() > until:
                    break
                await asyncio.sleep(0.3)
        lines = await self.store.lines(self.post_id)
        return code_of(lines), await report_of(self.store, self.post_id)

    async def _picture(self, lines: list[DeliveryLine]) -> Group:
        post = await self.store.post(self.post_id)
        table = shown(lines)
        if post.progress is not None and post.progress < 1:
            filled = int(post.progress * 24)
            bar = "█" * filled + "░" * (24 - filled)
            return Group(table, f"making renditions {bar} {post.progress:.0%}")
        return table


def _rests(line: DeliveryLine) -> bool:
    """Say whether nothing happens soon: settled, for an operator, or waiting for its time."""
    if line.state in SETTLED:
        return True
    if line.state is State.UNKNOWN and line.who_acts == "an operator":
        return True
    start = max((one for one in (line.due_at, line.not_before) if one), default=None)
    waits = start is not None and (start - datetime.now(UTC)).total_seconds() > 120
    return waits and line.state in (State.READY, State.PREPARING)


def code_of(lines: list[DeliveryLine]) -> int:
    """Return 0 where everything is live, scheduled or a draft."""
    fine = {State.LIVE, State.DRAFTED, State.PROCESSING, State.READY, State.PLANNED}
    return DONE if all(line.state in fine for line in lines) else FAILED


def shown(lines: list[DeliveryLine]) -> Group:
    """Return the deliveries as a table, reasons and notes below."""
    below: list[str] = []
    table = Table(box=None, header_style="dim", caption_justify="left", pad_edge=False)
    for name in ("platform", "state", "permalink", "rendition", "attempts", "time"):
        table.add_column(name, overflow="fold")
    for line in lines:
        colour = _COLOURS.get(line.state, "cyan")
        end = line.live_at or line.updated_at
        took = f"{(end - line.created_at).total_seconds():.1f} s"
        table.add_row(
            line.ref,
            f"[{colour}]{line.state.value}[/]",
            line.url or "",
            line.rendition,
            str(line.attempts),
            took,
        )
        if line.reason:
            who = f" → {line.who_acts}" if line.who_acts and line.who_acts != "nobody" else ""
            below.append(f"[{colour}]{line.ref}: {_plain(line.reason)}{who}[/]")
        below += [f"[dim]{line.ref}: {_plain(note)}[/]" for note in line.notes]
    return Group(table, *below)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


async def report_of(store: Store, post_id: str) -> dict[str, Any]:
    """Return a post's deliveries for scripts."""
    deliveries = []
    for line in await store.lines(post_id):
        details = [one.detail for one in await store.attempts_of(line.id) if one.detail]
        deliveries.append(
            {
                "delivery": line.id,
                "connection": line.ref,
                "state": line.state.value,
                "remote_id": line.remote_id,
                "url": line.url,
                "attempts": line.attempts,
                "reason": line.reason,
                "detail": details[-1] if details and line.reason else None,
                "who_acts": line.who_acts,
                "rendition": line.rendition,
                "notes": line.notes,
                "due_at": line.due_at.isoformat() if line.due_at else None,
            }
        )
    return {"post": post_id, "deliveries": deliveries}
