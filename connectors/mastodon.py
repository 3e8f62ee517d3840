"""Speaks for one account on a Mastodon server, or on one that speaks its API.

Facts: docs.joinmastodon.org, and what GoToSocial and snac answered
(policies/platforms/mastodon.yaml names the pages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import httpx
import regex

from clickpost.contract import (
    Absence,
    Account,
    Identity,
    MediaFile,
    Message,
    Prepared,
    Receipt,
    Sought,
)
from clickpost.errors import NotFound, PlatformError, Reauthorize, UnexpectedResponse
from clickpost.wording import Link, Mention, entities
from connectors._api import Api, json_of, text_at

_SLACK = timedelta(minutes=2)


@dataclass(frozen=True)
class Connector:
    """Speaks for one account."""

    api: Api
    account: Account

    async def whoami(self) -> Identity:
        """Return the account, and the limits that its server tells of itself."""
        answer = await self._json("GET", "/api/v1/accounts/verify_credentials", step="whoami")
        return Identity(
            remote_id=text_at(answer, "id", call="verify_credentials"),
            handle=str(answer.get("acct") or answer.get("username") or ""),
            name=str(answer.get("display_name") or ""),
            url=answer.get("url"),
            limits=limits_of(await self._instance()),
        )

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Upload media with their descriptions, and wait until the server is done with them."""
        state: dict[str, Any] = dict(so_far.state) if so_far else {"media": [], "pending": []}
        state["status"] = status_of(message)
        for number in range(len(state["media"]), len(message.media)):
            media_id, ready = await self._uploaded(message.media[number])
            state["media"] = [*state["media"], media_id]
            state["pending"] = [*state["pending"], *([] if ready else [media_id])]
        if so_far is not None:
            state["pending"] = [one for one in state["pending"] if not await self._processed(one)]
        poll = self.api.policy.processing.poll.total_seconds()
        return Prepared(state, ready=not state["pending"], again_in=poll if state["pending"] else 0)

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Post the status under its idempotency key, which some servers ignore."""
        body = {**prepared.state["status"]}
        if prepared.state["media"]:
            body["media_ids"] = prepared.state["media"]
        if after:
            body["in_reply_to_id"] = after[-1].remote_id
        response = await self._send(
            "POST",
            "/api/v1/statuses",
            step="publish",
            repeatable=False,
            json=body,
            headers={"Idempotency-Key": key},
        )
        return receipt_of(json_of(response, repeatable=False), repeatable=False)

    async def find(self, sought: Sought) -> Receipt | Absence:
        """Look among the account's own recent posts; absence counts where the list is complete."""
        since = sought.sent_at - _SLACK
        query: dict[str, Any] = {"limit": 40, "exclude_reblogs": "true"}
        for _ in range(5):
            path = f"/api/v1/accounts/{self._remote_id()}/statuses"
            response = await self._send("GET", path, step="find", params=query)
            statuses = list_of(response)
            for status in statuses:
                if is_it(status, sought, since):
                    return receipt_of(status)
            if len(statuses) < 40 or _older(statuses[-1], since):
                return Absence.NOT_THERE
            query["max_id"] = statuses[-1].get("id")
        return Absence.CANNOT_TELL

    async def delete(self, receipt: Receipt) -> None:
        """Delete the status; one that is gone already is fine."""
        try:
            await self._send("DELETE", f"/api/v1/statuses/{receipt.remote_id}", step="delete")
        except NotFound:
            return

    async def _uploaded(self, file: MediaFile) -> tuple[str, bool]:
        """Upload one file; return its id and whether it is ready."""
        try:
            response = await self._upload("/api/v2/media", file)
        except NotFound:  # Servers before 3.1.3 have only the first version.
            response = await self._upload("/api/v1/media", file)
        answer = json_of(response, repeatable=True)
        ready = response.status_code != httpx.codes.ACCEPTED
        return text_at(answer, "id", call="media"), ready

    async def _upload(self, path: str, file: MediaFile) -> httpx.Response:
        with file.path.open("rb") as content:
            return await self._send(
                "POST",
                path,
                step="prepare",
                files={"file": (f"media{file.path.suffix}", content, file.mime)},
                data={"description": file.alt} if file.alt else {},
            )

    async def _processed(self, media_id: str) -> bool:
        response = await self._send("GET", f"/api/v1/media/{media_id}", step="prepare")
        return response.status_code != httpx.codes.PARTIAL_CONTENT

    async def _instance(self) -> dict[str, Any]:
        """Return the server's own description, the newest version it has; {} where it has none."""
        for path in ("/api/v2/instance", "/api/v1/instance"):
            try:
                return await self._json("GET", path, step="whoami")
            except PlatformError:
                continue
        return {}

    async def _json(self, method: str, path: str, *, step: str, **request: Any) -> dict[str, Any]:
        return json_of(await self._send(method, path, step=step, **request), repeatable=True)

    async def _send(
        self, method: str, path: str, *, step: str, repeatable: bool = True, **request: Any
    ) -> httpx.Response:
        token = self.account.secrets.get("access_token")
        if not token:
            raise Reauthorize("the connection has no access_token; connect it again")
        headers = {"Authorization": f"Bearer {token}", **request.pop("headers", {})}
        return await self.api.send(
            method,
            self.account.api_base.rstrip("/") + path,
            step=step,
            repeatable=repeatable,
            headers=headers,
            **request,
        )

    def _remote_id(self) -> str:
        if self.account.remote_id:
            return self.account.remote_id
        raise Reauthorize("the connection has no account id; connect it again")


def status_of(message: Message) -> dict[str, Any]:
    """Say `message` as the fields of a status; what is not set is left out."""
    body: dict[str, Any] = {"status": message.text, "visibility": message.visibility}
    if message.sensitive:
        body["sensitive"] = True
    if message.spoiler:
        body["spoiler_text"] = message.spoiler
    if message.language:
        body["language"] = message.language.split("-")[0].lower()
    return body


def receipt_of(status: Mapping[str, Any], *, repeatable: bool = True) -> Receipt:
    """Read a status; its permalink is `url`, or `uri` where that is null."""
    remote_id = text_at(status, "id", call="POST /api/v1/statuses", repeatable=repeatable)
    url = status.get("url") or status.get("uri")
    return Receipt(remote_id=remote_id, url=str(url) if url else None)


def list_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Read a list of statuses."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, list):
        raise UnexpectedResponse("GET statuses answered no list")
    return [one for one in body if isinstance(one, dict)]


def is_it(status: Mapping[str, Any], sought: Sought, since: datetime) -> bool:
    """Say whether `status` is what we sent: its media, or its words, in its time."""
    moment = moment_of(status)
    if moment is not None and not since <= moment <= sought.until + _SLACK:
        return False
    parent = sought.after[-1].remote_id if sought.after else None
    if (status.get("in_reply_to_id") or None) != parent:
        return False
    theirs = {str(one.get("id")) for one in status.get("media_attachments") or []}
    ours = set(sought.prepared.state.get("media", []))
    if ours & theirs:
        return True
    if len(ours) != len(theirs):
        return False
    return fingerprint(sought.text) == fingerprint(plain_of(str(status.get("content") or "")))


def moment_of(status: Mapping[str, Any]) -> datetime | None:
    """Return when a status was made, None where the server does not say."""
    try:
        return datetime.fromisoformat(str(status.get("created_at")))
    except ValueError:
        return None


def _older(status: Mapping[str, Any], since: datetime) -> bool:
    moment = moment_of(status)
    return moment is not None and moment < since


def fingerprint(text: str) -> str:
    """Return the letters and digits of `text`: servers rewrite links, mentions and spaces."""
    pieces, at = [], 0
    for one in entities(text):
        if isinstance(one, Link):
            pieces.append(text[at : one.start])
        elif isinstance(one, Mention):
            pieces += [text[at : one.start], one.name]
        else:
            continue
        at = one.end
    return regex.sub(r"[^\p{L}\p{N}\p{S}]+", "", "".join([*pieces, text[at:]])).casefold()


class _Plain(HTMLParser):
    """Gathers the text of a status' HTML; a link's shown text counts as the link."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("br", "p"):
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def plain_of(content: str) -> str:
    """Return the text of a status' HTML."""
    parser = _Plain()
    parser.feed(content)
    return "".join(parser.pieces).strip()


def limits_of(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Say a server's own limits in the words of our policies."""
    told = instance.get("configuration") or {}
    statuses, media = told.get("statuses") or {}, told.get("media_attachments") or {}
    most = statuses.get("max_media_attachments")
    text_limit = statuses.get("max_characters") or instance.get("max_toot_chars")
    limits: dict[str, dict[str, Any]] = {
        "text": {"limit": text_limit, "links": statuses.get("characters_reserved_per_url")},
        "images": {
            "max": most,
            "bytes": media.get("image_size_limit"),
            "pixels": media.get("image_matrix_limit"),
        },
        "video": {
            "bytes": media.get("video_size_limit"),
            "pixels": media.get("video_matrix_limit"),
            "fps": {"max": media.get("video_frame_rate_limit")},
        },
        "album": {"max": most},
        "alt": {"limit": media.get("description_limit")},
    }
    return {name: known(section) for name, section in limits.items() if known(section)}


def known(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the positive numbers of a section, and what its sections know."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            if inner := known(value):
                found[name] = inner
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            found[name] = value
    return found
