"""What somebody has to know is written with the change itself, and told once to each channel."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from clickpost.delivery import WAYS, State
from clickpost.draft import PostFile
from clickpost.errors import ContentRejected, InvalidInput
from clickpost.publishing import verdict_of
from clickpost.settings import PROJECT
from clickpost.store import NewChannel, NewConnection, NewPost, Store
from clickpost.store import notices as notices_module
from clickpost.store.approvals import gate
from clickpost.store.tables import Notice, Telling
from clickpost.telling import Event, Happening, event_of

LEASE = timedelta(minutes=2)
#: The states that somebody has to hear of: the issue's list.
TOLD = {"failed", "missed", "held", "unknown", "gone", "awaiting_approval"}


async def posted(store: Store, name: str = "studio") -> str:
    """Store a post with one delivery; return the delivery's id."""
    new = NewConnection("bluesky", name, "http://127.0.0.1:1", {"access_jwt": "secret"})
    connection = await store.add_connection(new)
    made = await store.create_post(NewPost(PostFile(text="canary words"), (), (connection.id,)))
    return (await store.deliveries_of(made.post_id))[0].id


async def channel(store: Store, *events: str, name: str = "ops") -> str:
    """Add a webhook that wants `events`, or all."""
    new = NewChannel(name, "webhook", {"url": "https://canary.example/x"}, events)
    return (await store.add_channel(await store.workspace_id(), new)).id


async def forced(store: Store, delivery_id: str, state: State) -> None:
    async with store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET state = %s WHERE id = %s", (state.value, delivery_id)
        )


async def all_notices(store: Store) -> list[Notice]:
    async with store.session() as session:
        return list((await session.scalars(select(Notice).order_by(Notice.id))).all())


async def all_tellings(store: Store) -> list[Telling]:
    async with store.session() as session:
        return list((await session.scalars(select(Telling).order_by(Telling.id))).all())


def test_the_states_that_need_somebody_are_those_that_are_told() -> None:
    assert {state for state in State if event_of(state, "an operator")} == {*TOLD, State.LIVE}
    assert event_of(State.UNKNOWN, "nobody yet") is None


@pytest.mark.parametrize("state", sorted(TOLD))
async def test_whatever_way_leads_there_a_notice_is_written_with_the_change(
    store: Store, state: str
) -> None:
    delivery_id = await posted(store)
    await channel(store)
    ways = [before for before in State if State(state) in WAYS[before]]
    for before in ways:
        await forced(store, delivery_id, before)
        await store.move(
            delivery_id, before, State(state), reason="because", who_acts="an operator"
        )
    found = await all_notices(store)
    assert [one.event for one in found] == [f"post.{state}"] * len(ways)
    assert len(await all_tellings(store)) == len(ways)
    assert found[0].facts["where"] == "bluesky/studio"
    assert "canary" not in str([one.facts for one in found])


async def test_the_verdict_of_a_send_is_told_too(store: Store) -> None:
    """Its row is read and locked first, and must not be told of as it was before."""
    delivery_id = await posted(store)
    await forced(store, delivery_id, State.READY)
    async with store.engine.begin() as db:
        ready = "UPDATE delivery SET content_hash = 'c', prepared = %s WHERE id = %s"
        await db.exec_driver_sql(ready, ('[{"state": {}, "ready": true}]', delivery_id))
    started = await store.begin_attempt(
        delivery_id, worker="w", part=0, intent={"content": "c"}, lease=LEASE, run_id=None
    )
    refused = ContentRejected("too long")
    await store.settle(started, verdict_of(refused, 1), refused, last=True, seconds=0.1)
    found = await all_notices(store)
    assert [(one.event, one.facts["state"]) for one in found] == [("post.failed", "failed")]
    assert found[0].facts["who_acts"] == "the writer"


async def test_what_is_live_is_an_event_that_no_channel_tells(store: Store) -> None:
    delivery_id = await posted(store)
    await channel(store)
    await forced(store, delivery_id, State.PROCESSING)
    await store.move(delivery_id, State.PROCESSING, State.LIVE)
    assert [one.event for one in await all_notices(store)] == [Event.LIVE]
    assert await all_tellings(store) == []
    async with store.unemitted(10) as waiting:
        assert [one.subject for one in waiting] == [delivery_id]


#: Functions that set a delivery's state by themselves and have nobody to tell, and why.
QUIET = {
    "_put_off": "plans anew",
    "_released": "plans anew",
    "_void": "plans anew",
    "_dropped": "cancels, as somebody asked",
    "resume": "plans anew",
    "begin_attempt": "is on its way",
    "_of_workspace": "the subscription's own notice tells of all",
    "_gated": "its callers tell what waits for approval, in `_asked`",
}


def _statements(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_whoever_sets_a_state_beside_the_one_way_tells_it_too() -> None:
    silent = []
    for path in (PROJECT / "clickpost" / "store").glob("*.py"):
        for one in _statements(ast.parse(path.read_text())):
            said = ast.unparse(one)
            sets = "state=" in said or (one.args.kwarg and f"**{one.args.kwarg.arg}" in said)
            if "update(Delivery)" not in said or not sets:
                continue
            if "notices.about_delivery" not in said and one.name not in QUIET:
                silent.append(f"{path.name}: {one.name}")
    assert silent == []


async def test_a_change_that_is_undone_tells_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery_id = await posted(store)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the ledger is away")

    monkeypatch.setattr("clickpost.store.deliveries.append", broken)
    with pytest.raises(RuntimeError):
        await store.move(delivery_id, State.PLANNED, State.FAILED)
    assert await all_notices(store) == []
    assert (await store.delivery(delivery_id)).state is State.PLANNED


async def test_a_notice_that_cannot_be_written_undoes_the_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silent: rather no change than one that nobody hears of."""
    delivery_id = await posted(store)

    async def broken(*_: object) -> None:
        raise RuntimeError("no notice")

    monkeypatch.setattr(notices_module, "write", broken)
    with pytest.raises(RuntimeError):
        await store.move(delivery_id, State.PLANNED, State.FAILED)
    assert (await store.delivery(delivery_id)).state is State.PLANNED


async def test_an_unknown_outcome_is_told_once_for_each_send_and_only_when_people_must_act(
    store: Store,
) -> None:
    delivery_id = await posted(store)
    await forced(store, delivery_id, State.SENDING)
    await store.move(
        delivery_id, State.SENDING, State.UNKNOWN, who_acts="nobody yet", sent_at=datetime.now(UTC)
    )
    assert await all_notices(store) == []
    for _ in range(3):  # The sweep notes it again and again.
        await store.note(delivery_id, reason="look at the account", who_acts="an operator")
    assert [one.event for one in await all_notices(store)] == ["post.unknown"]


async def test_a_pause_is_told_once_however_many_sends_meet_it(store: Store) -> None:
    await posted(store)
    connection = (await store.connections())[0]
    pauses = (store.set_connection_status(connection.id, "paused", "revoked") for _ in range(8))
    await asyncio.gather(*pauses)
    assert [one.event for one in await all_notices(store)] == ["connection.paused"]
    await store.set_connection_status(connection.id, "active", "")
    await store.set_connection_status(connection.id, "paused", "again")
    assert len(await all_notices(store)) == 2


async def test_a_channel_gets_what_it_asked_for(store: Store) -> None:
    delivery_id = await posted(store)
    everything = await channel(store, name="all")
    held = await channel(store, "post.held", "post.gone", name="held")
    await store.move(delivery_id, State.PLANNED, State.FAILED)
    assert [one.channel_id for one in await all_tellings(store)] == [everything]
    await store.move(delivery_id, State.FAILED, State.PLANNED)
    await store.move(delivery_id, State.PLANNED, State.HELD)
    assert [one.channel_id for one in await all_tellings(store)].count(held) == 1


async def test_the_same_happening_is_one_notice(store: Store) -> None:
    await channel(store)
    what = Happening(Event.GUARD, "sweep", "guard:1", {})
    made = await asyncio.gather(*(store.notify(what) for _ in range(10)))
    assert len([one for one in made if one]) == 1
    assert len(await all_tellings(store)) == 1


async def test_of_many_workers_one_takes_a_telling_and_a_dead_ones_are_taken_again(
    store: Store,
) -> None:
    channel_id = await channel(store)
    for number in range(30):
        await store.notify(Happening(Event.GUARD, "sweep", f"guard:{number}", {}))
    now = datetime.now(UTC)
    taken = await asyncio.gather(
        *(store.claim_tellings(channel_id, 7, now, LEASE) for _ in range(8))
    )
    ids = [due.telling_id for batch in taken for due in batch]
    assert len(ids) == len(set(ids)) == 30
    assert await store.claim_tellings(channel_id, 50, now, LEASE) == []
    again = await store.claim_tellings(channel_id, 50, now + LEASE, LEASE)
    assert {due.telling_id for due in again} == set(ids)
    assert {due.tries for due in again} == {2}


async def test_what_was_told_is_never_told_again(store: Store) -> None:
    channel_id = await channel(store)
    await store.notify(Happening(Event.GUARD, "sweep", "guard:1", {}))
    now = datetime.now(UTC)
    due = await store.claim_tellings(channel_id, 50, now, LEASE)
    await store.told([due[0].telling_id])
    await store.not_told(due, "a late answer", now)  # Of a worker that was taken for dead.
    assert await store.claim_tellings(channel_id, 50, now + timedelta(days=2), LEASE) == []
    assert await store.untold(now) == []


async def test_a_telling_is_given_up_after_a_day_and_the_status_knows(store: Store) -> None:
    channel_id = await channel(store)
    await store.notify(Happening(Event.GUARD, "sweep", "guard:1", {}))
    now = datetime.now(UTC)
    due = await store.claim_tellings(channel_id, 50, now, LEASE)
    assert await store.not_told(due, "answered 500", now + timedelta(minutes=1)) == 0
    assert [(one.state, one.reason) for one in await store.untold(now)] == [
        ("waiting", "answered 500")
    ]
    assert await store.not_told(due, "answered 500", now + timedelta(hours=25)) == 1
    assert [one.state for one in await store.untold(now)] == ["given_up"]


async def test_events_stay_until_prefect_took_them(store: Store) -> None:
    await store.notify(Happening(Event.GUARD, "sweep", "guard:1", {}))
    with suppress(ConnectionError):
        async with store.unemitted(10) as found:
            assert len(found) == 1
            raise ConnectionError
    async with store.unemitted(10) as found:
        assert len(found) == 1
        async with store.unemitted(10) as meanwhile:  # Another worker sees none of it.
            assert meanwhile == []
    async with store.unemitted(10) as found:
        assert found == []


async def test_a_channels_address_is_sealed_and_survives_new_keys(store: Store) -> None:
    await channel(store)
    async with store.engine.connect() as db:
        row = (await db.exec_driver_sql("SELECT secrets, events::text FROM channel")).one()
    assert b"canary" not in bytes(row[0])
    assert await store.seal_channels_anew() == 1
    opened = store.channel_secrets(await store.channel("ops"))
    assert opened == {"url": "https://canary.example/x"}
    with pytest.raises(InvalidInput, match="exists"):
        await channel(store)


async def test_a_channel_that_is_removed_takes_what_waits_with_it(store: Store) -> None:
    await channel(store)
    await store.notify(Happening(Event.GUARD, "sweep", "guard:1", {}))
    assert await store.remove_channel("ops") == 1
    assert await store.channels() == []
    assert await all_tellings(store) == []
    assert len(await all_notices(store)) == 1


async def test_what_waits_for_approval_is_told_and_a_refusal_too(store: Store) -> None:
    delivery_id = await posted(store)
    async with store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE workspace SET approval = true")
        await db.exec_driver_sql(
            "UPDATE delivery SET state = 'ready', content_hash = 'c' WHERE id = %s", (delivery_id,)
        )
    async with store.transaction() as session:
        await gate(session, [delivery_id])
    assert [one.event for one in await all_notices(store)] == ["post.awaiting_approval"]
    asked = (await store.open_approvals())[0]
    await store.decide(asked, approve=False, by="somebody")
    found = await all_notices(store)
    assert [one.event for one in found] == ["post.awaiting_approval", "post.failed"]
    assert found[1].facts["who_acts"] == "the writer"
