"""X's API v2: strict about fields, texts that repeat, media that are not ready, and old tokens."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
import unicodedata
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import regex
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.consent import Client, Consent, Wrong
from sandbox.inspect import inspect
from sandbox.marks import LINK, marked
from sandbox.misbehaviour import Orders
from sandbox.stand_ins import StandIn
from sandbox.state import State, iso

PROBLEMS = "https://api.x.com/2/problems/"
FIELDS = {
    "text", "media", "reply", "quote_tweet_id", "reply_settings", "poll", "community_id",
    "share_with_followers", "geo", "for_super_followers_only", "edit_options", "made_with_ai",
    "paid_partnership", "nullcast", "card_uri", "direct_message_deep_link",
}  # fmt: skip
POST_FIELDS = {
    "id", "created_at", "text", "conversation_id", "entities", "attachments", "author_id",
}  # fmt: skip
LIMITS = {"image": 5_000_000, "video": 512_000_000}
SEGMENT = 5_000_000
#: So long X is taken to remember a text.
REPEATS = 24 * 3600
LIFE = 7200
SCOPES = {
    "tweet.read": "See posts", "tweet.write": "Post and delete posts",
    "users.read": "See your profile", "media.write": "Upload media",
    "offline.access": "Stay connected",
}  # fmt: skip


def step_of(method: str, path: str) -> str:
    """Name a call for the control endpoint."""
    for pattern, step in (
        (r"/i/oauth2/authorize$", "authorize"),
        (r"/oauth2/token$", "token"),
        (r"/oauth2/revoke$", "revoke"),
        (r"/upload/initialize$", "initialize"),
        (r"/append$", "append"),
        (r"/finalize$", "finalize"),
        (r"/media/upload$", "media_status" if method == "GET" else "media"),
        (r"/media/metadata$", "metadata"),
        (r"/users/me$", "me"),
        (r"/users/\d+/tweets$", "list_posts"),
        (r"/2/tweets$", "create"),
        (r"/2/tweets/\d+$", "delete" if method == "DELETE" else "get_post"),
    ):
        if re.search(pattern, path):
            return step
    return "other"


class Refused(Exception):
    """An error in X's shape; `kind` is the last word of its type."""

    def __init__(self, status: int, title: str, detail: str, kind: str | None = None) -> None:
        super().__init__(detail)
        type_ = PROBLEMS + kind if kind else "about:blank"
        body = {"title": title, "detail": detail, "type": type_, "status": status}
        self.response = JSONResponse(body, status)


def numbered(status: int, code: int, message: str) -> Refused:
    """Return an error of the older shape."""
    refused = Refused(status, "", message)
    refused.response = JSONResponse({"errors": [{"code": code, "message": message}]}, status)
    return refused


def invalid(parameter: str, value: object, message: str) -> Refused:
    """Return a refusal of one parameter."""
    refused = Refused(400, "", message)
    body = {
        "errors": [{"parameters": {parameter: [str(value)]}, "message": message}],
        "title": "Invalid Request",
        "detail": "One or more parameters to your request was invalid.",
        "type": f"{PROBLEMS}invalid-request",
    }
    refused.response = JSONResponse(body, 400)
    return refused


class X:
    """The routes of the API, and where its posts are read."""

    def __init__(self, state: State, orders: Orders, base: str) -> None:
        self.state, self.orders, self.base = state, orders, base
        self.consent = Consent(
            state,
            "x",
            "X",
            SCOPES,
            clients=(Client("sandbox-client", "sandbox-secret"),),
            code_lives=30,
            must_prove=True,
        )

    def routes(self) -> list[Route]:
        """Return the routes."""
        guarded = self.guarded
        upload = "/2/media/upload"
        return [
            *self.consent.routes("/i/oauth2/authorize"),
            Route("/2/oauth2/token", guarded(self.token), methods=["POST"]),
            Route("/2/oauth2/revoke", guarded(self.revoke), methods=["POST"]),
            Route("/2/users/me", guarded(self.me)),
            Route("/2/users/{id:int}/tweets", guarded(self.listed)),
            Route(upload, guarded(self.simple), methods=["POST"]),
            Route(upload, guarded(self.status)),
            Route(f"{upload}/initialize", guarded(self.initialize), methods=["POST"]),
            Route(f"{upload}/{{id:int}}/append", guarded(self.append), methods=["POST"]),
            Route(f"{upload}/{{id:int}}/finalize", guarded(self.finalize), methods=["POST"]),
            Route("/2/media/metadata", guarded(self.metadata), methods=["POST"]),
            Route("/2/tweets", guarded(self.create), methods=["POST"]),
            Route("/2/tweets/{id:int}", guarded(self.one), methods=["GET", "DELETE"]),
            Route("/{who}/status/{id}", self.permalink),
            Route("/{who}", self.profile),
        ]

    def guarded(self, handler: Any) -> Any:
        """Answer refusals in X's shape, with its rate limit headers."""

        async def run(request: Request) -> Response:
            try:
                answer = await handler(request)
            except Refused as refused:
                answer = refused.response
            response = answer if isinstance(answer, Response) else JSONResponse(answer)
            response.headers["x-rate-limit-limit"] = "900"
            response.headers["x-rate-limit-remaining"] = "890"
            response.headers["x-rate-limit-reset"] = str(int(time.time()) + 900)
            return response

        return run

    async def permalink(self, request: Request) -> Response:
        """Lead from a permalink to the timeline."""
        return RedirectResponse(f"/p/x/{request.path_params['id']}")

    async def profile(self, request: Request) -> Response:
        """Lead from an account to the timeline."""
        return RedirectResponse("/")

    def account(self, request: Request) -> dict[str, Any]:
        """Return whose token it is."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = self.state.by_credential("x", "access_token", token) if token else None
        if scheme != "Bearer" or found is None or found["expired"] or found["revoked"]:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return found

    def client(self, request: Request, said: Mapping[str, Any]) -> str:
        """Return the client that asks: a secret comes in the header, or there is none."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            name, _, secret = base64.b64decode(value).decode().partition(":")
            return name if secret == "sandbox-secret" else ""  # noqa: S105  # a stand-in's
        return str(said.get("client_id") or "")

    async def token(self, request: Request) -> Response:
        said = await request.form()
        if said.get("grant_type") == "authorization_code":
            return self.granted(request, said)
        if said.get("grant_type") != "refresh_token":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        found = self.state.by_credential("x", "refresh_token", str(said.get("refresh_token")))
        if self.client(request, said) != "sandbox-client":
            return JSONResponse({"error": "unauthorized_client"}, 401)
        if found is None or found["revoked"]:
            text = "Value passed for the token was invalid."
            return JSONResponse({"error": "invalid_request", "error_description": text}, 400)
        return self.given(found, found.get("scope") or " ".join(SCOPES))

    def granted(self, request: Request, said: Mapping[str, Any]) -> Response:
        """Change a code; a confidential client names itself in the head alone."""
        client = self.client(request, said)
        if client != "sandbox-client" or "client_secret" in said:
            return JSONResponse({"error": "unauthorized_client"}, 401)
        app = {"client_id": client, "client_secret": "sandbox-secret"}
        try:
            granted = self.consent.redeem({**said, **app})
        except Wrong as wrong:
            body = {"error": "invalid_request", "error_description": wrong.said}
            return JSONResponse(body, wrong.status)
        granted.account["scope"] = " ".join(granted.scopes)
        return self.given(granted.account, granted.account["scope"])

    def given(self, account: dict[str, Any], scope: str) -> Response:
        """Answer with tokens that are new; those of before are dead."""
        fresh = {"access_token": secrets.token_urlsafe(16)}
        if "offline.access" in scope.split():
            fresh["refresh_token"] = secrets.token_urlsafe(16)
        account["credentials"] |= fresh
        account["expired"] = False
        self.state.touch()
        return JSONResponse({"token_type": "bearer", "expires_in": LIFE, "scope": scope} | fresh)

    async def revoke(self, request: Request) -> Response:
        said = await request.form()
        if self.client(request, said) != "sandbox-client":
            return JSONResponse({"error": "unauthorized_client"}, 401)
        for row in self.state.accounts["x"].values():
            if str(said.get("token")) in row["credentials"].values():
                row["revoked"] = True
                self.state.touch()
        return JSONResponse({"revoked": True})

    async def me(self, request: Request) -> Any:
        row = self.account(request)
        return {"data": {"id": row["id"], "name": row["name"], "username": row["handle"]}}

    async def kept(self, file: Any) -> tuple[Path, str, int]:
        """Write an uploaded file to disk."""

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await file.read(1 << 18):
                yield chunk

        return await self.state.receive(chunks())

    def number(self) -> str:
        """Return a new id, which grows with time."""
        return str(int(time.time() * 1000) << 22 | secrets.randbelow(1 << 22))

    async def simple(self, request: Request) -> Any:
        row = self.account(request)
        form = await request.form()
        if form.get("media_category") != "tweet_image" or not isinstance(
            form.get("media"), UploadFile
        ):
            raise invalid("media_category", form.get("media_category"), "needs media and category")
        path, digest, size = await self.kept(form["media"])
        facts = await inspect(path)
        if facts["kind"] != "image" or size > LIMITS["image"]:
            raise Refused(400, "Invalid Request", "media type unrecognized.", "invalid-request")
        made = self.medium(row, facts, digest, failed=False, at=0.0, prefix="3")
        return {"data": self.told(made)}

    def medium(
        self, row: Mapping[str, Any], facts: Mapping[str, Any], digest: str, **more: Any
    ) -> str:
        """Keep a medium; return its id."""
        media_id = self.number()
        key = f"{more.pop('prefix')}_{media_id}"
        self.state.things[media_id] = {
            "of": row["id"], "key": key, "sha256": digest, "alt": "", "closed": True,
            **facts, **more,
        }  # fmt: skip
        self.state.touch()
        return media_id

    def told(self, media_id: str) -> dict[str, Any]:
        """Return how a medium stands."""
        media = self.state.things[media_id]
        told = {"id": media_id, "media_key": media["key"], "expires_after_secs": 86400}
        if media["at"] and media["closed"]:
            ready = time.time() - float(media["at"]) >= self.state.processing_seconds
            word = "in_progress" if not ready else "failed" if media["failed"] else "succeeded"
            told["processing_info"] = {"state": word}
            if not ready:
                told["processing_info"]["check_after_secs"] = 1
        return told

    def found(self, request: Request, media_id: str) -> dict[str, Any]:
        """Return an account's medium."""
        row = self.account(request)
        media = self.state.things.get(media_id)
        if media is None or media.get("of") != row["id"]:
            raise Refused(404, "Not Found Error", "no such media", "resource-not-found")
        return media

    async def status(self, request: Request) -> Any:
        query = request.query_params
        if query.get("command") != "STATUS":
            raise invalid("command", query.get("command"), "needs STATUS")
        self.found(request, query.get("media_id", ""))
        return {"data": self.told(query["media_id"])}

    async def initialize(self, request: Request) -> Any:
        row = self.account(request)
        said = await request.json()
        total = said.get("total_bytes")
        if said.get("media_category") != "tweet_video" or not isinstance(total, int):
            raise invalid("media_category", said.get("media_category"), "needs category and bytes")
        if said.get("media_type") not in ("video/mp4", "video/quicktime"):
            raise invalid("media_type", said.get("media_type"), "media type unrecognized.")
        if total > LIMITS["video"]:
            raise invalid("total_bytes", total, "file is too large")
        more = {"kind": "video", "total": total, "closed": False, "segments": {}}
        made = self.medium(row, more, "", failed=False, at=0.0, prefix="13")
        return {"data": self.told(made)}

    async def append(self, request: Request) -> Any:
        media = self.found(request, str(request.path_params["id"]))
        form = await request.form()
        index, file = str(form.get("segment_index") or ""), form.get("media")
        if media["closed"] or not index.isdecimal() or not isinstance(file, UploadFile):
            raise invalid("segment_index", index, "cannot be appended")
        _, digest, size = await self.kept(file)
        if size > SEGMENT or int(index) > 999:
            raise Refused(413, "Payload too large", "segment too large")
        media["segments"][index] = [digest, size]
        self.state.touch()
        return {"data": {"expires_at": int(time.time()) + 86400}}

    async def finalize(self, request: Request) -> Any:
        media_id = str(request.path_params["id"])
        media = self.found(request, media_id)
        if not media["closed"]:
            await self.joined(media)
        return {"data": self.told(media_id) | {"size": media["total"]}}

    async def joined(self, media: dict[str, Any]) -> None:
        """Put the segments of an upload together."""
        pieces = [media["segments"].get(str(n)) for n in range(len(media["segments"]))]
        if None in pieces or sum(size for _, size in pieces) != media["total"]:
            raise invalid("media_id", media["key"], "segments do not add up to total bytes")

        async def chunks() -> AsyncIterator[bytes]:
            for digest, _ in pieces:
                yield (self.state.folder / "media" / digest).read_bytes()

        path, digest, _ = await self.state.receive(chunks())
        facts = await inspect(path)
        media["failed"] = bool(
            self.orders.take("x", "finalize", "fail_processing")
            or facts["kind"] != "video"
            or wrong(facts)
        )
        facts["kind"] = "video"
        media |= facts | {"sha256": digest, "closed": True, "at": time.time(), "segments": {}}
        self.state.touch()

    async def metadata(self, request: Request) -> Any:
        said = await request.json()
        media_id = str(said.get("id") or "")
        media = self.found(request, media_id)
        alt = str(said.get("metadata", {}).get("alt_text", {}).get("text") or "")
        if not alt or len(alt) > 1000:
            raise invalid("alt_text", len(alt), "alt text has 1 to 1000 characters")
        media["alt"] = alt
        self.state.touch()
        return {"data": {"id": media_id, "associated_metadata": {"alt_text": {"text": alt}}}}

    async def create(self, request: Request) -> Any:
        row = self.account(request)
        try:
            said = await request.json()
        except ValueError:
            raise invalid("body", "", "no JSON") from None
        if unknown := set(said) - FIELDS:
            raise invalid(sorted(unknown)[0], "", "unknown field")
        text = unicodedata.normalize("NFC", str(said.get("text") or ""))
        ids = [str(one) for one in (said.get("media") or {}).get("media_ids") or []]
        if not text.strip() and not ids:
            raise invalid("text", "", "needs text or media")
        if weighted(text) > 280:
            raise numbered(403, 186, "Tweet needs to be a bit shorter.")
        parent = str((said.get("reply") or {}).get("in_reply_to_tweet_id") or "") or None
        root = self.root_of(parent)
        if text.strip() and self.repeats(row, text):
            raise Refused(
                403,
                "Forbidden",
                "You are not allowed to create a Tweet with duplicate content.",
            )
        media = self.attached(row, ids)
        post_id = self.number()
        self.state.add_post(
            "x", row["id"], post_id, text=text, media=media, created_at=iso(),
            media_ids=ids, handle=row["handle"], reply_to=parent, conversation=root or post_id,
        )  # fmt: skip
        shown = {"id": post_id, "text": text, "edit_history_post_ids": [post_id]}
        return JSONResponse({"data": shown}, 201)

    def root_of(self, parent: str | None) -> str | None:
        """Return the conversation of the post that is replied to."""
        if parent is None:
            return None
        post = self.state.posts.get(f"x/{parent}")
        if post is None or post["deleted"]:
            said = "The Tweet that you replied to is deleted or not visible to you."
            raise numbered(403, 385, said)
        return str(post["conversation"])

    def repeats(self, row: Mapping[str, Any], text: str) -> bool:
        """Say whether the account said so lately."""
        since = time.time() - REPEATS
        return any(
            post["account"] == row["id"]
            and post["text"] == text
            and not post["deleted"]
            and post["received_at"] > since
            for post in self.state.newest("x")
        )

    def attached(self, row: Mapping[str, Any], ids: list[str]) -> list[dict[str, Any]]:
        """Return the media of a post, or refuse as X does."""
        found = [self.state.things.get(one) for one in ids]
        media = [one for one in found if one and one.get("of") == row["id"] and one["closed"]]
        ready = [one for one in media if self.told_ready(one)]
        if len(ready) < len(ids):
            raise invalid("media.media_ids", ids, "Your media IDs are invalid.")
        if len(ids) > 4 or (len(ids) > 1 and any(one["kind"] == "video" for one in media)):
            raise invalid("media.media_ids", ids, "4 photos or 1 video")
        return [dict(one) for one in media]

    def told_ready(self, media: Mapping[str, Any]) -> bool:
        """Say whether a medium may be posted."""
        waits = media["at"] and time.time() - float(media["at"]) < self.state.processing_seconds
        return not waits and not media["failed"]

    def shown(self, post: Mapping[str, Any], fields: set[str]) -> dict[str, Any]:
        """Return a post as the API shows it: links and media as addresses of X's own."""
        text, urls = str(post["text"]), []
        for match in LINK.finditer(text):
            short = "https://t.co/" + hashlib.sha256(match[0].encode()).hexdigest()[:10]
            urls.append({"url": short, "expanded_url": match[0], "display_url": match[0][8:]})
        for url in urls:
            text = text.replace(url["expanded_url"], url["url"])
        for media in post["media"][:1]:
            short = "https://t.co/" + str(media["sha256"])[:10]
            kind = "photo" if media["kind"] == "image" else "video"
            full = f"https://x.com/{post['handle']}/status/{post['id']}/{kind}/1"
            urls.append({"url": short, "expanded_url": full, "media_key": media["key"]})
            text = f"{text} {short}".strip()
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        told: dict[str, Any] = {
            "id": post["id"],
            "text": text,
            "created_at": post["created_at"],
            "conversation_id": post["conversation"],
            "author_id": post["account"],
        }
        if urls:
            told["entities"] = {"urls": urls}
        if post["media"]:
            told["attachments"] = {"media_keys": [one["key"] for one in post["media"]]}
        return {name: value for name, value in told.items() if name in fields}

    def fields(self, request: Request) -> set[str]:
        """Return the fields that were asked for, beside those always there."""
        asked = request.query_params.get("post.fields", "")
        names = {one for one in asked.split(",") if one}
        if unknown := names - POST_FIELDS:
            raise invalid("post.fields", sorted(unknown)[0], "is not a field")
        return names | {"id", "text"}

    async def one(self, request: Request) -> Any:
        row = self.account(request)
        post_id = str(request.path_params["id"])
        post = self.state.posts.get(f"x/{post_id}")
        if post is None or post["deleted"]:
            said = f"Could not find tweet with id: [{post_id}]."
            error = {"title": "Not Found Error", "detail": said, "value": post_id}
            return {"errors": [error | {"type": f"{PROBLEMS}resource-not-found"}]}
        if request.method == "GET":
            return {"data": self.shown(post, self.fields(request))}
        if post["account"] != row["id"]:
            raise Refused(403, "Forbidden", "You are not authorized to delete this Tweet.")
        post["deleted"] = True
        self.state.touch()
        return {"data": {"deleted": True}}

    async def listed(self, request: Request) -> Any:
        self.account(request)
        query, fields = request.query_params, self.fields(request)
        most = query.get("max_results", "10")
        if not most.isdecimal() or not 5 <= int(most) <= 100:
            raise invalid("max_results", most, "is between 5 and 100")
        who = str(request.path_params["id"])
        rows = [
            post
            for post in self.state.newest("x")
            if post["account"] == who
            and not post["deleted"]
            and post["created_at"] >= query.get("start_time", "")
        ]
        start = int(query.get("pagination_token", "0"))
        page = rows[start : start + int(most)]
        meta: dict[str, Any] = {"result_count": len(page)}
        if start + len(page) < len(rows):
            meta["next_token"] = str(start + len(page))
        told = {"data": [self.shown(post, fields) for post in page]} if page else {}
        return told | {"meta": meta}


def wrong(facts: Mapping[str, Any]) -> bool:
    """Say whether X cannot use a film."""
    width, height = facts["width"], facts["height"]
    return not (
        facts.get("codec") == "h264"
        and 32 <= width <= 1280
        and 32 <= height <= 1024
        and 1 / 3 <= width / height <= 3
        and facts["fps"] <= 60.5
        and 0.5 <= facts["duration"] <= 140.1
    )


def weighted(text: str) -> int:
    """Count as X counts: links 23, an emoji 2, most letters 1, others 2."""
    plain = LINK.sub("x" * 23, text)
    return sum(weight_of(cluster) for cluster in regex.findall(r"\X", plain))


def weight_of(cluster: str) -> int:
    """Return what one character counts."""
    if regex.search(r"\p{Extended_Pictographic}|\p{Regional_Indicator}|\u20e3", cluster):
        return 2
    light = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))
    return sum(1 if any(a <= ord(one) <= b for a, b in light) else 2 for one in cluster)


def shown(post: dict[str, Any]) -> str:
    """Render a post's text."""
    return marked(post["text"], links=True)


def notes(post: dict[str, Any]) -> list[str]:
    """Say what a post answers."""
    return [f"in reply to {post['reply_to']}"] if post.get("reply_to") else []


def limited() -> Response:
    """Answer that the account is too fast."""
    headers = {"x-rate-limit-limit": "100", "x-rate-limit-remaining": "0"}
    headers["x-rate-limit-reset"] = str(int(time.time()) + 2)
    said = "Too Many Requests"
    body = {"title": said, "detail": said, "type": "about:blank", "status": 429}
    return JSONResponse(body, 429, headers)


def broken() -> Response:
    """Answer a fault of X's own."""
    body = {"title": "Service Unavailable", "detail": "", "type": "about:blank", "status": 503}
    return JSONResponse(body, 503)


def credentials(name: str) -> dict[str, str]:
    """Make an account's credentials."""
    token = secrets.token_urlsafe(12)
    return {
        "client_id": "sandbox-client",
        "client_secret": "sandbox-secret",
        "refresh_token": f"r-{token}",
        "access_token": f"a-{token}",
    }


def remote_id(number: int, made: Mapping[str, str]) -> str:
    """Count the accounts on."""
    return str(2244994945 + number)


def mounts(state: State, orders: Orders, base: str) -> dict[str, list[Route]]:
    """Return the API and what shows its posts."""
    return {"/x": X(state, orders, f"{base}/x").routes()}


STAND_IN = StandIn(
    title="X",
    hues=("#22303c", "#9fb3c1"),
    seed={
        "client_id": "sandbox-client",
        "client_secret": "sandbox-secret",
        "refresh_token": "sandbox-x-refresh",
        "access_token": "sandbox-x-access",
    },
    credentials=credentials,
    remote_id=remote_id,
    mounts=mounts,
    options=lambda base: {"permalink_base": f"{base}/x"},
    step_of=step_of,
    limited=limited,
    broken=broken,
    body=shown,
    notes=notes,
)
