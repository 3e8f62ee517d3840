"""Pages for people who come by a link: one look, no script, and forms that only our page can send.

A page is a template in `templates/` that extends `base.html`; `message.html` serves where some
sentences are enough. Whoever has a form puts a `Browser` before it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Any, Literal, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_FOLDER = Path(__file__).parent / "templates"
#: Small enough to travel with each page: no second request, and no address for it to be cached at.
_STYLE = (_FOLDER / "page.css").read_text()
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
)
_PAGES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
# Not escaped, for its hash is that of the bytes.
_PAGES.globals["style"] = Markup(_STYLE)  # noqa: S704 - it is our own file

Tone = Literal["plain", "good", "bad"]
R = TypeVar("R", bound=Response)
#: The name of the hidden field that says which page a form was on.
FIELD = "form_mark"
_COOKIE = "clickpost_browser"
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
#: Seconds that a browser keeps its cookie: as long as somebody needs to read a page and decide.
_KEPT_FOR = 24 * 3600


def page(template: str, status: int = 200, **said: Any) -> HTMLResponse:
    """Return the page that `template` makes of `said`, which it escapes; it needs a `title`."""
    html = _PAGES.get_template(template).render(**said)
    return HTMLResponse(html, status, {"Content-Security-Policy": _POLICY})


def message(
    title: str,
    *paragraphs: str,
    status: int = 200,
    tone: Tone = "plain",
    links: tuple[tuple[str, str], ...] = (),
) -> HTMLResponse:
    """Return a page of some sentences, and `links` as pairs of their words and their addresses."""
    return page("message.html", status, title=title, paragraphs=paragraphs, tone=tone, links=links)


class Browser:
    """Tells one browser from another by a cookie, and forms of our pages from those of strangers.

    A form carries a mark of the cookie and of its purpose: another site can neither read the one
    nor make the other.
    """

    def __init__(self, key: bytes, *, secure: bool) -> None:
        self._key, self._secure = key, secure
        # The prefix makes browsers refuse the cookie from a sister host; it needs TLS.
        self._name = f"__Host-{_COOKIE}" if secure else _COOKIE

    def known(self, request: Request) -> str | None:
        """Return who the browser said that it is; None where it has no cookie of ours."""
        value = request.cookies.get(self._name, "")
        return value if _VALUE.fullmatch(value) else None

    def of(self, request: Request) -> str:
        """Return who the browser is, under a new name where it has none; `remember` keeps it."""
        return self.known(request) or secrets.token_urlsafe(32)

    def remember(self, response: R, who: str) -> R:
        """Give the browser its cookie; it comes back with forms and with a platform's redirect."""
        response.set_cookie(
            self._name,
            who,
            max_age=_KEPT_FOR,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",  # `strict` would be missing when a platform sends the person back.
        )
        return response

    def mark(self, who: str, purpose: str) -> str:
        """Return what the field `FIELD` of a form for `purpose` has to say."""
        return hmac.new(self._key, f"{who}:{purpose}".encode(), hashlib.sha256).hexdigest()

    async def may_send(self, request: Request, purpose: str) -> bool:
        """Say whether the form came from our own page for `purpose`, in this browser."""
        who, given = self.known(request), (await request.form()).get(FIELD)
        if who is None or not isinstance(given, str):
            return False
        # Browsers say it of each request, and no page can change it; old ones do not say it.
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        return hmac.compare_digest(self.mark(who, purpose).encode(), given.encode())
