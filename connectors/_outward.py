"""The door to addresses that people gave us: connects only to an address that was checked.

A name is resolved once, here; the very addresses that were checked are called, so that a name
which means something else a moment later (DNS rebinding) gains nothing. A redirect that a client
follows comes through here again.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx

from clickpost.errors import Refused
from clickpost.reach import Allowed, permitted
from clickpost.settings import Settings
from connectors._api import client

#: Returns the addresses of a host, at a port.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolved(host: str, port: int) -> Sequence[str]:
    """Return a host's addresses, as the system knows them; none where it knows none."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(one[4][0]) for one in found]


class Outward(httpx.AsyncBaseTransport):
    """Sends through `inner`, to checked addresses alone."""

    def __init__(
        self,
        allowed: Allowed,
        inner: httpx.AsyncBaseTransport | None = None,
        resolve: Resolve = resolved,
    ) -> None:
        self._allowed, self._resolve = allowed, resolve
        self._inner = inner or httpx.AsyncHTTPTransport(verify=_trusted())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise Refused where its host is not one that we may call."""
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        known = await self._resolve(host, port)
        if not known:
            raise httpx.ConnectError("the host has no address", request=request)
        addresses = permitted(host, known, self._allowed)
        if not addresses:
            raise Refused(
                "the receiver is inside a private network; an operator can allow it:"
                " CLICKPOST_RECEIVERS"
            )
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_pinned(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # Nothing left us yet: the host's next address gets it.
        return await self._inner.handle_async_request(_pinned(request, addresses[-1]))

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


def _pinned(request: httpx.Request, address: str) -> httpx.Request:
    """Return the request to `address`: its Host header and certificate stay those of the host."""
    named: dict[str, Any] = {"sni_hostname": request.url.host}
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address.partition("%")[0]),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, **named},
    )


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Return the one context of the process: to make one takes longer than to send."""
    return httpx.create_ssl_context()


def outward(settings: Settings) -> httpx.AsyncClient:
    """Return a client for addresses that people gave us; proxies of the environment are left out.

    It follows no redirect unless a call asks for that; then each hop is checked.
    """
    return client(transport=Outward(Allowed.of(settings.receivers)))
