"""Finds what is stuck and moves it on: lost leases, unknown outcomes, overdue deliveries."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any

from prefect import State as PrefectState
from prefect import flow

from clickpost.delivery import State
from flows import _run
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

#: Seconds in which a sweep begins work. The next sweep, a minute later, goes on where it ended, and
#: sees what has come since: one that took all its time would let others wait for their turn.
TIME = 40.0
#: Deliveries moved on, and posts prepared, side by side.
SIDE_BY_SIDE, DESK = 40, 8
SHORT = timedelta(seconds=2)


@flow(name="sweep-deliveries")
async def sweep_deliveries() -> PrefectState[Any]:
    """Move on every delivery that has no live run: nothing stays stuck, nothing goes twice.

    A send whose worker vanished becomes unknown and is looked for; what is overdue is sent or
    handled as its post's `late` policy says; processing is asked about. What a cancelled run was
    to send is called off, not sent. What somebody wants down is tried again; what is stuck all the
    same is told.
    """
    off = await calling_off.recent()
    await budgeting.forget()
    await renewing.due()  # Also for accounts that nothing is sent to.
    lost = await sending.lost()
    rows = await calling_off.judged(await reporting.stuck_rows(lost))
    ends = monotonic() + TIME
    posts = list(dict.fromkeys(row.post_id for row in rows if row.state == "planned"))
    await _run.side_by_side((_prepared(post_id, ends) for post_id in posts), DESK)
    known = [*lost, *(row.delivery_id for row in rows)]
    rows = await calling_off.judged(await reporting.stuck_rows(known))
    steps = await _run.side_by_side((_moved(row, ends) for row in rows), SIDE_BY_SIDE)
    down = await taking_down.due()
    steps += await _run.side_by_side(
        _run.take_down(row.delivery_id, row.post_id, row.connection) for row in down
    )
    touched = sorted({row.post_id for row in (*rows, *down)} | set(off))
    await _run.side_by_side((_run.report(post_id) for post_id in touched), DESK)
    await watching.tell_stuck()
    await telling.wake()
    return _run.swept(steps, len(lost), len(off))


async def _prepared(post_id: str, ends: float) -> None:
    """Prepare a post, if there is time left."""
    if monotonic() < ends:
        await _run.prepare(post_id)


async def _moved(row: reporting.Row, ends: float) -> Step:
    """Take a delivery a step on, if there is time left; nothing is waited for."""
    if monotonic() >= ends:
        return Step(State(row.state), parked=True)
    return await _run.deliver(row, longest=SHORT, follows=0.0)
