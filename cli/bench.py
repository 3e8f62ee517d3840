"""`clickpost bench …`: measures, each against its floor in the same run."""

from __future__ import annotations

import importlib

import typer

from cli._output import AsJson, guarded

app = typer.Typer(no_args_is_help=True, help="Measure; each number beside its floor.")


def _run(name: str, *, as_json: bool) -> None:
    importlib.import_module(f"benchmarks.{name}").main(as_json=as_json)


@app.command()
@guarded
def text(as_json: bool = AsJson) -> None:
    """Fits a second, beside bare grapheme counting."""
    _run("text", as_json=as_json)


@app.command()
@guarded
def media(as_json: bool = AsJson) -> None:
    """One 4K clip to four platforms, beside bare ffmpeg."""
    _run("media", as_json=as_json)


@app.command()
@guarded
def publish(as_json: bool = AsJson) -> None:
    """Posts a minute and a spike of 500, beside trivial flow runs."""
    _run("publish", as_json=as_json)


@app.command()
@guarded
def ontime(as_json: bool = AsJson) -> None:
    """Seconds from the due moment to the platform's receipt, at 60 and 180 posts a minute."""
    _run("ontime", as_json=as_json)


@app.command()
@guarded
def chaos(
    posts: int = typer.Option(
        200, min=1, help="How many posts, each to every platform of the sandbox."
    ),
    seed: int = typer.Option(1, help="Draws the same misfortunes again."),
    as_json: bool = AsJson,
) -> None:
    """Posts under kills, outages and lying platforms: what is doubled, lost, wrong or stuck counts.

    Ends with 1 where anything is.
    """
    code = importlib.import_module("benchmarks.chaos").main(as_json=as_json, posts=posts, seed=seed)
    raise typer.Exit(code)


@app.command()
@guarded
def purge(
    rows: int = typer.Option(400_000, min=4000, help="How many rows; half have expired."),
    as_json: bool = AsJson,
) -> None:
    """Rows a second of a purge over related tables, beside a statement by hand and row by row."""
    importlib.import_module("benchmarks.purge").main(as_json=as_json, rows=rows)


@app.command()
@guarded
def privacy(
    people: int = typer.Option(1_000_000, min=1000, help="Among how many people."),
    erased: int = typer.Option(1000, min=10, help="How many of them are erased."),
    rows: int = typer.Option(10_000_000, min=4000, help="Of the purge; half have expired."),
    as_json: bool = AsJson,
) -> None:
    """A purge, erasures among many people, and the nightly sweep, each beside its floor."""
    importlib.import_module("benchmarks.privacy").main(
        as_json=as_json, people=people, erased=erased, rows=rows
    )


@app.command()
@guarded
def triggers(
    calls: int = typer.Option(10_000, min=100, help="How many webhooks flood the gateway."),
    as_json: bool = AsJson,
) -> None:
    """Seconds from each kind of cause to the first task, and a flood of webhooks.

    Ends with 1 where an accepted webhook got lost.
    """
    code = importlib.import_module("benchmarks.triggers").main(as_json=as_json, calls=calls)
    raise typer.Exit(code)


@app.command()
@guarded
def stack(as_json: bool = AsJson) -> None:
    """Seconds to up, and idle memory."""
    _run("stack", as_json=as_json)
