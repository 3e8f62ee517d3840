"""Stops sending to a platform, and goes on: for an operator who sees trouble there."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from clickpost.errors import NotAllowed
from flows import _run
from flows._choice import CODE, in_order
from tasks import pausing


class PlatformChoice(BaseModel):
    """Which platform a run is about."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    platform: str = Field(
        title="Platform",
        description="One that accounts are connected to.",
        pattern=r"^[a-z][a-z0-9_]*$",
        json_schema_extra={"x-choices": "platforms"},
    )
    code: str = Field("", title="Code", description=f"Only where people are declared. {CODE}")


@flow(name="pause-platform", flow_run_name="pause {platform.platform}", validate_parameters=True)
async def pause_platform(platform: PlatformChoice) -> PrefectState[Any]:
    """Send nothing more to a platform, until `resume-platform`.

    What is just being sent ends as it ends. What falls due is held, and nothing of it is lost.
    Takedowns, looks and questions about what was sent go on.
    """
    try:
        made = await pausing.pause(platform.platform, platform.code, str(flow_run.id))
    except NotAllowed as error:
        return Failed(message=f"nothing was paused: {error}")
    if made:
        return Completed(message=f"{platform.platform} is paused: what falls due is held")
    return Completed(message=f"{platform.platform} was paused already")


@flow(name="resume-platform", flow_run_name="resume {platform.platform}", validate_parameters=True)
async def resume_platform(platform: PlatformChoice) -> PrefectState[Any]:
    """Let a paused platform go on, and send what it held.

    What became late meanwhile is published, skipped or asked about, as its post's `late` says.
    """
    try:
        released = await pausing.resume(platform.platform, platform.code, str(flow_run.id))
    except NotAllowed as error:
        return Failed(message=f"nothing was resumed: {error}")
    if released is None:
        return Completed(message=f"{platform.platform} was not paused")
    steps = await _run.moved_on(released)
    await _run.wake()
    return _run.ended(steps, f"{platform.platform} goes on, {len(released)} released: ")
