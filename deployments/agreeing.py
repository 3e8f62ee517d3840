"""Makes Prefect agree with the policies: what they want, what is there, the difference.

What was made here is known by the last line of its description, a trigger's by its tag as well,
and a limit, which has no description, by how its name begins; nothing else is touched. There is no
state beside Prefect's own, so an `apply` that was killed is simply run again.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from clickpost.policy import triggering
from clickpost.policy.load import BrokenPolicies
from clickpost.policy.running import Running
from clickpost.policy.triggers import Trigger
from clickpost.settings import Settings
from deployments import forms, queues
from deployments.triggers import (
    FLOWS,
    KEEPERS,
    MADE,
    MADE_OWN,
    Automatic,
    Deployed,
    faults,
    own_of,
    wanted_of,
)

Kind = Literal["pool", "queue", "limit", "deployment", "automation"]
Action = Literal["add", "change", "remove"]
#: Of an object, what is compared and shown: words by what they are about.
Facts = Mapping[str, str]
Wanted = queues.Wanted | Deployed | Automatic

_PAGE = 200
_MADE = re.compile(MADE.replace(".", r"\.").format(name=r"[a-z0-9-]+", version=r"[0-9a-f]+"))


@dataclass(frozen=True)
class Policies:
    """The policies that Prefect is to agree with."""

    triggers: Sequence[Trigger]
    running: Sequence[Running]
    worker_limit: int = 0
    """Runs that one worker takes, where it is known."""
    choices: forms.Choices | None = None
    """What forms offer; None: what Prefect has stays, as nobody here knows better."""


@dataclass(frozen=True)
class Change:
    """One thing that differs: `before` is what Prefect has, `after` what the policies want."""

    action: Action
    kind: Kind
    name: str
    before: Facts
    after: Facts

    @property
    def differs(self) -> list[str]:
        """Return what differs, by name."""
        names = [*self.before, *(name for name in self.after if name not in self.before)]
        return [name for name in names if self.before.get(name) != self.after.get(name)]


@dataclass(frozen=True)
class Plan:
    """What has to be done, in its order; warnings are of what is allowed and may be a mistake."""

    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _There:
    """What we made, and Prefect has: deployments by FLOW/NAME, automations by name."""

    deployments: Mapping[str, DeploymentResponse]
    automations: Mapping[str, list[Automation]]
    names: Mapping[UUID, str]
    lines: queues.There


def policies_of(settings: Settings) -> Policies:
    """Return the policies; raise BrokenPolicies with every problem of theirs."""
    triggers = triggering.load(settings.policies, faults)
    return Policies(triggers, queues.load(settings.policies), settings.worker_limit)


async def with_choices(policies: Policies, settings: Settings) -> Policies:
    """Return the policies, with what the forms are to offer."""
    return replace(policies, choices=await forms.choices(settings))


async def plan(policies: Policies) -> Plan:
    """Say what `apply` would do; nothing is changed."""
    wanted = _wanted_of(policies)
    async with get_client() as client:
        there = await _there(client, wanted)
        wanted = _with_choices(wanted, policies, there)
    return Plan(tuple(_changes(wanted, there)), tuple(warnings_of(policies, there.lines)))


async def apply(policies: Policies) -> Plan:
    """Make Prefect agree, and return what was done; a second time nothing is.

    New and changed things first, then what is no longer wanted: wherever it is stopped, each thing
    is as it was or as it shall be, and the next `apply` does the rest.
    """
    wanted = _wanted_of(policies)
    async with get_client() as client:
        there = await _there(client, wanted)
        wanted = _with_choices(wanted, policies, there)
        by_key = {_key(one): one for one in wanted}
        changes = list(_changes(wanted, there))
        for change in changes:
            one = by_key.get((change.kind, change.name))
            if change.action == "remove" or one is None:
                await _remove(client, there, change)
            else:
                await _make(client, one, there)
        if any(change.kind == "queue" for change in changes):
            await queues.settle(client, _lines(wanted))
    return Plan(tuple(changes), tuple(warnings_of(policies, there.lines)))


def _wanted_of(policies: Policies) -> list[Wanted]:
    """Return all that the policies want, each thing after those that it needs."""
    places = queues.places_of(policies.running)
    return [
        *queues.wanted_of(policies.running),
        *own_of(places),
        *wanted_of(policies.triggers, places),
    ]


def _with_choices(wanted: Sequence[Wanted], policies: Policies, there: _There) -> list[Wanted]:
    """Return it with what forms offer; where nobody here knows that, with what they offer now."""
    given = policies.choices
    if given is None:
        known = there.deployments.values()
        given = forms.offered([one.parameter_openapi_schema for one in known])
    return [replace(one, choices=given) if isinstance(one, Deployed) else one for one in wanted]


def _lines(wanted: Iterable[Wanted]) -> list[queues.Wanted]:
    return [one for one in wanted if isinstance(one, queues.Wanted)]


def _key(one: Wanted) -> tuple[Kind, str]:
    match one:
        case Deployed():
            return "deployment", one.full_name
        case Automatic():
            return "automation", one.name
        case queues.Queue():
            return "queue", one.full_name
        case queues.Pool():
            return "pool", one.name
        case queues.Limit():
            return "limit", one.name


def warnings_of(policies: Policies, lines: queues.There | None = None) -> Iterator[str]:
    """Yield what is allowed, and may be a mistake."""
    scheduled = {one.run for one in policies.triggers if not one.reacts}
    for flow in KEEPERS:
        if flow not in scheduled:
            yield (
                f"nothing runs {flow} by the clock any more; the trigger that we ship for it is in"
                " policies/triggers"
            )
    if policies.worker_limit:
        yield from queues.warnings_of(policies.running, policies.worker_limit)
    for name in sorted(lines.waiting if lines else ()):
        yield f"runs wait in the queue {name}, which no policy wants: it goes once it is empty"


def _changes(wanted: Sequence[Wanted], there: _There) -> Iterator[Change]:
    keys = set()
    for one in wanted:
        kind, name = _key(one)
        keys.add((kind, name))
        before, after = _before(one, there), _facts_of(one)
        if before != after:
            yield Change("change" if before else "add", kind, name, before, after)
    for kind, name, before in _all(there):
        if (kind, name) not in keys:
            yield Change("remove", kind, name, before, {})


def _all(there: _There) -> Iterator[tuple[Kind, str, Facts]]:
    """Yield what there is of ours; who runs something comes before what is run."""
    for name, automations in sorted(there.automations.items()):
        yield "automation", name, _facts_of_automation(automations[0], there.names)
    for name, deployment in sorted(there.deployments.items()):
        yield "deployment", name, _facts_of_deployment(deployment)
    for name, limit in sorted(there.lines.limits.items()):
        yield "limit", name, queues.facts_of(limit)
    waiting = there.lines.waiting
    for name, queue in sorted(there.lines.queues.items()):
        if name not in waiting:
            yield "queue", name, queues.facts_of(queue)
    for name, pool in sorted(there.lines.pools.items()):
        if not any(one.startswith(f"{name}/") for one in waiting):
            yield "pool", name, queues.facts_of(pool)


def _before(one: Wanted, there: _There) -> Facts:
    """Return the facts of what Prefect has under this name; none where it has nothing."""
    match one:
        case Deployed():
            known = there.deployments.get(one.full_name)
            return _facts_of_deployment(known) if known else {}
        case Automatic():
            same = there.automations.get(one.name, [])
            facts = _facts_of_automation(same[0], there.names) if same else {}
            return {**facts, "copies": str(len(same))} if len(same) > 1 else facts
        case queues.Queue():
            queue = there.lines.queues.get(one.full_name)
            return queues.facts_of(queue) if queue else {}
        case queues.Pool():
            pool = there.lines.pools.get(one.name)
            return queues.facts_of(pool) if pool else {}
        case queues.Limit():
            limit = there.lines.limits.get(one.name)
            return queues.facts_of(limit) if limit else {}


async def _make(client: PrefectClient, one: Wanted, there: _There) -> None:
    match one:
        case Deployed():
            await _deploy(client, one, there.deployments.get(one.full_name))
        case Automatic():
            await _automate(client, one, there.automations.get(one.name, []))
        case _:
            await queues.make(client, one, there.lines)


def _facts_of(one: Wanted) -> Facts:
    if isinstance(one, queues.Wanted):
        return one.facts
    if isinstance(one, Deployed):
        return {
            "description": one.description,
            "runs": one.spec.entrypoint,
            "with": _json(one.parameters),
            "schedule": _said(one.schedule),
            "tags": " ".join(sorted(one.tags)),
            "form": _json(one.form),
            "queue": "/".join(one.place),
        }
    return {
        "description": one.description,
        "when": _json(_plain(one.trigger)),
        "runs": one.runs,
        "with": _json(one.parameters),
        "tags": " ".join(sorted(one.tags)),
    }


def _facts_of_deployment(one: DeploymentResponse) -> Facts:
    return {
        "description": one.description or "",
        "runs": one.entrypoint or "",
        "with": _json(one.parameters),
        "schedule": ", ".join(_said(schedule.schedule) for schedule in one.schedules) or "none",
        "tags": " ".join(sorted(one.tags)),
        "form": _json(one.parameter_openapi_schema or {}),
        "queue": f"{one.work_pool_name}/{one.work_queue_name}",
    }


def _facts_of_automation(one: Automation, names: Mapping[UUID, str]) -> Facts:
    actions = [action for action in one.actions if isinstance(action, RunDeployment)]
    runs = [names.get(action.deployment_id or UUID(int=0), "nothing") for action in actions]
    return {
        "description": one.description,
        "when": _json(_plain(one.trigger)),
        "runs": ", ".join(runs),
        "with": ", ".join(_json(action.parameters or {}) for action in actions),
        "tags": " ".join(sorted(one.tags)),
    }


def _said(schedule: Any) -> str:
    match schedule:
        case CronSchedule():
            return f"cron {schedule.cron} ({schedule.timezone})"
        case IntervalSchedule():
            return f"every {schedule.interval} ({schedule.timezone})"
        case RRuleSchedule():
            return f"rrule {_GIVEN_START.sub('', schedule.rrule)} ({schedule.timezone})"
    return "none"


#: Prefect writes a start before a rule that has none: 2020, or a recent one where it comes often.
_GIVEN_START = re.compile(r"\ADTSTART:(20200101T000000\n|\d{8}T\d{6}\n(?!RRULE:))")


def _plain(trigger: Any) -> dict[str, Any]:
    said: dict[str, Any] = trigger.model_dump(mode="json", exclude={"id"})
    # Prefect keeps these as sets, in no order.
    return {key: sorted(value) if key in _SETS else value for key, value in said.items()}


_SETS = ("expect", "after", "for_each")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


async def _there(client: PrefectClient, wanted: Sequence[Wanted]) -> _There:
    own = {f"{flow}/{flow}" for flow in FLOWS}
    flows: dict[UUID, str] = {}
    deployments: dict[str, DeploymentResponse] = {}
    names: dict[UUID, str] = {}
    for one in await _all_deployments(client):
        if one.flow_id not in flows:
            flows[one.flow_id] = (await client.read_flow(one.flow_id)).name
        names[one.id] = f"{flows[one.flow_id]}/{one.name}"
        if names[one.id] in own or _is_ours(one.description, one.tags):
            deployments[names[one.id]] = one
    automations: dict[str, list[Automation]] = {}
    for automation in await _all_automations(client):
        if _is_ours(automation.description, automation.tags):
            automations.setdefault(automation.name, []).append(automation)
    lines = await queues.there(client, _lines(wanted))
    return _There(deployments, automations, names, lines)


def _is_ours(description: str | None, tags: Iterable[str]) -> bool:
    last = (description or "").strip().rpartition("\n")[2]
    if last == MADE_OWN:
        return True
    return bool(_MADE.fullmatch(last)) and any(tag.startswith("trigger:") for tag in tags)


async def _all_deployments(client: PrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while page := await client.read_deployments(limit=_PAGE, offset=len(found)):
        found += page
    return found


async def _all_automations(client: PrefectClient) -> list[Automation]:
    found: list[Automation] = []
    while True:
        body = {"limit": _PAGE, "offset": len(found)}
        answer = await client.request("POST", "/automations/filter", json=body)
        page = Automation.model_validate_list(answer.json())
        found += page
        if len(page) < _PAGE:
            return found


async def _deploy(client: PrefectClient, one: Deployed, known: DeploymentResponse | None) -> None:
    """Make or change a deployment in one call; what an operator paused stays paused."""
    active = all(schedule.active for schedule in known.schedules) if known else True
    schedules = (
        [DeploymentScheduleCreate(schedule=one.schedule, active=active)] if one.schedule else []
    )
    await client.create_deployment(
        flow_id=await client.create_flow(one.spec.flow),
        name=one.name,
        schedules=schedules,
        parameters=dict(one.parameters),
        work_pool_name=one.place[0],
        work_queue_name=one.place[1],
        tags=list(one.tags),
        description=one.description,
        entrypoint=one.spec.entrypoint,
        path=None,
        paused=known.paused if known else None,
        enforce_parameter_schema=True,
        parameter_openapi_schema=one.form,
    )


async def _automate(client: PrefectClient, one: Automatic, known: Sequence[Automation]) -> None:
    """Make an automation, or change the one there is; a second of its name goes."""
    deployment = await client.read_deployment_by_name(one.runs)
    action = RunDeployment(deployment_id=deployment.id, parameters=dict(one.parameters))
    core = AutomationCore(
        name=one.name,
        description=one.description,
        tags=list(one.tags),
        enabled=known[0].enabled if known else True,
        trigger=one.trigger,
        actions=[action],
    )
    if not known:
        await client.create_automation(core)
        return
    await client.update_automation(known[0].id, core)
    for copy in known[1:]:
        await client.delete_automation(copy.id)


async def _remove(client: PrefectClient, there: _There, change: Change) -> None:
    if change.kind in ("queue", "pool", "limit"):
        await queues.remove(client, change.kind, change.name)
        return
    if change.kind == "automation":
        for automation in there.automations[change.name]:
            await client.delete_automation(automation.id)
        return
    try:
        await client.delete_deployment(there.deployments[change.name].id)
    except ObjectNotFound:
        return  # Somebody was faster.


async def _up() -> None:
    settings = Settings()
    policies = await with_choices(policies_of(settings), settings)
    for warning in (await apply(policies)).warnings:
        print(f"warning: {warning}", file=sys.stderr)


def main() -> int:
    """Make Prefect know pool, flows and triggers, for `clickpost up`; say the reason where not."""
    try:
        asyncio.run(_up())
    except BrokenPolicies as error:
        count = len(error.problems)
        more = f" (and {count - 1} more: clickpost policy check)" if count > 1 else ""
        print(error, f"{error.problems[0]}{more}", sep="\n", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
