"""Erases, or anonymizes, what is held about one person or account; carries on what was parked."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed
from pydantic import Field

from clickpost.errors import ClickPostError
from tasks import erasing, exporting
from tasks.erasing import Ended

_ERASURE = r"^erasure_[0-9a-z]+$"
_REQUEST = r"^req_[0-9a-z]+$"


@flow(name="erase-subject")
async def erase_subject(
    request_id: Annotated[
        str | None,
        Field(
            description="A verified request: it is planned and, if need be, waits for approval.",
            pattern=_REQUEST,
        ),
    ] = None,
    erasure_id: Annotated[
        str | None,
        Field(description="Or an erasure that was planned and approved.", pattern=_ERASURE),
    ] = None,
) -> PrefectState[Any]:
    """Erase what is held about a person or an account, and prove it.

    What is unsent is cancelled, what is visible taken down where that is asked, grants are
    revoked; then rows go in batches, then files; then every mapped place is asked what it still
    holds. The certificate says what became of each. What a rule holds is parked, and goes when
    that ends. A run that was killed is resumed: by running this again, or by itself.
    """
    try:
        if request_id is not None:
            done = await erasing.run_request(request_id)
        elif erasure_id is not None:
            done = await erasing.run(erasure_id)
        else:
            return Failed(message="say which: a request_id or an erasure_id")
    except ClickPostError as error:
        return Failed(message=f"{error.who_acts} has to act: {error}")
    return _ended(done)


@flow(name="anonymize-subject")
async def anonymize_subject(
    erasure_id: Annotated[
        str, Field(description="An anonymization, planned and approved.", pattern=_ERASURE)
    ],
) -> PrefectState[Any]:
    """Anonymize what is held about a person or an account: rows stay, and lead to nobody.

    As the data map says: nothing, a digest whose key is destroyed, the month, the network, the
    text without names. The same value gets the same digest in every table.
    """
    try:
        return _ended(await erasing.run(erasure_id))
    except ClickPostError as error:
        return Failed(message=f"{error.who_acts} has to act: {error}")


@flow(name="resume-erasures")
async def resume_erasures() -> PrefectState[Any]:
    """Carry on what is parked or waits and may go on by now, and what was cut short.

    Exports that were cut short are made anew.
    """
    ended = await erasing.resume()
    failed = await exporting.resume()
    said = f"{len(ended)} carried on, {sum(one.state == 'complete' for one in ended)} complete"
    bad = [one for one in ended if not one.is_well]
    if bad or failed:
        named = "; ".join([*(f"{one.erasure_id}: {one.said}" for one in bad), *failed])
        return Failed(message=f"{said}; {named}")
    return Completed(message=said)


def _ended(done: Ended) -> PrefectState[Any]:
    proof = f"; certificate {done.certificate}" if done.certificate else ""
    said = f"{done.erasure_id}: {done.said}{proof}"
    return Completed(message=said) if done.is_well else Failed(message=said)
