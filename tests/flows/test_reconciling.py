"""A lost outcome ends in the right state: by a look, or by the first answer of a person."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from sqlalchemy import update
from sqlmodel import col

from clickpost import ids
from clickpost.asking import Answer, Question
from clickpost.contract import Absence, Finds, Kind, MediaFile, Message, Receipt
from clickpost.delivery import State
from clickpost.draft import MediaItem
from clickpost.errors import Conflict, InvalidInput, Reauthorize, TokenExpired, Transient
from clickpost.settings import Settings
from clickpost.store import Started, Store
from clickpost.store.tables import Attempt, Delivery
from connectors.mastodon import Connector as Mastodon
from tasks import answering, asking, preparing, reconciling, sending, taking_down
from tests.desk import Desk, desk_at


@pytest_asyncio.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    async with desk_at(store, settings, tmp_path, monkeypatch, "bluesky", "mastodon") as made:
        yield made


def fresh() -> str:
    return uuid.uuid4().hex


@pytest.mark.parametrize("platform", ["bluesky", "mastodon"])
async def test_what_is_there_is_adopted_with_its_permalink(desk: Desk, platform: str) -> None:
    text = fresh()
    delivery_id = await desk.unknown(platform, "drop_after", text)
    assert (await reconciling.reconcile(delivery_id)).state is State.LIVE
    row = await desk.store.delivery(delivery_id)
    assert row.remote_id
    assert row.url
    assert await desk.there(text) == 1


@pytest.mark.parametrize("platform", ["bluesky", "mastodon"])
async def test_what_is_not_there_is_sent_once_more(desk: Desk, platform: str) -> None:
    text = fresh()
    delivery_id = await desk.unknown(platform, "drop_before", text)
    assert await desk.there(text) == 0
    assert (await reconciling.reconcile(delivery_id)).state is State.READY
    assert (await sending.send(delivery_id)).state is State.LIVE
    assert await desk.there(text) == 1


async def test_a_post_of_the_same_words_and_another_file_is_not_taken_for_ours(
    desk: Desk, tmp_path: Path, clip: Path
) -> None:
    text, path = fresh(), tmp_path / "picture.png"
    Image.new("RGB", (640, 480), "teal").save(path)
    media = [MediaItem(file=str(path), alt="Teal")]
    delivery_id = await desk.unknown("mastodon", "drop_before", text, media=media)
    connection = await desk.store.connection("mastodon/studio")
    by_hand: Any = desk.house.connector(
        desk.store.opened(connection), desk.house.policy(connection)
    )
    size = clip.stat().st_size
    film = MediaFile(Kind.VIDEO, clip, "video/mp4", size, 320, 568, "0", 3.5)
    made = await by_hand.prepare(Message(text, (film,)), "by hand")
    while not made.ready:
        made = await by_hand.prepare(Message(text, (film,)), "by hand", made)
    await by_hand.publish(made, "by hand")
    assert (await reconciling.reconcile(delivery_id)).state is State.READY
    assert (await sending.send(delivery_id)).state is State.LIVE
    assert await desk.there(text) == 2


async def test_an_absence_before_the_settle_time_proves_nothing(desk: Desk) -> None:
    delivery_id = await desk.post("mastodon", fresh())
    await desk.order("mastodon", "drop_before", "status")
    assert (await sending.send(delivery_id)).state is State.UNKNOWN
    step = await reconciling.reconcile(delivery_id)
    assert step.state is State.UNKNOWN
    assert 5 < step.wait <= 10  # The policy says 10 s.


async def _tried(desk: Desk, delivery_id: str, verdict: str | None, *parts: int) -> None:
    """Let earlier tries of these parts have ended so."""
    row = await desk.store.delivery(delivery_id)
    async with desk.store.transaction() as session:
        for number, part in enumerate(parts):
            session.add(
                Attempt(
                    id=ids.new("try"),
                    delivery_id=delivery_id,
                    number=row.attempts - len(parts) + number - 10,
                    part=part,
                    intent={},
                    started_at=(row.sent_at or row.updated_at) - timedelta(minutes=5),
                    verdict=verdict,
                    worker="w",
                )
            )
        change = update(Delivery).where(col(Delivery.id) == delivery_id)
        await session.execute(change.values(attempts=row.attempts + len(parts)))


async def test_what_was_lost_again_and_again_is_for_an_operator(desk: Desk) -> None:
    delivery_id = await desk.unknown("mastodon", "drop_before", fresh())
    await _tried(desk, delivery_id, "unknown", *[0] * (reconciling.MOST_IN_VAIN - 1))
    assert (await reconciling.reconcile(delivery_id)).state is State.FAILED
    row = await desk.store.delivery(delivery_id)
    assert (row.who_acts, row.reason) == (
        "an operator",
        "looked: it is not there, after 6 sends",
    )


@pytest.mark.parametrize(("verdict", "part"), [("transient", 0), ("live", 1), ("unknown", 1)])
async def test_tries_that_did_nothing_and_other_parts_let_nobody_give_up_on_a_lost_send(
    desk: Desk, verdict: str, part: int
) -> None:
    text = fresh()
    delivery_id = await desk.unknown("mastodon", "drop_before", text)
    await _tried(desk, delivery_id, verdict, *[part] * 20)
    assert (await reconciling.reconcile(delivery_id)).state is State.READY
    assert (await sending.send(delivery_id)).state is State.LIVE
    assert await desk.there(text) == 1


async def test_an_old_look_does_not_let_a_post_go_that_was_sent_again_since(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look starts, a second one is faster, and what it lets go is lost and there."""
    text = fresh()
    delivery_id = await desk.unknown("mastodon", "drop_before", text)
    looked, go_on = asyncio.Event(), asyncio.Event()
    find = Mastodon.find

    async def slow(self: Mastodon, sought: Any) -> Any:
        found = await find(self, sought)
        looked.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(Mastodon, "find", slow)
    first = asyncio.create_task(reconciling.reconcile(delivery_id))
    await looked.wait()
    monkeypatch.setattr(Mastodon, "find", find)
    assert (await reconciling.reconcile(delivery_id)).state is State.READY
    await desk.order("mastodon", "drop_after", "status")
    assert (await sending.send(delivery_id)).state is State.UNKNOWN
    go_on.set()
    assert (await first).state is State.UNKNOWN
    await desk.aged(delivery_id)
    assert (await reconciling.reconcile(delivery_id)).state is State.LIVE
    assert await desk.there(text) == 1


@pytest.mark.parametrize(
    ("error", "state", "who", "status"),
    [
        (None, State.LIVE, None, "active"),
        (Transient("POST /token never left"), State.UNKNOWN, "nobody yet", "active"),
        (Reauthorize("the grant is gone"), State.UNKNOWN, "the account's owner", "paused"),
    ],
)
async def test_a_token_that_ends_while_looking_is_renewed_and_a_blip_disconnects_nobody(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    state: State,
    who: str | None,
    status: str,
) -> None:
    text = fresh()
    delivery_id = await desk.unknown("mastodon", "drop_after", text)
    find, renewed = Mastodon.find, []

    async def ended(self: Mastodon, sought: Any) -> Any:
        if not renewed:
            raise TokenExpired("GET statuses: 401")
        return await find(self, sought)

    async def refresh(*_: Any) -> None:
        renewed.append(1)
        if error is not None:
            raise error

    monkeypatch.setattr(Mastodon, "find", ended)
    monkeypatch.setattr(reconciling.renewing, "refresh", refresh)
    assert (await reconciling.reconcile(delivery_id)).state is state
    row = await desk.store.delivery(delivery_id)
    assert (row.state, row.who_acts, len(renewed)) == (state, who, 1)
    assert (await desk.store.connection("mastodon/studio")).status == status
    assert await desk.there(text) == 1


async def test_a_grant_that_is_gone_leaves_the_outcome_unknown_for_the_owner(desk: Desk) -> None:
    text = fresh()
    delivery_id = await desk.unknown("mastodon", "drop_after", text)
    await desk.order("mastodon", "revoke_token", "*")
    step = await reconciling.reconcile(delivery_id)
    assert (step.state, step.parked) == (State.UNKNOWN, True)
    row = await desk.store.delivery(delivery_id)
    assert row.who_acts == "the account's owner"
    assert "no leave to look" in str(row.reason)
    assert (await desk.store.connection("mastodon/studio")).status == "paused"
    await desk.calm()
    await desk.connect("mastodon")
    assert (await reconciling.reconcile(delivery_id)).state is State.LIVE
    assert await desk.there(text) == 1


async def test_a_rate_limit_while_looking_is_waited_out(desk: Desk) -> None:
    text = fresh()
    delivery_id = await desk.unknown("mastodon", "drop_after", text)
    await desk.order("mastodon", "rate_limit", "*")
    step = await reconciling.reconcile(delivery_id)
    assert step.state is State.UNKNOWN
    assert step.wait > 0
    assert not step.parked
    another = await desk.post("mastodon", fresh())
    assert (await sending.send(another)).state is State.READY
    assert "too fast" in str((await desk.store.delivery(another)).reason)
    assert (await reconciling.reconcile(delivery_id)).state is State.LIVE


async def test_a_platform_that_never_answers_a_look_becomes_a_question_and_looks_go_on(
    desk: Desk,
) -> None:
    text = fresh()
    delivery_id = await desk.unknown("mastodon", "drop_after", text)
    await desk.aged(delivery_id, timedelta(hours=2))
    await desk.order("mastodon", "drop_before", "*", times=9)
    step = await reconciling.reconcile(delivery_id)
    assert (step.state, step.parked) == (State.UNKNOWN, True)
    asked = await asking.put(delivery_id)
    assert asked is not None
    assert asked.question is Question.OUTCOME
    assert asked.seen.who_acts == "an operator"
    await desk.calm()
    assert (await reconciling.reconcile(delivery_id)).state is State.LIVE


async def _doubted(desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str, text: str) -> str:
    """Return a delivery about which the platform cannot tell."""

    async def blind(self: Finds, sought: Any) -> Absence:
        return Absence.CANNOT_TELL

    monkeypatch.setattr(Mastodon, "find", blind)
    delivery_id = await desk.unknown("mastodon", what, text)
    assert (await reconciling.reconcile(delivery_id)).parked
    return delivery_id


async def test_the_first_answer_wins_and_the_other_hears_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery_id = await _doubted(desk, monkeypatch, "drop_after", fresh())
    asked = await asking.put(delivery_id)
    assert asked is not None
    url = "https://mastodon.example/@studio/1"
    await answering.settle(desk.store, asked.seen, Answer.THERE, url, actor="operator:anna")
    with pytest.raises(Conflict, match=r"faster.*live"):
        await answering.settle(desk.store, asked.seen, Answer.AGAIN, None, actor="operator:ben")
    row = await desk.store.delivery(delivery_id)
    assert (row.state, row.url, row.live_at is not None) == (State.LIVE, url, True)
    await taking_down.ask(row.post_id)
    assert (await taking_down.take_down(delivery_id)).state is State.LIVE  # Nobody knows its id.
    assert "delete it there" in str((await desk.store.delivery(delivery_id)).reason)
    told = "SELECT actor, facts FROM ledger WHERE subject = %s AND facts ? 'answer'"
    async with desk.store.engine.connect() as db:
        actor, facts = (await db.exec_driver_sql(told, (delivery_id,))).one()
    assert (actor, facts["answer"], facts["to"]) == ("operator:anna", "there", "live")
    assert (await desk.store.verify()).broken is None


async def test_send_again_sends_once_more_and_asks_anew_if_that_is_lost_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = fresh()
    delivery_id = await _doubted(desk, monkeypatch, "drop_before", text)
    first = await asking.put(delivery_id)
    assert first is not None
    await answering.settle(desk.store, first.seen, Answer.AGAIN, None, actor="operator:anna")
    await desk.order("mastodon", "drop_after", "status")
    assert (await sending.send(delivery_id)).state is State.UNKNOWN
    with pytest.raises(Conflict):
        await answering.settle(desk.store, first.seen, Answer.AGAIN, None, actor="operator:ben")
    await desk.aged(delivery_id)
    await reconciling.reconcile(delivery_id)
    second = await asking.put(delivery_id)
    assert second is not None
    assert second.key != first.key
    assert await desk.there(text) == 1


async def test_nobody_answers_what_is_still_being_looked_for(desk: Desk) -> None:
    delivery_id = await desk.unknown("mastodon", "drop_after", fresh())
    seen = await desk.store.delivery(delivery_id)
    with pytest.raises(Conflict, match="still looks"):
        await answering.settle(desk.store, seen, Answer.AGAIN, None, actor="operator:anna")


async def test_a_late_post_goes_once_an_operator_says_so(desk: Desk) -> None:
    text = fresh()
    delivery_id = await desk.post("bluesky", text, late="ask")
    async with desk.store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET due_at = now() - interval '20 minutes' WHERE id = %s",
            (delivery_id,),
        )
    assert (await sending.send(delivery_id)).state is State.HELD
    asked = await asking.put(delivery_id)
    assert asked is not None
    assert asked.question is Question.LATE
    assert text not in asked.words
    with pytest.raises(InvalidInput, match="publish, skip"):
        await answering.settle(desk.store, asked.seen, Answer.AGAIN, None, actor="operator:anna")
    decision = await answering.settle(
        desk.store, asked.seen, Answer.PUBLISH, None, actor="operator:anna"
    )
    assert decision.sends
    await preparing.compose(asked.seen.post_id)
    assert (await sending.send(delivery_id)).state is State.LIVE
    assert await desk.there(text) == 1


async def test_a_verdict_that_comes_after_its_send_was_taken_for_lost_is_believed(
    desk: Desk,
) -> None:
    delivery_id = await desk.unknown("bluesky", "drop_after", fresh())
    seen = await desk.store.delivery(delivery_id)
    assert seen.state is State.UNKNOWN
    async with desk.store.engine.begin() as db:  # As its crash would have left it.
        await db.exec_driver_sql("UPDATE attempt SET finished_at = NULL, verdict = NULL")
    attempt = (await desk.store.attempts_of(delivery_id))[-1]
    started = started_of(attempt, seen)
    receipt = Receipt("at://late", "https://bsky.example/late", {})
    verdict = sending.publishing.verdict_of(receipt, 1)
    await desk.store.settle(started, verdict, receipt, last=True, seconds=0.1)
    row = await desk.store.delivery(delivery_id)
    assert (row.state, row.url) == (State.LIVE, "https://bsky.example/late")


def started_of(attempt: Any, row: Any) -> Any:
    """Return what its sender knew of the attempt."""
    return Started(
        id=attempt.id,
        delivery_id=row.id,
        number=attempt.number,
        tries=row.attempts,
        part=attempt.part,
        prepared=list(row.prepared),
        worker=attempt.worker,
        at=attempt.started_at,
    )
