"""The gateway in our own process: its real application, the real store, a Prefect that listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from clickpost.settings import Settings
from clickpost.store import Store
from deployments import gateway, health


class Prefect:
    """What the gateway asks of Prefect's API, with a worker that is heard of."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.beat: datetime | None = datetime.now(UTC)
        self.fails: Exception | int | None = None
        self.ahead = timedelta()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails is not None:
            return httpx.Response(self.fails)
        if request.url.path.endswith("/events"):
            import json

            self.events += json.loads(request.read())
            return httpx.Response(204)
        beat = self.beat.isoformat() if self.beat else None
        date = format_datetime(datetime.now(UTC) + self.ahead, usegmt=True)
        rows = [{"name": "warm-host", "last_heartbeat_time": beat}]
        return httpx.Response(200, json=rows, headers={"date": date})


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    made = Prefect()

    def client(settings: Settings) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://prefect/api", transport=httpx.MockTransport(made))

    monkeypatch.setattr(health, "prefect_client", client)
    return made


Opened = Callable[..., Any]


@asynccontextmanager
async def serving(
    settings: Settings, client: str = "198.51.100.7"
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway that runs in this process."""
    app = gateway.app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=(client, 1234), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            yield http


@pytest_asyncio.fixture
async def http(
    settings: Settings, store: Store, prefect: Prefect
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that runs in this process."""
    async with serving(settings) as made:
        yield made
