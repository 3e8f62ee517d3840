"""Speaks for one Bluesky account: AT Protocol records with keys that we choose ourselves.

Facts: the lexicons and the reference server of bluesky-social/atproto, and what a running
server answered (policies/platforms/bluesky.yaml names the pages).
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeGuard
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
    Presence,
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import (
    NotFound,
    PlatformError,
    PlatformRejected,
    RateLimited,
    Reauthorize,
    TokenExpired,
    UnexpectedResponse,
)
from clickpost.wording import Entity, Link, Mention, Tag, entities
from connectors._api import (
    Answer,
    Api,
    Problem,
    http_status_of,
    json_of,
    plain_problem,
    text_at,
)
from connectors._files import stream

POST = "app.bsky.feed.post"
_SORTED = "234567abcdefghijklmnopqrstuvwxyz"
#: Steps of the video service that mean: not done yet, or done.
_DONE, _FAILED = "JOB_STATE_COMPLETED", "JOB_STATE_FAILED"
_NO_SUCH_METHOD = frozenset({404, 405, 501})
#: A service token lives as long as in the documents' example; servers allow an hour.
_GRANTED_FOR = 30 * 60
#: What the AT Protocol calls a handle; a server answers 500 to some that are none.
_HANDLE = re.compile(r"(?:[a-z\d](?:[a-z\d-]{0,61}[a-z\d])?\.)+[a-z](?:[a-z\d-]{0,61}[a-z\d])?")


@dataclass(frozen=True)
class Connector:
    """Speaks for one account; the DID in `account.remote_id` is the repository."""

    api: Api
    account: Account

    async def sign_in(self) -> Tokens:
        """Open a session with the app password; a DID that we know outlives the handle."""
        answer = await self._call(
            "POST",
            "com.atproto.server.createSession",
            step="sign_in",
            token=None,
            base=self.account.api_base.rstrip("/"),
            json={
                "identifier": self.account.remote_id or self._secret("identifier"),
                "password": self._secret("app_password"),
            },
        )
        return self._ours(answer)

    async def refresh(self) -> Tokens:
        """Renew the session; where it is dead, open a new one with the app password."""
        try:
            answer = await self._call(
                "POST",
                "com.atproto.server.refreshSession",
                step="refresh",
                token=self._secret("refresh_jwt"),
            )
        except Reauthorize:
            if "app_password" not in self.account.secrets:
                raise
            return await self.sign_in()
        return self._ours(answer)

    def _ours(self, answer: Mapping[str, Any]) -> Tokens:
        """Return the session's tokens; refuse those of somebody else or of a closed account."""
        whose = text_at(answer, "did", call="session")
        if self.account.remote_id and whose != self.account.remote_id:
            raise Reauthorize("the session is another account's; connect it again")
        return tokens_of(open_(answer))

    async def revoke(self) -> None:
        """End the session; one that has ended already is fine."""
        with suppress(TokenExpired):
            await self._call(
                "POST",
                "com.atproto.server.deleteSession",
                step="revoke",
                token=self._secret("refresh_jwt"),
            )

    async def whoami(self) -> Identity:
        """Return DID and handle; a handle that no longer points back is none."""
        answer = open_(await self._call("GET", "com.atproto.server.getSession", step="whoami"))
        did, handle = text_at(answer, "did", call="getSession"), answer.get("handle")
        known = isinstance(handle, str) and handle not in ("", "handle.invalid")
        name = str(handle) if known else did
        return Identity(remote_id=did, handle=name, url=f"{self._web()}/profile/{did}")

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Upload media and write the whole record, key and time frozen; nobody sees it yet."""
        if so_far is not None and "record" in so_far.state:
            return Prepared(so_far.state)
        state: dict[str, Any] = dict(so_far.state) if so_far else {"rkey": tid(), "blobs": []}
        for number in range(len(state["blobs"]), len(message.media)):
            file = message.media[number]
            blob = await self._uploaded(file, state)
            if blob is None:
                return Prepared(state, ready=False, again_in=self._poll())
            state["blobs"] = [*state["blobs"], blob]
        people = await self._people(message.text)
        state["record"] = record_of(message, state["blobs"], people)
        return Prepared(state)

    async def publish(
        self, prepared: Prepared, key: str, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Write the record under its key; the server refuses to replace another one."""
        state = prepared.state
        body = {
            "repo": self._did(),
            "collection": POST,
            "rkey": state["rkey"],
            "record": replied(state["record"], after),
            "swapRecord": None,
        }
        answer = await self._call(
            "POST", "com.atproto.repo.putRecord", step="publish", repeatable=False, json=body
        )
        return self._receipt(answer, state["rkey"], repeatable=False)

    async def find(self, sought: Sought) -> Receipt | Absence:
        """Look at our own key on the account's server, whose word is proof either way.

        A 404 of whatever stands in between, or a server without the account, proves nothing.
        """
        rkey = sought.prepared.state.get("rkey")
        if not rkey:
            return Absence.NOT_THERE
        try:
            answer = await self._record(rkey)
        except (NotFound, PlatformRejected) as error:
            absent = error.code == "RecordNotFound"
            return Absence.NOT_THERE if absent else Absence.CANNOT_TELL
        return self._receipt(answer, rkey)

    async def _record(self, rkey: str) -> dict[str, Any]:
        """Read the record under `rkey`: anybody may, so a dead session does not end the look."""
        name = "com.atproto.repo.getRecord"
        query = {"repo": self._did(), "collection": POST, "rkey": rkey}
        try:
            return await self._call("GET", name, step="find", params=query)
        except (TokenExpired, Reauthorize):
            return await self._call("GET", name, step="find", token=None, params=query)

    async def check(self, receipt: Receipt) -> Presence | Absence:
        """Read the record on the account's server, whose word is proof either way."""
        try:
            answer = await self._record(rkey_of(receipt))
        except (NotFound, PlatformRejected) as error:
            absent = error.code == "RecordNotFound"
            return Absence.NOT_THERE if absent else Absence.CANNOT_TELL
        record = answer.get("value")
        if not isinstance(record, Mapping):
            return Absence.CANNOT_TELL
        return Presence.of(str(record.get("text") or ""))

    async def delete(self, receipt: Receipt) -> None:
        """Delete the record; one that is gone already is fine."""
        body = {"repo": self._did(), "collection": POST, "rkey": rkey_of(receipt)}
        try:
            await self._call("POST", "com.atproto.repo.deleteRecord", step="delete", json=body)
        except NotFound as error:
            if error.code != "RecordNotFound":
                raise

    async def _uploaded(self, file: MediaFile, state: dict[str, Any]) -> dict[str, Any] | None:
        """Return the blob of `file`, None while a video is still being processed."""
        if file.kind is Kind.VIDEO and not state.get("plain"):
            try:
                return await self._video(file, state)
            except _NoVideoService:
                state["plain"] = True
        answer = await self._call(
            "POST",
            "com.atproto.repo.uploadBlob",
            step="prepare",
            content=stream(file.path),
            headers={"Content-Type": file.mime, "Content-Length": str(file.bytes)},
        )
        return blob_of(answer, "uploadBlob")

    async def _video(self, file: MediaFile, state: dict[str, Any]) -> dict[str, Any] | None:
        """Upload to the video service, or ask how far it has come with the job."""
        if "job" in state:
            return await self._job(state["job"])
        token = await self._granted()
        answer = await self._of_video_service(
            "POST",
            "app.bsky.video.uploadVideo",
            accept=frozenset({409}),  # The same bytes again: it names the job that has them.
            params={"did": self._did(), "name": f"{state['rkey']}.mp4"},
            content=stream(file.path),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": file.mime,
                "Content-Length": str(file.bytes),
            },
        )
        job = status_of(answer)
        state["job"] = text_at(job, "jobId", call="uploadVideo")
        return blob_of(job, "uploadVideo") if job.get("blob") else None

    async def _granted(self) -> str:
        """Return a token with which the video service may put a blob on the account's server."""
        answer = await self._call(
            "GET",
            "com.atproto.server.getServiceAuth",
            step="prepare",
            params={
                "aud": self._audience(),
                "lxm": "com.atproto.repo.uploadBlob",
                "exp": int(time.time()) + _GRANTED_FOR,
            },
        )
        return text_at(answer, "token", call="getServiceAuth")

    async def _job(self, job_id: str) -> dict[str, Any] | None:
        """Return the blob of a finished job, None while it runs; raise where it failed."""
        answer = await self._of_video_service(
            "GET", "app.bsky.video.getJobStatus", params={"jobId": job_id}
        )
        job = status_of(answer)
        if job.get("state") == _FAILED:
            raise self.api.error_of("video job", failure_of(job), step="video", repeatable=True)
        return blob_of(job, "getJobStatus") if job.get("state") == _DONE else None

    async def _of_video_service(self, method: str, name: str, **request: Any) -> dict[str, Any]:
        """Call the video service; raise _NoVideoService where this server has none."""
        url = f"{self._video_base()}/xrpc/{name}"
        try:
            response = await self.api.send(
                method, url, step="video", repeatable=True, read=problem_of, **request
            )
        except PlatformError as error:
            if method == "POST" and self._lacks_videos(error):
                raise _NoVideoService from None
            raise
        return json_of(response, repeatable=True)

    def _lacks_videos(self, error: PlatformError) -> bool:
        """Say whether an upload failed because nobody there knows what a video is.

        Where we only guess that the account's own server takes videos, its refusal of a service
        token and its failure to pass the call on say so too.
        """
        if error.code == "MethodNotImplemented" or error.status in _NO_SUCH_METHOD:
            return True
        if self._video_base() != self._pds() or isinstance(error, RateLimited):
            return False
        return not isinstance(error, PlatformRejected)

    async def _people(self, text: str) -> dict[str, str]:
        """Return the DIDs of the handles that `text` mentions; who is not found stays text."""
        named = (one.name.lower() for one in entities(text) if mentions(one))
        found: dict[str, str] = {}
        for handle in dict.fromkeys(named):
            with suppress(NotFound, PlatformRejected, UnexpectedResponse):
                found[handle] = await self._resolved(handle)
        return found

    async def _resolved(self, handle: str) -> str:
        answer = await self._call(
            "GET", "com.atproto.identity.resolveHandle", step="resolve", params={"handle": handle}
        )
        return text_at(answer, "did", call="resolveHandle")

    async def _call(
        self,
        method: str,
        name: str,
        *,
        step: str,
        repeatable: bool = True,
        token: str | None = "",
        base: str | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        """Call one XRPC method of the account's server and return its JSON."""
        headers = {**request.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self._secret('access_jwt')}"
        response = await self.api.send(
            method,
            f"{base or self._pds()}/xrpc/{name}",
            step=step,
            repeatable=repeatable,
            read=problem_of,
            headers=headers,
            **request,
        )
        if not response.content and repeatable:
            return {}
        return json_of(response, repeatable=repeatable)

    def _receipt(self, answer: Mapping[str, Any], rkey: str, *, repeatable: bool = True) -> Receipt:
        uri = text_at(answer, "uri", call="record", repeatable=repeatable)
        who = self.account.handle or self._did()
        cid = text_at(answer, "cid", call="record", repeatable=repeatable)
        extra = {"uri": uri, "cid": cid}
        url = f"{self._web()}/profile/{who}/post/{rkey}"
        return Receipt(remote_id=uri, url=url, extra=extra)

    def _web(self) -> str:
        return self.account.options.get("permalink_base", "https://bsky.app").rstrip("/")

    def _secret(self, name: str) -> str:
        if value := self.account.secrets.get(name):
            return value
        raise Reauthorize(f"the connection has no {name}; connect it again")

    def _did(self) -> str:
        if self.account.remote_id:
            return self.account.remote_id
        raise Reauthorize("the connection has no DID; connect it again")

    def _pds(self) -> str:
        """Return the account's own server: where its DID document says, for the entryway only.

        An address that an operator gave stays: a server may know itself by a name that is not
        reached from here.
        """
        pds, given = self.account.secrets.get("pds", ""), urlsplit(self.account.api_base)
        entryway = urlsplit(str(self.api.policy.api.base)).hostname
        follow = pds.startswith("https://") and given.hostname == entryway
        return (pds if follow else self.account.api_base).rstrip("/")

    def _audience(self) -> str:
        """Return the DID of the account's server, by its DID document or its own tokens."""
        named = urlsplit(self.account.secrets.get("pds", "")).hostname
        said = claims_of(self.account.secrets.get("access_jwt", "")).get("aud")
        if named is None and isinstance(said, str) and said.startswith("did:"):
            return said
        return f"did:web:{named or urlsplit(self._pds()).hostname}"

    def _video_base(self) -> str:
        if given := self.account.options.get("video_base"):
            return given.rstrip("/")
        public = self.api.policy.api.endpoints.get("video")
        return self._pds() if public is None or local(self._pds()) else str(public).rstrip("/")

    def _poll(self) -> float:
        return self.api.policy.processing.poll.total_seconds()


class _NoVideoService(Exception):
    """This server has no video service; a blob of the server itself will do."""


def mentions(one: Entity) -> TypeGuard[Mention]:
    """Say whether `one` names somebody by what the AT Protocol calls a handle."""
    return (
        isinstance(one, Mention)
        and one.host is None
        and _HANDLE.fullmatch(one.name.lower()) is not None
    )


def local(url: str) -> bool:
    """Say whether `url` is on this machine, in a private network, or without a certificate."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def problem_of(response: httpx.Response) -> Problem:
    """Read an XRPC error; two servers' sentences say more than their code.

    Old servers call an absent record InvalidRequest. Without the record's address the same words
    mean that the account is not on this server, which says nothing about the record.
    """
    problem = plain_problem(response)
    if problem.status == 400 and problem.message.startswith("Could not locate record: at://"):
        return replace(problem, code="RecordNotFound")
    if problem.status == 400 and problem.message.startswith("No service configured for"):
        return replace(problem, code="MethodNotImplemented")
    return problem


def failure_of(job: Mapping[str, Any]) -> Problem:
    """Read why a video job failed; a code that is a sentence is a message."""
    code = str(job.get("failureCode") or job.get("error") or "")
    plain = re.fullmatch(r"\w{1,60}", code)
    message = str(job.get("message") or job.get("error") or "")
    return Problem(status=200, code=code if plain else "generic_failure", message=message)


def open_(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `answer` about an account that may write; a session opens for closed ones too."""
    if answer.get("active") is False:
        raise Reauthorize("the account is closed at the platform (deactivated or taken down)")
    return answer


def tokens_of(answer: Mapping[str, Any]) -> Tokens:
    """Return the session's tokens; the access token itself says when it ends."""
    secrets_ = {
        "access_jwt": text_at(answer, "accessJwt", call="session"),
        "refresh_jwt": text_at(answer, "refreshJwt", call="session"),
    }
    if pds := pds_of(answer.get("didDoc")):
        secrets_["pds"] = pds
    ends = claims_of(secrets_["access_jwt"]).get("exp")
    if not isinstance(ends, int) or not 0 < ends < 2**32:
        return Tokens(secrets_)
    return Tokens(secrets_, expires_at=datetime.fromtimestamp(ends, UTC))


def claims_of(token: str) -> Mapping[str, Any]:
    """Return what a JWT says, unverified (it is the server's own); nothing where it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        said = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def pds_of(document: Any) -> str | None:
    """Return the address of the account's server from its DID document."""
    services = document.get("service") if isinstance(document, Mapping) else None
    for service in services if isinstance(services, list) else []:
        if isinstance(service, Mapping) and str(service.get("id", "")).endswith("#atproto_pds"):
            endpoint = str(service.get("serviceEndpoint", ""))
            return endpoint if endpoint.startswith(("https://", "http://")) else None
    return None


def status_of(answer: Mapping[str, Any]) -> Answer:
    """Return the job status, wrapped (as the lexicon says) or bare (as the service answers)."""
    wrapped = answer.get("jobStatus")
    job = wrapped if isinstance(wrapped, Mapping) else answer
    return Answer(job, http_status_of(answer))


def blob_of(answer: Mapping[str, Any], call: str) -> dict[str, Any]:
    """Return the blob reference of an upload."""
    blob = answer.get("blob")
    if isinstance(blob, Mapping):
        return dict(blob)
    raise UnexpectedResponse(f"{call} answered without blob", status=http_status_of(answer))


def tid(now_us: int | None = None) -> str:
    """Return a record key: 53 bits of microseconds and 10 of chance, sorted as text."""
    number = ((now_us or time.time_ns() // 1000) << 10) | secrets.randbits(10)
    return "".join(_SORTED[number >> shift & 31] for shift in range(60, -1, -5))


def rkey_of(receipt: Receipt) -> str:
    """Return the record key at the end of an at:// address."""
    return receipt.remote_id.rsplit("/", 1)[-1]


def record_of(
    message: Message, blobs: list[dict[str, Any]], people: Mapping[str, str]
) -> dict[str, Any]:
    """Say `message` as a post record."""
    written = message.written_at or datetime.now(UTC)
    moment = written.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record: dict[str, Any] = {"$type": POST, "text": message.text, "createdAt": moment}
    if facets := facets_of(message.text, people):
        record["facets"] = facets
    if message.language:
        record["langs"] = [message.language]
    if message.tags:
        record["tags"] = list(message.tags)
    if blobs:
        record["embed"] = embed_of(message.media, blobs)
    if message.sensitive:
        values = [{"val": str(message.options.get("label", "graphic-media"))}]
        record["labels"] = {"$type": "com.atproto.label.defs#selfLabels", "values": values}
    return record


def facets_of(text: str, people: Mapping[str, str]) -> list[dict[str, Any]]:
    """Say links, mentions and tags as facets, with offsets in UTF-8 bytes."""
    facets = []
    for one in entities(text):
        kind = "app.bsky.richtext.facet#"
        feature: dict[str, str] | None = None
        match one:
            case Link():
                feature = {"$type": f"{kind}link", "uri": one.url}
            case Tag():
                feature = {"$type": f"{kind}tag", "tag": one.tag}
            case Mention() if one.host is None and one.name.lower() in people:
                feature = {"$type": f"{kind}mention", "did": people[one.name.lower()]}
        if feature is not None:
            index = {"byteStart": one.byte_start, "byteEnd": one.byte_end}
            facets.append({"index": index, "features": [feature]})
    return facets


def embed_of(media: tuple[MediaFile, ...], blobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Say the media as one embed: images, or a video."""
    if media[0].kind is Kind.VIDEO:
        embed: dict[str, Any] = {"$type": "app.bsky.embed.video", "video": blobs[0]}
        if media[0].alt:
            embed["alt"] = media[0].alt
        return embed | {"aspectRatio": ratio_of(media[0])}
    images = [
        {"image": blob, "alt": file.alt, "aspectRatio": ratio_of(file)}
        for file, blob in zip(media, blobs, strict=True)
    ]
    return {"$type": "app.bsky.embed.images", "images": images}


def ratio_of(file: MediaFile) -> dict[str, int]:
    """Say the shape of a picture, so that clients do not crop it."""
    return {"width": file.width, "height": file.height}


def replied(record: dict[str, Any], after: tuple[Receipt, ...]) -> dict[str, Any]:
    """Return `record` as an answer to the last of `after`, in the thread of the first."""
    if not after:
        return record
    root, parent = ({"uri": r.remote_id, "cid": r.extra["cid"]} for r in (after[0], after[-1]))
    return {**record, "reply": {"root": root, "parent": parent}}
