"""`clickpost connect … --browser`: makes the link, and waits until somebody has used it."""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx

from cli import _house
from cli._output import err
from clickpost.errors import InvalidInput, Unavailable
from clickpost.invitation import Status, rules_of
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import Settings
from clickpost.store import DeliveryLine, Store
from clickpost.store.invitations import Sought
from clickpost.store.tables import Connection, Invitation
from tasks import connecting, inviting
from tasks.inviting import Invited

#: What an operator gives of an app that was made by hand.
APP = ("client_id", "client_secret")
#: Seconds between two looks whether somebody came back.
_LOOK = 1.0


@dataclass(frozen=True)
class Came:
    """What became of an invitation: the connection, and what had been held for it."""

    connection: Connection
    held: list[DeliveryLine]


def asked_for(given: Settings, policy: PlatformPolicy, wish: connecting.Wish) -> list[str]:
    """Return what has to be known of our app and is neither given nor kept."""
    if rules_of(policy).register_at is not None or wish.credentials.keys() >= set(APP):
        return []
    if not wish.credentials and _house.run(_is_known(given, policy, wish)):
        return []
    return [name for name in APP if name not in wish.credentials]


def why(policy: PlatformPolicy, name: str) -> str:
    """Return where an operator finds the app's id or secret."""
    word = "id" if name == "client_id" else "secret"
    return f"the {word} of {rules_of(policy).app_at}"


async def _is_known(given: Settings, policy: PlatformPolicy, wish: connecting.Wish) -> bool:
    async with _house.opened(given) as store:
        base = connecting.base_of(policy, wish.api_base)
        which = Sought(await store.workspace_id(), policy.name, base)
        return await store.client(which) is not None


def as_before(given: Settings, wish: connecting.Wish) -> connecting.Wish:
    """Return the wish; a connection that there is keeps its server and its options.

    Raises InvalidInput for credentials that the owner gives by signing in.
    """
    if unknown := wish.credentials.keys() - set(APP):
        word = min(unknown).replace("_", "-")
        raise InvalidInput(
            f"--{word}-env: with --browser the owner signs in; only our app is named, by"
            " --client-id-env and --client-secret-env"
        )
    known = _house.run(_known(given, f"{wish.platform}/{wish.name}"))
    if known is None:
        return wish
    options = {**known.options, **wish.options}
    return replace(wish, api_base=wish.api_base or known.api_base, options=options)


async def _known(given: Settings, ref: str) -> Connection | None:
    async with _house.opened(given) as store:
        return next((row for row in await store.connections() if row.ref == ref), None)


async def invited(given: Settings, wish: connecting.Wish, by: str) -> Invited:
    """Make the invitation; credentials that are given are those of our app."""
    async with _house.opened(given) as store:
        return await inviting.invite(given, store, wish, wish.credentials, actor=by)


def shown(given: Settings, made: Invited) -> None:
    """Show the link, on standard error, and open it where a person sits before a browser."""
    err.print(f"open this link, or send it to the account's owner:\n  {made.url}", soft_wrap=True)
    err.print(f"[dim]it works until {made.row.expires_at:%Y-%m-%d %H:%M} UTC, for one account[/]")
    if not _answers(given.gateway_url):
        err.print(f"[yellow]note:[/] no gateway answers at {given.gateway_url}; see: clickpost up")
    elif sys.stderr.isatty() and has_screen():
        webbrowser.open(made.url)


def has_screen() -> bool:
    """Say whether a browser can be opened that does not take the terminal."""
    if sys.platform.startswith(("darwin", "win")):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _answers(gateway: str) -> bool:
    try:
        return httpx.get(f"{gateway}/livez", timeout=3.0).status_code < 500
    except httpx.HTTPError:
        return False


async def waited(store: Store, row: Invitation) -> Came:
    """Wait until the account is connected, and say what went wrong meanwhile.

    Raises Unavailable where the link's time is over first.
    """
    said, ref = row.reason, f"{row.platform}/{row.name}"
    err.print("[dim]waiting for the sign-in; Ctrl-C stops waiting, the link goes on working[/]")
    held: dict[str, DeliveryLine] = {}
    while True:
        # Released before we see that it is done: what was held at any look counts.
        held |= {line.id: line for line in await store.held_lines(ref)}
        current = await store.invitation(row.id)
        if current.status == Status.DONE and current.connection_id is not None:
            return Came(await store.connection(current.connection_id), list(held.values()))
        if current.reason and current.reason != said:
            err.print(f"[yellow]not connected:[/] {current.reason}")
        said = current.reason
        if current.expires_at <= datetime.now(UTC):
            raise Unavailable("nobody used the link in its time; make another one")
        await asyncio.sleep(_LOOK)
