"""Speaks for one professional Instagram account: container, status, publish.

Facts: Meta's pages on content publishing (policies/platforms/instagram.yaml names them). Works
with Instagram Login (graph.instagram.com) and Facebook Login (graph.facebook.com).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from clickpost.contract import (
    Absence,
    Account,
    Identity,
    Kind,
    MediaFile,
    Message,
    Prepared,
    Quota,
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import (
    NotFound,
    PlatformError,
    PrepareAgain,
    Reauthorize,
    Unavailable,
    UnexpectedResponse,
)
from connectors._api import Api, Problem, json_of, same_house, text_at
from connectors._files import stream

_SLACK = timedelta(minutes=2)
_SUBCODE = re.compile(r"\b(22070\d\d)\b")


@dataclass(frozen=True)
class Connector:
    """Speaks for one account; `account.remote_id` is the Instagram user id of its paths."""

    api: Api
    account: Account

    async def whoami(self) -> Identity:
        """Return user id and user name."""
        if self._facebook():
            return await self._whoami_by_facebook()
        answer = await self._get("me", fields="user_id,username,account_type,name", step="whoami")
        return identity_of(answer)

    async def refresh(self) -> Tokens:
        """Exchange a long-lived token for a fresh one; it must be a day old and unexpired."""
        if self._facebook():
            raise Reauthorize("a Facebook Login token cannot be refreshed; connect it again")
        url = f"{self._base()}/refresh_access_token"
        query = {"grant_type": "ig_refresh_token", "access_token": self._token()}
        response = await self._send("GET", url, step="refresh", params=query)
        answer = json_of(response, repeatable=True)
        ends = time.time() + float(answer.get("expires_in") or 60 * 86400)
        token = text_at(answer, "access_token", call="refresh_access_token")
        return Tokens({"access_token": token}, expires_at=datetime.fromtimestamp(ends, UTC))

    async def quota(self) -> Quota:
        """Return how many posts of today's are used."""
        answer = await self._get(
            f"{self._id()}/content_publishing_limit", fields="quota_usage,config", step="quota"
        )
        rows = answer.get("data") or [{}]
        config = rows[0].get("config") or {}
        return Quota(
            rows[0].get("quota_usage"), config.get("quota_total"), config.get("quota_duration")
        )

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Make the container (and its children), upload videos, and wait until it is finished."""
        state: dict[str, Any] = dict(so_far.state) if so_far else {"children": []}
        if len(message.media) > 1:
            waiting = await self._children(message, state)
            if waiting:
                return self._later(state)
        if "container" not in state:
            state["container"] = await self._container(message, state)
            state["caption"] = message.text
        if not await self._finished(state["container"]):
            return self._later(state)
        return Prepared(state)

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Publish the container; its permalink is read afterwards and may be missing."""
        answer = await self._post(
            f"{self._id()}/media_publish",
            {"creation_id": prepared.state["container"]},
            step="publish",
            repeatable=False,
        )
        media_id = text_at(answer, "id", call="media_publish", repeatable=False)
        return Receipt(remote_id=media_id, url=await self._permalink(media_id))

    async def find(self, sought: Sought) -> Receipt | Absence:
        """Ask the container whether it was published, then find its post in the feed."""
        container = sought.prepared.state.get("container")
        if not container:
            return Absence.NOT_THERE
        answer = await self._get(str(container), fields="status_code,status", step="find")
        match answer.get("status_code"):
            case "FINISHED" | "EXPIRED" | "ERROR":
                return Absence.NOT_THERE
            case "PUBLISHED":
                return await self._in_feed(sought)
            case _:
                return Absence.CANNOT_TELL

    async def delete(self, receipt: Receipt) -> None:
        """Delete the post; only Facebook Login offers it."""
        if not self._facebook():
            raise Reauthorize(
                "Instagram Login offers no deletion by API: delete it in the app, or connect"
                " with Facebook Login"
            )
        try:
            url = f"{self._root()}/{receipt.remote_id}"
            await self._send("DELETE", url, step="delete", params={"access_token": self._token()})
        except NotFound:
            return

    async def _children(self, message: Message, state: dict[str, Any]) -> bool:
        """Make the album's items; return whether the platform still works on one."""
        for number in range(len(state["children"]), len(message.media)):
            fields = fields_of(message.media[number]) | {"is_carousel_item": "true"}
            if message.media[number].kind is Kind.VIDEO:
                fields["media_type"] = "VIDEO"
            made = await self._made(message.media[number], fields)
            state["children"] = [*state["children"], {"id": made, "finished": False}]
        for child in state["children"]:
            child["finished"] = child["finished"] or await self._finished(child["id"])
        return not all(child["finished"] for child in state["children"])

    async def _container(self, message: Message, state: dict[str, Any]) -> str:
        caption = {"caption": message.text} if message.text else {}
        if state["children"]:
            ids = ",".join(child["id"] for child in state["children"])
            fields = {"media_type": "CAROUSEL", "children": ids, **caption}
            answer = await self._post(f"{self._id()}/media", fields, step="prepare")
            return text_at(answer, "id", call="media")
        file = message.media[0]
        return await self._made(file, fields_of(file) | caption)

    async def _made(self, file: MediaFile, fields: dict[str, str]) -> str:
        """Make one container; a video's bytes are uploaded to the address the answer names."""
        if file.kind is Kind.VIDEO:
            fields = {**fields, "upload_type": "resumable"}
        answer = await self._post(f"{self._id()}/media", fields, step="prepare")
        container = text_at(answer, "id", call="media")
        if file.kind is Kind.VIDEO:
            await self._upload(file, self._upload_url(answer, container))
        return container

    async def _upload(self, file: MediaFile, url: str) -> None:
        headers = {
            "Authorization": f"OAuth {self._token()}",
            "offset": "0",
            "file_size": str(file.bytes),
            "Content-Length": str(file.bytes),
        }
        response = await self._send(
            "POST", url, step="prepare", content=stream(file.path), headers=headers
        )
        answer = json_of(response, repeatable=True)
        if not answer.get("success"):
            raise PrepareAgain("the upload of the video was not accepted")

    def _upload_url(self, answer: Mapping[str, Any], container: str) -> str:
        """Return where the bytes go: our token is sent to the platform's own hosts only."""
        given = str(answer.get("uri") or "")
        official = str(self.api.policy.api.endpoints["upload"])
        mine = self.account.options.get("upload_base", "")
        if given and same_house(given, self._base(), official, *([mine] if mine else [])):
            return given
        base = (mine or official).rstrip("/")
        return f"{base}/ig-api-upload/{self.api.policy.api.version}/{container}"

    async def _finished(self, container: str) -> bool:
        answer = await self._get(container, fields="status_code,status", step="prepare")
        match answer.get("status_code"):
            case "FINISHED" | "PUBLISHED":
                return True
            case "ERROR":
                raise self._broken(str(answer.get("status") or ""))
            case "EXPIRED":
                raise PrepareAgain("the container has expired")
            case _:
                return False

    def _broken(self, status: str) -> PlatformError:
        found = _SUBCODE.search(status)
        problem = Problem(400, code=None, subcode=found[1] if found else "2207053", message=status)
        return self.api.error_of("container", problem, step="prepare", repeatable=True)

    async def _in_feed(self, sought: Sought) -> Receipt | Absence:
        since = sought.sent_at - _SLACK
        answer = await self._get(
            f"{self._id()}/media", fields="id,caption,permalink,timestamp", step="find"
        )
        for row in answer.get("data") or []:
            moment = moment_of(row.get("timestamp"))
            if moment is None or not since <= moment <= sought.until + _SLACK:
                continue
            if words(str(row.get("caption") or "")) == words(sought.text):
                return Receipt(remote_id=str(row["id"]), url=row.get("permalink"))
        return Absence.CANNOT_TELL

    async def _permalink(self, media_id: str) -> str | None:
        try:
            answer = await self._get(media_id, fields="id,permalink", step="find")
        except PlatformError:
            return None
        return str(answer["permalink"]) if answer.get("permalink") else None

    async def _whoami_by_facebook(self) -> Identity:
        known = self.account.secrets.get("user_id") or self.account.remote_id
        if known:
            return identity_of(await self._get(known, fields="id,username,name", step="whoami"))
        fields = "name,instagram_business_account{id,username}"
        answer = await self._get("me/accounts", fields=fields, step="whoami")
        for page in answer.get("data") or []:
            if found := page.get("instagram_business_account"):
                return identity_of(found)
        raise Reauthorize("no Instagram account is linked to the pages of this token")

    def _later(self, state: dict[str, Any]) -> Prepared:
        poll = self.api.policy.processing.poll.total_seconds()
        return Prepared(state, ready=False, again_in=poll)

    async def _get(self, path: str, *, fields: str, step: str) -> dict[str, Any]:
        query = {"fields": fields, "access_token": self._token()}
        response = await self._send("GET", f"{self._root()}/{path}", step=step, params=query)
        return json_of(response, repeatable=True)

    async def _post(
        self, path: str, fields: Mapping[str, str], *, step: str, repeatable: bool = True
    ) -> dict[str, Any]:
        form = {**fields, "access_token": self._token()}
        response = await self._send(
            "POST", f"{self._root()}/{path}", step=step, repeatable=repeatable, data=form
        )
        return json_of(response, repeatable=repeatable)

    async def _send(
        self, method: str, url: str, *, step: str, repeatable: bool = True, **request: Any
    ) -> httpx.Response:
        return await self.api.send(
            method, url, step=step, repeatable=repeatable, read=problem_of, **request
        )

    def _facebook(self) -> bool:
        login = self.account.options.get("login")
        return login == "facebook" or (
            login is None and urlsplit(self.account.api_base).hostname == "graph.facebook.com"
        )

    def _base(self) -> str:
        return self.account.api_base.rstrip("/")

    def _root(self) -> str:
        return f"{self._base()}/{self.api.policy.api.version}"

    def _token(self) -> str:
        if token := self.account.secrets.get("access_token"):
            return token
        raise Reauthorize("the connection has no access_token; connect it again")

    def _id(self) -> str:
        found = self.account.remote_id or self.account.secrets.get("user_id")
        if found:
            return found
        raise Reauthorize("the connection has no Instagram user id; connect it again")


def problem_of(response: httpx.Response) -> Problem:
    """Read a Graph error, or the upload host's `debug_info`."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    error = body.get("error")
    if isinstance(error, dict):
        headers = dict(response.headers)
        return Problem(
            status=response.status_code,
            code=_text(error.get("code")),
            subcode=_text(error.get("error_subcode")),
            message=str(error.get("error_user_msg") or error.get("message") or ""),
            headers=headers | _regain(headers),
        )
    info = body.get("debug_info") or {}
    said = body.get("error_message") or info.get("message") or ""
    return Problem(
        response.status_code, _text(body.get("error_type") or info.get("type")), message=str(said)
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _regain(headers: Mapping[str, str]) -> dict[str, str]:
    """Say the minutes that the usage header names as a `retry-after` of seconds."""
    found = re.search(
        r'"estimated_time_to_regain_access":\s*(\d+)', headers.get("x-business-use-case-usage", "")
    )
    return {"retry-after": str(int(found[1]) * 60)} if found and int(found[1]) else {}


def identity_of(answer: Mapping[str, Any]) -> Identity:
    """Read an account; the documents also show it wrapped in `data`."""
    rows = answer.get("data")
    row = rows[0] if isinstance(rows, list) and rows else answer
    remote_id = row.get("user_id") or row.get("id")
    if not remote_id:
        raise UnexpectedResponse("GET me answered without user_id")
    handle = str(row.get("username") or remote_id)
    return Identity(remote_id=str(remote_id), handle=handle, name=str(row.get("name") or ""))


def fields_of(file: MediaFile) -> dict[str, str]:
    """Say one file as the fields of a container; images are fetched from our signed address."""
    if file.kind is Kind.VIDEO:
        return {"media_type": "REELS"}
    if not file.url:
        raise Unavailable(
            "Instagram fetches images from us: set CLICKPOST_PUBLIC_URL to the gateway's address"
        )
    fields = {"image_url": file.url}
    if file.alt:
        fields["alt_text"] = file.alt
    return fields


def moment_of(value: object) -> datetime | None:
    """Read Graph's time, e.g. 2026-08-20T10:00:00+0000."""
    try:
        return datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return None


def words(caption: str) -> str:
    """Return a caption without white space, to compare it."""
    return "".join(caption.split())
