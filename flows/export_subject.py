"""Hands a person what is held about them, when a verified request asks for it."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed
from pydantic import Field

from clickpost.errors import ClickPostError
from tasks import exporting


@flow(name="export-subject", flow_run_name="export-subject {request_id}")
async def export_subject(
    request_id: Annotated[str, Field(pattern=r"^req_[0-9a-z]+$")],
) -> PrefectState[Any]:
    """Write all that is held about a person or an account into one archive, and prove it.

    The rows are those that an erasure would find, read in one look; tokens and what is about other
    people stay out. The archive is read back, certified, and handed out by a link that expires.
    A run that was killed hands nothing out: run this again, or wait ten minutes.

    Args:
        request_id: A verified request for access or portability, `req_…` of `clickpost privacy
            requests`.
    """
    try:
        return Completed(message=await exporting.run_request(request_id))
    except ClickPostError as error:
        return Failed(message=f"{error.who_acts} has to act: {error}")
