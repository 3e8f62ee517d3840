"""What a platform's user had connected is erased where the platform asks for it, and no more."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.requests import Door, Kind
from clickpost.settings import Settings
from clickpost.store import NewConnection, Store
from clickpost.store.erasures import Erasures
from clickpost.store.grants import Grants
from clickpost.store.tables import SubjectRequest
from clickpost.store.tombstones import Tombstones
from tasks import doors, erasing, replaying, requests
from tasks._wiring import House
from tasks.doors import Asked
from tests.store.test_erasure import add, everything, rows
from tests.store.test_erasure_runs import Parrot, house, speaks
from tests.store.test_requests import member

__all__ = ["house"]

NOW = datetime.now(UTC)
#: What a platform told us of its user, or was told in their name.
THEIRS = ("ann.photos", "ig-4711", "app-4711", "parrots-not-ravens", "p/AbC", "17895695")


async def connected(store: Store, name: str = "shop", states: tuple[str, ...] = ()) -> str:
    """Connect an account of Ann's with a delivery in each state; return its id."""
    row = await store.add_connection(
        NewConnection(
            "instagram",
            name,
            "https://graph.instagram.com",
            {"access_token": "secret-token"},
            handle="ann.photos",
            remote_id="ig-4711" + name,
            url="https://www.instagram.com/ann.photos",
            app_user_id="app-4711",
        )
    )
    for number, state in enumerate(states):
        post = await add(
            store, "post", id=f"post_{name}_{number}", workspace_id=row.workspace_id,
            content_hash="h", late="publish", draft=False, created_at=NOW,
            body={"post": {"text": "an author's own words"}},
        )  # fmt: skip
        delivery = await add(
            store, "delivery", id=f"delivery_{name}_{number}", post_id=post, connection_id=row.id,
            state=state, key=f"k{name}{number}", attempts=0, remote_id="17895695",
            url="https://www.instagram.com/p/AbC", message=[{"text": "parrots-not-ravens"}],
            receipts=[{"remote_id": "17895695", "url": "https://www.instagram.com/p/AbC"}],
            created_at=NOW, updated_at=NOW,
        )  # fmt: skip
        await add(
            store, "attempt", id=f"attempt_{name}_{number}", delivery_id=delivery, number=1,
            part=0, worker="w", started_at=NOW, intent={"container": "17895695"},
            detail="ann.photos may not do that",
        )  # fmt: skip
    return row.id


async def asked(
    settings: Settings, store: Store, *connection_ids: str, tokens: bool = False
) -> SubjectRequest:
    """Take a request in as Meta's callback does, unless `tokens` are to stay."""
    for one in () if tokens else connection_ids:
        await Grants(store.engine, store.vault).end(one, "its owner removed ClickPost")
    wanted = Asked(Kind.ERASURE, Door.PLATFORM, connection_ids=connection_ids, once="said once")
    row, _ = await doors.receive(settings, store, wanted, "instagram")
    return await store.verify_request(row.id, "platform", "instagram")


async def test_all_accounts_of_the_user_are_erased_and_the_answer_is_certified(
    settings: Settings, store: Store, house: House
) -> None:
    first = await connected(store, "shop", ("live", "planned", "unknown", "processing"))
    second = await connected(store, "again")
    request = await asked(settings, store, first, second)
    done = await erasing.run_request(request.id)
    assert done.state == "complete", done.said
    left = await everything(store)
    assert [word for word in THEIRS if word in left] == []
    assert "an author's own words" in left, "what somebody wrote here is not the platform's"
    assert not await rows(store, "SELECT 1 FROM connection WHERE id = :id", id=second)
    states = await rows(store, "SELECT state FROM delivery ORDER BY id")
    assert [one.state for one in states] == ["live", "cancelled", "failed", "failed"]

    request = await store.request(request.id)
    assert (request.state, request.outcome) == ("certified", "done")
    certificates = await rows(
        store, "SELECT id FROM certificate WHERE request = :id", id=request.id
    )
    assert len(certificates) == 2
    assert (await requests.handle(request.id)).state == "answered"
    again = await erasing.run_request(request.id)
    assert again.state == "complete"
    assert len(await Erasures(store.engine, store.vault).of_request(request.id)) == 2


async def test_handling_starts_the_erasure_and_not_an_operator(
    settings: Settings, store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    async def carry_out(store: Store, standing: requests.Standing, row: SubjectRequest) -> object:
        started.append(str(standing.flow))
        return requests.Handled(row.id, requests.Step.CARRY_OUT, row.state)

    monkeypatch.setattr(requests, "_carry_out", carry_out)
    request = await asked(settings, store, await connected(store))
    await requests.handle(request.id)
    assert started == ["erase-subject"]
    nobody = await asked_of_nobody(settings, store)
    assert (await requests.handle(nobody.id)).state == "answered"
    assert (await store.request(nobody.id)).outcome == "nothing_held"


async def asked_of_nobody(settings: Settings, store: Store) -> SubjectRequest:
    wanted = Asked(Kind.ERASURE, Door.PLATFORM, once="a stranger")
    row, _ = await doors.receive(settings, store, wanted, "instagram")
    return await store.verify_request(row.id, "platform", "instagram")


async def test_the_only_member_of_the_business_is_a_question_for_an_operator(
    settings: Settings, store: Store, house: House
) -> None:
    who, _ = await member(store, "ann@example.org")
    request = await asked(settings, store, await connected(store))
    for _ in range(2):
        await erasing.run_request(request.id)
    [whose] = [one for one in await store.subject_requests() if one.id != request.id]
    assert (whose.kind, whose.state, whose.door) == ("erasure", "received", "platform")
    assert who in store.request_secrets(whose)["details"]
    assert (await requests.handle(whose.id)).step is requests.Step.ASK
    assert await rows(store, "SELECT 1 FROM member WHERE id = :id", id=who), "nobody looked yet"


async def test_a_grant_that_still_lives_is_revoked_and_what_is_being_sent_is_waited_for(
    settings: Settings, store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    parrot = Parrot()
    speaks(monkeypatch, parrot)
    connection_id = await connected(store, "shop", ("sending",))
    await rows(
        store,
        "UPDATE delivery SET lease_owner = 'w', lease_until = now() + interval '1 hour'",
    )
    request = await asked(settings, store, connection_id, tokens=True)
    waits = await erasing.run_request(request.id)
    assert (waits.state, parrot.revoked) == ("waiting", 1)
    assert "1 deliveries are being sent" in waits.said
    assert (await store.request(request.id)).state == "planned", "nothing is said to be done"
    await rows(store, "UPDATE delivery SET lease_until = now() - interval '1 second'")
    [done] = await resumed(store)
    assert (done.state, parrot.revoked) == ("complete", 1)
    assert (await store.request(request.id)).state == "certified"


async def test_an_operator_erases_an_account_by_its_id(
    settings: Settings, store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks(monkeypatch, Parrot())
    monkeypatch.setattr(_house, "settings", lambda: settings)
    logging.getLogger("clickpost").handlers.clear()
    connection_id = await connected(store, "shop", ("live",))
    words = ["privacy", "plan", connection_id, "--json"]
    answer = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert answer.exit_code == 0, answer.output
    plan = json.loads(answer.stdout)
    assert [one["location"] for one in plan["plan"]] == ["attempt", "delivery", "connection"]
    await Erasures(store.engine, store.vault).approve(plan["erasure"], "operator")
    assert (await erasing.carry_out(house, plan["erasure"])).state == "complete"
    left = await everything(store)
    assert [word for word in THEIRS if word in left] == []


async def test_an_account_without_its_tokens_is_listed_like_any_other(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_house, "settings", lambda: settings)
    secrets = {"access_token": "t", "client_id": "app"}
    new = NewConnection("x", "shop", "https://api.x.com", secrets)
    row = await store.add_connection(new)
    await Grants(store.engine, store.vault).end(row.id, "its owner removed ClickPost")
    for words in (["connections"], ["connections", "--json"]):
        answer = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert answer.exit_code == 0, answer.output
        assert "revoked" in answer.output


async def resumed(store: Store) -> list[erasing.Ended]:
    await rows(store, "UPDATE erasure SET again_at = now() - interval '1 second'")
    return await erasing.resume()


async def test_it_is_done_again_in_a_restored_database(
    settings: Settings, store: Store, house: House
) -> None:
    connection_id = await connected(store, "shop", ("live",))
    before = await rows(store, "SELECT * FROM connection WHERE id = :id", id=connection_id)
    request = await asked(settings, store, connection_id)
    await erasing.run_request(request.id)
    kept = Tombstones.of(settings, house.vault)
    [stone] = [one for one in kept.lines() if one.kind == "tombstone"]
    digests = await store.subjects_of("connection", [stone.subject], kept)
    assert stone.policy == "connection"
    assert list(digests.values()) == [before[0].id]
    assert (await replaying.replay(house)).was_restored is False
