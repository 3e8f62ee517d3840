"""Requests at the gateway: a press of a button confirms, a code shows, a signature brings."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from clickpost.hooks import new_secret
from clickpost.invitation import new_word
from clickpost.requests import Door, Kind
from clickpost.settings import Settings
from clickpost.store import NewConnection, Store
from clickpost.store.invitations import Sought
from clickpost.store.requests import Challenge
from clickpost.store.tables import SubjectRequest
from clickpost.telling import signed as signed_hook
from deployments.pages import FIELD
from tasks import doors
from tasks.doors import Asked
from tests.gateway.conftest import Prefect
from tests.gateway.test_inviting import signed as signed_by_meta
from tests.store.test_requests import ADDRESS, everything, member


async def challenged(
    settings: Settings, store: Store, **more: object
) -> tuple[SubjectRequest, str]:
    """Store a request and a link that confirms it."""
    given: dict[str, Any] = {"address": ADDRESS, "jurisdiction": "gdpr"} | more
    asked = Asked(Kind.ERASURE, Door.CLI, **given)
    row, _ = await doors.receive(settings, store, asked)
    link = new_word()
    until = datetime.now(UTC) + timedelta(hours=1)
    await store.challenge_request(row.id, Challenge(link, "CODE", until))
    return row, f"/requests/confirm/{link}"


def mark_of(answer: httpx.Response) -> dict[str, str]:
    found = re.search(rf'name="{FIELD}" value="([0-9a-f]+)"', answer.text)
    assert found is not None, answer.text
    return {FIELD: found[1]}


async def test_a_press_of_the_button_confirms_once_and_a_look_does_not(
    settings: Settings, store: Store, http: httpx.AsyncClient
) -> None:
    row, link = await challenged(settings, store)
    for _ in range(3):  # Mail programs and scanners follow links.
        shown = await http.get(link)
        assert shown.status_code == 200
    assert (await store.request(row.id)).state == "received"
    assert (await http.post(link)).status_code == 403, "from no page of ours"
    marks = mark_of(shown)
    both = await asyncio.gather(*(http.post(link, data=marks) for _ in range(3)))
    assert sorted(one.status_code for one in both) == [200, 404, 404]
    assert (await store.request(row.id)).verified_by == "link"
    assert (await http.get(link)).status_code == 404


async def test_links_of_nobody_and_old_ones_are_alike(
    settings: Settings, store: Store, http: httpx.AsyncClient
) -> None:
    row, link = await challenged(settings, store)
    past = datetime.now(UTC) - timedelta(seconds=1)
    await store.challenge_request(row.id, Challenge("old", "CODE", past))
    said = [
        await http.get(f"/requests/confirm/{word}") for word in ("old", "never", "%00", "x" * 9)
    ]
    said.append(await http.get(link))
    assert {one.status_code for one in said} == {404}
    assert len({one.text for one in said}) == 1


async def test_a_code_shows_how_far_it_is_and_nothing_about_whom(
    settings: Settings, store: Store, http: httpx.AsyncClient
) -> None:
    await member(store, ADDRESS)
    row, _ = await challenged(settings, store)
    for code in (row.code, row.code.lower(), "-".join(re.findall("....", row.code))):
        shown = await http.get(f"/requests/{code}")
        assert shown.status_code == 200
        assert "We wait for your confirmation" in shown.text
        assert "canary" not in shown.text.casefold()
    await store.refuse_request(row.id, "legal_claims", "Case 7.", "operator:ann")
    shown = await http.get(f"/requests/{row.code}")
    assert "legal claims" in shown.text
    assert "GDPR art. 17(3)(e)" in shown.text
    assert "Case 7." in shown.text
    assert "supervisory authority" in shown.text
    assert (await http.get(f"/requests/{'A' * 20}")).status_code == 404
    assert (await http.get(f"/requests/{row.id}")).status_code == 404, "ids are no secrets"
    assert (await http.get(f"/requests/{row.code}/certificate")).status_code == 404


async def posted(
    http: httpx.AsyncClient, secret: str, body: Mapping[str, Any] | bytes, *, call: str = "msg_1",
    name: str = "crm", at: datetime | None = None,
) -> httpx.Response:  # fmt: skip
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = signed_hook(call, content, secret, at or datetime.now(UTC))
    return await http.post(f"/requests/{name}", content=content, headers=headers)


@pytest.fixture
async def secret(store: Store) -> str:
    made = new_secret()
    await store.add_hook(await store.workspace_id(), "requests-crm", made)
    return made


async def test_a_client_brings_a_request_once(
    store: Store, http: httpx.AsyncClient, secret: str
) -> None:
    body = {"kind": "access", "address": ADDRESS, "law": "US-CA"}
    first = await posted(http, secret, body)
    assert first.status_code == 202
    assert set(first.json()) == {"id", "confirmation_code", "url", "due_at"}
    again = await posted(http, secret, body)
    assert (again.status_code, again.json()) == (200, first.json())
    row = await store.request(first.json()["id"])
    assert (row.state, row.door, row.jurisdiction) == ("received", "api", "ccpa")
    assert (await http.get(httpx.URL(first.json()["url"]).path)).status_code == 200


async def test_the_known_and_the_unknown_are_answered_alike(
    store: Store, http: httpx.AsyncClient, secret: str
) -> None:
    await member(store, ADDRESS)
    known = await posted(http, secret, {"kind": "erasure", "address": ADDRESS})
    unknown = await posted(
        http, secret, {"kind": "erasure", "address": "nobody@example.org"}, call="msg_2"
    )
    assert known.status_code == unknown.status_code == 202
    assert known.json().keys() == unknown.json().keys()
    assert [len(value) for value in known.json().values()] == [
        len(value) for value in unknown.json().values()
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "body"),
        ({"kind": "erasure"}, "address"),
        ({"kind": "erase", "address": ADDRESS}, "kind"),
        ({"kind": "erasure", "address": "canary"}, "one e-mail address"),
        ({"kind": "erasure", "address": ADDRESS, "law": "Atlantis"}, "unknown jurisdiction"),
        ({"kind": "erasure", "address": ADDRESS, "state": "answered"}, "state"),
    ],
)
async def test_what_is_no_request_is_told_without_its_values(
    http: httpx.AsyncClient, store: Store, secret: str, body: Any, said: str
) -> None:
    answer = await posted(http, secret, body)
    assert answer.status_code == 422
    assert said in str(answer.json()["errors"])
    assert "canary" not in answer.text.casefold()
    assert await store.subject_requests() == []


async def test_only_who_signs_brings_requests(
    http: httpx.AsyncClient, store: Store, secret: str
) -> None:
    body = {"kind": "erasure", "address": ADDRESS}
    other = new_secret()
    await store.add_hook(await store.workspace_id(), "shop", other)
    assert (await posted(http, new_secret(), body)).status_code == 404
    assert (await posted(http, secret, body, name="nobody")).status_code == 404
    assert (await posted(http, other, body, name="shop")).status_code == 404, (
        "a hook of another use"
    )
    old = datetime.now(UTC) - timedelta(minutes=6)
    assert (await posted(http, secret, body, at=old)).status_code == 400
    assert await store.subject_requests() == []


async def of_meta(store: Store) -> str:
    """Connect an account of Meta's user 123 through an app of ours."""
    workspace_id = await store.workspace_id()
    base = "https://graph.instagram.com"
    app = {"client_id": "1", "client_secret": "sandbox-app-secret"}
    await store.keep_client(Sought(workspace_id, "instagram", base), app)
    row = await store.add_connection(NewConnection("instagram", "shop", base, {"token": "t"}))
    async with store.engine.begin() as connection:
        await connection.execute(text("UPDATE connection SET app_user_id = '123'"))
    return row.id


async def test_meta_asks_to_erase_and_gets_a_page_and_a_code(
    store: Store, http: httpx.AsyncClient
) -> None:
    connection_id = await of_meta(store)
    form = signed_by_meta("123", datetime.now(UTC))
    answers = [await http.post("/callbacks/instagram/data-deletion", data=form) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 200]
    assert answers[0].json() == answers[1].json(), "the same callback is the same request"
    said = answers[0].json()
    assert set(said) == {"url", "confirmation_code"}
    assert re.fullmatch(r"[A-Z0-9]+", said["confirmation_code"])
    row = await store.request(said["confirmation_code"])
    assert (row.kind, row.state, row.door) == ("erasure", "verified", "platform")
    assert row.connection_ids == [connection_id]
    assert '"123"' not in await everything(store)
    shown = await http.get(httpx.URL(said["url"]).path)
    assert "we are working on it" in shown.text


async def test_a_callback_of_nobody_changes_nothing(store: Store, http: httpx.AsyncClient) -> None:
    await of_meta(store)
    moment = datetime.now(UTC)
    for form in ({}, {"signed_request": "x.y"}, signed_by_meta("123", moment, "another secret")):
        answer = await http.post("/callbacks/instagram/data-deletion", data=form)
        assert answer.status_code == 404
    elsewhere = signed_by_meta("123", moment)
    assert (await http.post("/callbacks/mastodon/data-deletion", data=elsewhere)).status_code == 404
    assert await store.subject_requests() == []
    stranger = await http.post(
        "/callbacks/instagram/data-deletion", data=signed_by_meta("9", moment)
    )
    assert stranger.status_code == 200, "whom we know is nobody's business"


async def test_a_prefect_that_is_away_loses_no_request(
    settings: Settings, store: Store, http: httpx.AsyncClient, prefect: Prefect, secret: str
) -> None:
    prefect.fails = 503
    answer = await posted(http, secret, {"kind": "erasure", "address": ADDRESS})
    assert answer.status_code == 202
    assert await store.requests_to_handle() == [answer.json()["id"]]
    assert base64.b64encode(ADDRESS.encode()).decode() not in answer.text
