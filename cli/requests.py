"""`clickpost privacy request | requests | confirm | extend | pause | resume | refuse | answer`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cli import _house
from cli._actor import As, actor
from cli._output import AsJson, guarded, out, show_json
from clickpost import logs
from clickpost.errors import InvalidInput, Unavailable
from clickpost.people import Right
from clickpost.policy import requesting
from clickpost.policy.load import nearest
from clickpost.requests import Door, Kind
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import SubjectRequest
from deployments import runs
from tasks import doors, requests
from tasks.doors import Asked

#: What an operator does to one request.
Work = Callable[[Settings, Store, str], Awaitable[SubjectRequest]]
Id = typer.Argument(..., metavar="REQUEST", help="Its id, or its confirmation code.")


@guarded
def request(
    kind: str = typer.Argument(..., help=f"One of {', '.join(Kind)}."),
    address: str = typer.Option(
        None, "--address", help="The person's e-mail address; they are asked whether it was them."
    ),
    law: str = typer.Option(
        requesting.DEFAULT, "--law", help="By name or place: gdpr, ccpa, DE, US-CA, …"
    ),
    details: str = typer.Option(None, "--details", help="What else they said; kept sealed."),
    workspace: str = typer.Option(
        None, "--workspace", metavar="ID", help="For a whole business account: which workspace."
    ),
    reference: list[str] = typer.Option(
        [], "--reference", metavar="WHERE=ID", help="What a vendor knows them as: stripe=cus_…"
    ),
    takedown: bool = typer.Option(
        False, "--takedown", help="Their published posts are to be taken down as well."
    ),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Take in what a person asks about their data, as they asked it by letter or telephone.

    The answer is the same whether we know the address or not.
    """
    asked = Asked(
        kind=_kind(kind),
        door=Door.CLI,
        jurisdiction=law,
        address=address,
        details=details,
        references=_references(reference),
        workspace_id=workspace,
        account=workspace is not None,
        takedown=takedown,
    )
    given = _house.settings()
    row = _house.run(_asked(given, asked, actor(name)))
    _started(given, row)
    _show_one(given, row, as_json)


def _kind(word: str) -> Kind:
    if word not in {one.value for one in Kind}:
        near = nearest(word, [one.value for one in Kind])
        hint = f"; did you mean {near}?" if near else ""
        raise InvalidInput(f"unknown kind {word!r}{hint} (known: {', '.join(Kind)})")
    return Kind(word)


def _references(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        where, equals, what = one.partition("=")
        if not (where and equals and what):
            raise InvalidInput("--reference: needs WHERE=ID, e.g. stripe=cus_123")
        found[where] = what
    return found


async def _asked(given: Settings, asked: Asked, by: str) -> SubjectRequest:
    async with _house.opened(given) as store:
        if asked.workspace_id is not None:
            known = [one.id for one in await store.workspaces()]
            if asked.workspace_id not in known:
                raise InvalidInput(f"no workspace {asked.workspace_id}; see: clickpost workspaces")
        await store.require(by, Right.SERVE)
        return (await doors.receive(given, store, asked, by))[0]


@guarded
def list_(
    closed: bool = typer.Option(False, "--closed", help="Those that are answered or refused."),
    request_id: str = typer.Option(None, "--id", metavar="REQUEST", help="One, in full."),
    as_json: bool = AsJson,
) -> None:
    """List the open requests, the one that is due first on top; addresses stay sealed."""
    given = _house.settings()
    if request_id is not None:
        _show_one(given, _house.run(_found(given, request_id)), as_json)
        return
    rows = _house.run(_listed(given, closed=closed))
    if as_json:
        show_json(rows)
        return
    if not rows:
        out.print("no request is closed yet" if closed else "no request is open")
        return
    table = Table(*rows[0], box=None, header_style="dim", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    out.print(table)
    out.print("times are UTC", style="dim")


async def _listed(given: Settings, *, closed: bool) -> list[dict[str, object]]:
    rules, moment = requesting.load(given.policies), datetime.now(UTC)
    async with _house.opened(given) as store:
        rows = await store.subject_requests(closed=closed)
    return [requests.line_of(row, requests.urgency(rules, row, moment), moment) for row in rows]


async def _found(given: Settings, request_id: str) -> SubjectRequest:
    async with _house.opened(given) as store:
        return await store.request(request_id)


@guarded
def show_person(
    request_id: str = Id,
    as_json: bool = AsJson,
) -> None:
    """Show who asks and what they said: personal data, for which the ledger writes who looked."""
    given = _house.settings()
    said = _house.run(_opened(given, request_id, actor()))
    if as_json:
        show_json(said)
        return
    for name, value in said.items():
        out.print(Text(f"{name}: {value}"), soft_wrap=True)


async def _opened(given: Settings, request_id: str, by: str) -> dict[str, Any]:
    async with _house.opened(given) as store:
        await store.require(by, Right.SEE)
        row = await store.request(request_id)
        said: dict[str, Any] = dict(store.request_secrets(row))
        if not said:
            raise InvalidInput(f"{row.id} was answered, and who asked is forgotten here")
        await store.note_request_seen(row.id, by)
    return said | {"references": json.loads(said["references"])}


@guarded
def confirm(
    request_id: str = Id,
    authority: str = typer.Option(
        None, "--authority", help="Why they may speak for a business account; no names."
    ),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Say that you know it comes from whom it is about, by other means than our letter."""

    async def work(given: Settings, store: Store, by: str) -> SubjectRequest:
        return await requests.confirm_by_operator(store, request_id, by, authority)

    _worked(work, name, as_json)


@guarded
def extend(
    request_id: str = Id,
    why: str = typer.Option(..., "--why", help="What the person is told."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Take the longer time that the law gives, once; the person is told first, with the reason."""

    async def work(given: Settings, store: Store, by: str) -> SubjectRequest:
        row = await store.request(request_id)
        return await requests.extend(given, store, row.id, why, by)

    _worked(work, name, as_json)


@guarded
def pause(request_id: str = Id, name: str | None = As, as_json: bool = AsJson) -> None:
    """Stop its clock while we wait for the person, where the law lets us."""

    async def work(given: Settings, store: Store, by: str) -> SubjectRequest:
        row = await store.request(request_id)
        return await requests.pause(given, store, row.id, by)

    _worked(work, name, as_json)


@guarded
def resume(request_id: str = Id, name: str | None = As, as_json: bool = AsJson) -> None:
    """Let its clock go on."""

    async def work(given: Settings, store: Store, by: str) -> SubjectRequest:
        row = await store.request(request_id)
        return await store.resume_request(row.id, by)

    _worked(work, name, as_json)


@guarded
def refuse(
    request_id: str = Id,
    ground: str = typer.Option(..., "--ground", help="A word of its law, e.g. legal_claims."),
    note: str = typer.Option(None, "--note", help="What the person is told beside it."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Refuse a request; the person is told why, by which article, and where to complain."""

    async def work(given: Settings, store: Store, by: str) -> SubjectRequest:
        row = await store.request(request_id)
        return await requests.refuse(given, store, row.id, ground, note, by)

    _worked(work, name, as_json)


@guarded
def answer(
    request_id: str = Id,
    note: str = typer.Option(..., "--note", help="What was done, for the person."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Answer what was done by hand, e.g. a rectification, a restriction, an objection."""

    async def work(given: Settings, store: Store, by: str) -> SubjectRequest:
        row = await store.request(request_id)
        names = row.member_id or row.address_digest
        if Kind(row.kind) in (Kind.ERASURE, Kind.CHILD) and names:
            raise InvalidInput(f"{row.kind} is carried out and certified, and so answers itself")
        return await store.answer_request(row.id, "by_hand", note=note, actor=by)

    _worked(work, name, as_json)


@guarded
def withdraw(request_id: str = Id, name: str | None = As, as_json: bool = AsJson) -> None:
    """Close a request that the person takes back; nothing that has begun is stopped."""

    async def work(given: Settings, store: Store, by: str) -> SubjectRequest:
        row = await store.request(request_id)
        return await store.withdraw_request(row.id, by)

    _worked(work, name, as_json)


def _worked(work: Work, name: str | None, as_json: bool) -> None:
    given, by = _house.settings(), actor(name)
    logs.configure(given.log_format, given.log_level)
    row = _house.run(_done(given, work, by))
    _started(given, row)
    _show_one(given, row, as_json)


async def _done(given: Settings, work: Work, by: str) -> SubjectRequest:
    async with _house.opened(given) as store:
        await store.require(by, Right.ERASE)
        return await work(given, store, by)


def _started(given: Settings, row: SubjectRequest) -> None:
    """Let the request go on now; where Prefect is away, `check-requests` finds it later."""
    try:
        runs.start(
            given,
            doors.FLOW,
            doors.parameters_of(row.id),
            key=doors.key_of(row, datetime.now(UTC)),
            name=f"{doors.FLOW} {row.id}",
        )
    except Unavailable:
        return


def _show_one(given: Settings, row: SubjectRequest, as_json: bool) -> None:
    moment = datetime.now(UTC)
    near = requests.urgency(requesting.load(given.policies), row, moment)
    said: dict[str, object] = requests.line_of(row, near, moment) | {
        "code": row.code,
        "status page": doors.status_url(given, row.code),
        "about": row.about,
        "member": row.member_id or "",
        "verified by": row.verified_by or "",
        "authority": row.authority or "",
        "outcome": row.outcome or row.ground or "",
        "certificate": row.certificate_id or "",
    }
    if as_json:
        show_json(said | {"due_at": row.due_at, "acknowledge_by": row.acknowledge_by})
        return
    for label, value in said.items():
        if value != "":
            out.print(Text.assemble((f"{label}: ", "dim"), str(value)), soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to `clickpost privacy`."""
    app.command("request")(request)
    app.command("requests")(list_)
    app.command("who")(show_person)
    app.command("confirm")(confirm)
    app.command("extend")(extend)
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("refuse")(refuse)
    app.command("answer")(answer)
    app.command("withdraw")(withdraw)
