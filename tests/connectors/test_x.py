"""X's connector against answers as its API v2 gives them."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from clickpost import budget
from clickpost.contract import Absence, Account, Kind, MediaFile, Message, Prepared, Receipt, Sought
from clickpost.errors import (
    NotReady,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    RateLimited,
    Reauthorize,
    TokenExpired,
    Transient,
)
from connectors import x
from connectors.x import Connector, plain, spoken
from tests.connectors.conftest import POLICIES, Answer, InTurn, api_of

POLICY = POLICIES["x"]
ME = "2244994945"
SENT = datetime(2026, 8, 20, 10, 0, 0, tzinfo=UTC)
TEXT = "Grüße & more: https://ex.org/a_(b)/ <3"
SECRETS = {"client_id": "app-1", "refresh_token": "r-0", "access_token": "a-0"}


def ok(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)


def problem(status: int, detail: str, kind: str | None = None) -> httpx.Response:
    type_ = f"https://api.x.com/2/problems/{kind}" if kind else "about:blank"
    body = {"title": "Forbidden", "detail": detail, "type": type_, "status": status}
    return ok(body, status)


def numbered(status: int, code: int) -> httpx.Response:
    return ok({"errors": [{"code": code, "message": "some words"}]}, status)


DOUBLE = problem(403, "You are not allowed to create a Tweet with duplicate content.")
CREATED = ok({"data": {"id": "9", "text": "…", "edit_history_post_ids": ["9"]}}, 201)


def post(id: str = "9", minutes: float = 0, **more: Any) -> dict[str, Any]:
    """A post as X tells of it: links under an address of X's own, signs as entities."""
    moment = SENT + timedelta(minutes=minutes)
    return {
        "id": id,
        "text": "Grüße &amp; more: https://t.co/abc &lt;3",
        "created_at": f"{moment:%Y-%m-%dT%H:%M:%S}.000Z",
        "conversation_id": id,
        "entities": {"urls": [{"url": "https://t.co/abc", "expanded_url": "https://ex.org/a_(b)"}]},
        **more,
    }


def page(*posts: dict[str, Any], token: str | None = None) -> httpx.Response:
    meta = {"result_count": len(posts)} | ({"next_token": token} if token else {})
    return ok(({"data": list(posts)} if posts else {}) | {"meta": meta})


def speaking(*answers: Answer, **secrets: str) -> tuple[Connector, InTurn]:
    there = InTurn(list(answers))
    account = Account("c", "x", "https://api.x.com", ME, "studio", SECRETS | secrets)
    return Connector(api_of("x", there), account), there


def ready(*keys: str, text: str = TEXT) -> Prepared:
    media = [{"id": key.partition("_")[2], "key": key} for key in keys]
    return Prepared({"text": text, "media": media, "since": SENT.isoformat()})


def sought(*keys: str, text: str = TEXT, **more: Any) -> Sought:
    return Sought("k", ready(*keys, text=text), text, SENT, SENT + timedelta(minutes=1), **more)


# Sending.


async def test_a_post_is_said_in_the_fields_that_x_knows() -> None:
    connector, there = speaking(CREATED)
    receipt = await connector.publish(ready("3_7"), "k", (Receipt("1"), Receipt("5")))
    assert receipt == Receipt("9", url="https://x.com/studio/status/9")
    assert json.loads(there.asked[0].content) == {
        "text": TEXT,
        "media": {"media_ids": ["7"]},
        "reply": {"in_reply_to_tweet_id": "5"},
    }


MEANS = [
    (problem(401, "Unauthorized"), TokenExpired),
    (problem(403, "x", "client-forbidden"), Reauthorize),
    (numbered(403, 326), Reauthorize),
    (problem(403, "x", "usage-capped"), RateLimited),
    (ok({}, 402), RateLimited),
    (numbered(429, 88), RateLimited),
    (numbered(403, 385), NotReady),
    (numbered(400, 325), PrepareAgain),
    (problem(400, "Your media IDs are invalid."), PrepareAgain),
    (problem(403, "At most one cashtag"), PlatformRejected),
    (numbered(403, 186), PlatformRejected),
    (problem(503, "down"), OutcomeUnknown),
    (httpx.ReadTimeout("late"), OutcomeUnknown),
    (httpx.ConnectError("away"), Transient),
]


@pytest.mark.parametrize(("answer", "means"), MEANS)
async def test_a_refusal_says_who_acts(answer: Answer, means: type[PlatformError]) -> None:
    connector, there = speaking(answer)
    with pytest.raises(means):
        await connector.publish(ready(), "k")
    assert len(there.asked) == 1, "nothing is sent twice"


async def test_a_limit_is_waited_for_until_the_moment_that_x_names() -> None:
    soon = str(int((datetime.now(UTC) + timedelta(seconds=40)).timestamp()))
    heard: list[budget.Reading] = []
    limits = {"x-rate-limit-limit": "100", "x-rate-limit-remaining": "0"}
    connector, _ = speaking(ok({}, 429, **limits, **{"x-rate-limit-reset": soon}))
    api = x.Api(connector.api.client, POLICY, heard.append)
    with pytest.raises(RateLimited) as caught:
        await Connector(api, connector.account).publish(ready(), "k")
    assert 35 < caught.value.retry_after <= 40
    pots = budget.pots_of(POLICY, budget.Holders("account:x:1", "app:x:1", "address:x:1"))
    meant = budget.pot_of(heard[0], pots)
    assert meant is not None
    assert (meant.what, meant.total) == ("posts", 100)


async def test_a_text_that_repeats_an_older_post_is_for_the_writer() -> None:
    connector, there = speaking(DOUBLE, page(post(minutes=-60)))
    with pytest.raises(PlatformRejected) as caught:
        await connector.publish(ready(), "k")
    assert caught.value.field == "text"
    assert [one.method for one in there.asked] == ["POST", "GET"]


@pytest.mark.parametrize(
    "answer", [page(post(minutes=1)), page(), problem(503, "down")], ids=["new", "none", "down"]
)
async def test_a_text_that_may_be_there_by_an_earlier_send_is_unknown(answer: Answer) -> None:
    connector, _ = speaking(DOUBLE, answer)
    with pytest.raises(OutcomeUnknown):
        await connector.publish(ready(), "k")


# Looking.


def test_words_are_read_as_they_were_written() -> None:
    assert spoken(post()) == plain(TEXT)
    shown = {"url": "https://t.co/p", "expanded_url": "https://x.com/a/status/9/photo/1"}
    told = post(text="Hello https://t.co/p", entities={"urls": [shown]})
    assert spoken(told) == "Hello"


@pytest.mark.parametrize(
    ("there", "look", "found"),
    [
        ([post()], sought(), "9"),
        ([post(), post("8")], sought(taken=frozenset({"9"})), "8"),
        ([post(text="Else")], sought(), Absence.NOT_THERE),
        ([post(minutes=-30)], sought(), Absence.NOT_THERE),
        ([post(conversation_id="1")], sought(), Absence.NOT_THERE),
        ([post(conversation_id="1")], sought(after=(Receipt("1"), Receipt("2"))), "9"),
        ([post(attachments={"media_keys": ["3_7"]})], sought("3_7"), "9"),
        ([post(attachments={"media_keys": ["3_8"]})], sought("3_7"), Absence.CANNOT_TELL),
        ([post(attachments={"media_keys": ["3_8"]})], sought(), Absence.NOT_THERE),
        ([], sought(), Absence.NOT_THERE),
    ],
)
async def test_a_look_tells_ours_from_others(
    there: list[dict[str, Any]], look: Sought, found: str | Absence
) -> None:
    connector, _ = speaking(page(*there))
    seen = await connector.find(look)
    assert (seen.remote_id if isinstance(seen, Receipt) else seen) == found


async def test_a_look_turns_every_page_and_trusts_no_list_without_an_end() -> None:
    others = [post(str(number), text="Else") for number in range(10)]
    connector, there = speaking(page(*others, token="more"), page(post()))
    assert isinstance(await connector.find(sought()), Receipt)
    first, second = (dict(one.url.params) for one in there.asked)
    assert first["start_time"] == "2026-08-20T09:58:00Z"
    assert (second["pagination_token"], second["max_results"]) == ("more", "100")
    endless, _ = speaking(*[page(*others, token="more")] * 6)
    assert await endless.find(sought()) is Absence.CANNOT_TELL


MISSING = ok({"errors": [{"type": "https://api.x.com/2/problems/resource-not-found"}]})


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        ([MISSING, ok({"data": {"id": ME}})], Absence.NOT_THERE),
        ([MISSING, ok({"data": {"id": "1"}})], Absence.CANNOT_TELL),
        ([ok({"errors": [{"type": "about:blank"}]})], Absence.CANNOT_TELL),
    ],
)
async def test_only_what_x_does_not_know_is_gone(answers: list[Answer], seen: Absence) -> None:
    connector, _ = speaking(*answers)
    assert await connector.check(Receipt("9")) is seen


# Tokens.


async def test_a_refresh_keeps_the_new_refresh_token_and_needs_no_secret() -> None:
    fresh = {"access_token": "a-1", "refresh_token": "r-1", "expires_in": 7200}
    connector, there = speaking(ok(fresh))
    tokens = await connector.refresh()
    assert tokens.secrets == {"access_token": "a-1", "refresh_token": "r-1"}
    asked = {"grant_type": "refresh_token", "refresh_token": "r-0", "client_id": "app-1"}
    assert there.form() == asked


async def test_a_confidential_client_shows_its_secret_in_the_header() -> None:
    connector, there = speaking(ok({"access_token": "a-1"}), client_secret="hush")
    assert (await connector.refresh()).secrets == {"access_token": "a-1"}
    basic = there.asked[0].headers["authorization"].removeprefix("Basic ")
    assert b64decode(basic) == b"app-1:hush"
    assert "client_id" not in there.form()


async def test_a_dead_refresh_token_is_for_the_owner_and_a_lost_answer_is_not() -> None:
    dead = {"error": "invalid_request", "error_description": "Value passed was invalid."}
    with pytest.raises(Reauthorize):
        await speaking(ok(dead, 400))[0].refresh()
    with pytest.raises(Transient):
        await speaking(httpx.ReadTimeout("late"))[0].refresh()


# Media.


async def test_a_film_goes_up_in_pieces_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(x, "PIECE", 4)
    monkeypatch.setattr(x, "PIECES", 2)
    (tmp_path / "film.mp4").write_bytes(b"0123456789")
    film = MediaFile(Kind.VIDEO, tmp_path / "film.mp4", "video/mp4", 10, 320, 568, "0", 3.5)
    message = Message("Hi", (film,))
    begun = ok({"data": {"id": "7", "media_key": "13_7"}})
    part, waits = ok({"data": {}}), {"state": "pending", "check_after_secs": 1}
    closed = ok({"data": {"id": "7", "processing_info": waits}})
    done = ok({"data": {"id": "7", "processing_info": {"state": "succeeded"}}})
    connector, there = speaking(begun, part, httpx.ReadTimeout("late"), part, part, closed, done)
    kept = await connector.prepare(message, "k")
    assert not kept.ready
    assert kept.state["media"][0]["next"] == 0
    with pytest.raises(Transient):
        await connector.prepare(message, "k", kept)
    kept = await connector.prepare(message, "k", kept)
    assert kept.state["media"][0]["next"] == 2
    connector, there = speaking(part, closed, done)
    kept = await connector.prepare(message, "k", kept)
    assert (kept.ready, kept.again_in) == (False, 1.0)
    kept = await connector.prepare(message, "k", kept)
    assert kept.ready
    assert [one.url.path.rpartition("/")[2] for one in there.asked] == [
        "append",
        "finalize",
        "upload",
    ]
    assert b"89" in there.asked[0].content
    assert b"4567" not in there.asked[0].content


async def test_an_upload_that_a_lost_run_closed_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"01")
    film = MediaFile(Kind.VIDEO, tmp_path / "film.mp4", "video/mp4", 2, 320, 568, "0", 3.5)
    one = {"id": "7", "key": "13_7", "next": 0, "ready": False, "described": True}
    so_far = Prepared({"media": [one], "since": SENT.isoformat()}, ready=False)
    closed = problem(400, "cannot be appended", "invalid-request")
    with pytest.raises(PrepareAgain):
        await speaking(closed)[0].prepare(Message("Hi", (film,)), "k", so_far)


async def test_a_film_that_x_cannot_use_is_for_the_writer(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"01")
    film = MediaFile(Kind.VIDEO, tmp_path / "film.mp4", "video/mp4", 2, 320, 568, "0", 3.5)
    one = {"id": "7", "key": "13_7", "next": None, "ready": False, "described": True}
    so_far = Prepared({"media": [one], "since": SENT.isoformat()}, ready=False)
    failed = ok({"data": {"id": "7", "processing_info": {"state": "failed"}}})
    with pytest.raises(PlatformRejected):
        await speaking(failed)[0].prepare(Message("Hi", (film,)), "k", so_far)


# Money.


def test_a_post_with_a_link_costs_what_x_asks_for_it() -> None:
    holders = budget.Holders("account:x:1", "app:x:1", "address:x:1")
    money = next(one for one in budget.pots_of(POLICY, holders) if one.what == budget.MONEY)
    assert budget.need_of(money, posts=3, linked=1) == 15 + 15 + 200
    now = datetime.now(UTC)
    spent = [budget.Spent(215, now)]
    assert budget.said(budget.standing(money, spent, None, now)).startswith(
        "$0.21 of $20.00 of the app in 24 h"
    )
    full = budget.decide([budget.Ask(money, 200, spent=(budget.Spent(19_900, now),))], now)
    assert full is not None
    assert full.reason.startswith("no budget: $19.90 in 24 h are used")
