"""Looks for what arrives where a trigger waits for it: a feed, a folder or a mailbox."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from clickpost.errors import ClickPostError
from flows import _run
from flows._choice import in_order
from tasks import arrivals
from tasks.arrivals import Took


class Inlet(BaseModel):
    """Which trigger looks; what it looks for stands in its file."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    trigger: str = Field(title="Trigger", description="The trigger's name, that of its file.")
    version: str = Field(
        title="Version",
        description="Of its file, as the latest `clickpost policy apply` read it.",
        pattern="^[0-9a-f]{12}$",
    )


@flow(name="take-arrivals", flow_run_name="take-arrivals {inlet.trigger}", validate_parameters=True)
async def take_arrivals(inlet: Inlet) -> PrefectState[Any]:
    """Look for new entries, files or mails, and take each once.

    What is taken becomes a post, starts the trigger's run, or is an event for other triggers, as
    the trigger's file says. It fails where the place cannot be read, or something was refused.
    """
    try:
        took = await arrivals.take(inlet.trigger, inlet.version, str(flow_run.id))
    except ClickPostError as error:
        return Failed(message=f"not looked: {error}")
    await _run.wake()
    return _ended(took)


def _ended(took: Took) -> PrefectState[Any]:
    if took.why_not:
        return Completed(name="Skipped", message=f"not looked: {took.why_not}")
    parts = [f"{took.new} new", f"{took.taken} taken", f"{took.posts} posts"]
    if took.waiting:
        parts.append(f"{took.waiting} waiting for their time")
    message = ", ".join(parts)
    if took.refused:
        return Failed(message=f"{message}; refused: {', '.join(took.refused)}")
    return Completed(message=message)
