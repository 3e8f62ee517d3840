"""The gateway gives strangers nothing: no list, no redirect, no large, slow or endless calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from clickpost import signing
from clickpost.settings import Settings
from clickpost.store import Store
from deployments import _guard, gateway
from deployments._guard import FairShares, SmallBodies
from tests.gateway.conftest import Prefect, serving


class Found:
    def __init__(self, path: Path) -> None:
        self.stored_at, self.mime = str(path), "image/jpeg"


@pytest.fixture
def link(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A link to a rendition that is there."""
    path = tmp_path / "r.jpg"
    path.write_bytes(b"0123456789")

    async def rendition(_: Store, rendition_id: str) -> Found | None:
        return Found(path) if rendition_id == "rend_1" else None

    monkeypatch.setattr(Store, "rendition", rendition)
    key = store.vault.derived("media-links")
    return signing.media_link("", key, "rend_1", ".jpg", datetime.now(UTC))


async def test_a_signed_link_serves_and_every_other_is_the_same_404(
    http: httpx.AsyncClient, link: str, store: Store
) -> None:
    answer = await http.get(link)
    assert (answer.status_code, answer.content) == (200, b"0123456789")
    assert answer.headers["cache-control"] == "no-store"
    part = await http.get(link, headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    _, _, rendition_id, expires, name = link.split("/")
    key = store.vault.derived("media-links")
    missing = signing.media_link("", key, "rend_2", ".jpg", datetime.now(UTC))
    old = signing.media_link("", key, "rend_1", ".jpg", datetime(2020, 1, 1, tzinfo=UTC))
    others = [
        missing,
        old,
        f"/media/{rendition_id}/{expires}/{'0' * 64}.jpg",
        f"/media/{rendition_id}/{int(expires) + 1}/{name}",
        f"/media/rend_2/{expires}/{name}",
        f"/media/{rendition_id}/{'9' * 5000}/{name}",
        f"/media/{rendition_id}/-1/{name}",
        f"/media/{rendition_id}/{expires}/%00.jpg",
        f"/media/{rendition_id}/{expires}/é.jpg",
        f"/media/..%2f..%2fetc/{expires}/{name}",
        "/media/", "/media", "/", "/docs", "/openapi.json", "/hooks", "/hooks/", "/livez/",
        "/.git/config", "/healthz/..", "//x.example/..",
    ]  # fmt: skip
    answers = [await http.get(one) for one in others]
    assert {(one.status_code, one.text) for one in answers} == {(404, "Not found.\n")}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "POST", "BREW"])
async def test_a_wrong_method_is_told_like_a_wrong_path(
    http: httpx.AsyncClient, link: str, method: str
) -> None:
    for path in (link, "/healthz", "/metrics", "/nowhere"):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.headers.get("allow")) == (404, None)


@pytest.mark.parametrize(
    "path", ["/nowhere", "//evil.example", "/livez/", "/healthz?next=//evil", "/livez"]
)
async def test_no_answer_leads_elsewhere_and_all_carry_the_safe_headers(
    http: httpx.AsyncClient, path: str
) -> None:
    answer = await http.get(path, headers={"host": "evil.example"})
    assert answer.status_code in (200, 404)
    assert "location" not in answer.headers
    assert "evil" not in str(answer.headers) + answer.text
    for name, value in _guard.HEADERS.items():
        assert answer.headers[name] == value


async def test_https_is_asked_for_where_we_are_reached_by_it(
    settings: Settings, store: Store, prefect: Prefect
) -> None:
    public = settings.model_copy(update={"public_url": "https://post.example.com"})
    async with serving(public) as http:
        assert "strict-transport-security" in (await http.get("/livez")).headers


async def test_what_breaks_tells_nothing_of_how(
    http: httpx.AsyncClient, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(Store, "rendition", broken)
    answer = await http.get(link)
    assert answer.status_code == 500
    assert "canary" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_body_that_does_not_say_its_size_is_measured(http: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    assert (await http.post("/hooks/cms", content=endless())).status_code == 413
    assert (await http.request("GET", "/livez", content=b"x")).status_code == 413


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError

    async def receive() -> Any:
        await asyncio.sleep(60)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": []}
    await SmallBodies(never, 100, patience=0.05)(scope, receive, send)
    assert sent[0]["status"] == 408


async def test_whoever_guesses_is_slowed_and_others_are_not(
    settings: Settings, store: Store, prefect: Prefect
) -> None:
    app = gateway.app(settings)
    async with app.router.lifespan_context(app):

        async def statuses(address: str, path: str, number: int) -> list[int]:
            transport = httpx.ASGITransport(app, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
                return [(await http.get(path)).status_code for _ in range(number)]

        found = await statuses("198.51.100.7", "/media/a/1/b", _guard.MISSES + 5)
        assert found == [404] * _guard.MISSES + [429] * 5
        assert await statuses("198.51.100.7", "/livez", 1) == [429]
        assert await statuses("198.51.100.8", "/livez", 3) == [200] * 3
        home = [f"2001:db8:1:2::{one:x}" for one in range(_guard.MISSES + 1)]
        found = [(await statuses(one, "/nowhere", 1))[0] for one in home]
        assert found[-1] == 429, "one home has many addresses"


async def test_calls_that_succeed_have_an_end_too() -> None:
    async def fine(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    app, seen = FairShares(fine, calls=3), []

    async def send(message: Any) -> None:
        if "status" in message:
            seen.append(message["status"])

    for _ in range(5):
        await app({"type": "http", "client": ("198.51.100.1", 1)}, None, send)  # type: ignore[arg-type]
    assert seen == [200, 200, 200, 429, 429]


async def spoken(port: int, *said: bytes, pause: float) -> tuple[bytes, float]:
    """Say something slowly; return what came back, and after how long the line was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        for word in said:
            writer.write(word)
            await writer.drain()
            await asyncio.sleep(pause)
        answer = await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        answer = b""
    took = loop.time() - begun
    writer.close()
    return answer, took


async def test_a_head_that_comes_letter_by_letter_is_cut(
    settings: Settings, store: Store, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard.PatientOnce, "patience", 0.4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = gateway.server(settings, "127.0.0.1", port)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    try:
        letters = [b"GET /livez HTTP/1.1\r\n", *(b"x" for _ in range(20))]
        whole = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await spoken(port, pause=0))[1] < 2
        assert (await spoken(port, *letters, pause=0.1))[0] == b""
        assert b"200 OK" in (await spoken(port, whole, pause=0))[0]
        assert (await spoken(port, whole, *letters, pause=0.1))[1] < 15, "the second one too"
        head = b"GET /livez HTTP/1.1\r\nX: " + b"x" * 70_000
        assert b"400" in (await spoken(port, head, pause=0))[0]
    finally:
        server.should_exit = True
        await serving
