"""What every connector promises, each as a function of a stage: it returns, or says what broke.

The suite asks them of every connector found, and of a careless one, which has to break them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import connectors
from clickpost.contract import (
    CAPABILITIES,
    Absence,
    Account,
    MediaFile,
    Message,
    Outline,
    Pending,
    Prepared,
    Presence,
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
from clickpost.policy.shape import PlatformPolicy
from sandbox.testing import serve
from tests.contract.cases import Case
from tests.contract.conftest import clip, connected, picture

TEXT = "Grüße aus dem Café 👩‍👩‍👧 #tag @bob.test https://ex.org/a_(b)"
KEY = "key_1"
NOBODY = "http://127.0.0.1:9"  # Nothing listens there.

Maker = Callable[[Account, PlatformPolicy, httpx.AsyncClient], Any]


@dataclass(frozen=True)
class Stage:
    """One platform's stand-in, and what makes the connector that has to speak to it."""

    platform: str
    policy: PlatformPolicy
    case: Case
    base: str
    http: httpx.AsyncClient
    files: Path
    folder: Path
    make: Maker = connectors.connector

    async def connector(self, **options: str) -> Any:
        """Return the connector of a connected account."""
        return await connected(
            self.base, self.platform, self.http, self.policy, self.make, **options
        )

    def message(self, text: str = TEXT, media: tuple[MediaFile, ...] = ()) -> Message:
        """Return a message with what the platform demands beside the text."""
        demanded = self.policy.media.required in ("video", "any")
        media = media or ((clip(self.files),) if demanded else ())
        return Message(text=text, title="A title", media=media, written_at=datetime.now(UTC))

    async def ready(self, text: str = TEXT, **options: str) -> tuple[Any, Prepared]:
        """Return a connector, and what it prepared."""
        made = await self.connector(**options)
        return made, await prepared(made, self.message(text))

    async def order(self, what: str, step: str | None = None) -> None:
        """Order misbehaviour, at the step that publishes unless another is named."""
        said = {"platform": self.platform, "step": step or self.case.publish_step, "what": what}
        (await self.http.post(f"{self.base}/control/misbehave", json=said)).raise_for_status()

    async def posts(self) -> list[dict[str, Any]]:
        """Return the platform's own record of posts."""
        return await self._told("posts")

    async def changed(self, **what: Any) -> None:
        """Let the account's owner change the one post in the platform's own app."""
        said = {"platform": self.platform, "id": (await self.posts())[0]["id"], **what}
        (await self.http.post(f"{self.base}/control/posts", json=said)).raise_for_status()

    async def requests(self) -> list[dict[str, Any]]:
        """Return the requests that the platform saw."""
        return await self._told("requests")

    async def _told(self, what: str) -> list[dict[str, Any]]:
        answer = await self.http.get(f"{self.base}/control/{what}?platform={self.platform}")
        return list(answer.json())


Promise = Callable[[Stage], Awaitable[None]]
PROMISES: dict[str, Promise] = {}


def promise(kept: Promise) -> Promise:
    """Put a promise into the suite."""
    PROMISES[kept.__name__] = kept
    return kept


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


def sought(what: Prepared, since: datetime) -> Sought:
    """Return what a look after a lost outcome knows."""
    return Sought(KEY, what, TEXT, since, datetime.now(UTC))


def secrets_of(made: Any) -> list[str]:
    """Return what must not be read anywhere: all but the credentials that name the account."""
    shown = {k for k, one in made.api.policy.credentials.items() if not one.secret}
    return [value for key, value in made.account.secrets.items() if key not in shown]


@promise
async def what_is_published_is_there_and_reads_as_it_was_written(stage: Stage) -> None:
    made, ready = await stage.ready()
    assert await stage.posts() == [], "visible before it was published"
    receipt = await settled(made, await made.publish(ready, KEY))
    assert [post["text"] for post in await stage.posts()] == [TEXT], "another text"
    assert receipt.url
    page = await stage.http.get(receipt.url, follow_redirects=True)
    assert page.status_code == 200


@promise
async def a_lost_answer_is_unknown_and_a_look_finds_the_post(stage: Stage) -> None:
    await _unknown_but_there(stage, "drop_after")


@promise
async def an_error_after_the_fact_is_unknown_and_a_look_finds_the_post(stage: Stage) -> None:
    await _unknown_but_there(stage, "error_after")


@promise
async def nonsense_after_the_fact_is_unknown_and_a_look_finds_the_post(stage: Stage) -> None:
    await _unknown_but_there(stage, "garbage")


async def _unknown_but_there(stage: Stage, what: str) -> None:
    made, ready = await stage.ready()
    since = datetime.now(UTC)
    await stage.order(what)
    with pytest.raises(OutcomeUnknown):
        await made.publish(ready, KEY)
    if "find" in stage.policy.capabilities:
        found = await made.find(sought(ready, since))
        assert isinstance(found, Receipt | Pending), "a look does not find it"
    assert len(await stage.posts()) == 1


@promise
async def a_look_takes_no_post_of_other_media_for_ours(stage: Stage) -> None:
    if not (stage.policy.images.max and stage.policy.video.max):
        pytest.skip("takes one kind of media")
    if "find" not in stage.policy.capabilities:
        pytest.skip("it cannot look")
    made, since, ours = await stage.connector(), datetime.now(UTC), clip(stage.files)
    async with pulled(stage) as other:
        theirs = await prepared(made, stage.message(media=(other,)))
        await settled(made, await made.publish(theirs, "another"))
    ready = await prepared(made, stage.message(media=(ours,)))
    look = replace(sought(ready, since), media=(Outline(ours.kind, ours.width, ours.height),))
    found = await made.find(look)
    assert isinstance(found, Absence), "takes another post for ours"


@promise
async def a_call_dropped_before_is_unknown_and_a_look_finds_nothing(stage: Stage) -> None:
    made, ready = await stage.ready()
    since = datetime.now(UTC)
    await stage.order("drop_before")
    with pytest.raises(OutcomeUnknown):
        await made.publish(ready, KEY)
    if "find" in stage.policy.capabilities:
        assert await made.find(sought(ready, since)) is Absence.NOT_THERE
    await settled(made, await made.publish(ready, KEY))
    assert len(await stage.posts()) == 1


@promise
async def a_call_that_never_left_is_transient(stage: Stage) -> None:
    made, ready = await stage.ready()
    state = {
        key: value.replace(stage.base, NOBODY) if isinstance(value, str) else value
        for key, value in ready.state.items()
    }
    away = replace(made, account=replace(made.account, api_base=NOBODY))
    with pytest.raises(Transient):
        await away.publish(Prepared(state), KEY)


@promise
async def a_rate_limit_names_the_time(stage: Stage) -> None:
    made, ready = await stage.ready()
    await stage.order("rate_limit")
    with pytest.raises(RateLimited) as caught:
        await made.publish(ready, KEY)
    assert 0 < caught.value.retry_after <= 60
    assert await stage.posts() == []


@promise
async def an_ended_token_is_told_from_a_revoked_one(stage: Stage) -> None:
    made, ready = await stage.ready()
    await stage.order("expire_token")
    with pytest.raises(stage.case.ended):
        await made.publish(ready, KEY)
    assert await stage.posts() == []


@promise
async def a_revoked_token_is_for_the_owner_or_for_a_refresh(stage: Stage) -> None:
    made, ready = await stage.ready()
    await stage.order("revoke_token")
    with pytest.raises((Reauthorize, TokenExpired)) as caught:
        await made.publish(ready, KEY)
    assert await stage.posts() == []
    if isinstance(caught.value, TokenExpired):
        with suppress(Reauthorize):
            assert all((await made.refresh()).secrets.values())


@promise
async def a_refresh_that_loses_its_answer_disconnects_nobody(stage: Stage) -> None:
    if "refresh" not in stage.policy.capabilities:
        pytest.skip("its tokens do not end")
    made = await stage.connector()
    await stage.order("drop_before", step=stage.case.refresh_step)
    with pytest.raises(Transient):
        await made.refresh()
    assert all((await made.refresh()).secrets.values())


@promise
async def only_what_vanished_is_absent(stage: Stage) -> None:
    if "check" not in stage.policy.capabilities:
        pytest.skip("it cannot look")
    made, ready = await stage.ready()
    receipt = await settled(made, await made.publish(ready, KEY))
    assert isinstance(await made.check(receipt), Presence), "does not see it"
    for trouble in ("server_error", "rate_limit", "drop_before", "drop_after", "garbage"):
        await stage.order(trouble, step="*")
        assert await _checked(made, receipt) is not Absence.NOT_THERE, "takes trouble for absence"
        await stage.http.delete(f"{stage.base}/control/misbehave")
    await stage.changed(deleted=True)
    assert await made.check(receipt) is Absence.NOT_THERE, "does not miss it"
    for trouble in ("expire_token", "revoke_token"):
        await stage.order(trouble, step="*")
        if stage.platform != "bluesky":  # There anybody may read, also without a session.
            assert await _checked(made, receipt) is not Absence.NOT_THERE, "a dead token sees it"
        await stage.http.delete(f"{stage.base}/control/misbehave")


async def _checked(made: Any, receipt: Receipt) -> Presence | Absence | None:
    with suppress(PlatformError):
        seen: Presence | Absence = await made.check(receipt)
        return seen
    return None


@promise
async def another_text_is_noticed_and_the_same_is_not(stage: Stage) -> None:
    if "check" not in stage.policy.capabilities:
        pytest.skip("it cannot look")
    made, ready = await stage.ready()
    receipt = await settled(made, await made.publish(ready, KEY))
    first = await made.check(receipt)
    assert await made.check(receipt) == first, "sees a change where there is none"
    await stage.changed(text="Other words")
    assert await made.check(receipt) != first, "does not see the change"


@promise
async def deleting_twice_is_fine(stage: Stage) -> None:
    if "delete" not in stage.policy.capabilities:
        pytest.skip("it deletes nothing")
    made, ready = await stage.ready(**stage.case.delete_options)
    receipt = await settled(made, await made.publish(ready, KEY))
    await made.delete(receipt)
    assert (await stage.posts())[0]["deleted"]
    try:
        await made.delete(receipt)
    except PlatformError:
        if not stage.case.hides_gone:
            raise


@promise
async def preparing_again_from_what_is_known_uploads_nothing_twice(stage: Stage) -> None:
    made = await stage.connector()
    what = stage.message(media=(clip(stage.files),) if stage.policy.video.max else ())
    ready = await prepared(made, what)
    before = len(await stage.requests())
    again = await made.prepare(what, KEY, ready)
    asked = (await stage.requests())[before:]
    assert {row["method"] for row in asked} <= {"GET"}, "uploaded again"
    assert again.ready


@promise
async def content_that_the_platform_refuses_is_for_the_writer(stage: Stage) -> None:
    made = await stage.connector()
    canary = "canary-text " * 600
    with pytest.raises(PlatformRejected) as caught:
        await made.publish(await prepared(made, stage.message(canary)), KEY)
    told = f"{caught.value} {caught.value!r} {caught.value.args}"
    assert "canary" not in told.casefold(), "tells the content"
    assert all(secret not in told for secret in secrets_of(made)), "tells a secret"


@promise
async def nobody_reads_a_token_in_a_repr(stage: Stage) -> None:
    made = await stage.connector()
    shown = f"{made!r} {made.account!r}"
    assert not any(secret in shown for secret in secrets_of(made)), "shows a secret"


@asynccontextmanager
async def pulled(stage: Stage) -> AsyncIterator[MediaFile]:
    """Yield a picture, served to platforms that pull."""
    with serve(stage.folder / "host") as host:
        digest = "a" * 64
        target = stage.folder / "host" / "media" / digest
        target.write_bytes((stage.files / "picture.jpg").read_bytes())
        yield picture(stage.files, url=f"{host}/media/{digest}")


@promise
async def a_picture_arrives_with_its_description(stage: Stage) -> None:
    if not stage.policy.images.max:
        pytest.skip("takes no images")
    async with pulled(stage) as one:
        made = await stage.connector()
        ready = await prepared(made, stage.message(media=(one,)))
        await settled(made, await made.publish(ready, KEY))
    there = (await stage.posts())[0]["media"]
    assert [(one["kind"], one["alt"]) for one in there] == [("image", "A teal square")]


@promise
async def capabilities_are_those_of_the_policy(stage: Stage) -> None:
    made = await stage.connector()
    has = {word for word, protocol in CAPABILITIES.items() if isinstance(made, protocol)}
    assert has == set(stage.policy.capabilities)
