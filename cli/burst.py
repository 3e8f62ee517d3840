"""`clickpost connections burst`, and what accounts have used of their budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import typer

from cli import _house
from cli._actor import As, actor
from cli._arguments import ACCOUNT
from cli._output import AsJson, guarded, out, show_json
from clickpost import budget
from clickpost.budget import Standing
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from tasks import budgeting

_DAY = timedelta(days=1)


@guarded
def burst(
    ref: str = ACCOUNT,
    posts: int = typer.Option(None, "--posts", min=0, help="Most posts in the guard's window."),
    reset: bool = typer.Option(False, "--reset", help="As the platform's policy says again."),
    name: str = As,
    as_json: bool = AsJson,
) -> None:
    """Show or change how many posts an account may send in an hour, whatever is scheduled.

    0 sends nothing. What the guard holds back asks again at once.
    """
    if posts is not None and reset:
        raise InvalidInput("--posts and --reset: choose one")
    by = actor(name) if reset or posts is not None else ""
    guard = _house.run(_set(_house.settings(), ref, posts, by))
    if as_json:
        show_json({"connection": ref} | _shown(guard))
        return
    out.print(f"{ref}: {budget.said(guard)}")


async def _set(given: Settings, ref: str, posts: int | None, by: str) -> Standing:
    async with _house.opened(given) as store:
        row = await store.connection(ref)
        if by:
            await store.set_burst(row.id, posts, actor=by)
            row = await store.connection(row.id)
        standings = await budgeting.standings(store, row, _house.policy_of(given, row))
        return next(one for one in standings if one.pot.guard)


def worth_telling(standings: Sequence[Standing]) -> list[Standing]:
    """Return the pot that ends first, and beside it what is counted by the day."""
    daily = [one for one in standings[1:] if one.pot.window >= _DAY]
    return [*standings[:1], *daily]


def budgets_of(standings: Sequence[Standing]) -> dict[str, Any]:
    """Return the pots of an account as JSON, the one that ends first in front."""
    return {"budgets": [_shown(one) for one in standings]}


def _shown(one: Standing) -> dict[str, Any]:
    return {
        "per": budget.whose_of(one.pot),
        "what": one.pot.what,
        "guard": one.pot.guard,
        "used": one.used,
        "total": one.total,
        "window_seconds": one.pot.seconds,
        "free_again_at": one.full_at.isoformat() if one.full_at else None,
    }
