"""On the whole stack the nightly purge counts, says so in the UI, and touches nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from deployments import runs
from tests.flows.conftest import House

TARGETS = ("bluesky/studio", "mastodon/studio", "instagram/studio", "youtube/studio")
pytestmark = pytest.mark.xdist_group("stack")


async def test_a_purge_is_a_run_with_a_report_of_counts(house: House, clip: Path) -> None:
    """What posts leave in JSON columns is in the map: else the run would fail."""
    post_id = await house.post("mapped", *TARGETS, media=(clip,), title="A title")
    house.run("publish", post_id)
    await house.settled(post_id)
    old = {"at": datetime.now(UTC) - timedelta(days=1200)}
    async with house.store.engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO ticket (id, title, status, email, opened_at, closed_at) VALUES"
                " ('ticket_canary', 'Canary title', 'closed', 'canary@example.org', :at, :at)"
            ),
            old,
        )
    run = await house.ended(runs.start(house.settings, "purge-retention", {}))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert "expired under policies that say dry_run" in run["state"]["message"]
    body = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["retention"]}}}
    [artifact] = house.api("POST", "/artifacts/filter", json=body)
    rows = json.loads(artifact["data"])
    [tickets] = [row for row in rows if row["policy"] == "tickets"]
    assert (tickets["mode"], tickets["expired"], tickets["done"]) == ("dry_run", 1, "")
    logs = house.api("POST", "/logs/filter", json={"limit": 200})
    assert "anary@" not in json.dumps([rows, logs, run])
    async with house.store.engine.begin() as connection:
        assert await connection.scalar(text("DELETE FROM ticket RETURNING 1")) == 1


async def test_a_sweep_is_a_run_with_a_report_for_whoever_is_responsible(house: House) -> None:
    run = await house.ended(runs.start(house.settings, "compliance-sweep", {}))
    assert run["state_type"] in ("COMPLETED", "FAILED"), run["state"]["message"]
    assert run["state"]["message"].split(";")[0] in ("green", "amber", "red")
    body = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["compliance"]}}}
    [artifact] = house.api("POST", "/artifacts/filter", json=body)
    page = artifact["data"]
    assert page.startswith(("# ✔ GREEN", "# ▲ AMBER", "# ✖ RED"))
    assert "| ✔ GREEN | data map |" in page
    assert "| ✔ GREEN | ledger |" in page
