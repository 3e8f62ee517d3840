"""What stands before the gateway: small bodies, little patience, fair shares, safe headers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Calls of one address in a minute; and those which came to nothing: whoever guesses is slowed.
CALLS, MISSES = 3000, 60
#: Seconds in which a request has to have said all of its head, and then its body.
HEAD_PATIENCE, BODY_PATIENCE = 10.0, 15.0

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class SafeHeaders:
    """Puts the headers that keep browsers safe on each answer, unless that has its own."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if secure else {})
        self._headers = {name.lower().encode(): text.encode() for name, text in headers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; what is answered gets the headers."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", []))
                known = {name.lower() for name, _ in own}
                own += [pair for pair in self._headers.items() if pair[0] not in known]
                message = {**message, "headers": own}
            await send(message)

        await self._app(scope, receive, sent)


class SmallBodies:
    """Hands on a body that is whole, small and in time; refuses the rest unread."""

    def __init__(self, app: ASGIApp, largest: int, patience: float = BODY_PATIENCE) -> None:
        self._app, self._largest, self._patience = app, largest, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body within bounds, then let the application have it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if isinstance(body, Response):
            await body(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | Response:
        largest = self._largest if scope["method"] in ("POST", "PUT", "PATCH") else 0
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or len(said) > 12:
            return _closing("Bad request.\n", 400)
        if int(said) > largest:
            return _closing("Too large.\n", 413)
        read = bytearray()
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _closing("Gone.\n", 400)
                    read += message.get("body", b"")
                    if len(read) > largest:
                        return _closing("Too large.\n", 413)
                    if not message.get("more_body", False):
                        return bytes(read)
        except TimeoutError:
            return _closing("Too slow.\n", 408)


def _closing(text: str, status: int) -> Response:
    return PlainTextResponse(text, status, {"Connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()  # A disconnect, when it comes.
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


class FairShares:
    """Lets one address make so many calls a minute, and far fewer that come to nothing."""

    def __init__(self, app: ASGIApp, calls: int = CALLS, misses: int = MISSES) -> None:
        self._app = app
        self._counter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._calls, self._misses = RateLimitItemPerMinute(calls), RateLimitItemPerMinute(misses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429 to whoever used up a share; count what others come to."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        who = _whose(scope)
        guessed = not await self._counter.test(self._misses, "misses", who)
        if guessed or not await self._counter.hit(self._calls, "calls", who):
            answer = PlainTextResponse("Too many requests.\n", 429, {"Retry-After": "60"})
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, self._counting(who, send))

    def _counting(self, who: str, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and 400 <= message["status"] < 500:
                await self._counter.hit(self._misses, "misses", who)
            await send(message)

        return sent


def _whose(scope: Mapping[str, Any]) -> str:
    """Return whose share a call takes: an address, or the network of one home for IPv6."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


class PatientOnce(H11Protocol):
    """Uvicorn's protocol, which closes what does not say all of its head in time.

    Uvicorn's own `timeout_keep_alive` counts only between requests: a client that says a head
    letter by letter, or none at all, would keep its place for ever.
    """

    patience = HEAD_PATIENCE
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a head is whole; wait for the next one after its answer."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the wait."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.patience, self._give_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()
