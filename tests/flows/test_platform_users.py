"""On the whole stack Meta's callback ends a grant, erases the account, and says so on its page."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from clickpost.store import NewConnection
from clickpost.store.invitations import Sought
from deployments import runs
from tests.flows.conftest import House
from tests.gateway.test_inviting import signed
from tests.store.test_erasure import rows

BASE = "https://graph.instagram.com"
pytestmark = pytest.mark.xdist_group("stack")


async def test_meta_asks_and_the_account_is_erased(house: House) -> None:
    store = house.store
    app = {"client_id": "1", "client_secret": "sandbox-app-secret"}
    await store.keep_client(Sought(await store.workspace_id(), "instagram", BASE), app)
    new = NewConnection("instagram", "leaving", BASE, {"access_token": "t"}, remote_id="ig-9",
                        handle="canary.handle", app_user_id="app-9")  # fmt: skip
    row = await store.add_connection(new)
    form = signed("app-9", datetime.now(UTC) + timedelta(seconds=1))
    async with httpx.AsyncClient(base_url=house.settings.gateway_url, timeout=30) as http:
        answer = await http.post("/callbacks/instagram/data-deletion", data=form)
        assert answer.status_code == 200
        [tokens] = await rows(store, "SELECT data_key FROM connection WHERE id = :id", id=row.id)
        assert bytes(tokens.data_key) == b"", "before Meta has its answer"
        code = answer.json()["confirmation_code"]
        for _ in range(150):
            if (await store.request(code)).certificate_id is not None:
                break
            await asyncio.sleep(0.2)
        page = await http.get(answer.json()["url"])
        assert "It is done" in page.text
        assert (await http.get(f"/requests/{code}/certificate")).status_code == 200
    assert await rows(store, "SELECT 1 FROM connection WHERE id = :id", id=row.id) == []
    about = {"request": {"request_id": (await store.request(code)).id}}
    run = await house.ended(runs.start(house.settings, "handle-request", about))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert (await store.request(code)).state == "answered"
    runs_ = house.api("POST", "/flow_runs/filter", json={"limit": 200})
    assert "canary.handle" not in str(runs_)
