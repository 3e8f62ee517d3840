"""`clickpost privacy map | explain | purge | hold | release`: what is kept, why, until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from cli import _house, erasing, exporting, processors, proof, requests, sweeping
from cli._actor import As, actor
from cli._output import DONE, FAILED, AsJson, guarded, out, show_json
from clickpost import datamap, logs, mapdrawing, retention
from clickpost.errors import InvalidInput
from clickpost.people import ENGINE, Right
from clickpost.policy import keeping
from clickpost.policy.history import NAME as PREFECT
from clickpost.policy.privacy import Retention, TableMap, places_of
from clickpost.retention import Fate
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.elsewhere import Elsewhere
from clickpost.store.holds import KINDS, Holds, NewHold
from clickpost.store.purging import Purging
from tasks import elsewhere, history, purging
from tasks.purging import Outcome

app = typer.Typer(no_args_is_help=True, help="What is kept, why, until when; purges and holds.")
app.command("plan")(erasing.plan)
app.command("approve")(erasing.approve)
app.command("erase")(erasing.erase)
app.command("again")(erasing.again)
app.command("erasures")(erasing.erasures)
app.command("vendors")(processors.vendors)
app.command("export")(exporting.export)
app.command("verify")(proof.verify)
app.command("certificate")(proof.certificate)
app.command("public-key")(proof.public_key)
requests.add_to(app)
app.command("sweep")(sweeping.sweep)
app.command("status")(sweeping.status)


@app.command("map")
@guarded
def draw(
    target: Path = typer.Option(
        None, "--out", help="Write there: .md for a page, .svg for a picture; else print the page."
    ),
    as_json: bool = AsJson,
) -> None:
    """Draw the data map: what stands where, about whom, what for, what anonymization leaves."""
    data_map = keeping.load(_house.settings().policies).whole
    if as_json:
        show_json([asdict(line) for line in datamap.lines(data_map)])
    elif target is None:
        typer.echo(datamap.as_markdown(data_map), nl=False)
    elif target.suffix not in (".md", ".svg"):
        raise InvalidInput(f"--out: {target.name} must end in .md or .svg")
    else:
        drawn = datamap.as_markdown if target.suffix == ".md" else mapdrawing.as_svg
        try:
            target.write_text(drawn(data_map), encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"{target}: cannot be written: {error.strerror}") from None
        out.print(Text(str(target)), soft_wrap=True)


@app.command()
@guarded
def explain(
    table: str = typer.Argument(..., help="A table of the data map; elsewhere `shop.orders`."),
    row_id: str = typer.Argument(..., metavar="ID", help="The row's id."),
    as_json: bool = AsJson,
) -> None:
    """Say of each value of a row in one sentence why it is there and until when."""
    said = _house.run(_explained(_house.settings(), table, row_id, actor()))
    if as_json:
        show_json(said)
        return
    for line in said.values():
        out.print(Text(line), soft_wrap=True)


async def _explained(given: Settings, table: str, row_id: str, by: str) -> dict[str, str]:
    async with _house.opened(given) as store:
        await store.require(by, Right.SEE)
        if "." in table:
            all_, now = keeping.load(given.policies), datetime.now(UTC)
            there = await elsewhere.fates(store, all_, table, row_id, now)
            return _said(all_.whole.tables[table], there, all_.elsewhere)
        found = await purging.opened(store, given)
        mapped = found.keeping.tables.tables.get(table)
        if mapped is None or "id" not in mapped.columns:
            known = ", ".join(
                n for n, t in found.keeping.tables.tables.items() if "id" in t.columns
            )
            raise InvalidInput(f"unknown table {table!r} (known: {known})")
        about = [one for one in found.policies if table in (one.policy.data, *one.policy.beside)]
        fates = await found.store.fates(table, row_id, about, datetime.now(UTC))
    return _said(mapped, fates, found.keeping.retention)


def _said(
    mapped: TableMap, fates: Mapping[str, Fate], policies: Mapping[str, Retention]
) -> dict[str, str]:
    """Return the sentence of each value of a row."""
    said: dict[str, str] = {}
    for column, one in mapped.columns.items():
        for place, meant in places_of(column, one).items():
            if meant.not_personal is not None:
                continue
            covering = _covering(column, fates, mapped, policies)
            said[place] = retention.sentence(place, retention.first(covering), meant.treatment)
    return said


def _covering(
    column: str,
    fates: Mapping[str, Fate],
    mapped: TableMap,
    policies: Mapping[str, Retention],
) -> list[Fate]:
    return [
        fate
        for name, fate in fates.items()
        if (policy := policies[name]).then != "anonymize"
        or column in retention.treated(mapped, policy.columns)
    ]


@app.command()
@guarded
def purge(
    policy: str = typer.Option(None, "--policy", metavar="NAME", help="One policy; else all."),
    apply: bool = typer.Option(
        False, "--apply", help="Purge; with --policy also where that says dry_run. Else count."
    ),
    as_json: bool = AsJson,
) -> None:
    """Count what has expired, by policy; with --apply delete, anonymize or roll it up.

    Exits with 1 where a policy's limit stopped it.
    """
    given = _house.settings()
    if policy not in (None, PREFECT):
        keeping.policy(given.policies, policy)
    logs.configure(given.log_format, given.log_level)
    by = actor() if apply else ENGINE  # Counting changes nothing, and is everybody's.
    outcomes = _house.run(_purged(given, policy, by, apply=apply))
    rows = [purging.row_of(one) for one in outcomes]
    if as_json:
        show_json(rows)
    else:
        _show(rows)
    raise typer.Exit(DONE if purging.is_well(outcomes, ()) else FAILED)


async def _purged(given: Settings, policy: str | None, by: str, *, apply: bool) -> list[Outcome]:
    async with _house.opened(given) as store:
        found = await purging.opened(store, given)
        # Of all policies, those that say `apply`; of one that is named, that one.
        how = (True if policy else None) if apply else False
        outcomes = [one async for one in purging.purge_all(found, only=policy, apply=how, by=by)]
        if policy in (None, PREFECT):
            outcomes += await history.purge(store, given, apply=how, by=by)
        return outcomes


def _show(rows: list[dict[str, object]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    out.print(table)


@app.command()
@guarded
def hold(
    table: str = typer.Argument(..., help="`workspace`, `member`, or another table."),
    row_id: str = typer.Argument(..., metavar="ID", help="Its id there."),
    kind: str = typer.Option(..., help=f"One of {', '.join(KINDS)}."),
    cite: str = typer.Option(..., help="The law, case or contract that demands it; no names."),
    until: datetime = typer.Option(None, help="When it ends by itself (UTC); else you release it."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """Keep a row, a member or a workspace with all that belongs to it, whatever has expired."""
    ends = until.replace(tzinfo=UTC) if until else None
    new = NewHold(kind, table, row_id, cite, ends)
    hold_id = _house.run(_held(_house.settings(), new, actor(name)))
    if as_json:
        show_json({"hold": hold_id})
    else:
        out.print(f"{hold_id}: {table} {row_id} is held")


async def _held(given: Settings, new: NewHold, by: str) -> str:
    async with _house.opened(given) as store:
        if "." in new.scope:
            await _seen_elsewhere(given, store, new)
            return await Holds.beside(store).place_hold(new, by, seen=True)
        known = keeping.load(given.policies).tables.tables
        if new.scope not in known or "id" not in known[new.scope].columns:
            raise InvalidInput(f"unknown table {new.scope!r}")
        return await Holds.beside(store).place_hold(new, by)


async def _seen_elsewhere(given: Settings, store: Store, new: NewHold) -> None:
    """Raise InvalidInput where a further database has no such row, `billing.invoice` 7."""
    name, _, table = new.scope.partition(".")
    if table not in keeping.load(given.policies).databases.get(name, {}):
        raise InvalidInput(f"unknown table {new.scope!r}")
    async with Elsewhere.opened(name, Purging(store.engine, store.vault)) as there:
        if not await there.has(table, new.target):
            raise InvalidInput(f"{new.scope} has no row {new.target}")


@app.command()
@guarded
def release(
    hold_id: str = typer.Argument(..., metavar="HOLD", help="The hold's id."),
    name: str | None = As,
    as_json: bool = AsJson,
) -> None:
    """End a hold; what it kept goes with the next purge."""
    _house.run(_released(_house.settings(), hold_id, actor(name)))
    if as_json:
        show_json({"hold": hold_id, "ended": True})
    else:
        out.print(f"{hold_id} is ended")


async def _released(given: Settings, hold_id: str, by: str) -> None:
    async with _house.opened(given) as store:
        await Holds.beside(store).end_hold(hold_id, by)
