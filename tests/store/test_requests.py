"""The queue of requests: guarded, once for each mail, and without an address once all is told."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from clickpost.errors import Conflict, InvalidInput
from clickpost.policy import requesting
from clickpost.requests import WAYS, Door, Kind, State
from clickpost.settings import PROJECT
from clickpost.store import NewRequest, Store
from clickpost.store._base import now
from clickpost.store.requests import MOST_TRIES, Challenge
from clickpost.store.tables import SubjectRequest

RULES = requesting.load(PROJECT / "policies")
ADDRESS = "Canary.Person@example.org"


def asked(kind: Kind = Kind.ERASURE, law: str = "gdpr", **more: object) -> NewRequest:
    clocks = RULES.named(law).clocks(kind, now())
    given = {"address": ADDRESS, "door": Door.API} | more
    return NewRequest(kind=kind, jurisdiction=law, clocks=clocks, **given)  # type: ignore[arg-type]


async def opened(store: Store, **more: object) -> SubjectRequest:
    return (await store.open_request(asked(**more)))[0]  # type: ignore[arg-type]


async def challenged(store: Store, link: str = "word", reply: str = "ABCD2345") -> SubjectRequest:
    row = await opened(store)
    await store.challenge_request(row.id, Challenge(link, reply, now() + timedelta(hours=1)))
    return row


async def forced(store: Store, request_id: str, state: State) -> None:
    async with store.engine.begin() as connection:
        await connection.execute(
            text("UPDATE subject_request SET state = :state WHERE id = :id"),
            {"state": state.value, "id": request_id},
        )


async def everything(store: Store) -> str:
    """Return all that the database says of requests and in its ledger."""
    async with store.engine.connect() as connection:
        rows = await connection.execute(text("SELECT r::text FROM subject_request r"))
        lines = await connection.execute(text("SELECT l::text FROM ledger l"))
        return "\n".join([*rows.scalars(), *lines.scalars()])


async def member(store: Store, address: str, *, role: str = "publisher") -> tuple[str, str]:
    workspace_id = (await store.workspaces())[0].id
    async with store.engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO member (id, workspace_id, name, email, email_digest, role, created_at)"
                " VALUES ('mem_1', :workspace, 'P', :email, :digest, :role, now())"
            ),
            {
                "workspace": workspace_id,
                "email": address,
                "digest": await store.address_digest(address),
                "role": role,
            },
        )
    return "mem_1", workspace_id


async def test_the_same_mail_twice_is_one_request(store: Store) -> None:
    both = await asyncio.gather(*(store.open_request(asked(once="<id@mail>")) for _ in range(4)))
    assert len({row.id for row, _ in both}) == 1
    assert sum(new for _, new in both) == 1
    assert "id@mail" not in await everything(store)


async def test_no_address_stands_in_a_row_or_in_the_ledger(store: Store) -> None:
    row = await opened(store, details="I am Canary Person", references={"stripe": "cus_canary"})
    assert "canary" not in (await everything(store)).casefold()
    said = store.request_secrets(row)
    assert said["address"] == ADDRESS
    assert said["details"] == "I am Canary Person"
    assert "cus_canary" in said["references"]


@pytest.mark.parametrize("before", list(State))
async def test_a_request_moves_only_along_the_ways(store: Store, before: State) -> None:
    row = await opened(store)
    for after in State:
        await forced(store, row.id, before)
        if after in WAYS[before]:
            assert (await store.move_request(row.id, after)).state == after
        elif after is before:
            assert (await store.move_request(row.id, after)).state == before
        else:
            try:
                assert (await store.move_request(row.id, after)).state == before
            except Conflict:
                assert (await store.request(row.id)).state == before


async def test_a_link_confirms_once_and_matches_the_member(store: Store) -> None:
    member_id, workspace_id = await member(store, "canary.person@EXAMPLE.org")
    row = await challenged(store)
    assert (await store.request_of_link("word", now())).id == row.id  # type: ignore[union-attr]
    both = await asyncio.gather(*(store.confirm_by_link("word") for _ in range(4)))
    assert sum(one is not None for one in both) == 1
    found = await store.request(row.id)
    assert (found.state, found.verified_by) == ("verified", "link")
    assert (found.member_id, found.workspace_id) == (member_id, workspace_id)
    assert await store.request_of_link("word", now()) is None


async def test_a_link_past_its_time_or_replaced_confirms_nothing(store: Store) -> None:
    row = await challenged(store)
    await store.challenge_request(row.id, Challenge("other", "X", now() + timedelta(hours=1)))
    assert await store.confirm_by_link("word") is None
    await store.challenge_request(row.id, Challenge("old", "X", now() - timedelta(seconds=1)))
    assert await store.confirm_by_link("old") is None
    assert (await store.request(row.id)).state == "received"


async def test_a_reply_confirms_from_its_address_with_its_code_alone(store: Store) -> None:
    row = await challenged(store)
    assert await store.confirm_by_reply("somebody@else.example", "ABCD2345") is None
    assert await store.confirm_by_reply(ADDRESS, "ABCD2346") is None
    found = await store.confirm_by_reply(ADDRESS.upper(), "abcd2345")
    assert found is not None
    assert (found.id, found.verified_by) == (row.id, "reply")


async def test_codes_cannot_be_tried_out(store: Store) -> None:
    await challenged(store)
    for _ in range(MOST_TRIES):
        assert await store.confirm_by_reply(ADDRESS, "WRONG") is None
    assert await store.confirm_by_reply(ADDRESS, "ABCD2345") is None
    assert await store.confirm_by_link("word") is not None  # 256 bits are not for guessing.


async def test_an_erasure_goes_its_way_and_may_be_repeated(store: Store) -> None:
    row = await opened(store)
    await store.verify_request(row.id, "operator", "operator:ann")
    for _ in range(2):
        await store.request_planned(row.id)
    await store.request_approved(row.id, "operator:ann")
    await store.request_executed(row.id)
    assert (await store.request_planned(row.id)).state == "executed"
    await store.request_read_back(row.id)
    await store.request_executed(row.id)  # The look found something left.
    await store.request_read_back(row.id)
    await store.request_certified(row.id, "cert_1")
    assert row.id in await store.requests_to_handle()
    done = await store.answer_request(row.id, "done")
    assert (done.state, done.certificate_id) == ("answered", "cert_1")
    await store.request_told(row.id)
    told = await store.request(row.id)
    assert told.told_at is not None
    assert store.request_secrets(told) == {}
    assert await store.requests_to_handle() == []


async def test_what_was_begun_is_neither_refused_nor_taken_back(store: Store) -> None:
    row = await opened(store)
    await forced(store, row.id, State.EXECUTED)
    with pytest.raises(Conflict):
        await store.refuse_request(row.id, "unverified", None, "operator:ann")
    with pytest.raises(Conflict):
        await store.withdraw_request(row.id, "subject")


async def test_a_longer_time_is_given_once(store: Store) -> None:
    row = await opened(store)
    later = row.due_at + timedelta(days=60)
    both = await asyncio.gather(
        *(store.extend_request(row.id, later, "many requests", "operator:ann") for _ in range(3)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Conflict) for one in both) == 2
    assert (await store.request(row.id)).due_at == later


async def test_a_stopped_clock_goes_on_where_it_stood(store: Store) -> None:
    row = await opened(store, law="uk")
    await store.pause_request(row.id, "operator:ann")
    with pytest.raises(Conflict):
        await store.pause_request(row.id, "operator:ann")
    await asyncio.sleep(0.05)
    found = await store.resume_request(row.id, "operator:ann")
    assert found.due_at > row.due_at
    with pytest.raises(InvalidInput):
        await store.resume_request(row.id, "operator:ann")


async def test_an_owner_speaks_for_the_account_and_others_do_not(store: Store) -> None:
    await member(store, ADDRESS, role="owner")
    workspace_id = (await store.workspaces())[0].id
    row = await opened(store, about="account", workspace_id=workspace_id)
    assert (await store.verify_request(row.id, "link", "subject")).authority == "owner"
    async with store.engine.begin() as connection:
        await connection.execute(text("UPDATE member SET role = 'publisher'"))
    row = await opened(store, about="account", workspace_id=workspace_id)
    assert (await store.verify_request(row.id, "link", "subject")).authority is None


async def test_digests_outlive_the_rotation_of_the_master_key(store: Store) -> None:
    before = await store.address_digest(ADDRESS)
    row = await opened(store)
    assert await store.seal_requests_anew() == 2
    store._subject_key = None
    assert await store.address_digest(ADDRESS) == before
    assert store.request_secrets(await store.request(row.id))["address"] == ADDRESS


async def test_a_request_is_found_by_its_id_and_its_code(store: Store) -> None:
    row = await opened(store)
    assert (await store.request(row.code.lower())).id == row.id
    with pytest.raises(InvalidInput):
        await store.request("req_nobody")
