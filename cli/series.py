"""`clickpost series`: posts that come again and again, and their next times."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import typer
from rich.table import Table

from cli import _house
from cli._actor import As, actor
from cli._output import AsJson, guarded, out, show_json
from cli._publishing import started
from clickpost.errors import Unavailable
from clickpost.recurrence import occurrences
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.series import rule_of
from clickpost.store.tables import Series
from tasks import repeating

app = typer.Typer(no_args_is_help=True, help="Posts that come again and again.")
SERIES = typer.Argument(
    metavar="SERIES", help="The series' id, series_…, as `series list` shows it."
)
_SHOWN = 5


@app.command("list")
@guarded
def list_series(as_json: bool = AsJson) -> None:
    """List the series, newest first."""
    rows = _house.run(_listed(_house.settings()))
    if as_json:
        show_json(rows)
        return
    table = Table("series", "status", "rule", "zone", "made", "next (UTC)", box=None)
    for row in rows:
        made = f"{row['made']} of {row['cap']}" if row["cap"] else str(row["made"])
        next_at = row["next"][0]["utc"] if row["next"] else ""
        table.add_row(row["series"], row["status"], row["rule"], row["zone"], made, next_at)
    out.print(table if rows else "no series yet; a post file with `repeat` makes one")


async def _listed(given: Settings) -> list[dict[str, Any]]:
    async with _house.opened(given) as store:
        return [await told(store, row) for row in await store.all_series()]


@app.command()
@guarded
def show(series_id: str = SERIES, as_json: bool = AsJson) -> None:
    """Show a series and its next five times, in its zone and in UTC."""
    row = _house.run(_shown(_house.settings(), series_id))
    if as_json:
        show_json(row)
    else:
        print_one(row)


async def _shown(given: Settings, series_id: str) -> dict[str, Any]:
    async with _house.opened(given) as store:
        return await told(store, await store.series(series_id))


def print_one(row: dict[str, Any]) -> None:
    """Print a series and its next times."""
    bound = f", at most {row['cap']}" if row["cap"] else ""
    out.print(f"[bold]{row['series']}[/] {row['status']}: {row['rule']} ({row['zone']}{bound})")
    table = Table(row["zone"], "UTC", "post", "states", box=None, header_style="dim")
    for one in row["next"]:
        table.add_row(one["local"], one["utc"], one["post"] or "", one["states"])
    out.print(table if row["next"] else "nothing comes any more")


async def told(store: Store, row: Series) -> dict[str, Any]:
    """Return a series for scripts, with its next times and the posts that are made for them."""
    now, zone = datetime.now(UTC), ZoneInfo(row.zone)
    posts = {post.due_at: post.id for post in await store.posts_of_series(row.id, now)}
    moments = dict.fromkeys(one for one in posts if one is not None)
    if row.status in ("active", "paused"):
        left = None if row.cap is None else max(0, row.cap - row.made) + len(posts)
        ahead = islice(occurrences(rule_of(row), now), left)
        moments |= dict.fromkeys(one.at for one in islice(ahead, _SHOWN))
    return {
        "series": row.id,
        "status": row.status,
        "rule": row.rrule,
        "zone": row.zone,
        "cap": row.cap,
        "made": row.made,
        "next": [
            {
                "local": f"{at.astimezone(zone):%a %Y-%m-%d %H:%M}",
                "utc": f"{at.astimezone(UTC):%Y-%m-%d %H:%M}",
                "post": posts.get(at),
                "states": await _states(store, posts.get(at)),
            }
            for at in sorted(moments)[:_SHOWN]
        ],
    }


async def _states(store: Store, post_id: str | None) -> str:
    if post_id is None:
        return ""
    return ", ".join(f"{one.ref} {one.state.value}" for one in await store.lines(post_id))


async def extended(given: Settings, store: Store, series_id: str) -> None:
    """Make the series' next posts and their runs; where Prefect is away, `plan-ahead` does it."""
    row = await store.series(series_id)
    for made in await repeating.extended(store, row, datetime.now(UTC)):
        try:
            await started(given, store, made.post_id, made.due_at)
        except Unavailable as error:
            raise Unavailable(
                f"{str(error).partition('. post_')[0]}. {series_id} is kept: its posts are"
                f" scheduled once Prefect is back. End it with: clickpost series cancel {series_id}"
            ) from None


@app.command()
@guarded
def pause(series_id: str = SERIES, name: str = As, as_json: bool = AsJson) -> None:
    """Hold what is made and not sent, and make no more until it is resumed."""
    _acted(_house.run(_paused(_house.settings(), series_id, actor(name))), as_json=as_json)


async def _paused(given: Settings, series_id: str, by: str) -> dict[str, Any]:
    async with _house.opened(given) as store:
        await store.series(series_id)
        await store.pause_series(series_id, actor=by)
        return await told(store, await store.series(series_id))


@app.command()
@guarded
def resume(series_id: str = SERIES, name: str = As, as_json: bool = AsJson) -> None:
    """Go on from now: what passed meanwhile is left out."""
    _acted(_house.run(_resumed(_house.settings(), series_id, actor(name))), as_json=as_json)


async def _resumed(given: Settings, series_id: str, by: str) -> dict[str, Any]:
    async with _house.opened(given) as store:
        row = await store.series(series_id)
        now = datetime.now(UTC)
        posts = await store.posts_of_series(series_id, now)
        await store.resume_series(series_id, _following(row, now), actor=by)
        for post in posts:
            await started(given, store, post.id, post.due_at)
        await extended(given, store, series_id)
        return await told(store, await store.series(series_id))


def _following(row: Series, now: datetime) -> Any:
    """Return what is to be made next: what it was, unless that has passed."""
    if row.next_at is None:
        return None
    return repeating.next_of(row, max(now, row.next_at - repeating.JUST_BEFORE))


@app.command()
@guarded
def cancel(series_id: str = SERIES, name: str = As, as_json: bool = AsJson) -> None:
    """End it for good: what is made and not sent is cancelled, what is live stays."""
    _acted(_house.run(_cancelled(_house.settings(), series_id, actor(name))), as_json=as_json)


async def _cancelled(given: Settings, series_id: str, by: str) -> dict[str, Any]:
    async with _house.opened(given) as store:
        await store.series(series_id)
        await store.cancel_series(series_id, actor=by)
        return await told(store, await store.series(series_id))


def _acted(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(row)
    else:
        print_one(row)
