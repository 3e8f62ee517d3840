"""What a reviewer found: each was a way to lose a post, to bypass a rule, or to say nothing."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli import _house
from clickpost import publishing
from clickpost.contract import Receipt
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import InvalidInput
from clickpost.policy.shape import RepeatGuard
from clickpost.publishing import Go, TooLate, Verdict, Wait
from clickpost.settings import Settings
from clickpost.store import NewConnection, NewPost, Started, Store
from clickpost.store.series import PAUSED
from tasks import _runs, _wiring, approving
from tests.store.test_approvals import _asked, _posted, _prepared
from tests.store.test_planning_commands import PUBLISH, command
from tests.store.test_series import _extended, _posts, _series

__all__ = ["command"]

NOW = datetime.now(UTC)
LEASE = timedelta(minutes=5)
LATE = NOW - timedelta(hours=1)
SOON, LATER = (f"{NOW + timedelta(days=one):%Y-%m-%dT%H:%M}+00:00" for one in (0.5, 9))


def test_a_thread_that_has_begun_never_comes_too_late_for_its_rest() -> None:
    assert isinstance(publishing.timing(LATE, None, "skip", NOW), TooLate)
    for late in ("skip", "ask", "publish"):
        assert publishing.timing(LATE, None, late, NOW, begun=True) == Go()  # type: ignore[arg-type]
        wait = publishing.timing(LATE, NOW + timedelta(60), late, NOW, begun=True)  # type: ignore[arg-type]
        assert isinstance(wait, Wait)


async def test_a_thread_that_has_begun_still_waits_for_its_approval(store: Store) -> None:
    delivery_id = await _posted(store, due_at=LATE)
    await store.require_approval(None, on=True, actor="anna")
    assert await _prepared(store, delivery_id) is State.AWAITING_APPROVAL
    async with store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE post SET late = 'skip'")
        await db.exec_driver_sql("""UPDATE delivery SET receipts = '[{"remote_id": "1"}]'""")
    assert await store.miss_unapproved() == []


async def test_the_writer_reads_why_it_was_refused(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.require_approval(None, on=True, actor="anna")
    await _prepared(store, delivery_id)
    await store.decide(await _asked(store), approve=False, by="anna", note="the date is wrong")
    (line,) = await store.lines((await store.delivery(delivery_id)).post_id)
    assert line.notes == ["refused by anna: the date is wrong"]


def test_a_cancel_holds_also_where_a_worker_moves_the_post_in_that_moment(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = command(*PUBLISH, "hello", "--at", "2030-01-01T09:00+00:00")
    move, moved = Store.move, []

    async def meanwhile(self: Store, delivery_id: str, *states: State, **more: Any) -> Any:
        if not moved:
            moved.append(await move(self, delivery_id, State.PLANNED, State.PREPARING))
        return await move(self, delivery_id, *states, **more)

    monkeypatch.setattr(Store, "move", meanwhile)
    (delivery,) = command("posts", "cancel", made["post"])["deliveries"]
    assert delivery["state"] == "cancelled"


async def test_an_approval_whose_run_is_gone_is_asked_for_anew(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery_id = await _posted(store)
    await store.require_approval(None, on=True, actor="anna")
    await _prepared(store, delivery_id)
    begun: list[str] = []

    async def begin(*_: object, **__: object) -> str:
        begun.append(f"run-{len(begun)}")
        return begun[-1]

    async def over(run_ids: Collection[str]) -> set[str]:
        return {"run-0"} & set(run_ids)

    async def here() -> SimpleNamespace:
        return SimpleNamespace(store=store)

    monkeypatch.setattr(_wiring, "house", here)
    monkeypatch.setattr(_runs, "begin", begin)
    monkeypatch.setattr(_runs, "over", over)
    for _ in range(3):
        await approving.tidy()
    assert begun == ["run-0", "run-1"]
    assert (await _asked(store)).run_id == "run-1"


async def test_a_name_stays_with_its_account(store: Store) -> None:
    def grant(whose: str | None) -> NewConnection:
        return NewConnection("bluesky", "studio", "http://127.0.0.1:1", {}, remote_id=whose)

    await store.add_connection(grant(None))
    first = await store.add_connection(grant("did:a"))
    with pytest.raises(InvalidInput, match="name of its own"):
        await store.add_connection(grant("did:b"))
    assert (await store.add_connection(grant("did:a"))).id == first.id


async def test_a_takedown_lets_nothing_of_the_post_appear_afterwards(store: Store) -> None:
    refs = ("one", "two", "three")
    made = [
        await store.add_connection(NewConnection("bluesky", ref, "http://127.0.0.1:1", {}))
        for ref in refs
    ]
    new = NewPost(PostFile(text="hello"), (), tuple(row.id for row in made))
    post_id = (await store.create_post(new)).post_id
    live, held, planned = (row.id for row in await store.deliveries_of(post_id))
    async with store.engine.begin() as db:
        there = """[{"remote_id": "1", "url": null, "extra": {}}]"""
        for one, state, receipts in ((live, "live", there), (held, "held", there)):
            await db.exec_driver_sql(
                "UPDATE delivery SET state = %s, receipts = %s::jsonb WHERE id = %s",
                (state, receipts, one),
            )
    assert await store.want_down(post_id) == [live, held]  # A part of a held thread is visible.
    row = await store.delivery(planned)
    assert (row.state, row.takedown_at) == (State.CANCELLED, None)
    assert (await store.delivery(held)).takedown_at is not None


def test_an_edit_and_a_draft_are_held_to_what_was_said_lately(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = RepeatGuard(
        mode="block", window=timedelta(days=1), source="https://x.example", checked=NOW.date()
    )
    strict = _house.policy_of

    def policy_of(*given: Any) -> Any:
        return strict(*given).model_copy(update={"repeat_guard": barred})

    monkeypatch.setattr(_house, "policy_of", policy_of)
    command(*PUBLISH, "Good morning!")
    other = command(*PUBLISH, "something else", "--at", LATER)["post"]
    draft = command(*PUBLISH, "good morning", "--draft")["post"]
    command("posts", "publish", draft, code=2)
    (tmp_path / "post.yaml").write_text(f"kind: post\ntext: good morning\nat: {SOON}\n")
    edit = ("posts", "edit", other, str(tmp_path / "post.yaml"))
    assert "blocks saying it again" in command(*edit, code=2)["error"]
    assert command(*edit, "--again")["repeats"] == []
    command("posts", "publish", draft, "--again")


async def test_an_edit_does_not_wake_a_post_of_a_paused_series(store: Store) -> None:
    row = await _series(store)
    await _extended(store, row)
    (post, *_) = await _posts(store, row)
    await store.pause_series(row.id, actor="anna")
    (before,) = await store.deliveries_of(post.id)
    new = NewPost(PostFile(text="other"), (), (before.connection_id,))
    await store.edit_post(post.id, new, actor="anna")
    (held,) = await store.deliveries_of(post.id)
    assert (held.state, held.reason, held.key != before.key) == (State.HELD, PAUSED, True)
    assert await store.resume_series(row.id, None, actor="anna") == 2


async def _sent(store: Store) -> tuple[str, Started]:
    delivery_id = await _posted(store)
    await _prepared(store, delivery_id)
    started = await store.begin_attempt(
        delivery_id, worker="w", part=0, intent={"content": "c"}, lease=LEASE, run_id=None
    )
    return delivery_id, started


async def test_an_answer_counts_also_after_a_look_that_came_too_early(store: Store) -> None:
    delivery_id, started = await _sent(store)
    await store.take_back(await store.delivery(delivery_id), State.UNKNOWN)
    seen = await store.delivery(delivery_id)
    await store.clear_unknown(seen, State.READY, reason="looked: it is not there")
    receipt = Receipt("1", "https://a.example/1")
    live = Verdict("live", State.LIVE)
    await store.settle(started, live, receipt, last=True, seconds=901.0)
    row = await store.delivery(delivery_id)
    assert (row.state, row.remote_id, row.live_at is None) == (State.LIVE, "1", False)


async def test_who_uploads_takes_nothing_whose_words_are_still_being_written(store: Store) -> None:
    delivery_id = await _posted(store)
    over = NOW - timedelta(minutes=1)
    await store.move(
        delivery_id, State.PLANNED, State.PREPARING, lease_owner="writer", lease_until=over
    )
    assert await store.lease(delivery_id, "uploader", LEASE) is None
    assert await store.lease(delivery_id, "writer", LEASE) is not None
