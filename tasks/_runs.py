"""Starts and ends flow runs from within flows; the command line does it by `deployments.runs`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Scheduled

_PAGE = 200


async def begin(
    flow: str,
    parameters: Mapping[str, Any],
    *,
    key: str,
    name: str,
    at: datetime | None = None,
    tags: Sequence[str] = (),
) -> str:
    """Create a run of `flow`'s deployment, now or `at` a moment; return its id.

    The same `key` is the same run, until that has ended: then another one is made.
    """
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"{flow}/{flow}")
        while True:
            run = await client.create_flow_run_from_deployment(
                deployment.id,
                parameters=dict(parameters),
                state=Scheduled(scheduled_time=at),
                idempotency_key=key,
                name=name,
                tags=list(tags),
            )
            if run.state is None or not (run.state.is_final() or run.state.is_cancelling()):
                return str(run.id)
            key += " again"


async def over(run_ids: Collection[str]) -> set[str]:
    """Return which of the runs have ended, or are unknown to Prefect by now."""
    wanted, going = sorted(run_ids), set()
    async with get_client() as client:
        for first in range(0, len(wanted), _PAGE):
            page = FlowRunFilterId(any_=[UUID(one) for one in wanted[first : first + _PAGE]])
            runs = await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=page), limit=_PAGE)
            going |= {str(run.id) for run in runs if run.state and not run.state.is_final()}
    return set(run_ids) - going


@dataclass(frozen=True)
class Upcoming:
    """A run that waits for its time."""

    id: str
    parameters: Mapping[str, Any]
    created_at: datetime


async def upcoming(flow: str, after: datetime) -> list[Upcoming]:
    """Return the runs of `flow` that nobody has begun and that are expected after a moment."""
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(after_=after),
    )
    found: list[Upcoming] = []
    async with get_client() as client:
        while True:
            page = await client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
                flow_run_filter=wanted,
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=_PAGE,
                offset=len(found),
            )
            found += [Upcoming(str(run.id), run.parameters, run.created or after) for run in page]
            if len(page) < _PAGE:
                return found


async def tag(run_id: str, tags: Collection[str]) -> None:
    """Add tags to a run."""
    async with get_client() as client:
        run = await client.read_flow_run(UUID(run_id))
        await client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))


async def complete(run_id: str, why: str) -> None:
    """End a run that waits for what is not needed any more.

    It is not cancelled: a cancelled run calls off what it was to send.
    """
    async with get_client() as client:
        try:
            run = await client.read_flow_run(UUID(run_id))
        except ObjectNotFound:
            return
        if run.state is not None and not run.state.is_final():
            await client.set_flow_run_state(run.id, Completed(message=why), force=True)
