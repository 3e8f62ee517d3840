"""Nothing that needs an approval is begun without one of exactly its content and time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import Conflict
from clickpost.store import Asked, NewConnection, NewPost, Store

LEASE = timedelta(minutes=5)


async def _posted(store: Store, *, due_at: datetime | None = None) -> str:
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "x"})
    connection = await store.add_connection(new)
    post = NewPost(PostFile(text="hello"), (), (connection.id,), due_at=due_at)
    made = await store.create_post(post)
    return (await store.deliveries_of(made.post_id))[0].id


async def _prepared(store: Store, delivery_id: str, content: str = "c") -> State:
    await store.move(delivery_id, State.PLANNED, State.PREPARING, lease_owner="w")
    await store.save_message(
        delivery_id,
        message=[{"text": "hello", "media": []}],
        content_hash=content,
        policy_hash="p",
        notes=[],
        holder="w",
    )
    await store.save_prepared(delivery_id, [{"state": {"rkey": "a"}, "ready": True}])
    return (await store.made_ready(delivery_id, content)).state


async def _begin(store: Store, delivery_id: str, content: str = "c") -> None:
    await store.begin_attempt(
        delivery_id, worker="w", part=0, intent={"content": content}, lease=LEASE, run_id=None
    )


async def _asked(store: Store) -> Asked:
    (question,) = await store.open_approvals()
    return question


async def _forced_ready(store: Store, delivery_id: str) -> None:
    """Put it where only the gate of the send itself is left."""
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE delivery SET state = 'ready'")


@pytest.mark.parametrize("of", ["bluesky/studio", None], ids=["connection", "workspace"])
async def test_what_needs_an_approval_waits_for_it_and_then_goes(
    store: Store, of: str | None
) -> None:
    delivery_id = await _posted(store)
    await store.require_approval(of, on=True, actor="anna")
    assert await _prepared(store, delivery_id) is State.AWAITING_APPROVAL
    with pytest.raises(Conflict):
        await _begin(store, delivery_id)
    state = await store.decide(await _asked(store), approve=True, by="anna", note="fine")
    assert state is State.READY
    await _begin(store, delivery_id)
    (approval,) = await store.approvals_of((await store.delivery(delivery_id)).post_id)
    assert (approval.verdict, approval.decided_by, approval.note) == ("approved", "anna", "fine")
    assert (await store.verify()).broken is None


async def test_the_send_itself_asks_for_the_approval_whatever_the_state_says(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.require_approval("bluesky/studio", on=True, actor="anna")
    await _prepared(store, delivery_id)
    await _forced_ready(store, delivery_id)
    with pytest.raises(Conflict):
        await _begin(store, delivery_id)
    assert not await store.attempts_of(delivery_id)


async def test_another_content_is_not_covered_by_an_approval(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.require_approval("bluesky/studio", on=True, actor="anna")
    await _prepared(store, delivery_id)
    await store.decide(await _asked(store), approve=True, by="anna")
    await store.move(delivery_id, State.READY, State.PLANNED)
    assert await _prepared(store, delivery_id, "other") is State.AWAITING_APPROVAL
    await _forced_ready(store, delivery_id)
    with pytest.raises(Conflict):
        await _begin(store, delivery_id, "other")
    with pytest.raises(Conflict):  # Nor may it be sent under the name of what was approved.
        await _begin(store, delivery_id, "c")


async def test_another_time_is_not_covered_by_an_approval(store: Store) -> None:
    moment = datetime.now(UTC) - timedelta(seconds=5)
    delivery_id = await _posted(store, due_at=moment)
    await store.require_approval("bluesky/studio", on=True, actor="anna")
    await _prepared(store, delivery_id)
    await store.decide(await _asked(store), approve=True, by="anna")
    await store.move(delivery_id, State.READY, State.PLANNED, due_at=moment - timedelta(seconds=60))
    assert await _prepared(store, delivery_id) is State.AWAITING_APPROVAL
    assert (await _asked(store)).due_at == moment - timedelta(seconds=60)


async def test_what_changed_since_it_was_asked_cannot_be_decided(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.require_approval("bluesky/studio", on=True, actor="anna")
    await _prepared(store, delivery_id)
    asked = await _asked(store)
    await store.move(delivery_id, State.AWAITING_APPROVAL, State.PLANNED)
    await _prepared(store, delivery_id, "other")
    with pytest.raises(Conflict):
        await store.decide(asked, approve=True, by="anna")
    assert (await store.delivery(delivery_id)).state is State.AWAITING_APPROVAL


async def test_of_many_decisions_one_counts(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.require_approval("bluesky/studio", on=True, actor="anna")
    await _prepared(store, delivery_id)
    asked = await _asked(store)
    decisions = (store.decide(asked, approve=n % 2 == 0, by=f"p{n}") for n in range(10))
    done = await asyncio.gather(*decisions, return_exceptions=True)
    assert sum(isinstance(one, State) for one in done) == 1


async def test_a_refusal_is_for_the_writer_and_asked_anew_when_tried_again(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.require_approval("bluesky/studio", on=True, actor="anna")
    await _prepared(store, delivery_id)
    assert await store.decide(await _asked(store), approve=False, by="anna") is State.FAILED
    row = await store.delivery(delivery_id)
    assert (row.reason, row.who_acts) == ("its approval was refused", "the writer")
    await store.move(delivery_id, State.FAILED, State.PLANNED)
    assert await _prepared(store, delivery_id) is State.AWAITING_APPROVAL
    assert await _asked(store)


async def test_requiring_approval_later_holds_what_is_ready_and_lifting_it_frees(
    store: Store,
) -> None:
    delivery_id = await _posted(store)
    assert await _prepared(store, delivery_id) is State.READY
    post_id = (await store.delivery(delivery_id)).post_id
    assert await store.require_approval(None, on=True, actor="anna") == [post_id]
    assert (await store.delivery(delivery_id)).state is State.AWAITING_APPROVAL
    assert await store.posts_to_approve(unasked=True) == [post_id]
    await store.set_approval_run(await store.open_approvals(), "run")
    assert await store.posts_to_approve(unasked=True) == []
    assert await store.require_approval(None, on=False, actor="anna") == [post_id]
    assert (await store.delivery(delivery_id)).state is State.READY


async def test_what_a_trigger_publishes_waits_for_an_approval_of_exactly_its_content(
    store: Store,
) -> None:
    delivery_id = await _posted(store)
    post_id = (await store.delivery(delivery_id)).post_id
    await store.require_approval_of(post_id, "shop-news")
    assert await _prepared(store, delivery_id) is State.AWAITING_APPROVAL
    await _forced_ready(store, delivery_id)
    with pytest.raises(Conflict):
        await _begin(store, delivery_id)
    await store.regate(delivery_id)
    await store.decide(await _asked(store), approve=True, by="anna")
    await store.move(delivery_id, State.READY, State.PLANNED)
    assert await _prepared(store, delivery_id, "other") is State.AWAITING_APPROVAL
    await store.decide(await _asked(store), approve=True, by="anna")
    await _begin(store, delivery_id, "other")
    lines = await _lines_about(store, [post_id, delivery_id])
    assert ("trigger:shop-news", "approval.required") in lines
    assert lines.count(("anna", "approval.decided")) == 2


async def test_what_was_ready_when_a_trigger_wanted_its_approval_waits_as_well(
    store: Store,
) -> None:
    delivery_id = await _posted(store)
    assert await _prepared(store, delivery_id) is State.READY
    post_id = (await store.delivery(delivery_id)).post_id
    await asyncio.gather(*(store.require_approval_of(post_id, "shop-news") for _ in range(5)))
    assert (await store.delivery(delivery_id)).state is State.AWAITING_APPROVAL
    assert await store.posts_to_approve(unasked=True) == [post_id]
    assert await store.regate() == []
    lines = await _lines_about(store, [post_id])
    assert lines.count(("trigger:shop-news", "approval.required")) == 1


async def test_no_send_begins_once_a_trigger_has_wanted_an_approval(store: Store) -> None:
    delivery_id = await _posted(store)
    await _prepared(store, delivery_id)
    post_id = (await store.delivery(delivery_id)).post_id
    await asyncio.gather(
        store.require_approval_of(post_id, "shop-news"),
        _begin(store, delivery_id),
        return_exceptions=True,
    )
    states = {State.SENDING: 1, State.AWAITING_APPROVAL: 0}
    assert (
        len(await store.attempts_of(delivery_id))
        == states[(await store.delivery(delivery_id)).state]
    )


async def test_a_post_that_a_trigger_makes_has_its_requirement_from_the_first_moment(
    store: Store,
) -> None:
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "x"})
    connection = await store.add_connection(new)
    made = await store.create_post(
        NewPost(PostFile(text="hello"), (), (connection.id,), approval="blog")
    )
    [delivery] = await store.deliveries_of(made.post_id)
    assert await _prepared(store, delivery.id) is State.AWAITING_APPROVAL


async def _lines_about(store: Store, subjects: list[str]) -> list[tuple[str, str]]:
    async with store.engine.connect() as connection:
        query = text("SELECT actor, action FROM ledger WHERE subject = ANY(:about) ORDER BY seq")
        rows = (await connection.execute(query, {"about": subjects})).all()
    return [(row[0], row[1]) for row in rows]


async def test_an_upload_for_a_former_content_is_not_kept(store: Store) -> None:
    delivery_id = await _posted(store)
    await _prepared(store, delivery_id)
    await store.move(delivery_id, State.READY, State.PLANNED)
    await _prepared(store, delivery_id, "other")
    with pytest.raises(Conflict):
        await store.save_prepared(delivery_id, [{"state": {}, "ready": True}], content="c")
