"""What triggers start: `fire` asks whether its run may start now, `alert` tells people."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from prefect import State as PrefectState
from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from clickpost.triggers import QuietHours
from flows import _naming
from flows._choice import in_order
from tasks import triggers
from tasks.triggers import Asked, Came, Cause

_TIME = r"^\d\d:\d\d$"


class Quiet(BaseModel):
    """Hours in which nothing is started."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    begin: Annotated[str, Field(description="Their first minute, HH:MM.", pattern=_TIME)]
    end: Annotated[str, Field(description="The first minute after them, HH:MM.", pattern=_TIME)]
    zone: str = Field(description="IANA zone whose wall clock is meant, e.g. `Europe/Berlin`.")
    waits: bool = Field(
        description="On: what falls into them runs when they end; off: it does not run."
    )


class Rule(BaseModel):
    """What `clickpost policy apply` made of a trigger; change its file, not this."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    trigger: str = Field(description="The trigger's name, that of its file.")
    deployment: str = Field(description="The deployment that it starts, as FLOW/NAME.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="What that run is given: ids, as JSON."
    )
    quiet: Quiet | None = Field(None, description="Hours in which nothing is started; may be none.")
    at_most: int | None = Field(
        None, description="So many runs within any hour, and no more; empty for no limit."
    )


class Happened(BaseModel):
    """The event that fired the trigger."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    id: str = Field(description="The event's id: the same event starts one run.")
    resources: str = Field(description="What it is about: names of resources, with spaces between.")


@flow(name="fire", flow_run_name="fire {rule.trigger}", validate_parameters=True)
async def fire(rule: Rule, event: Happened | None = None) -> PrefectState[Any]:
    """Start what a trigger asks for, unless its quiet hours or its `at_most` are against it.

    The same event starts one run, however often it comes; webhooks that came in the same moment
    are one event, and start a run each. The run carries the trigger's name and the version of its
    policy as tags. A trigger that is its own cause is not started: `guard.tripped` tells people.
    """
    run_id = str(flow_run.id)
    cause = Cause(run_id, event.id, event.resources.split()) if event else Cause(run_id)
    came = await triggers.start(_asked(rule), cause)
    if not came.started:
        reason = came.skip.reason if came.skip else "it was decided before"
        return Completed(name="Skipped", message=f"not started: {reason}")
    return Completed(message=_said(came))


def _said(came: Came) -> str:
    first = came.started[0]
    said = f"started run {first.run_id} for {first.at:%Y-%m-%d %H:%M:%S} UTC"
    if len(came.started) > 1:
        said = f"started {len(came.started)} runs, the first one for {first.at:%H:%M:%S} UTC"
    return f"{said}; {came.left} not started: {came.skip.reason}" if came.skip else said


def _asked(rule: Rule) -> Asked:
    quiet = _hours(rule.quiet) if rule.quiet else None
    versions = [tag.removeprefix("policy:") for tag in flow_run.tags if tag.startswith("policy:")]
    version = versions[0] if versions else ""
    return Asked(rule.trigger, rule.deployment, rule.parameters, quiet, rule.at_most, version)


def _hours(quiet: Quiet) -> QuietHours:
    begin, end = time.fromisoformat(quiet.begin), time.fromisoformat(quiet.end)
    return QuietHours(begin, end, ZoneInfo(quiet.zone), quiet.waits)


@flow(name="alert", flow_run_name=lambda: _naming.tagged("trigger"))
async def alert() -> PrefectState[Any]:
    """Tell people, through the channels of `clickpost notify`, that a trigger wants attention."""
    named = [tag.removeprefix("trigger:") for tag in flow_run.tags if tag.startswith("trigger:")]
    name = named[0] if named else "by-hand"
    told = await triggers.alert(name, str(flow_run.id))
    return Completed(message=f"{name} {'is told' if told else 'was told before'}")
