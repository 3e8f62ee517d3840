"""Calls off what a run was to send, once somebody has cancelled that run in Prefect.

A run that is cancelled before it began runs no hook, so Prefect is asked as well: before each
sweep, and before anything is sent by another run than its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

from clickpost import publishing
from clickpost.delivery import STOPPABLE, State
from clickpost.errors import Conflict
from clickpost.logs import logger
from clickpost.store.tables import Delivery
from tasks import _wiring
from tasks._wiring import House
from tasks.reporting import Row, row_of

log = logger("calling_off")

#: The flows that send. A cancelled `prepare` or `takedown` calls nothing off.
SENDING_FLOWS = ("publish", "publish-due")
#: A sweep looks at the runs that were cancelled since; older ones are asked for by their id.
RECENT = timedelta(days=1)
_PAGE = 200


async def responsible(post_id: str, run_id: str) -> None:
    """Make the run the one that sends the post, unless the post waits for a later moment's."""
    house = await _wiring.house()
    due_at = (await house.store.post(post_id)).due_at
    if due_at is None or due_at <= datetime.now(UTC):
        await house.store.set_flow_run(post_id, run_id)


async def by_runs(run_ids: Sequence[str]) -> list[str]:
    """Call off what these runs were to send; return the posts that this touched."""
    house = await _wiring.house()
    lines = await house.store.stoppable_lines(run_ids) if run_ids else []
    return sorted({line.post_id for line in lines if await stop(line.id) is not None})


async def recent() -> list[str]:
    """Call off what the runs cancelled lately were to send; return the posts."""
    return await by_runs(await _cancelled_since(datetime.now(UTC) - RECENT))


async def judged(rows: Sequence[Row]) -> list[Row]:
    """Return the rows as Prefect lets them go on: those of cancelled runs are called off.

    What is on its way already, or of unknown outcome, stays, marked: it is not sent again.
    """
    off = await _cancelled_among({row.run_id for row in rows if row.run_id})
    return [await _judged(row) if row.run_id in off else row for row in rows]


async def _judged(row: Row) -> Row:
    if row.state in STOPPABLE:
        await stop(row.delivery_id)
    house = await _wiring.house()
    lines = await house.store.lines(row.post_id)
    current = next(line for line in lines if line.id == row.delivery_id)
    return replace(row_of(current), called_off=True)


async def stop(delivery_id: str) -> State | None:
    """Call one delivery off; None where it is on its way, or has ended."""
    house = await _wiring.house()
    for _ in range(10):
        delivery = await house.store.delivery(delivery_id)
        if delivery.state not in STOPPABLE:
            break
        with suppress(Conflict):  # It moved in this very moment: look again.
            return await _stopped(house, delivery)
    return None


async def _stopped(house: House, delivery: Delivery) -> State:
    end = publishing.called_off(len(delivery.receipts or []))
    run_id = delivery.flow_run_id or (await house.store.post(delivery.post_id)).flow_run_id
    await house.store.move(
        delivery.id,
        delivery.state,
        end.state,
        reason=end.reason,
        who_acts=end.who_acts,
        actor="operator",
        because={"cancelled_run": str(run_id)},
        lease_owner=None,
        lease_until=None,
    )
    log.info("called off", delivery_id=delivery.id, state=end.state.value)
    return end.state


async def _cancelled_among(run_ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    types = FlowRunFilterStateType(any_=[StateType.CANCELLED, StateType.CANCELLING])
    async with get_client() as client:
        wanted_ids = [UUID(one) for one in sorted(run_ids)]
        for first in range(0, len(wanted_ids), _PAGE):
            wanted = FlowRunFilter(
                id=FlowRunFilterId(any_=wanted_ids[first : first + _PAGE]),
                state=FlowRunFilterState(type=types),
            )
            runs = await client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE)
            found |= {str(run.id) for run in runs}
    return found


async def _cancelled_since(moment: datetime) -> list[str]:
    found: list[str] = []
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLED])),
        end_time=FlowRunFilterEndTime(after_=moment),
    )
    flows = FlowFilter(name=FlowFilterName(any_=list(SENDING_FLOWS)))
    async with get_client() as client:
        while True:
            runs = await client.read_flow_runs(
                flow_filter=flows,
                flow_run_filter=wanted,
                sort=FlowRunSort.END_TIME_DESC,
                limit=_PAGE,
                offset=len(found),
            )
            found += [str(run.id) for run in runs]
            if len(runs) < _PAGE:
                return found
