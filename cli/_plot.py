"""Draws forecasts: rows a day by table, before as broken lines, the first run as a mark."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from clickpost.simulation import Forecast

#: So many tables get a line of their own.
_MOST = 8
#: Told apart by colour and by form, for those who do not see the colours.
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw(before: Forecast | None, after: Forecast, target: Path) -> None:
    """Draw rows a day; raise OSError where the file cannot be written."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.add_subplot()
    totals = _by_table(after)
    if before is not None:
        totals = totals | {name: totals.get(name, Counter()) for name in _by_table(before)}
    names = sorted(totals, key=lambda name: -sum(totals[name].values()))
    names = [name for name in names if _any(name, before, after)][:_MOST]
    for number, name in enumerate(names):
        colour = f"C{number}"
        if before is not None:
            days = _by_table(before).get(name, Counter())
            _line(axes, before, days, colour, _MARKS[number], f"{name}, before", "--")
        label = f"{name}, after" if before is not None else name
        _line(axes, after, totals[name], colour, _MARKS[number], label, "-")
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("rows deleted or anonymized a day")
    axes.set_title(f"Retention from {after.first}: the mark on the first day is the first run")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]  # matplotlib's dates
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # as above
    axes.grid(alpha=0.3)
    if names:
        axes.legend(loc="upper right", fontsize="small")
    else:
        axes.text(0.5, 0.5, "nothing expires", transform=axes.transAxes, ha="center")
    figure.savefig(target, dpi=120)


def _any(name: str, before: Forecast | None, after: Forecast) -> bool:
    return any(sum(_by_table(one).get(name, Counter()).values()) for one in (before, after) if one)


def _by_table(forecast: Forecast) -> dict[str, Counter[date]]:
    found: dict[str, Counter[date]] = {}
    for course in forecast.courses:
        found.setdefault(course.table, Counter()).update(course.by_day())
    return found


def _line(
    axes: Axes,
    forecast: Forecast,
    days: Counter[date],
    colour: str,
    mark: str,
    label: str,
    style: str,
) -> None:
    every = [forecast.first + timedelta(days=n) for n in range(1, forecast.days + 1)]
    axes.plot(every, [days[one] for one in every], style, color=colour, label=label)  # type: ignore[arg-type]
    fill = colour if style == "-" else "none"
    spike = [days[forecast.first]]
    axes.plot([forecast.first], spike, mark, color=colour, markerfacecolor=fill)  # type: ignore[arg-type]
