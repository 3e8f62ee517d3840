"""Reads the trigger policies: all that is wrong at once, with file, line and column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from clickpost.policy.folder import Kind
from clickpost.policy.load import Report
from clickpost.policy.source import Problem, Source
from clickpost.policy.triggers import Trigger

KIND = Kind("triggers", "trigger", Trigger)

#: Says what is wrong with a trigger that only those know who have the flows and the schedules.
Flows = Callable[[Source, Trigger], Iterable[Problem]]


def _all_is_well(source: Source, trigger: Trigger) -> Iterable[Problem]:
    return ()


def check(place: Path, flows: Flows = _all_is_well) -> Report:
    """Look at the triggers under a folder, or at one file; `flows` judges what they run."""
    return KIND.check(place, flows)


def load(folder: Path, flows: Flows = _all_is_well) -> list[Trigger]:
    """Return the triggers of a folder of policies by name; raise BrokenPolicies with every problem.

    A folder without `triggers` has none of its own: then those that we ship keep the house.
    """
    return list(KIND.load(folder, flows).values())
