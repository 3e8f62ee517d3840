"""Asks whether a post may be published: the run waits in the UI until somebody decides."""

from __future__ import annotations

from typing import Any, Literal

from prefect import State as PrefectState
from prefect import flow
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from clickpost.delivery import State
from clickpost.errors import Conflict, NotAllowed
from flows import _run
from flows._choice import CODE, CODED_FORM, FORM, DeliveryChoice
from tasks import approving, reporting

_NOTE = "For the writer, who reads it with `posts show`. Prefect keeps it: nothing of the content."


class Decision(RunInput):
    """Whether it may be published."""

    model_config = FORM

    decision: Literal["approve", "refuse"] = Field(
        title="Decision", description="Refused, it goes back to its writer."
    )
    # Not `str | None`: the UI would make a switch of it instead of a field to write in.
    signed: str = Field(
        "",
        title="Signed",
        description="Your initials or number, for the ledger. Prefect keeps them too.",
    )
    note: str = Field("", title="Note", description=_NOTE)


class CodedDecision(RunInput):
    """Whether it may be published, where people are declared."""

    model_config = CODED_FORM

    decision: Literal["approve", "refuse"] = Field(
        title="Decision", description="Refused, it goes back to its writer."
    )
    code: str = Field("", title="Code", description=CODE)
    note: str = Field("", title="Note", description=_NOTE)


@flow(name="approve", flow_run_name="approve {delivery.delivery_id}", validate_parameters=True)
async def approve(delivery: DeliveryChoice) -> PrefectState[Any]:
    """Ask whether one delivery may be published, wait for the decision, and act on it.

    Press Resume on the waiting run's page to decide. It holds for exactly this content at this
    time: a change asks anew. `clickpost approve` decides as well; the first decision counts.
    """
    while (put := await approving.put(delivery.delivery_id)) is not None:
        form = CodedDecision if put.form.coded else Decision
        given: Any = await asuspend_flow_run(
            wait_for_input=form.with_initial_data(description=put.words), key=put.key
        )
        signature = getattr(given, "signed", "")
        try:
            code = getattr(given, "code", "")
            by = await approving.signed(put, code, signature, str(flow_run.id))
        except NotAllowed:
            continue  # The form is put anew, and says so.
        return await _decided(put, given, by)
    return Completed(message="nothing to approve: it changed, or was decided")


async def _decided(put: approving.Put, given: Any, by: str) -> PrefectState[Any]:
    approved = given.decision == "approve"
    try:
        await approving.decide(put.asked, approve=approved, by=by, note=given.note)
    except Conflict:
        return Completed(message="not decided: it changed meanwhile, or somebody was faster")
    except NotAllowed as error:  # The next sweep asks anew.
        return Failed(message=f"not decided: {error}")
    if not approved:
        await _run.report(put.asked.post_id)
        return Completed(message="refused")
    return await _gone_on(put.asked.post_id, put.asked.delivery_id)


async def _gone_on(post_id: str, delivery_id: str) -> PrefectState[Any]:
    """Send what was approved if its time has come; else its moment's run does."""
    rows = [row for row in await reporting.rows(post_id) if row.delivery_id == delivery_id]
    if await reporting.is_due(delivery_id):
        steps = await _run.side_by_side(_run.deliver(row) for row in rows)
        await _run.report(post_id)
        return _run.ended(steps, "approved: ")
    await _run.report(post_id)
    return Completed(message=f"approved: {State.READY.value}")
