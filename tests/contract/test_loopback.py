"""Every connector against the sandbox, over real HTTP: what was posted, found, lost, deleted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import connectors
from clickpost.contract import (
    CAPABILITIES,
    Absence,
    MediaFile,
    Message,
    Pending,
    Prepared,
    Receipt,
    Sought,
)
from clickpost.errors import (
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    RateLimited,
    Reauthorize,
    TokenExpired,
    Transient,
)
from sandbox.testing import serve
from tests.contract.conftest import POLICIES, clip, connected, picture

PUBLISH_STEP = {
    "bluesky": "put_record",
    "mastodon": "status",
    "instagram": "publish",
    "youtube": "bytes",
}
TEXT = "Grüße aus dem Café 👩‍👩‍👧 #tag @bob.test https://ex.org/a_(b)"
KEY = "key_1"

pytestmark = pytest.mark.parametrize("platform", connectors.names())


def media_for(platform: str, files: Path) -> tuple[MediaFile, ...]:
    """What the platform demands beside the text."""
    required = POLICIES[platform].media.required
    return (clip(files),) if required in ("video", "any") else ()


def message(platform: str, files: Path, text: str = TEXT, **more: Any) -> Message:
    media = more.pop("media", None) or media_for(platform, files)
    return Message(text=text, title="A title", media=media, written_at=datetime.now(UTC), **more)


async def prepared(made: Any, what: Message) -> Prepared:
    """Prepare until it is ready."""
    so_far = None
    for _ in range(100):
        so_far = await made.prepare(what, KEY, so_far)
        if so_far.ready:
            return so_far
        await asyncio.sleep(0.02)
    raise AssertionError("never ready")


async def settled(made: Any, answer: Receipt | Pending) -> Receipt:
    """Resume until it is live."""
    for _ in range(100):
        if isinstance(answer, Receipt):
            return answer
        answer = await made.resume(answer.ticket)
        await asyncio.sleep(0.02)
    raise AssertionError("never live")


def secrets_of(made: Any) -> list[str]:
    """What must not be read anywhere: all but the credentials that name the account."""
    shown = {k for k, one in made.api.policy.credentials.items() if not one.secret}
    return [value for key, value in made.account.secrets.items() if key not in shown]


async def posts(http: httpx.AsyncClient, base: str, platform: str) -> list[dict[str, Any]]:
    return list((await http.get(f"{base}/control/posts?platform={platform}")).json())


async def order(http: httpx.AsyncClient, base: str, platform: str, what: str, **more: Any) -> None:
    said = {"platform": platform, "step": PUBLISH_STEP[platform], "what": what, **more}
    (await http.post(f"{base}/control/misbehave", json=said)).raise_for_status()


def sought(what: Prepared, text: str, since: datetime) -> Sought:
    return Sought(KEY, what, text, since, datetime.now(UTC))


async def test_what_is_published_is_there_and_reads_as_it_was_written(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    ready = await prepared(made, message(platform, files))
    assert await posts(http, sandbox, platform) == []
    receipt = await settled(made, await made.publish(ready, KEY))
    there = await posts(http, sandbox, platform)
    assert [post["text"] for post in there] == [TEXT]
    assert receipt.url
    page = await http.get(receipt.url, follow_redirects=True)
    assert page.status_code == 200


async def test_a_lost_answer_is_unknown_and_a_look_finds_the_post(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    ready = await prepared(made, message(platform, files))
    since = datetime.now(UTC)
    await order(http, sandbox, platform, "drop_after")
    with pytest.raises(OutcomeUnknown):
        await made.publish(ready, KEY)
    found = await made.find(sought(ready, TEXT, since))
    assert isinstance(found, Receipt | Pending)
    assert len(await posts(http, sandbox, platform)) == 1


async def test_a_call_that_was_dropped_before_is_unknown_and_a_look_finds_nothing(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    ready = await prepared(made, message(platform, files))
    since = datetime.now(UTC)
    await order(http, sandbox, platform, "drop_before")
    with pytest.raises(OutcomeUnknown):
        await made.publish(ready, KEY)
    assert await made.find(sought(ready, TEXT, since)) is Absence.NOT_THERE
    await settled(made, await made.publish(ready, KEY))
    assert len(await posts(http, sandbox, platform)) == 1


@pytest.mark.parametrize("what", ["error_after", "garbage"])
async def test_an_error_or_nonsense_after_the_fact_is_unknown(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str, what: str
) -> None:
    made = await connected(sandbox, platform, http)
    ready = await prepared(made, message(platform, files))
    since = datetime.now(UTC)
    await order(http, sandbox, platform, what)
    with pytest.raises(OutcomeUnknown):
        await made.publish(ready, KEY)
    assert isinstance(await made.find(sought(ready, TEXT, since)), Receipt | Pending)


async def test_a_rate_limit_names_the_time(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    ready = await prepared(made, message(platform, files))
    await order(http, sandbox, platform, "rate_limit")
    with pytest.raises(RateLimited) as caught:
        await made.publish(ready, KEY)
    assert 0 < caught.value.retry_after <= 60
    assert await posts(http, sandbox, platform) == []


async def test_an_ended_token_is_told_from_a_revoked_one(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    ready = await prepared(made, message(platform, files))
    await order(http, sandbox, platform, "expire_token")
    refreshes = {"bluesky": TokenExpired, "youtube": TokenExpired}
    with pytest.raises(refreshes.get(platform, Reauthorize)):
        await made.publish(ready, KEY)
    assert await posts(http, sandbox, platform) == []


async def test_a_refresh_that_loses_its_answer_disconnects_nobody(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    if "refresh" not in POLICIES[platform].capabilities:
        pytest.skip("its tokens do not end")
    made = await connected(sandbox, platform, http)
    step = {"bluesky": "refresh", "youtube": "token", "instagram": "refresh"}[platform]
    await order(http, sandbox, platform, "drop_before", step=step)
    with pytest.raises(Transient):
        await made.refresh()
    tokens = await made.refresh()
    assert all(tokens.secrets.values())


async def test_a_call_that_never_left_is_transient(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    ready = await prepared(made, message(platform, files))
    state = {
        key: value.replace(sandbox, "http://127.0.0.1:9") if isinstance(value, str) else value
        for key, value in ready.state.items()
    }
    away = replace(made, account=replace(made.account, api_base="http://127.0.0.1:9"))
    with pytest.raises(Transient):
        await away.publish(Prepared(state), KEY)


async def test_deleting_twice_is_fine(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    options = {"login": "facebook"} if platform == "instagram" else {}
    made = await connected(sandbox, platform, http, **options)
    ready = await prepared(made, message(platform, files))
    receipt = await settled(made, await made.publish(ready, KEY))
    await made.delete(receipt)
    assert (await posts(http, sandbox, platform))[0]["deleted"]
    try:
        await made.delete(receipt)
    except PlatformError as error:
        assert platform == "instagram", error  # Graph says only "does not exist"


async def test_preparing_again_from_what_is_known_uploads_nothing_twice(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    what = message(platform, files, media=(clip(files),))
    ready = await prepared(made, what)
    before = len((await http.get(f"{sandbox}/control/requests?platform={platform}")).json())
    again = await made.prepare(what, KEY, ready)
    asked = (await http.get(f"{sandbox}/control/requests?platform={platform}")).json()[before:]
    uploads = {"upload_blob", "upload_video", "media", "container", "upload", "init", "bytes"}
    assert not uploads & {row["step"] for row in asked}
    assert again.ready


async def test_content_that_the_platform_refuses_is_for_the_writer(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    canary = "canary-text " * 600
    with pytest.raises(PlatformRejected) as caught:
        await made.publish(await prepared(made, message(platform, files, canary)), KEY)
    told = f"{caught.value} {caught.value!r} {caught.value.args}"
    assert "canary" not in told
    assert all(secret not in told for secret in secrets_of(made))


async def test_nobody_reads_a_token_in_a_repr(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    assert not any(secret in repr(made.account) for secret in secrets_of(made))


async def test_a_picture_arrives_with_its_description(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str, tmp_path: Path
) -> None:
    if not POLICIES[platform].images.max:
        pytest.skip("takes no images")
    with serve(tmp_path / "host") as host:  # Serves the picture to whoever pulls it.
        digest = "a" * 64
        target = tmp_path / "host" / "media" / digest
        target.write_bytes((files / "picture.jpg").read_bytes())
        made = await connected(sandbox, platform, http)
        one = picture(files, url=f"{host}/media/{digest}")
        ready = await prepared(made, message(platform, files, media=(one,)))
        await settled(made, await made.publish(ready, KEY))
    there = (await posts(http, sandbox, platform))[0]["media"]
    assert [(one["kind"], one["alt"]) for one in there] == [("image", "A teal square")]


async def test_capabilities_are_those_of_the_policy(
    sandbox: str, http: httpx.AsyncClient, files: Path, platform: str
) -> None:
    made = await connected(sandbox, platform, http)
    has = {word for word, protocol in CAPABILITIES.items() if isinstance(made, protocol)}
    assert has == set(POLICIES[platform].capabilities)
