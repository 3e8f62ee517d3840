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
def stack(as_json: bool = AsJson) -> None:
    """Seconds to up, and idle memory."""
    _run("stack", as_json=as_json)
