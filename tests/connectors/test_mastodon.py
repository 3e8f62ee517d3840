"""Mastodon's connector against answers as Mastodon and servers that speak its API give them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from clickpost.contract import (
    Absence,
    Account,
    Kind,
    MediaFile,
    Message,
    Outline,
    Prepared,
    Receipt,
    Sought,
)
from clickpost.errors import (
    NotReady,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    RateLimited,
    Reauthorize,
    Transient,
    UnexpectedResponse,
)
from clickpost.policy.load import narrowed
from connectors._api import Api
from connectors.mastodon import Connector, alike, limits_of, name_of, said_in, said_of, status_of
from sandbox.testing import serve
from tests.connectors.conftest import POLICIES, Answer, api_of, given

POLICY = POLICIES["mastodon"]
BASE = "https://m.test"
TOKEN = "ZA-Yj3aBD8U8Cm7lKUp-lm9O9BmDgdhHzDeqsY8tlL0"
ME = "14715"
SENT = datetime(2026, 8, 20, 10, 0, 0, tzinfo=UTC)
TEXT = "Grüße & more: see https://ex.org/a_very/long_(path) with @bob@else.test #Fedi :blobcat: 🎉"
#: The same as Mastodon renders it.
CONTENT = (
    "<p>Grüße &amp; more: see "
    '<a href="https://ex.org/a_very/long_(path)" target="_blank" rel="nofollow noopener">'
    '<span class="invisible">https://</span><span class="ellipsis">ex.org/a_very/long</span>'
    '<span class="invisible">_(path)</span></a> with <span class="h-card" translate="no">'
    '<a href="https://else.test/@bob" class="u-url mention">@<span>bob</span></a></span> '
    '<a href="https://m.test/tags/Fedi" class="mention hashtag" rel="tag">#<span>Fedi</span></a>'
    " :blobcat: 🎉</p>"
)


def ok(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)


def error(status: int, said: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": said}, headers=headers)


@dataclass
class Server:
    """Gives the answers it was told, in order, the last one for ever; 404 to all else."""

    answers: dict[str, list[Answer]]
    asked: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        queue = self.answers.get(f"{request.method} {request.url.path}")
        if not queue:
            return error(404, "Record not found")
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        told = given(answer, request)
        return httpx.Response(told.status_code, headers=told.headers, content=told.content)

    def paths(self) -> list[str]:
        return [f"{one.method} {one.url.path}" for one in self.asked]


def server(**answers: Answer | list[Answer]) -> Server:
    """Name answers by method and path: `server(**{"GET /api/v1/media/1": ok({})})`."""
    return Server({k: v if isinstance(v, list) else [v] for k, v in answers.items()})


def speaking(to: Server, remote_id: str | None = ME, token: str = TOKEN) -> Connector:
    account = Account("conn", "mastodon", BASE + "/", remote_id, secrets={"access_token": token})
    return Connector(api_of("mastodon", to), account)


def status(**more: Any) -> dict[str, Any]:
    """A status as docs.joinmastodon.org shows it."""
    return {
        "id": "103254962155278888",
        "created_at": "2026-08-20T10:00:01.196Z",
        "in_reply_to_id": None,
        "sensitive": False,
        "spoiler_text": "",
        "visibility": "public",
        "language": "en",
        "uri": "https://m.test/users/trwnh/statuses/103254962155278888",
        "url": "https://m.test/@trwnh/103254962155278888",
        "content": CONTENT,
        "reblog": None,
        "account": {"id": ME, "acct": "trwnh"},
        "media_attachments": [],
    } | more


def ready(*media: str, urls: tuple[str, ...] = (), **fields: Any) -> Prepared:
    said = {"status": TEXT, "visibility": "public"} | fields
    return Prepared({"media": list(media), "urls": list(urls), "pending": [], "status": said})


def sought(prepared: Prepared | None = None, text: str = TEXT, *after: str) -> Sought:
    parents = tuple(Receipt(one) for one in after)
    until = SENT + timedelta(seconds=30)
    return Sought("key_1", prepared or ready(), text, SENT, until, parents)


FEED = f"GET /api/v1/accounts/{ME}/statuses"


async def found(*pages: Answer, what: Sought | None = None) -> Receipt | Absence:
    return await speaking(server(**{FEED: list(pages)})).find(what or sought())


def picture_at(folder: Path) -> MediaFile:
    """A picture that a server can read."""
    path = folder / "real.png"
    Image.new("RGB", (8, 8), "teal").save(path)
    return MediaFile(Kind.IMAGE, path, "image/png", path.stat().st_size, 8, 8, "0", alt="Teal")


@pytest.fixture
def picture(tmp_path: Path) -> MediaFile:
    path = tmp_path / "picture.jpg"
    path.write_bytes(b"\xff\xd8\xff not really a picture")
    return MediaFile(Kind.IMAGE, path, "image/jpeg", 26, 10, 10, "0", alt="A teal square")


# Who it is, and what the server permits.

VERIFIED = {"id": ME, "username": "trwnh", "acct": "trwnh", "url": "https://m.test/@trwnh"}
WHO = "GET /api/v1/accounts/verify_credentials"
MASTODON_4 = {
    "version": "4.4.2",
    "configuration": {
        "statuses": {
            "max_characters": 500,
            "max_media_attachments": 4,
            "characters_reserved_per_url": 23,
        },
        "media_attachments": {
            "supported_mime_types": ["image/jpeg", "image/heif", "video/mp4", "audio/mpeg"],
            "description_limit": 1500,
            "image_size_limit": 16777216,
            "image_matrix_limit": 33177600,
            "video_size_limit": 103809024,
            "video_frame_rate_limit": 120,
            "video_matrix_limit": 8294400,
        },
    },
}
PLEROMA_1 = {
    "version": "2.7.2 (compatible; Pleroma 2.6.0)",
    "max_toot_chars": 5000,
    "max_media_attachments": 1000,
    "description_limit": 5000,
    "upload_limit": 16000000,
}


async def test_a_server_says_who_and_what_it_permits() -> None:
    there = server(**{WHO: ok(VERIFIED), "GET /api/v2/instance": ok(MASTODON_4)})
    who = await speaking(there).whoami()
    assert (who.remote_id, who.handle, who.url) == (ME, "trwnh", "https://m.test/@trwnh")
    assert who.limits == {
        "text": {"limit": 500, "links": 23},
        "images": {"max": 4, "bytes": 16777216, "pixels": 33177600, "formats": ["jpeg", "heic"]},
        "video": {
            "bytes": 103809024,
            "pixels": 8294400,
            "fps": {"max": 120},
            "containers": ["mp4"],
        },
        "album": {"max": 4},
        "alt": {"limit": 1500},
    }


@pytest.mark.parametrize(
    "newer",
    [
        error(404, "Not found"),
        httpx.Response(200, text="<!doctype html><title>Pleroma</title>"),
        error(500, "Internal server error"),
        ok({"domain": "m.test", "configuration": {"statuses": None, "media_attachments": []}}),
        ok({"configuration": "none"}),
    ],
    ids=["absent", "html", "broken", "empty", "odd"],
)
async def test_the_older_document_tells_what_the_newer_one_does_not(newer: httpx.Response) -> None:
    there = server(
        **{WHO: ok(VERIFIED), "GET /api/v2/instance": newer, "GET /api/v1/instance": ok(PLEROMA_1)}
    )
    limits = (await speaking(there).whoami()).limits
    policy = narrowed(POLICY, limits)
    assert policy.text.limit == 5000
    assert policy.images.max == 1000
    assert policy.images.bytes == policy.video.bytes == 16000000
    assert policy.alt.limit == 5000


async def test_the_newer_document_wins_where_both_tell() -> None:
    newer = {"configuration": {"media_attachments": {"image_size_limit": 7}}}
    there = server(
        **{
            WHO: ok(VERIFIED),
            "GET /api/v2/instance": ok(newer),
            "GET /api/v1/instance": ok(PLEROMA_1),
        }
    )
    limits = (await speaking(there).whoami()).limits
    assert limits["images"]["bytes"] == 7
    assert limits["text"]["limit"] == 5000


async def test_a_server_without_a_document_leaves_the_policy_as_it_is() -> None:
    assert (await speaking(server(**{WHO: ok(VERIFIED)})).whoami()).limits == {}


@pytest.mark.parametrize("away", [error(503, "Down"), error(429, "Too many requests")])
async def test_a_server_that_is_away_is_not_taken_for_one_without_limits(
    away: httpx.Response,
) -> None:
    there = server(
        **{WHO: ok(VERIFIED), "GET /api/v2/instance": away, "GET /api/v1/instance": away}
    )
    with pytest.raises((Transient, RateLimited)):
        await speaking(there).whoami()


def test_limits_of_odd_types_are_read_or_left_out() -> None:
    told = {
        "configuration": {
            "statuses": {"max_characters": "5000", "max_media_attachments": 0},
            "media_attachments": {
                "image_size_limit": None,
                "image_matrix_limit": -1,
                "video_size_limit": 40894464.0,
                "video_frame_rate_limit": float("inf"),
                "video_matrix_limit": True,
                "description_limit": {"max": 3},
            },
        }
    }
    assert limits_of(told) == {"text": {"limit": 5000}, "video": {"bytes": 40894464}}


JPEG_ONLY = ["image/jpeg", "image/pjpeg", "audio/mpeg"]


@pytest.mark.parametrize(
    ("told", "images", "containers"),
    [
        (["image/jpeg", "image/png", "video/mp4"], ["jpeg", "png"], ["mp4"]),
        (["IMAGE/JPEG; q=1", "video/quicktime", "video/webm"], ["jpeg"], ["webm", "mov"]),
        (["image/*", "video/mp4"], ["jpeg", "png", "webp", "gif"], ["mp4"]),
        (["application/octet-stream"], ["jpeg", "png", "webp", "gif"], ["mp4", "webm", "mov"]),
        ([], ["jpeg", "png", "webp", "gif"], ["mp4", "webm", "mov"]),
        ("image/png", ["jpeg", "png", "webp", "gif"], ["mp4", "webm", "mov"]),
        (JPEG_ONLY, ["jpeg"], []),
    ],
)
def test_a_server_gets_only_the_formats_that_it_names(
    told: object, images: list[str], containers: list[str]
) -> None:
    said = {"configuration": {"media_attachments": {"supported_mime_types": told}}}
    policy = narrowed(POLICY, limits_of(said))
    assert policy.images.formats == images
    assert policy.video.containers == containers


def test_a_server_that_names_no_video_gets_none() -> None:
    said = {"configuration": {"media_attachments": {"supported_mime_types": JPEG_ONLY}}}
    policy = narrowed(POLICY, limits_of(said))
    assert (policy.images.max, policy.video.max) == (4, 0)


async def test_a_number_as_id_and_a_null_address_are_fine() -> None:
    who = await speaking(server(**{WHO: ok({"id": 7, "username": "u", "url": None})})).whoami()
    assert (who.remote_id, who.handle, who.url) == ("7", "u", None)


# Media.


async def test_a_ready_upload_needs_no_question(picture: MediaFile) -> None:
    there = server(**{"POST /api/v2/media": ok({"id": "1", "url": "https://m.test/1.jpg"})})
    prepared = await speaking(there).prepare(Message("x", (picture,)), "key_1")
    assert prepared.ready
    assert prepared.state["media"] == ["1"]
    assert b"A teal square" in there.asked[0].content


async def test_an_upload_in_the_works_is_asked_for_until_it_is_ready(picture: MediaFile) -> None:
    there = server(
        **{
            "POST /api/v2/media": ok({"id": "22348641", "url": None}, 202),
            "GET /api/v1/media/22348641": [
                ok({"id": "22348641", "url": None}, 206),
                ok({"id": "22348641", "url": "https://m.test/1.mp4"}),
            ],
        }
    )
    made, message = speaking(there), Message("x", (picture,))
    first = await made.prepare(message, "key_1")
    assert (first.ready, first.again_in) == (False, 2.0)
    second = await made.prepare(message, "key_1", first)
    assert not second.ready
    assert (await made.prepare(message, "key_1", second)).ready
    assert there.paths().count("POST /api/v2/media") == 1


@pytest.mark.parametrize("lacking", [404, 405, 501])
async def test_a_server_without_the_second_version_gets_the_first(
    picture: MediaFile, lacking: int
) -> None:
    there = server(
        **{
            "POST /api/v2/media": httpx.Response(lacking, text="<h1>no</h1>"),
            "POST /api/v1/media": ok({"id": 5, "url": "https://m.test/5.jpg"}),
        }
    )
    prepared = await speaking(there).prepare(Message("x", (picture,)), "key_1")
    assert prepared.state["media"] == ["5"]


async def test_media_that_vanish_while_they_are_processed_are_uploaded_anew(
    picture: MediaFile,
) -> None:
    so_far = Prepared({"media": ["1"], "urls": [], "pending": ["1"]}, ready=False)
    with pytest.raises(PrepareAgain):
        await speaking(server()).prepare(Message("x", (picture,)), "key_1", so_far)


async def test_media_that_cannot_be_processed_are_for_the_writer(picture: MediaFile) -> None:
    said = "Error processing thumbnail for uploaded media"
    there = server(**{"GET /api/v1/media/1": error(422, said)})
    so_far = Prepared({"media": ["1"], "urls": [], "pending": ["1"]}, ready=False)
    with pytest.raises(PlatformRejected) as caught:
        await speaking(there).prepare(Message("x", (picture,)), "key_1", so_far)
    assert caught.value.field == "media"


def test_no_two_uploads_share_a_name(picture: MediaFile) -> None:
    names = {name_of(picture, "a", 0), name_of(picture, "a", 1), name_of(picture, "b", 0)}
    assert len(names) == 3
    assert all(name.endswith(".jpg") for name in names)


# Publishing.


async def test_a_status_is_sent_once_with_its_key_and_all_it_says() -> None:
    there = server(**{"POST /api/v1/statuses": ok(status())})
    message = Message(
        "x", language="de-AT", visibility="unlisted", sensitive=True, spoiler="careful"
    )
    prepared = Prepared({"media": ["1"], "status": status_of(message)})
    receipt = await speaking(there).publish(prepared, "key_1", (Receipt("6"), Receipt("7")))
    assert receipt == Receipt("103254962155278888", "https://m.test/@trwnh/103254962155278888")
    asked = there.asked[0]
    assert asked.headers["idempotency-key"] == "key_1"
    assert asked.headers["accept"] == "application/json"
    assert json.loads(asked.content) == {
        "status": "x",
        "visibility": "unlisted",
        "language": "de",
        "sensitive": True,
        "spoiler_text": "careful",
        "media_ids": ["1"],
        "in_reply_to_id": "7",
    }


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ({"url": None}, "https://m.test/users/trwnh/statuses/103254962155278888"),
        ({"url": "", "uri": "tag:m.test,2026:1"}, None),
        ({"url": 7, "uri": None}, None),
    ],
)
async def test_a_permalink_is_the_url_or_else_the_uri(
    addresses: dict[str, Any], expected: str | None
) -> None:
    there = server(**{"POST /api/v1/statuses": ok(status(**addresses))})
    assert (await speaking(there).publish(ready(), "key_1")).url == expected


@pytest.mark.parametrize(
    "lost",
    [
        error(500, "Internal"),
        error(503, "There was a temporary problem serving your request, please try again"),
        httpx.Response(502, text="<html>Bad gateway</html>"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("gone"),
        httpx.Response(200, text="<html>"),
        ok({"uri": "no id"}),
    ],
)
async def test_a_post_with_a_lost_answer_is_unknown(lost: Answer) -> None:
    with pytest.raises(OutcomeUnknown):
        await speaking(server(**{"POST /api/v1/statuses": lost})).publish(ready(), "key_1")


REFUSALS: list[tuple[httpx.Response, type[PlatformError], str | None]] = [
    (error(401, "The access token is invalid"), Reauthorize, None),
    (httpx.Response(401), Reauthorize, None),  # snac
    (error(403, "This action is outside the authorized scopes"), Reauthorize, None),
    (error(403, "Forbidden: token has insufficient scope permission"), Reauthorize, None),
    (error(403, "Insufficient permissions: write:statuses."), Reauthorize, None),  # Pleroma
    (error(403, "Invalid credentials."), Reauthorize, None),  # Pleroma
    (error(403, "Your login is currently disabled"), Reauthorize, None),
    (error(403, "This action is not allowed"), PlatformRejected, None),
    (
        error(404, "The post you are trying to reply to does not appear to exist."),
        PlatformRejected,
        "in_reply_to",
    ),
    (
        error(422, "Validation failed: Text character limit of 500 exceeded"),
        PlatformRejected,
        "text",
    ),
    (
        error(422, "Cannot attach files that have not finished processing. Try again in a moment!"),
        NotReady,
        None,
    ),
    (httpx.Response(413, text="<html>too large</html>"), PlatformRejected, "media"),
    (error(429, "Throttled"), RateLimited, None),
]


@pytest.mark.parametrize(("refusal", "kind", "where"), REFUSALS)
async def test_a_refusal_says_who_acts_next(
    refusal: httpx.Response, kind: type[PlatformError], where: str | None
) -> None:
    with pytest.raises(kind) as caught:
        await speaking(server(**{"POST /api/v1/statuses": refusal})).publish(ready(), "key_1")
    assert caught.value.field == where


async def test_a_token_too_narrow_to_look_is_for_the_owner() -> None:
    with pytest.raises(Reauthorize):
        await found(error(403, "This action is not allowed"))


async def test_a_rate_limit_waits_for_the_moment_that_the_server_names() -> None:
    reset = (datetime.now(UTC) + timedelta(seconds=90)).isoformat(timespec="microseconds")
    said = error(429, "Too many requests", **{"x-ratelimit-reset": reset.replace("+00:00", "Z")})
    with pytest.raises(RateLimited) as caught:
        await speaking(server(**{"POST /api/v1/statuses": said})).publish(ready(), "key_1")
    assert 80 < caught.value.retry_after <= 90


async def test_an_error_message_quotes_neither_the_post_nor_the_token() -> None:
    said = error(422, f"Validation failed: {TEXT} is not wanted from {TOKEN}")
    with pytest.raises(PlatformRejected) as caught:
        await speaking(server(**{"POST /api/v1/statuses": said})).publish(ready(), "key_1")
    told = f"{caught.value} {caught.value!r} {caught.value.args} {caught.value.code}"
    assert "wanted" not in told
    assert TOKEN not in f"{told} {caught.value.detail}"


async def test_a_connection_without_a_token_sends_nothing() -> None:
    there = server()
    with pytest.raises(Reauthorize):
        await speaking(there, token="").publish(ready(), "key_1")
    assert there.asked == []


TAKEN = [
    error(422, "Media 1 not found or already attached to another post"),
    error(400, "Duplicate idempotency key."),  # Pixelfed
    error(400, "Bad Request: media already attached to status: 1"),  # GoToSocial
]


@pytest.mark.parametrize("refusal", TAKEN)
async def test_a_post_that_is_there_already_is_found_by_its_media(refusal: httpx.Response) -> None:
    carries = status(id="9", content="", media_attachments=[{"id": "1"}])
    there = server(**{"POST /api/v1/statuses": refusal, FEED: ok([status(), carries])})
    assert (await speaking(there).publish(ready("1"), "key_1")).remote_id == "9"
    assert there.paths().count("POST /api/v1/statuses") == 1


async def test_media_that_nobody_carries_are_prepared_again() -> None:
    there = server(**{"POST /api/v1/statuses": TAKEN[0], FEED: ok([status()])})
    with pytest.raises(PrepareAgain):
        await speaking(there).publish(ready("1"), "key_1")


@pytest.mark.parametrize("refusal", TAKEN)
async def test_a_post_that_may_be_there_stays_unknown_where_nobody_can_look(
    refusal: httpx.Response,
) -> None:
    there = server(**{"POST /api/v1/statuses": refusal, FEED: error(503, "Down")})
    with pytest.raises(OutcomeUnknown):
        await speaking(there).publish(ready("1"), "key_1")


def used(*media: str) -> Prepared:
    """What was prepared a moment before it was first sent."""
    return Prepared(ready(*media).state | {"since": SENT.isoformat()})


async def test_a_used_key_is_not_settled_by_a_post_that_merely_reads_like_ours() -> None:
    """It may be another one of ours; the look that comes next knows which those are."""
    there = server(**{"POST /api/v1/statuses": TAKEN[1], FEED: ok([status()])})
    with pytest.raises(OutcomeUnknown):
        await speaking(there).publish(used(), "key_1")
    assert there.paths().count("POST /api/v1/statuses") == 1


async def test_a_used_key_that_made_nothing_is_replaced_once() -> None:
    made = ok(status(id="9"))
    there = server(**{"POST /api/v1/statuses": [TAKEN[1], made], FEED: ok([])})
    assert (await speaking(there).publish(used(), "key_1")).remote_id == "9"
    keys = [one.headers["idempotency-key"] for one in there.asked if one.method == "POST"]
    assert keys == ["key_1", "key_1-again"]


async def test_keys_that_are_all_used_up_go_round_in_no_circle() -> None:
    there = server(**{"POST /api/v1/statuses": TAKEN[1], FEED: ok([])})
    with pytest.raises(OutcomeUnknown):
        await speaking(there).publish(used(), "key_1")
    assert there.paths().count("POST /api/v1/statuses") == 2


OTHERS = [status(id=str(number), content="<p>Something else</p>") for number in range(40)]


@pytest.mark.parametrize("pages", [error(503, "Down"), ok(OTHERS)], ids=["down", "no end"])
async def test_a_used_key_is_not_replaced_where_nobody_can_tell(pages: httpx.Response) -> None:
    there = server(**{"POST /api/v1/statuses": TAKEN[1], FEED: pages})
    with pytest.raises(OutcomeUnknown):
        await speaking(there).publish(used(), "key_1")
    assert there.paths().count("POST /api/v1/statuses") == 1


async def test_pixelfed_takes_a_post_whose_key_an_earlier_refusal_used_up(tmp_path: Path) -> None:
    with serve(tmp_path / "sandbox") as base:
        async with httpx.AsyncClient(base_url=f"{base}/pixelfed") as http:
            asked = await http.get(f"{base}/control/accounts")
            row = next(one for one in asked.json() if one["platform"] == "mastodon")
            token = row["credentials"]["access_token"]
            said = {"Authorization": f"Bearer {token}", "Idempotency-Key": "key_1"}
            refused = await http.post("/api/v1/statuses", headers=said, json={"status": "Hi"})
            assert refused.status_code == 403
            account = Account(
                "c", "mastodon", f"{base}/pixelfed", row["id"], secrets=row["credentials"]
            )
            speaker = Connector(Api(http, POLICY), account)
            message = Message("Hi", (picture_at(tmp_path),))
            prepared = await speaker.prepare(message, "key_1")
            first = await speaker.publish(prepared, "key_1")
            assert await speaker.publish(prepared, "key_1") == first
            posts = (await http.get(f"{base}/control/posts?platform=mastodon")).json()
            assert [post["id"] for post in posts] == [first.remote_id]


async def test_a_key_that_was_used_at_a_time_unknown_is_unknown() -> None:
    there = server(**{"POST /api/v1/statuses": TAKEN[1], FEED: ok([])})
    with pytest.raises(OutcomeUnknown):
        await speaking(there).publish(ready(), "key_1")
    assert there.paths().count("POST /api/v1/statuses") == 1


# Looking.

RENDERED = {
    "mastodon": CONTENT,
    "short link": (
        'Grüße &amp; more: see <a href="https://ex.org/a_very/long_(path)">ex.org/a_very…</a> with '
        '<span class="h-card"><a class="u-url mention" href="https://else.test/users/bob">'
        '@<span>bob</span></a></span> <a class="hashtag" href="https://m.test/tag/fedi">#Fedi</a> '
        '<img class="emoji" alt=":blobcat:" src="https://m.test/e.png"> 🎉'
    ),
    "snac": (
        "<p>Grüße &amp; more: see <a href=\"https://ex.org/a_very/long_(path)\" target=\"_blank\">"
        "https://ex.org/a_very/long_(path)</a> with <a href=\"https://else.test/bob\" "
        'class="u-url mention">@bob@else.test</a> <a href="https://m.test?t=fedi" '
        'class="mention hashtag" rel="tag">#Fedi</a> :blobcat: &#127881;</p>'
    ),
}  # fmt: skip


@pytest.mark.parametrize("content", RENDERED.values(), ids=RENDERED.keys())
async def test_a_post_is_found_by_its_words_however_they_are_rendered(content: str) -> None:
    assert await found(ok([status(content=content)])) == Receipt(
        "103254962155278888", "https://m.test/@trwnh/103254962155278888"
    )


async def test_a_post_is_found_by_the_plain_text_that_pleroma_keeps() -> None:
    more = {"pleroma": {"content": {"text/plain": TEXT}}, "content": "<b>else</b>"}
    assert isinstance(await found(ok([status(**more)])), Receipt)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("one\n\ntwo\nthree", "<p>one</p><p>two<br />three</p>"),
        ("1 < 2 & 3 > 2", "<p>1 &lt; 2 &amp; 3 &gt; 2</p>"),
        ("cafe\u0301", "<p>café</p>"),
        ("https://ex.org/a日本", '<a href="https://ex.org/a">https://ex.org/a</a>日本'),
        (
            "x https://münchen.test/ü",
            '<p>x <a href="https://xn--mnchen-3ya.test/%C3%BC">münchen.test/ü</a></p>',
        ),
        ("🎉🎉", "<p>🎉🎉</p>"),
        ("Fine :-)", "<p>Fine 🙂</p>"),
        ("**bold** [title](https://ex.org/)", '<b>bold</b> <a href="https://ex.org/">title</a>'),
        (
            "@bob@else.test hi",
            '<p><span class="h-card">@<a href="https://e/">bob</a></span> hi</p>',
        ),
        (
            "see example.com/x now",
            '<p>see <a href="http://example.com/x">example.com/x</a> now</p>',
        ),
    ],
)
def test_the_words_survive_what_servers_make_of_them(text: str, content: str) -> None:
    assert alike(said_of(text), said_in(content))


@pytest.mark.parametrize("text", ["https://ex.org/a", "!!!", "🎉"])
def test_texts_without_words_are_told_apart(text: str) -> None:
    for other in ("https://ex.org/b", "???", "🎊", "https://ex.org/"):
        shown = f'<p><a href="{other}">{other}</a></p>' if "://" in other else f"<p>{other}</p>"
        assert not alike(said_of(text), said_in(shown))


@pytest.mark.parametrize(
    "other",
    [
        {"content": CONTENT.replace("more", "less")},
        {"content": CONTENT.replace("Fedi", "Fedi2")},
        {"content": CONTENT.replace("a_very", "another")},
        {"created_at": "2026-08-20T09:50:00.000Z"},
        {"created_at": "2026-08-20T10:30:00.000Z"},
        {"in_reply_to_id": "7"},
        {"media_attachments": [{"id": "1"}]},
        {"content": "", "reblog": status(account={"id": "2"})},
    ],
)
async def test_another_post_is_not_taken_for_ours(other: dict[str, Any]) -> None:
    assert await found(ok([status(**other)]), ok([])) is Absence.NOT_THERE


async def test_a_reply_is_found_by_its_parent_and_words() -> None:
    answer = sought(None, TEXT, "6", "7")
    assert isinstance(await found(ok([status(in_reply_to_id=7)]), what=answer), Receipt)
    elsewhere = await found(ok([status(in_reply_to_id="6")]), ok([]), what=answer)
    assert elsewhere is Absence.NOT_THERE


@pytest.mark.parametrize("created_at", ["2026-08-20T10:00:01", "2026-08-20T12:00:01+02:00", None])
async def test_times_of_any_form_are_read(created_at: str | None) -> None:
    assert isinstance(await found(ok([status(created_at=created_at)])), Receipt)


async def test_a_post_is_found_by_its_media_whatever_became_of_its_words() -> None:
    theirs = status(content="<p>rewritten</p>", media_attachments=[{"id": 1, "url": "u"}])
    assert isinstance(await found(ok([theirs]), what=sought(ready("1"))), Receipt)


async def test_a_post_is_found_where_attached_media_get_new_ids() -> None:
    url = "https://m.test/s/abc.jpg"
    theirs = status(content="", media_attachments=[{"id": "https://m.test/p/1_0", "url": url}])
    look = sought(ready("abc.jpg", urls=(url,)), "")
    assert isinstance(await found(ok([theirs]), what=look), Receipt)


async def test_wordless_pictures_that_may_be_ours_are_for_an_operator() -> None:
    theirs = status(content="", media_attachments=[{"id": "8", "url": "https://m.test/8"}])
    look = sought(ready("1"), "")
    assert await found(ok([theirs]), ok([]), what=look) is Absence.CANNOT_TELL


PHOTO, FILM = Outline(Kind.IMAGE, 1200, 800), Outline(Kind.VIDEO, 1080, 1920)


def attached(kind: str | None, *size: int) -> dict[str, Any]:
    """Say a file under a new id, as servers do."""
    told = dict(zip(("width", "height"), size, strict=True)) if size else {}
    return {"id": "8", "type": kind, "url": "https://m.test/8", "meta": {"original": told}}


@pytest.mark.parametrize(
    ("ours", "theirs", "is_ours"),
    [
        (PHOTO, attached("image", 1200, 800), True),
        (PHOTO, attached("image", 600, 401), True),
        (PHOTO, attached("image"), True),
        (PHOTO, attached("unknown"), True),
        (PHOTO, attached("video", 1200, 800), False),
        (PHOTO, attached("image", 800, 1200), None),
        (FILM, attached("gifv", 1920, 1080), True),
        (FILM, attached("image", 1080, 1920), False),
    ],
)
async def test_a_post_of_the_same_words_and_other_media_is_not_ours(
    ours: Outline, theirs: dict[str, Any], is_ours: bool | None
) -> None:
    """Where only the shape differs, the server may have cropped it: that is for an operator."""
    look = replace(sought(ready("1")), media=(ours,))
    answer = await found(ok([status(media_attachments=[theirs])]), ok([]), what=look)
    expected = {True: Receipt, False: Absence.NOT_THERE, None: Absence.CANNOT_TELL}[is_ours]
    assert expected in (answer, type(answer))


async def test_our_post_is_found_inside_the_boost_that_snac_shows() -> None:
    boost = status(content="", reblog=status(id="11"))
    assert isinstance(await found(ok([boost])), Receipt)


def early(number: int) -> dict[str, Any]:
    return status(id=str(900 - number), content=f"<p>other {number}</p>")


async def test_a_short_page_is_not_the_end_of_the_list() -> None:
    first = ok([early(number) for number in range(20)])
    assert isinstance(await found(first, ok([status(id="1")])), Receipt)


async def test_the_next_page_starts_where_the_last_one_ended() -> None:
    there = server(**{FEED: [ok([early(0), early(1)]), ok([])]})
    assert await speaking(there).find(sought()) is Absence.NOT_THERE
    assert [one.url.params.get("max_id") for one in there.asked] == [None, "899"]


async def test_a_list_that_reaches_back_far_enough_is_proof() -> None:
    old = status(id="1", created_at="2026-08-19T10:00:00.000Z")
    there = server(**{FEED: ok([early(0), old])})
    assert await speaking(there).find(sought()) is Absence.NOT_THERE
    assert len(there.asked) == 1


async def test_a_long_list_without_paging_proves_nothing() -> None:
    page = ok([early(number) for number in range(40)])
    assert await found(page, page) is Absence.CANNOT_TELL


async def test_a_short_list_without_paging_is_the_whole_list() -> None:
    page = ok([early(0), early(1)])
    assert await found(page, page) is Absence.NOT_THERE


async def test_a_list_of_public_posts_proves_nothing_about_a_private_one() -> None:
    old = status(id="1", created_at="2026-08-19T10:00:00.000Z")
    look = sought(ready(visibility="private"))
    assert await found(ok([old]), what=look) is Absence.CANNOT_TELL
    paged = ok([old], link='<https://m.test/x?max_id=1>; rel="next"')
    assert await found(paged, what=look) is Absence.NOT_THERE


@pytest.mark.parametrize("nonsense", [httpx.Response(200, text="<html>"), ok({"error": "x"})])
async def test_an_answer_that_is_no_list_is_no_absence(nonsense: httpx.Response) -> None:
    with pytest.raises(UnexpectedResponse):
        await found(nonsense)


async def test_odd_rows_hurt_nobody() -> None:
    odd = [None, 7, {}, {"id": 5, "content": None, "media_attachments": None, "reblog": 3}]
    assert await found(ok([*odd, status()])) == Receipt(
        "103254962155278888", "https://m.test/@trwnh/103254962155278888"
    )


# Taking down.

ONE = "/api/v1/statuses/1"


async def test_a_deleted_post_is_gone_and_so_is_one_that_was_gone_before() -> None:
    there = server(**{f"DELETE {ONE}": [ok(status(id="1")), error(404, "Record not found")]})
    await speaking(there).delete(Receipt("1"))
    await speaking(there).delete(Receipt("1"))


async def test_a_server_that_cannot_delete_is_not_believed() -> None:
    there = server(**{f"DELETE {ONE}": httpx.Response(404), f"GET {ONE}": ok(status(id="1"))})
    with pytest.raises(UnexpectedResponse):
        await speaking(there).delete(Receipt("1"))


async def test_a_deletion_that_fails_is_told() -> None:
    there = server(**{f"DELETE {ONE}": error(503, "Down")})
    with pytest.raises(Transient):
        await speaking(there).delete(Receipt("1"))


async def test_an_id_of_any_form_stays_one_piece_of_the_address() -> None:
    there = server()
    await speaking(there).delete(Receipt("a/b?c"))
    assert there.asked[0].url.raw_path == b"/api/v1/statuses/a%2Fb%3Fc"


@pytest.mark.parametrize(
    ("content", "verdict"),
    [("<p>another</p>", Absence.NOT_THERE), ("", Absence.CANNOT_TELL)],
)
async def test_another_post_with_the_same_file_is_not_ours(content: str, verdict: Absence) -> None:
    """Pleroma names files after their bytes."""
    url = f"https://m.test/media/{'0f' * 32}.jpg"
    theirs = status(content=content, media_attachments=[{"id": "8", "url": url}])
    look = sought(ready("1", urls=(url,)), "ours" if content else "")
    assert await found(ok([theirs]), ok([]), what=look) is verdict


async def test_what_is_known_to_be_another_post_of_ours_is_not_found() -> None:
    look = replace(sought(), taken=frozenset({str(status()["id"])}))
    assert isinstance(await found(ok([status()])), Receipt)
    assert await found(ok([status()]), ok([]), what=look) is Absence.NOT_THERE
