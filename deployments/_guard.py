"""What stands before the gateway: small bodies, little patience, fair shares, safe headers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Mapping
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Calls of one address in a minute; and those which came to nothing: whoever guesses is slowed.
CALLS, MISSES = 3000, 60
#: Seconds in which a request has to have said all of its head, and then its body. A sender that
#: floods us may itself be slow, and a place that is needed is taken from the silent anyway.
HEAD_PATIENCE, BODY_PATIENCE = 30.0, 15.0
#: Seconds for which an answer may wait that its receiver reads on.
READING_PATIENCE = 30.0
#: Bytes of a head, all its names and words; and of all bodies that are at hand at a time.
LARGEST_HEAD, MOST_HELD = 16 * 1024, 32 * 1024 * 1024
#: Calls that are worked at a time, and connections that are held, busy or not.
ROOM, PLACES = 500, 2000
#: Seconds, and bytes, for which a sender is heard out after an answer that ends the line.
LINGER, LARGEST_LEFT = 2.0, 4 * 1024 * 1024
#: Where a scope says that its call was signed by somebody we know.
GENUINE = "clickpost.genuine"

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
    """Hands on a body that is whole, small and in time; refuses the rest unread.

    All bodies at hand together have their bound too: many small ones fill the memory as well.
    """

    def __init__(
        self,
        app: ASGIApp,
        largest: int,
        patience: float = BODY_PATIENCE,
        most_held: int = MOST_HELD,
    ) -> None:
        self._app, self._largest, self._patience = app, largest, patience
        self._most_held, self._held = most_held, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body within bounds, then let the application have it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = self._size(scope)
        if isinstance(size, Response):
            await size(scope, receive, send)
            return
        self._held += size
        try:
            body = await self._read(receive, size)
            if isinstance(body, Response):
                await body(scope, receive, send)
            else:
                await self._app(scope, _replayed(body, receive), send)
        finally:
            self._held -= size

    def _size(self, scope: Scope) -> int | Response:
        """Return the most bytes that the body may have: those that it says, else the largest."""
        if sum(len(name) + len(text) for name, text in scope["headers"]) > LARGEST_HEAD:
            return _closing("Too large.\n", 431)
        largest = self._largest if scope["method"] in ("POST", "PUT", "PATCH") else 0
        headers = dict(scope["headers"])
        said = headers.get(b"content-length", b"0")
        chunked = b"transfer-encoding" in headers
        # Both at once hide a second call in a body, where a proxy goes by the other one.
        if not said.isdigit() or len(said) > 12 or (chunked and b"content-length" in headers):
            return _closing("Bad request.\n", 400)
        if int(said) > largest:
            return _closing("Too large.\n", 413)
        size = largest if chunked else int(said)
        if size and self._held + size > self._most_held:
            return _closing("Come again.\n", 503, {"Retry-After": "1"})
        return size

    async def _read(self, receive: Receive, largest: int) -> bytes | Response:
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


def _closing(text: str, status: int, more: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(text, status, {"Connection": "close", **(more or {})})


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
        """Answer 429 to whoever used up a share; count what others come to.

        A call that proved by a signature whose it is takes no share: a busy sender is no stranger,
        and it may share its address, that of a proxy, with all the others.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        who = _whose(scope)
        for share, name in ((self._misses, "misses"), (self._calls, "calls")):
            if not await self._counter.test(share, name, who):
                answer = PlainTextResponse("Too many requests.\n", 429, {"Retry-After": "60"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, self._counting(scope, who, send))

    def _counting(self, scope: Scope, who: str, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and not scope.get(GENUINE):
                await self._counter.hit(self._calls, "calls", who)
                if 400 <= message["status"] < 500:
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


class Room:
    """Lets so many calls be worked at a time, and no single address fill all of the room.

    Uvicorn's own `limit_concurrency` counts connections: whoever opened enough of them and said
    nothing kept everybody out.
    """

    def __init__(self, app: ASGIApp, calls: int = ROOM, of_one: int = ROOM // 2) -> None:
        self._app, self._calls, self._of_one = app, calls, of_one
        self._inside: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503 where there is no room."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        who = _whose(scope)
        if self._inside.total() >= self._calls or self._inside[who] >= self._of_one:
            answer = PlainTextResponse("Come again.\n", 503, {"Retry-After": "1"})
            await answer(scope, receive, send)
            return
        self._inside[who] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside[who] -= 1
            if not self._inside[who]:
                del self._inside[who]


class Lingering(asyncio.Transport):
    """A transport whose end is heard: what the other side still says is read, and thrown away.

    A socket that is closed while something unread lies in it is reset, and a reset takes the last
    answer away from whoever has not read it yet: a sender that was told 413 or 503 before it had
    said all of its body saw a broken line and no answer.
    """

    def __init__(self, transport: asyncio.Transport, patience: float = LINGER) -> None:
        super().__init__()
        self._transport, self._patience = transport, patience
        self._left = LARGEST_LEFT
        self._end: asyncio.TimerHandle | None = None

    def write(self, data: Any) -> None:
        """Pass on, until the end was said."""
        if self._end is None:
            self._transport.write(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Pass on."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Say whether the end was said."""
        return self._end is not None or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Pass on."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Pass on."""
        self._transport.resume_reading()

    def abort(self) -> None:
        """Cut the line."""
        self._transport.abort()

    def close(self) -> None:
        """Say that this was all; cut the line once the other side ends too, or soon."""
        if self.is_closing():
            return
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(self._patience, self._transport.abort)
        self._transport.write_eof()
        self._transport.resume_reading()

    def swallowed(self, data: bytes) -> bool:
        """Throw `data` away if the end was said; say whether."""
        if self._end is None:
            return False
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()
        return True

    def gone(self) -> None:
        """Forget the wait."""
        if self._end is not None:
            self._end.cancel()


class PatientOnce(H11Protocol):
    """Uvicorn's protocol, for strangers: nobody keeps a place by saying or reading nothing.

    Uvicorn's own `timeout_keep_alive` counts only between requests: a client that says a head
    letter by letter, or none at all, or does not read its answer, would keep its place for ever.
    Where all places are taken, whoever has said nothing for longest gives up his.
    """

    patience = HEAD_PATIENCE
    reading_patience = READING_PATIENCE
    places = PLACES
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _line: Lingering

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        if len(self.connections) >= self.places:
            self._make_room()
        self._line = Lingering(transport)
        super().connection_made(self._line)
        self.flow = FlowControl(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a head is whole; wait for the next one after its answer."""
        if self._line.swallowed(data):
            return
        super().data_received(data)
        if self._is_idle():
            self._await_head()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next head; what was said ahead of the answer may be the half of it."""
        super().on_response_complete()
        if self._is_idle() and not self.transport.is_closing():
            self._await_head()

    def pause_writing(self) -> None:
        """Begin to wait for the other side to read on."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.reading_patience, self._line.abort)

    def resume_writing(self) -> None:
        """Stop waiting for that."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the waits."""
        self._stop_waiting()
        self._line.gone()
        super().connection_lost(exc)
        self.resume_writing()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.patience, self._give_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._is_idle() and not self.transport.is_closing():
            self._line.abort()

    def _make_room(self) -> None:
        waiting = [one for one in self.connections if isinstance(one, PatientOnce) and one._late]
        if waiting:
            # Its wait began first: what a stranger does with a place, he does at once.
            min(waiting, key=lambda one: one._late.when() if one._late else 0.0)._line.abort()
