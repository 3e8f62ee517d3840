"""What platforms share of OAuth 2: the page that asks the owner, and the code that works once.

As strict as RFC 6749, 7636 and the platforms' own pages: an app is known, its redirect address is
the registered one to the letter, a code is used once and within its time, PKCE is checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.state import State

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape()
)


class Wrong(Exception):
    """A refusal of the token endpoint: the RFC's word for it, and a sentence."""

    def __init__(self, error: str, said: str, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.said, self.status = error, said, status


@dataclass(frozen=True)
class Client:
    """An app; without `redirects`, one that was made by hand for developers of this machine."""

    id: str
    secret: str
    redirects: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None

    def may_return_to(self, address: str) -> bool:
        """Say whether it registered this address, or is a developer's and it is on loopback."""
        return address in self.redirects if self.redirects else _is_here(address)


@dataclass(frozen=True)
class Granted:
    """What a code stands for."""

    account: dict[str, Any]
    scopes: tuple[str, ...]
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Consent:
    """One platform's way to grant access."""

    state: State
    platform: str
    title: str
    scopes: Mapping[str, str]
    """What may be asked for, each as the page says it."""
    clients: tuple[Client, ...] = ()
    server: str = ""
    """Which of several servers it is: an app is known where it registered, accounts everywhere."""
    separator: str = " "
    pkce: bool = True
    partial: bool = False
    """True where the owner may grant a part of what is asked."""
    denial: Mapping[str, str] = field(default_factory=dict)
    """What is said beside `access_denied`."""
    code_lives: float = 600
    """Seconds in which a code has to come back."""
    must_prove: bool = False
    """True where nobody is asked without PKCE."""
    tail: str = ""
    """What is appended to the address of the way back."""

    def routes(self, path: str) -> list[Route]:
        """Return the page that asks, at `path`, and where its form goes."""
        return [
            Route(path, self.ask),
            Route(path, self.decided, methods=["POST"]),
        ]

    def register(self, name: str, redirects: list[str], scopes: list[str]) -> Client:
        """Make an app that registered itself."""
        client = Client(
            secrets.token_urlsafe(16), secrets.token_urlsafe(24), tuple(redirects), tuple(scopes)
        )
        self.state.things[f"client:{client.id}"] = {
            "platform": self.platform, "server": self.server, "name": name, "secret": client.secret,
            "redirects": redirects, "scopes": scopes,
        }  # fmt: skip
        self.state.touch()
        return client

    def client(self, client_id: str) -> Client | None:
        """Return an app, made by hand or registered."""
        by_hand = next((one for one in self.clients if one.id == client_id), None)
        kept = self.state.things.get(f"client:{client_id}")
        if by_hand is not None or kept is None:
            return by_hand
        if (kept["platform"], kept["server"]) != (self.platform, self.server):
            return None
        return Client(client_id, kept["secret"], tuple(kept["redirects"]), tuple(kept["scopes"]))

    async def ask(self, request: Request) -> Response:
        """Ask the owner; an app or an address that is not known is never sent anybody."""
        query = request.query_params
        client = self.client(query.get("client_id", ""))
        if client is None:
            return self.page(400, error="invalid_client: this app is not known here.")
        if not client.may_return_to(query.get("redirect_uri", "")):
            return self.page(400, error="redirect_uri_mismatch: this app never registered it.")
        if fault := self.fault_of(query, client):
            return self.sent_back(query, {"error": fault})
        ticket = secrets.token_urlsafe(16)
        self.state.things[f"ask:{ticket}"] = {"platform": self.platform, "query": dict(query)}
        return self.page(200, ticket=ticket, asked=self.asked(query))

    def fault_of(self, query: Mapping[str, str], client: Client) -> str | None:
        """Return what is wrong with a question that may be told to the app."""
        if query.get("response_type") != "code":
            return "unsupported_response_type"
        known = self.scopes if client.scopes is None else client.scopes
        if not self.asked(query) or set(self.asked(query)) - set(known):
            return "invalid_scope"
        method = query.get("code_challenge_method", "S256")
        if self.must_prove and "code_challenge" not in query:
            return "invalid_request"
        if method != "S256" or ("code_challenge" in query and not self.pkce):
            return "invalid_request"
        return None

    def asked(self, query: Mapping[str, str]) -> list[str]:
        """Return the permissions that are asked for."""
        return [one for one in query.get("scope", "").split(self.separator) if one]

    def page(self, status: int, **said: Any) -> Response:
        """Return the platform's page."""
        accounts = list(self.state.accounts[self.platform].values())
        html = _PAGES.get_template("consent.html").render(
            title=self.title, scopes=self.scopes, accounts=accounts, partial=self.partial, **said
        )
        return HTMLResponse(html, status)

    async def decided(self, request: Request) -> Response:
        """Take what the owner chose."""
        form = await request.form()
        asking = self.state.things.pop(f"ask:{form.get('ticket')}", None)
        account = self.state.accounts[self.platform].get(str(form.get("account")))
        if asking is None or account is None:
            return self.page(400, error="This page is over. Go back to the app.")
        query = asking["query"]
        if form.get("decision") != "allow":
            return self.sent_back(query, {"error": "access_denied", **self.denial})
        granted = self.asked(query)
        if self.partial:
            granted = [one for one in granted if one in form.getlist("scope")]
        code = secrets.token_urlsafe(24)
        self.state.things[f"code:{code}"] = {
            "platform": self.platform, "account": account["id"], "query": query,
            "scopes": granted, "at": time.time(), "used": False,
        }  # fmt: skip
        self.state.touch()
        return self.sent_back(query, {"code": code})

    def sent_back(self, query: Mapping[str, str], said: Mapping[str, str]) -> Response:
        """Send the owner back to the app, with its state."""
        answer = dict(said) | ({"state": query["state"]} if "state" in query else {})
        address = query["redirect_uri"]
        joint = "&" if urlsplit(address).query else "?"
        return RedirectResponse(f"{address}{joint}{urlencode(answer)}{self.tail}", 302)

    def redeem(self, form: Mapping[str, Any]) -> Granted:
        """Change a code, once; raise `Wrong` for all that does not fit."""
        said = {name: str(value) for name, value in form.items()}
        client = self.client(said.get("client_id", ""))
        if client is None or not hmac.compare_digest(client.secret, said.get("client_secret", "")):
            raise Wrong("invalid_client", "Client authentication failed.", 401)
        kept = self.state.things.get(f"code:{said.get('code')}")
        if kept is None or kept["platform"] != self.platform or kept["used"]:
            raise Wrong("invalid_grant", "The code is invalid, expired, revoked or was used.")
        kept["used"] = True
        self.state.touch()
        query = kept["query"]
        if query["client_id"] != client.id or query["redirect_uri"] != said.get("redirect_uri"):
            raise Wrong("invalid_grant", "The redirect URI or the client is another one.")
        if time.time() - kept["at"] > self.code_lives:
            raise Wrong("invalid_grant", "The code has expired.")
        if not _proves(query.get("code_challenge"), said.get("code_verifier")):
            raise Wrong("invalid_grant", "The code verifier does not fit.")
        account = self.state.accounts[self.platform][kept["account"]]
        account["revoked"] = account["expired"] = False
        return Granted(account, tuple(kept["scopes"]), query)


def _proves(challenge: str | None, verifier: str | None) -> bool:
    """Say whether the verifier is that of the challenge; neither without the other."""
    if challenge is None or verifier is None:
        return challenge is verifier
    if not 43 <= len(verifier) <= 128:
        return False
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == challenge


def _is_here(address: str) -> bool:
    parts = urlsplit(address)
    try:
        host = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return False
    return parts.scheme == "http" and host.is_loopback and not parts.fragment
