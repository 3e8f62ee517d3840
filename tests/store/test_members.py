"""People are found by digest, and told as they want it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from clickpost.store import NewChannel, Store
from clickpost.store.members import ALL
from clickpost.store.tables import Notice, Telling
from clickpost.store.vault import Vault, add_key, forget_former
from clickpost.telling import Event, Happening

from .test_purging import rows

BY = "operator:tests"
LEASE = timedelta(minutes=1)
runner = CliRunner(env={"COLUMNS": "200"})


async def ann(store: Store, email: str = "Ann@Example.org") -> str:
    return (await store.add_member(await store.workspace_id(), email, "Ann", "owner", BY)).id


async def channel(store: Store, member_id: str | None, name: str = "ann") -> str:
    new = NewChannel(name, "email", {"address": "x"}, (), member_id)
    return (await store.add_channel(await store.workspace_id(), new)).id


async def happened(store: Store, event: Event, once: str) -> None:
    assert await store.notify(Happening(event, "dlv_1", once, {"where": "bluesky/studio"}))


async def told(store: Store) -> list[str]:
    """Return the events of what waits for a channel, in their order."""
    async with store.session() as session:
        query = select(Notice.event).join(Telling, Telling.notice_id == Notice.id)  # type: ignore[arg-type]
        found = await session.scalars(query.where(Telling.state == "waiting").order_by(Notice.id))
        return list(found.all())


async def test_a_preference_is_honoured_by_every_event(store: Store) -> None:
    member = await ann(store)
    await channel(store, member)
    await channel(store, None, "team")
    for event in Event:
        await store.prefer(member, event.value, "email", wanted=False, by=BY)
        await happened(store, event, f"once:{event}")
    found = await told(store)
    assert len(found) == len(set(found)), "only the team's channel is told"
    await store.prefer(member, Event.FAILED.value, "email", wanted=True, by=BY)
    await happened(store, Event.FAILED, "again")
    assert (await told(store)).count("post.failed") == 3


async def test_what_is_said_of_one_event_counts_before_what_is_said_of_all(store: Store) -> None:
    member = await ann(store)
    await channel(store, member)
    await store.prefer(member, ALL, "email", wanted=False, by=BY)
    await store.prefer(member, Event.GONE.value, "email", wanted=True, by=BY)
    await store.prefer(member, Event.FAILED.value, "chat", wanted=True, by=BY)
    for event in (Event.GONE, Event.FAILED, Event.HELD):
        await happened(store, event, event.value)
    assert await told(store) == ["post.gone"]


async def test_who_says_so_later_is_not_told_what_was_written_before(store: Store) -> None:
    member = await ann(store)
    channel_id = await channel(store, member)
    await happened(store, Event.FAILED, "one")
    await happened(store, Event.GONE, "two")
    await store.prefer(member, Event.FAILED.value, "email", wanted=False, by=BY)
    due = await store.claim_tellings(channel_id, 10, datetime.now(UTC), LEASE)
    assert [one.said.event for one in due] == ["post.gone"]
    states = [row.state for row in await rows(store, "SELECT state FROM telling ORDER BY id")]
    assert sorted(states) == ["unwanted", "waiting"]


async def test_who_left_is_told_nothing(store: Store) -> None:
    member = await ann(store)
    await channel(store, member)
    await store.let_go(member, BY)
    await happened(store, Event.FAILED, "one")
    assert await told(store) == []
    with pytest.raises(InvalidInput, match="left already"):
        await store.let_go(member, BY)
    assert await ann(store) != member, "who left may come back"


async def test_digests_outlive_the_master_key_and_any_spelling(
    store: Store, settings: Settings
) -> None:
    member = await ann(store)
    add_key(settings.home / "master.key")
    await store.seal_requests_anew()
    forget_former(settings.home / "master.key")
    again = await Store.open(str(settings.database_url.get_secret_value()), Vault.of(settings))  # type: ignore[union-attr]
    assert [one.id for one in await again.members_at("ann@example.ORG ")] == [member]
    with pytest.raises(InvalidInput, match="is that of mem_"):
        await again.add_member(await again.workspace_id(), "ann@example.org", None, "viewer", BY)
    await again.close()


async def test_addresses_that_came_in_without_a_digest_get_one(store: Store) -> None:
    workspace = await store.workspace_id()
    for number in range(3):
        await rows(
            store,
            "INSERT INTO ticket (id, workspace_id, title, status, email, opened_at)"
            " VALUES (:id, :w, 't', 'open', 'bob@example.org', now())",
            id=f"ticket_{number}", w=workspace,
        )  # fmt: skip
    assert await store.fill_digests() == 3
    assert await store.fill_digests() == 0
    found = await rows(store, "SELECT DISTINCT email_digest FROM ticket")
    assert [row.email_digest for row in found] == [await store.address_digest("BOB@example.org")]


async def test_what_people_said_is_recorded_and_shown(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_house, "settings", lambda: settings)

    async def ran(*words: str, code: int = 0, given: str = "") -> Any:
        said = [*words, "--json"]
        answer = await asyncio.to_thread(runner.invoke, app, said, input=given)
        assert answer.exit_code == code, answer.output
        return json.loads(answer.stdout)

    on = "workspaces"
    member = (await ran(on, "member", "add", "ann@example.org", "--name", "Ann"))["member"]
    assert (await ran(on, "member", "list"))[0]["email"] == "ann@example.org"
    consent = (await ran(on, "consent", "give", member, "news", "--wording", "v1"))["consent"]
    await ran(on, "consent", "withdraw", consent)
    assert (await ran(on, "consent", "list", member))[0]["withdrawn_at"]
    assert "no consent" in (await ran(on, "consent", "withdraw", consent, code=2))["error"]
    await ran(on, "preference", "set", member, "all", "email", "--unwanted")
    wanted = [{"event": "all", "way": "email", "wanted": False}]
    assert await ran(on, "preference", "list", member) == wanted
    wrong = await ran(on, "preference", "set", member, "nothing", "email", "--wanted", code=2)
    assert "EVENT: all, or" in wrong["error"]
    ticket = (await ran(on, "ticket", "open", "Help", "--member", member, given="Hi"))["ticket"]
    await ran(on, "ticket", "say", ticket, "Hello")
    written = [one["text"] for one in await ran(on, "ticket", "show", ticket)]
    assert written == ["Hi", "Hello"]
    await ran(on, "ticket", "close", ticket)
    assert (await ran(on, "ticket", "list"))[0]["status"] == "closed"
    assert "no open ticket" in (await ran(on, "ticket", "say", ticket, "x", code=2))["error"]
    await ran(on, "member", "left", member)
    lines = await rows(store, "SELECT facts::text || subject AS said FROM ledger")
    assert not [line for line in lines if "ann@" in line.said or "Hello" in line.said]


async def test_a_channel_to_a_members_address_is_theirs(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = {"smtp_host": "127.0.0.1", "smtp_from": "clickpost@example.org"}
    given = settings.model_copy(update=mail)
    monkeypatch.setattr(_house, "settings", lambda: given)
    member = await ann(store)
    words = ["notify", "add", "ann", "--email", "ann@example.org", "--json"]
    answer = await asyncio.to_thread(runner.invoke, app, words)
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["member"] == member
