"""Many workers never overspend a budget, and give back what was not sent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import col, select

from clickpost import ids
from clickpost.budget import Pot, Told
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import Conflict
from clickpost.policy.shape import Costs
from clickpost.settings import Settings
from clickpost.store import NewConnection, NewPost, Store
from clickpost.store.budgets import Taking
from clickpost.store.tables import Notice, Workspace
from clickpost.store.vault import Vault

HOUR = timedelta(hours=1)


def pot(total: int, window: timedelta = HOUR, guard: bool = False) -> Pot:
    what = "burst" if guard else "posts"
    return Pot("account:x", what, total, window, Costs(post=1), guard=guard)


async def _ready(store: Store, count: int, workspace: str | None = None) -> list[str]:
    """Store as many posts with one ready delivery each, and return the deliveries' ids."""
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "x"})
    connection = await store.add_connection(new)
    found = []
    for _ in range(count):
        made = await store.create_post(NewPost(PostFile(text="hello"), (), (connection.id,)))
        delivery = (await store.deliveries_of(made.post_id))[0]
        found.append(delivery.id)
    async with store.engine.begin() as db:
        change = "UPDATE delivery SET state = 'ready', message = '[{}]' WHERE id = ANY(%s)"
        await db.exec_driver_sql(change, (found,))
        if workspace is not None:
            change = "UPDATE post SET workspace_id = %s WHERE id IN"
            chosen = " (SELECT post_id FROM delivery WHERE id = ANY(%s))"
            await db.exec_driver_sql(change + chosen, (workspace, found))
    return found


async def _workspace(store: Store, name: str) -> str:
    row = Workspace(id=ids.new("ws"), name=name, created_at=datetime.now(UTC))
    async with store.transaction() as session:
        session.add(row)
    return row.id


async def _awake(store: Store) -> None:
    """Let all that waits be allowed to ask again."""
    async with store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE delivery SET not_before = now() WHERE queued_at NOTNULL")


async def test_forty_side_by_side_in_two_workers_never_overspend(
    store: Store, settings: Settings
) -> None:
    url = str(settings.database_url.get_secret_value())
    other = await Store.open(url, Vault.of(settings))
    deliveries = await _ready(store, 40)
    own = (pot(7), pot(1000, timedelta(days=1)))
    asked = [
        (store, other)[number % 2].reserve(Taking(one, own))
        for number, one in enumerate(deliveries)
    ]
    answers = await asyncio.gather(*asked)
    await other.close()
    assert sum(answer is None for answer in answers) == 7
    assert (await store.standings(own))[0].used == 7
    waiting = [one for one, answer in zip(deliveries, answers, strict=True) if answer]
    row = await store.delivery(waiting[0])
    assert row.not_before is not None
    assert row.not_before > datetime.now(UTC) + HOUR * 0.9
    assert (row.who_acts, row.waits_for) == ("nobody", "account:x")
    assert str(row.reason).startswith("no budget: 7 posts in 1 h are used; next at ")
    assert row.queued_at is not None


async def test_what_was_not_sent_is_given_back_and_the_first_in_line_gets_it(store: Store) -> None:
    first, second, third, new = await _ready(store, 4)
    own = (pot(1),)
    taking = Taking(first, own)
    assert await store.reserve(taking) is None
    assert await store.reserve(Taking(second, own)) is not None
    assert await store.reserve(Taking(third, own)) is not None
    await store.give_back(taking, 0)
    assert await store.reserve(Taking(new, own)) is not None
    assert await store.reserve(Taking(third, own)) is not None
    assert await store.reserve(Taking(second, own)) is None
    row = await store.delivery(second)
    assert (row.queued_at, row.waits_for, row.reason) == (None, None, None)


async def test_a_reservation_that_a_crash_left_is_not_taken_twice(store: Store) -> None:
    (delivery_id,) = await _ready(store, 1)
    for _ in range(3):
        assert await store.reserve(Taking(delivery_id, (pot(1),))) is None
    assert (await store.standings((pot(1),)))[0].used == 1


async def test_a_thread_takes_for_all_its_parts_and_gives_back_those_not_sent(
    store: Store,
) -> None:
    (delivery_id,) = await _ready(store, 1)
    own = (pot(10), pot(1, guard=True))
    taking = Taking(delivery_id, own, 0, 5)
    assert await store.reserve(taking) is None
    posts, burst = await store.standings(own)
    assert (posts.used, burst.used) == (5, 1)
    await store.give_back(taking, 2)
    posts, burst = await store.standings(own)
    assert (posts.used, burst.used) == (2, 1)
    assert await store.reserve(Taking(delivery_id, own, 2, 5)) is None
    assert [one.used for one in await store.standings(own)] == [5, 1]


async def test_what_was_taken_long_ago_counts_in_full_and_is_forgotten_after_all_windows(
    store: Store,
) -> None:
    async with store.engine.begin() as db:
        await db.exec_driver_sql(
            "INSERT INTO spend SELECT n::text, 'account:x', 'posts', 2, now() - n * interval"
            " '1 minute' FROM generate_series(1, 4320) n"
        )
    hour, day = await store.standings((pot(500), pot(9000, timedelta(days=1))))
    assert 2 * 59 <= hour.used <= 2 * 61
    assert 2 * 1439 <= day.used <= 2 * 1445
    await store.forget_spent()
    async with store.engine.begin() as db:
        left = (await db.exec_driver_sql("SELECT count(*) FROM spend")).scalar_one()
    assert 2879 <= left <= 2880


async def test_what_is_on_its_way_reserves_nothing(store: Store) -> None:
    (delivery_id,) = await _ready(store, 1)
    await store.move(delivery_id, State.READY, State.SENDING)
    with pytest.raises(Conflict):
        await store.reserve(Taking(delivery_id, (pot(1),)))


async def test_workspaces_take_turns_when_budget_returns(store: Store) -> None:
    small = await _workspace(store, "small")
    (spent,) = await _ready(store, 1)
    assert await store.reserve(Taking(spent, (pot(1),))) is None
    large_line, small_line = await _ready(store, 6), await _ready(store, 2, small)
    for one in (*large_line, *small_line):
        assert await store.reserve(Taking(one, (pot(1),))) is not None
    went: list[str] = []
    for room in range(2, 6):  # Each time one more may go, all ask, the large one's first.
        await _awake(store)
        for one in (*large_line, *small_line):
            if one not in went and await store.reserve(Taking(one, (pot(room),))) is None:
                went.append(one)
    assert went == [small_line[0], large_line[0], small_line[1], large_line[1]]


async def test_who_was_put_off_to_another_day_keeps_nobody_waiting(store: Store) -> None:
    first, second, third = await _ready(store, 3)
    taking = Taking(first, (pot(1),))
    assert await store.reserve(taking) is None
    assert await store.reserve(Taking(second, (pot(1),))) is not None
    async with store.engine.begin() as db:
        change = "UPDATE delivery SET due_at = now() + interval '7 days' WHERE id = %s"
        await db.exec_driver_sql(change, (second,))
    await store.give_back(taking, 0)
    assert await store.reserve(Taking(third, (pot(1),))) is None


async def test_what_a_platform_says_is_kept_and_an_older_word_changes_nothing(
    store: Store,
) -> None:
    own, now = pot(10), datetime.now(UTC)
    await store.allow(own.holder, own.what, own.seconds, Told(0, now + HOUR, now, 10))
    await store.allow(own.holder, own.what, own.seconds, Told(9, now + HOUR, now - HOUR, 10))
    (delivery_id,) = await _ready(store, 1)
    short = await store.reserve(Taking(delivery_id, (own,)))
    assert short is not None
    assert short.until == now + HOUR


async def test_too_fast_stops_all_of_the_account_and_never_ends_earlier(store: Store) -> None:
    first, second = await _ready(store, 2)
    until = datetime.now(UTC) + HOUR
    await store.stop("account:x", until)
    await store.stop("account:x", until - HOUR / 2)
    for one in (first, second):
        short = await store.reserve(Taking(one, (pot(100),)))
        assert short is not None
        assert short.until == until
        assert (await store.delivery(one)).not_before == until
    assert await store.stopped_until("account:x") == until
    assert await store.stopped_until("account:y") is None


async def test_the_burst_guard_tells_an_operator_once_it_holds_more_than_a_few(
    store: Store,
) -> None:
    own = (pot(1000), pot(2, guard=True))
    deliveries = await _ready(store, 8)
    answers = [await store.reserve(Taking(one, own)) for one in deliveries]
    assert [answer is None for answer in answers] == [True] * 2 + [False] * 6
    rows = [await store.delivery(one) for one in deliveries[2:]]
    assert [row.who_acts for row in rows] == ["nobody"] * 3 + ["an operator"] * 3
    assert str(rows[0].reason).startswith("burst guard: 2 posts in 1 h were sent; next at ")
    async with store.session() as session:
        query = select(Notice).where(col(Notice.event) == "guard.tripped")
        told = (await session.scalars(query)).all()
    assert len(told) == 1
    await store.set_burst(rows[0].connection_id, 100)
    row = await store.delivery(deliveries[2])
    assert row.not_before is not None
    assert row.not_before <= datetime.now(UTC)
    assert await store.reserve(Taking(row.id, (own[0], pot(100, guard=True)))) is None
