"""An upgrade: older code stops first, finishes what it sends, and never meets a newer database."""

from __future__ import annotations

import asyncio
import os
import subprocess

import psycopg
import pytest

from clickpost.delivery import State
from clickpost.errors import Unavailable
from clickpost.settings import PROJECT
from deployments import runs
from deployments import stack as stacks
from deployments.stack import Stack
from tests.flows.conftest import House

pytestmark = pytest.mark.xdist_group("stacks")


async def test_a_send_that_is_going_is_finished_before_the_database_changes(
    house: House, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.order("bluesky", "slow", "put_record", seconds=2)
    post_id = await house.post("sent while an upgrade begins", "bluesky/studio")
    run = house.run("publish", post_id)
    [delivery] = await house.store.deliveries_of(post_id)
    while (await house.store.delivery(delivery.id)).state is not State.SENDING:
        await asyncio.sleep(0.01)
    before = {one.name: one.pid for one in stack.status()}
    said: list[str] = []
    monkeypatch.setattr(stacks, "is_behind", lambda url: True)
    after = {one.name: one.pid for one in stack.up(sandbox=True, say=said.append)}
    assert said[:2] == [f"stopping {one}: it runs on older code" for one in ("worker", "gateway")]
    assert {name for name in before if after[name] != before[name]} == {"worker", "gateway"}
    assert (await house.ended(run))["state_type"] == "COMPLETED"
    [attempt] = await house.store.attempts_of(delivery.id)
    assert attempt.verdict == "live"
    assert len(house.there("sent while an upgrade begins")) == 1


async def test_older_code_is_refused_by_a_newer_database_and_ends_by_itself(
    house: House, stack: Stack
) -> None:
    await house.ended(runs.start(house.settings, "tell", {}))  # The worker is up.
    before = {one.name: one.pid for one in stack.status()}
    worker = stack._worker()
    with psycopg.connect((stack.home / "database.url").read_text().strip(), autocommit=True) as db:
        version = db.execute("SELECT version_num FROM alembic_version").fetchone()
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        try:
            with pytest.raises(Unavailable, match="install the newer ClickPost"):
                stack.up(sandbox=True)
            after = {one.name: one.pid for one in stack.status()}
            done = subprocess.run(  # noqa: ASYNC221  # nothing else runs here
                worker.command,
                env=os.environ | worker.environment,
                cwd=PROJECT,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            while stack.processes.running("worker"):  # The one that runs looks now and then.
                await asyncio.sleep(0.2)
        finally:
            db.execute("UPDATE alembic_version SET version_num = %s", version)
    assert after | {"worker": None} == before | {"worker": None}  # Nobody was stopped by `up`.
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("install the newer ClickPost again")
    assert "it stops" in (stack.processes.logs / "worker.log").read_text()
    assert {one.name: one.state for one in stack.up(sandbox=True)}["worker"] == "running"
