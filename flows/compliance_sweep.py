"""Looks every night whether the privacy promises hold, and fails loudly where one does not."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed

from clickpost import compliance
from clickpost.compliance import Light
from flows import _naming
from tasks import compliance as sweeping
from tasks import telling


@flow(name="compliance-sweep", flow_run_name=_naming.by_minute)
async def compliance_sweep() -> PrefectState[Any]:
    """Check requests, erasures, purges, the data map, tokens, duties, proofs, sources, the canary.

    The report is the artifact `compliance`: each check with a word, a symbol, and what to do. It
    touches nothing. Red fails the run and is told through the channels of `clickpost notify`.
    """
    found = await sweeping.run()
    said = compliance.summary(found)
    if compliance.worst(found) is not Light.RED:
        return Completed(message=said)
    await telling.wake()
    return Failed(message=said)
