"""Starts what triggers ask for, within their conditions; tells people what a trigger alerts to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from clickpost.triggers import QuietHours, Skip, Start, Verdict
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
class Cause:
    """Why a trigger fires: an event and its resources; none of them where its schedule does."""

    run_id: str
    """The run that asks: `fire`."""
    event_id: str | None = None
    resources: Sequence[str] = ()


@dataclass(frozen=True)
class Started:
    """The run that was made, and when it starts."""

    run_id: str
    at: datetime


@dataclass
class Came:
    """What a cause came to: for the calls of a hook that were told together it may be many runs."""

    started: list[Started] = field(default_factory=list)
    left: int = 0
    """So many runs were not started, for this reason."""
    skip: Skip | None = None


async def start(asked: Asked, cause: Cause) -> Came:
    """Start what a trigger asks for, or say why not; the same cause starts the same runs.

    What each cause came to is kept: each call of a hook by itself, however many were told at once.
    """
    house = await _wiring.house()
    store = house.store
    chain = await store.chain_of(triggers.runs_in(cause.resources))
    causes = await _causes(store, cause)
    found = triggers.circle(asked.trigger, chain) or _filled(asked, cause)
    if isinstance(found, Skip):
        run_id = cause.run_id if found.verdict is Verdict.LOOP else None
        await _left(store, asked, causes, found, run_id, chain)
        if found.verdict is Verdict.LOOP:
            await _told_of_loop(store, asked.trigger, found, cause.run_id)
        return Came([], len(causes), found)
    async with store.turn(asked.trigger), get_client() as client:
        waiting = await store.undecided(asked.trigger, causes)
        came = await _begun(client, store, asked, found, waiting, chain)
        if came.skip is not None:
            rest = waiting[len(came.started) :]
            await _left(store, asked, rest, came.skip, None, chain)
            came.left = len(rest)
    return came


async def _causes(store: Store, cause: Cause) -> list[str]:
    """Return what is decided one by one: the calls of a hook, else the event, else the run."""
    if (name := triggers.calls_in(cause.resources)) and (
        calls := await store.calls_heard_with(name)
    ):
        return calls
    return [cause.event_id or cause.run_id]


def _filled(asked: Asked, cause: Cause) -> Mapping[str, Any] | Skip:
    try:
        ids = triggers.ids_of(cause.resources)
        filled: Mapping[str, Any] = triggers.filled(asked.parameters, ids)
    except KeyError as missing:
        lacks = str(missing.args[0]).removeprefix("event.")
        return Skip(f"the event names no {lacks}", Verdict.LACKING)
    return filled


async def _begun(
    client: PrefectClient,
    store: Store,
    asked: Asked,
    parameters: Mapping[str, Any],
    causes: Sequence[str],
    chain: Sequence[str],
) -> Came:
    """Start a run for each cause, until one may not start: then no later one may."""
    deployment = await client.read_deployment_by_name(asked.deployment)
    now, came = datetime.now(UTC), Came()
    runs = await _runs(client, DeploymentFilterId(any_=[deployment.id]), now - triggers.HOUR)
    for cause in causes:
        key = f"{asked.trigger} {cause}"
        judged: Start | Skip = Start(now)  # One that was begun before a crash is there already.
        if key not in runs:
            judged = triggers.judge(now, asked.quiet, asked.at_most, list(runs.values()))
        if isinstance(judged, Skip):
            came.skip = judged
            break
        await _gated(store, deployment.tags, parameters)
        run = await client.create_flow_run_from_deployment(
            deployment.id,
            parameters=dict(parameters),
            state=Scheduled(scheduled_time=judged.at),
            idempotency_key=key,
        )
        run_id = str(run.id)
        if key not in runs:
            runs[key] = judged.at
            await store.note_fired(asked.trigger, asked.version, run_id, judged.at)
        await store.decided(asked.trigger, [cause], Verdict.FIRED, run_id=run_id, chain=chain)
        came.started.append(Started(run_id, runs[key]))
    return came


async def _left(
    store: Store,
    asked: Asked,
    causes: Sequence[str],
    skip: Skip,
    run_id: str | None,
    chain: Sequence[str],
) -> None:
    await store.decided(
        asked.trigger, causes, skip.verdict, reason=skip.reason, run_id=run_id, chain=chain
    )


async def _told_of_loop(store: Store, trigger: str, skip: Skip, run_id: str) -> None:
    """Tell people of triggers that go in circles, once a day for each."""
    facts = {
        "where": trigger,
        "reason": f"{skip.reason}; change one of these triggers, or what it matches",
        "who_acts": "an operator",
        "run_id": run_id,
    }
    once = f"{Event.GUARD}:loop:{trigger}:{datetime.now(UTC):%Y-%m-%d}"
    if await store.notify(Happening(Event.GUARD, trigger, once, facts)):
        await telling.wake()


async def _gated(store: Store, tags: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Before there is a run, note that its post needs an approval, where its trigger says so."""
    trigger, post_id = triggers.gate_of(tags), triggers.post_in(parameters)
    if trigger is not None and post_id is not None:
        await store.require_approval_of(post_id, trigger)


async def _runs(
    client: PrefectClient, deployment: DeploymentFilterId, since: datetime
) -> dict[str, datetime]:
    """Return when runs of a deployment started since then, or are to start, by their key."""
    found: dict[str, datetime] = {}
    read = 0
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                expected_start_time=FlowRunFilterExpectedStartTime(after_=since)
            ),
            deployment_filter=DeploymentFilter(id=deployment),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=read,
        )
        read += len(page)
        for run in page:
            if run.expected_start_time:
                found[run.idempotency_key or str(run.id)] = run.expected_start_time
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
