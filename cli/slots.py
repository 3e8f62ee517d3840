"""`clickpost connections slots`: the times of a week at which an account likes to post."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import typer

from cli import _house
from cli._actor import As, actor
from cli._arguments import ACCOUNT
from cli._output import AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput
from clickpost.recurrence import zone_of
from clickpost.settings import Settings
from clickpost.slots import DAYS, Slots, times_of
from clickpost.store.tables import Connection


@guarded
def slots(
    ref: str = ACCOUNT,
    add: list[str] = typer.Option([], "--add", help="Days and times: 'mon-fri 09:00,17:30'."),
    remove: list[str] = typer.Option([], "--remove", help="Days and times to take out."),
    zone: str = typer.Option(None, "--zone", help="IANA zone of the times, e.g. Europe/Berlin."),
    clear: bool = typer.Option(False, "--clear", help="Take out all first."),
    name: str = As,
    as_json: bool = AsJson,
) -> None:
    """Show or change an account's slots, which `--at next-slot` fills. Nothing scheduled moves."""
    given = _house.settings()
    change = bool(add or remove or zone or clear)
    report = _house.run(_slots(given, ref, add, remove, zone, clear, actor(name) if change else ""))
    if as_json:
        show_json(report)
        return
    for day, times in report["days"].items():
        out.print(f"{day} {', '.join(times)}")
    if not report["days"]:
        out.print(f"{report['connection']} has no slots")
    for one in report["free"]:
        out.print(f"[dim]free: {one['local']} {report['zone']} = {one['utc']} UTC[/]")


async def _slots(
    given: Settings,
    ref: str,
    add: list[str],
    remove: list[str],
    zone: str | None,
    clear: bool,
    by: str,
) -> dict[str, Any]:
    async with _house.opened(given) as store:
        row = await store.connection(ref)
        known = None if clear else _known(row)
        if by:
            known = _changed(row.ref, known or _known(row), add, remove, zone, clear)
            await store.set_slots(row.id, known, actor=by)
        free = await store.free_slots(row.id, 5)
    days = {day: list(known.days[day]) for day in DAYS if known and day in known.days}
    where = ZoneInfo(known.zone) if known else ZoneInfo("UTC")
    return {
        "connection": row.ref,
        "zone": where.key,
        "days": days,
        "free": [
            {
                "local": f"{one.astimezone(where):%a %Y-%m-%d %H:%M}",
                "utc": f"{one:%Y-%m-%d %H:%M}",
            }
            for one in free
        ],
    }


def _known(row: Connection) -> Slots | None:
    return Slots.model_validate(row.slots) if row.slots else None


def _changed(
    ref: str, known: Slots | None, add: list[str], remove: list[str], zone: str | None, clear: bool
) -> Slots:
    name = zone or (known.zone if known else None)
    if name is None:
        raise InvalidInput(f"--zone: say in which IANA zone the times of {ref} are meant")
    made = Slots(zone=zone_of(name).key, days=known.days if known and not clear else {})
    for words in remove:
        made = made.without_times(times_of(words))
    for words in add:
        made = made.with_times(times_of(words))
    return made
