"""A complete file lets a look begin at once; with a Prefect that only notes what is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from deployments import folders


@dataclass
class Server:
    """Keeps the keys of the runs that were asked for."""

    keys: list[str] = field(default_factory=list)
    paused: bool = False
    away: bool = False

    async def read_deployment_by_name(self, name: str) -> Any:
        assert name == "take-arrivals/outbox"
        if self.away:
            raise httpx.ConnectError("away")
        return SimpleNamespace(id=UUID(int=1), paused=self.paused)

    async def create_flow_run_from_deployment(self, _: UUID, *, idempotency_key: str) -> None:
        if idempotency_key not in self.keys:
            self.keys.append(idempotency_key)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()

    @asynccontextmanager
    async def client() -> AsyncIterator[Server]:
        yield made

    monkeypatch.setattr(folders, "get_client", client)
    monkeypatch.setattr(folders, "GLANCE", 0.01)
    monkeypatch.setattr(folders, "POLICIES", 0.05)
    return made


@pytest_asyncio.fixture
async def outbox(server: Server, tmp_path: Path) -> AsyncIterator[Path]:
    """A folder that is watched, and had a file before."""
    policies, made = tmp_path / "policies", tmp_path / "outbox"
    (policies / "triggers").mkdir(parents=True)
    made.mkdir()
    (made / "old.png").write_bytes(b"old")
    await asyncio.sleep(0.02)
    when = f"when: {{folder: '{made}', every: 1 h, settled: 10 ms}}\nrun: alert\n"
    text = f"kind: trigger\nname: outbox\ntitle: Files.\n{when}"
    (policies / "triggers" / "outbox.yaml").write_text(text)
    watching = [asyncio.create_task(folders.watch(policies)) for _ in range(2)]
    await asyncio.sleep(0.2)
    yield made
    for one in watching:
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_each_complete_file_lets_one_look_begin_whoever_saw_it(
    server: Server, outbox: Path
) -> None:
    assert server.keys == [], "what was there before waits for the interval"
    (outbox / "half.png.part").write_bytes(b"half")
    (outbox / "new.png").write_bytes(b"new")
    await until(lambda: len(server.keys) == 1)
    (outbox / "new.png").unlink()
    (outbox / "half.png.part").rename(outbox / "half.png")
    await until(lambda: len(server.keys) == 2)
    await asyncio.sleep(0.1)
    assert len(server.keys) == 2
    assert "new" not in str(server.keys)


async def test_a_pause_is_kept_and_a_prefect_that_was_away_is_asked_again(
    server: Server, outbox: Path
) -> None:
    server.away = True
    (outbox / "new.png").write_bytes(b"new")
    await asyncio.sleep(0.1)
    server.away = False
    await until(lambda: len(server.keys) == 1)
    server.paused = True
    (outbox / "more.png").write_bytes(b"more")
    await asyncio.sleep(0.1)
    assert len(server.keys) == 1
