"""`clickpost connect | connections`: accounts, their health, and what they may still send."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import httpx
import typer
from rich.table import Table

from cli import _browser, _house
from cli._actor import permitted
from cli._output import AsJson, err, guarded, out, show_json
from cli._publishing import started
from cli.approving import for_one
from cli.burst import budgets_of, burst, worth_telling
from cli.slots import slots
from clickpost import budget
from clickpost.budget import Standing
from clickpost.delivery import State
from clickpost.errors import InvalidInput, Unavailable
from clickpost.people import Right
from clickpost.policy.load import load_platforms, platform
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import Settings
from clickpost.store import DeliveryLine, Store
from clickpost.store.tables import Connection
from connectors._api import client
from deployments import forms
from tasks import budgeting, connecting
from tasks.inviting import Invited

#: So many runs a reconnect starts itself; the sweep takes the rest.
MOST_RUNS = 100
accounts = typer.Typer()
_LOOSE = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(context_settings=_LOOSE)(connect)
    accounts.callback(invoke_without_command=True)(connections)
    accounts.command("slots")(slots)
    accounts.command("burst")(burst)
    accounts.command("require-approval")(for_one)
    app.add_typer(accounts, name="connections")


@guarded
def connect(
    context: typer.Context,
    name_of_platform: str = typer.Argument(
        metavar="PLATFORM", help="A platform that has a policy, e.g. mastodon."
    ),
    name: str = typer.Option("main", "--name", help="What you call this account."),
    api_base: str = typer.Option(None, "--api-base", help="Another server than the official one."),
    option: list[str] = typer.Option([], "--option", help="KEY=VALUE that only this platform has."),
    browser: bool = typer.Option(
        False, "--browser", help="Make a link by which the account's owner signs in."
    ),
    wait: bool = typer.Option(True, help="With --browser: wait until the owner has signed in."),
    as_json: bool = AsJson,
) -> None:
    """Connect an account. Credentials come from the environment (--KEY-env VARIABLE) or a prompt.

    Which KEYs a platform takes is in its policy file, and asked for where they are not given:
    bluesky identifier and app-password, mastodon access-token, instagram access-token,
    youtube client-id, client-secret and refresh-token. Connecting the same PLATFORM/NAME again
    replaces its credentials, releases what was held and begins to send it.

    With --browser (mastodon, youtube, instagram, x) the owner signs in at the platform instead:
    docs/how-to/connect-accounts.md.
    """
    given = _house.settings()
    policy = platform(given.policies, name_of_platform)
    credentials = _from_environment(context.args)
    by = permitted(Right.CONNECT)  # Before anybody types a credential.
    if browser:
        wish = connecting.Wish(
            platform=policy.name,
            name=_named(name),
            credentials=credentials,
            api_base=_address(api_base),
            options=dict(_pair(one) for one in option),
        )
        _by_link(given, policy, wish, by, wait=wait, as_json=as_json)
        return
    for key in connecting.missing(credentials, policy):
        one = policy.credentials[key]
        credentials[key] = _asked(key, one.why, secret=one.secret)
    for lacks in connecting.warnings(credentials, policy):
        err.print(f"[yellow]note:[/] {lacks}")
    wish = connecting.Wish(
        platform=policy.name,
        name=_named(name),
        credentials=credentials,
        api_base=_address(api_base),
        options=dict(_pair(one) for one in option),
    )
    row, released = _house.run(_connect(given, wish, by))
    _say_connected(row, released, as_json=as_json)


def _by_link(
    given: Settings,
    policy: PlatformPolicy,
    wish: connecting.Wish,
    by: str,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Make the link, show it, and wait for who follows it."""
    wish = _browser.as_before(given, wish)
    app = {
        key: _asked(key, _browser.why(policy, key), secret=key == "client_secret")
        for key in _browser.asked_for(given, policy, wish)
    }
    made = _house.run(
        _browser.invited(given, replace(wish, credentials={**wish.credentials, **app}), by)
    )
    if not wait and as_json:
        show_json({"link": made.url, "works_until": made.row.expires_at.isoformat()})
        return
    _browser.shown(given, made)
    if wait:
        row, released = _house.run(_came(given, made))
        _say_connected(row, released, as_json=as_json)


async def _came(given: Settings, made: Invited) -> tuple[Connection, Released]:
    async with _house.opened(given) as store:
        came = await _browser.waited(store, made.row)
        return came.connection, await _released(given, store, came.held)


def _say_connected(row: Connection, released: Released, *, as_json: bool) -> None:
    if as_json:
        show_json(_shown(row) | {"released": released.deliveries, "runs_for": released.started})
        return
    out.print(f"connected [bold]{row.ref}[/] as {row.handle} ({row.remote_id})")
    if released.deliveries:
        out.print(released.said())


def _asked(key: str, why: str, *, secret: bool) -> str:
    """Ask for a credential at the terminal; where there is none, read a line of what is piped."""
    if sys.stdin.isatty():
        return str(typer.prompt(f"{key} ({why})", hide_input=secret, err=True))
    line = sys.stdin.readline().strip()
    if not line:
        word = key.replace("_", "-")
        raise InvalidInput(
            f"{key} ({why}) is missing and there is no terminal to ask at: name an environment"
            f" variable with --{word}-env VARIABLE, or pipe it in, a line for each credential"
        )
    return line


async def _connect(given: Settings, wish: connecting.Wish, by: str) -> tuple[Connection, Released]:
    policy = load_platforms(given.policies)[wish.platform]
    async with _house.opened(given) as store, client() as http:
        held = await store.held_lines(f"{wish.platform}/{wish.name}")
        row = await connecting.connect(store, http, policy, wish, actor=by)
        with suppress(httpx.HTTPError):  # Prefect is away: the next `up` or `apply` does it.
            forms.refresh(given, await forms.choices_in(given, store))
        return row, await _released(given, store, held)


@dataclass(frozen=True)
class Released:
    """What a new grant set going: deliveries, and the posts whose runs were started for them."""

    deliveries: int = 0
    started: tuple[str, ...] = ()

    def said(self) -> str:
        """Return the sentence that the command ends with."""
        what = "1 held delivery" if self.deliveries == 1 else f"{self.deliveries} held deliveries"
        if not self.started:
            return f"released {what}; the sweep sends what is due within three minutes"
        posts = "1 post" if len(self.started) == 1 else f"{len(self.started)} posts"
        return f"released {what}; a run was started for {posts}; see: clickpost posts list"


async def _released(given: Settings, store: Store, held: list[DeliveryLine]) -> Released:
    """Start a run for each post that waited for the account; the sweep takes what is left over."""
    free = [line for line in held if await _is_free(store, line)]
    due_at: dict[str, datetime | None] = {}
    for line in free:
        due_at.setdefault(line.post_id, line.due_at)
    going = []
    try:
        for post_id in list(due_at)[:MOST_RUNS]:
            await started(given, store, post_id, due_at[post_id])
            going.append(post_id)
    except Unavailable as error:
        err.print(f"[yellow]{error}[/]")
    return Released(len(free), tuple(going))


async def _is_free(store: Store, line: DeliveryLine) -> bool:
    return (await store.delivery(line.id)).state is not State.HELD


def _from_environment(words: list[str]) -> dict[str, str]:
    """Read `--KEY-env VARIABLE` pairs; a secret itself on the command line is refused."""
    found: dict[str, str] = {}
    rest = [part for word in words for part in word.split("=", 1)]
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or not word.endswith("-env"):
            raise InvalidInput(
                f"{word.split('=')[0]}: unknown option; credentials are named as --KEY-env VARIABLE"
                " and never written on the command line, where others can read them"
            )
        if not rest:
            raise InvalidInput(f"{word}: needs the name of an environment variable")
        variable = rest.pop(0)
        if not os.environ.get(variable):
            raise InvalidInput(f"{word}: the environment variable {variable} is empty or not set")
        found[word.removeprefix("--").removesuffix("-env").replace("-", "_")] = os.environ[variable]
    return found


def _named(name: str) -> str:
    if not name or "/" in name or name.strip() != name:
        raise InvalidInput(f"--name: may not be empty or hold a slash; found {name!r}")
    return name


def _address(base: str | None) -> str | None:
    if base is not None and not base.startswith(("https://", "http://")):
        raise InvalidInput(f"--api-base: needs https:// (or http:// in tests); found {base!r}")
    return base


def _pair(word: str) -> tuple[str, str]:
    key, sign, value = word.partition("=")
    if not sign:
        raise InvalidInput(f"--option: needs KEY=VALUE; found {word!r}")
    return key, value


@guarded
def connections(context: typer.Context, as_json: bool = AsJson) -> None:
    """List the connected accounts, or act on one."""
    if context.invoked_subcommand is not None:
        return
    rows = _house.run(_listed(_house.settings()))
    if as_json:
        show_json([_shown(row) | budgets_of(pots) for row, pots in rows])
        return
    if not rows:
        out.print(
            "no account is connected yet. Connect one: clickpost connect PLATFORM --name NAME"
        )
        return
    heads = ("connection", "account", "status", "token until", "used")
    table = Table(*heads, box=None, header_style="dim")
    for row, pots in rows:
        colour = "green" if row.status == "active" else "red"
        ends = f"{row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "no end known"
        why = f" ({row.status_reason})" if row.status_reason else ""
        used = "\n".join(budget.said(one) for one in worth_telling(pots))
        table.add_row(row.ref, row.handle or "", f"[{colour}]{row.status}[/]{why}", ends, used)
    out.print(table)


async def _listed(given: Settings) -> list[tuple[Connection, list[Standing]]]:
    async with _house.opened(given) as store:
        return [
            (row, await budgeting.standings(store, row, _house.policy_of(given, row)))
            for row in await store.connections()
        ]


def _shown(row: Connection) -> dict[str, Any]:
    return {
        "id": row.id,
        "connection": row.ref,
        "platform": row.platform,
        "name": row.name,
        "handle": row.handle,
        "remote_id": row.remote_id,
        "api_base": row.api_base,
        "status": row.status,
        "approval": row.approval,
        "reason": row.status_reason,
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
    }
