"""`clickpost doctor`: looks at every part, and says for each that is not well what to do."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.table import Table

from cli import _house
from cli._output import FAILED, AsJson, err, guarded, out, show_json
from deployments import checkup
from deployments.health import Part


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(doctor)


@guarded
def doctor(as_json: bool = AsJson) -> None:
    """Check everything: database, Prefect, workers, disk, clocks, ffmpeg, keys, tokens, channels.

    Ends with 1 where something is not well; what to do stands beside it.
    """
    given = _house.settings()
    with err.status("looking at every part"):
        parts = _house.run(checkup.look(given))
    well = all(one.well for one in parts)
    if as_json:
        show_json({"ok": well, "parts": [asdict(one) for one in parts]})
    else:
        _show(parts)
        out.print("all is well" if well else "what is red needs somebody")
    if not well:
        raise typer.Exit(FAILED)


def _show(parts: list[Part]) -> None:
    table = Table("part", "is", "what to do", box=None, header_style="dim")
    for one in parts:
        colour = "green" if one.well else "red"
        table.add_row(one.name, f"[{colour}]{one.says}[/]", one.do)
    out.print(table)
