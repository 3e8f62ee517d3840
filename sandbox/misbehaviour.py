"""Lets a platform misbehave on demand: limits, errors, lost answers, ended tokens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.stand_ins import StandIn

KINDS = (
    "rate_limit",
    "server_error",
    "error_after",
    "slow",
    "drop_before",
    "drop_after",
    "garbage",
    "expire_token",
    "revoke_token",
    "fail_processing",
    "kill_before",
    "kill_after",
)
#: Ends whoever asks. Only for a sandbox that was started with this variable set.
DEADLY = ("kill_before", "kill_after")
MAY_KILL = "SANDBOX_MAY_KILL"


@dataclass
class Order:
    """One thing to do wrong: `what`, at `step` (or `*`) of `platform`, `times` times."""

    platform: str
    step: str
    what: str
    times: int = 1
    seconds: float = 2.0
    skip: int = 0


class Orders:
    """The misbehaviour that was asked for."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def add(self, said: dict[str, Any]) -> Order:
        """Take an order; raise ValueError where it makes no sense."""
        unknown = set(said) - set(Order.__dataclass_fields__)
        if unknown or said.get("what") not in KINDS or "platform" not in said:
            raise ValueError(f"needs platform, step, what (one of {', '.join(KINDS)})")
        if said["what"] in DEADLY and not os.environ.get(MAY_KILL):
            raise ValueError(f"{said['what']}: needs a sandbox started with {MAY_KILL}=1")
        order = Order(**{"step": "*", **said})
        self.orders.append(order)
        return order

    def take(self, platform: str, step: str, *kinds: str) -> Order | None:
        """Return the order that applies here and now, and count it."""
        for order in self.orders:
            if order.platform not in ("*", platform) or order.step not in ("*", step):
                continue
            if order.what not in kinds or order.times <= 0:
                continue
            if order.skip > 0:
                order.skip -= 1
                continue
            order.times -= 1
            return order
        return None

    def listed(self) -> list[dict[str, Any]]:
        """Return what is still to be done."""
        return [asdict(order) for order in self.orders if order.times > 0]


class Misbehave:
    """Wraps one platform's routes: does what was ordered before, instead of or after the answer."""

    def __init__(
        self, app: ASGIApp, platform: str, stand_in: StandIn, orders: Orders, state: Any
    ) -> None:
        self.app, self.platform, self.stand_in = app, platform, stand_in
        self.orders, self.state = orders, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        step = self.stand_in.step_of(scope["method"], scope["path"])
        began, status = time.time(), 0
        order = self.orders.take(
            self.platform, step, *(kind for kind in KINDS if kind != "fail_processing")
        )

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._done(order, scope, receive, noted)
        finally:
            self.state.requests.append(
                {
                    "platform": self.platform,
                    "step": step,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "at": began,
                    "misbehaved": order.what if order else None,
                }
            )

    async def _done(self, order: Order | None, scope: Scope, receive: Receive, send: Send) -> None:
        match order.what if order else None:
            case "slow":
                assert order is not None
                await asyncio.sleep(order.seconds)
                await self.app(scope, receive, send)
            case "rate_limit":
                await self._answer(self.stand_in.limited(), scope, receive, send)
            case "server_error":
                await self._answer(self.stand_in.broken(), scope, receive, send)
            case "error_after":
                await self._swallowed(scope, receive)
                await self.stand_in.broken()(scope, receive, send)
            case "garbage":
                await self._swallowed(scope, receive)
                await Response("<html>oops", 200)(scope, receive, send)
            case "drop_before":
                await drop(scope)
            case "drop_after":
                await self._swallowed(scope, receive)
                await drop(scope)
            case "kill_before":
                await kill(scope)
            case "kill_after":
                await self._swallowed(scope, receive)
                await kill(scope)
            case "expire_token" | "revoke_token" as what:
                key = "expired" if what == "expire_token" else "revoked"
                for account in self.state.accounts[self.platform].values():
                    account[key] = True
                await self.app(scope, receive, send)
            case _:
                await self.app(scope, receive, send)

    async def _swallowed(self, scope: Scope, receive: Receive) -> None:
        """Let the platform do it, and keep its answer to ourselves."""

        async def nobody(message: Message) -> None:
            return

        await self.app(scope, receive, nobody)

    async def _answer(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            continue
        await response(scope, receive, send)


async def kill(scope: Scope) -> None:
    """Send SIGKILL to the process at the other end of the connection, at this very moment."""
    port = scope["client"][1]
    for one in await asyncio.to_thread(psutil.net_connections, "tcp"):
        if one.laddr and one.laddr.port == port and one.pid not in (None, os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(one.pid), signal.SIGKILL)
    await drop(scope)


async def drop(scope: Scope) -> None:
    """Close the connection without an answer."""
    scope["extensions"]["sandbox.transport"].abort()
    await asyncio.sleep(0.05)  # The server has to see the loss before we return
