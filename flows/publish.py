"""Publishes one post on all its targets: load, prepare, send, record, report."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Literal

from prefect import State as PrefectState
from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import BaseModel, ConfigDict, Field

from clickpost.delivery import State
from clickpost.errors import Conflict, InvalidInput, NotAllowed
from flows import _run
from flows._choice import CODE, in_order
from tasks import approving, calling_off, going_again, reporting, sending, taking_down
from tasks.sending import Step


class PostChoice(BaseModel):
    """Which post a run is about."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=in_order)

    post_id: str = Field(
        title="Post",
        description="The post's id, as `clickpost posts list` prints it; for example"
        " `post_01jd8x3v5t6h2k9m`. Nothing else of the post is needed here.",
        pattern=r"^post_[0-9a-z]+$",
        examples=["post_01jd8x3v5t6h2k9m"],
    )


class PublishChoice(PostChoice):
    """Which post is to go out, and whether that sets going what has ended."""

    also: Literal["nothing", "its drafts", "what failed or was missed"] = Field(
        "nothing",
        title="Also",
        description="What has ended stays as it is, unless you choose it here.",
    )
    code: str = Field(
        "",
        title="Code",
        description=f"Only where people are declared, and something is chosen here. {CODE}",
    )


_ALSO: dict[str, tuple[State, ...]] = {
    "nothing": (),
    "its drafts": (State.DRAFTED,),
    "what failed or was missed": going_again.ENDED,
}


@flow(
    name="publish",
    flow_run_name="publish {post.post_id}",
    validate_parameters=True,
    on_cancellation=[_run.when_cancelled],
)
async def publish(post: PublishChoice) -> PrefectState[Any]:
    """Publish a post now, on every target that is not settled yet.

    A draft, and what failed, goes out only where the form says so. Targets go side by side and
    never stop one another. Running it again sends nothing twice: what is live stays live, what is
    unknown is looked for first. Cancelling it calls off what is not sent yet.
    """
    await approving.require(post.post_id, flow_run.tags)
    run_id = str(flow_run.id)
    await reporting.tag(post.post_id)
    try:
        await going_again.again(post.post_id, _ALSO[post.also], post.code, run_id)
    except (NotAllowed, InvalidInput, Conflict) as error:
        return Failed(message=f"nothing was sent: {error}")
    await calling_off.responsible(post.post_id, run_id)
    await sending.lost(post.post_id)
    if any(row.state == "planned" for row in await reporting.rows(post.post_id)):
        await _run.prepare(post.post_id)
    rows = await reporting.rows(post.post_id)
    steps = await _run.side_by_side(_run.deliver(row) for row in rows)
    await _run.report(post.post_id)
    await _run.wake()
    return _run.ended(steps)


@flow(name="prepare", flow_run_name="prepare {post.post_id}", validate_parameters=True)
async def prepare(post: PostChoice) -> PrefectState[Any]:
    """Prepare a scheduled post ahead of its time: renditions, wording, uploads.

    Nothing becomes visible; at the due moment only the send is left.
    """
    await sending.lost(post.post_id)
    await _run.prepare(post.post_id)
    rows = [row for row in await reporting.rows(post.post_id) if row.may_upload]
    steps = await _run.side_by_side(_ahead(row) for row in rows)
    await _run.report(post.post_id)
    settled = [Step(row.state) for row in await reporting.rows(post.post_id)]
    broken = [step for step in steps if isinstance(step, BaseException)]
    return _run.ended([*settled, *broken], "prepared: ")


async def _ahead(row: reporting.Row) -> None:
    """Upload one delivery and wait until the platform is done with it."""
    for _ in range(60):
        step = await _run.upload(row.delivery_id, row.post_id, row.connection)
        if step.state != "preparing" or not step.wait:
            return
        await asyncio.sleep(step.wait)


class TakedownChoice(PostChoice):
    """Which post is to go, and who says so."""

    code: str = Field("", title="Code", description=f"Only where people are declared. {CODE}")


@flow(name="takedown", flow_run_name="takedown {post.post_id}", validate_parameters=True)
async def takedown(post: TakedownChoice) -> PrefectState[Any]:
    """Delete a post on every platform that can, and say where it cannot be done.

    A part of unknown outcome is looked for first. What meets trouble stays wanted, with a reason:
    the sweep tries it again, also where this run is gone.
    """
    await reporting.tag(post.post_id)
    try:
        rows = await taking_down.ask(post.post_id, post.code, str(flow_run.id))
    except NotAllowed as error:
        return Failed(message=f"nothing was touched: {error}")
    await sending.lost(post.post_id)
    steps = await _run.side_by_side(_taken(row) for row in rows)
    await _run.report(post.post_id)
    await _run.wake()
    return _run.taken(steps)


async def _taken(row: reporting.Row) -> Step:
    until = monotonic() + _run.PATIENCE
    while True:
        step = await _run.take_down(row.delivery_id, row.post_id, row.connection)
        if step.parked or not step.wait or monotonic() + step.wait > until:
            return step
        await asyncio.sleep(step.wait)
