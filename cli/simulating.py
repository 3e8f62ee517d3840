"""`clickpost policy simulate`: what retention will touch in the next months, before it does."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cli import _house
from cli._output import AsJson, guarded, out, show_json
from clickpost.errors import InvalidInput
from clickpost.settings import Settings
from clickpost.simulation import AT_ONCE, Course, Difference, Forecast, differences
from tasks import simulating

_PICTURES = (".png", ".svg")
#: So many months have a column of their own.
MONTHS = 7


@guarded
def simulate(
    against: str = typer.Option(
        None, "--against", metavar="REV", help="Compare: a git revision, or another folder."
    ),
    days: int = typer.Option(180, "--days", min=1, max=3660, help="How far to look ahead."),
    plot: Path = typer.Option(None, "--plot", metavar="FILE", help="Draw it: .png or .svg."),
    as_json: bool = AsJson,
) -> None:
    """Say what each retention policy will touch, day by day, as if all said `mode: apply`.

    Counts only: the database groups rows by the day on which they expire, and reads no value.
    Nothing is touched. With --against, what the change makes of it.
    """
    given = _house.settings()
    if plot is not None and plot.suffix not in _PICTURES:
        raise InvalidInput(f"--plot: {plot.name} must end in {' or '.join(_PICTURES)}")
    before, after = _house.run(_foretold(given, against, days))
    if plot is not None:
        _drawn(before, after, plot)
    if as_json:
        show_json(said(before, after))
        return
    _show(before, after, against)
    if plot is not None:
        out.print(Text(str(plot)), soft_wrap=True)


async def _foretold(
    given: Settings, against: str | None, days: int
) -> tuple[Forecast | None, Forecast]:
    async with _house.opened(given) as store:
        return await simulating.compared(store, given, against, datetime.now(UTC), days)


def _drawn(before: Forecast | None, after: Forecast, plot: Path) -> None:
    from cli import _plot  # Only who wants a picture waits for the library.

    try:
        _plot.draw(before, after, plot)
    except OSError as error:
        raise InvalidInput(f"{plot}: cannot be written: {error.strerror}") from None


def said(before: Forecast | None, after: Forecast) -> dict[str, Any]:
    """Return both forecasts for scripts; `before` is null where nothing is compared."""
    return {
        "first_day": after.first.isoformat(),
        "days": after.days,
        "missing": list(after.missing),
        "policies": [
            {
                "policy": one.policy,
                "table": one.table,
                "before": _course(before, one.before),
                "after": _course(after, one.after),
            }
            for one in differences(before, after)
        ],
    }


def _course(forecast: Forecast | None, course: Course | None) -> dict[str, Any] | None:
    if forecast is None or course is None:
        return None
    return {
        "then": course.verb,
        "mode": course.policy.mode,
        "rows_now": forecast.sizes[course.table],
        "first_run": forecast.spike(course),
        "stopped_by": forecast.stopped(course),
        "kept_by_holds_or_references": course.kept,
        "binding": dict(course.binding.most_common()),
        "by_month": course.by_month(),
        "by_day": {day.isoformat(): number for day, number in course.by_day().items()},
        "of_these_expected": sum(course.expected.values()),
    }


def _show(before: Forecast | None, after: Forecast, against: str | None) -> None:
    for why in after.missing:
        out.print(Text(f"not counted: {why}", "yellow"), soft_wrap=True)
    pairs = [one for one in differences(before, after) if _matters(one)]
    if not pairs:
        out.print(f"nothing expires within {after.days} days, and no policy differs")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("policy", "table", "then", "first run", f"in {after.days} days", "binding rule"):
        table.add_column(name, justify="right" if name[0] in "fi" else "left")
    for one in pairs:
        course = one.after or one.before
        assert course is not None
        table.add_row(
            one.policy,
            one.table,
            course.verb,
            _both(before, one, lambda forecast, each: forecast.spike(each), after),
            _both(before, one, lambda _, each: sum(each.by_day().values()), after),
            _rule(course),
        )
    out.print(table)
    _show_months(before, after)
    for one in pairs:
        _notes(one, after)
    if against is not None:
        out.print(Text(f"before → after: {against} → the folder as it is now", "dim"))


def _show_months(before: Forecast | None, after: Forecast) -> None:
    """Print what becomes of each table, month by month, as somebody reads it who knows no policy.

    Where two are compared each table has a line for either, unless nothing changes.
    """
    columns = [AT_ONCE, *after.months()]
    columns, later = columns[: MONTHS + 1], columns[MONTHS + 1 :]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("rows of", "are", *(() if before is None else ("",))):
        table.add_column(name)
    for name in (*columns, *(("later",) if later else ()), "in all"):
        table.add_column(name, justify="right")
    was, now = (before.by_table() if before else {}), after.by_table()
    for key in sorted({*was, *now}):
        both = was.get(key, Counter()), now.get(key, Counter())
        if before is None or both[0] == both[1]:
            lines = [("" if before is None else "as before", both[1])]
        else:
            lines = [("before", both[0]), ("after", both[1])]
        for which, rows in lines:
            if sum(rows.values()) or len(lines) > 1:
                cells = [rows[one] for one in columns]
                cells += [sum(rows[one] for one in later)] if later else []
                shown = [f"{one:,}" if one else "–" for one in (*cells, sum(rows.values()))]
                table.add_row(*key, *(() if before is None else (which,)), *shown)
    out.print()
    out.print(table)
    out.print(Text("at once: what has expired already; months: what follows, and will come", "dim"))


def _matters(one: Difference) -> bool:
    courses = [each for each in (one.before, one.after) if each]
    return any(each.by_day() or each.kept for each in courses)


def _both(before: Forecast | None, one: Difference, of: Any, after: Forecast) -> str:
    """Return a number, or `before → after` where both are compared and differ."""
    now = f"{of(after, one.after):,}" if one.after else "–"
    if before is None:
        return now
    was = f"{of(before, one.before):,}" if one.before else "–"
    return now if was == now else f"{was} → {now}"


def _rule(course: Course) -> str:
    """Name the purpose that keeps most of the rows longest."""
    return course.binding.most_common(1)[0][0] if course.binding else ""


def _notes(one: Difference, after: Forecast) -> None:
    if one.after is None:
        out.print(Text(f"{one.policy}: there is no such policy any more", "yellow"))
        return
    if why := after.stopped(one.after):
        out.print(Text(f"{one.policy}: its first run would touch nothing: {why}", "yellow"))
    if one.after.kept:
        said_ = (
            f"{one.after.kept:,} rows of {one.table} expire, and a hold or a reference keeps them"
        )
        out.print(Text(f"{one.policy}: {said_}", "dim"))
