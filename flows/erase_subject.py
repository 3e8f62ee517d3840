"""Erases, or anonymizes, what is held about one person or account; carries on what was parked."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed
from pydantic import Field

from clickpost.errors import ClickPostError
from flows import _naming
from tasks import erasing, exporting
from tasks.erasing import Ended

_ERASURE = r"erasure_[0-9a-z]+"
_REQUEST = r"req_[0-9a-z]+"


@flow(name="erase-subject", flow_run_name=_naming.after("request_id", "erasure_id"))
async def erase_subject(
    request_id: Annotated[str, Field(pattern=rf"^({_REQUEST})?$")] = "",
    erasure_id: Annotated[str, Field(pattern=rf"^({_ERASURE})?$")] = "",
) -> PrefectState[Any]:
    """Erase what is held about a person or an account, and prove it.

    What is unsent is cancelled, what is visible taken down where that is asked, grants are
    revoked; then rows go in batches, then files; then every mapped place is asked what it still
    holds. The certificate says what became of each. What a rule holds is parked, and goes when
    that ends. A run that was killed is resumed: by running this again, or by itself.

    Args:
        request_id: A verified request, `req_…` of `clickpost privacy requests`: it is planned and,
            if need be, waits for approval.
        erasure_id: Or an erasure that was planned and approved, `erasure_…` of `clickpost privacy
            erasures`.
    """
    try:
        if request_id:
            done = await erasing.run_request(request_id)
        elif erasure_id:
            done = await erasing.run(erasure_id)
        else:
            return Failed(message="say which: a request_id or an erasure_id")
    except ClickPostError as error:
        return Failed(message=f"{error.who_acts} has to act: {error}")
    return _ended(done)


@flow(name="anonymize-subject", flow_run_name="anonymize-subject {erasure_id}")
async def anonymize_subject(
    erasure_id: Annotated[str, Field(pattern=rf"^{_ERASURE}$")],
) -> PrefectState[Any]:
    """Anonymize what is held about a person or an account: rows stay, and lead to nobody.

    As the data map says: nothing, a digest whose key is destroyed, the month, the network, the
    text without names. The same value gets the same digest in every table.

    Args:
        erasure_id: An anonymization that was planned and approved, `erasure_…` of `clickpost
            privacy erasures`.
    """
    try:
        return _ended(await erasing.run(erasure_id))
    except ClickPostError as error:
        return Failed(message=f"{error.who_acts} has to act: {error}")


@flow(name="resume-erasures", flow_run_name=_naming.by_minute)
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
