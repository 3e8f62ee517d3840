"""`clickpost workspaces`: customers, and what they pay for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cli import _house, members
from cli._actor import As, actor
from cli._output import AsJson, err, guarded, out, show_json
from cli._publishing import scheduled
from cli._workspace import Which, chosen
from clickpost.errors import Unavailable
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.subscriptions import Turned
from clickpost.store.tables import Subscription, Workspace

app = typer.Typer(help="Customers, and what they pay for.")
subscription = typer.Typer(no_args_is_help=True, help="What a workspace pays for.")
app.add_typer(subscription, name="subscription")
members.add_to(app)
ID = typer.Argument(..., metavar="SUBSCRIPTION", help="The subscription's id.")
#: So many runs a reactivation starts itself; the sweep takes the rest.
_MOST_RUNS = 100


@app.callback(invoke_without_command=True)
@guarded
def workspaces(context: typer.Context, as_json: bool = AsJson) -> None:
    """List the workspaces with what they pay for, or act on one."""
    if context.invoked_subcommand is not None:
        return
    rows = _house.run(_listed(_house.settings()))
    if as_json:
        show_json(rows)
        return
    table = Table("workspace", "id", "subscriptions", "since", box=None, header_style="dim")
    for row in rows:
        paid = ", ".join(f"{one['plan']} ({one['status']})" for one in row["subscriptions"])
        table.add_row(row["name"], row["workspace"], paid or "none", row["since"][:10])
    out.print(table)


async def _listed(given: Settings) -> list[dict[str, Any]]:
    async with _house.opened(given) as store:
        return [await _shown(store, row) for row in await store.workspaces()]


async def _shown(store: Store, row: Workspace) -> dict[str, Any]:
    return {
        "workspace": row.id,
        "name": row.name,
        "since": row.created_at.isoformat(),
        "subscriptions": [_line(one) for one in await store.subscriptions(row.id)],
    }


def _line(row: Subscription) -> dict[str, Any]:
    return {
        "subscription": row.id,
        "plan": row.plan,
        "status": row.status,
        "remote_id": row.remote_id,
        "started_at": row.started_at.isoformat(),
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
    }


@app.command()
@guarded
def show(
    name: str = typer.Argument(None, metavar="WORKSPACE", help="Its name or id; else the only."),
    as_json: bool = AsJson,
) -> None:
    """Show a workspace: what it pays for, and what is held because it does not."""
    row = _house.run(_one(_house.settings(), name))
    if as_json:
        show_json(row)
        return
    out.print(Text(f"{row['name']} ({row['workspace']})", "bold"))
    table = Table("subscription", "plan", "status", "since", "until", box=None, header_style="dim")
    for one in row["subscriptions"]:
        until = (one["ended_at"] or "")[:10]
        since = one["started_at"][:10]
        table.add_row(one["subscription"], one["plan"], one["status"], since, until)
    out.print(table if row["subscriptions"] else "it pays for nothing here, and may send")
    if row["held"]:
        out.print(f"{row['held']} deliveries are held until its subscription is active again")


async def _one(given: Settings, name: str | None) -> dict[str, Any]:
    async with _house.opened(given) as store:
        row = await chosen(store, name)
        return await _shown(store, row) | {"held": await store.held_unpaid(row.id)}


@subscription.command("add")
@guarded
def add(
    plan: str = typer.Argument(..., help="What is paid for."),
    workspace: str = Which,
    remote_id: str = typer.Option(None, "--remote-id", help="The payment processor's name of it."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Record what a workspace pays for."""
    by = actor(name)

    async def work(store: Store) -> dict[str, Any]:
        row = await chosen(store, workspace)
        return _line(await store.subscribe(row.id, plan, remote_id, by))

    row = _house.run(_with_store(work))
    if as_json:
        show_json(row)
    else:
        out.print(f"{row['subscription']}: {row['plan']} is active")


async def _with_store(work: Any) -> Any:
    async with _house.opened(_house.settings()) as store:
        return await work(store)


@subscription.command("suspend")
@guarded
def suspend(subscription_id: str = ID, name: str | None = As, as_json: bool = AsJson) -> None:
    """Hold all that its workspace has not sent, and whatever becomes due meanwhile.

    Nothing fails and nothing is lost: reactivate it, and it goes on.
    """
    by = actor(name)
    turned: Turned = _house.run(_with_store(lambda store: store.suspend(subscription_id, by)))
    _say(turned, "held", as_json=as_json)


@subscription.command("reactivate")
@guarded
def reactivate(subscription_id: str = ID, name: str | None = As, as_json: bool = AsJson) -> None:
    """Go on: release what it held. What is late by now goes as its post's `late` says."""
    by = actor(name)

    async def work(store: Store) -> Turned:
        turned = await store.reactivate(subscription_id, by)
        await _started(_house.settings(), store, turned)
        return turned

    _say(_house.run(_with_store(work)), "released", as_json=as_json)


@subscription.command("end")
@guarded
def end(subscription_id: str = ID, name: str | None = As, as_json: bool = AsJson) -> None:
    """End it for good; what it held while it was suspended is cancelled."""
    by = actor(name)

    def work(store: Store) -> Coroutine[Any, Any, Turned]:
        return store.end_subscription(subscription_id, by)

    _say(_house.run(_with_store(work)), "cancelled", as_json=as_json)


async def _started(given: Settings, store: Store, turned: Turned) -> None:
    """Start a run for each post that goes on; the sweep takes what is left over."""
    try:
        for post_id in turned.post_ids[:_MOST_RUNS]:
            await scheduled(given, store, post_id)
    except Unavailable as error:
        err.print(Text(f"{error}", "yellow"))


def _say(turned: Turned, what: str, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "subscription": turned.subscription_id,
                "status": turned.status,
                what: turned.deliveries,
                "posts": list(turned.post_ids),
            }
        )
        return
    many = "1 delivery" if turned.deliveries == 1 else f"{turned.deliveries} deliveries"
    out.print(f"{turned.subscription_id} is {turned.status}; {what} {many}")
