"""Finds what is stuck and moves it on: lost leases, unknown outcomes, overdue deliveries."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow

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
    for post_id in sorted({row.post_id for row in rows if row.state == "planned"}):
        await _run.prepare(post_id)
    known = [*lost, *(row.delivery_id for row in rows)]
    rows = await calling_off.judged(await reporting.stuck_rows(known))
    steps = await _run.side_by_side(_run.deliver(row) for row in rows)
    down = await taking_down.due()
    steps += await _run.side_by_side(
        _run.take_down(row.delivery_id, row.post_id, row.connection) for row in down
    )
    for post_id in sorted({row.post_id for row in (*rows, *down)} | set(off)):
        await _run.report(post_id)
    await watching.tell_stuck()
    await telling.wake()
    return _run.swept(steps, len(lost), len(off))
