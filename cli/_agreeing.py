"""How `clickpost policy diff | apply` speak: the plan in red and green, and the watch."""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from rich.text import Text

import connectors
from cli import _house
from cli._output import err, out, show_json
from clickpost.errors import ClickPostError, Unavailable
from clickpost.policy import history, keeping, processors, requesting, roles, triggering
from clickpost.policy.load import BrokenPolicies, Problem, Report, joined
from clickpost.policy.load import check as look
from clickpost.policy.source import Source
from clickpost.policy.triggers import Trigger
from clickpost.settings import Settings
from clickpost.store import schema
from deployments import runs
from deployments.stack import Stack
from tasks import elsewhere

if TYPE_CHECKING:
    from deployments.agreeing import Change, Plan

_SIGNS = {"add": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}
_DONE = {"add": "added", "change": "changed", "remove": "removed"}
#: Comes from the code, not from a policy, and is long.
_LONG = ("form",)


def prepare(given: Settings) -> None:
    """Import Prefect so that its client speaks to the server that `given` names.

    Prefect reads its environment once, at its import; ours is left as it was, for a
    `PREFECT_API_URL` in it means a server of somebody else's.
    """
    if "prefect.context" in sys.modules:
        return
    before = os.environ.copy()
    os.environ.update(Stack(given).prefect_client())
    try:
        with warnings.catch_warnings():
            # A machine on which `up` never ran has no home for it, and needs none for a check.
            warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
            importlib.import_module("prefect.context")
    finally:
        os.environ.clear()
        os.environ.update(before)


def looked(given: Settings, place: Path) -> Report:
    """Look at all kinds of policies in a place; report what is wrong."""
    report = look(place, code=connectors.capabilities())
    if not place.exists():
        return report
    tables = schema.at_hand(given)
    report = joined(report, keeping.check(place, tables))
    if place.is_dir():
        report = joined(report, elsewhere.looked(place))
    report = joined(report, processors.check(place, tables))
    report = joined(report, requesting.check(place))
    report = joined(report, triggering.check(place, lambda one, two: _faults(given, one, two)))
    report = joined(report, roles.check(place))
    report = joined(report, history.check(place))
    return joined(report, _running(given, place))


def _running(given: Settings, place: Path) -> Report:
    """Look at the running policies; Prefect takes its seconds only where there are some."""
    paths = [place] if place.is_file() else [*place.rglob("*.y*ml")]
    if not any(path.parent.name == "running" for path in paths):
        return Report()
    prepare(given)
    from deployments import queues

    return queues.check(place)


def _faults(given: Settings, source: Source, trigger: Trigger) -> Iterator[Problem]:
    """Yield what is wrong with a trigger; Prefect takes its seconds only where there is one."""
    prepare(given)
    from deployments import triggers

    return triggers.faults(source, trigger)


def planned(given: Settings) -> Plan:
    """Return what would change; raise BrokenPolicies, or Unavailable where Prefect is away."""
    return _asked(given, apply=False)


def applied(given: Settings) -> Plan:
    """Make Prefect agree and return what changed; raise as `planned` does, and touch nothing."""
    return _asked(given, apply=True)


def _asked(given: Settings, *, apply: bool) -> Plan:
    report = looked(given, given.policies)
    if report.problems:
        raise BrokenPolicies(tuple(report.problems))
    prepare(given)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments import agreeing

    wanted = agreeing.policies_of(given)
    try:
        # Whoever imported Prefect first: without an address it would start a server of its own.
        with temporary_settings({PREFECT_API_URL: runs.api_url(given)}):
            policies = _house.run(agreeing.with_choices(wanted, given))
            return _house.run(agreeing.apply(policies) if apply else agreeing.plan(policies))
    except httpx.TransportError:
        raise runs.silent(given) from None
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise Unavailable(
            f"Prefect refused: HTTP {status}. What was done stays; apply again"
        ) from None


def show(plan: Plan, *, as_json: bool, done: bool = False) -> None:
    """Print what differs, or what was done."""
    if as_json:
        changes = [asdict(one) | {"differs": one.differs} for one in plan.changes]
        show_json({"changes": changes, "warnings": list(plan.warnings), "applied": done})
        return
    for change in plan.changes:
        for line in _lines(change):
            out.print(line, soft_wrap=True)
    for warning in plan.warnings:
        out.print(Text.assemble(("warning", "yellow"), f": {warning}"), soft_wrap=True)
    out.print(_summary(plan, done))


def _lines(change: Change) -> Iterator[Text]:
    sign, colour = _SIGNS[change.action]
    yield Text(f"{sign} {change.kind} {change.name}", f"bold {colour}")
    if change.action == "remove":
        return  # Its file is gone; what it held is in the history of the files.
    for name in change.differs:
        if name in _LONG:
            if change.action == "change":
                yield Text(f"    ~ {name}: as the flow's code has it now", colour)
            continue
        for mark, facts, tint in (("-", change.before, "red"), ("+", change.after, "green")):
            if value := facts.get(name):
                # Of a description the first line is the trigger's title; its version is a tag.
                yield Text(f"    {mark} {name}: {value.splitlines()[0]}", tint)


def _summary(plan: Plan, done: bool) -> str:
    if not plan.changes:
        return "Prefect agrees with the policies: nothing to do"
    counts = {action: sum(one.action == action for one in plan.changes) for action in _SIGNS}
    told = ", ".join(
        f"{number} {_DONE[action] if done else f'to {action}'}"
        for action, number in counts.items()
        if number
    )
    return told if done else f"{told}. Do it with: clickpost policy apply"


def watch(given: Settings) -> None:
    """Apply whenever a file changes, until somebody presses Ctrl-C; what is wrong is said."""
    seen: object = None
    while True:
        if (now := _stamps(given.policies)) != seen:
            seen = now
            out.print(f"[dim]{datetime.now():%H:%M:%S}[/]", end=" ")
            try:
                show(applied(given), as_json=False, done=True)
            except ClickPostError as error:
                err.print(Text(str(error), "red"), soft_wrap=True)
        time.sleep(0.5)


def _stamps(folder: Path) -> list[tuple[Path, int]]:
    found = []
    for path in sorted(folder.rglob("*.y*ml")):
        with suppress(OSError):  # An editor may be just replacing it.
            found.append((path, path.stat().st_mtime_ns))
    return found
