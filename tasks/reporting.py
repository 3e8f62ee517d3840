"""Says where a post is and who must act: tables of ids, states and permalinks, never content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

import httpx
from prefect.artifacts import acreate_table_artifact
from prefect.exceptions import MissingContextError, PrefectException
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from clickpost.delivery import State
from clickpost.store import DeliveryLine
from tasks import _runs, _wiring


@dataclass(frozen=True)
class Row:
    """What a flow needs to know of one delivery."""

    delivery_id: str
    post_id: str
    connection: str
    state: State
    has_media: bool
    run_id: str | None = None
    called_off: bool = False
    """Whether the run that was to send it is cancelled: it may be looked at, not sent."""

    @property
    def may_upload(self) -> bool:
        """Say whether it waits for its upload."""
        return self.state in (State.PREPARING, State.READY)

    @property
    def may_be_taken_down(self) -> bool:
        """Say whether something of it may be visible."""
        return self.state in (State.LIVE, State.PROCESSING, State.GONE)


def row_of(line: DeliveryLine) -> Row:
    """Return what a flow needs of `line`."""
    return Row(
        delivery_id=line.id,
        post_id=line.post_id,
        connection=line.ref,
        state=line.state,
        has_media=line.has_media,
        run_id=line.run_id,
    )


async def rows(post_id: str) -> list[Row]:
    """Return the deliveries of a post."""
    house = await _wiring.house()
    return [row_of(line) for line in await house.store.lines(post_id)]


async def tag(post_id: str) -> None:
    """Give the run the tags by which it is looked for; one that a form started lacks them."""
    if f"post:{post_id}" not in flow_run.tags:
        platforms = {f"platform:{row.connection.partition('/')[0]}" for row in await rows(post_id)}
        with suppress(PrefectException, httpx.HTTPError):  # Without them it works as well.
            await _runs.tag(str(flow_run.id), {f"post:{post_id}", *platforms})


async def due_rows(moment: datetime) -> list[Row]:
    """Return the deliveries due at or before `moment` that nobody has sent."""
    house = await _wiring.house()
    return [row_of(line) for line in await house.store.due_lines(moment)]


async def is_due(delivery_id: str) -> bool:
    """Say whether the delivery's time has come, or it never waited for one."""
    house = await _wiring.house()
    due_at = (await house.store.delivery(delivery_id)).due_at
    return due_at is None or due_at <= datetime.now(UTC)


async def stuck_rows(also: Sequence[str] = ()) -> list[Row]:
    """Return what should have moved and did not, and the deliveries `also` names."""
    house = await _wiring.house()
    return [row_of(line) for line in await house.store.stuck_lines(datetime.now(UTC), also)]


async def unknown_rows(also: Sequence[str] = ()) -> list[Row]:
    """Return the deliveries of unknown outcome that nobody looks for, and those `also` names."""
    house = await _wiring.house()
    return [row_of(line) for line in await house.store.unknown_lines(datetime.now(UTC), also)]


async def rows_of(delivery_id: str) -> list[Row]:
    """Return one delivery, alone."""
    house = await _wiring.house()
    post_id = (await house.store.delivery(delivery_id)).post_id
    return [row for row in await rows(post_id) if row.delivery_id == delivery_id]


def progress(post_id: str) -> Callable[[float], None]:
    """Return what writes a post's encoding progress (0 to 1) where the command line reads it.

    It writes at most twice a second, and never holds up the encoding.
    """
    last = 0.0
    writing: set[asyncio.Task[None]] = set()

    def told(share: float) -> None:
        nonlocal last
        if share < 1 and monotonic() - last < 0.5:
            return
        last = monotonic()
        task = asyncio.ensure_future(_write(post_id, share))
        writing.add(task)
        task.add_done_callback(writing.discard)

    return told


async def _write(post_id: str, share: float) -> None:
    house = await _wiring.house()
    await house.store.set_progress(post_id, share)


async def report(post_id: str) -> None:
    """Write the post's table artifact; its key is the post, its history the post's history."""
    house = await _wiring.house()
    lines = await house.store.lines(post_id)
    table = [
        {
            "connection": line.ref,
            "state": line.state.value,
            # In front, and the short one first: both show without scrolling sideways.
            "who acts next": (line.who_acts or "nobody") if line.state is not State.LIVE else "",
            "reason": line.reason or "",
            "permalink": f"[{line.url}]({line.url})" if line.url else "",
            "attempts": line.attempts,
            "rendition": line.rendition,
            "policy": (line.policy or "")[:12],
            "since": line.updated_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }
        for line in lines
    ]
    _told(lines)
    await acreate_table_artifact(
        key=post_id.replace("_", "-"),
        table=table,
        description=f"Deliveries of {post_id}. More: `clickpost posts show {post_id}`",
    )


def _told(lines: Sequence[DeliveryLine]) -> None:
    """Name in the run's log what somebody must act on; the reason stays in the report."""
    with suppress(MissingContextError):  # Outside a run there is no log to tell.
        for line in lines:
            if line.who_acts and not line.who_acts.startswith("nobody"):
                words = (line.post_id, line.ref, line.state.value, line.who_acts)
                get_run_logger().warning("%s %s is %s; who acts next: %s", *words)
