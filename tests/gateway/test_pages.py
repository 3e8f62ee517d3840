"""A page for people runs no script, tells nobody where it was, and takes no stranger's form."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from deployments.pages import FIELD, Browser, message


def test_the_style_is_the_one_that_the_policy_allows() -> None:
    answer = message("All is well")
    html = bytes(answer.body).decode()
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert "&#34;" not in style[1], "escaped, it were another style"
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "script" not in html


def test_what_is_said_is_escaped() -> None:
    html = bytes(message("<b>", "<script>alert(1)</script>", links=(("<i>", '/"x'),)).body).decode()
    assert not re.search(r"<(b|i|script)>", html)
    assert 'href="/&#34;x"' in html


def app(secure: bool = False) -> Starlette:
    browser = Browser(b"k" * 32, secure=secure)

    async def show(request: Request) -> Response:
        who = browser.of(request)
        return browser.remember(PlainTextResponse(browser.mark(who, "sign")), who)

    async def take(request: Request) -> Response:
        return PlainTextResponse(str(await browser.may_send(request, "sign")))

    return Starlette(routes=[Route("/", show), Route("/", take, methods=["POST"])])


def client(secure: bool = False) -> httpx.AsyncClient:
    base = "https://gateway" if secure else "http://gateway"
    return httpx.AsyncClient(transport=httpx.ASGITransport(app(secure)), base_url=base)


@pytest.mark.parametrize("secure", [False, True])
async def test_a_form_of_our_own_page_may_be_sent(secure: bool) -> None:
    async with client(secure) as http:
        shown = await http.get("/")
        assert (await http.post("/", data={FIELD: shown.text})).text == "True"
        cookie = shown.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert cookie.startswith("__host-") is secure
        assert ("; secure" in cookie) is secure
        assert (await http.get("/")).text == shown.text, "two tabs are one browser"


async def test_a_form_of_anybody_else_is_not_taken() -> None:
    async with client() as http, client() as other:
        mine, theirs = (await http.get("/")).text, (await other.get("/")).text
        crossed = {"sec-fetch-site": "cross-site"}
        for data, headers in (
            ({}, {}),
            ({FIELD: theirs}, {}),
            ({FIELD: mine[:-1]}, {}),
            ({FIELD: mine}, crossed),
        ):
            answer = await http.post("/", data=data, headers=headers)
            assert answer.text == "False", (data, headers)
        http.cookies.clear()
        assert (await http.post("/", data={FIELD: mine})).text == "False"
        http.cookies.set("clickpost_browser", "short")
        assert (await http.post("/", data={FIELD: mine})).text == "False"
