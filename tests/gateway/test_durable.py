"""What was answered with 2xx is there, though the gateway is killed at that very moment."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from datetime import UTC, datetime

import httpx
from sqlmodel import select

from clickpost.hooks import new_secret
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from clickpost.store.tables import Notice
from clickpost.telling import signed


async def test_a_gateway_killed_right_after_its_answers_has_lost_none(
    settings: Settings, store: Store, database_url: str
) -> None:
    secret = new_secret()
    await store.add_hook(await store.workspace_id(), "cms", secret)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "CLICKPOST_HOME": str(settings.home),
        "CLICKPOST_DATABASE_URL": database_url,
        "CLICKPOST_LOG_LEVEL": "ERROR",
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    command = (sys.executable, "-m", "deployments.gateway", "--port", str(port))
    gateway = await asyncio.create_subprocess_exec(*command, env=environment)
    accepted: list[str] = []

    async def sent(http: httpx.AsyncClient, line: int) -> None:
        """Send one call after the other, until nobody answers; the twentieth 2xx of all kills."""
        number = 0
        while True:
            number += 1
            headers = signed(f"msg_{line}_{number}", b"{}", secret, datetime.now(UTC))
            answer = await http.post("/hooks/cms", content=b"{}", headers=headers)
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
            if len(accepted) == 20:
                gateway.send_signal(signal.SIGKILL)

    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, timeout=20, trust_env=False) as http:
        async with asyncio.timeout(60):
            while not await well(http):
                await asyncio.sleep(0.1)
            await asyncio.gather(*(sent(http, n) for n in range(10)), return_exceptions=True)
    await gateway.wait()
    async with store.session() as session:
        kept = set((await session.scalars(select(Notice.id))).all())
    assert len(accepted) >= 20
    assert set(accepted) <= kept


async def well(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/livez")).status_code == 200
    except httpx.TransportError:
        return False
