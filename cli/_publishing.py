"""Starts a post's run, follows the post to its end and shows where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from cli._output import DONE, FAILED, err
from clickpost import repeats
from clickpost.delivery import SETTLED, State
from clickpost.errors import Unavailable
from clickpost.settings import Settings
from clickpost.store import DeliveryLine, Store
from clickpost.store.series import PAUSED as SERIES_PAUSED
from clickpost.telling import Said, commands, event_of
from deployments import runs
from tasks.repeating import HEAD_START

Again = typer.Option(False, "--again", help="An account may get what it got lately once more.")

_COLOURS = {
    State.LIVE: "green",
    State.FAILED: "red",
    State.UNKNOWN: "yellow",
    State.HELD: "yellow",
    State.MISSED: "red",
}


def note(found: Sequence[repeats.Said]) -> None:
    """Tell which accounts got the same lately."""
    for said in found:
        err.print(f"[yellow]note:[/] {said}; say so with --again")


async def tags_of(store: Store, post_id: str) -> list[str]:
    """Return the tags by which a run about the post is found in the UI."""
    platforms = {f"platform:{line.platform}" for line in await store.lines(post_id)}
    workspace = (await store.post(post_id)).workspace_id
    return [f"post:{post_id}", f"workspace:{workspace}", *sorted(platforms)]


async def started(given: Settings, store: Store, post_id: str, moment: datetime | None) -> str:
    """Start the post's run; a scheduled one is prepared now and shares its moment's run."""
    parameters = {"post": {"post_id": post_id}}
    tags = await tags_of(store, post_id)
    try:
        run_id = _begun(given, moment, parameters, tags)
    except Unavailable as error:
        raise Unavailable(
            f"{error}. {post_id} is kept: the sweep sends it once Prefect is back, so do not"
            f" publish it again. Call it off with: clickpost posts cancel {post_id}"
        ) from None
    await store.set_flow_run(post_id, run_id, moment)
    return runs.run_url(given, run_id)


async def scheduled(given: Settings, store: Store, post_id: str) -> str:
    """Start a run for each moment at which some of the post is due; return the first one's page."""
    due = {line.due_at for line in await store.lines(post_id) if line.state not in SETTLED}
    moments = sorted(one for one in due if one is not None)
    urls = [await started(given, store, post_id, moment) for moment in moments]
    return urls[0] if urls else await started(given, store, post_id, None)


def _begun(
    given: Settings, moment: datetime | None, parameters: dict[str, Any], tags: list[str]
) -> str:
    if moment is None or moment <= datetime.now(UTC) + timedelta(seconds=2):
        return runs.start(given, "publish", parameters, tags=tags)
    at = moment.isoformat()
    begins = moment - HEAD_START
    # A run that has begun already has looked what is due: what comes now gets one of its own.
    shared = begins > datetime.now(UTC) + timedelta(seconds=2)
    run_id = runs.start(
        given,
        "publish-due",
        {"moment": {"at": at}},
        at=begins,
        key=f"due {at}" if shared else None,
        name=f"publish-due {at}",
    )
    runs.start(given, "prepare", parameters, tags=tags)
    return run_id


_LATE = "the run has not begun: does a worker run? See: clickpost status"
_ENDS = {
    "FAILED": "before every delivery was settled; the sweep takes the rest further,"
    " within three minutes",
    "CRASHED": "before every delivery was settled; press Retry on its page, or leave the rest to"
    " the sweep, within three minutes (does a worker run? See: clickpost status)",
    "CANCELLED": "before every delivery was settled; what was not sent is called off within a"
    " minute, what was on its way is looked for",
}


@dataclass
class Follow:
    """Watches one post's deliveries; gives up after `patience` seconds without an end.

    It watches the post's run too: one that ended badly takes nothing further.
    """

    store: Store
    post_id: str
    given: Settings
    patience: float = 900.0
    hint: str = ""

    async def to_the_end(self) -> tuple[int, dict[str, Any]]:
        """Show progress until every delivery has settled; return exit code and report."""
        until = monotonic() + self.patience
        watching = asyncio.create_task(self._watched())
        with Live(console=err, refresh_per_second=8, transient=True) as live:
            while True:
                over = watching.done()
                lines = await self.store.lines(self.post_id)
                live.update(await self._picture(lines))
                if all(_rests(line) for line in lines) or over or monotonic() > until:
                    break
                await asyncio.sleep(0.3)
        watching.cancel()
        lines = await self.store.lines(self.post_id)
        report = await report_of(self.store, self.post_id)
        if all(_rests(line) for line in lines):
            return code_of(lines), report
        word = watching.result() if over else f"still on its way after {self.patience:.0f} s"
        word += f". Look again with: clickpost posts show {self.post_id}"
        err.print(f"[yellow]{_plain(word)}[/]", soft_wrap=True)
        return FAILED if over else code_of(lines), report | {"unsettled": word}

    async def _watched(self) -> str:
        """Wait until the post's run has ended badly, and say what that means.

        A run whose worker was killed is Crashed only for a moment, where another picks it up: an
        end counts when it is seen three times in a row.
        """
        seen = 0
        while True:
            await asyncio.sleep(1)
            run_id = (await self.store.post(self.post_id)).flow_run_id
            state = await asyncio.to_thread(runs.state_of, self.given, run_id) if run_id else None
            self.hint = _LATE if state is not None and state.name == "Late" else ""
            seen = seen + 1 if state is not None and state.type in _ENDS else 0
            if state is not None and seen == 3:
                said = f" ({state.message})" if state.message else ""
                return f"the run has ended as {state.name}{said} {_ENDS[state.type]}"

    async def _picture(self, lines: list[DeliveryLine]) -> Group:
        post = await self.store.post(self.post_id)
        table = shown(lines)
        if post.progress is not None and post.progress < 1:
            filled = int(post.progress * 24)
            bar = "█" * filled + "░" * (24 - filled)
            return Group(table, f"making renditions {bar} {post.progress:.0%}", self.hint)
        return Group(table, self.hint) if self.hint else table


def _rests(line: DeliveryLine) -> bool:
    """Say whether nothing happens soon: settled, for an operator, or waiting for its time."""
    if line.state in SETTLED:
        return True
    if line.state is State.UNKNOWN and line.who_acts == "an operator":
        return True
    start = max((one for one in (line.due_at, line.not_before) if one), default=None)
    if line.state is State.AWAITING_APPROVAL:
        return True
    waits = start is not None and (start - datetime.now(UTC)).total_seconds() > 120
    return waits and line.state in (State.READY, State.PREPARING)


def code_of(lines: list[DeliveryLine]) -> int:
    """Return 0 where everything is live, scheduled or a draft."""
    fine = {State.LIVE, State.DRAFTED, State.PROCESSING, State.READY, State.PLANNED}
    fine.add(State.AWAITING_APPROVAL)
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
            below += [f"[dim]  next: {command}[/]" for command in _next(line)]
        below += [f"[dim]{line.ref}: {_plain(note)}[/]" for note in line.notes]
    return Group(table, *below)


def _next(line: DeliveryLine) -> list[str]:
    """Return the commands with which whoever acts goes on, as a notice names them."""
    event = event_of(line.state, line.who_acts)
    paused = line.state is State.HELD and line.reason == SERIES_PAUSED
    if event is None or paused:
        return ["clickpost series list"] if paused else []
    facts = {
        "where": line.ref,
        "post_id": line.post_id,
        "who_acts": line.who_acts,
        "reason": line.reason,
    }
    said = Said("", event, line.id, facts, line.updated_at)
    return [one for one in commands(said) if " posts show " not in one]


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
