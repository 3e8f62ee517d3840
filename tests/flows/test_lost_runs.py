"""A post that Prefect lost is found by the sweep; what is stuck is told and shown."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from clickpost.delivery import State
from tests.flows.conftest import House

pytestmark = pytest.mark.xdist_group("sending")


async def test_posts_without_any_run_are_published_within_minutes(house: House) -> None:
    """One never had a run, the other's was deleted in Prefect before its moment."""
    text = uuid.uuid4().hex
    never = await house.post(f"{text} never", "mastodon/studio")
    lost = await house.post(f"{text} lost", "mastodon/studio")
    moment = datetime.now(UTC) + timedelta(minutes=30)
    deployment = house.api("GET", "/deployments/name/publish/publish")["id"]
    scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": moment.isoformat()}}
    body = {"parameters": {"post": {"post_id": lost}}, "state": scheduled}
    run = house.api("POST", f"/deployments/{deployment}/create_flow_run", json=body)
    await house.store.set_flow_run(lost, run["id"])
    house.api("DELETE", f"/flow_runs/{run['id']}")
    async with house.store.engine.begin() as db:  # Two minutes pass.
        await db.exec_driver_sql(
            "UPDATE delivery SET updated_at = now() - interval '2 min' WHERE post_id = ANY(%s)",
            ([never, lost],),
        )
    for post_id in (never, lost):
        lines = await house.settled(post_id, within=170)
        assert lines["mastodon/studio"].state is State.LIVE
    assert len(house.there(text)) == 2
