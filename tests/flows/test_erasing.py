"""On the whole stack an erasure is a run with its plan and outcomes, and names nobody."""

from __future__ import annotations

import json

import pytest

from clickpost.store.erasures import Erasures
from deployments import runs
from tasks import erasing
from tasks.erasing import Wanted
from tests.flows.conftest import House
from tests.store.test_erasure import PERSONAL, person, rows

pytestmark = pytest.mark.xdist_group("stack")


async def test_an_erasure_is_a_run_that_names_nobody(house: House) -> None:
    file = house.settings.media_root / "attachments" / "gone.png"
    await person(house.store, events=3, file=str(file))
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
    assert not [word for word in PERSONAL if word in json.dumps([artifact, logs, run, early])]
