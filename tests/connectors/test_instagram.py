"""Instagram's connector against answers as Meta's documents and its servers give them."""

from __future__ import annotations

import json
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
    Outline,
    Prepared,
    Receipt,
    Sought,
)
from clickpost.errors import (
    ContentRejected,
    InvalidInput,
    NotReady,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    RateLimited,
    Reauthorize,
    Transient,
    Unavailable,
)
from clickpost.wording import fit
from connectors.instagram import Connector, is_public, status_of
from tests.connectors.conftest import POLICIES, Answer, InTurn, api_of, ok

POLICY = POLICIES["instagram"]
IG = "17841405309211844"
TOKEN = "IGAAsecret-token-of-the-account-0123456789"
INSTAGRAM = "https://graph.instagram.com"
FACEBOOK = "https://graph.facebook.com"
STAND_IN = "http://127.0.0.1:4999"
BYTES = b"\x00\x00\x00\x18ftypmp42 not really a film"
SENT = datetime(2026, 8, 20, 10, 0, 0, tzinfo=UTC)


def graph_error(
    code: int, subcode: int | None = None, status: int = 400, headers: Any = None, **more: Any
) -> httpx.Response:
    """An error as Graph says it."""
    error: dict[str, Any] = {"message": "It did not work", "type": "OAuthException", "code": code}
    if subcode:
        error |= {"error_subcode": subcode, "is_transient": False, "error_user_msg": "Sorry."}
    body = {"error": {**error, **more, "fbtrace_id": "A6LJylpZRQw2xKLFsAP-cJh"}}
    return httpx.Response(status, json=body, headers=headers)


class Meta(InTurn):
    """One of Meta's hosts."""

    def calls(self) -> list[str]:
        return [f"{one.method} {one.url.path}" for one in self.asked]


def made(
    *answers: Answer, base: str = INSTAGRAM, user: str | None = IG, **options: str
) -> tuple[Connector, Meta]:
    """A connector, and the Meta it speaks to."""
    meta = Meta(list(answers))
    account = Account(
        connection_id="conn_test",
        platform="instagram",
        api_base=base,
        remote_id=user,
        secrets={"access_token": TOKEN},
        options=options,
    )
    return Connector(api_of("instagram", meta), account), meta


def image(url: str | None = "https://cdn.example/a.jpg?mark=1", alt: str = "A dog") -> MediaFile:
    return MediaFile(Kind.IMAGE, Path("a.jpg"), "image/jpeg", 10, 800, 800, "0", alt=alt, url=url)


@pytest.fixture
def film(tmp_path: Path) -> MediaFile:
    path = tmp_path / "film.mp4"
    path.write_bytes(BYTES)
    url = "https://cdn.example/film.mp4"
    return MediaFile(Kind.VIDEO, path, "video/mp4", len(BYTES), 1080, 1920, "0", 5.0, "No", url)


def post(*media: MediaFile, text: str = "Hi #café & more", **options: Any) -> Message:
    return Message(text=text, media=media, options=options)


FINISHED = {"status_code": "FINISHED", "status": "Finished: ready.", "id": "17889455560051444"}
WORKING = {
    "status_code": "IN_PROGRESS",
    "status": "In Progress: Media is still being processed.",
    "id": "17889455560051444",
}


def broken(subcode: str) -> dict[str, str]:
    said = f"Error: Media upload has failed with error code {subcode}"
    return {"status_code": "ERROR", "status": said, "id": "17889455560051444"}


# --- Containers -----------------------------------------------------------------------------------


async def test_an_image_is_said_in_metas_words_and_asked_about_before_it_counts_as_ready() -> None:
    speaker, meta = made(ok(id="1788"), ok(**FINISHED))
    ready = await speaker.prepare(post(image()), "key")
    assert ready.ready
    assert ready.state["container"] == "1788"
    assert meta.calls() == [f"POST /v25.0/{IG}/media", "GET /v25.0/1788"]
    assert meta.form(0) == {
        "image_url": "https://cdn.example/a.jpg?mark=1",
        "caption": "Hi #café & more",
        "alt_text": "A dog",
        "access_token": TOKEN,
    }
    assert b"%23caf%C3%A9" in meta.asked[0].content
    assert meta.asked[1].url.params["fields"] == "status_code,status"


async def test_a_post_without_words_or_description_sends_no_empty_fields() -> None:
    speaker, meta = made(ok(id="1788"), ok(**FINISHED))
    await speaker.prepare(post(image(alt=""), text=""), "key")
    assert set(meta.form(0)) == {"image_url", "access_token"}


async def test_with_instagram_login_meta_fetches_the_video_as_documented(film: MediaFile) -> None:
    speaker, meta = made(ok(id="1788"), ok(**FINISHED))
    await speaker.prepare(post(film), "key")
    form = meta.form(0)
    assert (form["media_type"], form["video_url"]) == ("REELS", "https://cdn.example/film.mp4")
    assert not {"upload_type", "alt_text"} & form.keys()
    assert len(meta.asked) == 2


async def test_with_facebook_login_the_bytes_go_where_the_answer_says(film: MediaFile) -> None:
    uri = "https://rupload.facebook.com/ig-api-upload/v25.0/1788?session=7"
    uploaded = ok(success=True, message="Upload successful.")
    speaker, meta = made(ok(id="1788", uri=uri), uploaded, ok(**FINISHED), base=FACEBOOK)
    assert (await speaker.prepare(post(film), "key")).ready
    form = meta.form(0)
    assert (form["media_type"], form["upload_type"]) == ("REELS", "resumable")
    assert "video_url" not in form
    sent = meta.asked[1]
    assert str(sent.url) == uri
    assert sent.headers["authorization"] == f"OAuth {TOKEN}"
    assert (sent.headers["offset"], sent.headers["file_size"]) == ("0", str(len(BYTES)))
    assert sent.headers["content-length"] == str(len(BYTES))
    assert sent.content == BYTES


@pytest.mark.parametrize(
    ("base", "uri", "goes_to"),
    [
        (FACEBOOK, None, "https://rupload.facebook.com/ig-api-upload/v25.0/1788"),
        (FACEBOOK, "https://evil.example/x", "https://rupload.facebook.com/ig-api-upload/v25.0/1788"),
        (FACEBOOK, "http://rupload.facebook.com/x", "https://rupload.facebook.com/ig-api-upload/v25.0/1788"),
        (STAND_IN, f"{STAND_IN}/up/1788", f"{STAND_IN}/up/1788"),
        (STAND_IN, "https://rupload.facebook.com/x", f"{STAND_IN}/ig-api-upload/v25.0/1788"),
    ],
)  # fmt: skip
async def test_the_token_goes_with_the_bytes_to_the_house_we_speak_to_and_to_no_other(
    film: MediaFile, base: str, uri: str | None, goes_to: str
) -> None:
    answer = ok(id="1788", uri=uri) if uri else ok(id="1788")
    done = ok(success=True)
    speaker, meta = made(answer, done, ok(**FINISHED), base=base, login="facebook")
    await speaker.prepare(post(film), "key")
    assert str(meta.asked[1].url) == goes_to


REFUSED = {"retriable": False, "type": "ProcessingFailedError", "message": "Broken."}


@pytest.mark.parametrize("status", [200, 400])
async def test_a_film_that_the_upload_host_cannot_read_is_for_the_writer(
    film: MediaFile, status: int
) -> None:
    said = httpx.Response(status, json={"debug_info": REFUSED})
    speaker, _ = made(ok(id="1788"), said, base=FACEBOOK)
    with pytest.raises(PlatformRejected) as caught:
        await speaker.prepare(post(film), "key")
    assert caught.value.field == "video"


@pytest.mark.parametrize(
    "said",
    [
        httpx.Response(400, json={"debug_info": {**REFUSED, "retriable": True}}),
        httpx.Response(200, json={"debug_info": {**REFUSED, "retriable": True}}),
        httpx.Response(200, json={"success": False}),
    ],
)
async def test_an_upload_that_may_be_tried_again_gets_another_container(
    film: MediaFile, said: httpx.Response
) -> None:
    speaker, _ = made(ok(id="1788"), said, base=FACEBOOK)
    with pytest.raises(PrepareAgain):
        await speaker.prepare(post(film), "key")


async def test_an_address_that_meta_cannot_reach_is_for_the_operator_before_any_call() -> None:
    for url in ("http://127.0.0.1:4280/a.jpg", "http://localhost/a.jpg", "http://10.0.0.7/a", None):
        speaker, meta = made()
        with pytest.raises(Unavailable):
            await speaker.prepare(post(image(url)), "key")
        assert meta.asked == []


async def test_a_stand_in_on_our_machine_may_fetch_from_it() -> None:
    speaker, meta = made(ok(id="1"), ok(**FINISHED), base=STAND_IN)
    await speaker.prepare(post(image("http://127.0.0.1:4280/a.jpg")), "key")
    assert meta.form(0)["image_url"] == "http://127.0.0.1:4280/a.jpg"


def test_what_lies_inside_is_told_by_its_host() -> None:
    assert is_public("https://cdn.example/a")
    assert is_public("https://8.8.8.8/a")
    assert not any(map(is_public, ("http://gateway/a", "http://[::1]/a", "http://192.168.1.2/a")))


async def test_an_album_is_made_of_finished_children_in_their_order(film: MediaFile) -> None:
    speaker, meta = made(
        *(ok(id="c1"), ok(id="c2"), ok(**FINISHED), ok(**WORKING)),
        *(ok(**FINISHED), ok(id="album"), ok(**FINISHED)),
    )
    what = post(image(), film)
    first = await speaker.prepare(what, "key")
    assert not first.ready
    before = deepcopy(first.state)
    assert meta.form(0) == {
        "is_carousel_item": "true",
        "image_url": "https://cdn.example/a.jpg?mark=1",
        "alt_text": "A dog",
        "access_token": TOKEN,
    }
    assert (meta.form(1)["media_type"], meta.form(1)["is_carousel_item"]) == ("VIDEO", "true")
    ready = await speaker.prepare(what, "key", first)
    assert first.state == before
    assert ready.ready
    assert meta.calls()[4:] == ["GET /v25.0/c2", f"POST /v25.0/{IG}/media", "GET /v25.0/album"]
    assert meta.form(5) == {
        "media_type": "CAROUSEL",
        "children": "c1,c2",
        "caption": "Hi #café & more",
        "access_token": TOKEN,
    }


async def test_what_is_stored_between_two_questions_survives_json(film: MediaFile) -> None:
    speaker, _ = made(ok(id="1788"), ok(**WORKING), ok(**FINISHED))
    waiting = await speaker.prepare(post(film), "key")
    stored = Prepared(json.loads(json.dumps(waiting.state)), ready=False)
    assert (await speaker.prepare(post(film), "key", stored)).state["container"] == "1788"


async def test_options_of_the_post_go_along_and_those_of_others_do_not(film: MediaFile) -> None:
    speaker, meta = made(ok(id="1788"), ok(**FINISHED))
    said = {"share_to_feed": True, "thumb_offset": 500, "collaborators": ["ann"], "categoryId": 2}
    await speaker.prepare(post(film, **said), "key")
    form = meta.form(0)
    assert (form["share_to_feed"], form["thumb_offset"]) == ("true", "500")
    assert form["collaborators"] == '["ann"]'
    assert "categoryId" not in form
    speaker, meta = made(ok(id="1788"), ok(**FINISHED))
    await speaker.prepare(post(image(), **said), "key")
    assert not {"share_to_feed", "thumb_offset"} & meta.form(0).keys()


# --- Status ---------------------------------------------------------------------------------------


async def test_questions_grow_rare_until_they_come_once_a_minute() -> None:
    speaker, _ = made(ok(id="1788"), *(ok(**WORKING) for _ in range(8)))
    waits, so_far = [], None
    for _ in range(8):
        so_far = await speaker.prepare(post(image()), "key", so_far)
        assert not so_far.ready
        waits.append(so_far.again_in)
    assert waits == sorted(waits)
    assert waits[0] <= 5
    assert waits[-2:] == [60.0, 60.0]


async def test_a_container_in_progress_for_ever_is_not_asked_about_for_ever() -> None:
    speaker, _ = made(ok(id="1788"), ok(**WORKING), ok(**WORKING))
    waiting = await speaker.prepare(post(image()), "key")
    long_ago = waiting.state["since"] - POLICY.processing.give_up.total_seconds()
    with pytest.raises(NotReady):
        await speaker.prepare(
            post(image()), "key", Prepared({**waiting.state, "since": long_ago}, ready=False)
        )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status_code": "EXPIRED", "status": "Expired: …"}, PrepareAgain),
        ({"status_code": "ERROR"}, PrepareAgain),
        (broken("2207001"), PrepareAgain),  # a retry of the same container would never end
        (broken("2207032"), PrepareAgain),
        (broken("2207003"), PrepareAgain),
        (broken("2207052"), PrepareAgain),
        (broken("2207053"), PrepareAgain),
        (broken("2207077"), PrepareAgain),
        (broken("2207082"), PrepareAgain),
        (broken("2207099"), PlatformRejected),
        (broken("2207026"), PlatformRejected),
        (broken("2207051"), Reauthorize),
        ({"status": "Error: Media upload has failed with error code 2207026"}, PlatformRejected),
    ],
)
async def test_a_container_that_broke_is_made_anew_unless_somebody_is_at_fault(
    answer: dict[str, str], error: type[PlatformError]
) -> None:
    speaker, _ = made(ok(id="1788"), ok(**answer))
    with pytest.raises(error):
        await speaker.prepare(post(image()), "key")


def test_a_status_is_read_with_or_without_its_code() -> None:
    assert status_of({"status_code": "FINISHED"}) == "FINISHED"
    assert status_of({"status": "In Progress: Media is still being processed."}) == "IN_PROGRESS"
    assert status_of({}) == ""


# --- Publish --------------------------------------------------------------------------------------

READY = Prepared({"container": "1788", "since": 0, "asked": 0})


async def test_a_publish_is_one_call_and_its_address_is_read_afterwards() -> None:
    link = "https://www.instagram.com/p/DAbc/"
    speaker, meta = made(ok(id="1792"), ok(id="1792", permalink=link))
    assert await speaker.publish(READY, "key") == Receipt("1792", link)
    assert meta.calls() == [f"POST /v25.0/{IG}/media_publish", "GET /v25.0/1792"]
    assert meta.form(0) == {"creation_id": "1788", "access_token": TOKEN}


@pytest.mark.parametrize(
    "answer",
    [
        graph_error(100, 33),
        graph_error(190, 463, 401),
        graph_error(2, status=500),
        httpx.Response(404, text="<html>"),
        httpx.Response(200, text="<html>"),
        ok(id="1792"),
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("away"),
        httpx.DecodingError("torn"),
    ],
)
async def test_a_post_is_live_whatever_becomes_of_its_address(answer: Answer) -> None:
    speaker, meta = made(ok(id="1792"), answer)
    assert await speaker.publish(READY, "key") == Receipt("1792", None)
    assert sum("media_publish" in call for call in meta.calls()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("gone"),
        httpx.Response(502, text="<html>"),
        graph_error(1, status=500, is_transient=True),
        graph_error(2),
        graph_error(-1, 2207001),
        graph_error(-1, 2207032),
        graph_error(-1, 2209999),
        graph_error(24, 2207008),
        graph_error(24),
        graph_error(12345, is_transient=True),
        graph_error(100, 12345, is_transient=True),
        httpx.Response(200, text="<html>"),
        ok(success=True),
    ],
)
async def test_a_publish_of_which_nobody_knows_is_unknown(answer: Answer) -> None:
    speaker, meta = made(answer)
    with pytest.raises(OutcomeUnknown):
        await speaker.publish(READY, "key")
    assert len(meta.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ConnectError("away"), Transient),
        (graph_error(9007, 2207027), NotReady),
        (graph_error(9007), NotReady),
        (graph_error(24, 2207006), PrepareAgain),
        (graph_error(-2, 2207020), PrepareAgain),
        (graph_error(9, 2207042), RateLimited),
        (graph_error(4, 2207051), Reauthorize),  # spam: code 4, but no rate limit
        (graph_error(25, 2207050), Reauthorize),
        (graph_error(190, 460, 401), Reauthorize),
        (graph_error(190, 463, 400), Reauthorize),
        (graph_error(102), Reauthorize),
        (graph_error(3), Reauthorize),
        (graph_error(10, status=403), Reauthorize),
        (graph_error(200, status=403), Reauthorize),
        (graph_error(230), Reauthorize),
        (graph_error(299), Reauthorize),
        (graph_error(1, 2853006), Reauthorize),
        (graph_error(368), Reauthorize),
        (graph_error(100, 33), Reauthorize),
        (graph_error(110, message="The user is not an Instagram Business"), Reauthorize),
        (
            graph_error(
                110, message="The user is not an Instagram Business", error_user_msg="Sorry."
            ),
            Reauthorize,
        ),
        (graph_error(36004, 2207010), PlatformRejected),
        (graph_error(100, 2207040), PlatformRejected),
        (graph_error(100), PlatformRejected),
    ],
)
async def test_an_error_says_who_acts_next(answer: Answer, error: type[PlatformError]) -> None:
    speaker, _ = made(answer)
    with pytest.raises(PlatformError) as caught:
        await speaker.publish(READY, "key")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("code", "subcode", "where"),
    [
        (36000, 2207004, "image.bytes"),
        (36001, 2207005, "image.format"),
        (36003, 2207009, "image.aspect"),
        (36004, 2207010, "text"),
        (352, 2207026, "video"),
        (1, 2207057, "thumb_offset"),
        (100, 2207040, "mentions"),
    ],
)
async def test_the_writer_is_told_which_part_is_at_fault(
    code: int, subcode: int, where: str
) -> None:
    speaker, _ = made(graph_error(code, subcode))
    with pytest.raises(PlatformRejected) as caught:
        await speaker.prepare(post(image()), "key")
    assert caught.value.field == where
    assert caught.value.code == f"{code}/{subcode}"


@pytest.mark.parametrize(("code", "subcode"), [(9004, 2207052), (-2, 2207003), (2, None)])
async def test_a_container_that_could_not_be_made_is_asked_for_again(
    code: int, subcode: int | None
) -> None:
    speaker, _ = made(graph_error(code, subcode))
    with pytest.raises(Transient):
        await speaker.prepare(post(image()), "key")


# --- Limits ---------------------------------------------------------------------------------------

USAGE = json.dumps(
    {
        IG: [
            {"type": "pages", "call_count": 10, "estimated_time_to_regain_access": 0},
            {"type": "instagram", "call_count": 100, "estimated_time_to_regain_access": 19},
        ]
    }
)


@pytest.mark.parametrize("code", [4, 17, 32, 341, 613, 80002])
async def test_a_rate_limit_waits_the_minutes_of_the_usage_header(code: int) -> None:
    headers = {"X-Business-Use-Case-Usage": USAGE, "X-App-Usage": '{"call_count":100}'}
    speaker, _ = made(graph_error(code, headers=headers, is_transient=True))
    with pytest.raises(RateLimited) as caught:
        await speaker.publish(READY, "key")
    assert caught.value.retry_after == 19 * 60


async def test_a_rate_limit_without_a_time_waits_an_hour_and_not_a_minute() -> None:
    headers = {"X-App-Usage": '{"call_count":100,"total_time":25,"total_cputime":25}'}
    speaker, _ = made(graph_error(4, status=403, headers=headers))
    with pytest.raises(RateLimited) as caught:
        await speaker.publish(READY, "key")
    assert caught.value.retry_after == 3600


async def test_the_daily_limit_is_a_day_whatever_the_usage_header_says() -> None:
    speaker, _ = made(graph_error(9, 2207042, headers={"X-Business-Use-Case-Usage": USAGE}))
    with pytest.raises(RateLimited) as caught:
        await speaker.publish(READY, "key")
    assert caught.value.retry_after == 86400


async def test_the_quota_is_the_accounts_own() -> None:
    config = {"quota_total": 100, "quota_duration": 86400}
    speaker, meta = made(ok(data=[{"quota_usage": 2, "config": config}]))
    told = await speaker.quota()
    assert (told.used, told.total, told.window) == (2, 100, 86400)
    assert meta.asked[0].url.path == f"/v25.0/{IG}/content_publishing_limit"
    assert meta.asked[0].url.params["fields"] == "quota_usage,config"


@pytest.mark.parametrize(
    "text", ["x" * 2201, " ".join(["#a"] * 31), " ".join(["@ann"] * 21)], ids=len
)
def test_a_caption_beyond_the_limits_never_leaves_the_house(text: str) -> None:
    with pytest.raises(ContentRejected):
        fit(text, policy=POLICY, how="refuse", media=1, alts=("",), kinds=("image",))


@pytest.mark.parametrize(
    "text", ["x" * 2200, " ".join(["#a"] * 30), " ".join(["@ann"] * 20)], ids=len
)
def test_a_caption_at_the_limits_is_taken(text: str) -> None:
    assert fit(text, policy=POLICY, how="refuse", media=1, alts=("",), kinds=("image",)).parts


# --- Find -----------------------------------------------------------------------------------------


def row(media_id: str, caption: str | None, after: float = 5) -> dict[str, str]:
    moment = SENT + timedelta(seconds=after)
    found = {"id": media_id, "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S+0000")}
    found["permalink"] = f"https://www.instagram.com/p/{media_id}/"
    return found | ({"caption": caption} if caption is not None else {})


def sought(text: str = "Hi\n\nthere", **state: str) -> Sought:
    prepared = Prepared(state if state else {"container": "1788"})
    return Sought("key", prepared, text, SENT, SENT + timedelta(minutes=1))


PUBLISHED = {"status_code": "PUBLISHED", "status": "Published: …", "id": "1788"}


@pytest.mark.parametrize("code", ["FINISHED", "EXPIRED", "ERROR"])
async def test_a_container_that_was_not_published_proves_that_nothing_is_there(code: str) -> None:
    speaker, _ = made(ok(status_code=code, id="1788"))
    assert await speaker.find(sought()) is Absence.NOT_THERE


async def test_a_container_in_progress_proves_nothing() -> None:
    speaker, _ = made(ok(**WORKING))
    assert await speaker.find(sought()) is Absence.CANNOT_TELL


async def test_a_published_container_is_found_in_the_feed_by_words_and_time() -> None:
    rows = [row("3", "Other"), row("2", "Hi there"), row("1", "Hi\n\nthere", after=-3600)]
    speaker, meta = made(ok(**PUBLISHED), ok(data=rows))
    assert await speaker.find(sought()) == Receipt("2", "https://www.instagram.com/p/2/")
    asked = meta.asked[1].url
    assert asked.path == f"/v25.0/{IG}/media"
    assert int(asked.params["since"]) <= SENT.timestamp() <= int(asked.params["until"])


async def test_a_busy_feed_is_read_page_by_page_before_anything_is_said() -> None:
    more = {"cursors": {"before": "8", "after": "7"}, "next": "https://graph.example/next"}
    last = {"cursors": {"before": "2", "after": "1"}}
    pages = [
        ok(data=[row("8", "Other"), row("7", "Others")], paging=more),
        ok(data=[row("2", "Hi there")], paging=last),
    ]
    speaker, meta = made(ok(**PUBLISHED), *pages)
    assert await speaker.find(sought()) == Receipt("2", "https://www.instagram.com/p/2/")
    assert meta.asked[2].url.params["after"] == "7"
    assert meta.asked[2].url.params["since"] == meta.asked[1].url.params["since"]


async def test_a_feed_without_end_says_nothing() -> None:
    more = {"cursors": {"after": "7"}, "next": "https://graph.example/next"}
    page = ok(data=[row("7", "Hi there")], paging=more)
    speaker, _ = made(ok(**PUBLISHED), *[page] * 12)
    assert await speaker.find(sought()) is Absence.CANNOT_TELL


async def test_a_post_without_a_caption_is_found_too() -> None:
    speaker, _ = made(ok(**PUBLISHED), ok(data=[row("2", None), row("1", "Words")]))
    assert await speaker.find(sought("")) == Receipt("2", "https://www.instagram.com/p/2/")


@pytest.mark.parametrize("rows", [[], [row("2", "Hi there"), row("1", "Hi there")]])
async def test_a_published_container_without_its_one_post_is_for_an_operator(rows: Any) -> None:
    speaker, _ = made(ok(**PUBLISHED), ok(data=rows))
    assert await speaker.find(sought()) is Absence.CANNOT_TELL


async def test_a_post_of_the_same_words_from_just_before_the_send_is_not_ours() -> None:
    rows = [row("2", "Hi there", after=0), row("1", "Hi there", after=-30)]
    speaker, _ = made(ok(**PUBLISHED), ok(data=rows))
    assert await speaker.find(sought()) == Receipt("2", "https://www.instagram.com/p/2/")


async def test_of_two_posts_of_the_same_words_the_one_that_is_known_is_left_out() -> None:
    rows = [row("2", "Hi there"), row("1", "Hi there")]
    speaker, _ = made(ok(**PUBLISHED), ok(data=rows))
    look = replace(sought(), taken=frozenset({"2"}))
    assert await speaker.find(look) == Receipt("1", "https://www.instagram.com/p/1/")


FILM, PHOTO = Outline(Kind.VIDEO, 1080, 1920), Outline(Kind.IMAGE, 1080, 1080)
ALBUM = {"media_type": "CAROUSEL_ALBUM"}


def items(*kinds: str) -> dict[str, Any]:
    return ALBUM | {"children": {"data": [{"id": "9", "media_type": one} for one in kinds]}}


@pytest.mark.parametrize(
    ("ours", "told", "fits"),
    [
        ((FILM,), {"media_type": "VIDEO"}, True),
        ((FILM,), {"media_type": "IMAGE"}, False),
        ((PHOTO,), {"media_type": "IMAGE"}, True),
        ((PHOTO,), ALBUM, False),
        ((PHOTO, PHOTO), {"media_type": "IMAGE"}, False),
        ((PHOTO, FILM), ALBUM, True),
        ((PHOTO, FILM), items("IMAGE", "VIDEO"), True),
        ((PHOTO, FILM), items("IMAGE", "IMAGE"), False),
        ((PHOTO, FILM), items("IMAGE", "VIDEO", "IMAGE"), False),
        ((PHOTO,), {}, True),
        (None, {"media_type": "VIDEO"}, True),
    ],
)
async def test_a_post_of_the_same_words_and_other_media_is_not_ours(
    ours: tuple[Outline, ...] | None, told: dict[str, Any], fits: bool
) -> None:
    speaker, meta = made(ok(**PUBLISHED), ok(data=[row("2", "Hi there") | told]))
    answer = await speaker.find(replace(sought(), media=ours))
    assert isinstance(answer, Receipt) is fits
    assert "media_type,children{media_type}" in meta.asked[1].url.params["fields"]


async def test_a_clock_that_goes_a_little_slow_hides_no_post() -> None:
    speaker, _ = made(ok(**PUBLISHED), ok(data=[row("2", "Hi there", after=-30)]))
    assert isinstance(await speaker.find(sought()), Receipt)


@pytest.mark.parametrize("gone", [graph_error(100, 33), graph_error(24, 2207008)])
async def test_a_container_that_is_gone_is_no_proof_and_the_feed_is_read(
    gone: httpx.Response,
) -> None:
    speaker, _ = made(gone, ok(data=[row("2", "Hi there")]))
    assert isinstance(await speaker.find(sought()), Receipt)
    speaker, _ = made(gone, ok(data=[]))
    assert await speaker.find(sought()) is Absence.CANNOT_TELL


# --- Account --------------------------------------------------------------------------------------


async def test_a_token_of_instagram_login_is_refreshed_with_its_own_grant() -> None:
    fresh = {"access_token": "IGAAfresh", "token_type": "bearer", "expires_in": 5183944}
    speaker, meta = made(ok(**fresh))
    tokens = await speaker.refresh()
    assert tokens.secrets == {"access_token": "IGAAfresh"}
    assert tokens.expires_at is not None
    left = tokens.expires_at - datetime.now(UTC)
    assert timedelta(seconds=5183900) < left <= timedelta(seconds=5183944)
    asked = meta.asked[0].url
    assert asked.path == "/refresh_access_token"
    assert dict(asked.params) == {"grant_type": "ig_refresh_token", "access_token": TOKEN}


@pytest.mark.parametrize("said", [{}, {"expires_in": None}, {"expires_in": "soon"}])
async def test_a_fresh_token_without_an_end_lives_as_the_policy_says(said: dict[str, Any]) -> None:
    speaker, _ = made(ok(access_token="IGAAfresh", **said))
    ends = (await speaker.refresh()).expires_at
    assert ends is not None
    assert abs(ends - datetime.now(UTC) - timedelta(days=60)) < timedelta(minutes=1)


async def test_a_token_of_unknown_age_is_taken_to_end_within_days() -> None:
    speaker, _ = made(ok(user_id=IG, username="acme", account_type="BUSINESS"))
    ends = (await speaker.whoami()).expires_at
    assert ends is not None
    assert POLICY.tokens is not None
    assert abs(ends - datetime.now(UTC) - POLICY.tokens.assumed) < timedelta(minutes=1)
    # Meta renews no token that is younger than a day.
    assert POLICY.tokens.assumed - POLICY.tokens.renew >= timedelta(days=1)


async def test_of_a_token_of_facebook_login_no_end_is_assumed() -> None:
    speaker, _ = made(ok(id=IG, username="acme"), base=FACEBOOK)
    assert (await speaker.whoami()).expires_at is None


async def test_a_token_of_facebook_login_is_renewed_by_its_owner_only() -> None:
    speaker, meta = made(base=FACEBOOK)
    with pytest.raises(Reauthorize):
        await speaker.refresh()
    assert meta.asked == []


@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_id_of_the_paths_is_user_id_and_not_id(wrapped: bool) -> None:
    me = {"user_id": IG, "username": "acme", "id": "24000", "account_type": "BUSINESS"}
    speaker, _ = made(ok(data=[me]) if wrapped else ok(**me), user=None)
    who = await speaker.whoami()
    assert (who.remote_id, who.handle) == (IG, "acme")


async def test_a_personal_account_is_told_at_once_that_it_cannot_publish() -> None:
    speaker, _ = made(ok(user_id=IG, username="ann", account_type="PERSONAL"), user=None)
    with pytest.raises(Reauthorize):
        await speaker.whoami()


def page(number: int) -> dict[str, Any]:
    return {"instagram_business_account": {"id": f"1784{number}", "username": f"acme{number}"}}


async def test_facebook_login_finds_the_one_account_behind_its_pages() -> None:
    speaker, meta = made(ok(data=[{"name": "bare"}, page(1)]), base=FACEBOOK, user=None)
    assert (await speaker.whoami()).remote_id == "17841"
    assert meta.asked[0].url.path == "/v25.0/me/accounts"


async def test_facebook_login_guesses_no_account_where_there_are_several() -> None:
    speaker, _ = made(ok(data=[page(1), page(2)]), base=FACEBOOK, user=None)
    with pytest.raises(InvalidInput):
        await speaker.whoami()


async def test_a_page_token_leads_to_the_account_of_its_page() -> None:
    no_such_field = graph_error(100, message="Tried accessing nonexisting field (accounts)")
    speaker, meta = made(no_such_field, ok(id="135", **page(1)), base=FACEBOOK, user=None)
    assert (await speaker.whoami()).remote_id == "17841"
    assert meta.asked[1].url.path == "/v25.0/me"


async def test_only_facebook_login_deletes() -> None:
    speaker, meta = made()
    with pytest.raises(Reauthorize):
        await speaker.delete(Receipt("1792"))
    assert meta.asked == []
    speaker, meta = made(ok(success=True), base=FACEBOOK)
    await speaker.delete(Receipt("1792"))
    assert meta.calls() == ["DELETE /v25.0/1792"]


async def test_a_post_counts_as_gone_only_where_the_account_is_still_seen() -> None:
    speaker, meta = made(graph_error(100, 33), ok(id=IG), base=FACEBOOK)
    await speaker.delete(Receipt("1792"))
    assert meta.calls() == ["DELETE /v25.0/1792", f"GET /v25.0/{IG}"]
    speaker, _ = made(graph_error(100, 33), graph_error(100, 33), base=FACEBOOK)
    with pytest.raises(Reauthorize):
        await speaker.delete(Receipt("1792"))


async def test_no_error_tells_the_token_or_the_words() -> None:
    said = f'Invalid token {TOKEN} for "a very private caption"'
    answers: list[Answer] = [
        graph_error(190, message=said),
        graph_error(100, message=said),
        graph_error(2, status=500, message=said),
        httpx.ReadTimeout(said),
    ]
    for answer in answers:
        speaker, _ = made(answer)
        with pytest.raises(PlatformError) as caught:
            await speaker.prepare(post(image(), text="a very private caption"), "key")
        told = f"{caught.value!s} {caught.value!r} {caught.value.detail}"
        assert TOKEN not in told
        assert "private caption" not in told


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(400, json={"error": "oops"}),
        httpx.Response(400, json={"debug_info": "oops"}),
        httpx.Response(400, json=["oops"]),
        httpx.Response(400, content=b"\xff\xfe"),
    ],
)
async def test_an_error_of_any_shape_is_one_of_our_errors(answer: httpx.Response) -> None:
    speaker, _ = made(answer)
    with pytest.raises(PlatformError):
        await speaker.publish(READY, "key")
