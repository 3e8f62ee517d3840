"""From the cause to the first task running, for each kind of trigger; then a flood of webhooks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
from rich.console import Console

from benchmarks import _causes, _flood, _house
from benchmarks._causes import ACCOUNT, Places, share
from benchmarks._house import House
from benchmarks._places import PASSWORD, USER
from benchmarks._show import show
from clickpost.hooks import new_secret
from clickpost.policy.triggers import MOST_AN_HOUR
from clickpost.settings import PROJECT
from clickpost.triggers import Verdict
from deployments import runs
from deployments.stack import Stack
from tasks import _wiring, preparing, sending
from tasks.repeating import HEAD_START

CALLS = 10_000
#: Posts that fall due one by one while the flood comes, and seconds between two of them.
DUE, APART = 20, 2.0
#: How long before the first moment everything has to be prepared.
_AHEAD = timedelta(seconds=20)
_err = Console(stderr=True)

_HOOKED = "bench-webhook"
_WHENS = {
    _HOOKED: "{webhook: bench}",
    "bench-event": "{event: post.gone}",
    "bench-schedule": "{every: 10 s}",
    "bench-absence": "{no: post.edited, for: 10 s}",
}
_FILE = """kind: trigger
name: {name}
title: A benchmark's.
when: {when}
run: prepare
with: {{post: {{post_id: {post_id}}}}}
"""


def main(*, as_json: bool, calls: int = CALLS) -> int:
    """Measure on a stack of its own; return 1 where an accepted webhook got lost, else 0."""
    keys = {"MAILBOX_BENCH_USER": USER, "MAILBOX_BENCH_PASSWORD": PASSWORD}
    with (
        _house.unlimited_policies() as policies,
        _house.settings(RECEIVERS="127.0.0.1", **keys) as given,
        _causes.places(given.home) as places,
        _house.stack(given) as stack,
    ):
        rows, lost = asyncio.run(_measured(stack, policies, places, calls))
        show("triggers", rows, as_json=as_json)
    return 1 if lost else 0


async def _measured(
    stack: Stack, policies: Path, places: Places, calls: int
) -> tuple[list[dict[str, Any]], int]:
    async with _house.house(stack.settings) as house:
        secret = new_secret()
        await house.store.add_hook(await house.store.workspace_id(), "bench", secret)
        far = datetime.now(UTC) + timedelta(days=30)
        post_id = await house.post("a draft of the benchmark", ACCOUNT, at=far)
        _apply(stack, policies, post_id, _WHENS | places.whens())
        _say(f"{_causes.ROUNDS} causes of each kind, about four minutes")
        rows = await _causes.latencies(house, secret, places)
        _apply(stack, policies, post_id, {_HOOKED: _WHENS[_HOOKED]})
        flood, lost = await _flooded(house, stack, secret, calls)
        await _wiring.close()
        return [*rows, *flood], lost


def _apply(stack: Stack, policies: Path, post_id: str, whens: Mapping[str, str]) -> None:
    """Write these triggers, and no others of ours, and let Prefect agree."""
    folder = policies / "triggers"
    for path in folder.glob("bench-*.yaml"):
        path.unlink()
    for name, when in whens.items():
        text = _FILE.format(name=name, when=when, post_id=post_id)
        (folder / f"{name}.yaml").write_text(text)
    command = [sys.executable, "-m", "deployments.agreeing"]
    subprocess.run(command, cwd=PROJECT, check=True, env={**os.environ, **stack.prefect_client()})


# The flood


@dataclass
class Watched:
    """The most memory that the gateway held, in bytes, and what it held before."""

    before: int = 0
    most: int = 0
    done: bool = field(default=False)


async def _flooded(
    house: House, stack: Stack, secret: str, calls: int
) -> tuple[list[dict[str, Any]], int]:
    floor = await _bare_calls()
    calm = await _due_round(house, "calm", None)
    [pid] = [one.pid for one in stack.status() if one.name == "gateway"]
    url = f"{house.settings.gateway_url}/hooks/bench"

    async def flood() -> _flood.Flood:
        async with _watched(psutil.Process(pid)) as watched:
            came = await _flood.send(url, calls, secret)
        came.memory = watched.before, watched.most
        return came

    late, came = await _due_round(house, "flood", flood)
    assert came is not None
    began = monotonic()
    undecided = await _until_decided(house, came.accepted)
    waited = monotonic() - began
    verdicts = await _verdicts(house, came.accepted)
    before, most = came.memory
    rows = [
        {
            "measure": f"webhooks accepted a second, of {calls} at {_flood.AT_ONCE} at once",
            "value": f"{came.rate:.0f}",
            "floor": f"{floor:.0f}: bare Starlette on uvicorn, nothing kept",
            "ratio": f"{came.rate / floor:.2f}",
        },
        {
            "measure": "… seconds to an answer, p50, p99; refused (and sent again)",
            "value": f"{share(came.took, 0.5):.2f}, {share(came.took, 0.99):.2f};"
            f" {sum(came.refused.values())}",
        },
        {
            "measure": "… memory of the gateway before and at most, MB",
            "value": f"{before / 1e6:.0f}, {most / 1e6:.0f}",
        },
        {
            "measure": "… accepted and lost",
            "value": str(len(undecided)),
            "aim": "0",
        },
        {
            "measure": "… fired; left out by at_most, as is kept of each",
            "value": ", ".join(
                f"{verdicts.get(one, 0)}" for one in (Verdict.FIRED, Verdict.LEFT_OUT)
            ),
            "aim": f"at most {MOST_AN_HOUR} fired",
        },
        {"measure": "… seconds until the last one was decided", "value": f"{waited:.1f}"},
        {
            "measure": f"{DUE} posts due meanwhile: seconds late, p50, most",
            "value": f"{share(late, 0.5):.2f}, {max(late):.2f}",
            "floor": f"{share(calm[0], 0.5):.2f}, {max(calm[0]):.2f} without a flood",
            "ratio": f"{share(late, 0.5) / share(calm[0], 0.5):.1f}",
            "aim": "≤ 2 s more",
        },
    ]
    return rows, len(undecided)


async def _bare_calls() -> float:
    """Return the calls a second that a bare endpoint takes from the same sender."""
    async with _flood.bare_endpoint() as url:
        return (await _flood.send(url, 3000, new_secret())).rate


Doing = Callable[[], Awaitable[_flood.Flood]] | None


async def _due_round(
    house: House, word: str, meanwhile: Doing
) -> tuple[list[float], _flood.Flood | None]:
    """Let posts fall due one after the other, and do something meanwhile; return their lateness."""
    first = (datetime.now(UTC) + _AHEAD).replace(microsecond=0)
    due = [first + timedelta(seconds=APART * number) for number in range(DUE)]
    _say(f"{DUE} posts due from {first:%H:%M:%S} on ({word})")
    for number, at in enumerate(due):
        post_id = await house.post(f"{word} {number}", ACCOUNT, at=at)
        for delivery_id in await preparing.compose(post_id):
            await sending.ready(delivery_id)
        given = {"moment": {"at": at.isoformat()}}
        key = f"due {at.isoformat()}"
        await asyncio.to_thread(
            runs.start, house.settings, "publish-due", given, at=at - HEAD_START, key=key
        )
    if datetime.now(UTC) > first:
        raise SystemExit("the machine is too slow: preparing took longer than planned")
    await asyncio.sleep((first - datetime.now(UTC)).total_seconds())
    came = await meanwhile() if meanwhile else None
    return await _lateness(house, word, due), came


async def _lateness(house: House, word: str, due: Sequence[datetime]) -> list[float]:
    end = max(due) + timedelta(seconds=120)
    arrived: dict[int, float] = {}
    while len(arrived) < len(due):
        if datetime.now(UTC) > end:
            raise SystemExit(f"{len(due) - len(arrived)} posts did not arrive")
        await asyncio.sleep(1)
        for row in await house.received():
            said, _, number = row["text"].partition(" ")
            if said == word:
                arrived[int(number)] = float(row["received_at"])
    return [arrived[number] - at.timestamp() for number, at in enumerate(due)]


@asynccontextmanager
async def _watched(process: psutil.Process) -> Any:
    found = Watched(process.memory_info().rss)

    async def look() -> None:
        while not found.done:
            found.most = max(found.most, process.memory_info().rss)
            await asyncio.sleep(0.2)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        found.done = True
        await looking


async def _until_decided(house: House, accepted: Sequence[str]) -> list[str]:
    """Wait until each accepted call is decided; return those that are not after five minutes."""
    end = monotonic() + 300
    while left := await house.store.undecided(_HOOKED, accepted):
        if monotonic() > end:
            break
        await asyncio.sleep(0.5)
    return left


async def _verdicts(house: House, accepted: Sequence[str]) -> Mapping[str, int]:
    query = "SELECT verdict, count(*) FROM firing WHERE cause = ANY(%s) GROUP BY verdict"
    async with house.store.engine.connect() as connection:
        answer = await connection.exec_driver_sql(query, (list(accepted),))
        return {str(row[0]): int(row[1]) for row in answer.all()}


def _say(words: str) -> None:
    _err.print(words, style="dim", highlight=False)
