"""The page where a person sees what was posted, as each platform would show it."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nh3
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from sandbox.mastodon import LINK, rendered
from sandbox.state import State

TITLES = {
    "bluesky": "Bluesky",
    "mastodon": "Mastodon",
    "instagram": "Instagram",
    "youtube": "YouTube",
}
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape()
)
_TAG = re.compile(r"(?<![\w&/])([#@][\w.]+)")


class Timeline:
    """The timeline's routes."""

    def __init__(self, state: State) -> None:
        self.state = state

    def routes(self) -> list[Route]:
        """Return the routes of the page."""
        return [
            Route("/", self.page),
            Route("/p/{platform}/{id}", self.one),
            Route("/version", self.version),
            Route("/media/{digest}", self.media),
            Route("/healthz", self.health),
        ]

    async def health(self, request: Request) -> Response:
        """Answer that the sandbox is up."""
        return JSONResponse({"ok": True, "is": "clickpost-sandbox"})

    async def version(self, request: Request) -> Response:
        """Answer a number that changes with the content, for the page to look at."""
        return JSONResponse({"version": self.state.version})

    async def page(self, request: Request) -> Response:
        """Show the newest posts, of all platforms or of one."""
        chosen = request.query_params.get("platform")
        posts = [shown(post) for post in self.state.newest(chosen)[:60]]
        counts = {
            name: sum(1 for post in self.state.posts.values() if post["platform"] == name)
            for name in TITLES
        }
        return self.rendered(posts, chosen=chosen, counts=counts)

    async def one(self, request: Request) -> Response:
        """Show one post under its permalink."""
        key = f"{request.path_params['platform']}/{request.path_params['id']}"
        post = self.state.posts.get(key)
        if post is None:
            return self.rendered([], missing=True, status=404)
        return self.rendered([shown(post)], single=True)

    def rendered(self, posts: list[dict[str, Any]], status: int = 200, **more: Any) -> Response:
        """Return the page with `posts`."""
        page = _PAGES.get_template("timeline.html")
        given = {"chosen": None, "counts": {}, "single": False, "missing": False, **more}
        body = page.render(posts=posts, titles=TITLES, version=self.state.version, **given)
        policy = "default-src 'none'; img-src 'self'; media-src 'self'; connect-src 'self';"
        policy += " style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return HTMLResponse(body, status, headers={"Content-Security-Policy": policy})

    async def media(self, request: Request) -> Response:
        """Serve a file, ranges too, for pictures and videos."""
        digest = request.path_params["digest"]
        path = self.state.folder / "media" / digest
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not path.is_file():
            return Response("Not found", 404)
        mimes = (
            one["mime"]
            for post in self.state.posts.values()
            for one in post["media"]
            if one.get("sha256") == digest
        )
        return FileResponse(path, media_type=next(mimes, "application/octet-stream"))


def shown(post: dict[str, Any]) -> dict[str, Any]:
    """Return a post with what the template needs."""
    moment = datetime.fromtimestamp(float(post["received_at"]), UTC)
    return {
        **post,
        "when": moment.strftime("%-d %B %Y, %H:%M:%S UTC"),
        "iso": moment.isoformat(),
        "html": body_of(post),
        "shape": "video" if any(one["kind"] == "video" for one in post["media"]) else "image",
    }


def body_of(post: dict[str, Any]) -> Markup:
    """Render a post's text as its platform does; nothing of it is trusted."""
    match post["platform"]:
        case "bluesky":
            body = faceted(post["record"])
        case "mastodon":
            body = rendered(post["text"])
        case _:
            text = html.escape(post["text"], quote=False)
            body = _TAG.sub(r'<span class="tag">\1</span>', text).replace("\n", "<br>")
            if post["platform"] == "youtube":
                body = LINK.sub(lambda m: f'<a href="{m[0]}">{m[0]}</a>', body)
    tags, attributes = {"a", "br", "p", "span"}, {"a": {"href"}, "span": {"class"}}
    return Markup(nh3.clean(body, tags=tags, attributes=attributes))  # noqa: S704  # nh3 cleaned it


def faceted(record: dict[str, Any]) -> str:
    """Render a record's text with its facets, which count in bytes."""
    raw, pieces, at = record["text"].encode(), [], 0
    for facet in sorted(record.get("facets", []), key=lambda one: one["index"]["byteStart"]):
        start, end = facet["index"]["byteStart"], facet["index"]["byteEnd"]
        feature = facet["features"][0]
        href = feature.get("uri") or "#"
        pieces.append(html.escape(raw[at:start].decode(), quote=False))
        pieces.append(f'<a href="{html.escape(href)}">{html.escape(raw[start:end].decode())}</a>')
        at = end
    pieces.append(html.escape(raw[at:].decode(), quote=False))
    return "".join(pieces).replace("\n", "<br>")
