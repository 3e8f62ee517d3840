"""On the whole stack: the gateway says how the house is, and a webhook reaches Prefect."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from clickpost.hooks import new_secret
from clickpost.telling import signed
from tests.flows.conftest import House

pytestmark = pytest.mark.xdist_group("stack")


async def test_health_numbers_and_a_webhook_in(house: House) -> None:
    base = house.settings.gateway_url
    await house.until(lambda: house.http.get(f"{base}/healthz").status_code == 200, 60)
    assert 'clickpost_part_up{part="worker"} 1.0' in house.http.get(f"{base}/metrics").text
    secret = new_secret()
    hook = await house.store.add_hook(await house.store.workspace_id(), "cms", secret)
    try:
        headers = signed("msg_1", b"{}", secret, datetime.now(UTC))
        answer = house.http.post(f"{base}/hooks/cms", content=b"{}", headers=headers)
        assert answer.status_code == 202
        asked = {"filter": {"event": {"name": ["hook.cms"]}}}

        def heard() -> list[dict[str, Any]]:
            return list(house.api("POST", "/events/filter", json=asked)["events"])

        await house.until(lambda: bool(heard()), 20)
        [event] = heard()
        assert event["payload"]["notice_id"] == answer.json()["id"]
        assert event["resource"]["prefect.resource.id"] == f"clickpost.hook.{hook.id}"
    finally:
        await house.store.remove_hook("cms")
