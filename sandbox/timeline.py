"""The page where a person sees what was posted, as each platform would show it."""

from __future__ import annotations

import asyncio
import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import nh3
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from sandbox.stand_ins import found
from sandbox.state import State

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape()
)
#: A poster shows this moment of a video, or its first frame: many films begin in the dark.
_POSTER_AT = 1.0


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
            Route("/poster/{digest}", self.poster),
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
            for name in found()
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
        body = page.render(posts=posts, stand_ins=found(), version=self.state.version, **given)
        policy = "default-src 'none'; img-src 'self'; media-src 'self'; connect-src 'self';"
        policy += " style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return HTMLResponse(body, status, headers={"Content-Security-Policy": policy})

    async def media(self, request: Request) -> Response:
        """Serve a file, ranges too, for pictures and videos."""
        digest = request.path_params["digest"]
        path = self.file_of(digest)
        if path is None:
            return Response("Not found", 404)
        mimes = (
            one["mime"]
            for post in self.state.posts.values()
            for one in post["media"]
            if one.get("sha256") == digest
        )
        return FileResponse(path, media_type=next(mimes, "application/octet-stream"))

    async def poster(self, request: Request) -> Response:
        """Serve a frame of a video, so that it is no black box before it plays."""
        path = self.file_of(request.path_params["digest"])
        frame = await asyncio.to_thread(frame_of, path) if path else None
        if frame is None:
            return Response("Not found", 404)
        return Response(frame, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})

    def file_of(self, digest: str) -> Path | None:
        """Return the file under a digest, which is all that a name may be."""
        path = self.state.folder / "media" / digest
        return path if re.fullmatch(r"[0-9a-f]{64}", digest) and path.is_file() else None


def shown(post: dict[str, Any]) -> dict[str, Any]:
    """Return a post with what the template needs."""
    moment = datetime.fromtimestamp(float(post["received_at"]), UTC)
    return {
        **post,
        "when": moment.strftime("%-d %b %Y, %H:%M UTC"),
        "iso": moment.isoformat(),
        "html": body_of(post),
        "notes": notes_of(post),
        "media_first": found()[post["platform"]].media_first,
    }


def notes_of(post: dict[str, Any]) -> list[str]:
    """Return what a platform would write beside a post, where it is not the usual."""
    seen = post.get("visibility") or post.get("privacy") or "public"
    notes = [] if seen == "public" else [str(seen)]
    if post.get("publish_at"):
        notes.append(f"public from {post['publish_at']}")
    if post.get("synthetic"):
        notes.append("altered or synthetic content")
    if post.get("sensitive"):
        notes.append("sensitive")
    if post.get("failure"):
        notes.append(f"processing failed: {post['failure']}")
    return [*notes, *found()[post["platform"]].notes(post)]


def body_of(post: dict[str, Any]) -> Markup:
    """Render a post's text as its platform does; nothing of it is trusted."""
    body = found()[post["platform"]].body(post)
    tags, attributes = {"a", "br", "p", "span"}, {"a": {"href"}, "span": {"class"}}
    return Markup(nh3.clean(body, tags=tags, attributes=attributes))  # noqa: S704  # nh3 cleaned it


def frame_of(path: Path) -> bytes | None:
    """Return a frame of a video as JPEG, None where there is none."""
    try:
        with av.open(str(path)) as film:
            frame = next(film.decode(video=0))
            for later in film.decode(video=0):
                frame = later
                if (frame.time or 0.0) >= _POSTER_AT:
                    break
            rotation = int(frame.rotation)
            image = frame.to_image()  # type: ignore[no-untyped-call]  # It has no annotation.
            picture = image.rotate(rotation, expand=True)
    except (av.FFmpegError, StopIteration, IndexError):
        return None
    picture.thumbnail((1280, 1280))
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=82)
    return file.getvalue()
