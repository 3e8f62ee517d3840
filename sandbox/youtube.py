"""The YouTube Data API v3 with Google's resumable upload protocol and token endpoint."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.consent import Client, Consent, Wrong
from sandbox.inspect import inspect
from sandbox.marks import marked
from sandbox.misbehaviour import Orders
from sandbox.stand_ins import StandIn
from sandbox.state import State, iso

PIECE = 262_144
SCOPES = ("youtube.upload", "youtube.readonly", "youtube")
AUTH = "https://www.googleapis.com/auth/"
SAYS = {
    "youtube.upload": "Manage your YouTube videos",
    "youtube.readonly": "View your YouTube account",
    "youtube": "Manage your YouTube account",
}


def step_of(method: str, path: str) -> str:
    """Name a call for the control endpoint."""
    tails = {
        "/oauth2/v2/auth": "authorize",
        "/token": "token",
        "/revoke": "revoke",
        "/channels": "channels",
    }
    tails |= {"/playlistItems": "playlist_items"}
    for tail, step in tails.items():
        if path.endswith(tail):
            return step
    if "/upload/" in path:
        return "init" if method == "POST" else "bytes"
    if path.endswith("/videos"):
        return "delete" if method == "DELETE" else "videos_list"
    return "other"


class Refused(Exception):
    """A Google error."""

    def __init__(
        self, status: int, reason: str, message: str, domain: str = "youtube.video"
    ) -> None:
        super().__init__(reason)
        first = {"domain": domain, "reason": reason, "message": message}
        body = {"error": {"code": status, "message": message, "errors": [first]}}
        self.response = JSONResponse(body, status)


class YouTube:
    """The API's routes."""

    def __init__(self, state: State, orders: Orders, base: str) -> None:
        self.state, self.orders, self.base = state, orders, base
        self.consent = Consent(
            state,
            "youtube",
            "Google",
            {AUTH + name: says for name, says in SAYS.items()},
            clients=(Client("sandbox-client", "sandbox-secret"),),
            partial=True,
        )

    def routes(self) -> list[Route]:
        """Return the routes of the API."""
        guarded = self.guarded
        upload = "/upload/youtube/v3/videos"
        return [
            *self.consent.routes("/o/oauth2/v2/auth"),
            Route("/token", self.token, methods=["POST"]),
            Route("/revoke", self.revoke, methods=["POST"]),
            Route("/youtube/v3/channels", guarded(self.channels)),
            Route("/youtube/v3/videos", guarded(self.videos)),
            Route("/youtube/v3/videos", guarded(self.delete), methods=["DELETE"]),
            Route("/youtube/v3/playlistItems", guarded(self.items)),
            Route(upload, guarded(self.init), methods=["POST"]),
            Route(upload, guarded(self.bytes), methods=["PUT"]),
            Route("/watch", self.watch),
            Route("/shorts/{id}", self.shorts),
        ]

    def guarded(self, handler: Any) -> Any:
        """Answer refusals in the platform's shape."""

        async def run(request: Request) -> Response:
            try:
                answer = await handler(request)
            except Refused as refused:
                return refused.response
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return run

    async def watch(self, request: Request) -> Response:
        """Lead from a permalink to the timeline."""
        return RedirectResponse(f"/p/youtube/{request.query_params.get('v')}")

    async def shorts(self, request: Request) -> Response:
        """Lead from a short's permalink to the timeline."""
        return RedirectResponse(f"/p/youtube/{request.path_params['id']}")

    def parts(self, request: Request, *known: str) -> set[str]:
        """Return the parts that a query asks for; it has to ask for some, and for known ones."""
        asked = set(filter(None, request.query_params.get("part", "").split(",")))
        if not asked:
            raise Refused(
                400, "missingRequiredParameter", "No filter selected.", "youtube.parameter"
            )
        if unknown := asked - set(known):
            raise Refused(400, "unknownPart", ", ".join(sorted(unknown)), "youtube.part")
        return asked

    def account(self, request: Request) -> dict[str, Any]:
        """Return whose token it is."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = self.state.by_credential("youtube", "access_token", token)
        if scheme != "Bearer" or found is None or found["expired"] or found["revoked"]:
            raise Refused(401, "authError", "Invalid Credentials", "global")
        return found

    async def token(self, request: Request) -> Response:
        said = await request.form()
        if said.get("grant_type") == "authorization_code":
            return self.granted(said)
        found = self.state.by_credential("youtube", "refresh_token", str(said.get("refresh_token")))
        if said.get("grant_type") != "refresh_token":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        if found is None or found["revoked"]:
            text = "Token has been expired or revoked."
            return JSONResponse({"error": "invalid_grant", "error_description": text}, 400)
        known = found["credentials"]
        if any(said.get(key) != known[key] for key in ("client_id", "client_secret")):
            return JSONResponse({"error": "invalid_client"}, 401)
        found["credentials"]["access_token"] = "ya29." + secrets.token_urlsafe(12)
        found["expired"] = False
        self.state.touch()
        token = found["credentials"]["access_token"]
        scope = found.get("scope") or " ".join(AUTH + one for one in SCOPES)
        answer = {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
        return JSONResponse(answer | {"scope": scope})

    def granted(self, said: Mapping[str, Any]) -> Response:
        """Change a code; a refresh token comes where the owner was asked for lasting access."""
        try:
            granted = self.consent.redeem(said)
        except Wrong as wrong:
            body = {"error": wrong.error, "error_description": wrong.said}
            return JSONResponse(body, wrong.status)
        account = granted.account
        account["credentials"]["access_token"] = "ya29." + secrets.token_urlsafe(12)
        account["scope"] = " ".join(granted.scopes)
        self.state.touch()
        answer = {"access_token": account["credentials"]["access_token"], "expires_in": 3599}
        answer |= {"token_type": "Bearer", "scope": account["scope"]}
        asked = granted.query
        if asked.get("access_type") == "offline" and asked.get("prompt") == "consent":
            answer["refresh_token"] = account["credentials"]["refresh_token"]
        return JSONResponse(answer)

    async def revoke(self, request: Request) -> Response:
        token = str((await request.form()).get("token"))
        for row in self.state.accounts["youtube"].values():
            if token in row["credentials"].values():
                row["revoked"] = True
                self.state.touch()
                return JSONResponse({})
        return JSONResponse({"error": "invalid_token"}, 400)

    async def channels(self, request: Request) -> Any:
        row = self.account(request)
        asked = self.parts(request, "id", "snippet", "contentDetails", "status")
        if request.query_params.get("mine") != "true":
            raise Refused(
                400, "missingRequiredParameter", "No filter selected.", "youtube.parameter"
            )
        told = {
            "snippet": {"title": row["name"], "customUrl": f"@{row['name']}"},
            "contentDetails": {"relatedPlaylists": {"uploads": "UU" + row["id"][2:]}},
            "status": {"longUploadsStatus": "allowed"},
        }
        shown = {name: value for name, value in told.items() if name in asked}
        return {"kind": "youtube#channelListResponse", "items": [{"id": row["id"], **shown}]}

    async def init(self, request: Request) -> Any:
        row = self.account(request)
        query = request.query_params
        if query.get("uploadType") != "resumable" or "snippet" not in query.get("part", ""):
            raise Refused(400, "badRequest", "uploadType and part are required", "global")
        size = request.headers.get("x-upload-content-length", "")
        mime = request.headers.get("x-upload-content-type", "")
        if not size.isdigit() or not mime.startswith(("video/", "application/octet-stream")):
            raise Refused(
                400, "mediaBodyRequired", "The request does not include the video content"
            )
        try:
            said = await request.json()
        except ValueError:
            raise Refused(400, "parseError", "Parse Error", "global") from None
        if not isinstance(said, dict):
            raise Refused(400, "parseError", "Parse Error", "global")
        snippet, status = said.get("snippet") or {}, said.get("status") or {}
        title, text = str(snippet.get("title") or ""), str(snippet.get("description") or "")
        if not title.strip() or len(title) > 100 or re.search("[<>]", title):
            raise Refused(
                400, "invalidTitle", "The request metadata specifies an invalid video title."
            )
        if len(text.encode()) > 5000 or re.search("[<>]", text):
            raise Refused(400, "invalidDescription", "Invalid video description.")
        tags = [str(tag) for tag in snippet.get("tags") or []]
        if sum(len(t) + 2 * (" " in t) for t in tags) + max(len(tags) - 1, 0) > 500:
            raise Refused(400, "invalidTags", "Invalid video keywords.")
        if status.get("privacyStatus") not in ("public", "unlisted", "private"):
            raise Refused(400, "invalidVideoMetadata", "Invalid privacy status.")
        if "publishAt" in status and not may_wait(status):
            raise Refused(400, "invalidPublishAt", "The scheduled publishing time is invalid.")
        if not str(snippet.get("categoryId", "22")).isdigit():
            raise Refused(400, "invalidCategoryId", "Invalid category.")
        session = "sess" + secrets.token_urlsafe(16)
        part = self.state.folder / "media" / f"{session}.part"
        part.write_bytes(b"")
        self.state.things[session] = {
            "account": row["id"], "size": int(size), "path": str(part), "snippet": snippet,
            "status": status, "video": None,
        }  # fmt: skip
        self.state.touch()
        location = f"{self.base}/upload/youtube/v3/videos?uploadType=resumable&upload_id={session}"
        return Response(status_code=200, headers={"Location": location})

    async def bytes(self, request: Request) -> Any:
        self.account(request)
        session = self.state.things.get(request.query_params.get("upload_id", ""))
        if session is None:
            raise Refused(404, "notFound", "Not Found", "global")
        if session["video"]:
            await request.body()
            return self.shown(self.state.posts[f"youtube/{session['video']}"])
        ranged = request.headers.get("content-range", "")

        part = Path(session["path"])
        held = part.stat().st_size
        if asked := re.fullmatch(r"bytes \*/(\d+)", ranged):
            await request.body()
            return self.incomplete(held) if int(asked[1]) == session["size"] else bad_range()
        start, end = 0, session["size"] - 1
        if ranged:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", ranged)
            if found is None or int(found[3]) != session["size"]:
                return bad_range()
            start, end = int(found[1]), int(found[2])
        last = end == session["size"] - 1
        if start != held or (not last and (end + 1 - start) % PIECE):
            await request.body()
            return bad_range()
        with part.open("ab") as file:
            async for chunk in request.stream():
                file.write(chunk)
        if part.stat().st_size < session["size"]:
            return self.incomplete(part.stat().st_size)
        return await self.made(session, part)

    def incomplete(self, held: int) -> Response:
        """Answer how much has arrived."""
        headers = {"Range": f"bytes=0-{held - 1}"} if held else {}
        return Response(status_code=308, headers=headers)

    async def made(self, session: dict[str, Any], part: Any) -> Any:
        """Make the video out of a complete session."""

        async def chunks() -> Any:
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    yield chunk

        path, digest, _ = await self.state.receive(chunks())
        part.unlink()
        facts = await inspect(path)
        video_id = secrets.token_urlsafe(8)[:11]
        failure = None
        if facts["kind"] != "video":
            failure = "invalidFile"
        if self.orders.take("youtube", "bytes", "fail_processing"):
            failure = "conversion"
        row = self.state.accounts["youtube"][session["account"]]
        self.state.add_post(
            "youtube", session["account"], video_id, text=session["snippet"].get("description", ""),
            title=session["snippet"]["title"], tags=session["snippet"].get("tags", []),
            privacy=session["status"]["privacyStatus"], created_at=iso(), failure=failure,
            publish_at=session["status"].get("publishAt"),
            synthetic=bool(session["status"].get("containsSyntheticMedia")),
            media=[{"sha256": digest, "alt": "", **facts}], handle=row["handle"],
        )  # fmt: skip
        session["video"] = video_id
        return self.shown(self.state.posts[f"youtube/{video_id}"])

    def shown(self, post: dict[str, Any]) -> dict[str, Any]:
        """Return a video resource."""
        done = time.time() - float(post["received_at"]) >= self.state.processing_seconds
        word = "uploaded" if not done else "failed" if post["failure"] else "processed"
        status: dict[str, Any] = {"uploadStatus": word, "privacyStatus": post["privacy"]}
        if word == "failed":
            status["failureReason"] = post["failure"]
        snippet = {"title": post["title"], "description": post["text"]}
        snippet |= {"publishedAt": post["created_at"], "channelId": post["account"]}
        stage = {"uploaded": "processing", "processed": "succeeded", "failed": "failed"}[word]
        return {
            "kind": "youtube#video", "id": post["id"], "snippet": snippet, "status": status,
            "processingDetails": {"processingStatus": stage},
        }  # fmt: skip

    def mine(self, request: Request) -> dict[str, Any] | None:
        """Return the video that a query names, where it is the account's own and there."""
        row = self.account(request)
        post = self.state.posts.get(f"youtube/{request.query_params.get('id')}")
        return post if post and not post["deleted"] and post["account"] == row["id"] else None

    async def videos(self, request: Request) -> Any:
        post = self.mine(request)
        asked = self.parts(
            request, "id", "snippet", "contentDetails", "status", "processingDetails"
        )
        if post is None:
            return {"kind": "youtube#videoListResponse", "items": []}
        shown = {k: v for k, v in self.shown(post).items() if k in asked | {"kind", "id"}}
        return {"kind": "youtube#videoListResponse", "items": [shown]}

    async def delete(self, request: Request) -> Any:
        post = self.mine(request)
        if post is None:
            raise Refused(404, "videoNotFound", "The video cannot be found.")
        post["deleted"] = True
        self.state.touch()
        return Response(status_code=204)

    async def items(self, request: Request) -> Any:
        row = self.account(request)
        if request.query_params.get("playlistId") != "UU" + row["id"][2:]:
            raise Refused(
                404, "playlistNotFound", "The playlist cannot be found.", "youtube.playlistItem"
            )
        self.parts(request, "id", "snippet", "contentDetails", "status")
        most = min(int(request.query_params.get("maxResults", "5")), 50)
        rows = [p for p in self.state.newest("youtube") if p["account"] == row["id"]]
        there = [listed(post) for post in rows if not post["deleted"]]
        return {"kind": "youtube#playlistItemListResponse", "items": there[:most]}


def listed(post: dict[str, Any]) -> dict[str, Any]:
    """Return a video as a row of the uploads."""
    snippet = {"title": post["title"], "description": post["text"]}
    snippet |= {"publishedAt": post["created_at"], "channelId": post["account"]}
    resource = {"kind": "youtube#video", "videoId": post["id"]}
    return {
        "snippet": {**snippet, "resourceId": resource},
        "contentDetails": {"videoId": post["id"]},
    }


def may_wait(status: dict[str, Any]) -> bool:
    """Say whether a video may be shown later: a private one, at a time with an offset."""
    try:
        moment = datetime.fromisoformat(str(status["publishAt"]).replace("Z", "+00:00"))
    except ValueError:
        return False
    return status.get("privacyStatus") == "private" and moment.tzinfo is not None


def bad_range() -> Response:
    """Answer a gap or an overlap in the offsets."""
    return JSONResponse({"error": {"code": 400, "message": "Invalid range", "errors": []}}, 400)


def is_short(one: dict[str, Any]) -> bool:
    """Say whether YouTube would show a video as a Short: no wider than high, at most 3 minutes."""
    if one["kind"] != "video":
        return False
    return bool(one["height"] >= one["width"] and one["duration"] <= 180)


def notes(post: dict[str, Any]) -> list[str]:
    """Return what YouTube writes beside a video."""
    return ["Short"] if any(is_short(one) for one in post["media"]) else []


def shown(post: dict[str, Any]) -> str:
    """Render a description."""
    return marked(post["text"], links=True)


def limited() -> Response:
    """Answer that the app is too fast."""
    reason = {"domain": "usageLimits", "reason": "rateLimitExceeded", "message": "Slow down"}
    body = {"error": {"code": 429, "message": "Slow down", "errors": [reason]}}
    return JSONResponse(body, 429, {"Retry-After": "2"})


def broken() -> Response:
    """Answer a fault of Google's own."""
    reason = {"domain": "global", "reason": "backendError", "message": "Backend Error"}
    return JSONResponse({"error": {"code": 503, "message": "", "errors": [reason]}}, 503)


def credentials(name: str) -> dict[str, str]:
    """Make a channel's credentials."""
    token = secrets.token_urlsafe(12)
    return {
        "client_id": "sandbox-client",
        "client_secret": "sandbox-secret",
        "refresh_token": f"1//{token}",
        "access_token": f"ya29.{token}",
    }


def remote_id(number: int, made: Mapping[str, str]) -> str:
    """Make a channel's id."""
    return "UC" + hashlib.sha256(made["refresh_token"].encode()).hexdigest()[:22]


def mounts(state: State, orders: Orders, base: str) -> dict[str, list[Route]]:
    """Return the API and what watches its videos."""
    return {"/youtube": YouTube(state, orders, f"{base}/youtube").routes()}


STAND_IN = StandIn(
    title="YouTube",
    hues=("#c4161c", "#ff7a75"),
    seed={
        "client_id": "sandbox-client",
        "client_secret": "sandbox-secret",
        "refresh_token": "1//sandbox-refresh",
        "access_token": "ya29.sandbox-access",
    },
    credentials=credentials,
    remote_id=remote_id,
    mounts=mounts,
    options=lambda base: {"permalink_base": f"{base}/youtube"},
    step_of=step_of,
    limited=limited,
    broken=broken,
    body=shown,
    notes=notes,
    media_first=True,
)
