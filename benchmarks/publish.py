"""Posts sent now beside trivial flow runs on the same worker; 500 deliveries due at one second."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import psutil
from rich.console import Console

from benchmarks import _house
from benchmarks._house import House
from benchmarks._show import show
from cli._publishing import tags_of
from clickpost.settings import PROJECT
from deployments import runs
from deployments.stack import Stack
from tasks import _wiring, preparing, sending

#: Runs in one round; rounds alternate between floor and product, so that noise hits both.
RUNS, ROUNDS = 60, 3
SPIKE = 500
_TEXTS = ("bluesky/studio", "mastodon/studio")
_err = Console(stderr=True)


def main(*, as_json: bool) -> None:
    """Measure on a stack of its own."""
    with (
        _house.unlimited_policies(),
        _house.settings() as given,
        _house.stack(given) as stack,
    ):
        _register()
        show("publish", asyncio.run(_measured(stack)), as_json=as_json)


def _register() -> None:
    """Make Prefect know the trivial flow, in a process of its own as the stack does it."""
    from clickpost.settings import Settings

    environment = {"PREFECT_API_URL": runs.api_url(Settings()), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "benchmarks.trivial"]
    subprocess.run(command, check=True, env={**environment, "PATH": ""}, stdout=subprocess.DEVNULL)


async def _measured(stack: Stack) -> list[dict[str, Any]]:
    async with _house.house(stack.settings) as house:
        floors, posts = [], []
        worker = stack.processes.running("worker")
        assert worker is not None
        await _round(house, "trivial", [({}, [])] * 10)  # Warm up.
        used = 0.0
        for number in range(ROUNDS):
            _say(f"round {number + 1} of {ROUNDS}: {RUNS} trivial runs, then {RUNS} posts")
            floors.append(await _round(house, "trivial", [({}, [])] * RUNS))
            made = [await house.post(f"now {number} {one}", _TEXTS[0]) for one in range(RUNS)]
            before = _cpu(worker)
            given = [
                ({"post": {"post_id": post_id}}, await tags_of(house.store, post_id))
                for post_id in made  # As `clickpost publish` starts them.
            ]
            posts.append(await _round(house, "publish", given))
            used += _cpu(worker) - before
        floor, rate = median(floors), median(posts)
        rows = [
            {
                "measure": "posts a minute, one flow run each",
                "value": f"{rate:.0f}",
                "floor": f"{floor:.0f} trivial runs",
                "ratio": f"{rate / floor:.2f}",
                "aim": "≥ 0.6 and ≥ 150 a minute",
            },
            {
                "measure": "worker's processor seconds for each post",
                "value": f"{used / (RUNS * ROUNDS):.3f}",
            },
        ]
        rows += await _spike(house, worker)
        await _wiring.close()
        return rows


async def _round(house: House, flow: str, given: list[tuple[dict[str, Any], list[str]]]) -> float:
    """Start one run for each set of parameters and tags; return how many ended in a minute."""
    began = monotonic()
    gate = asyncio.Semaphore(8)

    async def start(parameters: dict[str, Any], tags: list[str]) -> str:
        async with gate:
            return await asyncio.to_thread(runs.start, house.settings, flow, parameters, tags=tags)

    started = list(await asyncio.gather(*(start(*one) for one in given)))

    async def ended() -> bool:
        asked = {"flow_runs": {"id": {"any_": started}, "state": {"type": {"any_": ["COMPLETED"]}}}}
        return int(await house.prefect("/flow_runs/count", asked)) == len(started)

    await _until(ended, 600)
    return len(given) * 60 / (monotonic() - began)


async def _spike(house: House, worker: psutil.Process) -> list[dict[str, Any]]:
    moment = (datetime.now(UTC) + timedelta(seconds=75)).replace(microsecond=0)
    _say(f"preparing {SPIKE} deliveries due at {moment:%H:%M:%S}")
    gate = asyncio.Semaphore(8)

    async def ready(number: int) -> str:
        async with gate:
            post_id = await house.post(f"spike {number}", *_TEXTS, at=moment)
            for delivery_id in await preparing.compose(post_id):
                await sending.ready(delivery_id)
            return post_id

    await asyncio.gather(*(ready(number) for number in range(SPIKE // len(_TEXTS))))
    at = moment.isoformat()
    await asyncio.to_thread(
        runs.start, house.settings, "publish-due", {"moment": {"at": at}}, at=moment
    )
    late = (datetime.now(UTC) - moment).total_seconds()
    if late > 0:
        _say(f"preparing took {late:.0f} s too long; the spike counts from now")
        moment = datetime.now(UTC)
    before = _cpu(worker)

    async def recorded() -> bool:
        return (await _spiked(house))[1] == SPIKE

    await _until(recorded, 300)
    received, _ = await _spiked(house)
    last = max(row["received_at"] for row in received) - moment.timestamp()
    verdicts = await _last_verdict(house)
    return [
        {
            "measure": f"{SPIKE} due at one second: seconds until all were received",
            "value": f"{last:.1f}",
            "aim": "≤ 30",
        },
        {
            "measure": "… until all verdicts were recorded",
            "value": f"{(verdicts - moment).total_seconds():.1f}",
        },
        {
            "measure": "… received twice",
            "value": str(len(received) - SPIKE),
            "aim": "0",
        },
        {
            "measure": "… worker's processor seconds for each delivery",
            "value": f"{(_cpu(worker) - before) / SPIKE:.3f}",
        },
        {"measure": "worker's peak memory, MB", "value": f"{_peak(worker) / 1e6:.0f}"},
    ]


async def _spiked(house: House) -> tuple[list[dict[str, Any]], int]:
    received = [row for row in await house.received() if row["text"].startswith("spike")]
    async with house.store.engine.connect() as connection:
        answer = await connection.exec_driver_sql(
            "SELECT count(*) FROM delivery WHERE due_at IS NOT NULL AND state = 'live'"
        )
        return received, int(answer.scalar_one())


async def _last_verdict(house: House) -> datetime:
    async with house.store.engine.connect() as connection:
        answer = await connection.exec_driver_sql(
            "SELECT max(live_at) FROM delivery WHERE due_at IS NOT NULL"
        )
        last: datetime = answer.scalar_one()
        return last


async def _until(holds: Callable[[], Awaitable[bool]], within: float) -> None:
    end = monotonic() + within
    while not await holds():
        if monotonic() > end:
            raise SystemExit(f"not done after {within:.0f} s")
        await asyncio.sleep(0.2)


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _peak(process: psutil.Process) -> int:
    """Return the most bytes that a process ever held (Linux), else what it holds now."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return int(process.memory_info().rss)
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024


def _say(words: str) -> None:
    _err.print(words, style="dim", highlight=False)
