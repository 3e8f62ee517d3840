"""A platform that answers as a test says, and the connector that speaks to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx

from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT
from connectors._api import Api

POLICIES = load_platforms(PROJECT / "policies")

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]
Handler = (
    Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable[httpx.Response]]
)


@dataclass
class InTurn:
    """Gives its answers in turn and keeps what it was asked."""

    answers: list[Answer]
    asked: list[httpx.Request] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        return given(self.answers.pop(0), request)

    def form(self, number: int = 0) -> dict[str, str]:
        """Return the fields of a form that was posted."""
        return dict(parse_qsl(self.asked[number].content.decode(), keep_blank_values=True))


def given(answer: Answer, request: httpx.Request) -> httpx.Response:
    """Give an answer, or raise it."""
    if isinstance(answer, Exception):
        raise answer
    return answer(request) if callable(answer) else answer


def api_of(platform: str, handler: Handler) -> Api:
    """Return what a connector speaks through, with `handler` at the other end."""
    client: Any = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return Api(client, POLICIES[platform])


def ok(**body: Any) -> httpx.Response:
    """An answer that all is well."""
    return httpx.Response(200, json=body)
