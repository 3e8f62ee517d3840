"""The gateway: media for platforms that pull, webhooks in, pages for whoever was sent a link.

And whether the house is well. It has no list and no redirect: what is not named right is a 404.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from time import monotonic

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from clickpost import exporting, hooks, logs, signing
from clickpost.errors import Unavailable
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.database import is_away
from connectors._api import client
from deployments import health
from deployments._guard import (
    HEADERS,
    PLACES,
    FairShares,
    PatientOnce,
    Room,
    SafeHeaders,
    SmallBodies,
)
from deployments.health import Part
from deployments.hooks import Hooks
from deployments.inviting import Invitations
from deployments.metrics import Counters, Metrics
from deployments.requesting import Requests
from deployments.revoking import Revocations

#: Seconds for which an answer about the house's health holds, however many ask.
_FRESH_FOR = 2.0
#: Places that are answered also while a restored database waits for its replay.
_ALWAYS = ("livez", "healthz", "metrics")
#: Seconds after which an answer that we still work on is given up; files take their time.
_PATIENCE = 30.0

Handler = Callable[[Request], Awaitable[Response]]


def _gone(request: Request, error: Exception | None = None) -> Response:
    return PlainTextResponse("Not found.\n", 404)


def _restoring() -> Response:
    return PlainTextResponse("We are being restored. Come again.\n", 503, {"Retry-After": "60"})


def _broken(request: Request, error: Exception) -> Response:
    return PlainTextResponse("Something broke; it is in the gateway's log.\n", 500, HEADERS)


class Desk:
    """What answers: one for each application, opened with it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self._asking = asyncio.Lock()
        self._served_at = float("-inf")
        self._known: tuple[float, list[Part]] = (-_FRESH_FOR, [])

    @asynccontextmanager
    async def opened(self, app: Starlette) -> AsyncIterator[None]:
        """Hold the store and Prefect's client open, and hand webhooks on meanwhile."""
        async with health.prefect_client(self.settings) as prefect:
            self.store = await Store.of(self.settings)
            self.prefect = prefect
            self.hooks = Hooks(self.store, prefect, self.counters)
            self.metrics = Metrics(self.settings, self.store, prefect, self.counters)
            handing = asyncio.create_task(self.hooks.hand_on())
            try:
                async with client() as http:
                    self.revocations = Revocations(self.settings, self.store)
                    self.requests = Requests(self.settings, self.store, prefect)
                    self.invitations = Invitations(self.settings, self.store, http, self.counters)
                    yield
            finally:
                self.hooks.stop()
                await handing
                await self.store.close()

    async def serves(self) -> bool:
        """Say whether the database is not one that was restored and waits for its replay."""
        if monotonic() - self._served_at > _FRESH_FOR:
            try:
                await self.store.refuse_restored()
            except Unavailable:  # Restored, or what says so cannot be read.
                return False
            except Exception as error:
                if not is_away(error):  # That has an answer of its own, further in.
                    raise
            self._served_at = monotonic()
        return True

    def routes(self) -> list[Route]:
        """Return all that there is."""
        return [
            self._route("/media/{rendition_id}/{expires}/{name}", self.media, "GET", None),
            self._route("/exports/{export_id}/{expires}/{mark}", self.export, "GET", None),
            self._route("/hooks/{name}", self.hook, "POST"),
            self._route("/connect/{link}", self.invited),
            self._route("/connect/{link}", self.begin, "POST"),
            # The platform's answer has a patience of its own, and a page that says so.
            self._route("/connect/{platform}/callback", self.come_back, "GET", None),
            self._route("/callbacks/{platform}/deauthorize", self.deauthorize, "POST"),
            self._route("/callbacks/{platform}/data-deletion", self.data_deletion, "POST"),
            self._route("/callbacks/{platform}/events", self.event, "POST"),
            self._route("/requests/confirm/{link}", self.ask),
            self._route("/requests/confirm/{link}", self.confirm, "POST"),
            self._route("/requests/{code}/certificate", self.certificate),
            self._route("/requests/{code}", self.request),
            self._route("/requests/{code}", self.bring, "POST"),
            self._route("/livez", self.livez),
            self._route("/healthz", self.healthz),
            self._route("/metrics", self.tell_metrics),
        ]

    def _route(
        self, path: str, handler: Handler, method: str = "GET", patience: float | None = _PATIENCE
    ) -> Route:
        async def within(request: Request) -> Response:
            name = path.split("/")[1]
            try:
                async with asyncio.timeout(patience):
                    serves = name in _ALWAYS or await self.serves()
                    answer = await handler(request) if serves else _restoring()
            except TimeoutError:
                answer = PlainTextResponse("Come again.\n", 503, {"Retry-After": "10"})
            self.counters.answers.labels(name, str(answer.status_code)).inc()
            return answer

        return Route(path, within, methods=[method])

    async def media(self, request: Request) -> Response:
        """Serve one rendition (ranges too) to whoever holds a link of ours that still lives."""
        rendition_id, expires = request.path_params["rendition_id"], request.path_params["expires"]
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return _gone(request)
        known = signing.may_fetch(
            self.store.vault.derived("media-links"),
            rendition_id,
            int(expires),
            PurePosixPath(request.path_params["name"]).stem,
            datetime.now(UTC),
        )
        if not known:
            return _gone(request)
        found = await self.store.rendition(rendition_id)
        if found is None or not Path(found.stored_at).is_file():
            return _gone(request)
        return FileResponse(found.stored_at, media_type=found.mime)

    async def export(self, request: Request) -> Response:
        """Give a person what they asked for, as long as their link lives."""
        export_id, expires = request.path_params["export_id"], request.path_params["expires"]
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return _gone(request)
        key, mark = self.store.vault.derived("export-links"), request.path_params["mark"]
        if not exporting.may_fetch(key, export_id, int(expires), mark, datetime.now(UTC)):
            return _gone(request)
        found = exporting.parcel(self.settings.media_root, export_id)
        if found is None or found.expires != int(expires):
            return _gone(request)
        return FileResponse(
            found.path,
            media_type="application/zip",
            filename=f"{export_id}.zip",
            headers={"Cache-Control": "no-store"},
        )

    async def hook(self, request: Request) -> Response:
        """Take a webhook in."""
        return await self.hooks.take(request)

    async def invited(self, request: Request) -> Response:
        """Show what an account's owner is asked for."""
        return await self.invitations.show(request)

    async def begin(self, request: Request) -> Response:
        """Send the owner to the platform."""
        return await self.invitations.begin(request)

    async def come_back(self, request: Request) -> Response:
        """Connect the account, or say why not."""
        return await self.invitations.come_back(request)

    async def deauthorize(self, request: Request) -> Response:
        """End what its owner took back at the platform."""
        return await self.revocations.take(request)

    async def data_deletion(self, request: Request) -> Response:
        """Take a request to erase from a platform, for its user."""
        return await self.requests.delete(request)

    async def event(self, request: Request) -> Response:
        """Hear what a platform's webhook tells of people who removed our app."""
        return await self.requests.event(request)

    async def ask(self, request: Request) -> Response:
        """Show what a person is to confirm."""
        return await self.requests.ask(request)

    async def confirm(self, request: Request) -> Response:
        """Take a person's confirmation."""
        return await self.requests.confirm(request)

    async def certificate(self, request: Request) -> Response:
        """Give what was done, signed."""
        return await self.requests.certificate(request)

    async def request(self, request: Request) -> Response:
        """Show how far a person's request has come."""
        return await self.requests.show(request)

    async def bring(self, request: Request) -> Response:
        """Take a person's request from a client."""
        return await self.requests.bring(request)

    async def livez(self, request: Request) -> Response:
        """Answer 200 while the gateway and its database work: what a restart might mend."""
        found = await health.database(self.store)
        return JSONResponse({"ok": found.well}, 200 if found.well else 503)

    async def healthz(self, request: Request) -> Response:
        """Answer 200 while posts go out: database, Prefect, a worker, room on the disk."""
        parts = await self._parts()
        well = all(one.well for one in parts)
        says = {"ok": well, "parts": {one.name: one.says for one in parts}}
        return JSONResponse(says, 200 if well else 503)

    async def _parts(self) -> list[Part]:
        async with self._asking:
            if monotonic() - self._known[0] >= _FRESH_FOR:
                found = await health.look(self.settings, self.store, self.prefect)
                self._known = (monotonic(), found)
            return self._known[1]

    async def tell_metrics(self, request: Request) -> Response:
        """Tell Prometheus; where others reach us, only who brings the token."""
        if not self._may_measure(request.headers.get("authorization", "")):
            return _gone(request)
        return Response(await self.metrics.tell(), media_type=CONTENT_TYPE_LATEST)

    def _may_measure(self, given: str) -> bool:
        token = self.settings.metrics_token
        if token is None:
            return not self.settings.is_public
        expected = f"Bearer {token.get_secret_value()}"
        return hmac.compare_digest(expected.encode(), given.encode())


def app(settings: Settings) -> Starlette:
    """Return the gateway's application."""
    desk = Desk(settings)
    secure = (settings.public_url or "").startswith("https://")
    made = Starlette(
        routes=desk.routes(),
        lifespan=desk.opened,
        middleware=[
            Middleware(SafeHeaders, secure=secure),
            Middleware(Room),
            Middleware(FairShares),
            Middleware(SmallBodies, largest=hooks.LARGEST),
        ],
        # A wrong method is told like a wrong path: what there is, is not for guessing.
        exception_handlers={404: _gone, 405: _gone, 500: _broken},
    )
    made.router.redirect_slashes = False
    return made


def server(settings: Settings, host: str, port: int) -> uvicorn.Server:
    """Return the server: small heads, short waits, as many connections as it can hold."""
    return uvicorn.Server(
        uvicorn.Config(
            app(settings),
            host=host,
            port=port,
            log_level="warning",
            server_header=False,
            http=PatientOnce,
            ws="none",
            h11_max_incomplete_event_size=16 * 1024,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
        )
    )


def _let_in(places: int) -> None:
    """Have as many files open as there are places: many systems let a process have 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = places + 500  # The database, files that are served, and the rest.
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.gateway_port)
    given = parser.parse_args()
    logs.configure(settings.log_format, settings.log_level)
    _let_in(PLACES)
    server(settings, given.host, given.port).run()


if __name__ == "__main__":
    main()
