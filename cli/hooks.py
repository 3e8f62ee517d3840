"""`clickpost hooks add | list | remove | trace`: the webhooks that come in through the gateway."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table

from cli import _house
from cli._actor import actor
from cli._arguments import HOOK
from cli._output import AsJson, guarded, out, show_json
from clickpost.hooks import event_of, new_secret
from clickpost.settings import Settings
from clickpost.store.hooks import name_of
from clickpost.store.tables import Channel, Firing
from deployments import runs

app = typer.Typer(no_args_is_help=True, help="Let others start something, by signed webhooks.")


@app.command()
@guarded
def add(
    name: str = typer.Argument(help="Small letters, digits and hyphens; part of the address."),
    as_json: bool = AsJson,
) -> None:
    """Add a hook, and show its address and its secret, which is shown this once.

    Each call that is signed with the secret becomes the event `hook.NAME` in Prefect.
    """
    given, secret = _house.settings(), new_secret()
    row = _house.run(_added(given, name, secret, actor()))
    if as_json:
        show_json(_shown(given, row) | {"secret": secret})
        return
    out.print(f"added [bold]{name}[/]: POST {_url(given, row)}")
    out.print(f"its secret, shown this once, for the sender to sign with: {secret}")


async def _added(given: Settings, name: str, secret: str, by: str) -> Channel:
    async with _house.opened(given) as store:
        return await store.add_hook(await store.workspace_id(), name, secret, actor=by)


@app.command("list")
@guarded
def list_(as_json: bool = AsJson) -> None:
    """List the hooks; their secrets stay sealed."""
    given = _house.settings()
    rows = _house.run(_listed(given))
    if as_json:
        show_json([_shown(given, row) for row in rows])
        return
    if not rows:
        out.print("there is no hook yet. Add one: clickpost hooks add NAME")
        return
    table = Table("hook", "address", "event", "since", box=None, header_style="dim")
    for row in rows:
        name, url = name_of(row), _url(given, row)
        table.add_row(name, url, event_of(name), f"{row.created_at:%Y-%m-%d}")
    out.print(table)


async def _listed(given: Settings) -> list[Channel]:
    async with _house.opened(given) as store:
        return await store.hooks()


@app.command()
@guarded
def remove(name: str = HOOK, as_json: bool = AsJson) -> None:
    """Remove a hook: within seconds, its calls are answered as if it had never been."""
    _house.run(_removed(_house.settings(), name, actor()))
    if as_json:
        show_json({"removed": name})
    else:
        out.print(f"removed {name}")


async def _removed(given: Settings, name: str, by: str) -> None:
    async with _house.opened(given) as store:
        await store.remove_hook(name, actor=by)


@app.command()
@guarded
def trace(
    call: str = typer.Argument(help="The id that the sender got as our answer."),
    as_json: bool = AsJson,
) -> None:
    """Say what came of an accepted call: which trigger started which run, or why it did not."""
    given = _house.settings()
    found = _house.run(_traced(given, call))
    rows = [
        {"trigger": one.trigger, "verdict": one.verdict, "reason": one.reason, "run_id": one.run_id}
        for one in found
    ]
    if as_json:
        show_json({"call": call, "firings": rows})
        return
    if not rows:
        out.print("no trigger has decided about it: none waits for this hook, or it is on its way")
    for one in found:
        came = runs.run_url(given, one.run_id) if one.run_id else one.reason or ""
        out.print(
            f"[bold]{one.trigger}[/]: {one.verdict.replace('_', ' ')}  {came}", soft_wrap=True
        )


async def _traced(given: Settings, call: str) -> list[Firing]:
    async with _house.opened(given) as store:
        await store.hook_body(call)  # Raises where there is no such call.
        return await store.firings(call)


def _url(given: Settings, row: Channel) -> str:
    return f"{given.gateway_url}/hooks/{name_of(row)}"


def _shown(given: Settings, row: Channel) -> dict[str, Any]:
    name = name_of(row)
    return {"id": row.id, "name": name, "url": _url(given, row), "event": event_of(name)}
