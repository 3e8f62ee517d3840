"""On the whole stack a verified request is carried out, certified, and in the table of all."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile

import httpx
import pytest
from sqlalchemy import text

from clickpost import exporting
from clickpost.requests import Door, Kind
from deployments import runs
from tasks import doors
from tasks.doors import Asked
from tests.flows.conftest import House

ADDRESS = "canary.request@example.org"
pytestmark = pytest.mark.xdist_group("stack")


async def test_a_verified_request_is_carried_out_and_leaves_no_address_in_prefect(
    house: House,
) -> None:
    store, workspace_id = house.store, await house.store.workspace_id()
    async with store.engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO member (id, workspace_id, name, email, email_digest, role, created_at)"
                " VALUES ('mem_req', :workspace, 'C', :email, :digest, 'publisher', now())"
            ),
            {
                "workspace": workspace_id,
                "email": ADDRESS,
                "digest": await store.address_digest(ADDRESS),
            },
        )
    row, _ = await doors.receive(
        house.settings, store, Asked(Kind.ERASURE, Door.CLI, "DE", ADDRESS)
    )
    await store.verify_request(row.id, "operator", "operator:ann")
    run = await house.ended(runs.start(house.settings, "check-requests", {}))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert "open" in run["state"]["message"]
    body = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["requests"]}}}
    [artifact] = house.api("POST", "/artifacts/filter", json=body)
    assert row.id in json.dumps(artifact["data"])
    for _ in range(300):
        found = await store.request(row.id)
        if found.state in ("certified", "answered"):
            break
        await asyncio.sleep(0.2)
    assert found.certificate_id is not None, found.state
    async with store.engine.connect() as connection:
        query = text("SELECT count(*) FROM member WHERE id = 'mem_req'")
        assert await connection.scalar(query) == 0
    said = [
        house.api("POST", f"/{what}/filter", json={"limit": 200}) for what in ("logs", "artifacts")
    ]
    said.append(house.api("POST", "/flow_runs/filter", json={"limit": 200}))
    assert "canary.request" not in json.dumps(said)
    # This stack has no mail server: nobody is to be told.
    await store.answer_request(row.id, "done")
    await store.request_told(row.id)


async def test_whoever_asks_for_access_finds_an_archive_and_prefect_knows_no_address(
    house: House,
) -> None:
    store, address = house.store, "canary.access@example.org"
    async with store.engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO member (id, workspace_id, name, email, email_digest, role, created_at)"
                " VALUES ('mem_access', :workspace, 'C', :email, :digest, 'publisher', now())"
            ),
            {
                "workspace": await store.workspace_id(),
                "email": address,
                "digest": await store.address_digest(address),
            },
        )
    row, _ = await doors.receive(house.settings, store, Asked(Kind.ACCESS, Door.CLI, "DE", address))
    await store.verify_request(row.id, "operator", "operator:ann")
    run = await house.ended(runs.start(house.settings, "export-subject", {"request_id": row.id}))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert "2 rows of 2 tables" in run["state"]["message"]
    found = exporting.parcel(house.settings.media_root, row.id)
    assert found is not None
    link = exporting.link(house.settings.gateway_url, store.vault.derived("export-links"), found)
    fetched = await asyncio.to_thread(httpx.get, link)
    with zipfile.ZipFile(io.BytesIO(fetched.raise_for_status().content)) as made:
        assert address in made.read("data/member.json").decode()
    said = [
        house.api("POST", f"/{what}/filter", json={"limit": 200})
        for what in ("logs", "artifacts", "flow_runs")
    ]
    assert "canary.access" not in json.dumps(said)
    # This stack has no mail server: nobody is to be told.
    await store.answer_request(row.id, "done")
    await store.request_told(row.id)
