"""Posts due at random seconds: how long after its moment each request reaches the platform."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from random import Random
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks import _house
from benchmarks._house import House
from benchmarks._show import show
from deployments import runs
from tasks import _wiring, preparing, sending
from tasks.repeating import HEAD_START

RATES = (60, 180)
"""Posts a minute."""
_SEED = 11
#: How long before the first moment everything has to be prepared.
_AHEAD = timedelta(seconds=75)
_err = Console(stderr=True)


def main(*, as_json: bool) -> None:
    """Measure on a stack of its own."""
    with (
        _house.unlimited_policies(),
        _house.settings() as given,
        _house.stack(given) as stack,
    ):
        show("ontime", asyncio.run(_measured(stack.settings)), as_json=as_json)


async def _measured(given: Any) -> list[dict[str, Any]]:
    async with _house.house(given) as house:
        bare = await _bare(house)
        rows = []
        for rate in RATES:
            late = await _round(house, rate)
            rows.append(_row(rate, late, bare))
        await _wiring.close()
        return rows


async def _bare(house: House) -> float:
    """Return the median seconds of a request to the sandbox without anything of ours."""
    took = []
    for _ in range(30):
        began = perf_counter()
        await house.http.get(f"{house.sandbox}/healthz")
        took.append(perf_counter() - began)
    return sorted(took)[len(took) // 2]


async def _round(house: House, rate: int) -> list[float]:
    """Let `rate` posts fall due within a minute; return how many seconds late each arrived."""
    rng = Random(_SEED)
    first = (datetime.now(UTC) + _AHEAD).replace(microsecond=0)
    due = {number: first + timedelta(seconds=rng.randrange(60)) for number in range(rate)}
    _err.print(f"preparing {rate} posts due in the minute of {first:%H:%M:%S}", style="dim")
    gate = asyncio.Semaphore(6)

    async def ready(number: int) -> None:
        async with gate:
            text = f"ontime {rate} {number:04d}"
            post_id = await house.post(text, "bluesky/studio", at=due[number])
            for delivery_id in await preparing.compose(post_id):
                await sending.ready(delivery_id)

    await asyncio.gather(*(ready(number) for number in range(rate)))
    for moment in sorted(set(due.values())):
        at = moment.isoformat()
        given = {"moment": {"at": at}}
        begins = moment - HEAD_START
        await asyncio.to_thread(
            runs.start, house.settings, "publish-due", given, at=begins, key=f"due {at}"
        )
    if datetime.now(UTC) > first - timedelta(seconds=5):
        raise SystemExit("the machine is too slow: preparing took longer than planned")
    return await _received(house, rate, due)


async def _received(house: House, rate: int, due: dict[int, datetime]) -> list[float]:
    until = max(due.values()) + timedelta(seconds=120)
    arrived: dict[int, list[float]] = defaultdict(list)
    while len(arrived) < rate and datetime.now(UTC) < until:
        await asyncio.sleep(2)
        arrived.clear()
        for row in await house.received():
            if row["text"].startswith(f"ontime {rate} "):
                arrived[int(row["text"].split()[2])].append(float(row["received_at"]))
    missing = rate - len(arrived)
    if missing or any(len(copies) > 1 for copies in arrived.values()):
        raise SystemExit(f"{missing} posts did not arrive, or some arrived twice")
    return [copies[0] - due[number].timestamp() for number, copies in arrived.items()]


def _row(rate: int, late: list[float], bare: float) -> dict[str, Any]:
    behind = sorted(late)

    def share(part: float) -> float:
        return behind[min(len(behind) - 1, int(len(behind) * part))]

    half, most, rarest = share(0.5), share(0.95), share(0.99)
    return {
        "measure": f"{rate} due a minute: seconds from due to received, p50, p95, p99",
        "value": f"{half:.2f}, {most:.2f}, {rarest:.2f}",
        "floor": f"{bare * 1000:.0f} ms: a bare request",
        "ratio": f"{half / bare:.0f}",
        "aim": "p95 ≤ 2 s" if rate == RATES[0] else "",
    }
