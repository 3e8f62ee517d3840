"""Finds what is stuck and moves it on: lost leases, unknown outcomes, overdue deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed

from flows import _naming, _run
from tasks import (
    budgeting,
    calling_off,
    renewing,
    reporting,
    sending,
    taking_down,
    telling,
    watching,
)
from tasks.sending import Step

#: Seconds in which a sweep begins work. The next one, a minute later, goes on where it ended, and
#: sees what has come since.
TIME = 40.0
#: Posts taken up side by side.
SIDE_BY_SIDE = 12
SHORT = timedelta(seconds=2)


@flow(name="sweep-deliveries", flow_run_name=_naming.by_minute)
async def sweep_deliveries() -> PrefectState[Any]:
    """Move on every delivery that has no live run: nothing stays stuck, nothing goes twice.

    A send whose worker vanished becomes unknown and is looked for; what is overdue is sent or
    handled as its post's `late` policy says; processing is asked about. What a cancelled run was
    to send is called off, not sent. What somebody wants down is tried again; what is stuck all the
    same is told. Of two sweeps at once, one leaves the work to the other.
    """
    async with watching.alone("sweep-deliveries") as alone:
        return await _swept() if alone else Completed(message="another sweep is at it")


async def _swept() -> PrefectState[Any]:
    ends = monotonic() + TIME
    off = await calling_off.recent()
    await budgeting.forget()
    await renewing.due()  # Also for accounts that nothing is sent to.
    lost = await sending.lost()
    rows = await calling_off.judged(await reporting.stuck_rows(lost))
    posts: dict[str, list[reporting.Row]] = {}
    for row in rows:
        posts.setdefault(row.post_id, []).append(row)
    done = await _run.side_by_side((_taken_up(one, ends) for one in posts.values()), SIDE_BY_SIDE)
    steps = [step for one in done for step in ([one] if isinstance(one, BaseException) else one)]
    down = await taking_down.due()
    steps += await _run.side_by_side(
        _run.take_down(row.delivery_id, row.post_id, row.connection) for row in down
    )
    for post_id in sorted({row.post_id for row in down} | set(off)):
        await _run.report(post_id)
    await watching.tell_stuck()
    await telling.wake()
    return _run.swept(steps, len(lost), len(off))


async def _taken_up(rows: Sequence[reporting.Row], ends: float) -> list[Step | BaseException]:
    """Take a post's deliveries a step on, if there is time left; nothing is waited for."""
    if monotonic() >= ends:
        return [Step(row.state, parked=True) for row in rows]
    post_id = rows[0].post_id
    if any(row.state == "planned" for row in rows):
        await _run.prepare(post_id)
        fresh = {row.delivery_id: row for row in await reporting.rows(post_id)}
        rows = [replace(fresh[row.delivery_id], called_off=row.called_off) for row in rows]
    steps = await _run.side_by_side(_run.deliver(row, SHORT, follows=0.0) for row in rows)
    await _run.report(post_id)
    return steps
