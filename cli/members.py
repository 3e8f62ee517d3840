"""`clickpost workspaces member | consent | preference | ticket`: people, and what they said."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from cli import _house
from cli._actor import As, actor, permitted
from cli._output import AsJson, guarded, out, show_json
from cli._workspace import Which, chosen
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.store import Store
from clickpost.store.members import ALL, NewTicket
from clickpost.telling import EVENTS

T = TypeVar("T")
member = typer.Typer(no_args_is_help=True, help="The people of a workspace.")
consent = typer.Typer(no_args_is_help=True, help="What a member agreed to.")
preference = typer.Typer(no_args_is_help=True, help="How a member wants to be told.")
ticket = typer.Typer(no_args_is_help=True, help="What people ask support.")
MEMBER = typer.Argument(..., metavar="MEMBER", help="The member's id.")
TICKET = typer.Argument(..., metavar="TICKET", help="The ticket's id.")
TEXT = typer.Argument("-", metavar="TEXT", help="What was written; - reads it from the input.")


def add_to(app: typer.Typer) -> None:
    """Add the commands to `clickpost workspaces`."""
    groups = {"member": member, "consent": consent, "preference": preference, "ticket": ticket}
    for name, group in groups.items():
        app.add_typer(group, name=name)


def with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    """Run `work` with an open store."""

    async def run() -> T:
        async with _house.opened(_house.settings()) as store:
            return await work(store)

    return _house.run(run())


def _said(row: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        show_json(row)
    else:
        out.print(Text(line), soft_wrap=True)


@member.command("add")
@guarded
def add(
    email: str = typer.Argument(..., metavar="EMAIL", help="Their e-mail address."),
    called: str = typer.Option(None, "--name", help="Their name."),
    role: str = typer.Option("publisher", "--role", help="owner, publisher or viewer."),
    workspace: str = Which,
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Record a member."""
    by = actor(name)

    async def work(store: Store) -> str:
        row = await chosen(store, workspace)
        return (await store.add_member(row.id, email, called, role, by)).id

    made = with_store(work)
    _said({"member": made}, f"{made} is a member", as_json=as_json)


@member.command("list")
@guarded
def list_(workspace: str = Which, as_json: bool = AsJson) -> None:
    """List the members; who left is among them until the retention policy says otherwise."""
    permitted(Right.SEE)

    async def work(store: Store) -> list[dict[str, Any]]:
        return [
            {
                "member": row.id,
                "email": row.email,
                "name": row.name,
                "role": row.role,
                "left_at": row.left_at.isoformat() if row.left_at else None,
            }
            for row in await store.members((await chosen(store, workspace)).id)
        ]

    _table(with_store(work), as_json=as_json)


def _table(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json(rows)
        return
    if not rows:
        out.print("none")
        return
    table = Table(*rows[0], box=None, header_style="dim")
    for row in rows:
        table.add_row(*(Text("" if one is None else str(one)) for one in row.values()))
    out.print(table)


@member.command("left")
@guarded
def left(member_id: str = MEMBER, name: str | None = As, as_json: bool = AsJson) -> None:
    """Note that a member left: they are told nothing more, and their data begins to expire."""
    by = actor(name)
    with_store(lambda store: store.let_go(member_id, by))
    _said({"member": member_id, "left": True}, f"{member_id} has left", as_json=as_json)


@consent.command("give")
@guarded
def give(
    member_id: str = MEMBER,
    purpose: str = typer.Argument(..., help="What they agreed to, e.g. newsletter."),
    wording: str = typer.Option(..., "--wording", help="The version of your words."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Record that a member agreed to something."""
    by = actor(name)
    row = with_store(lambda store: store.give_consent(member_id, purpose, wording, by))
    _said({"consent": row.id}, f"{row.id}: {purpose}", as_json=as_json)


@consent.command("withdraw")
@guarded
def withdraw(
    consent_id: str = typer.Argument(
        ..., metavar="CONSENT", help="Its id, as `consent list` shows it."
    ),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Record that a member withdrew it."""
    by = actor(name)
    with_store(lambda store: store.withdraw_consent(consent_id, by))
    said = {"consent": consent_id, "withdrawn": True}
    _said(said, f"{consent_id} is withdrawn", as_json=as_json)


@consent.command("list")
@guarded
def consents(member_id: str = MEMBER, as_json: bool = AsJson) -> None:
    """List what a member agreed to."""
    permitted(Right.SEE)

    async def work(store: Store) -> list[dict[str, Any]]:
        return [
            {
                "consent": row.id,
                "purpose": row.purpose,
                "wording": row.wording,
                "given_at": row.given_at.isoformat(),
                "withdrawn_at": row.withdrawn_at.isoformat() if row.withdrawn_at else None,
            }
            for row in await store.consents(member_id)
        ]

    _table(with_store(work), as_json=as_json)


@preference.command("set")
@guarded
def prefer(
    member_id: str = MEMBER,
    event: str = typer.Argument(..., help="An event of `clickpost notify`, or `all`."),
    way: str = typer.Argument(..., help="email, webhook or chat."),
    wanted: bool = typer.Option(..., "--wanted/--unwanted", help="Whether they want it."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Record whether a member wants to be told of an event in one way."""
    by = actor(name)
    if event not in ("all", *EVENTS):
        raise InvalidInput(f"EVENT: all, or one of {', '.join(EVENTS)}")
    stored = ALL if event == "all" else event
    with_store(lambda store: store.prefer(member_id, stored, way, wanted=wanted, by=by))
    said = {"member": member_id, "event": event, "way": way, "wanted": wanted}
    words = "is told" if wanted else "is not told"
    _said(said, f"{member_id} {words} of {event} by {way}", as_json=as_json)


@preference.command("list")
@guarded
def preferences(member_id: str = MEMBER, as_json: bool = AsJson) -> None:
    """List what a member wants to be told; whatever is not listed they want."""
    permitted(Right.SEE)

    async def work(store: Store) -> list[dict[str, Any]]:
        return [
            {
                "event": "all" if row.event == ALL else row.event,
                "way": row.way,
                "wanted": row.wanted,
            }
            for row in await store.preferences(member_id)
        ]

    _table(with_store(work), as_json=as_json)


@ticket.command("open")
@guarded
def open_(
    title: str = typer.Argument(..., help="What it is about."),
    text: str = TEXT,
    email: str = typer.Option(None, "--email", help="Who writes, where they are no member."),
    member_id: str = typer.Option(None, "--member", help="Who writes, where they are one."),
    workspace: str = Which,
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Record what somebody asks."""
    by, said = actor(name), _read(text)

    async def work(store: Store) -> str:
        row = await chosen(store, workspace)
        new = NewTicket(row.id, title, said, email, member_id)
        return (await store.open_ticket(new, by)).id

    made = with_store(work)
    _said({"ticket": made}, f"{made} is open", as_json=as_json)


def _read(text: str) -> str:
    said = sys.stdin.read() if text == "-" else text
    if not said.strip():
        raise InvalidInput("TEXT: nothing was written")
    return said


@ticket.command("say")
@guarded
def say(
    ticket_id: str = TICKET,
    text: str = TEXT,
    author: str = typer.Option("staff", "--author", help="staff or person."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Record what staff, or the person, wrote."""
    by, said = actor(name), _read(text)
    with_store(lambda store: store.say_in_ticket(ticket_id, author, said, by))
    _said({"ticket": ticket_id}, f"kept in {ticket_id}", as_json=as_json)


@ticket.command("close")
@guarded
def close(ticket_id: str = TICKET, name: str | None = As, as_json: bool = AsJson) -> None:
    """Close a ticket: its retention clock begins."""
    by = actor(name)
    with_store(lambda store: store.close_ticket(ticket_id, by))
    _said({"ticket": ticket_id, "closed": True}, f"{ticket_id} is closed", as_json=as_json)


@ticket.command("show")
@guarded
def show(ticket_id: str = TICKET, as_json: bool = AsJson) -> None:
    """Show what was written in a ticket."""
    permitted(Right.SEE)

    async def work(store: Store) -> list[dict[str, Any]]:
        return [
            {"at": f"{row.at:%Y-%m-%d %H:%M}", "author": row.author, "text": row.body}
            for row in await store.messages(ticket_id)
        ]

    _table(with_store(work), as_json=as_json)


@ticket.command("list")
@guarded
def tickets(workspace: str = Which, as_json: bool = AsJson) -> None:
    """List the tickets, newest first."""
    permitted(Right.SEE)

    async def work(store: Store) -> list[dict[str, Any]]:
        return [
            {"ticket": row.id, "title": row.title, "status": row.status, "member": row.member_id}
            for row in await store.tickets((await chosen(store, workspace)).id)
        ]

    _table(with_store(work), as_json=as_json)
