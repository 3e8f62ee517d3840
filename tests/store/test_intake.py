"""Each slot is taken once, each key is one post, and saying the same again is noticed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import InvalidInput
from clickpost.repeats import Guard
from clickpost.slots import Slots, times_of, upcoming
from clickpost.store import NewConnection, NewPost, Store

DAY = timedelta(days=1)


async def _connected(store: Store, name: str = "studio", slots: str | None = None) -> str:
    new = NewConnection("bluesky", name, "http://127.0.0.1:1", {"access_jwt": "x"})
    connection = await store.add_connection(new)
    if slots is not None:
        given = Slots(zone="Europe/Berlin").with_times(times_of(slots))
        await store.set_slots(connection.id, given, actor="anna")
    return connection.id


def _queued(*connections: str) -> NewPost:
    return NewPost(PostFile(text="hello", at="next-slot"), (), connections, next_slot=True)


def _guarded(connection: str, *, blocks: bool = False, **more: object) -> NewPost:
    guards = {connection: Guard("digest", DAY, blocks)}
    return NewPost(PostFile(text="hello"), (), (connection,), guards=guards, **more)  # type: ignore[arg-type]


async def test_two_takers_at_once_never_get_the_same_slot(store: Store) -> None:
    one = await _connected(store, "one", "daily 09:00,12:00")
    two = await _connected(store, "two", "daily 09:00,15:00")
    posts = [_queued(one), _queued(two), _queued(one, two), _queued(two, one)] * 5
    made = await asyncio.gather(*(store.create_post(post) for post in posts))
    taken: dict[str, list[datetime]] = {one: [], two: []}
    for post in made:
        for delivery in await store.deliveries_of(post.post_id):
            assert delivery.due_at is not None
            taken[delivery.connection_id].append(delivery.due_at)
    for name, times in ((one, "09:00,12:00"), (two, "09:00,15:00")):
        slots = Slots(zone="Europe/Berlin").with_times(times_of(f"daily {times}"))
        assert sorted(taken[name]) == list(islice(upcoming(slots, datetime.now(UTC)), 15))


async def test_each_target_gets_its_own_next_slot_and_the_post_is_due_at_the_first(
    store: Store,
) -> None:
    one = await _connected(store, "one", "daily 09:00")
    two = await _connected(store, "two", "daily 10:00")
    made = await store.create_post(_queued(one, two))
    due = [row.due_at for row in await store.deliveries_of(made.post_id)]
    assert len(set(due)) == 2
    assert (await store.post(made.post_id)).due_at == min(due)  # type: ignore[type-var]


async def test_a_cancelled_delivery_frees_its_slot(store: Store) -> None:
    one = await _connected(store, "one", "daily 09:00")
    made = await store.create_post(_queued(one))
    (row,) = await store.deliveries_of(made.post_id)
    assert row.due_at not in await store.free_slots(one, 3)
    await store.move(row.id, State.PLANNED, State.CANCELLED)
    assert (await store.free_slots(one, 3))[0] == row.due_at


async def test_an_account_without_slots_is_told_how_to_get_some(store: Store) -> None:
    one = await _connected(store, "one")
    with pytest.raises(InvalidInput, match="connections slots bluesky/one --add"):
        await store.create_post(_queued(one))
    assert await store.posts() == []


async def test_the_same_key_with_another_content_is_refused_and_names_the_post(
    store: Store,
) -> None:
    one = await _connected(store)
    made = await store.create_post(NewPost(PostFile(text="hello", key="k"), (), (one,)))
    again = await store.create_post(NewPost(PostFile(text="hello", key="k"), (), (one,)))
    assert (again.post_id, again.existing) == (made.post_id, True)
    with pytest.raises(InvalidInput, match=f"key k: it is that of {made.post_id}"):
        await store.create_post(NewPost(PostFile(text="other", key="k"), (), (one,)))


async def test_saying_the_same_again_is_told_and_barred_where_the_policy_bars_it(
    store: Store,
) -> None:
    one = await _connected(store)
    first = await store.create_post(_guarded(one))
    assert first.repeats == ()
    (said,) = (await store.create_post(_guarded(one))).repeats
    assert (said.ref, said.post_id) == ("bluesky/studio", first.post_id)
    with pytest.raises(InvalidInput, match="--again"):
        await store.create_post(_guarded(one, blocks=True))
    assert not (await store.create_post(_guarded(one, blocks=True, again=True))).existing


async def test_the_same_is_compared_within_the_window_of_its_own_time(store: Store) -> None:
    one = await _connected(store)
    await store.create_post(_guarded(one))
    later = datetime.now(UTC) + timedelta(hours=25)
    assert (await store.create_post(_guarded(one, due_at=later))).repeats == ()
    soon = later + timedelta(hours=1)
    assert len((await store.create_post(_guarded(one, due_at=soon))).repeats) == 1


async def test_of_two_at_once_that_say_the_same_one_is_barred(store: Store) -> None:
    one = await _connected(store)
    tries = (store.create_post(_guarded(one, blocks=True)) for _ in range(8))
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(made, InvalidInput) for made in done) == 7


async def test_what_was_not_said_may_be_said_again(store: Store) -> None:
    one = await _connected(store)
    made = await store.create_post(_guarded(one))
    (row,) = await store.deliveries_of(made.post_id)
    await store.move(row.id, State.PLANNED, State.CANCELLED)
    assert (await store.create_post(_guarded(one, blocks=True))).repeats == ()
