"""Names of runs, as operators find them: the flow, and what or which minute (UTC) it is about.

Ids, platforms, policies and times; never content, for Prefect keeps names.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prefect.context import FlowRunContext


def by_minute() -> str:
    """Return the flow and the minute for which the run was made: `tell 2026-11-24 09:00`."""
    context = _context()
    made_for = context.flow_run.expected_start_time if context.flow_run else None
    return f"{_flow(context)} {(made_for or datetime.now(UTC)).astimezone(UTC):%Y-%m-%d %H:%M}"


def after(*names: str) -> Callable[[], str]:
    """Return what names a run after the first of these parameters that is given.

    A run that was given none of them is named by its minute.
    """

    def name() -> str:
        context = _context()
        given = [value for one in names if (value := _parameters(context).get(one))]
        return f"{_flow(context)} {given[0]}" if given else by_minute()

    return name


def parameter(name: str) -> Any:
    """Return a parameter of the run that is to be named; None where it was not given."""
    return _parameters(_context()).get(name)


def tagged(kind: str) -> str:
    """Return the flow and what stands in the run's tag `KIND:…`, else its minute."""
    context = _context()
    tags = context.flow_run.tags if context.flow_run else []
    found = [tag.partition(":")[2] for tag in tags if tag.startswith(f"{kind}:")]
    return f"{_flow(context)} {found[0]}" if found else by_minute()


def _context() -> FlowRunContext:
    context = FlowRunContext.get()
    assert context is not None  # Prefect names a run within its context.
    return context


def _flow(context: FlowRunContext) -> str:
    return context.flow.name if context.flow else "run"


def _parameters(context: FlowRunContext) -> dict[str, Any]:
    return context.parameters or {}
