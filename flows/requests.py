"""People's requests about their data: each a step further, and all of them watched."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from clickpost.errors import Transient, Unavailable, UnexpectedResponse
from clickpost.requests import Step
from flows import _naming
from flows._choice import in_order
from tasks import mailbox, requests, telling


class RequestChoice(BaseModel):
    """Which request."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    request_id: str = Field(
        title="Request",
        pattern=r"^req_[0-9a-z]+$",
        description="Its id, `req_…`, as `clickpost privacy requests` shows it.",
    )


@flow(
    name="handle-request",
    flow_run_name="handle-request {request.request_id}",
    validate_parameters=True,
    # A mail server that is away: nothing is lost, and no letter counts that it did not take.
    retries=2,
    retry_delay_seconds=20,
)
async def handle_request(request: RequestChoice) -> PrefectState[Any]:
    """Take a person's request as far as it goes by itself, and end where it waits.

    It asks the address whether it was them; once that is confirmed it starts the flow of the
    request's kind, and once that is done tells the person. What waits for an operator is told
    them. Running it again does nothing twice.
    """
    done = await requests.handle(request.request_id)
    if done.step is Step.ASK:
        await telling.wake()
    said = {
        Step.CARRY_OUT: f"started {done.why}",
        Step.ASK: f"waits for an operator: {done.why}",
    }
    return Completed(message=said.get(done.step, f"is {done.state}"))


@flow(name="check-requests", flow_run_name=_naming.by_minute)
async def check_requests() -> PrefectState[Any]:
    """Take what came by mail, move on what waits for nobody, alarm before one is overdue.

    The report is the artifact `requests`: what is open, and when it is due.
    """
    trouble = ""
    try:
        taken = await mailbox.read()
    except (Transient, Unavailable, UnexpectedResponse) as error:
        # What is known goes on all the same.
        taken, trouble = mailbox.Taken(), str(error)
    swept = await requests.sweep()
    await requests.report(swept)
    await telling.wake()
    said = f"{len(swept.rows)} open, {swept.soon} due soon, {swept.overdue} overdue"
    said += f"; {swept.started} moved on; by mail {taken.received} new, {taken.confirmed} confirmed"
    return Failed(message=f"{trouble}; {said}") if trouble else Completed(message=said)
