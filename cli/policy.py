"""`clickpost policy check | schema`: what is wrong with policy files, and schemas for editors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from cli import _house
from cli._output import DONE, WRONG_INPUT, AsJson, guarded, out, show_json
from clickpost.policy.load import check as look
from clickpost.policy.schema import write_schemas

app = typer.Typer(no_args_is_help=True, help="Check policy files; write their schemas.")


@app.command()
@guarded
def check(
    folder: Path = typer.Argument(None, help="The folder of policies; else the configured one."),
    as_json: bool = AsJson,
) -> None:
    """Report all that is wrong, with file, line and column, the key's meaning and spelling."""
    report = look((folder or _house.settings().policies).resolve())
    if as_json:
        show_json(
            {
                "files": report.files,
                "problems": [asdict(one) for one in report.problems],
                "warnings": [asdict(one) for one in report.warnings],
            }
        )
    else:
        for one in report.problems:
            out.print(f"[red]error[/] {str(one).replace('[', '[[')}", soft_wrap=True)
        for one in report.warnings:
            out.print(f"[yellow]warning[/] {one}", soft_wrap=True)
        out.print(
            f"{len(report.files)} files, {len(report.problems)} errors, "
            f"{len(report.warnings)} warnings"
        )
    raise typer.Exit(WRONG_INPUT if report.problems else DONE)


@app.command()
@guarded
def schema(
    folder: Path = typer.Argument(None, help="Where to; else `schemas` beside the policies."),
    as_json: bool = AsJson,
) -> None:
    """Write the JSON schemas that let an editor explain and check the files."""
    paths = write_schemas(folder or _house.settings().policies / "schemas")
    if as_json:
        show_json([str(path) for path in paths])
    else:
        for path in paths:
            out.print(str(path))
