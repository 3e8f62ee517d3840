"""A Mastodon server; one that ignores idempotency keys (GoToSocial), one that refuses to see a key
twice (Pixelfed).
"""

from __future__ import annotations

import html
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import regex
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.consent import Consent, Wrong
from sandbox.inspect import inspect
from sandbox.marks import LINK
from sandbox.misbehaviour import Orders
from sandbox.stand_ins import StandIn
from sandbox.state import State, iso

LIMITS = {"image": 16_777_216, "video": 103_809_024}
MIME_TYPES = [
    "image/jpeg", "image/png", "image/gif", "image/heic", "image/heif", "image/webp", "image/avif",
    "video/webm", "video/mp4", "video/quicktime", "audio/mpeg",
]  # fmt: skip
VERSIONS = {
    "mastodon": "4.4.2",
    "gotosocial": "0.20.1 (compatible; GoToSocial 0.20.1)",
    "pixelfed": "3.5.3 (compatible; Pixelfed 0.12.5)",
}
REMOTE = re.compile(r"(?<![\w@/])@(\w+)@[\w.-]+\.\w+")
TAG = re.compile(r"(?<![\w&/])#(\w*[^\W\d]\w*)")
FIELDS = {
    "status", "media_ids", "media_ids[]", "in_reply_to_id", "sensitive", "spoiler_text",
    "visibility", "language", "scheduled_at", "poll", "quoted_status_id", "quote_approval_policy",
}  # fmt: skip


#: As the page that asks says them; a whole permission holds its parts.
SCOPES = {
    "read": "Read all of your account", "write": "Change all of your account",
    "profile": "See who you are", "read:accounts": "See who you are",
    "read:statuses": "Read your posts", "write:statuses": "Publish posts",
    "write:media": "Upload media",
}  # fmt: skip
#: Software that knows no part of a permission.
WHOLE_ONLY = {"pixelfed"}


def step_of(method: str, path: str) -> str:
    """Name a call for the control endpoint."""
    tails = {"/v1/apps": "apps", "/oauth/token": "token", "/oauth/authorize": "authorize"}
    for tail, step in tails.items():
        if path.endswith(tail):
            return step
    if re.search(r"/media/\d+$", path):
        return "media_status"
    if path.endswith("/media"):
        return "media"
    if path.endswith("/v1/statuses"):
        return "status"
    if re.search(r"/v1/statuses/\d+$", path):
        return "delete" if method == "DELETE" else "get_status"
    if path.endswith("/statuses"):
        return "list_statuses"
    return "other"


class Refused(Exception):
    """A Mastodon error."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.response = JSONResponse({"error": error}, status)


class Mastodon:
    """The server's routes."""

    def __init__(self, state: State, orders: Orders, base: str, software: str = "mastodon") -> None:
        self.state, self.orders, self.base, self.software = state, orders, base, software
        self.known: dict[tuple[str, str], tuple[float, str]] = {}
        whole = software in WHOLE_ONLY
        scopes = {name: says for name, says in SCOPES.items() if not (whole and ":" in name)}
        title = software.capitalize()
        self.consent = Consent(state, "mastodon", title, scopes, server=software)

    def routes(self) -> list[Route]:
        """Return the routes of the server."""
        return [
            Route("/api/v2/instance", self.guarded(self.instance)),
            Route("/api/v1/instance", self.guarded(self.instance)),
            Route("/api/v1/apps", self.guarded(self.apps), methods=["POST"]),
            Route("/oauth/token", self.guarded(self.token), methods=["POST"]),
            *self.consent.routes("/oauth/authorize"),
            Route("/api/v1/accounts/verify_credentials", self.guarded(self.verify)),
            Route("/api/v2/media", self.guarded(self.media), methods=["POST"]),
            Route("/api/v1/media", self.guarded(self.media), methods=["POST"]),
            Route("/api/v1/media/{id}", self.guarded(self.media_status)),
            Route("/api/v1/statuses", self.guarded(self.status), methods=["POST"]),
            Route("/api/v1/statuses/{id}", self.guarded(self.one), methods=["GET", "DELETE"]),
            Route("/api/v1/accounts/{id}/statuses", self.guarded(self.listed)),
            Route("/@{who}/{id}", self.permalink),
        ]

    def guarded(self, handler: Any) -> Any:
        """Answer refusals in the platform's shape, with its rate limit headers."""

        async def run(request: Request) -> Response:
            try:
                answer = await handler(request)
            except Refused as refused:
                answer = refused.response
            response = answer if isinstance(answer, Response) else JSONResponse(answer)
            response.headers.update({"X-RateLimit-Limit": "300", "X-RateLimit-Remaining": "290"})
            response.headers["X-RateLimit-Reset"] = iso(time.time() + 300)
            return response

        return run

    async def permalink(self, request: Request) -> Response:
        """Lead from a permalink to the timeline."""
        return RedirectResponse(f"/p/mastodon/{request.path_params['id']}")

    def account(self, request: Request) -> dict[str, Any]:
        """Return whose token it is."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = self.state.by_credential("mastodon", "access_token", token) if token else None
        if scheme != "Bearer" or found is None:
            raise Refused(401, "The access token is invalid")
        if found["revoked"] or found["expired"]:
            raise Refused(401, "The access token was revoked")
        return found

    async def instance(self, request: Request) -> Any:
        return {
            "domain": "sandbox",
            "title": "Sandbox",
            "version": VERSIONS[self.software],
            "configuration": {
                "statuses": {
                    "max_characters": 500,
                    "max_media_attachments": 4,
                    "characters_reserved_per_url": 23,
                },
                "media_attachments": {
                    "supported_mime_types": MIME_TYPES,
                    "description_limit": 1500,
                    "image_size_limit": LIMITS["image"],
                    "image_matrix_limit": 33_177_600,
                    "video_size_limit": LIMITS["video"],
                    "video_frame_rate_limit": 120,
                    "video_matrix_limit": 8_294_400,
                },
            },
        }

    async def apps(self, request: Request) -> Any:
        said = await self.said(request)
        redirects = str(said.get("redirect_uris") or "").split()
        if not said.get("client_name"):
            raise Refused(422, "Validation failed: Application name can't be blank")
        if not redirects or not all(urlsplit(one).scheme in ("https", "http") for one in redirects):
            raise Refused(422, "Validation failed: Redirect URI must be an absolute URI.")
        scopes = str(said.get("scopes") or "read").split()
        if set(scopes) - set(self.consent.scopes):
            raise Refused(422, "Validation failed: Scopes doesn't match configured on the server.")
        made = self.consent.register(str(said["client_name"]), redirects, scopes)
        return {
            "id": str(len(self.state.things)), "name": said["client_name"], "website": None,
            "client_id": made.id, "client_secret": made.secret, "client_secret_expires_at": 0,
            "redirect_uri": "\n".join(redirects), "redirect_uris": redirects, "scopes": scopes,
        }  # fmt: skip

    async def token(self, request: Request) -> Any:
        said = await self.said(request)
        if said.get("grant_type") != "authorization_code":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        try:
            granted = self.consent.redeem(said)
        except Wrong as wrong:
            body = {"error": wrong.error, "error_description": wrong.said}
            return JSONResponse(body, wrong.status)
        return {
            "access_token": granted.account["credentials"]["access_token"],
            "token_type": "Bearer",
            "scope": " ".join(granted.scopes),
            "created_at": int(time.time()),
        }

    async def verify(self, request: Request) -> Any:
        row = self.account(request)
        name = row["handle"]
        url = f"{self.base}/@{name}"
        return {"id": row["id"], "username": name, "acct": name, "display_name": name, "url": url}

    async def media(self, request: Request) -> Any:
        self.account(request)
        form = await request.form()
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Refused(422, "Validation failed: File can't be blank")
        alt = str(form.get("description") or "")
        if len(alt) > 1500:
            raise Refused(
                422, "Validation failed: Description is too long (maximum is 1500 characters)"
            )

        async def chunks() -> Any:
            while chunk := await file.read(1 << 18):
                yield chunk

        path, digest, size = await self.state.receive(chunks())
        facts = await inspect(path)
        kind = facts["kind"]
        if kind == "unknown":
            raise Refused(422, "Validation failed: File content type is invalid")
        if size > LIMITS[kind]:
            raise Refused(
                422, f"Validation failed: File file size must be less than {LIMITS[kind]}"
            )
        if kind == "video" and (facts["fps"] > 120 or facts["width"] * facts["height"] > 8_294_400):
            raise Refused(
                422, "Validation failed: File video dimensions or frame rate not supported"
            )
        media_id = str(22_000_000 + len(self.state.things))
        failed = bool(self.orders.take("mastodon", "media", "fail_processing"))
        slow = kind == "video" and self.state.processing_seconds > 0
        self.state.things[media_id] = {
            "sha256": digest, "alt": alt, "at": time.time() if slow else 0.0,
            "failed": failed, "attached": False, **facts,
        }  # fmt: skip
        self.state.touch()
        said = {"id": media_id, "type": kind, "url": None if slow else self.file_url(digest)}
        return JSONResponse(said | {"description": alt or None}, 202 if slow else 200)

    def file_url(self, digest: str) -> str:
        """Return where a file is served."""
        return f"{self.base.rsplit('/', 1)[0]}/media/{digest}"

    def ready(self, media: dict[str, Any]) -> bool:
        """Say whether a medium is processed."""
        return time.time() - float(media["at"]) >= self.state.processing_seconds

    async def media_status(self, request: Request) -> Any:
        self.account(request)
        media = self.state.things.get(request.path_params["id"])
        if media is None or media.get("attached"):
            raise Refused(404, "Record not found")
        said = {"id": request.path_params["id"], "type": media["kind"], "url": None}
        if not self.ready(media):
            return JSONResponse(said, 206)
        if media["failed"]:
            raise Refused(422, "Error processing thumbnail for uploaded media")
        return said | {"url": self.file_url(media["sha256"])}

    async def said(self, request: Request) -> dict[str, Any]:
        """Return the fields of a request, form or JSON."""
        if request.headers.get("content-type", "").startswith("application/json"):
            try:
                body = await request.json()
            except ValueError:
                raise Refused(400, "Error occurred while parsing request parameters") from None
            return dict(body)
        form = await request.form()
        fields: dict[str, Any] = dict(form.items())
        fields["media_ids"] = form.getlist("media_ids[]")
        return fields

    async def status(self, request: Request) -> Any:
        row = self.account(request)
        key = request.headers.get("idempotency-key")
        slot = (row["id"], key or "")
        fresh = slot in self.known and time.time() - self.known[slot][0] < 3600
        if key and fresh and self.software == "pixelfed":
            raise Refused(400, "Duplicate idempotency key.")
        if key and fresh and self.software == "mastodon":
            return self.shown(self.state.posts[f"mastodon/{self.known[slot][1]}"])
        if self.software == "pixelfed":  # It keeps the key before it looks at the post.
            self.known[slot] = (time.time(), "")
        said = await self.said(request)
        if unknown := set(said) - FIELDS:
            raise Refused(422, f"Validation failed: unknown parameter {sorted(unknown)[0]}")
        text, spoiler = str(said.get("status") or ""), str(said.get("spoiler_text") or "")
        ids = [str(one) for one in said.get("media_ids") or []]
        if self.software == "pixelfed" and not ids:
            raise Refused(403, "This action is not allowed")
        if not text.strip() and not ids:
            raise Refused(422, "Validation failed: Text can't be blank")
        if length(text) + length(spoiler) > 500:
            raise Refused(422, "Validation failed: Text character limit of 500 exceeded")
        if said.get("visibility", "public") not in ("public", "unlisted", "private", "direct"):
            raise Refused(422, "Validation failed: Visibility is not included in the list")
        if said.get("in_reply_to_id") and not self.is_there(str(said["in_reply_to_id"])):
            raise Refused(404, "The post you are trying to reply to does not appear to exist.")
        media = self.attached(ids)
        post_id = str(int(time.time() * 1000) << 16 | len(self.state.posts) & 0xFFFF)
        self.state.add_post(
            "mastodon", row["id"], post_id, text=text, spoiler=spoiler, media=media, media_ids=ids,
            visibility=said.get("visibility", "public"), created_at=iso(), handle=row["handle"],
            reply_to=said.get("in_reply_to_id"), key=key, language=said.get("language"),
            sensitive=bool(said.get("sensitive")),
        )  # fmt: skip
        if key:
            self.known[slot] = (time.time(), post_id)
        return self.shown(self.state.posts[f"mastodon/{post_id}"])

    def is_there(self, post_id: str) -> bool:
        """Say whether a status exists and is not deleted."""
        post = self.state.posts.get(f"mastodon/{post_id}")
        return post is not None and not post["deleted"]

    def attached(self, ids: list[str]) -> list[dict[str, Any]]:
        """Attach media to a status, or refuse as the server does."""
        found = [self.state.things.get(one) for one in ids]
        wrong = [i for i, one in zip(ids, found, strict=True) if one is None or one.get("attached")]
        if wrong:
            ids_ = ", ".join(wrong)
            raise Refused(422, f"Media {ids_} not found or already attached to another post")
        media = [one for one in found if one is not None]
        if len(media) > 4:
            raise Refused(422, "Cannot attach more than 4 files")
        if len(media) > 1 and any(one["kind"] != "image" for one in media):
            raise Refused(422, "Cannot attach a video to a post that already contains images")
        if any(not self.ready(one) for one in media):
            said = "Cannot attach files that have not finished processing. Try again in a moment!"
            raise Refused(422, said)
        for one in media:
            one["attached"] = True
        return [dict(one) for one in media]

    def shown(self, post: dict[str, Any]) -> dict[str, Any]:
        """Return a status as the API shows it."""
        media = [
            {
                "id": i,
                "type": one["kind"],
                "url": self.file_url(one["sha256"]),
                "description": one["alt"],
                "meta": {"original": {key: one[key] for key in ("width", "height") if key in one}},
            }
            for i, one in zip(post["media_ids"], post["media"], strict=True)
        ]
        return {
            "id": post["id"],
            "uri": f"{self.base}/users/{post['handle']}/statuses/{post['id']}",
            "url": f"{self.base}/@{post['handle']}/{post['id']}",
            "created_at": post["created_at"],
            "content": rendered(post["text"]),
            "visibility": post["visibility"],
            "spoiler_text": post["spoiler"],
            "in_reply_to_id": post["reply_to"],
            "media_attachments": media,
            "language": post["language"],
        }

    async def one(self, request: Request) -> Any:
        row = self.account(request)
        post = self.state.posts.get(f"mastodon/{request.path_params['id']}")
        if post is None or post["deleted"]:
            raise Refused(404, "Record not found")
        if request.method == "DELETE":
            if post["account"] != row["id"]:
                raise Refused(404, "Record not found")
            post["deleted"] = True
            self.state.touch()
            return self.shown(post) | {"text": post["text"]}
        return self.shown(post)

    async def listed(self, request: Request) -> Any:
        self.account(request)
        who = request.path_params["id"]
        rows = [
            p for p in self.state.newest("mastodon") if p["account"] == who and not p["deleted"]
        ]
        if before := request.query_params.get("max_id"):
            rows = [post for post in rows if int(post["id"]) < int(before)]
        page = rows[: self.most(request)]
        links = (
            f'<{request.url.include_query_params(max_id=page[-1]["id"])}>; rel="next"'
            if page
            else ""
        )
        return JSONResponse(
            [self.shown(post) for post in page], headers={"Link": links} if page else None
        )

    def most(self, request: Request) -> int:
        """Return how many rows a page has: what was asked for, at most 40."""
        asked = request.query_params.get("limit", "20")
        return min(int(asked), 40) if asked.isdecimal() and int(asked) else 20


def length(text: str) -> int:
    """Count as the server counts."""
    plain = REMOTE.sub(r"@\1", LINK.sub("x" * 23, text))
    return len(regex.findall(r"\X", plain))


def rendered(text: str) -> str:
    """Return the HTML that the server makes of a text."""

    def link(match: re.Match[str]) -> str:
        return f'<a href="{match[0]}" rel="nofollow noopener" target="_blank">{match[0]}</a>'

    body = LINK.sub(link, html.escape(text, quote=False))
    body = REMOTE.sub(r'<span class="h-card">@<span>\1</span></span>', body)
    body = TAG.sub(r'<a class="mention hashtag" rel="tag">#<span>\1</span></a>', body)
    paragraphs = re.split(r"\n{2,}", body)
    return "".join(f"<p>{one}</p>".replace("\n", "<br />") for one in paragraphs)


def shown(post: dict[str, Any]) -> str:
    """Render a post's text."""
    return rendered(post["text"])


def limited() -> Response:
    """Answer that the account is too fast."""
    headers = {"X-RateLimit-Limit": "300", "X-RateLimit-Remaining": "0"}
    headers["X-RateLimit-Reset"] = iso(int(time.time()) + 2)
    return JSONResponse({"error": "Too many requests"}, 429, headers)


def broken() -> Response:
    """Answer what stands before a server that is down."""
    return Response("<html><title>503</title></html>", 503, media_type="text/html")


def credentials(name: str) -> dict[str, str]:
    """Make an account's credentials."""
    return {"access_token": secrets.token_urlsafe(12)}


def remote_id(number: int, made: Mapping[str, str]) -> str:
    """Count the accounts on."""
    return str(14700 + number)


def mounts(state: State, orders: Orders, base: str) -> dict[str, list[Route]]:
    """Return a server of each software."""
    return {
        f"/{software}": Mastodon(state, orders, f"{base}/{software}", software).routes()
        for software in VERSIONS
    }


STAND_IN = StandIn(
    title="Mastodon",
    hues=("#5a45d6", "#a294ff"),
    seed={"access_token": "sandbox-mastodon-token"},
    credentials=credentials,
    remote_id=remote_id,
    mounts=mounts,
    step_of=step_of,
    limited=limited,
    broken=broken,
    body=shown,
)
