"""Tells people what they have to know: the outbox, worked each minute."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed

from flows import _naming
from tasks import telling


@flow(name="tell", flow_run_name=_naming.by_minute)
async def tell() -> PrefectState[Any]:
    """Emit what happened as events, and tell it through the workspaces' channels.

    What a channel does not take is tried again, after 1, 2, 4, … 60 minutes; after a day it is
    given up, and `clickpost status` says so.
    """
    done = await telling.work()
    message = f"told {done.told}, emitted {done.emitted}"
    if done.failed:
        message += f", {done.failed} not taken ({done.given_up} given up)"
    return Failed(message=message) if done.given_up else Completed(message=message)
