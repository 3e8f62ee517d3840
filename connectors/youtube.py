"""Speaks for one YouTube channel: the upload session is the handle that makes a send unique.

Facts: the YouTube Data API v3 and Google's resumable upload protocol
(policies/platforms/youtube.yaml names the pages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from zoneinfo import ZoneInfo

import httpx

from clickpost.contract import (
    Absence,
    Account,
    Identity,
    MediaFile,
    Message,
    Pending,
    Prepared,
    Presence,
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import (
    NotFound,
    OutcomeUnknown,
    PlatformError,
    PlatformRejected,
    PrepareAgain,
    Reauthorize,
    Transient,
    UnexpectedResponse,
)
from clickpost.policy.shape import Longest
from connectors._api import (
    Answer,
    Api,
    Problem,
    http_status_of,
    json_of,
    plain_problem,
    same_house,
    text_at,
)
from connectors._files import stream
from connectors._tokens import alone, tokens_of

#: Google answers under either name, and a session may live at the other one.
GOOGLE = ("https://www.googleapis.com", "https://youtube.googleapis.com")
#: Pieces are multiples of 256 KiB, as the protocol demands; the last may be any size.
PIECE = 32 * 262_144
#: So many pieces go in one call of `prepare`; what arrived is stored between two calls.
PIECES = 64
#: How often one send follows a server that says which bytes it still lacks.
ROUNDS = 3
RESUME = 308
_GONE = frozenset({404, 410})
_MISPLACED = frozenset({400, 416})
_SLACK = timedelta(minutes=2)
#: How long an access token lives, where Google does not say.
_LIFE = timedelta(hours=1)
_UPLOADING = frozenset({"youtube.upload", "youtube", "youtube.force-ssl"})
_DAILY = frozenset({"quotaExceeded", "dailyLimitExceeded"})


@dataclass(frozen=True)
class Connector:
    """Speaks for one channel."""

    api: Api
    account: Account

    async def sign_in(self) -> Tokens:
        """Make an access token, unless one was given alone: that ends within the hour."""
        if self.account.secrets.get("refresh_token"):
            return await self.refresh()
        return alone(self._token(), _LIFE)

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
        tokens = tokens_of(answer, _LIFE, call="token")
        if lacks_upload(answer.get("scope")):
            raise Reauthorize("the grant lacks the scope youtube.upload; connect it again")
        return tokens

    async def revoke(self) -> None:
        """End the grant at Google; one that has ended already is fine."""
        form = {"token": self.account.secrets.get("refresh_token") or self._token()}
        try:
            await self.api.send(
                "POST", self._oauth("revoke"), step="revoke", repeatable=True, data=form
            )
        except NotFound as error:
            if error.code != "invalid_token":
                raise

    async def whoami(self) -> Identity:
        """Return the channel's id and handle, and how long its videos may be."""
        channel = await self._channel("whoami")
        channel_id = text_at(channel, "id", call="GET channels")
        snippet = channel.get("snippet") or {}
        return Identity(
            remote_id=channel_id,
            handle=str(snippet.get("customUrl") or channel_id),
            name=str(snippet.get("title") or ""),
            url=f"{self._web()}/channel/{channel_id}",
            limits=limits_of(channel, self.api.policy.unverified),
        )

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Open an upload session and send all but the last piece: no video exists yet.

        The session is returned, to be stored, before it gets a byte; a later call asks it how
        far it came.
        """
        file = message.media[0]
        if so_far is None or so_far.state.get("size") != file.bytes:
            state = await self._opened(message, file)
            return _prepared(state)
        state = {**so_far.state, "path": str(file.path)}
        if is_last(state):
            return Prepared(state)
        state = self._continued(state, await self._asked(state, "prepare"), asked=True)
        for _ in range(PIECES):
            if is_last(state):
                break
            state = self._continued(state, await self._put(state, PIECE, repeatable=True))
        return _prepared(state)

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt | Pending:
        """Send the last piece: with it, and not before, the video exists.

        Bytes go out again only where the server has just said that it lacks them.
        """
        state = prepared.state
        for _ in range(ROUNDS):
            rest = state["size"] - state["offset"]
            response = await self._put(state, rest, repeatable=False)
            if response.status_code in _MISPLACED:
                response = await self._settled(state, response)
            if response.status_code in _GONE:
                raise OutcomeUnknown("PUT upload session answered that it is gone")
            if response.status_code != RESUME:
                return self._pending(json_of(response, repeatable=False), state, repeatable=False)
            if arrived(response) >= state["size"]:
                raise OutcomeUnknown("PUT upload session has every byte and names no video")
            state = {**state, "offset": arrived(response)}
        raise PrepareAgain("PUT upload session: pieces are missing; nothing was published")

    async def resume(self, ticket: Mapping[str, Any]) -> Receipt | Pending:
        """Ask how far the processing has come."""
        query = {"part": "status,processingDetails", "id": ticket["id"]}
        answer = await self._get("videos", "resume", query)
        items = answer.get("items") or []
        if not items:
            raise NotFound("GET videos: the video is not there")
        status = items[0].get("status") or {}
        word, reason = stage_of(items[0])
        match word:
            case "processed":
                extra = hidden(status, ticket)
                return Receipt(str(ticket["id"]), str(ticket["url"]), extra)
            case "failed" | "rejected" | "deleted":
                # The policy's rules say whose turn it is: the writer's, or the channel owner's.
                problem = Problem(status=200, code=reason or word)
                raise self.api.error_of("GET videos", problem, step="resume", repeatable=True)
            case _:
                poll = self.api.policy.processing.poll.total_seconds()
                return Pending(dict(ticket), poll)

    async def find(self, sought: Sought) -> Receipt | Pending | Absence:
        """Ask the upload session how far it came; where it is gone, look at the uploads."""
        state = sought.prepared.state
        if "session" not in state:
            return Absence.NOT_THERE
        response = await self._asked(state, "find")
        if response.status_code in _GONE:
            return await self._among_uploads(sought)
        if response.status_code != RESUME:
            return self._pending(json_of(response, repeatable=True), state)
        if arrived(response) >= state["size"]:  # A video may be about to exist: look again.
            raise Transient("PUT upload session has every byte and names no video yet")
        return Absence.NOT_THERE

    async def check(self, receipt: Receipt) -> Presence | Absence:
        """Ask for the video (1 unit); that it is not listed counts for the channel it was put on.

        A video that YouTube itself took away may still be listed, with a status that says so.
        """
        query = {"part": "snippet,status", "id": receipt.remote_id}
        items = (await self._get("videos", "check", query)).get("items")
        if not isinstance(items, list):
            return Absence.CANNOT_TELL
        if not items:
            ours = (await self._channel("check")).get("id") == self.account.remote_id
            return Absence.NOT_THERE if ours else Absence.CANNOT_TELL
        if stage_of(items[0])[0] in ("deleted", "rejected"):
            return Absence.NOT_THERE
        snippet = items[0].get("snippet") or {}
        return Presence.of(f"{snippet.get('title')}\n{snippet.get('description')}")

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
        resource = resource_of(message)
        response = await self._send(
            "POST",
            f"{self._base()}/upload/youtube/v3/videos",
            "prepare",
            params=query_of(message),
            json=resource,
            headers={
                "Content-Type": "application/json; charset=UTF-8",
                "X-Upload-Content-Length": str(file.bytes),
                "X-Upload-Content-Type": file.mime,
            },
        )
        return {
            "session": session_of(response.headers.get("location", ""), self._base()),
            "offset": 0,
            "size": file.bytes,
            "path": str(file.path),
            "mime": file.mime,
            "title": message.title,
            "privacy": resource["status"]["privacyStatus"],
            "short": is_short(file, self.api.policy.short),
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
            accept=_GONE | _MISPLACED | {RESUME},
            content=stream(Path(state["path"]), start, length),
            headers=headers,
        )

    async def _asked(self, state: Mapping[str, Any], step: str) -> httpx.Response:
        """Ask the session how far it came, which changes nothing."""
        headers = {"Content-Length": "0", "Content-Range": f"bytes */{state['size']}"}
        return await self.api.send(
            "PUT",
            state["session"],
            step=step,
            repeatable=True,
            read=problem_of,
            accept=_GONE | {RESUME},
            headers=self._auth() | headers,
        )

    def _continued(
        self, state: Mapping[str, Any], response: httpx.Response, *, asked: bool = False
    ) -> dict[str, Any]:
        """Return where the upload goes on after an answer to a piece, or to a question."""
        if response.status_code in _GONE:
            raise PrepareAgain("the upload session is gone")
        if response.status_code in _MISPLACED:
            raise self._refusal(response) or Transient("a piece did not fit; ask the session")
        # A session that is complete says so again when it is sent its last piece.
        held = arrived(response) if response.status_code == RESUME else state["size"]
        if not asked and held <= state["offset"]:
            raise Transient("the upload made no progress; ask the session")
        return {**state, "offset": min(held, state["size"] - 1)}

    async def _settled(self, state: Mapping[str, Any], response: httpx.Response) -> httpx.Response:
        """Let the session say where it stands after bytes that did not fit."""
        if refusal := self._refusal(response):
            raise refusal
        return await self._asked(state, "publish")

    def _refusal(self, response: httpx.Response) -> PlatformError | None:
        """Return the error where the policy knows its reason; a wrong offset has none."""
        problem = problem_of(response)
        if problem.code not in {rule.code for rule in self.api.policy.errors.rules if rule.code}:
            return None
        return self.api.error_of("PUT upload session", problem, step="publish", repeatable=False)

    def _pending(
        self, video: Mapping[str, Any], state: Mapping[str, Any], *, repeatable: bool = True
    ) -> Pending:
        video_id = text_at(video, "id", call="PUT upload session", repeatable=repeatable)
        receipt = Receipt(video_id, self._permalink(video_id, short=bool(state.get("short"))))
        poll = self.api.policy.processing.poll.total_seconds()
        ticket = {"id": video_id, "url": receipt.url, "privacy": state.get("privacy")}
        return Pending(ticket, min(poll, 2.0), receipt)

    def _permalink(self, video_id: str, *, short: bool) -> str:
        base = self._web()
        return f"{base}/shorts/{video_id}" if short else f"{base}/watch?v={video_id}"

    def _web(self) -> str:
        return self.account.options.get("permalink_base", "https://www.youtube.com").rstrip("/")

    async def _among_uploads(self, sought: Sought) -> Pending | Absence:
        """Look for the one upload of this title, text and time; the list may lag."""
        channel = await self._channel("find")
        related = (channel.get("contentDetails") or {}).get("relatedPlaylists") or {}
        query = {"part": "snippet,contentDetails", "maxResults": "50"}
        try:
            answer = await self._get(
                "playlistItems", "find", query | {"playlistId": str(related.get("uploads"))}
            )
        except NotFound:  # A channel that never had an upload has no such list.
            return Absence.CANNOT_TELL
        items = [one for one in answer.get("items") or [] if video_id_of(one) not in sought.taken]
        found = [item for item in items if is_sought(item, sought)]
        if len(found) != 1:
            return Absence.CANNOT_TELL
        return self._pending({"id": video_id_of(found[0])}, sought.prepared.state)

    async def _channel(self, step: str) -> dict[str, Any]:
        query = {"part": "snippet,contentDetails,status", "mine": "true"}
        answer = await self._get("channels", step, query)
        items = answer.get("items") or []
        if not items:
            raise Reauthorize("this Google account has no YouTube channel")
        return Answer(items[0], http_status_of(answer))

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
        """Return the address before `/youtube/v3` and `/upload`, however it was given."""
        return self.account.api_base.rstrip("/").removesuffix("/youtube/v3")

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
        if same_house(self._base(), *GOOGLE):
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
    if spoken := options.get("defaultAudioLanguage"):
        snippet["defaultAudioLanguage"] = str(spoken)
    return {"snippet": snippet, "status": status_of(message)}


def status_of(message: Message) -> dict[str, Any]:
    """Say who may see the video and when, for whom it is, and how it was made."""
    options = message.options
    kids = options.get("selfDeclaredMadeForKids", options.get("madeForKids", False))
    status: dict[str, Any] = {
        "privacyStatus": "private" if message.visibility == "direct" else message.visibility,
        "selfDeclaredMadeForKids": is_yes(kids),
        "containsSyntheticMedia": is_yes(options.get("containsSyntheticMedia", False)),
    }
    for name in ("embeddable", "publicStatsViewable"):
        if name in options:
            status[name] = is_yes(options[name])
    if "license" in options:
        status["license"] = str(options["license"])
    if "publishAt" in options:  # YouTube shows it to all at that time, and hides it until then.
        if message.visibility == "unlisted":
            raise PlatformRejected("YouTube shows a video to all at publishAt", field="visibility")
        status |= {"privacyStatus": "private", "publishAt": moment_of(options["publishAt"])}
    return status


def query_of(message: Message) -> dict[str, str]:
    """Say how the video is uploaded; YouTube tells subscribers unless it is told not to."""
    query = {"uploadType": "resumable", "part": "snippet,status"}
    if "notifySubscribers" in message.options:
        query["notifySubscribers"] = str(is_yes(message.options["notifySubscribers"])).lower()
    return query


def is_yes(value: object) -> bool:
    """Read a yes as people write it, so that the word `false` is none."""
    return str(value).strip().lower() in {"true", "yes", "on", "1"}


def moment_of(value: object) -> str:
    """Return a time with its offset as ISO 8601; a local time could be anybody's."""
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise PlatformRejected("publishAt is no time with an offset", field="options.publishAt")
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def is_short(file: MediaFile, rules: Longest | None) -> bool:
    """Say whether YouTube makes a Short of it; without a known duration nobody can tell."""
    if rules is None or file.duration is None:
        return False
    return file.height >= file.width and file.duration <= rules.lasts.total_seconds()


def limits_of(channel: Mapping[str, Any], unverified: Longest | None) -> dict[str, Any]:
    """Say in our policies' words how long a video of this channel may be; {} where that is usual.

    A channel that is `eligible` has not been verified yet.
    """
    word = (channel.get("status") or {}).get("longUploadsStatus")
    if unverified is None or word not in ("eligible", "disallowed"):
        return {}
    return {"video": {"lasts": {"max": unverified.lasts.total_seconds()}}}


def session_of(location: str, base: str) -> str:
    """Return the session in the house that we speak to; our token and bytes go to no other.

    A stand-in may repeat Google's own answer word for word: then the session is the stand-in's.
    """
    session = urljoin(f"{base}/upload/youtube/v3/videos", location)
    houses = (base, *GOOGLE) if same_house(base, *GOOGLE) else (base,)
    if location and same_house(session, *houses):
        return session
    if location and same_house(session, *GOOGLE):
        parts = urlsplit(session)
        return f"{base}{parts.path}?{parts.query}"
    raise UnexpectedResponse(
        "POST videos answered without a session of its own house", status=httpx.codes.OK
    )


def is_last(state: Mapping[str, Any]) -> bool:
    """Say whether one piece is left, which makes the video."""
    return int(state["size"]) - int(state["offset"]) <= PIECE


def _prepared(state: dict[str, Any]) -> Prepared:
    ready = is_last(state)
    return Prepared(state, ready=ready, again_in=0.0 if ready else 0.1)


def stage_of(video: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return how far a video is, and why it went no further.

    A processing that is `terminated` is one of which YouTube tells nothing any more.
    """
    status, details = video.get("status") or {}, video.get("processingDetails") or {}
    word = str(status.get("uploadStatus") or "")
    if word != "uploaded":
        return word, status.get("failureReason") or status.get("rejectionReason")
    match details.get("processingStatus"):
        case "failed":
            return "failed", details.get("processingFailureReason")
        case "succeeded":
            return "processed", None
        case _:
            return word, None


def hidden(status: Mapping[str, Any], ticket: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to keep of a video that YouTube shows to fewer people than was asked.

    Projects that have not passed Google's audit get it without an error.
    """
    shown, asked = status.get("privacyStatus"), ticket.get("privacy")
    return {"privacyStatus": shown} if shown and asked and shown != asked else {}


def lacks_upload(scope: object) -> bool:
    """Say whether Google names the granted scopes and none of them uploads."""
    granted = {one.rpartition("/")[2] for one in str(scope or "").split()}
    return bool(granted) and not granted & _UPLOADING


def is_sought(item: Mapping[str, Any], sought: Sought) -> bool:
    """Say whether an upload has the title, the text (where it is told) and the time."""
    snippet = item.get("snippet") or {}
    told = str(snippet.get("description", sought.text))
    return (
        video_id_of(item) is not None
        and _squeezed(snippet.get("title")) == _squeezed(sought.prepared.state["title"])
        and _squeezed(told) == _squeezed(sought.text)
        and _within(snippet.get("publishedAt"), sought)
    )


def video_id_of(item: Mapping[str, Any]) -> str | None:
    """Return the video of a row of a playlist."""
    resource = (item.get("snippet") or {}).get("resourceId") or {}
    return (item.get("contentDetails") or {}).get("videoId") or resource.get("videoId")


def _squeezed(text: object) -> str:
    return " ".join(str(text).split())


def arrived(response: httpx.Response) -> int:
    """Return how many bytes a 308 says have arrived."""
    held = response.headers.get("range", "")
    tail = held.rpartition("-")[2]
    return int(tail) + 1 if tail.isdigit() else 0


def problem_of(response: httpx.Response) -> Problem:
    """Read a Google error: the first reason is its name, the domain the finer one."""
    try:
        error = response.json().get("error")
    except (ValueError, AttributeError, RecursionError):
        error = None
    if not isinstance(error, dict):
        return plain_problem(response)
    first = _first(error.get("errors")) or _first(error.get("details"))
    code = first.get("reason") or error.get("status")
    return Problem(
        status=response.status_code,
        code=str(code) if code else None,
        subcode=str(first["domain"]) if first.get("domain") else None,
        message=str(error.get("message") or ""),
        headers=_until_midnight(response.headers) if code in _DAILY else response.headers,
    )


def _first(rows: object) -> Mapping[str, Any]:
    """Return the first of Google's reasons, in a list that may hold anything."""
    rows = rows if isinstance(rows, list) else []
    return next((one for one in rows if isinstance(one, dict) and one.get("reason")), {})


def _until_midnight(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Say when a daily quota is full again: at midnight Pacific Time, which no header tells."""
    return {"retry-after": str(seconds_to_midnight(datetime.now(UTC))), **headers}


def seconds_to_midnight(now: datetime) -> int:
    """Return the seconds from `now` to the next midnight in California, and one more."""
    there = now.astimezone(ZoneInfo("America/Los_Angeles"))
    tomorrow = (there + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((tomorrow.astimezone(UTC) - now).total_seconds()) + 1


def _within(moment: object, sought: Sought) -> bool:
    try:
        made = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    except ValueError:
        return False
    return sought.sent_at - _SLACK <= made <= sought.until + _SLACK
