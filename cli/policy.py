"""`clickpost policy check | schema`: what is wrong with policy files, and schemas for editors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer
from rich.text import Text

import connectors
from cli import _house
from cli._output import DONE, WRONG_INPUT, AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput
from clickpost.policy import keeping
from clickpost.policy.load import Problem, Report, joined
from clickpost.policy.load import check as look
from clickpost.policy.schema import write_schemas
from clickpost.store import schema

app = typer.Typer(no_args_is_help=True, help="Check policy files; write their schemas.")


@app.command()
@guarded
def check(
    place: Path = typer.Argument(
        None, help="A policy file, or a folder of them; else the configured folder."
    ),
    as_json: bool = AsJson,
) -> None:
    """Report all that is wrong: file, line, column, what the key means, the nearest spelling.

    The data map is held against the database's own tables, or those of the code where no database
    answers. Exits with 0 when all is well (warnings too) and with 2 when anything is wrong.
    """
    given = _house.settings()
    place = place or given.policies
    report = look(place, code=connectors.capabilities())
    if place.exists():
        report = joined(report, keeping.check(place, schema.at_hand(given)))
    if as_json:
        show_json(asdict(report))
    else:
        _show(report)
    raise typer.Exit(WRONG_INPUT if report.problems else DONE)


def _show(report: Report) -> None:
    for one in report.problems:
        _say(one, "error", "red")
    for one in report.warnings:
        _say(one, "warning", "yellow")
    counts = (
        _counted(len(report.files), "file"),
        _counted(len(report.problems), "error"),
        _counted(len(report.warnings), "warning"),
    )
    out.print(", ".join(counts))


def _say(problem: Problem, word: str, colour: str) -> None:
    """Print `file:line:column: word: what is wrong`, as editors and CI understand it."""
    line = Text.assemble((problem.place, "bold"), ": ", (word, colour), f": {problem.said}")
    out.print(line, soft_wrap=True)
    if problem.meaning:
        renamed = problem.hint if problem.message.startswith("unknown") else ""
        words = [step for step in problem.key.split(".") if not step.isdigit()]
        key = renamed or words[-1]
        out.print(Text(f"    {key}: {problem.meaning}.", "dim"), soft_wrap=True)


def _counted(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


@app.command("schema")
@guarded
def schemas(
    folder: Path = typer.Argument(None, help="Where to; else `schemas` beside the policies."),
    as_json: bool = AsJson,
) -> None:
    """Write the JSON schemas that let an editor explain and check the files."""
    target = folder or _house.settings().policies / "schemas"
    try:
        paths = write_schemas(target)
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written: {error.strerror}") from None
    if as_json:
        show_json([str(path) for path in paths])
    else:
        for path in paths:
            out.print(Text(str(path)), soft_wrap=True)
