"""`clickpost notify add | list | remove | test`: the channels through which people are told."""

from __future__ import annotations

import base64
import os
import secrets as chance
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import typer
from rich.table import Table

from cli import _house
from cli._actor import actor, permitted
from cli._arguments import CHANNEL
from cli._output import AsJson, guarded, out, show_json
from clickpost.errors import ClickPostError, InvalidInput, Unavailable
from clickpost.ids import new as new_id
from clickpost.people import Right
from clickpost.settings import Settings
from clickpost.store import NewChannel
from clickpost.store.tables import Channel
from clickpost.telling import EVENTS, Event, Said
from connectors import _channels
from connectors._outward import outward

app = typer.Typer(no_args_is_help=True, help="Choose who is told what happened, and how.")


@app.command()
@guarded
def add(
    name: str = typer.Argument(help="What you call this channel."),
    email: str = typer.Option(None, "--email", help="Tell by e-mail, to this ADDRESS."),
    webhook: str = typer.Option(None, "--webhook", help="Tell by signed POST, to this URL."),
    secret_env: str = typer.Option(
        None, "--secret-env", help="Variable that holds the webhook's key; else one is made."
    ),
    apprise_env: str = typer.Option(
        None, "--apprise-env", help="Variable that holds an apprise URL: Slack, Matrix, …"
    ),
    event: list[str] = typer.Option([], "--event", help="Only these events; else all."),
    member: str = typer.Option(
        None, "--member", metavar="ID", help="Whose it is; an e-mail address tells that by itself."
    ),
    as_json: bool = AsJson,
) -> None:
    """Add a channel: e-mail, webhook or chat. Its address and key are sealed.

    Without --event it gets all. Try it with: clickpost notify test NAME
    """
    given = _house.settings()
    if sum(one is not None for one in (email, webhook, apprise_env)) != 1:
        raise InvalidInput("name one of --email ADDRESS, --webhook URL, --apprise-env VARIABLE")
    if secret_env and webhook is None:
        raise InvalidInput("--secret-env: only a webhook is signed")
    if unknown := [one for one in event if one not in EVENTS]:
        raise InvalidInput(f"--event: there is no {unknown[0]}; choose of {', '.join(EVENTS)}")
    if not name or name.strip() != name:
        raise InvalidInput("NAME: may not be empty, or begin or end with a space")
    if email is not None:
        new = NewChannel(name, "email", _channels.checked_email(email, given), tuple(event))
    elif webhook is not None:
        key = _variable("--secret-env", secret_env) if secret_env else _made_key()
        new = NewChannel(name, "webhook", _channels.checked_webhook(webhook, key), tuple(event))
    else:
        url = _variable("--apprise-env", apprise_env)
        new = NewChannel(name, "chat", _channels.checked_chat(url), tuple(event))
    row = _house.run(_added(given, new, email, member, actor()))
    made = new.secrets.get("secret") if not secret_env else None
    if as_json:
        show_json(_shown(row) | ({"secret": made} if made else {}))
        return
    out.print(f"added [bold]{row.name}[/] ({row.kind}); try it: clickpost notify test {row.name}")
    if made:
        out.print(f"its key, shown this once, for the receiver to check signatures: {made}")


def _variable(option: str, name: str) -> str:
    if not (value := os.environ.get(name)):
        raise InvalidInput(f"{option}: the environment variable {name} is empty or not set")
    return value


def _made_key() -> str:
    return "whsec_" + base64.b64encode(chance.token_bytes(32)).decode()


async def _added(
    given: Settings, new: NewChannel, email: str | None, member: str | None, by: str
) -> Channel:
    async with _house.opened(given) as store:
        workspace = await store.workspace_id()
        if member is not None:
            await store.member(member)
        elif email is not None:
            known = [one for one in await store.members_at(email) if one.left_at is None]
            member = next((one.id for one in known if one.workspace_id == workspace), None)
        return await store.add_channel(workspace, replace(new, member_id=member), actor=by)


@app.command("list")
@guarded
def list_(as_json: bool = AsJson) -> None:
    """List the channels; addresses and keys stay sealed."""
    rows = _house.run(_listed(_house.settings()))
    if as_json:
        show_json([_shown(row) for row in rows])
        return
    if not rows:
        out.print("nobody is told yet. Add a channel: clickpost notify add NAME --email ADDRESS")
        return
    table = Table("channel", "kind", "events", "since", box=None, header_style="dim")
    for row in rows:
        events = ", ".join(row.events) or "all"
        table.add_row(row.name, row.kind, events, f"{row.created_at:%Y-%m-%d}")
    out.print(table)


async def _listed(given: Settings) -> list[Channel]:
    async with _house.opened(given) as store:
        return await store.channels()


@app.command()
@guarded
def remove(name: str = CHANNEL, as_json: bool = AsJson) -> None:
    """Remove a channel; what still waits for it is not told through it."""
    waiting = _house.run(_removed(_house.settings(), name, actor()))
    if as_json:
        show_json({"removed": name, "waiting": waiting})
        return
    out.print(f"removed {name}" + (f"; {waiting} notices waited for it" if waiting else ""))


async def _removed(given: Settings, name: str, by: str) -> int:
    async with _house.opened(given) as store:
        return await store.remove_channel(name, actor=by)


@app.command("test")
@guarded
def try_(name: str = CHANNEL, as_json: bool = AsJson) -> None:
    """Send a test through one channel, now, and say whether it was taken."""
    permitted(Right.CONNECT)
    _house.run(_tested(_house.settings(), name))
    if as_json:
        show_json({"channel": name, "taken": True})
    else:
        out.print(f"{name} took it")


async def _tested(given: Settings, name: str) -> None:
    async with _house.opened(given) as store:
        row = await store.channel(name)
        secrets = store.channel_secrets(row)
    facts = {"channel": row.name, "reason": "somebody ran clickpost notify test"}
    said = Said(new_id("note"), Event.TEST, row.id, facts, datetime.now(UTC))
    try:
        await _sent(given, row, secrets, said)
    except ClickPostError as error:
        raise Unavailable(f"{name} did not take it: {error}") from None


async def _sent(given: Settings, row: Channel, secrets: Mapping[str, str], said: Said) -> None:
    if row.kind == "email":
        await _channels.send_email(secrets, [said], said.id, given, given.prefect_ui)
    elif row.kind == "webhook":
        async with outward(given) as http:
            await _channels.send_webhook(secrets, said, http, given.prefect_ui)
    else:
        await _channels.send_chat(secrets, [said], given.prefect_ui, given)


def _shown(row: Channel) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "kind": row.kind,
        "events": row.events,
        "member": row.member_id,
    }
