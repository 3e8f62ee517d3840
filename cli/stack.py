"""`clickpost up | down | status | demo`: the one-machine stack and its main job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer
from rich.table import Table

from cli import _demo, _house, _watching
from cli._output import FAILED, AsJson, err, guarded, out, show_json
from clickpost.errors import Unavailable
from clickpost.settings import Settings
from deployments import runs
from deployments.stack import PartStatus, Stack


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(demo)


@guarded
def up(
    sandbox: bool = typer.Option(False, "--sandbox", help="Start the sandbox platforms too."),
    as_json: bool = AsJson,
) -> None:
    """Start what does not run yet: database, Prefect server, worker, gateway."""
    given = _house.settings()
    parts = started(given, sandbox=sandbox)
    if as_json:
        show_json(_listed(given, parts))
        return
    out.print(table_of(parts))
    out.print(f"Prefect UI: {runs.ui_url(given)}")


def started(given: Settings, *, sandbox: bool) -> list[PartStatus]:
    """Bring the stack up, saying on standard error what goes on."""
    with err.status("looking at what runs") as spinner:
        return Stack(given).up(sandbox=sandbox, say=spinner.update)


@guarded
def down(as_json: bool = AsJson) -> None:
    """Stop everything that `up` or `demo` started; nothing is lost."""
    with err.status("stopping") as spinner:
        stopped = Stack(_house.settings()).down(say=spinner.update)
    if as_json:
        show_json({"stopped": stopped})
    else:
        out.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@guarded
def status(
    check: bool = typer.Option(
        False, "--check", help="End with 1 also where something is stuck or waits for somebody."
    ),
    as_json: bool = AsJson,
) -> None:
    """Show what runs, where deliveries stand, and what is stuck: since when, and who acts.

    Ends with 1 where a part does not run; with --check also where something is stuck, an account
    cannot be used, a notice was not taken, or no worker is heard of. A post that failed counts
    for neither: that is told once.
    """
    given = _house.settings()
    parts = Stack(given).status()
    runs_well = {one.name: one.state in ("running", "external") for one in parts}
    well = all(ok for name, ok in runs_well.items() if name != "sandbox")
    seen = _watched(given) if runs_well.get("postgres") else None
    if as_json:
        told = _watching.as_json(seen) if seen else {"deliveries": {}, "calm": False}
        show_json(_listed(given, parts) | told)
    else:
        out.print(table_of(parts))
        if seen:
            _watching.show(seen)
        if not well:
            out.print("Start what is missing with: clickpost up")
    if not well or (check and (seen is None or not seen.calm)):
        raise typer.Exit(FAILED)


def _watched(given: Settings) -> _watching.Watched | None:
    """Return what the database knows; None, with a line that says so, where it does not answer."""
    try:
        return _house.run(_watching.look(given))
    except Unavailable as error:
        err.print(f"[yellow]{error}[/]")
        return None


def _listed(given: Settings, parts: list[PartStatus]) -> dict[str, Any]:
    return {"parts": [asdict(one) for one in parts], "prefect_ui": runs.ui_url(given)}


def table_of(parts: list[PartStatus]) -> Table:
    """Return the parts as a table."""
    table = Table("part", "state", "process", "memory", "address", box=None, header_style="dim")
    colours = {"running": "green", "external": "green", "stopped": "dim"}
    for one in parts:
        colour = colours.get(one.state, "red")
        memory = f"{one.memory / 1_000_000:.0f} MB" if one.memory else ""
        table.add_row(
            one.name, f"[{colour}]{one.state}[/]", str(one.pid or ""), memory, one.url or ""
        )
    return table


@guarded
def demo(as_json: bool = AsJson) -> None:
    """Start everything and publish a sample post to four sandbox platforms."""
    given = _house.settings()
    started(given, sandbox=True)
    try:
        code = _demo.run(given, as_json=as_json)
    except KeyboardInterrupt:
        err.print("The stack stays up. Stop it with: clickpost down")
        raise
    raise typer.Exit(code)
