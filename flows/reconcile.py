"""Settles every unknown outcome: looks, adopts, sends once more, or asks an operator."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed

from flows import _naming, _run
from flows._choice import DeliveryChoice
from tasks import asking, calling_off, reporting, sending


def _name() -> str:
    delivery: DeliveryChoice | None = _naming.parameter("delivery")
    return f"reconcile-deliveries {delivery.delivery_id}" if delivery else _naming.by_minute()


@flow(name="reconcile-deliveries", flow_run_name=_name, validate_parameters=True)
async def reconcile_deliveries(delivery: DeliveryChoice | None = None) -> PrefectState[Any]:
    """Look for every post whose outcome got lost, or for one delivery only.

    What is there is taken as published, with its permalink. What is not there is sent once more,
    after the platform's settle time. Where no look can tell, an operator is asked, in a run of
    `ask-operator` that waits for the answer; questions that were settled otherwise are ended.
    """
    lost = await sending.lost()
    rows = await calling_off.judged(await _wanted(delivery, lost))
    steps = await _run.side_by_side(_run.deliver(row) for row in rows)
    open_ = await asking.tidy()
    for post_id in sorted({row.post_id for row in rows}):
        await _run.report(post_id)
    await _run.wake()
    if not rows and not open_:
        return Completed(message="nothing was unknown")
    return _run.reconciled(steps, open_)


async def _wanted(delivery: DeliveryChoice | None, lost: list[str]) -> list[reporting.Row]:
    if delivery is None:
        return await reporting.unknown_rows(lost)
    return await reporting.rows_of(delivery.delivery_id)
