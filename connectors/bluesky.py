"""Speaks for one Bluesky account: AT Protocol records with keys that we choose ourselves.

Facts: the lexicons and the reference server of bluesky-social/atproto, and what a running
server answered (policies/platforms/bluesky.yaml names the pages).
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
    Receipt,
    Sought,
    Tokens,
)
from clickpost.errors import (
    NotFound,
    PlatformRejected,
    Reauthorize,
    Transient,
    UnexpectedResponse,
)
from clickpost.wording import Link, Mention, Tag, entities
from connectors._api import Api, Problem, json_of, plain_problem, text_at
from connectors._files import stream

POST = "app.bsky.feed.post"
_SORTED = "234567abcdefghijklmnopqrstuvwxyz"
#: Steps of the video service that mean: not done yet, or done.
_DONE, _FAILED = "JOB_STATE_COMPLETED", "JOB_STATE_FAILED"
_NO_SUCH_METHOD = frozenset({404, 405, 501})


@dataclass(frozen=True)
class Connector:
    """Speaks for one account; the DID in `account.remote_id` is the repository."""

    api: Api
    account: Account

    async def sign_in(self) -> Tokens:
        """Open a session with the app password; at most 30 times in 5 minutes."""
        answer = await self._call(
            "POST",
            "com.atproto.server.createSession",
            step="sign_in",
            token=None,
            json={
                "identifier": self._secret("identifier"),
                "password": self._secret("app_password"),
            },
        )
        return tokens_of(answer)

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
        return tokens_of(answer)

    async def revoke(self) -> None:
        """End the session."""
        await self._call(
            "POST",
            "com.atproto.server.deleteSession",
            step="revoke",
            token=self._secret("refresh_jwt"),
        )

    async def whoami(self) -> Identity:
        """Return DID and handle."""
        answer = await self._call("GET", "com.atproto.server.getSession", step="whoami")
        return Identity(
            remote_id=text_at(answer, "did", call="getSession"),
            handle=str(answer.get("handle") or answer["did"]),
        )

    async def prepare(self, message: Message, key: str, so_far: Prepared | None = None) -> Prepared:
        """Upload media and write the whole record, key and time frozen; nobody sees it yet."""
        state: dict[str, Any] = dict(so_far.state) if so_far else {"rkey": tid(), "blobs": []}
        for number in range(len(state["blobs"]), len(message.media)):
            file = message.media[number]
            blob = await self._uploaded(file, state)
            if blob is None:
                return Prepared(state, ready=False, again_in=1.0)
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
        """Look at our own key on the account's server, which is proof either way."""
        rkey = sought.prepared.state.get("rkey")
        if not rkey:
            return Absence.NOT_THERE
        query = {"repo": self._did(), "collection": POST, "rkey": rkey}
        try:
            answer = await self._call(
                "GET", "com.atproto.repo.getRecord", step="find", params=query
            )
        except NotFound:
            return Absence.NOT_THERE
        return self._receipt(answer, rkey)

    async def delete(self, receipt: Receipt) -> None:
        """Delete the record; one that is gone already is fine."""
        body = {"repo": self._did(), "collection": POST, "rkey": rkey_of(receipt)}
        await self._call("POST", "com.atproto.repo.deleteRecord", step="delete", json=body)

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
            return await self._job(state)
        granted = await self._call(
            "GET",
            "com.atproto.server.getServiceAuth",
            step="prepare",
            params={
                "aud": f"did:web:{urlsplit(self._pds()).hostname}",
                "lxm": "com.atproto.repo.uploadBlob",
                "exp": int(time.time()) + 1800,
            },
        )
        token = text_at(granted, "token", call="getServiceAuth")
        answer = await self._of_video_service(
            "POST",
            "app.bsky.video.uploadVideo",
            token,
            params={"did": self._did(), "name": f"{state['rkey']}.mp4"},
            content=stream(file.path),
            headers={"Content-Type": "video/mp4", "Content-Length": str(file.bytes)},
        )
        job = status_of(answer)
        state["job"] = text_at(job, "jobId", call="uploadVideo")
        return blob_of(job, "uploadVideo") if job.get("blob") else None

    async def _job(self, state: dict[str, Any]) -> dict[str, Any] | None:
        answer = await self._of_video_service(
            "GET", "app.bsky.video.getJobStatus", None, params={"jobId": state["job"]}
        )
        job = status_of(answer)
        if job.get("state") == _FAILED:
            state.pop("job")
            said = str(job.get("failureCode") or job.get("error") or "generic_failure")
            problem = Problem(status=200, code=said, message=str(job.get("message") or ""))
            raise self.api.error_of("video job", problem, step="prepare", repeatable=True)
        return blob_of(job, "getJobStatus") if job.get("state") == _DONE else None

    async def _of_video_service(
        self, method: str, name: str, token: str | None, **request: Any
    ) -> dict[str, Any]:
        """Call the video service; raise _NoVideoService where this server has none."""
        headers = {**request.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            response = await self.api.send(
                method,
                f"{self._video_base()}/xrpc/{name}",
                step="prepare",
                repeatable=True,
                accept=frozenset({409}) | _NO_SUCH_METHOD,
                headers=headers,
                **request,
            )
        except Transient as error:
            if error.status is None and self._video_base() == self._pds():
                raise _NoVideoService from error
            raise
        if response.status_code in _NO_SUCH_METHOD:
            raise _NoVideoService
        return json_of(response, repeatable=True)

    async def _people(self, text: str) -> dict[str, str]:
        """Return the DIDs of the handles that `text` mentions; who is not found stays text."""
        found: dict[str, str] = {}
        for one in entities(text):
            if not isinstance(one, Mention) or one.host or "." not in one.name:
                continue
            if (handle := one.name.lower()) in found:
                continue
            try:
                answer = await self._call(
                    "GET",
                    "com.atproto.identity.resolveHandle",
                    step="resolve",
                    params={"handle": handle},
                )
                found[handle] = text_at(answer, "did", call="resolveHandle")
            except (NotFound, PlatformRejected, UnexpectedResponse):
                continue
        return found

    async def _call(
        self,
        method: str,
        name: str,
        *,
        step: str,
        repeatable: bool = True,
        token: str | None = "",
        **request: Any,
    ) -> dict[str, Any]:
        """Call one XRPC method of the account's server and return its JSON."""
        headers = {**request.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self._secret('access_jwt')}"
        response = await self.api.send(
            method,
            f"{self._pds()}/xrpc/{name}",
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
        base = self.account.options.get("permalink_base", "https://bsky.app").rstrip("/")
        who = self.account.handle or self._did()
        extra = {"uri": uri, "cid": str(answer.get("cid") or "")}
        return Receipt(remote_id=uri, url=f"{base}/profile/{who}/post/{rkey}", extra=extra)

    def _secret(self, name: str) -> str:
        if value := self.account.secrets.get(name):
            return value
        raise Reauthorize(f"the connection has no {name}; connect it again")

    def _did(self) -> str:
        if self.account.remote_id:
            return self.account.remote_id
        raise Reauthorize("the connection has no DID; connect it again")

    def _pds(self) -> str:
        """Return the account's own server: where its DID document says, for the entryway only."""
        pds = self.account.secrets.get("pds")
        entryway = urlsplit(self.account.api_base).hostname == "bsky.social"
        return (pds if pds and entryway else self.account.api_base).rstrip("/")

    def _video_base(self) -> str:
        if given := self.account.options.get("video_base"):
            return given.rstrip("/")
        public = self.api.policy.api.endpoints.get("video")
        return self._pds() if public is None or local(self._pds()) else str(public).rstrip("/")


class _NoVideoService(Exception):
    """This server has no video service; a blob of the server itself will do."""


def local(url: str) -> bool:
    """Say whether `url` is on this machine or in a private network."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def problem_of(response: httpx.Response) -> Problem:
    """Read an XRPC error; an absent record is a 400 whose words say so."""
    problem = plain_problem(response)
    if problem.status == 400 and problem.message.startswith("Could not locate record"):
        return replace(problem, code="RecordNotFound")
    return problem


def tokens_of(answer: Mapping[str, Any]) -> Tokens:
    """Return the session's tokens; its end is read from the access token where it can be."""
    secrets_ = {
        "access_jwt": text_at(answer, "accessJwt", call="session"),
        "refresh_jwt": text_at(answer, "refreshJwt", call="session"),
    }
    if pds := pds_of(answer.get("didDoc")):
        secrets_["pds"] = pds
    return Tokens(secrets_, expires_at=datetime.fromtimestamp(time.time() + 90 * 60, UTC))


def pds_of(document: Any) -> str | None:
    """Return the https address of the account's server from its DID document."""
    services = document.get("service") if isinstance(document, Mapping) else None
    for service in services if isinstance(services, list) else []:
        if str(service.get("id", "")).endswith("#atproto_pds"):
            endpoint = str(service.get("serviceEndpoint", ""))
            return endpoint if endpoint.startswith("https://") else None
    return None


def status_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job status, wrapped (as the lexicon says) or bare (as the service answers)."""
    wrapped = answer.get("jobStatus")
    return dict(wrapped if isinstance(wrapped, Mapping) else answer)


def blob_of(answer: Mapping[str, Any], call: str) -> dict[str, Any]:
    """Return the blob reference of an upload."""
    blob = answer.get("blob")
    if isinstance(blob, Mapping):
        return dict(blob)
    raise UnexpectedResponse(f"{call} answered without blob")


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
    root, parent = ({"uri": r.extra["uri"], "cid": r.extra["cid"]} for r in (after[0], after[-1]))
    return {**record, "reply": {"root": root, "parent": parent}}
