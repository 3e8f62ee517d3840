"""The one door to a platform: what came of a request, said in our classes, without a secret."""

from __future__ import annotations

import gzip
import inspect
import pickle
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import errors
from clickpost.errors import (
    AnotherAccount,
    ClickPostError,
    ContentRejected,
    Fault,
    NotFound,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    RateLimited,
    Reauthorize,
    Restored,
    Transient,
    UnexpectedResponse,
)
from clickpost.policy.load import BrokenPolicies, Problem, read, validated
from clickpost.policy.shape import PlatformPolicy
from clickpost.policy.source import Source
from connectors._api import (
    Api,
    client,
    json_of,
    reading_of,
    redacted,
    retry_after,
    same_house,
    text_at,
)
from tests.policies.conftest import SOUND

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
URL = "https://parrot.example/squawks?token=canary"


def policy() -> PlatformPolicy:
    source = read(SOUND, "parrot.yaml")
    assert isinstance(source, Source)
    made = validated(source, PlatformPolicy)
    assert isinstance(made, PlatformPolicy)
    return made


POLICY = policy()


async def sent(
    answer: httpx.Response | Exception, *, repeatable: bool, method: str = "POST", url: str = URL
) -> httpx.Response:
    """Send one request to a platform that answers so."""

    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with client(transport=httpx.MockTransport(handle)) as http:
        api = Api(http, POLICY)
        return await api.send(method, url, step="publish", repeatable=repeatable)


async def error_of(answer: httpx.Response | Exception, *, repeatable: bool) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await sent(answer, repeatable=repeatable)
    return caught.value


# --- what never came back -------------------------------------------------------------------

NEVER_LEFT = {httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout}
UNSENDABLE = {httpx.UnsupportedProtocol, httpx.LocalProtocolError}


def transport_errors() -> list[type[httpx.RequestError]]:
    """Return every error that httpx has for a request, and that has no children."""
    kinds = [one for _, one in inspect.getmembers(httpx, inspect.isclass)]
    found = [one for one in kinds if issubclass(one, httpx.RequestError)]
    return [one for one in found if not any(x is not one and issubclass(x, one) for x in found)]


def test_httpx_has_the_errors_that_we_think_of() -> None:
    assert set(transport_errors()) >= NEVER_LEFT | UNSENDABLE
    assert len(transport_errors()) >= 13


@pytest.mark.parametrize("repeatable", [True, False], ids=["repeatable", "once"])
@pytest.mark.parametrize("kind", transport_errors())
async def test_every_way_of_failing_has_its_class(
    kind: type[httpx.RequestError], repeatable: bool
) -> None:
    error = await error_of(kind("canary"), repeatable=repeatable)
    if kind in UNSENDABLE:
        expected: type[PlatformError] = UnexpectedResponse
    elif kind in NEVER_LEFT or repeatable:
        expected = Transient
    else:
        expected = OutcomeUnknown
    assert type(error) is expected
    assert kind.__name__ in str(error)
    assert "canary" not in f"{error!r}"


@pytest.mark.parametrize("url", ["https://[::1", "https://x:abc/", "https://x\x00/"])
async def test_an_address_that_is_none_is_a_fault_of_ours(url: str) -> None:
    with pytest.raises(UnexpectedResponse, match="cannot be sent"):
        await sent(httpx.Response(200), repeatable=True, url=url)


async def test_a_token_that_no_header_can_carry_is_told_without_it() -> None:
    async with client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        headers = {"Authorization": "Bearer cänäry"}
        with pytest.raises(UnexpectedResponse) as caught:
            await Api(http, POLICY).send("GET", URL, step="x", repeatable=True, headers=headers)
    assert "cänäry" not in f"{caught.value!r}"


async def test_an_answer_that_cannot_be_decoded_is_lost() -> None:
    broken = httpx.Response(
        200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(gzip.compress(b"x")[:9])
    )
    torn = httpx.Response(
        200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip")
    )
    assert type(await error_of(torn, repeatable=False)) is OutcomeUnknown
    answer = await sent(broken, repeatable=False)  # Cut short, which only its reader can tell.
    with pytest.raises(OutcomeUnknown):
        json_of(answer, repeatable=False)


# --- what the platform answered -------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "repeated", "once"),
    [
        (301, UnexpectedResponse, OutcomeUnknown),
        (303, UnexpectedResponse, OutcomeUnknown),
        (307, UnexpectedResponse, OutcomeUnknown),
        (400, PlatformRejected, PlatformRejected),
        (401, Reauthorize, Reauthorize),
        (403, Reauthorize, Reauthorize),
        (404, NotFound, NotFound),
        (408, Transient, OutcomeUnknown),
        (409, UnexpectedResponse, OutcomeUnknown),
        (410, NotFound, NotFound),
        (413, PlatformRejected, PlatformRejected),
        (415, UnexpectedResponse, UnexpectedResponse),
        (422, PlatformRejected, PlatformRejected),
        (425, Transient, Transient),
        (426, UnexpectedResponse, UnexpectedResponse),
        (429, RateLimited, RateLimited),
        (500, Transient, OutcomeUnknown),
        (503, Transient, OutcomeUnknown),
        (599, Transient, OutcomeUnknown),
    ],
)
async def test_a_status_means_what_it_says_and_doubt_is_unknown(
    status: int, repeated: type[PlatformError], once: type[PlatformError]
) -> None:
    assert type(await error_of(httpx.Response(status), repeatable=True)) is repeated
    error = await error_of(httpx.Response(status), repeatable=False)
    assert type(error) is once
    assert str(error) == f"POST /squawks answered {status}"
    assert error.status == status


async def test_a_redirect_is_not_followed() -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://elsewhere.example/"})

    async with client(transport=httpx.MockTransport(handle)) as http:
        with pytest.raises(OutcomeUnknown):
            await Api(http, POLICY).send("POST", URL, step="publish", repeatable=False)
    assert seen == ["parrot.example"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206])
async def test_a_success_is_handed_back(status: int) -> None:
    assert (await sent(httpx.Response(status), repeatable=False)).status_code == status


async def test_a_code_is_told_and_a_sentence_is_not() -> None:
    coded = httpx.Response(400, json={"error": "InvalidRequest", "message": "no"})
    assert str(await error_of(coded, repeatable=True)) == (
        "POST /squawks answered 400 InvalidRequest"
    )
    worded = httpx.Response(422, json={"error": "canary is too long"})
    error = await error_of(worded, repeatable=True)
    assert "canary" not in f"{error!r} {error.code}"
    assert error.detail == "canary is too long"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff", b'"x"', b"[" * 10**5])
async def test_an_error_without_a_readable_body_is_still_an_error(body: bytes) -> None:
    error = await error_of(httpx.Response(503, content=body), repeatable=False)
    assert type(error) is OutcomeUnknown
    assert error.detail is None


async def test_a_limit_waits_for_the_header_then_the_policy() -> None:
    told = await error_of(httpx.Response(429, headers={"Retry-After": "7"}), repeatable=False)
    untold = await error_of(httpx.Response(429), repeatable=False)
    assert isinstance(told, RateLimited)
    assert isinstance(untold, RateLimited)
    assert (told.retry_after, untold.retry_after) == (7.0, 300.0)


# --- how long to wait -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "Tue, 24 Nov 2026 10:02:00 GMT"}, 120),
        ({"Retry-After": "Tue, 24 Nov 2026 11:02:00 +0100"}, 120),
        ({"ratelimit-reset": "30"}, 30),
        ({"ratelimit-reset": str(EPOCH + 30)}, 30),
        ({"X-RateLimit-Reset": str((EPOCH + 30) * 1000)}, 30),
        ({"X-RateLimit-Reset": "2026-11-24T10:05:00.000Z"}, 300),
        ({"X-RateLimit-Reset": "2026-11-24T10:05:00"}, 300),
        ({"X-RateLimit-Reset": "2026-11-24T12:05:00+02:00"}, 300),
        ({"Retry-After": "5", "X-RateLimit-Reset": "2026-11-24T10:05:00Z"}, 5),
        ({"Retry-After": "soon", "ratelimit-reset": "9"}, 9),
    ],
)
def test_a_time_to_wait_is_understood(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(httpx.Headers(headers), NOW) == seconds


@pytest.mark.parametrize("said", ["0", str(EPOCH - 9), "Tue, 24 Nov 2026 09:00:00 GMT"])
def test_a_time_that_has_passed_is_a_second(said: str) -> None:
    assert retry_after({"retry-after": said}, NOW) == 1


@pytest.mark.parametrize("said", ["99999999", "9" * 15, "9999-12-31T23:59:59Z"])
def test_nobody_waits_longer_than_a_day(said: str) -> None:
    assert retry_after({"retry-after": said}, NOW) == timedelta(days=1).total_seconds()


@pytest.mark.parametrize("said", ["", "-5", "soon", "nan", "inf", "9" * 400, "1e9"])
def test_no_time_is_none(said: str) -> None:
    assert retry_after({"retry-after": said}, NOW) is None


@given(st.text(max_size=40))
def test_whatever_a_header_says_is_a_sane_time_or_none(said: str) -> None:
    wait = retry_after({"retry-after": said}, NOW)
    assert wait is None or 1 <= wait <= 86_400


# --- what may be kept of a platform's sentence ----------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "@alice",
        "@alice@birds.example",
        "alice@birds.example",
        "alice.bsky.social",
        "www.alice.dev/about/me",
        "did:plc:z72i7hdynmk6r22z27h6tvur",
        "https://parrot.example/u/alice?sig=abc",
        "at://did:plc:abc/app.bsky.feed.post/3k",
        '"my neighbour is a crook"',
        "'it is what I wrote to her'",
        "“my neighbour is a crook”",
        '"a quotation that never ends',
        "abcd-efgh-ijkl-mnop",
        "1//0gAbCdEfGhIjKlMnOpQrStUvWxYz0123",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.SflKxwRJSMeKKF2QT4",
        "EAABwzLixnjYBO" + "x" * 40,
        "192.168.12.7",
    ],
)
def test_what_a_sentence_may_tell_of_somebody_is_hidden(secret: str) -> None:
    said = redacted(f"Could not accept {secret}")
    assert said is not None
    assert said.startswith("Could not accept […]")
    for piece in ("alice", "birds", "neighbour", "wrote", "quotation", "plc", "sig", "xxx", "168"):
        assert piece not in said


@pytest.mark.parametrize(
    "sentence",
    [
        "Validation failed: Text character limit of 500 exceeded",
        "Can't find the status you've asked for",
        "The field 'status' of app.bsky.feed.post is too long",
        "Aspect ratio 4:5 to 1.91:1, found 3.2:1 (code 36003)",
    ],
)
def test_what_helps_is_kept(sentence: str) -> None:
    assert redacted(sentence) == sentence


def test_a_sentence_is_short_and_quickly_read() -> None:
    began = time.monotonic()
    said = redacted("ü" * 10**6 + "@" + "a." * 10**6)
    assert time.monotonic() - began < 1
    assert said is None or len(said) <= 300
    assert redacted("") is None


def test_a_secret_at_the_cut_is_not_left_in_half() -> None:
    said = redacted("x " * 5 + "A" * 1_960 + " " + "secret-token-" * 9)
    assert said is not None
    assert "secret" not in said


# --- what is made of an answer --------------------------------------------------------------


def answer(content: bytes, status: int = 200) -> httpx.Response:
    request = httpx.Request("POST", URL)
    return httpx.Response(status, content=content, request=request)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>canary", b"[]", b"null", b'"x"', b"3", b'{"a": ', b"\xff\xfe", b"[" * 10**5],
)
def test_a_broken_answer_is_the_platforms_fault_or_unknown(body: bytes) -> None:
    for repeatable, kind in ((True, UnexpectedResponse), (False, OutcomeUnknown)):
        with pytest.raises(kind) as caught:
            json_of(answer(body), repeatable=repeatable)
        assert str(caught.value) == "POST /squawks answered no JSON object"


def test_a_sound_answer_is_read() -> None:
    assert json_of(answer(b'\xef\xbb\xbf{"id": 1}'), repeatable=False) == {"id": 1}
    assert json_of(answer('{"a": "ü"}'.encode()), repeatable=False) == {"a": "ü"}


@pytest.mark.parametrize("body", [{}, {"a": {}}, {"a": {"id": None}}, {"a": {"id": ""}}, {"a": []}])
def test_an_id_that_is_not_there_is_never_made_up(body: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedResponse, match=r"call answered without a\.id"):
        text_at(body, "a", "id", call="call")
    with pytest.raises(OutcomeUnknown, match=r"call answered without a\.id"):
        text_at(body, "a", "id", call="call", repeatable=False)
    assert text_at({"a": {"id": 7}}, "a", "id", call="call") == "7"


@pytest.mark.parametrize("repeatable", [True, False])
def test_an_answer_without_its_id_tells_the_status_with_which_it_came(repeatable: bool) -> None:
    request = httpx.Request("POST", URL)
    answer = json_of(httpx.Response(201, json={"a": {}}, request=request), repeatable=repeatable)
    with pytest.raises(UnexpectedResponse if repeatable else OutcomeUnknown) as caught:
        text_at(answer, "a", "id", call="call", repeatable=repeatable)
    assert caught.value.status == 201


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://parrot.example/upload", True),
        ("https://parrot.example:443/upload", True),
        ("https://PARROT.example/upload", True),
        ("http://parrot.example/upload", False),
        ("https://parrot.example:8443/upload", False),
        ("https://parrot.example.evil.example/", False),
        ("https://parrot.example@evil.example/", False),
        ("https://evil.example\\@parrot.example/", False),
        ("https://evil.example/ parrot.example", False),
        ("https://user:pass@parrot.example/", False),
        ("https://parrot.example:99999/", False),
        ("https://[::1", False),
        ("//parrot.example/upload", False),
        ("", False),
    ],
)
def test_a_token_goes_to_its_own_house_only(url: str, same: bool) -> None:
    assert same_house(url, "https://parrot.example/api") is same


# --- errors travel --------------------------------------------------------------------------


def every_error() -> list[ClickPostError]:
    """Return one of each error that we have."""
    kinds = [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    kinds = [one for one in kinds if issubclass(one, ClickPostError)]
    told: dict[str, Any] = {"status": 400, "code": "x", "detail": "d"}
    made: list[ClickPostError] = [BrokenPolicies((Problem("f", 1, 2, "k", "m"),))]
    for kind in kinds:
        if kind is RateLimited:
            made.append(RateLimited("m", retry_after=3.5, **told))
        elif kind is ContentRejected:
            made.append(ContentRejected("s", (Fault("text", "1", "2"),)))
        elif kind is Restored:
            made.append(Restored())
        elif kind is AnotherAccount:
            made.append(AnotherAccount("parrot/a", "polly", "jack"))
        elif issubclass(kind, PlatformError):
            made.append(kind("m", field="text", **told))
        else:
            made.append(kind("m"))
    return made


@pytest.mark.parametrize("error", every_error(), ids=lambda one: type(one).__name__)
def test_an_error_survives_its_journey_whole(error: ClickPostError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error) != ""
    assert vars(back) == vars(error)
    assert back.args == error.args


def test_the_client_retries_nothing_and_waits_for_nobody_for_ever() -> None:
    made = client()
    assert made.follow_redirects is False
    assert made._transport._pool._retries == 0  # type: ignore[attr-defined]
    assert None not in made.timeout.as_dict().values()


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (
            # Bluesky
            {
                "RateLimit-Limit": "3000",
                "RateLimit-Remaining": "2990",
                "RateLimit-Reset": str(int(NOW.timestamp()) + 200),
                "RateLimit-Policy": "3000;w=300",
            },
            (2990, 3000, 200, timedelta(minutes=5)),
        ),
        (
            # Mastodon
            {
                "X-RateLimit-Limit": "300",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": (NOW + timedelta(minutes=3)).isoformat(),
            },
            (0, 300, 180, None),
        ),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "60"}, (5, None, 60, None)),
        ({"x-ratelimit-remaining": "5"}, None),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "60"}, None),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": "60"}, None),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "2001-01-01T00:00:00Z"}, None),
        ({}, None),
    ],
)
def test_headers_say_what_is_left_and_until_when(headers: dict[str, str], told: Any) -> None:
    found = reading_of(httpx.Headers(headers), NOW)
    if told is None:
        assert found is None
        return
    assert found is not None
    seconds = round((found.resets_at - NOW).total_seconds())
    assert (found.left, found.total, seconds, found.window) == told


@given(st.dictionaries(st.sampled_from(["limit", "remaining", "reset", "policy"]), st.text()))
def test_no_header_breaks_what_reads_it(headers: dict[str, str]) -> None:
    reading_of({f"ratelimit-{name}": value for name, value in headers.items()}, NOW)


async def test_whoever_made_the_connector_hears_what_refusals_say_too() -> None:
    heard: list[Any] = []
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}
    transport = httpx.MockTransport(lambda _: httpx.Response(429, headers=headers))
    async with client(transport=transport) as http:
        with pytest.raises(errors.RateLimited):
            await Api(http, POLICY, heard.append).send("GET", URL, step="x", repeatable=True)
    assert [one.left for one in heard] == [0]
