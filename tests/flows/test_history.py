"""What Prefect remembers is counted, then deleted; what has not ended stays with all of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from clickpost.policy.history import NAME
from clickpost.store import history as stored
from deployments import runs
from tasks import history
from tasks.purging import Outcome
from tests.flows.conftest import House

pytestmark = pytest.mark.xdist_group("stack")

OLD = timedelta(days=200)


def _found(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {one.data: one.tally.found for one in outcomes if one.tally}


async def test_what_has_ended_goes_with_all_of_it_and_nothing_else(house: House) -> None:
    post_id = await house.post("remembered for too long", "bluesky/studio")
    over = house.run("publish", post_id)
    assert (await house.ended(over))["state_type"] == "COMPLETED"
    far = datetime.now(UTC) + timedelta(days=3)
    moment = {"moment": {"at": far.isoformat()}}
    waits = runs.start(house.settings, "publish-due", moment, at=far)
    key = post_id.replace("_", "-")
    assert house.api("GET", f"/artifacts/{key}/latest")["flow_run_id"] == over
    async with stored.opened((house.settings.home / "prefect.url").read_text().strip()) as db:
        await db.execute("UPDATE flow_run SET end_time = end_time - %s WHERE id = %s", (OLD, over))
        await db.execute("UPDATE flow_run SET created = created - %s WHERE id = %s", (OLD, waits))
        await db.execute(
            "INSERT INTO log (name, level, flow_run_id, message, timestamp)"
            " VALUES ('a test', 20, %s, 'kept with its run', now() - %s)",
            (waits, OLD),
        )

    counted = await history.purge(house.store, house.settings)
    assert [(one.policy, one.mode, one.trouble) for one in counted] == [(NAME, "dry_run", None)] * 4
    assert _found(counted) | {"prefect events": 0} == {
        "prefect runs": 1,
        "prefect logs": 0,
        "prefect artifacts": 0,
        "prefect events": 0,
    }
    assert house.api("GET", f"/flow_runs/{over}")["id"] == over

    done = await history.purge(house.store, house.settings, apply=True)
    assert done[0].counts["runs"] == 1
    assert done[0].counts["task_runs"] >= 1
    assert done[0].counts["artifacts"] >= 1
    for path in (f"/flow_runs/{over}", f"/artifacts/{key}/latest"):
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            house.api("GET", path)
    assert house.api("GET", f"/flow_runs/{waits}")["state_type"] == "SCHEDULED"
    kept = {"logs": {"flow_run_id": {"any_": [waits]}}}
    assert [one["message"] for one in house.api("POST", "/logs/filter", json=kept)] == [
        "kept with its run"
    ]
    again = await history.purge(house.store, house.settings, apply=True)
    assert _found(again)["prefect runs"] == 0
    async with house.store.engine.connect() as db:
        query = "SELECT facts FROM ledger WHERE action = 'history.purged' ORDER BY seq DESC LIMIT 1"
        facts = (await db.exec_driver_sql(query)).scalar_one()
    assert facts["runs"] == 1
    assert facts["policy"] == done[0].version
    house.api("DELETE", f"/flow_runs/{waits}")


async def test_a_prefect_of_somebody_else_is_left_alone(house: House) -> None:
    theirs = house.settings.model_copy(update={"prefect_api_url": "https://prefect.example/api"})
    theirs.__dict__.pop("prefect_api", None)
    [said] = await history.purge(house.store, theirs, apply=True)
    assert (said.mode, said.trouble, said.counts) == ("elsewhere", None, {})
