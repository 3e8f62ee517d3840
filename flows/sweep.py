"""Finds what is stuck and moves it on: lost leases, unknown outcomes, overdue deliveries."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import State as PrefectState
from prefect import flow

from flows import _run
from tasks import renewing, reporting, sending


@flow(name="sweep-deliveries")
async def sweep_deliveries() -> PrefectState[Any]:
    """Move on every delivery that has no live run: nothing stays stuck, nothing goes twice.

    A send whose worker vanished becomes unknown and is looked for; what is overdue is sent or
    handled as its post's `late` policy says; processing is asked about.
    """
    await renewing.due()  # Also for accounts that nothing is sent to.
    lost = await sending.lost()
    rows = await reporting.stuck_rows(lost)
    for post_id in sorted({row.post_id for row in rows if row.state == "planned"}):
        await _run.prepare(post_id)
    rows = await reporting.stuck_rows([*lost, *(row.delivery_id for row in rows)])
    steps = await asyncio.gather(*(_run.deliver(row) for row in rows), return_exceptions=True)
    for post_id in sorted({row.post_id for row in rows}):
        await reporting.report(post_id)
    return _run.swept(steps, len(lost))
