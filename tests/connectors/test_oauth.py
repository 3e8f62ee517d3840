"""What platforms answer to a code is read as it is documented, and nothing is guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from clickpost.errors import OutcomeUnknown, PlatformError, RateLimited, Reauthorize, Transient
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT
from connectors import _oauth
from connectors._oauth import Client, inner_of, scopes_of
from connectors._tokens import end_of, seconds_of

PLATFORMS = load_platforms(PROJECT / "policies")
APP = Client("an id", "a secret", ("read",))
BACK = "https://post.example.com/connect/here/callback"


def door(platform: str, answer: Any, asked: list[httpx.Request] | None = None) -> _oauth.Door:
    """Return the way in at a platform that answers so."""

    def handle(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        made: httpx.Response = answer(request) if callable(answer) else answer
        return made

    policy = PLATFORMS[platform]
    assert policy.oauth is not None
    base = str(policy.api.base or "https://mastodon.example").rstrip("/")
    http = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return _oauth.door(http, policy, policy.oauth, base, BACK)


def ok(**said: Any) -> httpx.Response:
    return httpx.Response(200, json=said)


async def test_instagrams_answer_may_be_wrapped_and_is_exchanged_for_one_that_lasts() -> None:
    """Both forms are documented, and the permissions as a list or as one string."""
    for permissions in (["a", "b"], "a,b"):
        for wrapped in (False, True):
            inner = {"access_token": "short", "user_id": "1", "permissions": permissions}
            asked: list[httpx.Request] = []

            def answer(request: httpx.Request, inner: Any = inner, wrap: bool = wrapped) -> Any:
                if request.method == "GET":
                    return ok(access_token="long", token_type="bearer", expires_in=5183944)
                return ok(data=[inner]) if wrap else ok(**inner)

            granted = await door("instagram", answer, asked).change(APP, "code#_", "")
            assert granted.scopes == ("a", "b")
            assert granted.secrets == {"access_token": "long"}
            assert granted.expires_at is not None
            assert [str(one.url).partition("?")[0] for one in asked] == [
                "https://api.instagram.com/oauth/access_token",
                "https://graph.instagram.com/access_token",
            ]
            form = parse_qs(asked[0].content.decode())
            assert form["code"] == ["code"], "`#_` is no part of it"
            assert "code_verifier" not in form


async def test_the_official_addresses_are_those_of_the_policies() -> None:
    asked: list[httpx.Request] = []
    answer = ok(access_token="t", refresh_token="r", expires_in=3599, scope="one two")
    granted = await door("youtube", answer, asked).change(APP, "code", "v" * 43)
    assert str(asked[0].url) == "https://oauth2.googleapis.com/token"
    assert granted.scopes == ("one", "two")
    address = door("youtube", answer).address(APP, "a state", "a challenge")
    assert address.startswith("https://accounts.google.com/o/oauth2/v2/auth?")
    query = parse_qs(address.partition("?")[2])
    assert query["access_type"] == ["offline"]
    assert query["code_challenge_method"] == ["S256"]
    assert "secret" not in address
    asked.clear()
    await door("x", answer, asked).change(APP, "code", "v" * 43)
    assert asked[0].headers["authorization"].startswith("Basic ")
    assert b"client" not in asked[0].content


async def test_a_grant_that_cannot_be_renewed_is_none() -> None:
    with pytest.raises(Reauthorize, match="no refresh token"):
        await door("youtube", ok(access_token="t", expires_in=3599)).change(APP, "code", "v")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.ConnectError("no"), Transient),
        (httpx.ReadTimeout("no"), OutcomeUnknown),
        (httpx.RemoteProtocolError("no"), OutcomeUnknown),
        (httpx.Response(500), OutcomeUnknown),
        (httpx.Response(200, text="<html>"), OutcomeUnknown),
        (httpx.Response(200, json={"token_type": "Bearer"}), OutcomeUnknown),
        (httpx.Response(302, headers={"location": "https://evil.example"}), OutcomeUnknown),
        (httpx.Response(429, headers={"retry-after": "7"}), RateLimited),
    ],
)
async def test_a_code_whose_fate_is_not_known_is_never_said_to_be_unused(
    answer: Any, kind: type[PlatformError]
) -> None:
    with pytest.raises(PlatformError) as caught:
        await door("mastodon", answer).change(APP, "a-secret-code", "v" * 43)
    assert type(caught.value) is kind
    assert "a-secret-code" not in repr(vars(caught.value)) + str(caught.value)


async def test_an_error_is_known_by_its_word_and_not_repeated() -> None:
    said = {"error": "invalid_client", "error_description": "of somebody@example.org"}
    with pytest.raises(PlatformError) as caught:
        await door("mastodon", httpx.Response(401, json=said)).change(APP, "c", "v")
    assert caught.value.code == "invalid_client"
    assert "somebody" not in f"{caught.value} {caught.value.detail}"
    theirs = {"error_type": "OAuthException", "code": 400, "error_message": "Matching code was"}
    with pytest.raises(PlatformError) as caught:
        await door("instagram", httpx.Response(400, json=theirs)).change(APP, "c", "v")
    assert caught.value.code == "OAuthException"


async def test_a_server_that_knows_no_fine_permission_is_asked_for_whole_ones() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if b"media" in request.content:
            return httpx.Response(422, json={"error": "Validation failed: Scopes"})
        return ok(client_id="i", client_secret="s")

    client = await door("mastodon", answer, asked).register()
    assert client.scopes == ("read", "write")
    assert [parse_qs(one.content.decode())["redirect_uris"] for one in asked] == [[BACK]] * 2
    assert "secret" not in repr(client)


def test_permissions_and_ends_are_read_or_left_open() -> None:
    assert scopes_of("a b,c") == ("a", "b", "c")
    assert scopes_of(["a", "b"]) == ("a", "b")
    assert scopes_of("") == ()
    assert scopes_of(None) is None
    assert scopes_of(7) is None
    assert seconds_of(1.5) == 1.5
    for wrong in (None, True, 0, -5, "soon", 1e9, 10**12, [1], float("inf"), float("nan")):
        assert end_of({"expires_in": wrong}) is None
    ends = end_of({"expires_in": "3600"})
    assert ends is not None
    assert abs(ends - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=5)
    assert inner_of(_oauth.Answer({"data": []}, 200)) == {"data": []}
