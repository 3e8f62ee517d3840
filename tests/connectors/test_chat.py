"""A chat channel reaches no address inside, by whatever way, unless an operator allows it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from clickpost.errors import Refused, Transient
from connectors import _chat


@dataclass
class Inside:
    """A server on this machine that keeps what it was told; `leads_to` sends on elsewhere."""

    port: int = 0
    got: list[bytes] = field(default_factory=list)
    leads_to: str = ""
    silent: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.got.append(head)
        if self.silent:
            await asyncio.sleep(30)
        says = f"302 Found\r\nLocation: {self.leads_to}" if self.leads_to else "200 OK"
        writer.write(f"HTTP/1.1 {says}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def inside() -> AsyncIterator[Inside]:
    made = Inside()
    server = await asyncio.start_server(made.serve, "0.0.0.0", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def carried(url: str, receivers: str = "", patience: float = 20.0) -> None:
    await _chat.carry(url, "title", "text", receivers, patience)


@pytest.mark.parametrize(
    "url",
    [
        "json://127.0.0.1:{port}/",
        "json://localhost:{port}/",
        "xml://2130706433:{port}/",
        "json://[::ffff:127.0.0.1]:{port}/",
        "rsyslog://127.0.0.1:{port}/",
    ],
)
async def test_what_is_inside_is_not_reached(inside: Inside, url: str) -> None:
    with pytest.raises(Refused, match="CLICKPOST_RECEIVERS"):
        await carried(url.format(port=inside.port))
    assert inside.got == []


@pytest.mark.parametrize("receivers", ["127.0.0.1", "127.0.0.0/8 ::1", "localhost"])
async def test_an_operator_may_allow_a_server_of_his_own(
    inside: Inside, receivers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    host = "localhost" if receivers == "localhost" else "127.0.0.1"
    await carried(f"json://{host}:{inside.port}/", receivers)
    [head] = inside.got
    assert head.startswith(b"POST / ")


async def test_a_redirect_comes_to_the_same_door(inside: Inside) -> None:
    inside.leads_to = f"http://127.0.0.2:{inside.port}/"
    with pytest.raises(Refused):
        await carried(f"json://127.0.0.1:{inside.port}/", "127.0.0.1")
    assert len(inside.got) == 1


async def test_a_service_that_keeps_us_is_left(inside: Inside) -> None:
    inside.silent = True
    with pytest.raises(Transient, match="TimeoutError"):
        await carried(f"json://127.0.0.1:{inside.port}/", "127.0.0.1", patience=3.0)


async def test_what_apprise_does_not_know_is_told_without_the_address() -> None:
    with pytest.raises(Transient) as caught:
        await carried("canary://token")
    assert "canary" not in str(caught.value)


def test_the_process_gets_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKPOST_MASTER_KEY", "canary")
    monkeypatch.setenv("HTTPS_PROXY", "canary")
    assert "canary" not in str(_chat._environment())
    assert os.environ["CLICKPOST_MASTER_KEY"] == "canary"
