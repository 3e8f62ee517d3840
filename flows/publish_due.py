"""Sends everything that is due at one moment: one run, one task run for each delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from prefect import State as PrefectState
from prefect import flow
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from flows import _run
from flows._choice import in_order
from tasks import calling_off, planning, reporting
from tasks.sending import Step

#: Sends side by side; more only queue at the connections' own limits.
SIDE_BY_SIDE = 40
#: Posts prepared side by side that should have been before.
DESK = 8


class Moment(BaseModel):
    """Which moment a run is about."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    at: AwareDatetime = Field(
        title="Due at", description="Everything due at this moment, to the second, is sent."
    )


@flow(
    name="publish-due",
    flow_run_name="publish-due {moment.at}",
    validate_parameters=True,
    on_cancellation=[_run.when_cancelled],
)
async def publish_due(moment: Moment) -> PrefectState[Any]:
    """Send all deliveries that fall due at the same moment.

    Each was prepared ahead, so only the send is left; one that is not, is prepared now. The run
    begins some seconds early, looks what is due, and waits for the moment. What became late is
    decided by its post's `late` policy. Cancelling the run, before or while it runs, calls off the
    posts of its moment that are not sent yet.
    """
    rows = await calling_off.judged(await reporting.due_rows(moment.at))
    behind = sorted({row.post_id for row in rows if row.state == "planned"})
    ready = [row for row in rows if row.post_id not in behind]
    due = frozenset(row.delivery_id for row in rows)
    gate, desk = asyncio.Semaphore(SIDE_BY_SIDE), asyncio.Semaphore(DESK)
    done = await _run.side_by_side(
        [
            _sent(ready, moment.at, gate),
            *(_behind(post_id, due, moment.at, gate, desk) for post_id in behind),
        ]
    )
    steps = [step for one in done for step in ([one] if isinstance(one, BaseException) else one)]
    posts = sorted({row.post_id for row in rows})
    await _run.side_by_side(_reported(post_id, gate) for post_id in posts)
    await _run.wake()
    return _run.ended(steps)


async def _behind(
    post_id: str,
    due: Collection[str],
    moment: datetime,
    gate: asyncio.Semaphore,
    desk: asyncio.Semaphore,
) -> list[Step | BaseException]:
    """Prepare a post that was not yet, and send it; no other one waits for that."""
    async with desk:
        await _run.prepare(post_id)
    rows = [row for row in await reporting.rows(post_id) if row.delivery_id in due]
    return await _sent(await calling_off.judged(rows), moment, gate)


async def _sent(
    rows: Sequence[reporting.Row], moment: datetime, gate: asyncio.Semaphore
) -> list[Step | BaseException]:
    await planning.until(moment)
    return await _run.side_by_side(_one(row, gate) for row in rows)


async def _one(row: reporting.Row, gate: asyncio.Semaphore) -> Step:
    async with gate:
        return await _run.deliver(row)


async def _reported(post_id: str, gate: asyncio.Semaphore) -> None:
    async with gate:
        await _run.report(post_id)
