"""What the YouTube connector makes of the answers that Google's documents show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from clickpost.contract import (
    Absence,
    Account,
    Kind,
    MediaFile,
    Message,
    Pending,
    Prepared,
    Receipt,
    Sought,
)
from clickpost.errors import (
    OutcomeUnknown,
    PlatformRejected,
    RateLimited,
    Reauthorize,
    TokenExpired,
    Transient,
)
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT
from connectors._api import Api
from connectors.youtube import PIECE, Connector, arrived, is_last, resource_of

POLICY = load_platforms(PROJECT / "policies")["youtube"]
BASE = "https://www.googleapis.com"
SESSION = f"{BASE}/upload/youtube/v3/videos?uploadType=resumable&upload_id=abc"
VIDEO = {"kind": "youtube#video", "id": "dQw4w9WgXcQ", "status": {"uploadStatus": "uploaded"}}
STATE = {
    "session": SESSION,
    "offset": 0,
    "size": 9,
    "mime": "video/mp4",
    "title": "T",
    "short": False,
}


def connector(answer: Callable[[httpx.Request], httpx.Response]) -> Connector:
    secrets = {
        "access_token": "at",
        "refresh_token": "rt",
        "client_id": "id",
        "client_secret": "cs",
    }
    account = Account("conn_1", "youtube", BASE, secrets=secrets)
    return Connector(Api(httpx.AsyncClient(transport=httpx.MockTransport(answer)), POLICY), account)


def says(status: int, body: Any = None, **headers: str) -> Callable[[Any], httpx.Response]:
    return lambda request: httpx.Response(status, json=body, headers=headers)


def fault(status: int, reason: str, domain: str = "youtube.video") -> Callable[..., httpx.Response]:
    errors = [{"domain": domain, "reason": reason, "message": "no"}]
    return says(status, {"error": {"code": status, "message": "no", "errors": errors}})


@pytest.fixture
def state(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x" * 9)
    return STATE | {"path": str(path)}


def file_of(path: Path, size: int) -> MediaFile:
    path.write_bytes(b"\0" * size)
    return MediaFile(Kind.VIDEO, path, "video/mp4", size, 1920, 1080, "0", 20.0)


async def prepared(speaker: Connector, message: Message) -> Prepared:
    """Prepare until it is ready: the session is stored before it gets a byte."""
    so_far = await speaker.prepare(message, "key")
    return so_far if so_far.ready else await speaker.prepare(message, "key", so_far)


async def test_all_but_the_last_piece_goes_ahead_in_multiples_of_256_kib(tmp_path: Path) -> None:
    ranges = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            assert request.headers["x-upload-content-length"] == str(PIECE + 5)
            return httpx.Response(200, headers={"location": SESSION})
        if request.headers["content-range"].startswith("bytes */"):
            return httpx.Response(308)
        ranges.append(request.headers["content-range"])
        return httpx.Response(308, headers={"range": f"bytes=0-{PIECE - 1}"})

    file = file_of(tmp_path / "clip.mp4", PIECE + 5)
    ready = await prepared(connector(answer), Message("D", (file,), title="T"))
    assert ranges == [f"bytes 0-{PIECE - 1}/{PIECE + 5}"]
    assert (ready.ready, ready.state["offset"], PIECE % 262_144) == (True, PIECE, 0)


async def test_a_piece_that_never_arrives_does_not_go_round_for_ever(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, headers={"location": SESSION})
        return httpx.Response(308)

    file = file_of(tmp_path / "clip.mp4", PIECE + 5)
    with pytest.raises(Transient):
        await prepared(connector(answer), Message("D", (file,), title="T"))


async def test_a_session_elsewhere_never_gets_our_token(tmp_path: Path) -> None:
    file = file_of(tmp_path / "clip.mp4", 9)
    with pytest.raises(Exception, match="session of its own house"):
        await connector(says(200, None, location="https://evil.example/x")).prepare(
            Message("D", (file,), title="T"), "key"
        )


async def test_the_last_piece_makes_the_video(state: dict[str, Any]) -> None:
    pending = await connector(says(200, VIDEO)).publish(Prepared(state), "key")
    assert isinstance(pending, Pending)
    assert pending.receipt == Receipt("dQw4w9WgXcQ", "https://www.youtube.com/watch?v=dQw4w9WgXcQ")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 404, 410])
async def test_a_bad_end_of_the_last_piece_is_unknown(state: dict[str, Any], status: int) -> None:
    with pytest.raises(OutcomeUnknown):
        await connector(says(status, {})).publish(Prepared(state), "key")


async def test_a_lost_answer_to_the_last_piece_is_unknown(state: dict[str, Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(OutcomeUnknown):
        await connector(answer).publish(Prepared(state), "key")


async def test_the_session_tells_what_became_of_a_lost_send(state: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    sought = Sought("key", Prepared(state), "D", now, now)
    assert await connector(says(308, None, range="bytes=0-3")).find(sought) is Absence.NOT_THERE
    found = await connector(says(200, VIDEO)).find(sought)
    assert isinstance(found, Pending)


async def test_where_the_session_is_gone_the_uploads_are_looked_through(
    state: dict[str, Any],
) -> None:
    now = datetime.now(UTC)
    channel = {"id": "UC1", "contentDetails": {"relatedPlaylists": {"uploads": "UU1"}}}
    upload = {
        "snippet": {"title": "T", "publishedAt": now.isoformat()},
        "contentDetails": {"videoId": "v1"},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            return httpx.Response(410)
        found = channel if request.url.path.endswith("channels") else upload
        return httpx.Response(200, json={"items": [found]})

    sought = Sought("key", Prepared(state), "D", now, now)
    found = await connector(answer).find(sought)
    assert isinstance(found, Pending)  # It may still be processed, or be rejected.
    assert found.receipt is not None
    assert found.receipt.remote_id == "v1"
    other = replace(sought, prepared=Prepared(state | {"title": "another"}))
    assert await connector(answer).find(other) is Absence.CANNOT_TELL


@pytest.mark.parametrize(
    ("status", "reason", "kind", "field"),
    [
        (400, "invalidTitle", PlatformRejected, "title"),
        (400, "invalidDescription", PlatformRejected, "text"),
        (400, "invalidTags", PlatformRejected, "tags"),
        (403, "quotaExceeded", RateLimited, None),
        (400, "uploadLimitExceeded", RateLimited, None),
        (403, "rateLimitExceeded", RateLimited, None),
        (403, "insufficientPermissions", Reauthorize, None),
        (401, "youtubeSignupRequired", Reauthorize, None),
        (401, "authError", TokenExpired, None),
        (503, "backendError", Transient, None),
    ],
)
async def test_a_refused_session_says_who_acts(
    tmp_path: Path, status: int, reason: str, kind: type[Exception], field: str | None
) -> None:
    message = Message("D", (file_of(tmp_path / "clip.mp4", 9),), title="T")
    with pytest.raises(kind) as caught:
        await connector(fault(status, reason)).prepare(message, "key")
    assert getattr(caught.value, "field", None) == field


async def test_a_refresh_keeps_the_refresh_token_and_never_empties_it() -> None:
    answer = {"access_token": "new", "expires_in": 3599, "refresh_token": ""}
    tokens = await connector(says(200, answer)).refresh()
    assert dict(tokens.secrets) == {"access_token": "new"}
    assert tokens.expires_at is not None
    assert 3500 < (tokens.expires_at - datetime.now(UTC)).total_seconds() < 3600


async def test_a_blip_while_refreshing_is_told_from_a_revoked_grant() -> None:
    with pytest.raises(Transient):
        await connector(says(503, {})).refresh()
    with pytest.raises(Reauthorize):
        await connector(says(400, {"error": "invalid_grant"})).refresh()


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"uploadStatus": "rejected", "rejectionReason": "duplicate"}, "duplicate"),
        ({"uploadStatus": "failed", "failureReason": "codec"}, "codec"),
    ],
)
async def test_a_video_that_fails_later_says_why(status: dict[str, str], field: str) -> None:
    answer = says(200, {"items": [{"id": "v1", "status": status}]})
    with pytest.raises(PlatformRejected) as caught:
        await connector(answer).resume({"id": "v1", "url": "u"})
    assert caught.value.code == field


async def test_a_processed_video_is_live_and_an_uploaded_one_is_asked_about_again() -> None:
    done = says(200, {"items": [{"status": {"uploadStatus": "processed"}}]})
    assert await connector(done).resume({"id": "v1", "url": "u"}) == Receipt("v1", "u")
    still = says(200, {"items": [{"status": {"uploadStatus": "uploaded"}}]})
    assert isinstance(await connector(still).resume({"id": "v1", "url": "u"}), Pending)


def test_what_the_terms_ask_for_is_always_said() -> None:
    said = resource_of(Message("D", title="T", visibility="unlisted", tags=("a", "b c")))
    assert said["status"] == {
        "privacyStatus": "unlisted",
        "selfDeclaredMadeForKids": False,
        "containsSyntheticMedia": False,
    }
    assert said["snippet"]["tags"] == ["a", "b c"]


@pytest.mark.parametrize("size", [1, PIECE, PIECE + 1, 3 * PIECE])
def test_something_is_always_left_for_the_last_piece(size: int) -> None:
    offset = 0
    while not is_last({"size": size, "offset": offset}):
        offset += PIECE
    assert 0 < size - offset <= PIECE


def test_a_308_without_a_range_holds_nothing() -> None:
    assert arrived(httpx.Response(308)) == 0
    assert arrived(httpx.Response(308, headers={"range": "bytes=0-262143"})) == 262_144
