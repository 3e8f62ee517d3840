"""What flows share: tasks named by step, post and connection, and an end state that is true."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import anyio
from prefect import Flow, task
from prefect import State as PrefectState
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from clickpost import publishing
from clickpost.delivery import State
from clickpost.logs import logger
from tasks import (
    approving,
    asking,
    calling_off,
    limiting,
    preparing,
    reconciling,
    reporting,
    sending,
    taking_down,
    telling,
)
from tasks.sending import Step

log = logger("flows")

T = TypeVar("T")

#: How long one run follows a platform's processing before the sweep takes over.
PATIENCE = 90.0


async def prepare(post_id: str) -> None:
    """Choose media, word the text and make the renditions for all targets of the post.

    Words alone are no task of their own: that would cost several times the work.
    """
    if await preparing.has_media(post_id):
        await render(post_id)
    else:
        await preparing.compose(post_id)


@task(name="prepare", task_run_name="prepare {post_id}", retries=2, retry_delay_seconds=2)
async def render(post_id: str) -> None:
    """Prepare a post whose renditions take their time, once few others do."""
    async with limiting.encoding():
        await preparing.compose(post_id, reporting.progress(post_id))


@task(name="upload", task_run_name="upload {post_id} {connection}")
async def upload(delivery_id: str, post_id: str, connection: str) -> Step:
    """Upload and reserve what one delivery needs; nobody sees anything yet."""
    return await sending.ready(delivery_id)


@task(name="send", task_run_name="send {post_id} {connection}", retries=0)
async def send(delivery_id: str, post_id: str, connection: str) -> Step:
    """Make one post visible, at most once: intent before, verdict after."""
    return await sending.send(delivery_id, run_id=str(flow_run.id or "") or None)


@task(name="follow", task_run_name="follow {post_id} {connection}")
async def follow(
    delivery_id: str, post_id: str, connection: str, patience: float = PATIENCE
) -> Step:
    """Ask the platform how far its processing has come, for so many seconds."""
    return await sending.follow(delivery_id, patience)


@task(name="look", task_run_name="look {post_id} {connection}")
async def look(delivery_id: str, post_id: str, connection: str) -> Step:
    """Settle an unknown outcome by looking at the account."""
    return await reconciling.reconcile(delivery_id)


@task(name="take-down", task_run_name="take-down {post_id} {connection}")
async def take_down(delivery_id: str, post_id: str, connection: str) -> Step:
    """Delete one delivery's post at its platform."""
    return await taking_down.take_down(delivery_id)


@task(name="call-off", task_run_name="call-off {post_id} {connection}")
async def call_off(delivery_id: str, post_id: str, connection: str) -> Step:
    """Cancel one delivery, because the run that was to send it is cancelled."""
    return Step(await calling_off.stop(delivery_id) or State.CANCELLED, parked=True)


async def report(post_id: str) -> None:
    """Write the post's report: where it is, and who must act next; ask for what needs approval.

    No task of its own, for that costs as much as the send; a report that cannot be written
    changes nothing of what was sent.
    """
    try:
        await reporting.report(post_id)
        await approving.ask(post_id)
    except Exception as error:
        log.warning("no report", post_id=post_id, error=type(error).__name__)


async def wake() -> None:
    """Emit and tell what just happened; what cannot be told now, `tell` tells later."""
    try:
        await telling.wake()
    except Exception as error:
        log.warning("not told now", error=type(error).__name__)


async def when_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: PrefectState[Any]) -> None:
    """Call off what a cancelled run was to send; Prefect calls this while the run is cancelled.

    What was just being sent has ended or is of unknown outcome by now; both stay.
    """
    run_id = str(flow_run.id)
    for post_id in await calling_off.by_runs([run_id]):
        await reporting.report(post_id)
    await asking.look_for_sends_of(run_id)


async def deliver(
    row: reporting.Row, longest: timedelta = publishing.LONGEST_WAIT, follows: float = PATIENCE
) -> Step:
    """Take one delivery as far as it goes now: upload, send, follow, look, send again.

    Waits that are longer than `longest` are left to the sweep, and so is a processing that takes
    more than `follows` seconds.
    """
    step = Step(row.state)
    while not step.ended:
        step = await _next(row, step, follows)
        if step.ended or step.parked or step.wait > longest.total_seconds():
            break
        await asyncio.sleep(step.wait)
    if step.state in (State.UNKNOWN, State.HELD, State.FAILED) and not step.paused:
        await _asked(row.delivery_id)
    return step


async def _asked(delivery_id: str) -> None:
    """Ask an operator at once where only a person can go on; `reconcile-deliveries` does so later.

    A question that cannot be put now changes nothing of what was sent.
    """
    try:
        await asking.ask(delivery_id)
    except Exception as error:
        log.warning("not asked", delivery_id=delivery_id, error=type(error).__name__)


async def _next(row: reporting.Row, step: Step, follows: float) -> Step:
    named = (row.delivery_id, row.post_id, row.connection)
    match step.state:
        case State.PREPARING | State.READY if row.called_off:
            return await call_off(*named)
        case State.PREPARING if row.has_media:
            return await upload(*named)
        case State.PREPARING | State.READY:
            return await send(*named)
        case State.PROCESSING:
            return await follow(*named, patience=follows)
        case State.UNKNOWN:
            return await look(*named)
        case _:
            return Step(step.state, parked=True)


async def moved_on(delivery_ids: Sequence[str]) -> list[Step | BaseException]:
    """Take these deliveries as far as they go now, those of cancelled runs excepted."""
    wanted = set(delivery_ids)
    found = await calling_off.judged(await reporting.stuck_rows(delivery_ids))
    posts = sorted({row.post_id for row in found if row.delivery_id in wanted})
    await side_by_side((prepare(post_id) for post_id in posts), 8)
    found = await calling_off.judged(await reporting.stuck_rows(delivery_ids))
    rows = [row for row in found if row.delivery_id in wanted]
    steps = await side_by_side((deliver(row) for row in rows), 40)
    for post_id in sorted({row.post_id for row in rows}):
        await report(post_id)
    return steps


async def side_by_side(
    works: Iterable[Coroutine[Any, Any, T]], at_once: int | None = None
) -> list[T | BaseException]:
    """Do all of it, or so much, at once, each to its own end; return what came of each, in order.

    Not `asyncio.gather`: it would hand a cancel on again and again, even into the shield under
    which a send writes down what came of it.
    """
    done: dict[int, T | BaseException] = {}
    gate = asyncio.Semaphore(at_once) if at_once else nullcontext()

    async def one(number: int, work: Coroutine[Any, Any, T]) -> None:
        try:
            async with gate:
                done[number] = await work
        except Exception as error:
            done[number] = error

    async with anyio.create_task_group() as group:
        for number, work in enumerate(works):
            group.start_soon(one, number, work)
    return [done[number] for number in sorted(done)]


def ended(steps: Sequence[Step | BaseException], what: str = "") -> PrefectState[Any]:
    """Return the run's end state: failed where somebody must act, and a message that counts."""
    broken = [step for step in steps if isinstance(step, BaseException)]
    counts = sending.counted([step for step in steps if isinstance(step, Step)])
    message = what + publishing.said(counts)
    if broken:
        kinds = ", ".join(sorted({type(error).__name__ for error in broken}))
        message += f"; {len(broken)} stopped by an error of ours ({kinds})"
    bad = any(
        step.state in (State.FAILED, State.HELD, State.MISSED, State.UNKNOWN) and not step.paused
        for step in steps
        if isinstance(step, Step)
    )
    return _told(message, failed=bool(broken or bad))


def taken(steps: Sequence[Step | BaseException]) -> PrefectState[Any]:
    """Return a takedown's end state: failed where something stays visible."""
    done = [step for step in steps if isinstance(step, Step)]
    removed = sum(step.state in (State.REMOVED, State.CANCELLED) for step in done)
    message = f"{removed} of {len(steps)} taken down"
    return _told(message, failed=removed < len(steps))


def swept(
    steps: Sequence[Step | BaseException], lost: int, called_off: int = 0
) -> PrefectState[Any]:
    """Return a sweep's end state: it fails only for an error of ours."""
    if not steps and not lost and not called_off:
        return Completed(message="nothing was stuck")
    counts = sending.counted([step for step in steps if isinstance(step, Step)])
    message = f"moved on {len(steps)}: {publishing.said(counts)}; {lost} had lost their worker"
    if called_off:
        posts = "1 post" if called_off == 1 else f"{called_off} posts"
        message += f"; {posts} called off, because of a cancelled run"
    broken = any(isinstance(step, BaseException) for step in steps)
    return _told(message, failed=broken)


def reconciled(steps: Sequence[Step | BaseException], questions: int) -> PrefectState[Any]:
    """Return a reconciling run's end state: it fails only for an error of ours."""
    counts = sending.counted([step for step in steps if isinstance(step, Step)])
    message = f"looked for {len(steps)}: {publishing.said(counts)}"
    if questions:
        waits = "1 question waits" if questions == 1 else f"{questions} questions wait"
        message += f"; {waits} for an operator"
    return _told(message, failed=any(isinstance(step, BaseException) for step in steps))


def _told(message: str, *, failed: bool) -> PrefectState[Any]:
    """Return the end state, its message in the run's log too, where people look first."""
    with suppress(MissingContextError):  # Outside a run there is no log to tell.
        if failed:
            get_run_logger().error("%s; the report says why, and who acts next", message)
        else:
            get_run_logger().info(message)
    return Failed(message=message) if failed else Completed(message=message)
