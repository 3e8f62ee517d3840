"""`clickpost platforms`: what each platform's accounts do, and the switch that holds them all."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table

from cli import _house
from cli._actor import As, actor
from cli._arguments import PLATFORM
from cli._output import AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput
from clickpost.policy.load import platform as policy_of
from clickpost.settings import Settings

app = typer.Typer(help="See, pause and resume platforms.", no_args_is_help=True)


@app.command("list")
@guarded
def platforms(as_json: bool = AsJson) -> None:
    """Show the platforms that accounts are connected to, and which of them are paused."""
    found = _house.run(_listed(_house.settings()))
    if as_json:
        show_json(found)
        return
    if not found:
        out.print("no account is connected; see: clickpost connect --help")
        return
    table = Table("platform", "accounts", "state", "held", box=None, header_style="dim")
    for one in found:
        since = f"paused since {one['paused_at'][:16]} UTC" if one["paused_at"] else "going"
        table.add_row(one["platform"], str(one["accounts"]), since, str(one["held"] or ""))
    out.print(table)


async def _listed(given: Settings) -> list[dict[str, Any]]:
    async with _house.opened(given) as store:
        rows = [one.platform for one in await store.connections()]
        paused = {one.platform: one for one in await store.paused()}
    return [
        {
            "platform": name,
            "accounts": rows.count(name),
            "paused_at": paused[name].paused_at.isoformat() if name in paused else None,
            "paused_by": paused[name].paused_by if name in paused else None,
            "held": paused[name].held if name in paused else 0,
        }
        for name in sorted({*rows, *paused})
    ]


@app.command()
@guarded
def pause(platform: str = PLATFORM, name: str = As, as_json: bool = AsJson) -> None:
    """Send nothing more to a platform: what falls due is held, until `resume`.

    What is just being sent ends as it ends. Takedowns and looks go on.
    """
    made = _house.run(_paused(_house.settings(), platform, actor(name)))
    if as_json:
        show_json({"platform": platform, "paused": True, "was_paused": not made})
        return
    said = "is paused: what falls due is held" if made else "was paused already"
    out.print(f"{platform} {said}. To go on: clickpost platforms resume {platform}")


async def _paused(given: Settings, platform: str, by: str) -> bool:
    policy_of(given.policies, platform)
    async with _house.opened(given) as store:
        return await store.pause(platform, actor=by)


@app.command()
@guarded
def resume(platform: str = PLATFORM, name: str = As, as_json: bool = AsJson) -> None:
    """Let a paused platform go on; what it held is sent as each post's `late` says."""
    released = _house.run(_resumed(_house.settings(), platform, actor(name)))
    if as_json:
        show_json({"platform": platform, "released": released})
        return
    what = "1 held delivery" if len(released) == 1 else f"{len(released)} held deliveries"
    out.print(f"{platform} goes on: released {what}; the sweep sends them within three minutes")


async def _resumed(given: Settings, platform: str, by: str) -> list[str]:
    policy_of(given.policies, platform)
    async with _house.opened(given) as store:
        released = await store.resume(platform, actor=by)
    if released is None:
        raise InvalidInput(f"{platform} is not paused; see: clickpost platforms list")
    return released
