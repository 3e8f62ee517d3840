"""The gateway: serves signed renditions to platforms that pull, and says whether it is well."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from clickpost import logs, signing
from clickpost.settings import Settings
from clickpost.store import Store

GONE = Response("Not found.\n", status_code=404, media_type="text/plain")


async def media(request: Request) -> Response:
    """Serve one rendition (ranges too) to whoever holds a link of ours that still lives."""
    name = PurePosixPath(request.path_params["name"])
    known = signing.may_fetch(
        request.app.state.vault.derived("media-links"),
        request.path_params["rendition_id"],
        request.path_params["expires"],
        name.stem,
        datetime.now(UTC),
    )
    if not known:
        return GONE
    store: Store = request.app.state.store
    found = await store.rendition(request.path_params["rendition_id"])
    if found is None or not Path(found.stored_at).is_file():
        return GONE
    headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
    return FileResponse(found.stored_at, media_type=found.mime, headers=headers)


async def healthz(request: Request) -> Response:
    """Answer 200 only while the database answers us."""
    try:
        await request.app.state.store.ping()
    except Exception as error:
        return JSONResponse({"ok": False, "database": type(error).__name__}, status_code=503)
    return JSONResponse({"ok": True, "database": "ok"})


def app(settings: Settings) -> Starlette:
    """Return the gateway's application."""

    @asynccontextmanager
    async def lifespan(starlette: Starlette) -> AsyncIterator[None]:
        store = await Store.of(settings)
        starlette.state.store = store
        starlette.state.vault = store.vault
        try:
            yield
        finally:
            await store.close()

    return Starlette(
        routes=[
            Route("/media/{rendition_id}/{expires:int}/{name}", media, methods=["GET", "HEAD"]),
            Route("/healthz", healthz),
        ],
        lifespan=lifespan,
    )


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.gateway_port)
    given = parser.parse_args()
    logs.configure(settings.log_format, settings.log_level)
    uvicorn.run(
        app(settings), host=given.host, port=given.port, log_level="warning", server_header=False
    )


if __name__ == "__main__":
    main()
