"""Starts what triggers ask for, within their conditions; tells people what a trigger alerts to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Scheduled

from clickpost import triggers
from clickpost.errors import ClickPostError
from clickpost.policy import triggering
from clickpost.store import Store
from clickpost.telling import Event, Happening
from clickpost.triggers import QuietHours, Skip, Start
from tasks import _wiring, telling

_PAGE = 200


@dataclass(frozen=True)
class Asked:
    """What a trigger asks for: `deployment` as FLOW/NAME, with these parameters."""

    trigger: str
    deployment: str
    parameters: Mapping[str, Any]
    quiet: QuietHours | None
    at_most: int | None
    version: str = ""
    """Of its policy, as the run's tags say."""


@dataclass(frozen=True)
class Started:
    """The run that was made, and when it starts."""

    run_id: str
    at: datetime


async def start(asked: Asked, key: str, resources: Sequence[str]) -> Started | Skip:
    """Start the run that a trigger asks for, or say why not; the same `key` is the same run."""
    try:
        parameters = triggers.filled(asked.parameters, triggers.ids_of(resources))
    except KeyError as missing:
        return Skip(f"the event names no {str(missing.args[0]).removeprefix('event.')}")
    house = await _wiring.house()
    async with house.store.turn(asked.trigger), get_client() as client:
        deployment = await client.read_deployment_by_name(asked.deployment)
        now = datetime.now(UTC)
        since = now - triggers.HOUR
        runs = await _runs(client, DeploymentFilterId(any_=[deployment.id]), since)
        judged = triggers.judge(now, asked.quiet, asked.at_most, runs)
        match judged:
            case Skip():
                return judged
            case Start(at=at):
                await _gated(house.store, deployment.tags, parameters)
                run = await client.create_flow_run_from_deployment(
                    deployment.id,
                    parameters=dict(parameters),
                    state=Scheduled(scheduled_time=at),
                    idempotency_key=key,
                )
                await house.store.note_fired(asked.trigger, asked.version, str(run.id), at)
                return Started(str(run.id), at)


async def _gated(store: Store, tags: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Before there is a run, note that its post needs an approval, where its trigger says so."""
    trigger, post_id = triggers.gate_of(tags), triggers.post_in(parameters)
    if trigger is not None and post_id is not None:
        await store.require_approval_of(post_id, trigger)


async def _runs(
    client: PrefectClient, deployment: DeploymentFilterId, since: datetime
) -> list[datetime]:
    """Return when runs of a deployment started since then, or are to start."""
    found: list[datetime] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                expected_start_time=FlowRunFilterExpectedStartTime(after_=since)
            ),
            deployment_filter=DeploymentFilter(id=deployment),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += [run.expected_start_time for run in page if run.expected_start_time]
        if len(page) < _PAGE:
            return found


async def alert(trigger: str, run_id: str) -> bool:
    """Tell people that a trigger wants their attention, once for each run; say whether it did."""
    house = await _wiring.house()
    facts = {
        "where": trigger,
        "reason": _title(house.settings.policies, trigger),
        "who_acts": "an operator",
        "run_id": run_id,
    }
    once = f"{Event.ALERT}:{run_id}"
    made = await house.store.notify(Happening(Event.ALERT, trigger, once, facts))
    await telling.wake()
    return made is not None


def _title(policies: Any, name: str) -> str:
    """Return what the trigger's author says of it; policies that are broken now say nothing."""
    try:
        titles = {one.name: one.title for one in triggering.load(policies)}
    except ClickPostError:
        titles = {}
    if name not in titles and name.removesuffix("-failed") in titles:
        return f"a run of it failed: {titles[name.removesuffix('-failed')]}"
    return titles.get(name, "no trigger of this name is among the policies")
