"""How every command speaks: tables for people, `--json` for scripts, honest exit codes."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from clickpost.errors import ClickPostError, InvalidInput, PolicyError

DONE, FAILED, WRONG_INPUT = 0, 1, 2

out = Console(soft_wrap=False, highlight=False, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False)

P = ParamSpec("P")
R = TypeVar("R")

AsJson = typer.Option(False, "--json", help="Print JSON for scripts.")


def show_json(value: Any) -> None:
    """Print `value` as JSON on standard output, and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one clear line and an exit code: 1 failed, 2 wrong input."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (InvalidInput, PolicyError) as error:
            _say(str(error), as_json=bool(kwargs.get("as_json")), code=WRONG_INPUT)
        except ClickPostError as error:
            _say(str(error), as_json=bool(kwargs.get("as_json")), code=FAILED)
        except PermissionError as error:
            where = f" ({error.filename})" if error.filename else ""
            told = f"this belongs to another user and may not be touched{where}"
            as_json = bool(kwargs.get("as_json"))
            _say(f"{told}. Choose your own: CLICKPOST_HOME=FOLDER", as_json=as_json, code=FAILED)
        except KeyboardInterrupt:
            _say("stopped by you; nothing was left half done", as_json=False, code=130)
        raise AssertionError("unreachable")

    return run


def _say(message: str, *, as_json: bool, code: int) -> None:
    if as_json:
        show_json({"error": message, "exit": code})
    # Not wrapped: paths are copied, and scripts look for sentences.
    err.print(f"[bold red]error:[/] {_escaped(message)}", soft_wrap=True)
    raise typer.Exit(code)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
