"""Plans what is due later: its moment's run, its series' next posts, its preparation kept fresh."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clickpost.delivery import State
from clickpost.errors import ClickPostError, Conflict
from clickpost.logs import logger
from tasks import _runs, _wiring, preparing, repeating
from tasks.repeating import HEAD_START, Made

log = logger("planning")

#: What is due within this is prepared again where its uploads would not live until then.
SOON = timedelta(minutes=10)
#: A run that begins within this finds out itself that nothing is due.
ABOUT_TO_BEGIN = timedelta(minutes=1)
#: A run younger than this may not be in the rows of its posts yet.
YOUNG = timedelta(minutes=1)
#: A timer may end a trifle early; a send that is not due yet would cost another round.
_MARGIN = 0.002


async def until(moment: datetime) -> None:
    """Wait for the moment, to the thousandth of a second."""
    wait = (moment - datetime.now(UTC)).total_seconds()
    if wait > 0:
        await asyncio.sleep(wait + _MARGIN)


async def extended() -> int:
    """Make and schedule the next posts of all series; return how many got their run."""
    house = await _wiring.house()
    now, count = datetime.now(UTC), 0
    for row in await house.store.all_series(active=True):
        try:
            for made in await repeating.extended(house.store, row, now):
                await scheduled(made)
                log.info("made", series_id=row.id, post_id=made.post_id)
                count += 1
        except ClickPostError as error:  # One series' trouble stops no other.
            log.warning("not extended", series_id=row.id, error=type(error).__name__)
    return count


async def scheduled(made: Made) -> None:
    """Let the post be sent by its moment's run, which it shares with whatever is due then."""
    await _sent_at(made.due_at, made.post_id)
    await _runs.begin(
        "prepare",
        {"post": {"post_id": made.post_id}},
        key=f"prepare {made.post_id}",
        name=f"prepare {made.post_id}",
        tags=[f"post:{made.post_id}"],
    )


async def _sent_at(moment: datetime, *post_ids: str) -> None:
    """Let the run of that moment send the posts; it is made where there is none."""
    house = await _wiring.house()
    at = moment.isoformat()
    run_id = await _runs.begin(
        "publish-due",
        {"moment": {"at": at}},
        key=f"due {at}",
        name=f"publish-due {at}",
        at=moment - HEAD_START,
    )
    for post_id in post_ids:
        await house.store.set_flow_run(post_id, run_id, moment)


async def idle() -> int:
    """End the upcoming runs of moments at which nothing is due any more; return how many.

    What was put off, edited or cancelled leaves such a run behind. A young one is left alone: the
    post that it was made for may just be written down.
    """
    house = await _wiring.house()
    now = datetime.now(UTC)
    runs = await _runs.upcoming("publish-due", now + ABOUT_TO_BEGIN)
    settled = {run.id: _moment_of(run) for run in runs if run.created_at < now - YOUNG}
    waiting = await house.store.waiting_at(sorted(set(settled.values())))
    empty = {run_id: moment for run_id, moment in settled.items() if moment not in waiting}
    for run_id in empty:
        await _runs.complete(run_id, "nothing is due at its moment any more")
    # Who planned a post for one of these moments just now was given the run that is no more.
    again = await house.store.waiting_at(sorted(set(empty.values())))
    for moment, post_ids in again.items():
        await _sent_at(moment, *post_ids)
    return len(empty)


def _moment_of(run: _runs.Upcoming) -> datetime:
    return datetime.fromisoformat(run.parameters["moment"]["at"]).astimezone(UTC)


@dataclass(frozen=True)
class Stale:
    """A delivery that is due soon and would not be ready."""

    delivery_id: str
    post_id: str
    connection: str
    planned: bool


async def stale() -> list[Stale]:
    """Return what is due soon and not prepared, or would have to be prepared again at its moment.

    What was uploaded too early is forgotten, so that it is uploaded anew.
    """
    house = await _wiring.house()
    now, found = datetime.now(UTC), []
    for delivery, connection in await house.store.due_between(now, now + SOON):
        assert delivery.due_at is not None
        policy = house.policy(connection)
        if preparing.fresh(delivery, policy, delivery.due_at):
            continue
        planned = delivery.state is State.PLANNED
        if not planned and delivery.prepared:
            with suppress(Conflict):  # It was sent or changed in this moment.
                await house.store.save_prepared(delivery.id, [], content=delivery.content_hash)
        found.append(Stale(delivery.id, delivery.post_id, connection.ref, planned))
    return found
