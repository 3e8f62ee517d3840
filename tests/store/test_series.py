"""Of a series each occurrence is one post, made ahead, whoever makes it and however often."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import Conflict, InvalidInput
from clickpost.recurrence import Repeat, recurrence
from clickpost.store import NewConnection, NewPost, Store
from clickpost.store.series import PAUSED, post_of
from clickpost.store.tables import Post, Series
from tasks import repeating

DAY = timedelta(days=1)
WEEKLY = "FREQ=WEEKLY;BYDAY=MO;BYHOUR=9"


async def _series(
    store: Store, rule: str = WEEKLY, *, key: str | None = None, text: str = "hello", cap: int = 5
) -> Series:
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "x"})
    connection = await store.add_connection(new)
    repeat = Repeat(rule=rule, zone="Europe/Berlin", cap=cap)
    post = NewPost(PostFile(text=text, repeat=repeat, key=key), (), (connection.id,))
    given = recurrence(repeat, None, None, datetime.now(UTC))
    first = repeating.occurrences(given, datetime.now(UTC))
    begun = await store.create_series(post, given, next(first))
    return await store.series(begun.series_id)


async def _posts(store: Store, row: Series) -> list[Post]:
    return await store.posts_of_series(row.id, datetime(2000, 1, 1, tzinfo=UTC))


async def _extended(store: Store, row: Series, now: datetime | None = None) -> list[str]:
    fresh = await store.series(row.id)
    made = await repeating.extended(store, fresh, now or datetime.now(UTC))
    return [one.post_id for one in made]


async def test_the_next_occurrences_are_posts_each_once_whoever_makes_them(store: Store) -> None:
    row = await _series(store)
    await asyncio.gather(*(repeating.extended(store, row, datetime.now(UTC)) for _ in range(8)))
    posts = await _posts(store, row)
    assert len(posts) == repeating.AHEAD
    assert [post.due_at.weekday() for post in posts if post.due_at] == [0, 0]
    assert str(posts[0].client_key).startswith(f"series:{row.id}:2")
    assert str(posts[0].client_key).endswith("T09:00")
    assert (await store.series(row.id)).made == repeating.AHEAD


async def test_who_died_after_making_a_post_makes_it_not_again(store: Store) -> None:
    row = await _series(store)
    assert row.next_at is not None
    occurrence = repeating.next_of(row, row.next_at - timedelta(seconds=1))
    assert occurrence is not None
    made = await store.create_post(post_of(row, occurrence))  # And then nothing was noted.
    assert (await _extended(store, row))[0] == made.post_id
    assert len(await _posts(store, row)) == repeating.AHEAD


async def test_the_following_ones_are_made_as_time_goes_on_until_the_cap(store: Store) -> None:
    row = await _series(store, cap=4)
    now = datetime.now(UTC)
    for week in range(8):
        await _extended(store, row, now + week * 7 * DAY)
    assert len(await _posts(store, row)) == 4
    assert (await store.series(row.id)).status == "ended"


async def test_what_passed_while_nothing_ran_is_left_out(store: Store) -> None:
    row = await _series(store)
    later = datetime.now(UTC) + 70 * DAY
    await _extended(store, row, later)
    posts = await _posts(store, row)
    assert all(post.due_at and post.due_at > later for post in posts)
    assert (await store.series(row.id)).made == len(posts) == repeating.AHEAD


async def test_a_post_whose_run_was_never_started_is_named_again(store: Store) -> None:
    row = await _series(store)
    first = await _extended(store, row)
    await store.set_flow_run(first[0], "run")
    assert await _extended(store, row) == first[1:]


async def test_a_paused_series_sends_nothing_and_goes_on_where_it_is_resumed(store: Store) -> None:
    row = await _series(store)
    posts = await _extended(store, row)
    assert await store.pause_series(row.id, actor="anna") == 2
    for post_id in posts:
        (delivery,) = await store.deliveries_of(post_id)
        assert (delivery.state, delivery.reason) == (State.HELD, PAUSED)
    assert await _extended(store, row) == posts  # None is added.
    stored = await store.series(row.id)
    occurrence = repeating.next_of(stored, datetime.now(UTC) + 30 * DAY)
    assert occurrence is not None
    with pytest.raises(Conflict, match="is paused"):
        await store.create_post(post_of(stored, occurrence))
    following = repeating.next_of(stored, stored.next_at - DAY) if stored.next_at else None
    assert await store.resume_series(row.id, following, actor="anna") == 2
    (delivery,) = await store.deliveries_of(posts[0])
    assert delivery.state is State.PLANNED


async def test_a_pause_lets_nothing_through_that_is_made_in_that_moment(store: Store) -> None:
    row = await _series(store)
    done = await asyncio.gather(
        *(repeating.extended(store, row, datetime.now(UTC)) for _ in range(4)),
        store.pause_series(row.id, actor="anna"),
        return_exceptions=True,
    )
    assert not [one for one in done if isinstance(one, BaseException)]
    for post in await _posts(store, row):
        assert {one.state for one in await store.deliveries_of(post.id)} == {State.HELD}


async def test_a_cancelled_series_sends_nothing_more(store: Store) -> None:
    row = await _series(store)
    posts = await _extended(store, row)
    assert await store.cancel_series(row.id, actor="anna") == 2
    (delivery,) = await store.deliveries_of(posts[0])
    assert delivery.state is State.CANCELLED
    with pytest.raises(InvalidInput, match="is cancelled"):
        await store.resume_series(row.id, None, actor="anna")
    assert await store.all_series(active=True) == []


async def test_the_same_key_is_the_same_series(store: Store) -> None:
    row = await _series(store, key="k")
    assert (await _series(store, key="k")).id == row.id
    with pytest.raises(InvalidInput, match="says something else"):
        await _series(store, key="k", text="other")
