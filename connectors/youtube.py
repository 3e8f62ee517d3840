"""Speaks for one YouTube channel: the upload session is the handle that makes a send unique.

Facts: the YouTube Data API v3 and Google's resumable upload protocol
(policies/platforms/youtube.yaml names the pages).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from clickpost.contract import (
    Absence,
    Account,
    Identity,
    MediaFile,
    Message,
    Pending,
    Prepared,
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import (
    NotFound,
    OutcomeUnknown,
    PlatformRejected,
    PrepareAgain,
    Reauthorize,
    Transient,
    UnexpectedResponse,
)
from connectors._api import Api, Problem, json_of, plain_problem, same_house, text_at
from connectors._files import stream

GOOGLE = "https://www.googleapis.com"
#: Pieces are multiples of 256 KiB, as the protocol demands; the last may be any size.
PIECE = 32 * 262_144
RESUME = 308
_GONE = frozenset({404, 410})
_SLACK = timedelta(minutes=2)


@dataclass(frozen=True)
class Connector:
    """Speaks for one channel."""

    api: Api
    account: Account

    async def sign_in(self) -> Tokens:
        """Make an access token, unless one was given with the credentials."""
        if self.account.secrets.get("refresh_token"):
            return await self.refresh()
        return Tokens({"access_token": self._token()})

    async def refresh(self) -> Tokens:
        """Exchange the refresh token, which stays as it is, for an access token of an hour."""
        secrets = self.account.secrets
        if not secrets.get("refresh_token"):
            raise Reauthorize("the connection has no refresh_token; connect it again")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": secrets["refresh_token"],
            "client_id": secrets.get("client_id", ""),
            "client_secret": secrets.get("client_secret", ""),
        }
        response = await self.api.send(
            "POST", self._oauth("token"), step="refresh", repeatable=True, data=form
        )
        answer = json_of(response, repeatable=True)
        token = text_at(answer, "access_token", call="token")
        ends = time.time() + float(answer.get("expires_in") or 3600)
        fresh = {"access_token": token, "refresh_token": str(answer.get("refresh_token") or "")}
        kept = {key: value for key, value in fresh.items() if value}
        return Tokens(kept, expires_at=datetime.fromtimestamp(ends, UTC))

    async def revoke(self) -> None:
        """End the grant at Google."""
        token = self.account.secrets.get("refresh_token") or self._token()
        await self.api.send(
            "POST", self._oauth("revoke"), step="revoke", repeatable=True, data={"token": token}
        )

    async def whoami(self) -> Identity:
        """Return the channel's id and handle."""
        channel = await self._channel("whoami")
        snippet = channel.get("snippet") or {}
        return Identity(
            remote_id=str(channel["id"]),
            handle=str(snippet.get("customUrl") or channel["id"]),
            name=str(snippet.get("title") or ""),
        )

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Open an upload session and send all but the last piece: no video exists yet."""
        file = message.media[0]
        state: dict[str, Any] = dict(so_far.state) if so_far else {}
        if "session" not in state:
            state = await self._opened(message, file)
        last = last_piece(file.bytes)
        while state["offset"] < last:
            length = min(PIECE, last - state["offset"])
            response = await self._put(state, length, repeatable=True)
            if response.status_code in _GONE:
                raise PrepareAgain("the upload session is gone")
            if response.status_code != RESUME:
                raise UnexpectedResponse("the upload ended before its last piece")
            held = arrived(response)
            if held <= state["offset"]:
                raise Transient("PUT upload session: the piece did not arrive")
            state["offset"] = held
        return Prepared(state)

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt | Pending:
        """Send the last piece: with it, and not before, the video exists."""
        state = prepared.state
        response = await self._put(state, state["size"] - state["offset"], repeatable=False)
        if response.status_code in _GONE:
            raise OutcomeUnknown("PUT upload session answered that it is gone")
        if response.status_code == RESUME:
            raise PrepareAgain("PUT upload session: pieces are missing; nothing was published")
        return self._pending(json_of(response, repeatable=False), state, repeatable=False)

    async def resume(self, ticket: Mapping[str, Any]) -> Receipt | Pending:
        """Ask how far the processing has come."""
        query = {"part": "status,processingDetails", "id": ticket["id"]}
        answer = await self._get("videos", "resume", query)
        items = answer.get("items") or []
        if not items:
            raise NotFound("GET videos: the video is not there")
        status = items[0].get("status") or {}
        match status.get("uploadStatus"):
            case "processed":
                return Receipt(str(ticket["id"]), str(ticket["url"]))
            case "failed" | "rejected" | "deleted" as word:
                reason = status.get("failureReason") or status.get("rejectionReason") or word
                raise PlatformRejected(
                    f"YouTube: {word}: {reason}", code=str(reason), field="video"
                )
            case _:
                poll = self.api.policy.processing.poll.total_seconds()
                return Pending(dict(ticket), poll)

    async def find(self, sought: Sought) -> Receipt | Pending | Absence:
        """Ask the upload session how far it came; where it is gone, look at the uploads."""
        state = sought.prepared.state
        if "session" not in state:
            return Absence.NOT_THERE
        response = await self.api.send(
            "PUT",
            state["session"],
            step="find",
            repeatable=True,
            read=problem_of,
            accept=_GONE | {RESUME},
            headers=self._auth()
            | {"Content-Length": "0", "Content-Range": f"bytes */{state['size']}"},
        )
        if response.status_code == RESUME:
            return Absence.NOT_THERE
        if response.status_code in _GONE:
            return await self._among_uploads(sought)
        return self._pending(json_of(response, repeatable=True), state)

    async def delete(self, receipt: Receipt) -> None:
        """Delete the video; one that is gone already is fine."""
        try:
            await self._send(
                "DELETE", self._url("videos"), "delete", params={"id": receipt.remote_id}
            )
        except NotFound:
            return

    async def _opened(self, message: Message, file: MediaFile) -> dict[str, Any]:
        """Open the session: all errors of the metadata come here, before any byte is sent."""
        response = await self._send(
            "POST",
            f"{self._base()}/upload/youtube/v3/videos",
            "prepare",
            params={"uploadType": "resumable", "part": "snippet,status"},
            json=resource_of(message),
            headers={
                "X-Upload-Content-Length": str(file.bytes),
                "X-Upload-Content-Type": file.mime,
            },
        )
        session = response.headers.get("location", "")
        if not same_house(session, self._base(), GOOGLE):
            raise UnexpectedResponse("POST videos answered without a session of its own house")
        return {
            "session": session,
            "offset": 0,
            "size": file.bytes,
            "path": str(file.path),
            "mime": file.mime,
            "title": message.title,
            "short": file.height >= file.width and (file.duration or 0) <= 180,
        }

    async def _put(
        self, state: Mapping[str, Any], length: int, *, repeatable: bool
    ) -> httpx.Response:
        start, size = state["offset"], state["size"]
        headers = self._auth() | {
            "Content-Type": state["mime"],
            "Content-Length": str(length),
            "Content-Range": f"bytes {start}-{start + length - 1}/{size}",
        }

        return await self.api.send(
            "PUT",
            state["session"],
            step="prepare" if repeatable else "publish",
            repeatable=repeatable,
            read=problem_of,
            accept=_GONE | {RESUME},
            content=stream(Path(state["path"]), start, length),
            headers=headers,
        )

    def _pending(
        self, video: Mapping[str, Any], state: Mapping[str, Any], *, repeatable: bool = True
    ) -> Pending:
        video_id = text_at(video, "id", call="PUT upload session", repeatable=repeatable)
        receipt = Receipt(video_id, self._permalink(video_id, short=bool(state.get("short"))))
        poll = self.api.policy.processing.poll.total_seconds()
        return Pending({"id": video_id, "url": receipt.url}, min(poll, 2.0), receipt)

    def _permalink(self, video_id: str, *, short: bool) -> str:
        base = self.account.options.get("permalink_base", "https://www.youtube.com").rstrip("/")
        return f"{base}/shorts/{video_id}" if short else f"{base}/watch?v={video_id}"

    async def _among_uploads(self, sought: Sought) -> Receipt | Absence:
        channel = await self._channel("find")
        related = (channel.get("contentDetails") or {}).get("relatedPlaylists") or {}
        query = {"part": "snippet,contentDetails", "maxResults": "50"}
        answer = await self._get(
            "playlistItems", "find", query | {"playlistId": str(related.get("uploads"))}
        )
        for item in answer.get("items") or []:
            snippet = item.get("snippet") or {}
            if snippet.get("title") != sought.prepared.state["title"]:
                continue
            if not _within(snippet.get("publishedAt"), sought):
                continue
            video_id = str((item.get("contentDetails") or {}).get("videoId"))
            short = bool(sought.prepared.state.get("short"))
            return Receipt(video_id, self._permalink(video_id, short=short))
        return Absence.CANNOT_TELL

    async def _channel(self, step: str) -> dict[str, Any]:
        query = {"part": "snippet,contentDetails,status", "mine": "true"}
        items = (await self._get("channels", step, query)).get("items") or []
        if not items:
            raise Reauthorize("this Google account has no YouTube channel")
        return dict(items[0])

    async def _get(self, name: str, step: str, query: Mapping[str, str]) -> dict[str, Any]:
        response = await self._send("GET", self._url(name), step, params=dict(query))
        return json_of(response, repeatable=True)

    async def _send(self, method: str, url: str, step: str, **request: Any) -> httpx.Response:
        headers = self._auth() | request.pop("headers", {})
        return await self.api.send(
            method, url, step=step, repeatable=True, read=problem_of, headers=headers, **request
        )

    def _url(self, name: str) -> str:
        return f"{self._base()}/youtube/v3/{name}"

    def _base(self) -> str:
        return self.account.api_base.rstrip("/")

    def _auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}

    def _token(self) -> str:
        if token := self.account.secrets.get("access_token"):
            return token
        raise Reauthorize("the connection has no access_token; connect it again")

    def _oauth(self, name: str) -> str:
        """Return Google's token (or revoke) address, or its twin beside another api_base."""
        if given := self.account.options.get(f"{name}_url"):
            return given
        if same_house(self._base(), GOOGLE):
            return str(self.api.policy.api.endpoints[name])
        return f"{self._base()}/{name}"


def resource_of(message: Message) -> dict[str, Any]:
    """Say `message` as a video resource; what YouTube's terms ask for is always said."""
    options = message.options
    snippet: dict[str, Any] = {
        "title": message.title,
        "description": message.text,
        "categoryId": str(options.get("categoryId", "22")),
    }
    if message.tags:
        snippet["tags"] = list(message.tags)
    if message.language:
        snippet["defaultLanguage"] = message.language
    privacy = "private" if message.visibility == "direct" else message.visibility
    status = {
        "privacyStatus": privacy,
        "selfDeclaredMadeForKids": bool(options.get("madeForKids", False)),
        "containsSyntheticMedia": bool(options.get("containsSyntheticMedia", False)),
    }
    return {"snippet": snippet, "status": status}


def last_piece(size: int) -> int:
    """Return where the last piece begins: at most one piece from the end, never at the end."""
    return max((size - 1) // PIECE * PIECE, 0)


def arrived(response: httpx.Response) -> int:
    """Return how many bytes a 308 says have arrived."""
    held = response.headers.get("range", "")
    tail = held.rpartition("-")[2]
    return int(tail) + 1 if tail.isdigit() else 0


def problem_of(response: httpx.Response) -> Problem:
    """Read a Google error: the first reason is its name, the domain the finer one."""
    try:
        error = response.json().get("error")
    except (ValueError, AttributeError):
        error = None
    if not isinstance(error, dict):
        return plain_problem(response)
    first = (error.get("errors") or [{}])[0]
    return Problem(
        status=response.status_code,
        code=first.get("reason") or error.get("status"),
        subcode=first.get("domain"),
        message=str(error.get("message") or ""),
        headers=response.headers,
    )


def _within(moment: object, sought: Sought) -> bool:
    try:
        made = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    except ValueError:
        return False
    return sought.sent_at - _SLACK <= made <= sought.until + _SLACK
