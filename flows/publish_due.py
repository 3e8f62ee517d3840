"""Sends everything that is due at one moment: one run, one task run for each delivery."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from prefect import State as PrefectState
from prefect import flow
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from flows import _run
from tasks import calling_off, planning, reporting
from tasks.sending import Step

#: Sends side by side; more only queue at the connections' own limits.
SIDE_BY_SIDE = 40


class Moment(BaseModel):
    """Which moment a run is about."""

    model_config = ConfigDict(extra="forbid")

    at: AwareDatetime = Field(
        title="Due at", description="Everything due at or before this moment is sent."
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
    rows = await _prepared(moment.at)
    await planning.until(moment.at)
    gate = asyncio.Semaphore(SIDE_BY_SIDE)
    steps = await _run.side_by_side(_one(row, gate) for row in rows)
    posts = sorted({row.post_id for row in rows})
    await _run.side_by_side(_reported(post_id, gate) for post_id in posts)
    await _run.wake()
    return _run.ended(steps)


async def _prepared(moment: datetime) -> list[reporting.Row]:
    rows = await calling_off.judged(await reporting.due_rows(moment))
    for post_id in sorted({row.post_id for row in rows if row.state == "planned"}):
        await _run.prepare(post_id)
    return await calling_off.judged(await reporting.due_rows(moment))


async def _one(row: reporting.Row, gate: asyncio.Semaphore) -> Step:
    async with gate:
        return await _run.deliver(row)


async def _reported(post_id: str, gate: asyncio.Semaphore) -> None:
    async with gate:
        await _run.report(post_id)
