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

from clickpost.triggers import QuietHours, Skip
from tasks import triggers
from tasks.triggers import Asked


class Quiet(BaseModel):
    """Hours in which nothing is started."""

    model_config = ConfigDict(extra="forbid")

    begin: Annotated[str, Field(description="First minute, HH:MM.", pattern=r"^\d\d:\d\d$")]
    end: Annotated[str, Field(description="First minute after, HH:MM.", pattern=r"^\d\d:\d\d$")]
    zone: str = Field(description="IANA zone whose wall clock is meant.")
    waits: bool = Field(description="True: it runs when they end; false: it does not run.")


class Rule(BaseModel):
    """What `clickpost policy apply` made of a trigger; change its file, not this."""

    model_config = ConfigDict(extra="forbid")

    trigger: str = Field(description="The trigger's name.")
    deployment: str = Field(description="What it starts, as FLOW/NAME.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="With these ids.")
    quiet: Quiet | None = Field(None, description="Hours in which nothing is started.")
    at_most: int | None = Field(None, description="So many runs within any hour.")


class Happened(BaseModel):
    """The event that fired the trigger."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="The event's id: the same event starts one run.")
    resources: str = Field(description="What it is about: names of resources, with spaces between.")


@flow(name="fire", flow_run_name="fire {rule.trigger}", validate_parameters=True)
async def fire(rule: Rule, event: Happened | None = None) -> PrefectState[Any]:
    """Start what a trigger asks for, unless its quiet hours or its `at_most` are against it.

    The same event starts one run, however often it comes. The run carries the trigger's name and
    the version of its policy as tags.
    """
    key = f"{rule.trigger} {event.id if event else flow_run.id}"
    resources = event.resources.split() if event else []
    done = await triggers.start(_asked(rule), key, resources)
    if isinstance(done, Skip):
        return Completed(name="Skipped", message=f"not started: {done.reason}")
    return Completed(message=f"started run {done.run_id} for {done.at:%Y-%m-%d %H:%M:%S} UTC")


def _asked(rule: Rule) -> Asked:
    quiet = _hours(rule.quiet) if rule.quiet else None
    versions = [tag.removeprefix("policy:") for tag in flow_run.tags if tag.startswith("policy:")]
    version = versions[0] if versions else ""
    return Asked(rule.trigger, rule.deployment, rule.parameters, quiet, rule.at_most, version)


def _hours(quiet: Quiet) -> QuietHours:
    begin, end = time.fromisoformat(quiet.begin), time.fromisoformat(quiet.end)
    return QuietHours(begin, end, ZoneInfo(quiet.zone), quiet.waits)


@flow(name="alert")
async def alert() -> PrefectState[Any]:
    """Tell people, through the channels of `clickpost notify`, that a trigger wants attention."""
    named = [tag.removeprefix("trigger:") for tag in flow_run.tags if tag.startswith("trigger:")]
    name = named[0] if named else "by-hand"
    told = await triggers.alert(name, str(flow_run.id))
    return Completed(message=f"{name} {'is told' if told else 'was told before'}")
