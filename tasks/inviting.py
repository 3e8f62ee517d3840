"""Connects an account in a browser: an invitation, a way to the platform, and the way back.

What the owner may read is decided in `clickpost.invitation`; tokens go from the platform's answer
into the vault, and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from clickpost import invitation
from clickpost.errors import ClickPostError, InvalidInput, PlatformError, Transient
from clickpost.invitation import LINK_LIVES, STATE_LIVES, Verdict
from clickpost.logs import logger
from clickpost.people import Right
from clickpost.policy.load import load_platforms
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import Settings
from clickpost.store import NewInvitation, Store
from clickpost.store.invitations import Sought, started_of
from clickpost.store.tables import Connection, Invitation, OAuthClient
from connectors import _oauth
from connectors._oauth import Client, Door, Granted
from tasks import connecting

log = logger("inviting")

#: Seconds that the platform gets to change a code, before the person is told that it failed.
PATIENCE = 25.0
#: A server may forget an app that nobody used; one that is younger is still known.
_FRESH = timedelta(hours=1)
#: So often a call is made that did not reach the platform; its code is unused.
_TRIES = 3


@dataclass(frozen=True)
class Invited:
    """An invitation that was just made; `url` lets whoever has it connect the account."""

    row: Invitation
    url: str = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a sign-in: a connection, or words for whoever came back.

    `again` is the address where they may try again, where this browser began the sign-in.
    """

    verdict: Verdict
    policy: PlatformPolicy | None = None
    connection: Connection | None = None
    reason: str | None = None
    lacks: tuple[str, ...] = ()
    again: str | None = None


@dataclass(frozen=True)
class Answered:
    """What the platform sent back with the person: a code, or an error's name."""

    state: str
    code: str = field(default="", repr=False)
    error: str = ""


def callback_of(settings: Settings, platform: str) -> str:
    """Return where a platform sends people back: registered there, to the letter."""
    return f"{settings.gateway_url}/connect/{platform}/callback"


async def invite(
    settings: Settings,
    store: Store,
    wish: connecting.Wish,
    app: Mapping[str, str] | None = None,
    *,
    actor: str = "operator",
) -> Invited:
    """Make an invitation; `app` is our app's id and secret, where an operator names another one.

    Raises InvalidInput where the platform is not connected in a browser, cannot send people back
    here, or has no app of ours; NotAllowed for an actor who may not connect accounts.
    """
    await store.require(actor, Right.CONNECT)
    policy = load_platforms(settings.policies)[wish.platform]
    rules = invitation.rules_of(policy)
    base = connecting.base_of(policy, wish.api_base)
    invitation.reachable(policy, settings.gateway_url, base)
    workspace = await store.workspace_id()
    which = Sought(workspace, policy.name, base)
    if app:
        await store.keep_client(which, app)
    elif rules.register_at is None and await store.client(which) is None:
        raise InvalidInput(f"{policy.title}: no app of ours is known there; make {rules.app_at}")
    link = invitation.new_word()
    new = NewInvitation(
        platform=policy.name,
        name=wish.name,
        api_base=base,
        link=link,
        expires_at=datetime.now(UTC) + LINK_LIVES,
        options=wish.options,
    )
    row = await store.invite(workspace, new, actor=actor)
    return Invited(row, f"{settings.gateway_url}/connect/{link}")


async def begin(
    settings: Settings, store: Store, http: httpx.AsyncClient, row: Invitation, browser: str
) -> str | None:
    """Return where the platform asks the owner; None where the invitation is over.

    Raises the errors of `clickpost.errors`, or TimeoutError, where our app cannot be registered.
    """
    door = _door(settings, http, row)
    client = await _client(store, door, row)
    state, verifier = invitation.new_word(), invitation.new_word()
    until = datetime.now(UTC) + STATE_LIVES
    if not await store.begin(row, state, browser, verifier, until):
        return None
    return door.address(client, state, invitation.challenge_of(verifier))


async def come_back(
    settings: Settings,
    store: Store,
    http: httpx.AsyncClient,
    platform: str,
    answered: Answered,
    browser: str | None,
) -> Outcome:
    """Judge what came back, change the code into tokens, and keep the connection: once."""
    row = await store.invitation_of_state(answered.state) if answered.state else None
    verdict = invitation.judge(started_of(row), platform, browser, datetime.now(UTC))
    if row is None or verdict in (Verdict.UNKNOWN, Verdict.ELSEWHERE):
        return Outcome(verdict)
    policy = load_platforms(settings.policies)[row.platform]
    if verdict is Verdict.GOOD and not await store.redeem(row.id, answered.state):
        row, verdict = await store.invitation(row.id), Verdict.USED
    if verdict is not Verdict.GOOD:
        return await _told_again(settings, store, row, policy, verdict)
    again = _again(settings, store, row)
    if answered.error or not answered.code:
        reason = invitation.denied(answered.error, policy.title)
        await store.note_refusal(row.id, "denied", reason)
        return Outcome(verdict, policy, reason=reason, again=again)
    try:
        async with asyncio.timeout(PATIENCE):
            connection, lacks = await _connected(settings, store, http, row, answered.code)
    except (ClickPostError, TimeoutError) as error:
        log.warning("not connected", invitation_id=row.id, error=type(error).__name__)
        reason = invitation.trouble(error, policy.title)
        await store.note_refusal(row.id, type(error).__name__, reason)
        return Outcome(verdict, policy, reason=reason, again=again)
    return Outcome(verdict, policy, connection, lacks=tuple(lacks))


async def _told_again(
    settings: Settings, store: Store, row: Invitation, policy: PlatformPolicy, verdict: Verdict
) -> Outcome:
    """Tell whoever loads the page again what became of it."""
    if row.connection_id is not None:
        return Outcome(verdict, policy, await store.connection(row.connection_id))
    return Outcome(verdict, policy, reason=row.reason, again=_again(settings, store, row))


def _again(settings: Settings, store: Store, row: Invitation) -> str | None:
    link = store.invitation_secrets(row).get("link")
    return f"{settings.gateway_url}/connect/{link}" if link else None


async def _connected(
    settings: Settings, store: Store, http: httpx.AsyncClient, row: Invitation, code: str
) -> tuple[Connection, list[str]]:
    policy = load_platforms(settings.policies)[row.platform]
    rules = invitation.rules_of(policy)
    door = _door(settings, http, row)
    known = await store.client(_which(row))
    if known is None:
        raise InvalidInput(f"Our app at {policy.title} was removed meanwhile; try again.")
    secrets = store.client_secrets(known)
    verifier = store.invitation_secrets(row)["verifier"]
    try:
        granted = await _changed(door, _client_of(secrets), code, verifier)
    except PlatformError as error:
        if rules.register_at is not None and error.code in invitation.NO_APP:
            await store.forget_client(known)  # The next sign-in registers another one.
        raise
    if lacks := invitation.lacking(granted.scopes, rules.scopes):
        raise InvalidInput(_said_lacking(policy, lacks))
    wish = connecting.Wish(
        platform=policy.name,
        name=row.name,
        credentials=_credentials(policy, secrets, granted),
        api_base=row.api_base,
        options=row.options,
        expires_at=granted.expires_at,
    )
    connection = await connecting.connect(store, http, policy, wish)
    await store.note_client_used(known)
    await store.finish(row.id, connection.id)
    return connection, invitation.lacking(granted.scopes, rules.optional)


async def _changed(door: Door, client: Client, code: str, verifier: str) -> Granted:
    """Change the code; a call that did nothing is made again, one whose answer got lost is not."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Transient),
        stop=stop_after_attempt(_TRIES),
        wait=wait_exponential(0.5, max=4),
        reraise=True,
    ):
        with attempt:
            return await door.change(client, code, verifier)
    raise AssertionError("unreachable")


def _credentials(
    policy: PlatformPolicy, app: Mapping[str, str], granted: Granted
) -> dict[str, str]:
    """Return what the connection keeps: our app only where its tokens are renewed through it."""
    known = dict(app) | dict(granted.secrets)
    return {name: known[name] for name in policy.credentials if name in known}


def _said_lacking(policy: PlatformPolicy, lacks: list[str]) -> str:
    needed = "; ".join(f"{policy.scopes[one]} ({one})" for one in lacks)
    return (
        f"{policy.title} was not allowed to let ClickPost do all that it needs. It lacks the"
        f" permission {needed}. Nothing was connected; try again and leave all of them ticked."
    )


def _which(row: Invitation) -> Sought:
    return Sought(row.workspace_id, row.platform, row.api_base)


def _door(settings: Settings, http: httpx.AsyncClient, row: Invitation) -> Door:
    policy = load_platforms(settings.policies)[row.platform]
    back = callback_of(settings, row.platform)
    return _oauth.door(http, policy, invitation.rules_of(policy), row.api_base, back)


async def _client(store: Store, door: Door, row: Invitation) -> Client:
    """Return our app, registered where the platform lets apps do so and knows it no more."""
    which = _which(row)
    known = await store.client(which)
    asked = (*door.rules.scopes, *door.rules.optional)
    if door.rules.register_at is None:
        if known is None:
            raise InvalidInput("our app is not known any more")
        return _client_of(store.client_secrets(known), asked)
    if known is not None and _still_known(known, door):
        return _client_of(store.client_secrets(known), asked)
    async with asyncio.timeout(PATIENCE):
        client = await door.register()
    secrets = {
        "client_id": client.id,
        "client_secret": client.secret,
        "scopes": " ".join(client.scopes),
    }
    await store.keep_client(which, secrets, door.redirect_uri)
    return client


def _still_known(known: OAuthClient, door: Door) -> bool:
    if known.redirect_uri is None:
        return True  # An operator made it, and knows why.
    fresh = known.used_at is not None or datetime.now(UTC) - known.created_at < _FRESH
    return fresh and known.redirect_uri == door.redirect_uri


def _client_of(secrets: Mapping[str, str], asked: tuple[str, ...] = ()) -> Client:
    scopes = tuple(secrets.get("scopes", "").split()) or asked
    return Client(secrets["client_id"], secrets["client_secret"], scopes)
