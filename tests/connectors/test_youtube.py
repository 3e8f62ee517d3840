"""YouTube's connector against answers as the Data API v3 and Google's upload servers give them."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
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
    ContentRejected,
    NotFound,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    RateLimited,
    Reauthorize,
    TokenExpired,
    Transient,
    UnexpectedResponse,
)
from clickpost.policy.load import narrowed
from clickpost.wording import fit
from connectors import youtube
from connectors.youtube import (
    Connector,
    arrived,
    is_last,
    resource_of,
    seconds_to_midnight,
    session_of,
)
from tests.connectors.conftest import POLICIES, Answer, InTurn, api_of, ok

POLICY = POLICIES["youtube"]
GOOGLE = "https://www.googleapis.com"
STAND_IN = "http://127.0.0.1:4999"
SECRETS = {
    "client_id": "1234.apps.googleusercontent.com",
    "client_secret": "GOCSPX-a-secret-of-the-client",
    "refresh_token": "1//0a-refresh-token-of-the-owner-0123456789",
    "access_token": "ya29.an-access-token-of-the-owner-0123456789",
}
UPLOAD = "/upload/youtube/v3/videos"
SESSION = f"{GOOGLE}{UPLOAD}?uploadType=resumable&upload_id=AAANsUn_abc"
UNIT = 262_144
#: What a piece is outside of these tests, which make it small.
WHOLE_PIECE = youtube.PIECE
SENT = datetime(2026, 8, 20, 10, 0, 0, tzinfo=UTC)


def opened(session: str = SESSION) -> httpx.Response:
    return httpx.Response(200, headers={"Location": session})


def incomplete(held: int = 0) -> httpx.Response:
    """A 308; without a Range nothing has been stored."""
    return httpx.Response(308, headers={"Range": f"bytes=0-{held - 1}"} if held else {})


def google_error(status: int, reason: str, domain: str = "youtube.video") -> httpx.Response:
    """An error as the Data API says it."""
    said = "The request cannot be completed."
    first = {"message": said, "domain": domain, "reason": reason}
    return httpx.Response(
        status, json={"error": {"code": status, "message": said, "errors": [first]}}
    )


def token_error(status: int, error: str) -> httpx.Response:
    return httpx.Response(status, json={"error": error, "error_description": "Bad Request"})


VIDEO = {"kind": "youtube#video", "etag": "x", "id": "dQw4w9WgXcQ"}


def status(**said: str) -> httpx.Response:
    return ok(items=[{"id": VIDEO["id"], "status": {"privacyStatus": "public", **said}}])


class Google(InTurn):
    """One of Google's hosts."""

    def ranges(self) -> list[str]:
        return [one.headers["content-range"] for one in self.asked if one.method == "PUT"]


def made(
    *answers: Answer, base: str = GOOGLE, secrets: dict[str, str] = SECRETS, **options: str
) -> tuple[Connector, Google]:
    """A connector, and the Google it speaks to."""
    google = Google(list(answers))
    account = Account("conn_test", "youtube", base, secrets=secrets, options=options)
    return Connector(api_of("youtube", google), account), google


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(youtube, "PIECE", UNIT)


def film_of(folder: Path, size: int, **more: Any) -> MediaFile:
    path = folder / "film.mp4"
    path.write_bytes(bytes(number % 251 for number in range(size)))
    facts: dict[str, Any] = {"width": 1920, "height": 1080, "duration": 200.0, **more}
    return MediaFile(Kind.VIDEO, path, "video/mp4", size, sha256="0", **facts)


@pytest.fixture
def film(tmp_path: Path) -> MediaFile:
    """A file of two pieces and some bytes."""
    return film_of(tmp_path, 2 * UNIT + 1000)


def post(*media: MediaFile, text: str = "Grüße", **options: Any) -> Message:
    return Message(text=text, title="A title", media=media, options=options)


def state_of(film: MediaFile, offset: int = 2 * UNIT) -> dict[str, Any]:
    return {
        "session": SESSION,
        "offset": offset,
        "size": film.bytes,
        "path": str(film.path),
        "mime": film.mime,
        "title": "A title",
        "privacy": "public",
        "short": False,
    }


# --- Opening a session ----------------------------------------------------------------------------


async def test_a_session_is_opened_in_googles_words(film: MediaFile) -> None:
    speaker, google = made(opened())
    await speaker.prepare(post(film), "key")
    asked = google.asked[0]
    assert (asked.method, asked.url.path) == ("POST", UPLOAD)
    assert dict(asked.url.params) == {"uploadType": "resumable", "part": "snippet,status"}
    assert asked.headers["authorization"] == f"Bearer {SECRETS['access_token']}"
    assert asked.headers["content-type"] == "application/json; charset=UTF-8"
    assert asked.headers["x-upload-content-length"] == str(film.bytes)
    assert asked.headers["x-upload-content-type"] == "video/mp4"
    assert json.loads(asked.content) == {
        "snippet": {"title": "A title", "description": "Grüße", "categoryId": "22"},
        "status": {
            "privacyStatus": "public",
            "selfDeclaredMadeForKids": False,
            "containsSyntheticMedia": False,
        },
    }


async def test_a_session_is_stored_before_it_gets_a_byte(film: MediaFile) -> None:
    speaker, google = made(opened())
    so_far = await speaker.prepare(post(film), "key")
    assert not so_far.ready
    assert so_far.again_in > 0
    assert so_far.state["session"] == SESSION
    assert google.ranges() == []


async def test_what_is_one_piece_is_ready_with_its_session(tmp_path: Path) -> None:
    speaker, google = made(opened())
    assert (await speaker.prepare(post(film_of(tmp_path, UNIT)), "key")).ready
    assert google.ranges() == []


async def test_options_of_the_video_go_along_and_a_written_no_is_a_no(film: MediaFile) -> None:
    said = {
        "categoryId": 10,
        "madeForKids": "false",
        "containsSyntheticMedia": True,
        "license": "creativeCommon",
        "embeddable": False,
        "notifySubscribers": "no",
        "defaultAudioLanguage": "de",
        "share_to_feed": True,
    }
    speaker, google = made(opened())
    await speaker.prepare(post(film, **said), "key")
    body = json.loads(google.asked[0].content)
    assert body["snippet"]["categoryId"] == "10"
    assert body["snippet"]["defaultAudioLanguage"] == "de"
    assert body["status"] == {
        "privacyStatus": "public",
        "selfDeclaredMadeForKids": False,
        "containsSyntheticMedia": True,
        "license": "creativeCommon",
        "embeddable": False,
    }
    assert google.asked[0].url.params["notifySubscribers"] == "false"


async def test_a_video_with_a_date_is_private_until_then(film: MediaFile) -> None:
    speaker, google = made(opened())
    await speaker.prepare(post(film, publishAt="2026-09-01T12:00:00+02:00"), "key")
    told = json.loads(google.asked[0].content)["status"]
    assert (told["privacyStatus"], told["publishAt"]) == ("private", "2026-09-01T10:00:00Z")


@pytest.mark.parametrize("moment", ["2026-09-01T10:00:00", "soon", None])
async def test_a_date_that_is_none_never_leaves_the_house(film: MediaFile, moment: Any) -> None:
    speaker, google = made()
    with pytest.raises(PlatformRejected):
        await speaker.prepare(post(film, publishAt=moment), "key")
    assert google.asked == []


@pytest.mark.parametrize(
    ("location", "base", "goes_to"),
    [
        (SESSION, GOOGLE, SESSION),
        ("https://youtube.googleapis.com/upload/x?upload_id=1", GOOGLE, "https://youtube.googleapis.com/upload/x?upload_id=1"),
        (f"{UPLOAD}?upload_id=1", STAND_IN, f"{STAND_IN}{UPLOAD}?upload_id=1"),
        (f"{STAND_IN}/up?upload_id=1", STAND_IN, f"{STAND_IN}/up?upload_id=1"),
        (SESSION, f"{STAND_IN}/yt", SESSION.replace(GOOGLE, f"{STAND_IN}/yt")),
    ],
)  # fmt: skip
def test_a_session_is_in_the_house_that_we_speak_to(location: str, base: str, goes_to: str) -> None:
    assert session_of(location, base) == goes_to


@pytest.mark.parametrize(
    "location", ["", "https://evil.example/x", "http://www.googleapis.com/x", "//evil.example/x"]
)
def test_a_session_in_another_house_gets_no_token(location: str) -> None:
    with pytest.raises(UnexpectedResponse):
        session_of(location, GOOGLE)


async def test_a_session_elsewhere_gets_not_a_byte(film: MediaFile) -> None:
    speaker, google = made(opened("https://evil.example/x"))
    with pytest.raises(UnexpectedResponse, match="session of its own house"):
        await speaker.prepare(post(film), "key")
    assert len(google.asked) == 1


def test_what_the_terms_ask_for_is_always_said() -> None:
    said = resource_of(Message("D", title="T", visibility="unlisted", tags=("a", "b c")))
    assert said["status"] == {
        "privacyStatus": "unlisted",
        "selfDeclaredMadeForKids": False,
        "containsSyntheticMedia": False,
    }
    assert said["snippet"]["tags"] == ["a", "b c"]


@pytest.mark.parametrize("base", [STAND_IN, f"{STAND_IN}/", f"{STAND_IN}/youtube/v3"])
async def test_a_stand_in_may_be_named_with_or_without_the_apis_path(base: str) -> None:
    speaker, google = made(ok(items=[{"id": "UC1"}]), base=base)
    await speaker.whoami()
    assert str(google.asked[0].url).startswith(f"{STAND_IN}/youtube/v3/channels?")


# --- Sending pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, UNIT, UNIT + 1, 3 * UNIT])
def test_something_is_always_left_for_the_last_piece(size: int) -> None:
    offset = 0
    while not is_last({"size": size, "offset": offset}):
        offset += UNIT
    assert 0 < size - offset <= UNIT


def test_a_308_without_a_range_holds_nothing() -> None:
    assert (arrived(incomplete()), arrived(incomplete(UNIT))) == (0, UNIT)


def test_pieces_are_multiples_of_what_the_protocol_demands() -> None:
    assert WHOLE_PIECE % UNIT == 0


async def test_all_but_the_last_piece_are_sent_and_each_is_a_multiple_of_256_kib(
    film: MediaFile,
) -> None:
    speaker, google = made(opened(), incomplete(), incomplete(UNIT), incomplete(2 * UNIT))
    so_far = await speaker.prepare(post(film), "key")
    before = deepcopy(so_far.state)
    ready = await speaker.prepare(post(film), "key", so_far)
    assert ready.ready
    assert so_far.state == before
    size = film.bytes
    assert google.ranges() == [
        f"bytes */{size}",
        f"bytes 0-{UNIT - 1}/{size}",
        f"bytes {UNIT}-{2 * UNIT - 1}/{size}",
    ]
    assert google.asked[2].headers["content-length"] == str(UNIT)
    assert b"".join(one.content for one in google.asked[2:]) == film.path.read_bytes()[: 2 * UNIT]


async def test_an_interrupted_upload_goes_on_where_the_session_says(film: MediaFile) -> None:
    speaker, google = made(incomplete(UNIT), incomplete(2 * UNIT))
    ready = await speaker.prepare(post(film), "key", Prepared(state_of(film, 0), ready=False))
    assert ready.state["offset"] == 2 * UNIT
    assert google.ranges()[1] == f"bytes {UNIT}-{2 * UNIT - 1}/{film.bytes}"


async def test_a_piece_stays_a_multiple_where_the_server_holds_an_odd_number(
    tmp_path: Path,
) -> None:
    film = film_of(tmp_path, 3 * UNIT)
    speaker, google = made(incomplete(1000), incomplete(UNIT + 1000), incomplete(2 * UNIT + 1000))
    ready = await speaker.prepare(post(film), "key", Prepared(state_of(film, 0), ready=False))
    assert ready.ready
    assert {int(one.headers["content-length"]) for one in google.asked[1:]} == {UNIT}


async def test_a_server_that_stores_nothing_is_not_fed_for_ever(film: MediaFile) -> None:
    speaker, google = made(incomplete(), incomplete())
    with pytest.raises(Transient):
        await speaker.prepare(post(film), "key", Prepared(state_of(film, 0), ready=False))
    assert len(google.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503, text="Backend Error"),
        google_error(500, "backendError", "global"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("gone"),
        httpx.Response(400, text="Failed to parse Content-Range header."),
        httpx.Response(416),
    ],
)
async def test_a_piece_that_got_lost_is_made_good_by_the_next_question(
    film: MediaFile, answer: Answer
) -> None:
    speaker, google = made(incomplete(), answer, incomplete(UNIT), incomplete(2 * UNIT))
    stored = Prepared(state_of(film, 0), ready=False)
    with pytest.raises(Transient):
        await speaker.prepare(post(film), "key", stored)
    assert (await speaker.prepare(post(film), "key", stored)).ready
    assert google.ranges()[2] == f"bytes */{film.bytes}"


@pytest.mark.parametrize("gone", [404, 410])
async def test_a_session_that_is_gone_before_the_last_piece_is_opened_anew(
    film: MediaFile, gone: int
) -> None:
    speaker, _ = made(httpx.Response(gone))
    with pytest.raises(PrepareAgain):
        await speaker.prepare(post(film), "key", Prepared(state_of(film, 0), ready=False))


async def test_what_is_ready_is_not_uploaded_again(film: MediaFile) -> None:
    speaker, google = made()
    assert (await speaker.prepare(post(film), "key", Prepared(state_of(film)))).ready
    assert google.asked == []


async def test_another_file_gets_another_session(film: MediaFile) -> None:
    speaker, google = made(opened())
    state = {**state_of(film), "size": 5}
    await speaker.prepare(post(film), "key", Prepared(state))
    assert google.asked[0].method == "POST"


# --- The last piece -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 201])
async def test_the_last_piece_makes_the_video(film: MediaFile, code: int) -> None:
    speaker, google = made(httpx.Response(code, json=VIDEO))
    done = await speaker.publish(Prepared(state_of(film)), "key")
    assert isinstance(done, Pending)
    assert done.receipt == Receipt("dQw4w9WgXcQ", "https://www.youtube.com/watch?v=dQw4w9WgXcQ")
    last = film.bytes - 1
    assert google.ranges() == [f"bytes {2 * UNIT}-{last}/{film.bytes}"]
    assert google.asked[0].content == film.path.read_bytes()[2 * UNIT :]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("gone"),
        httpx.Response(500),
        httpx.Response(502, text="<html>"),
        google_error(503, "backendError", "global"),
        httpx.Response(504),
        httpx.Response(404),
        httpx.Response(410),
        httpx.Response(200, text="<html>"),
        ok(kind="youtube#video"),
    ],
)
async def test_a_last_piece_of_which_nobody_knows_is_never_repeated(
    film: MediaFile, answer: Answer
) -> None:
    speaker, google = made(answer)
    with pytest.raises(OutcomeUnknown):
        await speaker.publish(Prepared(state_of(film)), "key")
    assert len(google.asked) == 1


async def test_only_the_bytes_that_the_server_says_it_lacks_are_sent_again(
    film: MediaFile,
) -> None:
    speaker, google = made(incomplete(UNIT), ok(**VIDEO))
    assert isinstance(await speaker.publish(Prepared(state_of(film)), "key"), Pending)
    assert google.ranges()[1] == f"bytes {UNIT}-{film.bytes - 1}/{film.bytes}"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(400, text="Invalid request. Byte range does not fit."),
        httpx.Response(400, json={"error": {"code": 400, "message": "Invalid", "errors": []}}),
        google_error(400, "badContentRange", "global"),
        httpx.Response(416),
    ],
)
async def test_bytes_that_do_not_fit_are_settled_by_a_question(
    film: MediaFile, answer: Answer
) -> None:
    speaker, google = made(answer, incomplete(2 * UNIT + 500), ok(**VIDEO))
    assert isinstance(await speaker.publish(Prepared(state_of(film)), "key"), Pending)
    assert google.ranges()[1:] == [
        f"bytes */{film.bytes}",
        f"bytes {2 * UNIT + 500}-{film.bytes - 1}/{film.bytes}",
    ]
    speaker, google = made(answer, ok(**VIDEO))
    assert isinstance(await speaker.publish(Prepared(state_of(film)), "key"), Pending)
    assert len(google.asked) == 2


async def test_a_server_that_never_takes_the_last_bytes_gets_a_new_session(
    film: MediaFile,
) -> None:
    speaker, _ = made(*(incomplete(2 * UNIT) for _ in range(3)))
    with pytest.raises(PrepareAgain):
        await speaker.publish(Prepared(state_of(film)), "key")


async def test_every_byte_without_a_video_is_unknown(film: MediaFile) -> None:
    speaker, google = made(incomplete(film.bytes))
    with pytest.raises(OutcomeUnknown):
        await speaker.publish(Prepared(state_of(film)), "key")
    assert len(google.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ConnectError("away"), Transient),
        (google_error(401, "authError", "global"), TokenExpired),
        (google_error(403, "rateLimitExceeded", "usageLimits"), RateLimited),
        (google_error(403, "forbidden", "global"), Reauthorize),
        (google_error(400, "uploadLimitExceeded"), RateLimited),
        (google_error(400, "invalidVideoMetadata"), PlatformRejected),
    ],
)
async def test_a_last_piece_that_was_refused_made_nothing(
    film: MediaFile, answer: Answer, error: type[PlatformError]
) -> None:
    speaker, google = made(answer)
    with pytest.raises(PlatformError) as caught:
        await speaker.publish(Prepared(state_of(film)), "key")
    assert type(caught.value) is error
    assert len(google.asked) == 1


@pytest.mark.parametrize(
    ("width", "height", "duration", "short"),
    [
        (1080, 1920, 180.0, True),
        (1080, 1080, 20.0, True),
        (1080, 1920, 180.1, False),
        (1080, 1920, None, False),
        (1920, 1080, 20.0, False),
    ],
)
async def test_a_short_has_the_address_of_a_short(
    tmp_path: Path, width: int, height: int, duration: float | None, short: bool
) -> None:
    film = film_of(tmp_path, 10, width=width, height=height, duration=duration)
    speaker, _ = made(opened(), ok(**VIDEO))
    done = await speaker.publish(await speaker.prepare(post(film), "key"), "key")
    assert isinstance(done, Pending)
    assert done.receipt is not None
    assert ("/shorts/dQw4w9WgXcQ" in str(done.receipt.url)) is short


def test_how_long_a_short_may_be_is_the_policys_word(tmp_path: Path) -> None:
    film = film_of(tmp_path, 10, width=1080, height=1920, duration=70.0)
    assert POLICY.short is not None
    minute = POLICY.short.model_copy(update={"lasts": timedelta(minutes=1)})
    found = [youtube.is_short(film, rules) for rules in (POLICY.short, minute, None)]
    assert found == [True, False, False]


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (google_error(401, "authError", "global"), TokenExpired),
        (google_error(401, "youtubeSignupRequired", "youtube.header"), Reauthorize),
        (google_error(403, "insufficientPermissions", "global"), Reauthorize),
        (google_error(403, "quotaExceeded", "youtube.quota"), RateLimited),
        (google_error(403, "dailyLimitExceeded", "usageLimits"), RateLimited),
        (google_error(403, "userRateLimitExceeded", "usageLimits"), RateLimited),
        (google_error(403, "rateLimitExceeded", "usageLimits"), RateLimited),
        (google_error(429, "rateLimitExceeded", "global"), RateLimited),
        (google_error(400, "uploadLimitExceeded"), RateLimited),
        (google_error(503, "backendError", "global"), Transient),
        (httpx.Response(502, text="<html>"), Transient),
        (httpx.ReadTimeout("slow"), Transient),
    ],
)
async def test_an_error_says_who_acts_next(
    film: MediaFile, answer: Answer, error: type[PlatformError]
) -> None:
    speaker, _ = made(answer)
    with pytest.raises(PlatformError) as caught:
        await speaker.prepare(post(film), "key")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("code", "reason", "where"),
    [
        (400, "invalidTitle", "title"),
        (400, "invalidDescription", "text"),
        (400, "invalidTags", "tags"),
        (400, "invalidCategoryId", "options.categoryId"),
        (400, "invalidPublishAt", "options.publishAt"),
        (400, "mediaBodyRequired", "media"),
        (400, "defaultLanguageNotSet", "language"),
        (403, "forbiddenPrivacySetting", "visibility"),
        (403, "forbiddenLicenseSetting", "options.license"),
        (403, "forbiddenEmbedSetting", "options.embeddable"),
    ],
)
async def test_the_writer_is_told_which_part_is_at_fault(
    film: MediaFile, code: int, reason: str, where: str
) -> None:
    speaker, _ = made(google_error(code, reason))
    with pytest.raises(PlatformRejected) as caught:
        await speaker.prepare(post(film), "key")
    assert caught.value.field == where


async def test_a_scope_that_is_missing_is_read_from_the_details_too(film: MediaFile) -> None:
    info = "type.googleapis.com/google.rpc.ErrorInfo"
    details = [{"@type": info, "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]
    body = {"error": {"code": 403, "message": "No.", "status": "PERMISSION_DENIED"}}
    body["error"]["details"] = details  # type: ignore[assignment]
    speaker, _ = made(httpx.Response(403, json=body))
    with pytest.raises(Reauthorize) as caught:
        await speaker.prepare(post(film), "key")
    assert caught.value.code == "ACCESS_TOKEN_SCOPE_INSUFFICIENT"


@pytest.mark.parametrize(
    "body",
    [
        {"error": "oops"},
        {"error": {"errors": "oops"}},
        {"error": {"errors": ["oops"], "code": 400}},
        {"error": {"errors": [{"reason": {}}]}},
        ["oops"],
    ],
)
async def test_an_error_of_any_shape_is_one_of_our_errors(film: MediaFile, body: Any) -> None:
    speaker, _ = made(httpx.Response(400, json=body))
    with pytest.raises(PlatformError):
        await speaker.prepare(post(film), "key")


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        ("2026-08-20T10:00:00+00:00", 21),  # 3 in the morning, summer time
        ("2026-12-20T10:00:00+00:00", 22),
        ("2026-11-01T07:00:00+00:00", 25),  # the day the clocks go back
    ],
)
def test_a_daily_quota_is_full_again_at_midnight_in_california(now: str, hours: int) -> None:
    assert seconds_to_midnight(datetime.fromisoformat(now)) == hours * 3600 + 1


async def test_a_spent_quota_waits_for_midnight_and_no_day_longer(film: MediaFile) -> None:
    speaker, _ = made(google_error(403, "quotaExceeded", "youtube.quota"))
    left = seconds_to_midnight(datetime.now(UTC))
    with pytest.raises(RateLimited) as caught:
        await speaker.prepare(post(film), "key")
    assert abs(caught.value.retry_after - min(left, 86_400)) <= 5
    assert caught.value.per == "app"


async def test_a_channels_own_limit_waits_a_day(film: MediaFile) -> None:
    speaker, _ = made(google_error(400, "uploadLimitExceeded"))
    with pytest.raises(RateLimited) as caught:
        await speaker.prepare(post(film), "key")
    assert (caught.value.retry_after, caught.value.per) == (86_400, "account")


async def test_no_error_tells_a_token_or_the_words(film: MediaFile) -> None:
    private = "a very private description"
    said = f'Bad token {SECRETS["access_token"]} for "{private}" in {SESSION}'
    body = {"error": {"code": 400, "message": said, "errors": [{"reason": said}]}}
    for answer in (httpx.Response(400, json=body), httpx.ReadTimeout(said)):
        speaker, _ = made(answer)
        with pytest.raises(PlatformError) as caught:
            await speaker.prepare(post(film, text=private), "key")
        told = f"{caught.value!s} {caught.value!r} {caught.value.detail} {caught.value.code}"
        assert private not in told
        assert "upload_id" not in told
        assert not any(SECRETS[key] in told for key in ("access_token", "refresh_token"))


@pytest.mark.parametrize(
    ("title", "text"),
    [("x" * 101, "t"), ("a < b", "t"), ("T", "a > b"), ("T", "é" * 2501)],
)
def test_words_beyond_the_limits_never_leave_the_house(title: str, text: str) -> None:
    with pytest.raises(ContentRejected):
        fit(text, policy=POLICY, how="refuse", title=title, media=1, alts=("",), kinds=("video",))


@pytest.mark.parametrize(("title", "text"), [("x" * 100, "t"), ("T", "é" * 2500), ("T", "")])
def test_words_at_the_limits_are_taken(title: str, text: str) -> None:
    assert fit(
        text, policy=POLICY, how="refuse", title=title, media=1, alts=("",), kinds=("video",)
    )


# --- Processing -----------------------------------------------------------------------------------

TICKET = {"id": "dQw4w9WgXcQ", "url": "https://youtu.be/dQw4w9WgXcQ", "privacy": "public"}


async def test_a_processed_video_is_live() -> None:
    speaker, google = made(status(uploadStatus="processed"))
    assert await speaker.resume(TICKET) == Receipt(TICKET["id"], TICKET["url"])
    asked = google.asked[0].url
    assert dict(asked.params) == {"part": "status,processingDetails", "id": TICKET["id"]}


@pytest.mark.parametrize("processing", ["processing", "terminated", None])
async def test_an_uploaded_video_is_asked_about_again(processing: str | None) -> None:
    details = {"processingStatus": processing} if processing else {}
    item = {"status": {"uploadStatus": "uploaded"}, "processingDetails": details}
    speaker, _ = made(ok(items=[item]))
    assert isinstance(await speaker.resume(TICKET), Pending)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"uploadStatus": "failed", "failureReason": "conversion"}, PlatformRejected),
        ({"uploadStatus": "failed", "failureReason": "codec"}, PlatformRejected),
        ({"uploadStatus": "failed"}, PlatformRejected),
        ({"uploadStatus": "rejected", "rejectionReason": "duplicate"}, PlatformRejected),
        ({"uploadStatus": "rejected", "rejectionReason": "copyright"}, PlatformRejected),
        ({"uploadStatus": "rejected", "rejectionReason": "uploaderAccountSuspended"}, Reauthorize),
        ({"uploadStatus": "rejected", "rejectionReason": "uploaderAccountClosed"}, Reauthorize),
        ({"uploadStatus": "deleted"}, NotFound),
    ],
)
async def test_a_video_that_youtube_does_not_keep_says_why(
    said: dict[str, str], error: type[PlatformError]
) -> None:
    speaker, _ = made(status(**said))
    with pytest.raises(PlatformError) as caught:
        await speaker.resume(TICKET)
    assert type(caught.value) is error
    reason = said.get("failureReason") or said.get("rejectionReason") or said["uploadStatus"]
    assert reason in str(caught.value)


async def test_a_failed_processing_is_told_by_its_own_reason() -> None:
    details = {"processingStatus": "failed", "processingFailureReason": "transcodeFailed"}
    item = {"status": {"uploadStatus": "uploaded"}, "processingDetails": details}
    speaker, _ = made(ok(items=[item]))
    with pytest.raises(PlatformRejected, match="transcodeFailed"):
        await speaker.resume(TICKET)


async def test_a_video_that_is_not_there_is_gone() -> None:
    speaker, _ = made(ok(items=[]))
    with pytest.raises(NotFound):
        await speaker.resume(TICKET)


async def test_a_video_that_youtube_hides_is_live_and_says_so() -> None:
    speaker, _ = made(status(uploadStatus="processed", privacyStatus="private"))
    done = await speaker.resume(TICKET)
    assert isinstance(done, Receipt)
    assert done.extra == {"privacyStatus": "private"}


# --- Find -----------------------------------------------------------------------------------------


def sought(film: MediaFile, text: str = "Grüße") -> Sought:
    return Sought("key", Prepared(state_of(film)), text, SENT, SENT + timedelta(minutes=1))


CHANNEL = {"id": "UC1", "contentDetails": {"relatedPlaylists": {"uploads": "UU1"}}}


def row(video_id: str, title: str = "A title", after: float = 5, **more: Any) -> dict[str, Any]:
    moment = (SENT + timedelta(seconds=after)).isoformat().replace("+00:00", "Z")
    snippet = {"title": title, "description": "Grüße", "publishedAt": moment, **more}
    return {"snippet": snippet, "contentDetails": {"videoId": video_id}}


async def test_a_session_that_lacks_bytes_proves_that_nothing_is_there(film: MediaFile) -> None:
    speaker, google = made(incomplete(2 * UNIT))
    assert await speaker.find(sought(film)) is Absence.NOT_THERE
    assert google.ranges() == [f"bytes */{film.bytes}"]
    assert google.asked[0].headers["content-length"] == "0"
    assert google.asked[0].content == b""


@pytest.mark.parametrize("code", [200, 201])
async def test_a_complete_session_names_its_video(film: MediaFile, code: int) -> None:
    speaker, _ = made(httpx.Response(code, json=VIDEO))
    found = await speaker.find(sought(film))
    assert isinstance(found, Pending)
    assert found.ticket["id"] == "dQw4w9WgXcQ"


async def test_a_session_with_every_byte_and_no_video_is_asked_again(film: MediaFile) -> None:
    speaker, _ = made(incomplete(film.bytes))
    with pytest.raises(Transient):
        await speaker.find(sought(film))


async def test_nothing_was_sent_where_no_session_was_opened() -> None:
    speaker, google = made()
    look = Sought("key", Prepared({}), "t", SENT, SENT)
    assert await speaker.find(look) is Absence.NOT_THERE
    assert google.asked == []


@pytest.mark.parametrize("gone", [404, 410])
async def test_where_the_session_is_gone_the_uploads_are_read(film: MediaFile, gone: int) -> None:
    rows = [row("c", "Other"), row("b"), row("a", after=-3600)]
    speaker, google = made(httpx.Response(gone), ok(items=[CHANNEL]), ok(items=rows))
    found = await speaker.find(sought(film))
    assert isinstance(found, Pending)
    assert found.ticket["id"] == "b"
    asked = google.asked[2].url
    assert (asked.params["playlistId"], asked.params["maxResults"]) == ("UU1", "50")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("a"), row("b")],
        [row("a", description="Another text")],
        [row("a", title="Another title")],
    ],
)
async def test_uploads_without_the_one_video_prove_nothing(film: MediaFile, rows: Any) -> None:
    speaker, _ = made(httpx.Response(404), ok(items=[CHANNEL]), ok(items=rows))
    assert await speaker.find(sought(film)) is Absence.CANNOT_TELL


async def test_of_two_uploads_alike_the_one_that_is_known_is_left_out(film: MediaFile) -> None:
    rows = [row("known"), row("ours")]
    speaker, _ = made(httpx.Response(404), ok(items=[CHANNEL]), ok(items=rows))
    found = await speaker.find(replace(sought(film), taken=frozenset({"known"})))
    assert isinstance(found, Pending)
    assert found.ticket["id"] == "ours"


async def test_a_channel_without_uploads_proves_nothing(film: MediaFile) -> None:
    missing = google_error(404, "playlistNotFound", "youtube.playlistItem")
    speaker, _ = made(httpx.Response(404), ok(items=[CHANNEL]), missing)
    assert await speaker.find(sought(film)) is Absence.CANNOT_TELL


# --- Account --------------------------------------------------------------------------------------


async def test_a_refresh_asks_google_and_keeps_the_refresh_token() -> None:
    scope = "https://www.googleapis.com/auth/youtube.upload openid"
    fresh = {"access_token": "ya29.fresh", "expires_in": 3599, "token_type": "Bearer"}
    speaker, google = made(ok(**fresh, scope=scope))
    tokens = await speaker.refresh()
    assert tokens.secrets == {"access_token": "ya29.fresh"}
    assert tokens.expires_at is not None
    assert timedelta(seconds=3590) < tokens.expires_at - datetime.now(UTC) < timedelta(hours=1)
    assert str(google.asked[0].url) == "https://oauth2.googleapis.com/token"
    assert google.form() == {
        "grant_type": "refresh_token",
        "refresh_token": SECRETS["refresh_token"],
        "client_id": SECRETS["client_id"],
        "client_secret": SECRETS["client_secret"],
    }


async def test_an_access_token_alone_is_used_as_it_is_for_an_hour_at_most() -> None:
    speaker, google = made(secrets={"access_token": "ya29.alone"})
    tokens = await speaker.sign_in()
    assert google.asked == []
    assert tokens.secrets == {"access_token": "ya29.alone"}
    assert tokens.expires_at is not None
    assert timedelta(minutes=59) < tokens.expires_at - datetime.now(UTC) <= timedelta(hours=1)


async def test_a_stand_in_makes_the_tokens_too_and_google_gets_no_secret_of_it() -> None:
    speaker, google = made(ok(access_token="t"), base=STAND_IN)
    await speaker.refresh()
    assert google.asked[0].url.host == "127.0.0.1"
    speaker, google = made(ok(access_token="t"), base="https://youtube.googleapis.com")
    await speaker.refresh()
    assert google.asked[0].url.host == "oauth2.googleapis.com"


@pytest.mark.parametrize("told", [None, "", "soon"])
async def test_an_odd_answer_to_a_refresh_empties_nothing(told: Any) -> None:
    speaker, _ = made(ok(access_token="t", refresh_token=told, expires_in=told))
    tokens = await speaker.refresh()
    assert all(tokens.secrets.values())
    assert tokens.expires_at is not None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (token_error(400, "invalid_grant"), Reauthorize),
        (token_error(401, "invalid_client"), Reauthorize),
        (token_error(400, "invalid_request"), Reauthorize),
        (token_error(500, "internal_failure"), Transient),
        (httpx.Response(503, text="<html>"), Transient),
        (httpx.ReadTimeout("slow"), Transient),
        (httpx.ConnectError("away"), Transient),
        (httpx.Response(429), RateLimited),
        (ok(access_token=""), UnexpectedResponse),
        (ok(access_token="t", scope=f"{GOOGLE}/auth/youtube.readonly"), Reauthorize),
    ],
)
async def test_only_the_end_of_the_grant_disconnects(
    answer: Answer, error: type[PlatformError]
) -> None:
    speaker, _ = made(answer)
    with pytest.raises(PlatformError) as caught:
        await speaker.refresh()
    assert type(caught.value) is error


async def test_a_revoked_grant_is_revoked_once_more_without_a_complaint() -> None:
    speaker, google = made(ok())
    await speaker.revoke()
    assert str(google.asked[0].url) == "https://oauth2.googleapis.com/revoke"
    assert google.form() == {"token": SECRETS["refresh_token"]}
    speaker, _ = made(token_error(400, "invalid_token"))
    await speaker.revoke()
    speaker, _ = made(httpx.Response(404))
    with pytest.raises(NotFound):
        await speaker.revoke()


async def test_a_channel_says_who_it_is() -> None:
    snippet = {"title": "Acme", "customUrl": "@acme"}
    speaker, google = made(ok(items=[{"id": "UC1", "snippet": snippet}]))
    who = await speaker.whoami()
    assert (who.remote_id, who.handle, who.name) == ("UC1", "@acme", "Acme")
    assert google.asked[0].url.params["mine"] == "true"


@pytest.mark.parametrize(
    ("word", "longest"),
    [
        ("allowed", timedelta(hours=12)),
        ("longUploadsUnspecified", timedelta(hours=12)),
        (None, timedelta(hours=12)),
        ("eligible", timedelta(minutes=15)),
        ("disallowed", timedelta(minutes=15)),
    ],
)
async def test_a_channel_that_is_not_verified_takes_a_quarter_of_an_hour(
    word: str | None, longest: timedelta
) -> None:
    speaker, google = made(ok(items=[{"id": "UC1", "status": {"longUploadsStatus": word}}]))
    limits = (await speaker.whoami()).limits
    assert "status" in google.asked[0].url.params["part"]
    kept = json.loads(json.dumps(limits))  # As the database keeps them.
    assert narrowed(POLICY, kept).video.lasts.max == longest


@pytest.mark.parametrize(
    "answer",
    [
        ok(kind="youtube#channelListResponse", pageInfo={"totalResults": 0}),
        google_error(401, "youtubeSignupRequired", "youtube.header"),
    ],
)
async def test_an_account_without_a_channel_is_for_its_owner(answer: Answer) -> None:
    speaker, _ = made(answer)
    with pytest.raises(Reauthorize):
        await speaker.whoami()


@pytest.mark.parametrize("answer", [httpx.Response(204), google_error(404, "videoNotFound")])
async def test_a_video_is_deleted_and_one_that_is_gone_is_fine(answer: Answer) -> None:
    speaker, google = made(answer)
    await speaker.delete(Receipt("dQw4w9WgXcQ"))
    asked = google.asked[0]
    assert (asked.method, asked.url.path) == ("DELETE", "/youtube/v3/videos")
    assert re.fullmatch(b"id=dQw4w9WgXcQ", asked.url.query)
