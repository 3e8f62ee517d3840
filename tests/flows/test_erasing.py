"""On the whole stack an erasure is a run with its plan and outcomes, and names nobody."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime

import pytest

from clickpost.store.erasures import Erasures
from deployments import runs
from tasks import erasing
from tasks.erasing import Wanted
from tests.flows.conftest import House
from tests.store.test_erasure import PERSONAL, person, rows

pytestmark = pytest.mark.xdist_group("stack")


def left_there(house: House, word: str) -> None:
    """Leave a line, an artifact and an event that carry an id, as runs of ours do."""
    moment = datetime.now(UTC).isoformat()
    line = {"name": "a test", "level": 20, "message": f"of {word}", "timestamp": moment}
    house.api("POST", "/logs/", json=[line])
    page = {"key": word.replace("_", "-"), "type": "markdown", "data": "x"}
    house.api("POST", "/artifacts/", json=page)
    event = {
        "id": str(uuid.uuid4()),
        "occurred": moment,
        "event": "clickpost.test",
        "resource": {"prefect.resource.id": f"clickpost.member.{word}"},
    }
    house.api("POST", "/events", json=[event])
    body = {"filter": {"event": {"name": ["clickpost.test"]}}}
    for _ in range(100):  # Prefect writes events down a moment later.
        if house.api("POST", "/events/filter", json=body)["events"]:
            return
        time.sleep(0.1)
    raise AssertionError("the event did not arrive")


async def test_an_erasure_is_a_run_that_names_nobody(house: House) -> None:
    file = house.settings.media_root / "attachments" / "gone.png"
    await person(house.store, events=3, file=str(file))
    left_there(house, "member_ann")
    row, _ = await erasing.plan(house.settings, house.store, Wanted("person", "member_ann"))
    early = await house.ended(runs.start(house.settings, "erase-subject", {"erasure_id": row.id}))
    assert "look at it" in early["state"]["message"]
    await Erasures(house.store.engine, house.store.vault).approve(row.id, "engine")
    run = await house.ended(runs.start(house.settings, "erase-subject", {"erasure_id": row.id}))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert "erasure complete; certificate cert_" in run["state"]["message"]
    assert await rows(house.store, "SELECT 1 FROM member WHERE id = 'member_ann'") == []
    body = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    [artifact] = house.api("POST", "/artifacts/filter", json=body)
    lines = json.loads(artifact["data"])
    assert {"plan", "outcome"} == {one["stage"] for one in lines}
    logs = house.api("POST", "/logs/filter", json={"limit": 200})
    assert [one for one in lines if one["where"] == "prefect" and one["count"] >= 3]
    assert "member_ann" not in json.dumps(logs)
    assert "member-ann" not in json.dumps(house.api("POST", "/artifacts/filter", json={}))
    body = {"filter": {"event": {"name": ["clickpost.test"]}}}
    assert house.api("POST", "/events/filter", json=body)["events"] == []
    assert not [word for word in PERSONAL if word in json.dumps([artifact, logs, run, early])]
