"""The way in by a browser (OAuth 2, authorization code): register, send there, change the code.

Facts: `oauth` of each platform's policy. Nothing here keeps, logs or repeats anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from clickpost.errors import PlatformRejected, Reauthorize
from clickpost.policy.shape import OAuthRules, PlatformPolicy
from connectors._api import Answer, Api, Problem, json_of, plain_problem, text_at
from connectors._tokens import end_of

#: What the pages of platforms call us; it is shown to whoever is asked.
NAME = "ClickPost"
_REGISTERING, _CHANGING = "register", "exchange"


@dataclass(frozen=True)
class Client:
    """An app of ours at a platform, and the permissions that it asks for."""

    id: str
    secret: str = field(repr=False)
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Granted:
    """What a code became: secrets under a policy's names; `scopes` None where all was granted."""

    secrets: Mapping[str, str] = field(repr=False)
    scopes: tuple[str, ...] | None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Door:
    """The way in at one server; `redirect_uri` is where it sends people back, to the letter."""

    api: Api
    rules: OAuthRules
    base: str
    redirect_uri: str

    async def register(self) -> Client:
        """Register an app; where the server knows no fine permissions, with whole ones."""
        asked = (*self.rules.scopes, *self.rules.optional)
        try:
            return await self._registered(asked)
        except PlatformRejected:
            if not self.rules.whole:
                raise
            return await self._registered(tuple(self.rules.whole))

    async def _registered(self, scopes: tuple[str, ...]) -> Client:
        form = {
            "client_name": NAME,
            "redirect_uris": self.redirect_uri,
            "scopes": self.rules.separator.join(scopes),
        }
        # An app that got lost on its way back is one that nobody uses.
        response = await self.api.send(
            "POST",
            self._url(str(self.rules.register_at)),
            step=_REGISTERING,
            repeatable=True,
            data=form,
        )
        answer = json_of(response, repeatable=True)
        names = "client_id", "client_secret"
        client_id, secret = (text_at(answer, name, call="register") for name in names)
        return Client(client_id, secret, scopes)

    def address(self, client: Client, state: str, challenge: str) -> str:
        """Return where the owner is asked; `challenge` is that of a PKCE verifier."""
        query = dict(self.rules.parameters) | {
            "response_type": "code",
            "client_id": client.id,
            "redirect_uri": self.redirect_uri,
            "scope": self.rules.separator.join(client.scopes),
            "state": state,
        }
        if self.rules.pkce:
            query |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        return str(httpx.URL(self._url(self.rules.authorize)).copy_merge_params(query))

    async def change(self, client: Client, code: str, verifier: str) -> Granted:
        """Change a code, which works once, into tokens.

        Raises Transient where nothing happened, OutcomeUnknown where the answer got lost, and
        Reauthorize where the grant is of no use to us.
        """
        form = {
            "grant_type": "authorization_code",
            "redirect_uri": self.redirect_uri,
            "code": code.removesuffix("#_"),
        }
        if self.rules.pkce:
            form["code_verifier"] = verifier
        how: dict[str, Any] = {}
        if self.rules.client_by == "basic":
            how["auth"] = httpx.BasicAuth(client.id, client.secret)
        else:
            form |= {"client_id": client.id, "client_secret": client.secret}
        response = await self.api.send(
            "POST",
            self._url(self.rules.token),
            step=_CHANGING,
            repeatable=False,
            read=problem_of,
            data=form,
            **how,
        )
        answer = inner_of(json_of(response, repeatable=False))
        token = text_at(answer, "access_token", call="token", repeatable=False)
        return await self._lasting(client, granted_of(answer, token, self.rules))

    async def _lasting(self, client: Client, granted: Granted) -> Granted:
        """Change a token of an hour into one that lasts, where the platform has both."""
        if self.rules.long_lived is None:
            return granted
        query = {
            "grant_type": self.rules.long_lived.grant_type,
            "client_secret": client.secret,
            "access_token": granted.secrets["access_token"],
        }
        response = await self.api.send(
            "GET",
            self._url(self.rules.long_lived.url),
            step=_CHANGING,
            repeatable=True,
            read=problem_of,
            params=query,
        )
        answer = json_of(response, repeatable=True)
        token = text_at(answer, "access_token", call="long-lived token")
        return Granted({**granted.secrets, "access_token": token}, granted.scopes, end_of(answer))

    def _url(self, address: str) -> str:
        """Return an address of the policy; at another server than the official one, its path."""
        official = self.api.policy.api.base
        if official is not None and self.base == str(official).rstrip("/"):
            return address
        return self.base + urlsplit(address).path


def door(
    client: httpx.AsyncClient, policy: PlatformPolicy, rules: OAuthRules, base: str, back: str
) -> Door:
    """Return the way in at `base`, for people who are sent `back` there."""
    return Door(Api(client, policy), rules, base.rstrip("/"), back)


def problem_of(response: httpx.Response) -> Problem:
    """Read an error of RFC 6749 (5.2), or Instagram's, which has words of its own."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict) and "error_type" in body:
        said = str(body.get("error_message") or "")
        return Problem(response.status_code, str(body["error_type"]), message=said)
    return plain_problem(response)


def inner_of(answer: Answer) -> Answer:
    """Return what Instagram may wrap into `{"data": [{…}]}`."""
    rows = answer.get("data")
    if isinstance(rows, list) and rows and isinstance(rows[0], dict):
        return Answer(rows[0], answer.status)
    return answer


def granted_of(answer: Mapping[str, Any], token: str, rules: OAuthRules) -> Granted:
    """Return what a token endpoint's answer grants; raise Reauthorize where too little."""
    secrets = {"access_token": token}
    if isinstance(refresh := answer.get("refresh_token"), str) and refresh:
        secrets["refresh_token"] = refresh
    elif rules.refresh_token:
        raise Reauthorize(
            "no refresh token came with the grant; remove ClickPost among the apps that your"
            " account lets in, and try again"
        )
    said = answer["scope"] if "scope" in answer else answer.get("permissions")
    return Granted(secrets, scopes_of(said), end_of(answer))


def scopes_of(said: Any) -> tuple[str, ...] | None:
    """Return the permissions of an answer: a list, or one string; None where it says none."""
    if isinstance(said, str):
        said = re.split(r"[\s,]+", said)
    if not isinstance(said, Sequence):
        return None
    return tuple(str(one) for one in said if one)
