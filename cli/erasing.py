"""`clickpost privacy plan | approve | erase | erasures`: what would go, and that it goes."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cli import _house
from cli._actor import As, actor
from cli._output import DONE, FAILED, AsJson, guarded, out, show_json
from clickpost import logs
from clickpost.erasure import Action
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.settings import Settings
from clickpost.store.erasures import Erasures
from clickpost.store.tables import Erasure
from tasks import _wiring, erasing, erasing_again
from tasks.erasing import Ended, Wanted


@guarded
def plan(
    subject: str = typer.Argument(
        ..., help="The id of the member, of the connected account, or of the workspace."
    ),
    account: bool = typer.Option(False, "--account", help="A whole workspace, not a person."),
    anonymize: bool = typer.Option(False, "--anonymize", help="Rows stay, and lead to nobody."),
    takedown: bool = typer.Option(False, "--takedown", help="Take published posts down as well."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Show what would go, where and how many, and what a rule holds; nothing is touched."""
    if takedown and (anonymize or not account):
        raise InvalidInput("--takedown: only with --account, and where rows go")
    action: Action = "anonymization" if anonymize else "erasure"
    policy = "account" if account else policy_of(subject)
    wanted = Wanted(policy, subject, action, takedown=takedown)
    row, why = _house.run(_planned(_house.settings(), wanted, actor(name)))
    if as_json:
        show_json({"erasure": row.id, "state": row.state, "plan": row.plan, "approval": why})
        return
    _show(erasing.rows_of(row))
    out.print(Text(f"{row.id} is {row.state}" + (f"; {why}" if why else "")), soft_wrap=True)
    out.print(Text(f"to carry it out: clickpost privacy erase {row.id}"), soft_wrap=True)


def policy_of(subject: str) -> str:
    """Return the policy that is about whom an id names: a connected account, else a person."""
    return "connection" if subject.startswith("conn_") else "person"


async def _planned(given: Settings, wanted: Wanted, by: str) -> tuple[Erasure, str | None]:
    async with _house.opened(given) as store:
        return await erasing.plan(given, store, wanted, by)


@guarded
def approve(
    erasure_id: str = typer.Argument(..., metavar="ERASURE", help="Its id, as the plan shows it."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Say that you looked at a plan; the next run, or `resume-erasures`, carries it out."""
    _house.run(_approved(_house.settings(), erasure_id, actor(name)))
    if as_json:
        show_json({"erasure": erasure_id, "approved": True})
    else:
        out.print(f"{erasure_id} is approved, and goes within ten minutes by itself")


async def _approved(given: Settings, erasure_id: str, by: str) -> None:
    async with _house.opened(given) as store:
        await Erasures.beside(store).approve(erasure_id, by)


@guarded
def erase(
    erasure_id: str = typer.Argument(..., metavar="ERASURE", help="Its id, as the plan shows it."),
    leave_up: bool = typer.Option(
        False, "--leave-up", help="Take nothing down: the owner was told to do it there."
    ),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Carry a planned erasure out, here and now; running it again resumes it.

    You approve it by this. Exits with 1 where something stands in the way, and says what.
    """
    given = _house.settings()
    logs.configure(given.log_format, given.log_level)
    done = _house.run(_erased(given, erasure_id, actor(name), leave_up=leave_up))
    if as_json:
        told: dict[str, Any] = {"erasure": done.erasure_id, "state": done.state}
        show_json({**told, "said": done.said, "certificate": done.certificate})
    else:
        out.print(Text(f"{done.erasure_id} is {done.state}: {done.said}"), soft_wrap=True)
        if done.certificate:
            shown = f"proof: clickpost privacy certificate {done.certificate} --out FILE.html"
            out.print(Text(shown), soft_wrap=True)
    raise typer.Exit(DONE if done.is_well else FAILED)


async def _erased(given: Settings, erasure_id: str, by: str, *, leave_up: bool) -> Ended:
    async with _house.opened(given) as store:
        erasures = Erasures.beside(store)
        if leave_up:
            await erasures.leave_up(erasure_id, by)
        row = await erasures.erasure(erasure_id)
        if row.state == "planned":
            await erasures.approve(erasure_id, by)
    try:
        return await erasing.carry_out(await _wiring.house(), erasure_id)
    finally:
        await _wiring.close()


@guarded
def again(
    database: str = typer.Argument(..., help="A further database, as the data map names it."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Erase again who was erased and is in a further database, as after it was restored.

    Who came again of their own will is erased as well: look at the sweep's number first.
    """
    given = _house.settings()
    logs.configure(given.log_format, given.log_level)
    done = _house.run(_again(given, database, actor(name)))
    if as_json:
        show_json([{"erasure": one.erasure_id, "state": one.state} for one in done])
    else:
        out.print(f"{len(done)} erased again" if done else "nobody who was erased is there")
        for one in done:
            out.print(Text(f"{one.erasure_id} is {one.state}: {one.said}"), soft_wrap=True)
    raise typer.Exit(DONE if all(one.is_well for one in done) else FAILED)


async def _again(given: Settings, database: str, by: str) -> list[Ended]:
    async with _house.opened(given) as store:
        await store.require(by, Right.ERASE)
    try:
        return await erasing_again.again(await _wiring.house(), database, by)
    finally:
        await _wiring.close()


@guarded
def erasures(as_json: bool = AsJson) -> None:
    """List erasures and anonymizations, newest first; times are UTC."""
    rows: list[dict[str, object]] = [
        {
            "id": row.id,
            "action": row.action,
            "policy": row.policy,
            "state": row.state,
            "asked": f"{row.asked_at:%Y-%m-%d %H:%M}",
            "reason": row.reason or "",
        }
        for row in _house.run(_listed(_house.settings()))
    ]
    if as_json:
        show_json(rows)
    else:
        _show(rows)


async def _listed(given: Settings) -> list[Erasure]:
    async with _house.opened(given) as store:
        return list(await Erasures.beside(store).erasures())


def _show(rows: list[dict[str, object]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    out.print(table)
