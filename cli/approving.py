"""`clickpost approve`, and where an approval is required: of an account, or of all."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import typer
from rich.panel import Panel
from rich.text import Text

from cli import _house
from cli._actor import As, actor
from cli._arguments import ACCOUNT, POST
from cli._output import AsJson, guarded, out, show_json
from cli._publishing import report_of, started
from clickpost.errors import Conflict, InvalidInput
from clickpost.settings import Settings
from clickpost.store import Asked, Store
from deployments import runs


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


SWITCH = typer.Argument(metavar="on|off", help="Whether every post needs one from now on.")


def add_to(main: typer.Typer) -> None:
    """Add the commands to the command line."""
    main.command()(approve)


@guarded
def approve(
    post_id: str = POST,
    to: list[str] = typer.Option(
        [], "--to", help="Only this account, PLATFORM/NAME; again for more."
    ),
    refuse: bool = typer.Option(False, "--refuse", help="Refuse it: it goes back to its writer."),
    note: str = typer.Option("", "--note", help="For the writer; it is kept with the decision."),
    show: bool = typer.Option(
        False, "--show", help="Show what would be published; decide nothing."
    ),
    name: str = As,
    as_json: bool = AsJson,
) -> None:
    """Approve what waits for it: exactly this content at this time. A change asks anew."""
    given = _house.settings()
    if show:
        _look(given, post_id, as_json=as_json)
        return
    decided = _house.run(_decided(given, post_id, to, not refuse, actor(name), note))
    if as_json:
        show_json(decided)
        return
    word = "refused" if refuse else "approved"
    out.print(f"{word}: {', '.join(decided['decided'])}")
    if "run" in decided:
        out.print(f"run: {decided['run']}")


async def _decided(
    given: Settings, post_id: str, to: list[str], approve: bool, by: str, note: str
) -> dict[str, Any]:
    async with _house.opened(given) as store:
        chosen = await _chosen(store, post_id, to)
        done, faults = [], []
        for asked in chosen:
            try:
                await store.decide(asked, approve=approve, by=by, note=note)
                done.append(asked)
            except Conflict as error:
                faults.append(f"{asked.ref}: {error}")
        for asked in done:
            if asked.run_id and runs.complete(given, asked.run_id, "decided on the command line"):
                await store.forget_approval_run(asked.run_id)
        report: dict[str, Any] = {"decided": [asked.ref for asked in done]}
        if approve and any(_is_due(asked) for asked in done):
            report["run"] = await started(given, store, post_id, None)
        if faults:
            raise Conflict("; ".join(faults))
        return await report_of(store, post_id) | report


def _is_due(asked: Asked) -> bool:
    return asked.due_at is None or asked.due_at <= datetime.now(UTC)


async def _chosen(store: Store, post_id: str, to: list[str]) -> list[Asked]:
    await store.post(post_id)
    waiting = await store.open_approvals(post_id=post_id)
    known = {asked.ref: asked for asked in waiting}
    if missing := [ref for ref in to if ref not in known]:
        choices = ", ".join(known) or "none"
        raise InvalidInput(f"{', '.join(missing)} waits for no approval; waiting: {choices}")
    if not waiting:
        raise InvalidInput(f"{post_id}: nothing of it waits for an approval")
    return [known[ref] for ref in to] if to else waiting


def _look(given: Settings, post_id: str, *, as_json: bool) -> None:
    rows = _house.run(_messages(given, post_id))
    if as_json:
        show_json(rows)
        return
    for row in rows:
        body = Text()
        for part in row["parts"]:
            body.append(f"{part['title']}\n" if part["title"] else "", "bold")
            body.append(f"{part['text']}\n")
            for one in part["media"]:
                body.append(f"{one['rendition']}: {one['alt'] or 'no description'}\n", "cyan")
        body.append(f"due {row['due_at'] or 'at once'} · {row['state']}", "dim")
        out.print(Panel(body, title=row["connection"], title_align="left"))


async def _messages(given: Settings, post_id: str) -> list[dict[str, Any]]:
    """Return what each account would get, as it is prepared."""
    async with _house.opened(given) as store:
        await store.post(post_id)
        return [
            {
                "connection": line.ref,
                "state": line.state.value,
                "due_at": line.due_at.isoformat() if line.due_at else None,
                "parts": await _parts(store, line.id),
            }
            for line in await store.lines(post_id)
        ]


async def _parts(store: Store, delivery_id: str) -> list[dict[str, Any]]:
    return [
        {
            "title": part["title"],
            "text": part["text"],
            "media": [
                {"rendition": await _rendition(store, one["rendition_id"]), "alt": one["alt"]}
                for one in part["media"]
            ],
        }
        for part in (await store.delivery(delivery_id)).message or []
    ]


async def _rendition(store: Store, rendition_id: str) -> str:
    row = await store.rendition(rendition_id)
    return row.stored_at if row else "gone"


@guarded
def for_all(switch: Switch = SWITCH, name: str = As, as_json: bool = AsJson) -> None:
    """Require an approval for every post of every account, or no longer."""
    _switched(None, switch, name, as_json=as_json)


@guarded
def for_one(
    ref: str = ACCOUNT,
    switch: Switch = SWITCH,
    name: str = As,
    as_json: bool = AsJson,
) -> None:
    """Require an approval for every post of this account, or no longer."""
    _switched(ref, switch, name, as_json=as_json)


def _switched(ref: str | None, switch: Switch, name: str | None, *, as_json: bool) -> None:
    given = _house.settings()
    touched = _house.run(_required(given, ref, on=switch is Switch.ON, by=actor(name)))
    if as_json:
        show_json({"approval": switch.value, "of": ref or "all accounts", "posts": touched})
        return
    out.print(f"approval of {ref or 'all accounts'}: {switch.value}")
    if touched:
        what = "waiting for approval now" if switch is Switch.ON else "waiting for it no longer"
        out.print(f"{what}: {', '.join(touched)}")


async def _required(given: Settings, ref: str | None, *, on: bool, by: str) -> list[str]:
    async with _house.opened(given) as store:
        known = (await store.connection(ref)).ref if ref else None
        touched = await store.require_approval(known, on=on, actor=by)
        if not on:
            for post_id in touched:
                if any(
                    line.state == "ready" and not line.due_at for line in await store.lines(post_id)
                ):
                    await started(given, store, post_id, None)
        return touched
