"""Plans ahead: the next posts of series, fresh preparations, approvals nobody asked for yet."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed

from flows import _naming, _run
from tasks import approving, planning, reporting
from tasks.planning import Stale


@flow(name="plan-ahead", flow_run_name=_naming.by_minute)
async def plan_ahead() -> PrefectState[Any]:
    """Make what comes next, so that at its moment only the send is left.

    The next posts of each series are made and scheduled; what is due within ten minutes and was
    prepared too early, or not at all, is prepared now; what needs an approval is asked for; the
    run of a moment that its last post has left is ended.
    """
    made = await planning.extended()
    stale = await planning.stale()
    for post_id in sorted({one.post_id for one in stale if one.planned}):
        await _run.prepare(post_id)
    await _run.side_by_side(_refreshed(one) for one in stale)
    missed = await approving.tidy()
    idle = await planning.idle()
    for post_id in sorted({one.post_id for one in stale} | set(missed)):
        await _run.report(post_id)
    message = f"{made} posts of series made, {len(stale)} prepared anew"
    return Completed(message=message + (f", {idle} runs without posts ended" if idle else ""))


async def _refreshed(one: Stale) -> None:
    rows = await reporting.rows(one.post_id)
    if any(row.delivery_id == one.delivery_id and row.may_upload for row in rows):
        await _run.upload(one.delivery_id, one.post_id, one.connection)
