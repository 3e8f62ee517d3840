"""Connects an account: credentials become tokens, the token says who it is, both are kept."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import httpx

import connectors
from clickpost.contract import Account, Identifies, SignsIn
from clickpost.errors import InvalidInput, PolicyError
from clickpost.people import ENGINE
from clickpost.policy.shape import Credential, PlatformPolicy
from clickpost.store import NewConnection, Store
from clickpost.store.tables import Connection


@dataclass(frozen=True)
class Wish:
    """What somebody asks to be connected."""

    platform: str
    name: str
    credentials: Mapping[str, str] = field(repr=False)
    api_base: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None
    """When the token ends, where whoever gave it told."""


async def connect(
    store: Store,
    http: httpx.AsyncClient,
    policy: PlatformPolicy,
    wish: Wish,
    *,
    actor: str = ENGINE,
) -> Connection:
    """Sign in, ask who it is, and keep the connection; nothing is kept where either fails.

    Raises NotAllowed for an actor who may not connect accounts.
    """
    account = Account(
        connection_id="new",
        platform=wish.platform,
        api_base=base_of(policy, wish.api_base),
        secrets=credentials_of(wish.credentials, policy),
        options=wish.options,
        remote_id=wish.credentials.get("user_id"),
    )
    expires_at = None
    made = connectors.connector(account, policy, http)
    # A grant that is known to last was made this minute: a renewal would only use it up.
    if isinstance(made, SignsIn) and wish.expires_at is None:
        tokens = await made.sign_in()
        account = replace(account, secrets={**account.secrets, **tokens.secrets})
        expires_at = tokens.expires_at
        made = connectors.connector(account, policy, http)
    if not isinstance(made, Identifies):
        raise PolicyError(f"{policy.name}: its connector cannot tell whose account it is")
    who = await made.whoami()
    return await store.add_connection(
        NewConnection(
            platform=wish.platform,
            name=wish.name,
            api_base=account.api_base,
            secrets=account.secrets,
            handle=who.handle,
            remote_id=who.remote_id,
            url=who.url,
            options=wish.options,
            limits=who.limits,
            expires_at=expires_at or wish.expires_at or who.expires_at,
            app_user_id=who.app_user_id,
        ),
        actor=actor,
    )


def base_of(policy: PlatformPolicy, given: str | None) -> str:
    """Return the server's address; raise InvalidInput where none is given and each is its own."""
    base = given or (str(policy.api.base) if policy.api.base else None)
    if base is None:
        raise InvalidInput(f"{policy.title}: every server is its own; name it with --api-base URL")
    return base.rstrip("/")


def credentials_of(given: Mapping[str, str], policy: PlatformPolicy) -> dict[str, str]:
    """Return the credentials under the policy's names; raise InvalidInput for what is off."""
    names = {
        alias: name for name, one in policy.credentials.items() for alias in (name, *one.aliases)
    }
    found: dict[str, str] = {}
    for key, value in given.items():
        plain = key.replace("-", "_")
        if plain not in names:
            near = difflib.get_close_matches(plain, names, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            known = ", ".join(policy.credentials)
            raise InvalidInput(f"{policy.title} has no credential {key}{hint} (it takes: {known})")
        found[names[plain]] = value.strip()
    return {key: value for key, value in found.items() if value}


def missing(given: Mapping[str, str], policy: PlatformPolicy) -> list[str]:
    """Return the credentials that are needed and not given."""
    known = credentials_of(given, policy)
    spared = {name for one in _alone(known, policy) for name in one.instead_of}
    return [
        name
        for name, one in policy.credentials.items()
        if one.required and name not in known and name not in spared
    ]


def warnings(given: Mapping[str, str], policy: PlatformPolicy) -> list[str]:
    """Return what the credentials that were given lack, in the policy's words."""
    return [one.alone for one in _alone(credentials_of(given, policy), policy) if one.alone]


def _alone(known: Mapping[str, str], policy: PlatformPolicy) -> list[Credential]:
    """Return the credentials that were given instead of all of those for which they stand."""
    given = [one for name, one in policy.credentials.items() if name in known]
    return [one for one in given if one.instead_of and not known.keys() & set(one.instead_of)]
