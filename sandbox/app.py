"""Puts the stand-in platforms, the timeline and the control endpoint into one application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.misbehaviour import Misbehave, Orders
from sandbox.stand_ins import found
from sandbox.state import State
from sandbox.timeline import Timeline


def create_app(data: Path, public_url: str) -> ASGIApp:
    """Return the sandbox, keeping its memory in `data`, reached at `public_url`."""
    state, orders = State(data), Orders()
    base = public_url.rstrip("/")
    mounts = [
        Mount(path, Misbehave(Router(list[BaseRoute](routes)), name, stand_in, orders, state))
        for name, stand_in in found().items()
        for path, routes in stand_in.mounts(state, orders, base).items()
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        saving = asyncio.create_task(saved(state))
        yield
        saving.cancel()
        state.save()

    app = Starlette(
        routes=[
            *mounts,
            *Control(state, orders, base).routes(),
            *Timeline(state).routes(),
        ],
        lifespan=lifespan,
    )
    return with_transport(app)


async def saved(state: State) -> None:
    """Write what changed, once a second."""
    while True:
        await asyncio.sleep(1)
        await asyncio.to_thread(state.save)


def with_transport(app: ASGIApp) -> ASGIApp:
    """Let routes reach the connection, to drop it when that is ordered."""

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            cycle = getattr(send, "__self__", None)
            scope.setdefault("extensions", {})["sandbox.transport"] = getattr(
                cycle, "transport", None
            )
        await app(scope, receive, send)

    return outer


class Control:
    """What a test or a person steers the sandbox with."""

    def __init__(self, state: State, orders: Orders, base: str) -> None:
        self.state, self.orders, self.base = state, orders, base

    def routes(self) -> list[Route]:
        """Return the control routes."""
        return [
            Route("/control/accounts", self.accounts, methods=["GET", "POST"]),
            Route("/control/misbehave", self.misbehave, methods=["GET", "POST", "DELETE"]),
            Route("/control/settings", self.settings, methods=["POST"]),
            Route("/control/posts", self.posts),
            Route("/control/posts", self.changed, methods=["POST"]),
            Route("/control/requests", self.requests),
            Route("/control/reset", self.reset, methods=["POST"]),
        ]

    async def accounts(self, request: Request) -> Response:
        """List the accounts with their credentials, or make another."""
        if request.method == "POST":
            said = await request.json()
            if said.get("platform") not in found() or not said.get("name"):
                return JSONResponse(
                    {"error": f"needs name and platform of {', '.join(found())}"}, 400
                )
            return JSONResponse(self.shown(self.state.add_account(said["platform"], said["name"])))
        rows = [row for known in self.state.accounts.values() for row in known.values()]
        return JSONResponse([self.shown(row) for row in rows])

    def shown(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return an account as a client connects it."""
        platform = row["platform"]
        return {
            "platform": platform,
            "name": row["name"],
            "id": row["id"],
            "api_base": f"{self.base}/{platform}",
            "credentials": row["credentials"],
            "options": found()[platform].options(self.base),
        }

    async def misbehave(self, request: Request) -> Response:
        """Order misbehaviour, list what is ordered, or call it off."""
        if request.method == "DELETE":
            self.orders.orders.clear()
            for known in self.state.accounts.values():
                for row in known.values():
                    row["expired"] = row["revoked"] = False
        if request.method == "POST":
            try:
                self.orders.add(await request.json())
            except (ValueError, TypeError) as error:
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(self.orders.listed())

    async def settings(self, request: Request) -> Response:
        """Set how many seconds a video is processed; 0 is at once."""
        self.state.processing_seconds = float((await request.json())["processing_seconds"])
        return JSONResponse({"processing_seconds": self.state.processing_seconds})

    async def posts(self, request: Request) -> Response:
        """Return the sandbox's own record of what was posted, deleted posts too."""
        query = request.query_params
        rows = self.state.newest(query.get("platform"))
        if account := query.get("account"):
            rows = [row for row in rows if row["account"] == account]
        return JSONResponse(rows)

    async def changed(self, request: Request) -> Response:
        """Delete a post, or give it another `text`, as its owner does in the platform's own app."""
        said = await request.json()
        post = self.state.posts.get(f"{said.get('platform')}/{said.get('id')}")
        if post is None:
            return JSONResponse({"error": "needs platform and id of a post"}, 404)
        if "text" in said:
            post["text"] = said["text"]
            if "record" in post:
                post["record"] = {**post["record"], "text": said["text"]}
        post["deleted"] = bool(said.get("deleted", post["deleted"]))
        self.state.touch()
        return JSONResponse(post)

    async def requests(self, request: Request) -> Response:
        """Return the newest requests: method, path, status; no bodies, no headers."""
        platform = request.query_params.get("platform")
        rows = [row for row in self.state.requests if platform in (None, row["platform"])]
        return JSONResponse(rows)

    async def reset(self, request: Request) -> Response:
        """Forget all posts and orders; accounts stay."""
        self.state.posts.clear()
        self.state.things.clear()
        self.state.requests.clear()
        self.orders.orders.clear()
        self.state.touch()
        return JSONResponse({"ok": True})
