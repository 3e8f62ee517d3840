"""A webhook is accepted once, when its sender can sign; Prefect hears ids, never the body."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import select

from clickpost.errors import InvalidInput
from clickpost.hooks import LARGEST, Call, Verdict, judge, new_secret
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Channel, Notice
from clickpost.store.vault import Vault
from clickpost.telling import Event, Happening, signed
from deployments import hooks
from tests.gateway.conftest import Prefect, serving

SECRET = new_secret()
BODY = b'{"canary": "a private letter"}'


@pytest.fixture
async def hook(store: Store) -> Channel:
    return await store.add_hook(await store.workspace_id(), "cms", SECRET)


def signature(call_id: str = "msg_1", body: bytes = BODY, **more: Any) -> dict[str, str]:
    at = more.get("at", datetime.now(UTC))
    return signed(call_id, body, more.get("secret", SECRET), at)


async def call(
    http: httpx.AsyncClient, headers: dict[str, str], body: bytes = BODY
) -> httpx.Response:
    return await http.post("/hooks/cms", content=body, headers=headers)


async def notices(store: Store) -> list[Notice]:
    async with store.session() as session:
        return list((await session.scalars(select(Notice))).all())


async def heard(prefect: Prefect, number: int) -> list[dict[str, Any]]:
    for _ in range(200):
        if len(prefect.events) >= number:
            break
        await asyncio.sleep(0.02)
    return prefect.events


async def test_a_signed_call_is_durable_and_becomes_an_event_of_ids(
    http: httpx.AsyncClient, store: Store, hook: Channel, prefect: Prefect
) -> None:
    answer = await call(http, signature())
    assert answer.status_code == 202
    [notice] = await notices(store)
    assert answer.json() == {"id": notice.id}
    [event] = await heard(prefect, 1)
    assert event["event"] == "hook.cms"
    assert event["resource"] == {"prefect.resource.id": f"clickpost.hook.{hook.id}"}
    assert event["payload"]["notice_id"] == notice.id
    assert "canary" not in str(event)
    assert "msg_1" not in str(event)
    assert await store.hook_body(notice.id) == BODY
    assert "canary" not in str(notice.facts)


async def test_the_same_id_is_accepted_once_however_many_come_at_once(
    http: httpx.AsyncClient, store: Store, hook: Channel, prefect: Prefect
) -> None:
    answers = await asyncio.gather(*(call(http, signature()) for _ in range(20)))
    assert sorted(one.status_code for one in answers) == [200] * 19 + [202]
    assert len({one.json()["id"] for one in answers}) == 1
    assert len(await notices(store)) == 1
    await heard(prefect, 1)
    await asyncio.sleep(0.1)
    assert len(prefect.events) == 1


async def test_whoever_cannot_sign_learns_nothing(
    http: httpx.AsyncClient, store: Store, hook: Channel
) -> None:
    good = signature()
    wrong = [
        await call(http, {}),
        await call(http, signature(secret=new_secret())),
        await call(http, good, b"another body"),
        await call(http, good | {"webhook-id": "msg_2"}),
        await call(http, good | {"webhook-timestamp": "1"}),
        await call(http, good | {"webhook-signature": ""}),
        await call(http, good | {"webhook-signature": b"v1,\xe9"}),
        await http.post("/hooks/nobody", content=BODY, headers=good),
        await http.post("/hooks/UPPER", content=BODY, headers=good),
        await http.get("/hooks/cms"),
        await http.get("/nowhere"),
    ]
    assert {(one.status_code, one.text) for one in wrong} == {(404, "Not found.\n")}
    assert len({tuple(sorted(one.headers.items())) for one in wrong}) == 1
    assert await notices(store) == []


@pytest.mark.parametrize("minutes", [-6, 6])
async def test_a_call_that_is_not_of_now_is_refused(
    http: httpx.AsyncClient, store: Store, hook: Channel, minutes: int
) -> None:
    answer = await call(http, signature(at=datetime.now(UTC) + timedelta(minutes=minutes)))
    assert answer.status_code == 400
    assert await notices(store) == []


async def test_a_large_body_is_refused(
    http: httpx.AsyncClient, store: Store, hook: Channel
) -> None:
    fits, body = b"x" * LARGEST, b"x" * (LARGEST + 1)
    assert (await call(http, signature(body=body), body)).status_code == 413
    assert (await call(http, signature(body=fits), fits)).status_code == 202


async def test_a_flood_is_written_together_and_told_together_and_each_call_is_found(
    http: httpx.AsyncClient,
    store: Store,
    hook: Channel,
    prefect: Prefect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "_PACE", 0.05)
    writes: list[int] = []
    real = Store.accept_all

    async def counted(store: Store, calls: Any) -> Any:
        writes.append(len(calls))
        return await real(store, calls)

    monkeypatch.setattr(Store, "accept_all", counted)
    headers = [signature(f"msg_{number}") for number in range(200)]
    answers = await asyncio.gather(*(call(http, one) for one in headers + headers[:20]))
    assert sorted(one.status_code for one in answers) == [200] * 20 + [202] * 200
    accepted = {one.json()["id"] for one in answers}
    assert len(accepted) == 200
    assert sum(writes) == 220
    assert len(writes) < 30
    found: list[str] = []
    for _ in range(100):
        await asyncio.sleep(0.02)
        found = []
        for event in prefect.events:
            [related] = event["related"]
            name = related["prefect.resource.id"].removeprefix("clickpost.calls.")
            found += await store.calls_heard_with(name)
        if len(found) == 200:
            break
    assert sorted(found) == sorted(accepted)
    assert len(prefect.events) < 20
    assert await waiting(store) == []


async def waiting(store: Store) -> list[str]:
    async with store.unemitted_calls(1000) as calls:
        return [one.id for one in calls]


async def test_which_calls_are_told_together_outlives_a_crash(
    store: Store, hook: Channel, settings: Settings, prefect: Prefect
) -> None:
    def made(number: int) -> tuple[Channel, Call]:
        return hook, Call(f"msg_{number}", "1", "", BODY)

    first = [kept for kept, _ in await store.accept_all([made(n) for n in range(3)])]
    with pytest.raises(RuntimeError, match="killed"):
        async with store.unemitted_calls(1000):
            raise RuntimeError("killed")
    later = [kept for kept, _ in await store.accept_all([made(n) for n in range(5)])]
    assert later[:3] == first
    async with serving(settings):
        events = await heard(prefect, 2)
    told = [await store.calls_heard_with(one["payload"]["notice_id"]) for one in events]
    assert told == [sorted(first), sorted(later[3:])]


async def test_what_a_write_refuses_is_no_2xx_for_any_of_those_in_it(
    http: httpx.AsyncClient, store: Store, hook: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError("canary")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "accept_all", broken)
        answers = await asyncio.gather(*(call(http, signature(f"msg_{n}")) for n in range(5)))
        assert {one.status_code for one in answers} == {500}
    assert await notices(store) == []
    assert (await call(http, signature())).status_code == 202


async def test_what_prefect_does_not_take_now_it_takes_later(
    http: httpx.AsyncClient,
    store: Store,
    hook: Channel,
    prefect: Prefect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "_LEAST_WAIT", 0.05)
    prefect.fails = 503
    assert (await call(http, signature())).status_code == 202
    await asyncio.sleep(0.2)
    assert prefect.events == []
    prefect.fails = None
    for _ in range(100):
        if prefect.events:
            break
        await call(http, signature("msg_2"))
        await asyncio.sleep(0.05)
    assert prefect.events[0]["event"] == "hook.cms"


async def test_what_a_gateway_left_the_next_one_hands_on(
    settings: Settings, store: Store, hook: Channel, prefect: Prefect
) -> None:
    """Accepted, then killed before Prefect heard of it."""
    call = Call("msg_1", "1", "", BODY)
    await store.accept(hook, call)
    async with serving(settings):
        assert len(await heard(prefect, 1)) == 1


async def test_no_2xx_without_the_database(
    http: httpx.AsyncClient, store: Store, hook: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    async def away(*_: object) -> None:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(Store, "accept_all", away)
    assert (await call(http, signature())).status_code == 503


async def test_a_hook_is_no_channel_and_tells_nobody(store: Store, hook: Channel) -> None:
    assert await store.channels() == []
    with pytest.raises(InvalidInput):
        await store.channel(hook.name)
    await store.notify(Happening(Event.GUARD, "sweep", "guard:1", {}))
    assert not await store.channels_due(datetime.now(UTC))
    with pytest.raises(InvalidInput, match="exists"):
        await store.add_hook(await store.workspace_id(), "cms", SECRET)
    for name in ("", "-x", "x-", "a/b", "A", "x" * 64):
        with pytest.raises(InvalidInput):
            await store.add_hook(await store.workspace_id(), name, SECRET)


async def test_the_secret_is_sealed_and_a_new_master_key_opens_it(
    store: Store, hook: Channel, settings: Settings
) -> None:
    from clickpost.store.vault import add_key

    assert SECRET.encode() not in hook.secrets
    add_key(settings.home / "master.key")
    assert await store.seal_channels_anew() == 1
    again = await store.hook("cms")
    assert again is not None
    assert again.key_id != hook.key_id
    assert store.hook_secret(again) == SECRET
    assert Vault.of(settings).key_id == again.key_id


async def test_a_removed_hook_is_gone(
    http: httpx.AsyncClient, store: Store, hook: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "REMEMBERED", 0.0)
    assert (await call(http, signature())).status_code == 202
    await store.remove_hook("cms")
    assert (await call(http, signature("msg_2"))).status_code == 404
    with pytest.raises(InvalidInput):
        await store.remove_hook("cms")


def test_prefect_gets_the_same_event_from_the_gateway_and_from_the_flow() -> None:
    from clickpost.telling import Said
    from tasks.telling import event_of

    said = Said("note_1", "hook.cms", "hook_1", {"sealed": "canary"}, datetime.now(UTC))
    theirs = event_of(said).model_dump(mode="json")
    ours = hooks.event_of(said)
    assert ours["related"][0]["prefect.resource.id"] == "clickpost.calls.note_1"
    assert {name: theirs[name] for name in ours if name != "occurred"} == {
        name: ours[name] for name in ours if name != "occurred"
    }
    assert "canary" not in str(ours) + str(theirs)


def test_a_sender_that_rotates_signs_twice_and_the_vector_of_the_standard_holds() -> None:
    """The example of standardwebhooks.com's libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = datetime.fromtimestamp(1614265330, UTC)
    call = Call(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        b'{"test": 2432232314}',
    )
    assert judge(call, secret, at) is Verdict.GENUINE
    assert judge(call, secret, at + timedelta(minutes=6)) is Verdict.STALE
    assert judge(call, None, at) is Verdict.FORGED
    assert judge(call, new_secret(), at) is Verdict.FORGED
    nobodys = "whsec_" + base64.b64encode(bytes(32)).decode()
    headers = signed("msg_1", b"x", nobodys, at)
    assert judge(Call.of(headers, b"x"), None, at) is Verdict.FORGED
