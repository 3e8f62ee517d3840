"""Makes the next posts of each series ahead of their time, each occurrence exactly once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from clickpost import publishing
from clickpost.errors import Conflict
from clickpost.recurrence import Occurrence, occurrences
from clickpost.store import Store
from clickpost.store.series import post_of, rule_of
from clickpost.store.tables import Series

#: So many of a series' next posts are made ahead: they are scheduled, and can be seen and changed.
AHEAD = 2
#: A moment's run begins so much earlier, makes everything ready and waits for the moment.
HEAD_START = timedelta(seconds=4)
JUST_BEFORE = timedelta(microseconds=1)


@dataclass(frozen=True)
class Made:
    """A post of a series that waits for its scheduled run."""

    post_id: str
    due_at: datetime


def next_of(row: Series, after: datetime) -> Occurrence | None:
    """Return the series' first occurrence after `after`."""
    return next(occurrences(rule_of(row), after), None)


async def extended(store: Store, row: Series, now: datetime) -> list[Made]:
    """Make what is missing of the series' next posts; return those that have no run yet.

    What passed while nothing ran is left out: of the posts that were made before, their `late`
    decides. Two at once make nothing twice, for each occurrence's client key is one post.
    """
    with suppress(Conflict):  # Somebody else makes them, or the series was paused meanwhile.
        await _made(store, row, now)
    posts = await store.posts_of_series(row.id, now)
    return [
        Made(post.id, post.due_at)
        for post in posts
        if post.flow_run_id is None and post.due_at is not None
    ]


async def _made(store: Store, row: Series, now: datetime) -> None:
    while (at := row.next_at) is not None:
        if at < now - publishing.GRACE:
            row = await _caught_up(store, row, now)
            continue
        if len(await store.posts_of_series(row.id, now)) >= AHEAD:
            return
        occurrence = next_of(row, at - JUST_BEFORE)
        if occurrence is None:
            return
        await store.create_post(post_of(row, occurrence))
        row = await store.advance(row, next_of(row, occurrence.at), made=1)


async def _caught_up(store: Store, row: Series, now: datetime) -> Series:
    """Leave out what has passed, and say so in the ledger."""
    assert row.next_at is not None
    skipped = 1
    following = next_of(row, row.next_at)
    while following is not None and following.at < now - publishing.GRACE:
        skipped += 1
        following = next_of(row, following.at)
    return await store.advance(row, following, made=0, skipped=skipped)
