"""The door to vendors who process people's data for us: one request, once, and what came back.

Nothing of a request or an answer is logged: both are about a person.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from clickpost.errors import Refused
from clickpost.policy.processors import Auth
from clickpost.processors import Heard, Request
from connectors._api import retry_after

#: No answer that we read is longer; a longer one is no answer to us.
MOST_BYTES = 4 * 2**20


async def send(
    client: httpx.AsyncClient, request: Request, auth: Auth | None, settings: Mapping[str, str]
) -> Heard:
    """Send one request, once, and return what came back; a redirect is not followed."""
    headers = {"Accept": "application/json", **request.headers}
    more: dict[str, Any] = {}
    if request.form:
        more["data"] = dict(request.form)
    if request.document:
        more["json"] = dict(request.document)
    if request.query:
        more["params"] = dict(request.query)
    if auth is not None:
        more |= _proof(auth, settings, headers)
    try:
        async with client.stream(request.method, request.url, headers=headers, **more) as answer:
            document = _read(await _body(answer))
            return Heard(answer.status_code, document, retry_after(answer.headers))
    except Refused as error:
        return Heard(None, why=str(error))
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        return Heard(None, why=f"it was not reached ({type(error).__name__})")
    except httpx.RequestError as error:
        return Heard(None, is_lost=True, why=f"no answer came ({type(error).__name__})")
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        return Heard(None, why=f"it cannot be asked so ({type(error).__name__})")


def _proof(auth: Auth, settings: Mapping[str, str], headers: dict[str, str]) -> dict[str, Any]:
    secret = auth.secret.format_map(dict(settings))
    match auth.by:
        case "bearer":
            headers["Authorization"] = f"Bearer {secret}"
        case "header":
            headers[auth.header] = secret
        case "basic":
            return {"auth": httpx.BasicAuth(auth.user.format_map(dict(settings)), secret)}
    return {}


async def _body(answer: httpx.Response) -> bytes:
    read = b""
    async for piece in answer.aiter_bytes():
        read += piece
        if len(read) > MOST_BYTES:
            return b""
    return read


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
