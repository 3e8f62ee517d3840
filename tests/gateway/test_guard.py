"""The gateway gives strangers nothing: no list, no redirect, no large, slow or endless calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from clickpost import signing
from clickpost.settings import Settings
from clickpost.store import Store
from deployments import _guard, gateway
from deployments._guard import FairShares, Room, SmallBodies
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


async def statuses_of(app: Any, number: int, address: str = "198.51.100.1", **scope: Any) -> Any:
    """Call an application of bare ASGI so many times at once; return the statuses."""
    seen: list[int] = []

    async def send(message: Any) -> None:
        if "status" in message:
            seen.append(message["status"])

    one = {"type": "http", "method": "POST", "headers": [], "client": (address, 1), **scope}
    await asyncio.gather(*(app(dict(one), None, send) for _ in range(number)))
    return seen


async def answered(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def test_calls_that_succeed_have_an_end_too() -> None:
    assert await statuses_of(FairShares(answered, calls=3), 5) == [200, 200, 200, 429, 429]


async def test_who_signs_takes_nobodys_share_for_many_may_have_his_address() -> None:
    async def signed(scope: Any, receive: Any, send: Any) -> None:
        scope[_guard.GENUINE] = scope["method"] == "POST"
        await answered(scope, receive, send)

    app = FairShares(signed, calls=3)
    assert await statuses_of(app, 20) == [200] * 20
    assert await statuses_of(app, 4, method="GET") == [200, 200, 200, 429]


async def test_no_address_fills_the_room_and_those_inside_have_an_end() -> None:
    go = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answered(scope, receive, send)

    app = Room(slow, calls=5, of_one=3)
    one = asyncio.create_task(statuses_of(app, 4))
    other = asyncio.create_task(statuses_of(app, 3, "198.51.100.2"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    assert (await one, await other) == ([503, 200, 200, 200], [503, 200, 200])
    assert await statuses_of(app, 3) == [200] * 3


async def test_bodies_have_a_bound_together_as_each_has_one() -> None:
    async def whole() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x" * 60, "more_body": False}

    seen: list[int] = []

    async def send(message: Any) -> None:
        if "status" in message:
            seen.append(message["status"])

    app = SmallBodies(answered, 100, most_held=200)
    said = {"type": "http", "method": "POST", "headers": [(b"content-length", b"60")]}
    unsaid = {"type": "http", "method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}
    await asyncio.gather(*(app(one, whole, send) for one in (said, said, said, said, unsaid)))
    assert seen == [503, 503, 200, 200, 200]
    await asyncio.gather(*(app(one, whole, send) for one in (unsaid, unsaid)))
    assert seen[5:] == [200, 200]


@dataclass
class Line:
    """A line to a gateway that listens."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *words: bytes, pause: float = 0.0) -> None:
        for word in words:
            self.writer.write(word)
            await asyncio.sleep(pause)

    async def end(self, within: float = 5.0) -> bytes | None:
        """Return what came until the line was closed; None where it was broken off."""
        try:
            async with asyncio.timeout(within):
                return await self.reader.read()
        except ConnectionError:
            return None
        finally:
            self.writer.close()


Call = Callable[[], Awaitable[Line]]


@pytest_asyncio.fixture
async def call(
    settings: Settings, store: Store, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Call]:
    """Opens lines to a real server, with little patience and few places."""
    monkeypatch.setattr(_guard.PatientOnce, "patience", 0.3)
    monkeypatch.setattr(_guard.PatientOnce, "reading_patience", 0.3)
    monkeypatch.setattr(_guard.PatientOnce, "places", 20)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = gateway.server(settings, "127.0.0.1", port)
    serves = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)

    async def opened() -> Line:
        return Line(*await asyncio.open_connection("127.0.0.1", port))

    yield opened
    server.should_exit = True
    await serves


WHOLE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LETTERS = (b"GET /livez HTTP/1.1\r\n", *(b"x" for _ in range(7)))


async def test_a_head_that_comes_letter_by_letter_or_not_at_all_is_cut(call: Call) -> None:
    silent, slow, second, ahead, fine = [await call() for _ in range(5)]
    await asyncio.gather(
        slow.say(*LETTERS, pause=0.1),
        second.say(WHOLE, *LETTERS, pause=0.1),
        ahead.say(WHOLE + LETTERS[0]),  # The half of a next head, before the first one's answer.
        fine.say(LAST),
    )
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert not await silent.end()
    assert not await slow.end()
    for line in (second, ahead):
        assert (await line.end() or b"").count(b"200 OK") in (0, 1)
    assert loop.time() - begun < 1.5
    assert b"200 OK" in (await fine.end() or b"")


async def test_who_does_not_read_his_answer_loses_his_place(
    call: Call, link: str, tmp_path: Path
) -> None:
    with (tmp_path / "r.jpg").open("wb") as file:
        file.truncate(50_000_000)
    line = await call()
    await line.say(f"GET {link} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await line.reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(1)
    assert len(await line.end() or b"") < 40_000_000


async def test_places_that_are_held_for_nothing_go_to_who_comes(call: Call) -> None:
    held = [await call() for _ in range(60)]
    line = await call()
    await line.say(LAST)
    assert b"200 OK" in (await line.end(0.25) or b"")
    for one in held:
        one.writer.close()


async def test_an_answer_that_comes_before_the_end_of_the_body_is_read(call: Call) -> None:
    head = b"POST /hooks/cms HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
    line = await call()
    await line.say(head, *(b"x" * 100_000 for _ in range(20)), pause=0.002)
    answer = await line.end()
    assert answer is not None, "the line was broken off, and the answer with it"
    assert answer.startswith(b"HTTP/1.1 413")


async def test_who_does_not_end_his_body_is_not_heard_out(call: Call) -> None:
    line = await call()
    await line.say(b"POST /hooks/cms HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000\r\n\r\n")

    async def endless() -> None:
        while True:
            line.writer.write(b"x" * 100_000)
            await line.writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(endless(), 10)


@pytest.mark.parametrize(
    "said",
    [
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * 70_000,
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: 1\r\n" * 9000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"POST /hooks/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /hooks/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /hooks/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_honest_head_is_refused_and_the_line_closed(
    call: Call, said: bytes
) -> None:
    line = await call()
    await line.say(said)
    answer = await line.end()
    assert answer is None or answer[9:12] in (b"400", b"431", b"501"), answer
    assert answer is None or answer.count(b"HTTP/1.1") == 1


async def test_a_call_hidden_in_another_ones_body_is_none(call: Call) -> None:
    """Request smuggling: a proxy may go by the length where we go by the chunks."""
    hidden = b"0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /hooks/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(hidden)
    line = await call()
    await line.say(head + b"Transfer-Encoding: chunked\r\n\r\n" + hidden)
    answer = await line.end() or b""
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"200 OK" not in answer
