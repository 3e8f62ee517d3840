"""The one-machine stack: seconds to up, and the memory of all its processes at rest."""

from __future__ import annotations

import subprocess
import sys
from time import monotonic, sleep
from typing import Any

from benchmarks import _house
from benchmarks._show import show
from deployments.stack import Stack

_REST = 20


def main(*, as_json: bool) -> None:
    """Measure on a stack of its own; the floor of a start is importing Prefect's server once."""
    with _house.settings() as given, _house.stopped(given) as stack:
        floor = _seconds_of_import()
        first = _timed(stack)
        again = _timed(stack)
        sleep(_REST)
        parts = stack.status()
        stack.down()
        warm = _timed(stack)
    total = sum(part.memory for part in parts)
    rows: list[dict[str, Any]] = [
        _row("first up, seconds (databases made)", first, floor),
        _row("up again after down, seconds", warm, floor),
        _row("up while all runs, seconds", again, floor),
        {
            "measure": f"memory of all parts after {_REST} s at rest, MB",
            "value": f"{total / 1e6:.0f}",
            "floor": ", ".join(f"{one.name} {one.memory / 1e6:.0f}" for one in parts),
            "aim": "≤ 900",
        },
    ]
    show("stack", rows, as_json=as_json)


def _row(measure: str, seconds: float, floor: float) -> dict[str, Any]:
    return {
        "measure": measure,
        "value": f"{seconds:.1f}",
        "floor": f"{floor:.1f} (import of Prefect's server)",
        "ratio": f"{seconds / floor:.1f}",
    }


def _timed(stack: Stack) -> float:
    began = monotonic()
    stack.up(sandbox=True)
    return monotonic() - began


def _seconds_of_import() -> float:
    began = monotonic()
    subprocess.run([sys.executable, "-c", "import prefect.server.api.server"], check=True)
    return monotonic() - began
