"""A post that Prefect lost is found by the sweep; what is stuck is told and shown."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from clickpost.delivery import State
from tests.flows.conftest import House

pytestmark = pytest.mark.xdist_group("sending")


async def test_posts_without_any_run_are_published_within_minutes(house: House) -> None:
    """One never had a run, one's was deleted in Prefect before its moment, one's is nobody's.

    Nobody's: a worker claimed it, and was killed before it could say where it runs it. Such runs
    would hold places of their queue's limit for ever.
    """
    text = uuid.uuid4().hex
    never = await house.post(f"{text} never", "mastodon/studio")
    lost = await house.post(f"{text} lost", "mastodon/studio")
    moment = datetime.now(UTC) + timedelta(minutes=30)
    claimed = await house.post(f"{text} claimed", "mastodon/studio")
    deployment = house.api("GET", "/deployments/name/publish/publish")["id"]
    scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": moment.isoformat()}}
    body = {"parameters": {"post": {"post_id": lost}}, "state": scheduled}
    run = house.api("POST", f"/deployments/{deployment}/create_flow_run", json=body)
    await house.store.set_flow_run(lost, run["id"])
    house.api("DELETE", f"/flow_runs/{run['id']}")
    body = {"parameters": {"post": {"post_id": claimed}}, "state": scheduled}
    nobodys = house.api("POST", f"/deployments/{deployment}/create_flow_run", json=body)["id"]
    pending = {"state": {"type": "PENDING", "name": "Pending"}, "force": True}
    house.api("POST", f"/flow_runs/{nobodys}/set_state", json=pending)
    async with house.store.engine.begin() as db:  # Two minutes pass.
        await db.exec_driver_sql(
            "UPDATE delivery SET updated_at = now() - interval '2 min' WHERE post_id = ANY(%s)",
            ([never, lost, claimed],),
        )
    for post_id in (never, lost, claimed):
        lines = await house.settled(post_id, within=170)
        assert lines["mastodon/studio"].state is State.LIVE
    assert len(house.there(text)) == 3
    end = monotonic() + 120
    while (state := house.api("GET", f"/flow_runs/{nobodys}")["state"])["type"] != "COMPLETED":
        assert monotonic() < end, state
        await asyncio.sleep(1)
