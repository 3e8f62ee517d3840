"""Sends a canary through all of an erasure each week, and fails loudly where anything is left."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed

from clickpost import canary
from clickpost.canary import Looked
from clickpost.errors import ClickPostError
from clickpost.requests import Kind
from flows import _naming
from flows.erase_subject import erase_subject
from tasks import canary as canaries
from tasks import telling


@flow(name="canary-erasure", flow_run_name=_naming.by_minute)
async def canary_erasure() -> PrefectState[Any]:
    """Create a made-up person and business, erase them as real ones, and look for what is left.

    Through the doors and flows that real people's data takes: members, consents, tickets, files,
    usage, a draft with a picture, an archive for the person, a request of theirs and one about the
    account. Then every
    column of every table, ours and Prefect's, and every younger file is searched. What is found
    fails the run, and is told. It has a workspace of its own and publishes nothing.
    """
    try:
        looked = await _flown()
    except ClickPostError as error:
        await canaries.record_failure(error)
        await telling.wake()
        return Failed(message=f"{error.who_acts} has to act: {error}")
    except Exception as error:
        await canaries.record_failure(error)
        raise
    await canaries.record(looked)
    await canaries.report(looked)
    said = canary.said(looked)
    if not looked.traces:
        return Completed(message=said)
    await telling.wake()
    return Failed(message=said)


async def _flown() -> Looked:
    flying = await canaries.begin()
    await canaries.export(flying, await canaries.ask(flying, Kind.ACCESS))
    await _erased(await canaries.ask(flying))
    left = await canaries.look_for_person(flying)
    await _erased(await canaries.ask(flying, account=True))
    return left + await canaries.look_everywhere(flying)


async def _erased(request_id: str) -> None:
    """Erase as a request asks; the plan of an account has to be approved in between."""
    await erase_subject(request_id=request_id, return_state=True)
    for erasure_id in await canaries.approved(request_id):
        await erase_subject(erasure_id=erasure_id, return_state=True)
    await canaries.finish(request_id)
