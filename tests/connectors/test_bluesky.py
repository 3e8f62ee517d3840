"""Bluesky's connector against answers as the lexicons and running servers give them."""

from __future__ import annotations

import base64
import json
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
    Prepared,
    Receipt,
    Sought,
)
from clickpost.errors import (
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
from connectors.bluesky import Connector, local, record_of, tid
from tests.connectors.conftest import POLICIES, Answer, InTurn, api_of, ok

POLICY = POLICIES["bluesky"]
DID = "did:plc:fd2t5c5m4klla3y4aajnhtti"
ENTRYWAY, PDS = "https://bsky.social", "https://morel.us-east.host.bsky.network"
VIDEO = "https://video.bsky.app"
OWN = "http://127.0.0.1:2583"
RKEY = "3n32hhjzdsk22"
URI = f"at://{DID}/app.bsky.feed.post/{RKEY}"
CID = "bafyreidcxzrhl4pe3mxs7tjdopw4aftz5dpxwup4pxahtpw6cczlwbbbga"
SENT = datetime(2026, 8, 20, 10, 0, 0, tzinfo=UTC)
PASSWORD = "abcd-efgh-ijkl-mnop"


def jwt(**claims: Any) -> str:
    """A token as a server signs it."""
    parts = ({"typ": "at+jwt", "alg": "HS256"}, claims)
    said = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join([*said, "H8Th16PPyU9pLICbOcQDX8pqeFSSttBIGhvpSXtsms"])


ENDS = datetime(2026, 8, 20, 12, 0, 0, tzinfo=UTC)
ACCESS = jwt(scope="com.atproto.appPass", aud="did:web:pds.example", exp=int(ENDS.timestamp()))
REFRESH = jwt(scope="com.atproto.refresh", aud="did:web:pds.example")
SESSION = {
    "accessJwt": ACCESS,
    "refreshJwt": REFRESH,
    "did": DID,
    "handle": "alice.test",
    "didDoc": {
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": DID,
        "alsoKnownAs": ["at://alice.test"],
        "service": [
            {
                "id": "#atproto_pds",
                "type": "AtprotoPersonalDataServer",
                "serviceEndpoint": PDS,
            }
        ],
    },
    "email": "alice@example.org",
    "emailConfirmed": True,
    "emailAuthFactor": False,
    "active": True,
}
WRITTEN = {
    "uri": URI,
    "cid": CID,
    "commit": {"cid": CID, "rev": "3n32hhk2nblhx"},
    "validationStatus": "valid",
}
BLOB = {
    "$type": "blob",
    "ref": {"$link": "bafkreict3zgehqe77zd3ilijkefsybmaepketppjcmxps3mfmrmztlklaq"},
    "mimeType": "image/jpeg",
    "size": 9,
}
FILM = {**BLOB, "mimeType": "video/mp4"}
JOB = {"jobId": "cs6lup7v6gsc73bocb3g", "did": DID}
GRANTED = {"token": jwt(aud="did:web:morel.us-east.host.bsky.network", iss=DID)}


def xrpc(status: int, error: str, message: str = "", **headers: str) -> httpx.Response:
    """An error as an XRPC server says it."""
    return httpx.Response(status, json={"error": error, "message": message}, headers=headers)


class Server(InTurn):
    """An XRPC server."""

    def calls(self) -> list[str]:
        return [one.url.path.rpartition(".")[2] for one in self.asked]

    def places(self) -> list[str]:
        return [f"{one.url.scheme}://{one.url.netloc.decode()}" for one in self.asked]

    def json(self, number: int) -> dict[str, Any]:
        return dict(json.loads(self.asked[number].content))


def made(
    *answers: Answer,
    base: str = ENTRYWAY,
    secrets: dict[str, str] | None = None,
    did: str | None = DID,
    **options: str,
) -> tuple[Connector, Server]:
    """A connector, and the server it speaks to."""
    server = Server(list(answers))
    known = {"identifier": "alice.test", "app_password": PASSWORD, "pds": PDS}
    account = Account(
        connection_id="conn_test",
        platform="bluesky",
        api_base=base,
        remote_id=did,
        handle="alice.test",
        secrets=known | {"access_jwt": ACCESS, "refresh_jwt": REFRESH} | (secrets or {}),
        options=options,
    )
    return Connector(api_of("bluesky", server), account), server


def prepared(**record: Any) -> Prepared:
    said = {"$type": "app.bsky.feed.post", "text": "Hi", "createdAt": "2026-08-20T10:00:00.000Z"}
    return Prepared({"rkey": RKEY, "blobs": [], "record": said | record})


def sought(what: Prepared) -> Sought:
    return Sought("key", what, "Hi", SENT, SENT + timedelta(minutes=1))


@pytest.fixture
def image(tmp_path: Path) -> MediaFile:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8picture")
    return MediaFile(Kind.IMAGE, path, "image/jpeg", 9, 800, 600, "0", alt="Ein Hund")


@pytest.fixture
def film(tmp_path: Path) -> MediaFile:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"\x00\x00\x00\x18ftyp")
    return MediaFile(Kind.VIDEO, path, "video/mp4", 8, 1080, 1920, "0", 5.0, alt="Ein Film")


# --- Sessions -------------------------------------------------------------------------------------


async def test_a_sign_in_keeps_the_tokens_their_end_and_the_accounts_own_server() -> None:
    speaker, server = made(ok(**SESSION), did=None)
    tokens = await speaker.sign_in()
    assert tokens.secrets == {"access_jwt": ACCESS, "refresh_jwt": REFRESH, "pds": PDS}
    assert tokens.expires_at == ENDS
    assert server.json(0) == {"identifier": "alice.test", "password": PASSWORD}
    assert server.places() == [ENTRYWAY]
    assert "authorization" not in server.asked[0].headers


async def test_a_token_that_tells_no_end_gets_none() -> None:
    speaker, _ = made(ok(**{**SESSION, "accessJwt": "opaque"}))
    assert (await speaker.sign_in()).expires_at is None


@pytest.mark.parametrize(
    "answer",
    [
        xrpc(401, "AuthenticationRequired", "Invalid identifier or password"),
        xrpc(401, "AuthFactorTokenRequired", "A sign in code has been sent to your email address"),
        xrpc(401, "AccountTakedown", "Account has been taken down"),
        ok(**{**SESSION, "active": False, "status": "deactivated"}),
        ok(**{**SESSION, "did": "did:plc:somebodyelse"}),
    ],
    ids=["wrong password", "second factor", "taken down", "deactivated", "somebody else"],
)
async def test_a_sign_in_that_cannot_write_is_for_the_accounts_owner(answer: Answer) -> None:
    speaker, _ = made(answer)
    with pytest.raises(Reauthorize) as caught:
        await speaker.sign_in()
    assert "did:" not in str(caught.value)


async def test_a_refresh_sends_the_refresh_token_and_no_body() -> None:
    new = {**SESSION, "accessJwt": jwt(n=1), "refreshJwt": jwt(n=2)}
    speaker, server = made(ok(**new))
    tokens = await speaker.refresh()
    assert tokens.secrets["refresh_jwt"] == new["refreshJwt"]
    assert server.asked[0].headers["authorization"] == f"Bearer {REFRESH}"
    assert server.asked[0].content == b""
    assert server.calls() == ["refreshSession"]


@pytest.mark.parametrize("lacking", ["accessJwt", "refreshJwt"])
@pytest.mark.parametrize("value", ["", None])
async def test_a_refresh_never_returns_an_empty_secret(lacking: str, value: str | None) -> None:
    speaker, _ = made(ok(**{**SESSION, lacking: value}))
    with pytest.raises(UnexpectedResponse):
        await speaker.refresh()


async def test_a_refresh_without_a_did_document_forgets_no_server() -> None:
    bare = {key: value for key, value in SESSION.items() if key != "didDoc"}
    speaker, _ = made(ok(**bare))
    assert "pds" not in (await speaker.refresh()).secrets


async def test_a_dead_session_is_opened_anew_with_the_app_password_and_the_did() -> None:
    dead = xrpc(400, "ExpiredToken", "Token has been revoked")
    speaker, server = made(dead, ok(**SESSION))
    assert (await speaker.refresh()).secrets["access_jwt"] == ACCESS
    assert server.calls() == ["refreshSession", "createSession"]
    assert server.places() == [PDS, ENTRYWAY]
    assert server.json(1)["identifier"] == DID


async def test_a_refresh_that_gets_no_answer_signs_nobody_in_and_disconnects_nobody() -> None:
    speaker, server = made(httpx.ReadTimeout("late"))
    with pytest.raises(Transient):
        await speaker.refresh()
    assert server.calls() == ["refreshSession"]


async def test_revoking_twice_is_fine() -> None:
    gone = xrpc(400, "InvalidToken", "Token could not be verified")
    speaker, server = made(httpx.Response(200), gone)
    await speaker.revoke()
    await speaker.revoke()
    assert {one.headers["authorization"] for one in server.asked} == {f"Bearer {REFRESH}"}


async def test_who_it_is_is_the_did_and_a_broken_handle_is_none() -> None:
    speaker, _ = made(ok(did=DID, handle="alice.test", active=True))
    assert (await speaker.whoami()).handle == "alice.test"
    speaker, _ = made(ok(did=DID, handle="handle.invalid"))
    who = await speaker.whoami()
    assert (who.remote_id, who.handle) == (DID, DID)


async def test_a_closed_account_is_not_connected() -> None:
    speaker, _ = made(ok(did=DID, handle="alice.test", active=False, status="deactivated"))
    with pytest.raises(Reauthorize):
        await speaker.whoami()


# --- The account's own server ---------------------------------------------------------------------


async def test_behind_the_entryway_the_did_document_says_where_records_go() -> None:
    speaker, server = made(ok(**WRITTEN))
    await speaker.publish(prepared(), "key")
    assert server.places() == [PDS]


@pytest.mark.parametrize("base", [OWN, "https://pds.example", "http://pds:3000/"])
async def test_an_address_that_an_operator_gave_stays(base: str) -> None:
    speaker, server = made(ok(**WRITTEN), base=base)
    await speaker.publish(prepared(), "key")
    assert server.places() == [base.rstrip("/")]


async def test_a_did_document_never_leads_a_token_away_from_https() -> None:
    speaker, server = made(ok(**WRITTEN), secrets={"pds": "http://169.254.169.254"})
    await speaker.publish(prepared(), "key")
    assert server.places() == [ENTRYWAY]


@pytest.mark.parametrize("document", [None, "x", {"service": "x"}, {"service": ["x"]}, {}])
async def test_a_strange_did_document_is_none(document: Any) -> None:
    speaker, _ = made(ok(**{**SESSION, "didDoc": document}))
    assert "pds" not in (await speaker.sign_in()).secrets


def test_what_has_no_certificate_or_a_private_address_is_local() -> None:
    assert all(local(url) for url in (OWN, "https://localhost:1", "https://10.0.0.1", "http://a.b"))
    assert not local("https://pds.example")


# --- Preparing ------------------------------------------------------------------------------------


async def test_pictures_go_as_raw_bytes_and_keep_description_and_shape(image: MediaFile) -> None:
    speaker, server = made(ok(blob=BLOB), ok(blob=BLOB))
    ready = await speaker.prepare(Message("", (image, replace(image, alt="")), language="de"), "k")
    upload = server.asked[0]
    assert upload.content == image.path.read_bytes()
    assert (upload.headers["content-type"], upload.headers["content-length"]) == ("image/jpeg", "9")
    assert "transfer-encoding" not in upload.headers
    embed = ready.state["record"]["embed"]
    shape = {"width": 800, "height": 600}
    assert embed == {
        "$type": "app.bsky.embed.images",
        "images": [
            {"image": BLOB, "alt": "Ein Hund", "aspectRatio": shape},
            {"image": BLOB, "alt": "", "aspectRatio": shape},
        ],
    }
    assert ready.state["record"]["langs"] == ["de"]


async def test_facets_count_bytes_and_reach_the_server_in_the_record() -> None:
    text = "Grüße 👩‍👩‍👧 #café @alice.test https://ex.org/a_(b)"
    speaker, server = made(ok(did=DID), ok(**WRITTEN))
    await speaker.publish(await speaker.prepare(Message(text, written_at=SENT), "k"), "k")
    record = server.json(1)["record"]
    raw = text.encode()
    shown = {
        raw[one["index"]["byteStart"] : one["index"]["byteEnd"]].decode(): one["features"]
        for one in record["facets"]
    }
    kind = "app.bsky.richtext.facet#"
    assert shown == {
        "#café": [{"$type": f"{kind}tag", "tag": "café"}],
        "@alice.test": [{"$type": f"{kind}mention", "did": DID}],
        "https://ex.org/a_(b)": [{"$type": f"{kind}link", "uri": "https://ex.org/a_(b)"}],
    }
    assert (record["text"], record["createdAt"]) == (text, "2026-08-20T10:00:00.000Z")


async def test_who_cannot_be_resolved_stays_text_and_what_is_no_handle_is_not_asked() -> None:
    speaker, server = made(xrpc(400, "InvalidRequest", "Unable to resolve handle"))
    ready = await speaker.prepare(Message("@nobody.test @bob_x.test @plain @Nobody.test."), "k")
    assert "facets" not in ready.state["record"]
    assert server.asked[0].url.params["handle"] == "nobody.test"


def test_tags_and_labels_beside_the_text_are_said_in_the_lexicons_words() -> None:
    record = record_of(Message("x", tags=("a", "b"), sensitive=True, written_at=SENT), [], {})
    assert record["tags"] == ["a", "b"]
    assert record["labels"] == {
        "$type": "com.atproto.label.defs#selfLabels",
        "values": [{"val": "graphic-media"}],
    }
    chosen = record_of(Message("x", sensitive=True, options={"label": "sexual"}), [], {})
    assert chosen["labels"]["values"] == [{"val": "sexual"}]
    assert not {"tags", "labels", "langs", "embed", "facets"} & set(record_of(Message("x"), [], {}))


def test_record_keys_are_tids_and_sort_as_time_does() -> None:
    keys = [tid(now) for now in (1, 1_700_000_000_000_000, 1_800_000_000_000_000)]
    assert keys == sorted(keys)
    assert all(len(key) == 13 and key[0] in "234567abcdefghij" for key in keys)


async def test_what_is_prepared_stays_as_it_is_down_to_its_time() -> None:
    speaker, server = made()
    so_far = prepared()
    again = await speaker.prepare(Message("Hi", written_at=datetime.now(UTC)), "k", so_far)
    assert again.state == so_far.state
    assert server.asked == []


async def test_a_picture_that_the_server_finds_too_large_is_for_the_writer(
    image: MediaFile,
) -> None:
    speaker, _ = made(xrpc(413, "PayloadTooLarge", "request entity too large"))
    with pytest.raises(PlatformRejected) as caught:
        await speaker.prepare(Message("", (image,)), "k")
    assert caught.value.field == "media"


# --- Videos ---------------------------------------------------------------------------------------


async def filmed(speaker: Connector, film: MediaFile, times: int) -> Prepared:
    """Ask `times` times how far the video is."""
    so_far: Prepared | None = None
    for _ in range(times):
        so_far = await speaker.prepare(Message("", (film,)), "k", so_far)
    assert so_far is not None
    return so_far


async def test_a_video_goes_through_the_service_until_its_job_is_done(film: MediaFile) -> None:
    speaker, server = made(
        ok(**GRANTED),
        ok(**JOB, state="JOB_STATE_CREATED"),
        ok(jobStatus={**JOB, "state": "JOB_STATE_ENCODING", "progress": 40}),
        ok(jobStatus={**JOB, "state": "JOB_STATE_SOMETHING_NEW"}),
        ok(jobStatus={**JOB, "state": "JOB_STATE_COMPLETED", "blob": FILM}),
    )
    early = await filmed(speaker, film, 1)
    assert (early.ready, early.again_in) == (False, 2.0)
    for _ in range(3):
        early = await speaker.prepare(Message("", (film,)), "k", early)
    assert early.ready
    assert early.state["record"]["embed"] == {
        "$type": "app.bsky.embed.video",
        "video": FILM,
        "alt": "Ein Film",
        "aspectRatio": {"width": 1080, "height": 1920},
    }
    assert server.places() == [PDS, *[VIDEO] * 4]
    grant, upload, look = server.asked[0].url.params, server.asked[1], server.asked[2]
    assert grant["aud"] == "did:web:morel.us-east.host.bsky.network"
    assert grant["lxm"] == "com.atproto.repo.uploadBlob"
    assert upload.headers["authorization"] == f"Bearer {GRANTED['token']}"
    assert upload.headers["content-length"] == "8"
    assert dict(upload.url.params) == {"did": DID, "name": f"{early.state['rkey']}.mp4"}
    assert look.url.params["jobId"] == JOB["jobId"]
    assert ACCESS not in str([one.headers for one in server.asked[1:]])


async def test_the_same_video_again_is_taken_from_the_job_that_has_it(film: MediaFile) -> None:
    known = {**JOB, "error": "already_exists", "state": "JOB_STATE_COMPLETED"}
    speaker, _ = made(
        ok(**GRANTED),
        httpx.Response(409, json={**known, "message": "Video already processed"}),
        ok(jobStatus={**JOB, "state": "JOB_STATE_COMPLETED", "blob": FILM}),
    )
    assert (await filmed(speaker, film, 2)).state["blobs"] == [FILM]


@pytest.mark.parametrize(
    ("why", "error"),
    [
        ({"failureCode": "validation_failure", "message": "bad"}, PlatformRejected),
        ({"failureCode": "encoding_failure"}, PlatformRejected),
        ({"failureCode": "something_new"}, PlatformRejected),
        ({"failureCode": "pds_upload_failure"}, PrepareAgain),
        ({"error": "It did not work, sorry"}, PrepareAgain),
        ({}, PrepareAgain),
    ],
)
async def test_a_failed_job_says_who_acts(
    film: MediaFile, why: dict[str, str], error: type[PlatformError]
) -> None:
    failed = ok(jobStatus={**JOB, "state": "JOB_STATE_FAILED", **why})
    speaker, _ = made(ok(**GRANTED), ok(**JOB, state="JOB_STATE_CREATED"), failed)
    with pytest.raises(error) as caught:
        await filmed(speaker, film, 2)
    assert "sorry" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (xrpc(400, "VideoTooLong", "too long"), PlatformRejected),
        (xrpc(401, "unconfirmed_email", "Confirm your email address"), Reauthorize),
        (xrpc(401, "unauthorized", "bad token"), UnexpectedResponse),
        (xrpc(429, "DailyLimitExceeded", "enough"), RateLimited),
        (xrpc(503, "ServiceOverloaded", "busy"), Transient),
        (httpx.ReadError("gone"), Transient),
    ],
)
async def test_a_refused_video_disconnects_nobody_who_is_not_at_fault(
    film: MediaFile, answer: Answer, error: type[PlatformError]
) -> None:
    speaker, _ = made(ok(**GRANTED), answer)
    with pytest.raises(error):
        await filmed(speaker, film, 1)


async def test_a_job_that_the_service_forgot_is_begun_anew(film: MediaFile) -> None:
    speaker, _ = made(ok(**GRANTED), ok(**JOB, state="JOB_STATE_CREATED"), httpx.Response(404))
    with pytest.raises(PrepareAgain):
        await filmed(speaker, film, 2)


@pytest.mark.parametrize(
    "answer",
    [
        xrpc(400, "InvalidRequest", "No service configured for app.bsky.video.uploadVideo"),
        xrpc(501, "MethodNotImplemented", "Method Not Implemented"),
        xrpc(400, "InvalidToken", "Token could not be verified"),
        xrpc(401, "BadJwt", "could not verify"),
        xrpc(502, "UpstreamFailure", "pipethrough network error"),
        httpx.Response(404, text="Cannot POST"),
        httpx.WriteError("closed early"),
    ],
    ids=["no app view", "unknown", "service token", "bad jwt", "upstream", "404", "closed"],
)
async def test_a_server_without_a_video_service_takes_the_film_as_a_blob(
    film: MediaFile, answer: Answer
) -> None:
    speaker, server = made(ok(**GRANTED), answer, ok(blob=FILM), base=OWN, secrets={"pds": ""})
    ready = await filmed(speaker, film, 1)
    assert ready.state["record"]["embed"]["video"] == FILM
    assert server.calls() == ["getServiceAuth", "uploadVideo", "uploadBlob"]
    assert server.places() == [OWN] * 3
    assert server.asked[0].url.params["aud"] == "did:web:pds.example"


async def test_a_film_that_the_accounts_own_server_refuses_is_not_slipped_in(
    film: MediaFile,
) -> None:
    speaker, server = made(ok(**GRANTED), xrpc(400, "VideoTooLarge", "too large"), base=OWN)
    with pytest.raises(PlatformRejected):
        await filmed(speaker, film, 1)
    assert "uploadBlob" not in server.calls()


# --- Publishing -----------------------------------------------------------------------------------


async def test_a_post_is_written_under_its_key_and_replaces_nothing() -> None:
    speaker, server = made(ok(**WRITTEN))
    receipt = await speaker.publish(prepared(), "key")
    body = server.json(0)
    assert (body["repo"], body["collection"], body["rkey"]) == (DID, "app.bsky.feed.post", RKEY)
    assert body["swapRecord"] is None
    assert server.calls() == ["putRecord"]
    assert receipt.remote_id == URI
    assert receipt.url == f"https://bsky.app/profile/alice.test/post/{RKEY}"


async def test_the_same_record_again_gives_the_same_receipt() -> None:
    unchanged = {key: value for key, value in WRITTEN.items() if key != "commit"}
    speaker, _ = made(ok(**WRITTEN), ok(**unchanged))
    assert await speaker.publish(prepared(), "k") == await speaker.publish(prepared(), "k")


async def test_a_reply_names_the_first_post_and_the_one_before_it() -> None:
    parts = tuple(Receipt(f"{URI[:-1]}{n}", None, {"cid": f"cid{n}"}) for n in range(3))
    speaker, server = made(ok(**WRITTEN), ok(**WRITTEN))
    await speaker.publish(prepared(), "key", parts)
    assert server.json(0)["record"]["reply"] == {
        "root": {"uri": parts[0].remote_id, "cid": "cid0"},
        "parent": {"uri": parts[2].remote_id, "cid": "cid2"},
    }
    await speaker.publish(prepared(), "key", parts[:1])
    reply = server.json(1)["record"]["reply"]
    assert reply["root"] == reply["parent"] == {"uri": parts[0].remote_id, "cid": "cid0"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("closed"),
        xrpc(500, "InternalServerError", "Internal Server Error"),
        xrpc(502, "UpstreamFailure"),
        httpx.Response(504, text="<html>Gateway Time-out</html>"),
        httpx.Response(200, text="<html>"),
        ok(uri=URI),
        ok(),
        xrpc(400, "InvalidSwap", f"Record was at {CID}"),
    ],
)
async def test_an_answer_that_is_lost_or_broken_leaves_the_outcome_unknown(answer: Answer) -> None:
    speaker, _ = made(answer)
    with pytest.raises(OutcomeUnknown):
        await speaker.publish(prepared(), "key")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ConnectError("refused"), Transient),
        (xrpc(400, "ExpiredToken", "Token has expired"), TokenExpired),
        (xrpc(400, "InvalidToken", "Token could not be verified"), TokenExpired),
        (xrpc(401, "AuthMissing", "Authentication Required"), Reauthorize),
        (xrpc(401, "AccountTakedown", "Account has been taken down"), Reauthorize),
        (xrpc(401, "AccountDeactivated", "Account is deactivated"), Reauthorize),
        (xrpc(403, "AccountNotFound", "Account not found"), Reauthorize),
        (xrpc(400, "BlobNotFound", "Could not find blob: bafk"), PrepareAgain),
        (xrpc(400, "InvalidRequest", "grapheme too big (maximum 300, got 400)"), PlatformRejected),
        (xrpc(400, "InvalidMimeType", "Wrong mimetype"), PlatformRejected),
    ],
)
async def test_a_refusal_says_who_acts(answer: Answer, error: type[PlatformError]) -> None:
    speaker, _ = made(answer)
    with pytest.raises(error) as caught:
        await speaker.publish(prepared(text="canary"), "key")
    told = f"{caught.value!r} {caught.value.detail}"
    assert not any(word in told for word in ("canary", ACCESS, DID, "alice"))


async def test_a_rate_limit_names_the_time_of_its_header() -> None:
    resets = int((datetime.now(UTC) + timedelta(seconds=90)).timestamp())
    headers = {
        "ratelimit-limit": "3000",
        "ratelimit-remaining": "0",
        "ratelimit-reset": str(resets),
        "ratelimit-policy": "3000;w=300",
    }
    speaker, _ = made(xrpc(429, "RateLimitExceeded", "Rate Limit Exceeded", **headers))
    with pytest.raises(RateLimited) as caught:
        await speaker.publish(prepared(), "key")
    assert 80 < caught.value.retry_after <= 90


# --- Looking and deleting -------------------------------------------------------------------------


async def test_a_look_that_finds_the_record_gives_what_a_reply_needs() -> None:
    speaker, server = made(ok(uri=URI, cid=CID, value=prepared().state["record"]))
    found = await speaker.find(sought(prepared()))
    assert isinstance(found, Receipt)
    assert (found.remote_id, found.extra["cid"]) == (URI, CID)
    assert dict(server.asked[0].url.params) == {
        "repo": DID,
        "collection": "app.bsky.feed.post",
        "rkey": RKEY,
    }


@pytest.mark.parametrize("code", ["RecordNotFound", "InvalidRequest"])
async def test_only_the_servers_own_word_proves_an_absence(code: str) -> None:
    speaker, _ = made(xrpc(400, code, f"Could not locate record: {URI}"))
    assert await speaker.find(sought(prepared())) is Absence.NOT_THERE


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, text="<html>Not Found</html>"),
        xrpc(400, "InvalidRequest", "Could not locate record"),
        xrpc(400, "InvalidRequest", "Could not find repo"),
    ],
    ids=["a proxy", "account not here", "repo not here"],
)
async def test_a_server_that_does_not_know_proves_nothing(answer: Answer) -> None:
    speaker, _ = made(answer)
    assert await speaker.find(sought(prepared())) is Absence.CANNOT_TELL


@pytest.mark.parametrize("dead", [xrpc(400, "ExpiredToken"), xrpc(401, "AuthenticationRequired")])
async def test_a_dead_session_does_not_end_a_look(dead: Answer) -> None:
    speaker, server = made(dead, xrpc(400, "RecordNotFound", "Could not locate record: at://x"))
    assert await speaker.find(sought(prepared())) is Absence.NOT_THERE
    assert "authorization" not in server.asked[1].headers


async def test_a_look_without_an_answer_proves_nothing() -> None:
    speaker, _ = made(httpx.ReadTimeout("late"))
    with pytest.raises(Transient):
        await speaker.find(sought(prepared()))


async def test_a_post_that_was_never_prepared_was_never_sent() -> None:
    speaker, server = made()
    assert await speaker.find(sought(Prepared({}))) is Absence.NOT_THERE
    assert server.asked == []


async def test_deleting_names_the_record_and_what_is_gone_is_fine() -> None:
    gone = xrpc(400, "RecordNotFound", "Could not locate record: at://x")
    speaker, server = made(ok(), ok(commit={"cid": CID, "rev": "3n"}), gone)
    for _ in range(3):
        await speaker.delete(Receipt(URI))
    assert server.json(0) == {"repo": DID, "collection": "app.bsky.feed.post", "rkey": RKEY}


async def test_a_deletion_that_meets_a_stranger_is_not_taken_for_done() -> None:
    speaker, _ = made(httpx.Response(404, text="<html>Not Found</html>"))
    with pytest.raises(NotFound):
        await speaker.delete(Receipt(URI))
