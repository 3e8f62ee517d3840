"""Speaks for one professional Instagram account: container, status, publish.

Facts: Meta's pages on content publishing (policies/platforms/instagram.yaml names them). Works
with Instagram Login (graph.instagram.com) and Facebook Login (graph.facebook.com). Meta fetches
images from us; it documents the upload of a video's bytes for Facebook Login only, so with
Instagram Login it fetches videos too, where it can reach us.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
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
    Outline,
    Prepared,
    Presence,
    Quota,
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import (
    InvalidInput,
    NotFound,
    NotReady,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    Reauthorize,
    Unavailable,
    UnexpectedResponse,
)
from connectors._api import Api, Problem, http_status_of, json_of, same_house, text_at
from connectors._files import stream
from connectors._tokens import end_of

_SLACK = timedelta(minutes=2)
#: Pages of the feed that a look turns; at Graph's 25 a page, twice what may be posted in a day.
_PAGES = 8
#: The subcodes of content publishing all begin like this.
_PUBLISHING = "2207"
_SUBCODE = re.compile(rf"\b({_PUBLISHING}\d{{3}})\b")
_REGAIN = re.compile(r'"estimated_time_to_regain_access":\s*(\d+)')

#: The options of a post that a container of each kind takes.
_ALBUM_OPTIONS = ("location_id", "collaborators", "is_ai_generated")
_IMAGE_OPTIONS = (*_ALBUM_OPTIONS, "user_tags")
_REEL_OPTIONS = (
    *(*_IMAGE_OPTIONS, "share_to_feed", "thumb_offset", "cover_url", "audio_name"),
    "trial_params",
)


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
        row = row_of(answer)
        if row.get("account_type") == "PERSONAL":
            raise Reauthorize(
                "a personal account cannot publish by API; make it a professional one"
            )
        rules = self.api.policy.tokens
        ends = datetime.now(UTC) + rules.assumed if rules else None
        return replace(identity_of(row), expires_at=ends)

    async def refresh(self) -> Tokens:
        """Exchange a long-lived token for a fresh one; it must be a day old and unexpired.

        Tokens of Facebook Login know no refresh: their owner logs in again.
        """
        if self._facebook():
            raise Reauthorize("a Facebook Login token cannot be refreshed; connect it again")
        url = f"{self._base()}/refresh_access_token"
        query = {"grant_type": "ig_refresh_token", "access_token": self._token()}
        response = await self._send("GET", url, step="refresh", params=query)
        answer = json_of(response, repeatable=True)
        token = text_at(answer, "access_token", call="refresh_access_token")
        rules = self.api.policy.tokens
        lives = rules.lives if rules else None
        ends = end_of(answer) or (datetime.now(UTC) + lives if lives else None)
        return Tokens({"access_token": token}, ends)

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
        state: dict[str, Any] = deepcopy(so_far.state) if so_far else {}
        if len(message.media) > 1 and await self._children(message, state):
            return self._later(state)
        if "container" not in state:
            state["container"] = await self._container(message, state)
            state |= {"since": time.time(), "asked": 0}
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
        try:
            answer = await self._get(str(container), fields="status_code,status", step="find")
        except (NotFound, PrepareAgain):  # It may be gone because its post is there.
            return await self._in_feed(sought)
        match status_of(answer):
            case "FINISHED" | "EXPIRED" | "ERROR":
                return Absence.NOT_THERE
            case "PUBLISHED":
                return await self._in_feed(sought)
            case _:
                return Absence.CANNOT_TELL

    async def check(self, receipt: Receipt) -> Presence | Absence:
        """Read the post; Graph hides what the token may not see, so it has to see the account."""
        try:
            answer = await self._get(receipt.remote_id, fields="id,caption", step="check")
        except NotFound:
            await self._sees_itself("check")
            return Absence.NOT_THERE
        if str(answer.get("id")) != receipt.remote_id:
            return Absence.CANNOT_TELL
        return Presence.of(str(answer.get("caption") or ""))

    async def delete(self, receipt: Receipt) -> None:
        """Delete the post; only Facebook Login offers it.

        Graph says the same of a post that is gone and of one that the token may not see: it counts
        as gone only where the token still sees the account.
        """
        if not self._facebook():
            raise Reauthorize(
                "Instagram Login offers no deletion by API: delete it in the app, or connect"
                " with Facebook Login"
            )
        try:
            url = f"{self._root()}/{receipt.remote_id}"
            await self._send("DELETE", url, step="delete", params={"access_token": self._token()})
        except NotFound:
            await self._sees_itself("delete")

    async def _sees_itself(self, step: str) -> None:
        try:
            await self._get(self._id(), fields="id", step=step)
        except NotFound:
            raise Reauthorize("the token does not see its account any more") from None

    async def _children(self, message: Message, state: dict[str, Any]) -> bool:
        """Make the album's items; return whether the platform still works on one."""
        children = state.setdefault("children", [])
        for file in message.media[len(children) :]:
            made = await self._made(file, child_of(file))
            children.append({"id": made, "finished": False})
            state |= {"since": time.time(), "asked": 0}
        for child in children:
            child["finished"] = child["finished"] or await self._finished(child["id"])
        return not all(child["finished"] for child in children)

    async def _container(self, message: Message, state: Mapping[str, Any]) -> str:
        if children := state.get("children"):
            fields = album_of(message, [child["id"] for child in children])
            answer = await self._post(f"{self._id()}/media", fields, step="prepare")
            return text_at(answer, "id", call="media")
        return await self._made(message.media[0], single_of(message))

    async def _made(self, file: MediaFile, fields: dict[str, str]) -> str:
        """Make one container: Meta fetches the file from us, or its bytes are uploaded."""
        uploads = file.kind is Kind.VIDEO and not self._pulls(file)
        source = {"upload_type": "resumable"} if uploads else self._address(file)
        answer = await self._post(f"{self._id()}/media", {**fields, **source}, step="prepare")
        container = text_at(answer, "id", call="media")
        if uploads:
            await self._upload(file, self._upload_url(answer, container))
        return container

    def _pulls(self, file: MediaFile) -> bool:
        """Say whether Meta fetches this video; bytes are documented for Facebook Login only."""
        return not self._facebook() and self._reaches(file)

    def _reaches(self, file: MediaFile) -> bool:
        """Say whether the platform can fetch the file; a stand-in may stand on our machine."""
        return bool(file.url) and (is_public(str(file.url)) or not self._at_meta())

    def _address(self, file: MediaFile) -> dict[str, str]:
        if file.url and self._reaches(file):
            return {"video_url" if file.kind is Kind.VIDEO else "image_url": file.url}
        raise Unavailable(
            "Instagram fetches images from us: set CLICKPOST_PUBLIC_URL to the gateway's address"
        )

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
        if json_of(response, repeatable=True).get("success"):
            return
        problem = problem_of(response)
        if problem.code:
            raise self.api.error_of("POST upload", problem, step="prepare", repeatable=True)
        raise PrepareAgain("the upload of the video was not accepted")

    def _upload_url(self, answer: Mapping[str, Any], container: str) -> str:
        """Return where the bytes go: our token is sent to the platform's own hosts only."""
        given, base = str(answer.get("uri") or ""), self._upload_base()
        if same_house(given, self._base(), base):
            return given
        return f"{base}/ig-api-upload/{self.api.policy.api.version}/{container}"

    def _upload_base(self) -> str:
        """Return Meta's upload host, or its twin beside another api_base."""
        if given := self.account.options.get("upload_base"):
            return given.rstrip("/")
        official = str(self.api.policy.api.endpoints["upload"]).rstrip("/")
        return official if self._at_meta() else self._base()

    def _at_meta(self) -> bool:
        api = self.api.policy.api
        return same_house(self._base(), str(api.base), str(api.endpoints["facebook_login"]))

    async def _finished(self, container: str) -> bool:
        answer = await self._get(container, fields="status_code,status", step="prepare")
        match status_of(answer):
            case "FINISHED" | "PUBLISHED":
                return True
            case "ERROR":
                raise self._broken(str(answer.get("status") or ""))
            case "EXPIRED":
                raise PrepareAgain("the container has expired")
            case _:
                return False

    def _broken(self, status: str) -> PlatformError:
        """Say what became of a container that never finishes: the writer's fault, or a new one."""
        found = _SUBCODE.search(status)
        subcode = found[1] if found else None
        problem = Problem(400, subcode=subcode, message=status)
        error = self.api.error_of("GET container", problem, step="container", repeatable=True)
        if subcode and isinstance(error, PlatformRejected | Reauthorize):
            return error
        return PrepareAgain("the container is broken", code=subcode, detail=error.detail)

    async def _in_feed(self, sought: Sought) -> Receipt | Absence:
        """Find the one post of these words, media and time; of two nobody knows which is ours."""
        since, until = sought.sent_at - _SLACK, sought.until + _SLACK
        listed = await self._media_between(since, until)
        if listed is None:
            return Absence.CANNOT_TELL
        others = [row for row in listed if str(row["id"]) not in sought.taken]
        rows = [row for row in others if may_carry(row, sought.media)]
        exact = sought.sent_at.replace(microsecond=0)  # Graph tells no fractions of a second.
        for start in (exact, since):
            found = [row for row in rows if is_sought(row, sought.text, start, until)]
            if len(found) == 1:
                return Receipt(remote_id=str(found[0]["id"]), url=found[0].get("permalink"))
            if found:
                break
        return Absence.CANNOT_TELL

    async def _media_between(self, since: datetime, until: datetime) -> list[dict[str, Any]] | None:
        """Return the account's media of a time, newest first; `None` where it has too many."""
        query = {
            "fields": "id,caption,permalink,timestamp,media_type,children{media_type}",
            "since": str(int(since.timestamp())),
            "until": str(int(until.timestamp())),
        }
        rows: list[dict[str, Any]] = []
        for _ in range(_PAGES):
            answer = await self._get(f"{self._id()}/media", step="feed", **query)
            rows += answer.get("data") or []
            paging = answer.get("paging") or {}
            if not paging.get("next"):  # Graph names a cursor on the last page, too.
                return rows
            query["after"] = str(paging["cursors"]["after"])
        return None

    async def _permalink(self, media_id: str) -> str | None:
        """Read the address of what is live already: whatever goes wrong here, it stays live."""
        try:
            answer = await self._get(media_id, fields="id,permalink", step="permalink")
        except (PlatformError, httpx.HTTPError):
            return None
        return str(answer["permalink"]) if answer.get("permalink") else None

    async def _whoami_by_facebook(self) -> Identity:
        """Return the account that was named, or the only one that the token leads to."""
        known = self.account.secrets.get("user_id") or self.account.remote_id
        if known:
            return identity_of(await self._get(known, fields="id,username,name", step="whoami"))
        linked = [page.get("instagram_business_account") for page in await self._pages()]
        found = [one for one in linked if isinstance(one, dict)]
        if not found:
            raise Reauthorize("no Instagram account is linked to the pages of this token")
        if len(found) > 1:
            raise InvalidInput("the token leads to several Instagram accounts: name one by user_id")
        return identity_of(found[0])

    async def _pages(self) -> list[dict[str, Any]]:
        """Return the pages of a user token, or the one that a Page token speaks for."""
        fields = "name,instagram_business_account{id,username}"
        try:
            answer = await self._get("me/accounts", fields=fields, step="whoami", limit="100")
        except PlatformRejected:  # A Page has no accounts.
            return [await self._get("me", fields=fields, step="whoami")]
        return list(answer.get("data") or [])

    def _later(self, state: dict[str, Any]) -> Prepared:
        """Ask again soon at first, then as seldom as Meta wants it, and not for ever."""
        processing = self.api.policy.processing
        since = float(state.setdefault("since", time.time()))
        if time.time() - since > processing.give_up.total_seconds():
            raise NotReady("the container is still in progress")
        state["asked"] = int(state.get("asked", 0)) + 1
        wait = min(float(2 ** state["asked"]), processing.poll.total_seconds())
        return Prepared(state, ready=False, again_in=wait)

    async def _get(self, path: str, *, fields: str, step: str, **more: str) -> dict[str, Any]:
        query = {"fields": fields, **more, "access_token": self._token()}
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
        if login := self.account.options.get("login"):
            return login == "facebook"
        return same_house(self._base(), str(self.api.policy.api.endpoints["facebook_login"]))

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
    """Read a Graph error, the upload host's `debug_info`, or the token host's `error_type`."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = {}
    body = body if isinstance(body, dict) else {}
    if isinstance(error := body.get("error"), dict):
        return _graph_problem(response, error)
    info = body.get("debug_info")
    info = info if isinstance(info, dict) else {}
    return Problem(
        status=response.status_code,
        code=_text(info.get("type") or body.get("code") or body.get("error_type")),
        subcode="retriable" if info.get("retriable") is True else None,
        message=str(info.get("message") or body.get("error_message") or ""),
        headers=dict(response.headers),
    )


def _graph_problem(response: httpx.Response, error: Mapping[str, Any]) -> Problem:
    code, subcode = _text(error.get("code")), _text(error.get("error_subcode"))
    said = dict.fromkeys(str(error.get(key) or "") for key in ("error_user_msg", "message"))
    headers = dict(response.headers)
    if not (subcode or "").startswith(_PUBLISHING):
        headers |= regain(headers)
    return Problem(
        status=response.status_code,
        code=code,
        subcode=subcode,
        message=" ".join([*filter(None, said), *marks_of(error)]),
        headers=headers,
    )


def marks_of(error: Mapping[str, Any]) -> Iterable[str]:
    """Say in words, for the policy's rules, what a Graph error says beside its codes."""
    if error.get("is_transient") is True:
        yield "[is_transient]"
    code = str(error.get("code"))
    if code.isdigit() and 200 <= int(code) <= 299:
        yield "[permission]"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def regain(headers: Mapping[str, str]) -> dict[str, str]:
    """Say the most minutes that the usage header names as a `retry-after` of seconds."""
    minutes = _REGAIN.findall(headers.get("x-business-use-case-usage", ""))
    longest = max(map(int, minutes), default=0)
    return {"retry-after": str(longest * 60)} if longest else {}


def row_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the account of an answer; the documents also show it wrapped in `data`."""
    rows = answer.get("data")
    return rows[0] if isinstance(rows, list) and rows else answer


def identity_of(answer: Mapping[str, Any]) -> Identity:
    """Read an account: `user_id` is the id of the paths, where there is one; `id` our app's own."""
    row = row_of(answer)
    remote_id = row.get("user_id") or row.get("id")
    if not remote_id:
        raise UnexpectedResponse("GET me answered without user_id", status=http_status_of(answer))
    handle = str(row.get("username") or remote_id)
    known_as = str(row.get("id") or "")
    return Identity(
        remote_id=str(remote_id),
        handle=handle,
        name=str(row.get("name") or ""),
        app_user_id=known_as if known_as not in ("", str(remote_id)) else None,
    )


def single_of(message: Message) -> dict[str, str]:
    """Say a post of one file as the fields of its container; a single video is a reel."""
    file, caption = message.media[0], caption_of(message)
    if file.kind is Kind.VIDEO:
        return {"media_type": "REELS", **caption, **options_of(message, _REEL_OPTIONS)}
    return {**alt_of(file), **caption, **options_of(message, _IMAGE_OPTIONS)}


def child_of(file: MediaFile) -> dict[str, str]:
    """Say one item of an album as the fields of its container."""
    kind = {"media_type": "VIDEO"} if file.kind is Kind.VIDEO else alt_of(file)
    return {"is_carousel_item": "true", **kind}


def album_of(message: Message, children: Iterable[str]) -> dict[str, str]:
    """Say an album as the fields of its container."""
    fields = {"media_type": "CAROUSEL", "children": ",".join(children)}
    return fields | caption_of(message) | options_of(message, _ALBUM_OPTIONS)


def caption_of(message: Message) -> dict[str, str]:
    """Say the text."""
    return {"caption": message.text} if message.text else {}


def alt_of(file: MediaFile) -> dict[str, str]:
    """Say the description, which only images have."""
    return {"alt_text": file.alt} if file.alt else {}


def options_of(message: Message, known: Iterable[str]) -> dict[str, str]:
    """Say the post's own options that a container takes; others are other platforms'."""
    given = {key: message.options[key] for key in known if message.options.get(key) is not None}
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()
    }


def is_public(url: str) -> bool:
    """Say whether somebody outside could fetch `url`, as far as its host tells."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return host != "localhost" and "." in host


def status_of(answer: Mapping[str, Any]) -> str:
    """Return a container's status code; where it is missing, the first word of its status."""
    said = answer.get("status_code") or str(answer.get("status") or "").partition(":")[0]
    return str(said).strip().upper().replace(" ", "_")


def is_sought(row: Mapping[str, Any], text: str, since: datetime, until: datetime) -> bool:
    """Say whether a post of the feed has these words and this time."""
    moment = moment_of(row.get("timestamp"))
    if moment is None or not since <= moment <= until:
        return False
    return words(str(row.get("caption") or "")) == words(text)


def may_carry(row: Mapping[str, Any], media: Sequence[Outline] | None) -> bool:
    """Say whether the media of a post of the feed may be ours, as far as either is known."""
    told = row.get("media_type")
    if media is None or told is None:
        return True
    kinds = [one.kind.name for one in media]  # Graph's words are the names: IMAGE, VIDEO.
    if told != "CAROUSEL_ALBUM":
        return kinds == [told]
    children = row.get("children")
    items = children.get("data") if isinstance(children, Mapping) else None
    if not isinstance(items, list):
        return len(kinds) > 1
    theirs = [one.get("media_type") for one in items if isinstance(one, Mapping)]
    return len(theirs) == len(kinds) > 1 and all(
        other in (None, kind) for kind, other in zip(kinds, theirs, strict=True)
    )


def moment_of(value: object) -> datetime | None:
    """Read Graph's time, e.g. 2026-08-20T10:00:00+0000."""
    try:
        return datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return None


def words(caption: str) -> str:
    """Return a caption composed and without white space, to compare it."""
    return "".join(unicodedata.normalize("NFC", caption).split())
