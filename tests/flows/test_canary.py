"""On the whole stack a canary is a run that erases it, and finds it nowhere, Prefect included."""

from __future__ import annotations

import json

import pytest

from deployments import runs
from tests.flows.conftest import House
from tests.store.test_erasure import rows

pytestmark = pytest.mark.xdist_group("stack")


async def test_a_canary_flies_and_is_found_nowhere(house: House) -> None:
    before = len(house.there(""))
    run = await house.ended(runs.start(house.settings, "canary-erasure", {}))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert "nothing of the erased canary in" in run["state"]["message"]
    assert "nobody could look" not in run["state"]["message"], "Prefect's database is ours"
    body = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["canary"]}}}
    [artifact] = house.api("POST", "/artifacts/filter", json=body)
    assert json.loads(artifact["data"]) == [{"where": "nowhere", "rows or files": 0}]
    assert len(house.there("")) == before, "nothing was published"
    left = await rows(house.store, "SELECT 1 FROM connection WHERE name = 'canary'")
    assert left == []
