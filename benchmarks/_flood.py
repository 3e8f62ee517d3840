"""A sender of signed webhooks that costs the machine little, and a bare endpoint to compare with.

The sender speaks HTTP/1.1 by itself, for httpx would take most of a processor: what is measured is
who is called.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clickpost.telling import signed

#: Lines that are open side by side, each with one call at a time.
AT_ONCE = 64
_BODY = b'{"type": "article.published", "data": {"id": 4711}}'


@dataclass
class Flood:
    """What came of a flood: the ids of what was accepted, refusals by status, seconds of each."""

    accepted: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    seconds: float = 0.0
    memory: tuple[int, int] = (0, 0)

    @property
    def rate(self) -> float:
        """Calls accepted a second."""
        return len(self.accepted) / self.seconds


async def send(url: str, number: int, secret: str) -> Flood:
    """Send so many calls; one that is refused is sent again, as its sender would."""
    flood, waiting = Flood(), list(range(number))
    began = monotonic()
    await asyncio.gather(*(_line(url, waiting, secret, flood) for _ in range(AT_ONCE)))
    flood.seconds = monotonic() - began
    return flood


async def _line(url: str, waiting: list[int], secret: str, flood: Flood) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    while waiting:
        one = waiting.pop()
        began = monotonic()
        writer.write(_said(parts.netloc, parts.path, f"flood-{one}", secret))
        status, body = await _answer(reader)
        if status < 300:
            flood.took.append(monotonic() - began)
            flood.accepted.append(str(json.loads(body).get("id", one)))
        else:
            flood.refused[status] += 1
            waiting.append(one)
            await asyncio.sleep(1)
    writer.close()


def _said(host: str, path: str, call_id: str, secret: str) -> bytes:
    headers = {
        "Host": host,
        "Content-Length": str(len(_BODY)),
        **signed(call_id, _BODY, secret, datetime.now(UTC)),
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {said}" for name, said in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + _BODY


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length:")[2].split()[0])
    return int(head.split()[1]), await reader.readexactly(length)


@asynccontextmanager
async def bare_endpoint() -> AsyncIterator[str]:
    """Yield the address of an endpoint in a process of its own, that reads a body and answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, str(port))
    try:
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
            except ConnectionError:
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        await process.wait()


async def _take(request: Request) -> Response:
    await request.body()
    return JSONResponse({}, 202)


def _serve(port: int) -> None:
    import uvicorn

    app = Starlette(routes=[Route("/", _take, methods=["POST"])])
    uvicorn.run(app, port=port, log_level="error", http="h11", access_log=False)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
