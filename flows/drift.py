"""Notices posts that vanished or were changed outside."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed

from flows import _naming
from tasks import drifting, telling


@flow(name="check-drift", flow_run_name=_naming.by_minute)
async def check_drift() -> PrefectState[Any]:
    """Look whether live posts are still there: an hour, a day, a week and a month after.

    A post that two looks, ten minutes apart, do not find is `gone`; one whose text is another gets
    a note. A look that fails, or that the platform does not answer clearly, changes nothing.
    """
    counts = await drifting.check()
    await telling.wake()
    due = sum(counts.values())
    if not due:
        return Completed(message="nothing is due")
    words = {
        "Same": "there", "Changed": "changed", "Missed": "missed, to be looked at again",
        "Gone": "gone", "Untold": "that nobody can tell", "NoAnswer": "without an answer",
        "NoBudget": "put off, for want of budget",
    }  # fmt: skip
    told = ", ".join(f"{counts[kind]} {said}" for kind, said in words.items() if counts[kind])
    return Completed(message=f"of {due} due: {told}")
