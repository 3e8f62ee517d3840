"""`clickpost privacy sweep | status`: whether the promises hold, now and at the last look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cli import _house
from cli._output import DONE, FAILED, AsJson, guarded, out, show_json
from clickpost import compliance, logs
from clickpost.compliance import Finding, Light, finding_of
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from clickpost.store.compliance import Compliance, past_of
from clickpost.store.tables import ComplianceSweep
from tasks import compliance as sweeping

_COLOURS = {Light.GREEN: "green", Light.AMBER: "yellow", Light.RED: "red"}


@guarded
def sweep(
    target: Path = typer.Option(None, "--out", help="Write the report there, a .md page."),
    as_json: bool = AsJson,
) -> None:
    """Look now whether every promise holds; keep it in the history, tell what is red.

    Exits with 1 where something is red.
    """
    given = _house.settings()
    logs.configure(given.log_format, given.log_level)
    found, page = _house.run(_swept(given))
    if target is not None:
        _write(target, page)
    if as_json:
        show_json([one.as_json() for one in found])
    else:
        _show(found)
    raise typer.Exit(FAILED if compliance.worst(found) is Light.RED else DONE)


async def _swept(given: Settings) -> tuple[list[Finding], str]:
    async with _house.opened(given) as store:
        found = await sweeping.sweep(store, given)
        return found, await sweeping.report(store, found)


def _write(target: Path, page: str) -> None:
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written: {error.strerror}") from None


def _show(found: list[Finding]) -> None:
    table = Table("", "check", "found", "what to do", box=None, pad_edge=False, header_style="dim")
    for one in found:
        light = Text(f"{one.light.symbol} {one.light.value.upper()}", _COLOURS[one.light])
        table.add_row(light, one.check, Text(one.said), Text(one.next))
    out.print(table)


@guarded
def status(as_json: bool = AsJson) -> None:
    """Show what the last sweep found, and how the ones before stood. Exits with 1 where red."""
    rows = _house.run(_listed(_house.settings()))
    if as_json:
        show_json([_line(row) for row in rows])
    elif not rows:
        out.print("nobody swept yet: clickpost privacy sweep")
    else:
        out.print(Text(f"{rows[0].at:%Y-%m-%d %H:%M} UTC", "bold"))
        _show([finding_of(one) for one in rows[0].findings])
        for past in [past_of(row) for row in rows[1:]]:
            light = Text(f"{past.light.symbol} {past.light.value.upper()}", _COLOURS[past.light])
            counts = f"{past.red} red, {past.amber} amber"
            out.print(Text.assemble(f"{past.at:%Y-%m-%d %H:%M}  ", light, f"  {counts}"))
    raise typer.Exit(FAILED if rows and rows[0].light == Light.RED else DONE)


async def _listed(given: Settings) -> list[ComplianceSweep]:
    async with _house.opened(given) as store:
        return await Compliance(store.engine, store.vault).sweeps(sweeping.HISTORY)


def _line(row: ComplianceSweep) -> dict[str, Any]:
    return {
        "sweep": row.id,
        "at": row.at.isoformat(),
        "light": row.light,
        "findings": row.findings,
        "flow_run_id": row.flow_run_id,
    }
