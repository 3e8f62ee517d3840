"""Makes Prefect agree with the trigger policies: what they want, what is there, the difference.

What was made here is known by its tag and the last line of its description; nothing else is
touched. There is no state beside Prefect's own, so an `apply` that was killed is simply run again.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from clickpost.policy.triggers import Trigger
from clickpost.settings import Settings
from deployments import registry
from deployments.registry import POOL
from deployments.triggers import KEEPERS, MADE, Automatic, Deployed, Wanted, faults, wanted_of

Action = Literal["add", "change", "remove"]
#: Of an object, what is compared and shown: words by what they are about.
Facts = Mapping[str, str]

_PAGE = 200
_MADE = re.compile(MADE.replace(".", r"\.").format(name=r"[a-z0-9-]+", version=r"[0-9a-f]+"))


@dataclass(frozen=True)
class Change:
    """One thing that differs: `before` is what Prefect has, `after` what the policies want."""

    action: Action
    kind: Literal["deployment", "automation"]
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


def triggers_of(settings: Settings) -> list[Trigger]:
    """Return the triggers; raise BrokenPolicies with every problem of theirs."""
    return triggering.load(settings.policies, faults)


async def plan(triggers: Sequence[Trigger]) -> Plan:
    """Say what `apply` would do; nothing is changed."""
    async with get_client() as client:
        changes = _changes(wanted_of(triggers), await _there(client))
    return Plan(tuple(changes), tuple(warnings_of(triggers)))


async def apply(triggers: Sequence[Trigger]) -> Plan:
    """Make Prefect agree, and return what was done; a second time nothing is.

    New and changed things first, then what is no longer wanted: wherever it is stopped, each thing
    is as it was or as it shall be, and the next `apply` does the rest.
    """
    wanted = {_key(one): one for one in wanted_of(triggers)}
    async with get_client() as client:
        there = await _there(client)
        changes = list(_changes(wanted.values(), there))
        for change in changes:
            one = wanted.get((change.kind, change.name))
            if change.action == "remove" or one is None:
                await _remove(client, there, change)
            elif isinstance(one, Deployed):
                await _deploy(client, one, there.deployments.get(one.full_name))
            else:
                await _automate(client, one, there.automations.get(one.name, []))
    return Plan(tuple(changes), tuple(warnings_of(triggers)))


def _key(one: Wanted) -> tuple[str, str]:
    if isinstance(one, Deployed):
        return "deployment", one.full_name
    return "automation", one.name


def warnings_of(triggers: Sequence[Trigger]) -> Iterable[str]:
    """Yield what is allowed, and may be a mistake."""
    scheduled = {one.run for one in triggers if not one.reacts}
    for flow in KEEPERS:
        if flow not in scheduled:
            yield (
                f"nothing runs {flow} by the clock any more; the trigger that we ship for it is in"
                " policies/triggers"
            )


def _changes(wanted: Iterable[Wanted], there: _There) -> Iterable[Change]:
    keys = set()
    for one in wanted:
        keys.add(_key(one))
        after = _facts_of(one)
        if isinstance(one, Deployed):
            found = there.deployments.get(one.full_name)
            before = _facts_of_deployment(found) if found else {}
            name, kind = one.full_name, "deployment"
        else:
            same = there.automations.get(one.name, [])
            before = _facts_of_automation(same[0], there.names) if same else {}
            if len(same) > 1:
                before = {**before, "copies": str(len(same))}
            name, kind = one.name, "automation"
        if before != after:
            action: Action = "change" if before else "add"
            yield Change(action, kind, name, before, after)  # type: ignore[arg-type]
    # Who runs something goes before what is run.
    for name, automations in sorted(there.automations.items()):
        if ("automation", name) not in keys:
            before = _facts_of_automation(automations[0], there.names)
            yield Change("remove", "automation", name, before, {})
    for name, deployment in sorted(there.deployments.items()):
        if ("deployment", name) not in keys:
            yield Change("remove", "deployment", name, _facts_of_deployment(deployment), {})


def _facts_of(one: Wanted) -> Facts:
    if isinstance(one, Deployed):
        return {
            "description": one.description,
            "runs": one.spec.entrypoint,
            "with": _json(one.parameters),
            "schedule": _said(one.schedule),
            "tags": " ".join(sorted(one.tags)),
            "form": _json(one.form),
            "pool": POOL,
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
        "pool": one.work_pool_name or "",
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
            return f"rrule {schedule.rrule} ({schedule.timezone})"
    return "none"


def _plain(trigger: Any) -> dict[str, Any]:
    said: dict[str, Any] = trigger.model_dump(mode="json", exclude={"id"})
    # Prefect keeps these as sets, in no order.
    return {key: sorted(value) if key in _SETS else value for key, value in said.items()}


_SETS = ("expect", "after", "for_each")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


async def _there(client: PrefectClient) -> _There:
    flows: dict[UUID, str] = {}
    deployments: dict[str, DeploymentResponse] = {}
    names: dict[UUID, str] = {}
    for one in await _all_deployments(client):
        if one.flow_id not in flows:
            flows[one.flow_id] = (await client.read_flow(one.flow_id)).name
        names[one.id] = f"{flows[one.flow_id]}/{one.name}"
        if _is_ours(one.description, one.tags):
            deployments[names[one.id]] = one
    automations: dict[str, list[Automation]] = {}
    for automation in await _all_automations(client):
        if _is_ours(automation.description, automation.tags):
            automations.setdefault(automation.name, []).append(automation)
    return _There(deployments, automations, names)


def _is_ours(description: str | None, tags: Iterable[str]) -> bool:
    last = (description or "").strip().rpartition("\n")[2]
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
        work_pool_name=POOL,
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
    if change.kind == "automation":
        for automation in there.automations[change.name]:
            await client.delete_automation(automation.id)
        return
    try:
        await client.delete_deployment(there.deployments[change.name].id)
    except ObjectNotFound:
        return  # Somebody was faster.


async def _up() -> None:
    triggers = triggers_of(Settings())
    await registry.apply()
    for warning in (await apply(triggers)).warnings:
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
