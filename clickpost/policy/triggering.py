"""Reads the trigger policies: all that is wrong at once, with file, line and column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from clickpost.policy.load import (
    BrokenPolicies,
    Report,
    nearest,
    policy_files,
    shown_path,
    validated,
)
from clickpost.policy.source import Problem, Source, read_file
from clickpost.policy.triggers import Trigger
from clickpost.settings import PROJECT

FOLDER = "triggers"

#: Says what is wrong with a trigger that only those know who have the flows and the schedules.
Flows = Callable[[Source, Trigger], Iterable[Problem]]


def check(place: Path, flows: Flows | None = None) -> Report:
    """Look at the triggers under a folder, or at one file; `flows` judges what they run."""
    report = Report()
    _read(place, report, flows)
    report.problems.sort()
    return report


def load(folder: Path, flows: Flows | None = None) -> list[Trigger]:
    """Return the triggers of a folder of policies by name; raise BrokenPolicies with every problem.

    A folder without `triggers` has none of its own: then those that we ship keep the house.
    """
    own = folder / FOLDER
    report = Report()
    found = _read(own if own.exists() else PROJECT / "policies" / FOLDER, report, flows)
    if report.problems:
        raise BrokenPolicies(tuple(sorted(report.problems)))
    return sorted(found, key=lambda one: one.name)


def _read(place: Path, report: Report, flows: Flows | None) -> list[Trigger]:
    there = [place] if place.is_file() else policy_files(place, report)
    first: dict[str, str] = {}
    found = []
    for path in there:
        if path.parent.name != FOLDER:
            continue
        name = shown_path(path)
        report.files.append(name)
        if (earlier := first.setdefault(path.stem.casefold(), name)) != name:
            said = f"is a second trigger {path.stem!r}, beside {earlier}; keep one"
            report.problems.append(Problem(name, 1, 1, "", said))
        trigger = _trigger(path, name, flows)
        if isinstance(trigger, list):
            report.problems += trigger
        else:
            found.append(trigger)
    return found


def _trigger(path: Path, name: str, flows: Flows | None) -> Trigger | list[Problem]:
    source = read_file(path, name)
    if isinstance(source, Problem):
        return [source]
    kind = source.data.get("kind")
    if kind != "trigger":
        said = f"must be `trigger` in this folder; found {kind!r}" if kind else "is missing"
        near = nearest(kind, ["trigger"]) or "" if kind else ""
        return [source.problem(("kind",), said, "What this file is", near), *source.problems]
    trigger = validated(source, Trigger)
    problems = (
        trigger if isinstance(trigger, list) else [*(flows(source, trigger) if flows else ())]
    )
    called = source.data.get("name")
    if isinstance(called, str) and called != path.stem:
        said = f"must be the file's name, {path.stem!r}; found {called!r}"
        problems = [*problems, source.problem(("name",), said)]
    return problems or trigger
