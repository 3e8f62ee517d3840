"""`clickpost sandbox …`: steers the stand-in platforms."""

from __future__ import annotations

from typing import Any

import httpx
import typer
from rich.table import Table

from cli import _house
from cli._output import AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput, Unavailable

#: What `misbehave` takes, as the sandbox says it; a test compares the two.
KINDS = (
    "rate_limit",
    "server_error",
    "error_after",
    "slow",
    "drop_before",
    "drop_after",
    "garbage",
    "expire_token",
    "revoke_token",
    "fail_processing",
    "kill_before",
    "kill_after",
)

app = typer.Typer(no_args_is_help=True, help="Steer the stand-in platforms on this machine.")


def _call(method: str, path: str, **request: Any) -> Any:
    base = f"http://127.0.0.1:{_house.settings().sandbox_port}"
    try:
        answer = httpx.request(method, base + path, timeout=10, trust_env=False, **request)
    except httpx.TransportError:
        raise Unavailable(
            f"the sandbox does not answer at {base}. Run: clickpost up --sandbox"
        ) from None
    if answer.status_code == httpx.codes.BAD_REQUEST:
        raise InvalidInput(str(answer.json().get("error")))
    answer.raise_for_status()
    return answer.json()


@app.command()
@guarded
def accounts(as_json: bool = AsJson) -> None:
    """List the sandbox's accounts (their credentials with --json)."""
    rows = _call("GET", "/control/accounts")
    if as_json:
        show_json(rows)
        return
    table = Table("platform", "name", "api base", box=None, header_style="dim")
    for row in rows:
        table.add_row(row["platform"], row["name"], row["api_base"])
    out.print(table)


@app.command()
@guarded
def posts(as_json: bool = AsJson) -> None:
    """List what the sandbox received, deleted posts too."""
    rows = _call("GET", "/control/posts")
    if as_json:
        show_json(rows)
        return
    table = Table("platform", "id", "media", "deleted", box=None, header_style="dim")
    for row in rows:
        table.add_row(row["platform"], row["id"], str(len(row["media"])), str(row["deleted"]))
    out.print(table)


@app.command()
@guarded
def misbehave(
    platform: str = typer.Argument(help="Which stand-in, e.g. mastodon."),
    what: str = typer.Argument(help=f"One of: {', '.join(KINDS)}."),
    step: str = typer.Option("*", help="At which step, e.g. put_record; * for any."),
    times: int = typer.Option(1, help="How often."),
    as_json: bool = AsJson,
) -> None:
    """Let a platform misbehave the next time(s)."""
    said = {"platform": platform, "what": what, "step": step, "times": times}
    orders = _call("POST", "/control/misbehave", json=said)
    if as_json:
        show_json(orders)
    else:
        count = "1 order is open" if len(orders) == 1 else f"{len(orders)} orders are open"
        out.print(f"{count}; call off with: clickpost sandbox calm")


@app.command()
@guarded
def calm(as_json: bool = AsJson) -> None:
    """Call off all misbehaviour; ended tokens live again."""
    orders = _call("DELETE", "/control/misbehave")
    show_json(orders) if as_json else out.print("calm")


@app.command()
@guarded
def reset(as_json: bool = AsJson) -> None:
    """Forget all posts; accounts stay."""
    answer = _call("POST", "/control/reset")
    show_json(answer) if as_json else out.print("forgotten")
