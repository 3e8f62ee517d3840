"""`clickpost policy check | diff | apply | simulate | schema`: the files, and what they do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer
from rich.text import Text

from cli import _agreeing, _house, simulating
from cli._actor import permitted_where_known
from cli._output import DONE, FAILED, WRONG_INPUT, AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.policy.load import Problem, Report
from clickpost.policy.schema import write_schemas

app = typer.Typer(
    no_args_is_help=True, help="Check policy files, and make Prefect agree with them."
)
app.command("simulate")(simulating.simulate)


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
    report = _agreeing.looked(given, place)
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


@app.command()
@guarded
def diff(
    exit_code: bool = typer.Option(
        False, "--exit-code", help="End with 1 where anything would change, for scripts."
    ),
    as_json: bool = AsJson,
) -> None:
    """Show what `apply` would add, change and remove in Prefect; nothing is touched."""
    plan = _agreeing.planned(_house.settings())
    _agreeing.show(plan, as_json=as_json)
    raise typer.Exit(FAILED if exit_code and plan.changes else DONE)


@app.command()
@guarded
def apply(
    watch: bool = typer.Option(
        False, "--watch", help="Stay, and apply again whenever a file changes; for development."
    ),
    as_json: bool = AsJson,
) -> None:
    """Make Prefect agree with the triggers; a second time nothing changes.

    Refuses, and touches nothing, while any policy file is wrong. Removes only what it made itself.
    """
    given = _house.settings()
    permitted_where_known(Right.CONFIGURE)
    if watch and as_json:
        raise InvalidInput("--watch: speaks to people; leave --json out")
    if watch:
        _agreeing.watch(given)
        return
    _agreeing.show(_agreeing.applied(given), as_json=as_json, done=True)


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
