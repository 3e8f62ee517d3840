"""Another time or content takes the place of the old one, which nothing sends any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from clickpost.delivery import State
from clickpost.draft import PostFile, Wording
from clickpost.errors import Conflict, InvalidInput
from clickpost.slots import Slots, times_of
from clickpost.store import NewConnection, NewPost, Store

LEASE = timedelta(minutes=5)
SOON = datetime.now(UTC) + timedelta(hours=1)
LATER = SOON + timedelta(days=2)


async def _connected(store: Store, name: str = "one") -> str:
    new = NewConnection("bluesky", name, "http://127.0.0.1:1", {"access_jwt": "x"})
    return (await store.add_connection(new)).id


def _new(text: str, *connections: str, due_at: datetime | None = None) -> NewPost:
    return NewPost(PostFile(text=text), (), connections, due_at=due_at)


async def _posted(store: Store, due_at: datetime | None = SOON) -> str:
    made = await store.create_post(_new("hello", await _connected(store), due_at=due_at))
    return made.post_id


async def _prepared(store: Store, post_id: str, content: str = "c") -> str:
    (row, *_) = await store.deliveries_of(post_id)
    await store.move(row.id, State.PLANNED, State.PREPARING, lease_owner="w")
    part = [{"text": "hello", "media": []}]
    await store.save_message(
        row.id, message=part, content_hash=content, policy_hash="p", notes=[], holder="w"
    )
    await store.save_prepared(row.id, [{"state": {"rkey": "a"}, "ready": True}])
    await store.made_ready(row.id, content)
    return row.id


async def _begin(store: Store, delivery_id: str, content: str = "c") -> None:
    await store.begin_attempt(
        delivery_id, worker="w", part=0, intent={"content": content}, lease=LEASE, run_id=None
    )


async def test_at_the_old_time_nothing_is_due_any_more(store: Store) -> None:
    post_id = await _posted(store)
    delivery_id = await _prepared(store, post_id)
    await store.set_flow_run(post_id, "old", SOON)
    assert await store.reschedule(post_id, LATER, actor="anna") == [delivery_id]
    assert await store.due_lines(SOON) == []
    (line,) = await store.due_lines(LATER)
    assert (line.id, line.state, line.run_id) == (delivery_id, State.READY, None)
    assert await store.stoppable_lines(["old"]) == []
    assert (await store.post(post_id)).due_at == LATER
    with pytest.raises(Conflict):
        await _begin(store, delivery_id)


async def test_an_earlier_time_is_sent_earlier(store: Store) -> None:
    post_id = await _posted(store)
    delivery_id = await _prepared(store, post_id)
    await store.reschedule(post_id, datetime.now(UTC), actor="anna")
    await _begin(store, delivery_id)


async def test_what_became_late_or_was_a_draft_is_planned_for_the_new_time(store: Store) -> None:
    post_id = await _posted(store)
    delivery_id = await _prepared(store, post_id)
    await store.move(delivery_id, State.READY, State.MISSED, reason="late")
    await store.reschedule(post_id, LATER, actor="anna")
    row = await store.delivery(delivery_id)
    assert (row.state, row.due_at, row.reason) == (State.PLANNED, LATER, None)


async def test_what_is_sent_keeps_its_time(store: Store) -> None:
    post_id = await _posted(store, datetime.now(UTC))
    await _begin(store, await _prepared(store, post_id))
    with pytest.raises(InvalidInput, match="nothing of it waits"):
        await store.reschedule(post_id, LATER, actor="anna")


async def test_a_new_time_voids_an_approval_and_going_back_does_not_revive_it(
    store: Store,
) -> None:
    post_id = await _posted(store)
    await store.require_approval(None, on=True, actor="anna")
    delivery_id = await _prepared(store, post_id)
    (asked,) = await store.open_approvals()
    await store.decide(asked, approve=True, by="anna")
    for moment in (LATER, SOON):
        await store.reschedule(post_id, moment, actor="anna")
        assert (await store.delivery(delivery_id)).state is State.AWAITING_APPROVAL
        (asked,) = await store.open_approvals(post_id=post_id)
        assert asked.due_at == moment


async def test_next_slot_moves_a_post_to_its_accounts_free_slot(store: Store) -> None:
    post_id = await _posted(store, None)
    (row,) = await store.deliveries_of(post_id)
    slots = Slots(zone="Europe/Berlin").with_times(times_of("daily 09:00"))
    await store.set_slots(row.connection_id, slots, actor="anna")
    (first, second) = await store.free_slots(row.connection_id, 2)
    for _ in range(2):  # What has the first free one keeps it.
        await store.reschedule(post_id, None, actor="anna")
        assert (await store.delivery(row.id)).due_at == first
    assert await store.free_slots(row.connection_id, 1) == [second]


async def test_an_edit_voids_what_was_prepared_and_approved(store: Store) -> None:
    post_id = await _posted(store)
    await store.require_approval(None, on=True, actor="anna")
    delivery_id = await _prepared(store, post_id)
    (asked,) = await store.open_approvals()
    await store.decide(asked, approve=True, by="anna")
    before = await store.delivery(delivery_id)
    await store.edit_post(post_id, _new("other", before.connection_id), actor="anna")
    row = await store.delivery(delivery_id)
    assert (row.state, row.message, row.content_hash) == (State.PLANNED, None, None)
    assert (row.due_at, row.key != before.key) == (SOON, True)
    assert (await store.post(post_id)).body["post"]["text"] == "other"
    await _prepared(store, post_id, "other")
    assert (await store.delivery(delivery_id)).state is State.AWAITING_APPROVAL


async def test_who_still_prepares_the_old_content_cannot_finish_it(store: Store) -> None:
    post_id = await _posted(store)
    (row,) = await store.deliveries_of(post_id)
    await store.move(row.id, State.PLANNED, State.PREPARING, lease_owner="w")
    await store.edit_post(post_id, _new("other", row.connection_id), actor="anna")
    with pytest.raises(Conflict):
        await store.save_message(
            row.id, message=[], content_hash="c", policy_hash="p", notes=[], holder="w"
        )
    await _prepared(store, post_id, "other")
    with pytest.raises(Conflict):
        await store.save_prepared(row.id, [], content="c")
    with pytest.raises(Conflict):
        await store.made_ready(row.id, "c")


async def test_an_edit_changes_targets_variants_and_time(store: Store) -> None:
    post_id = await _posted(store)
    (old,) = await store.deliveries_of(post_id)
    two = await _connected(store, "two")
    post = PostFile(text="other", variants={"bluesky": Wording(text="short")})
    await store.edit_post(post_id, NewPost(post, (), (two,), due_at=LATER), actor="anna")
    rows = {row.connection_id: row for row in await store.deliveries_of(post_id)}
    assert rows[old.connection_id].state is State.CANCELLED
    assert (rows[two].state, rows[two].due_at) == (State.PLANNED, LATER)


async def test_what_has_left_cannot_be_edited(store: Store) -> None:
    post_id = await _posted(store, datetime.now(UTC))
    delivery_id = await _prepared(store, post_id)
    await _begin(store, delivery_id)
    connection = (await store.delivery(delivery_id)).connection_id
    with pytest.raises(InvalidInput, match="is sending already"):
        await store.edit_post(post_id, _new("other", connection), actor="anna")
    assert (await store.post(post_id)).body["post"]["text"] == "hello"
