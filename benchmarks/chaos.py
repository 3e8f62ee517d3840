"""Posts under every misfortune at once; the platforms' own record says what came of them.

The sandbox drops connections after it has committed, answers 5xx after committing, limits rates,
ends tokens, fails processing, and sends SIGKILL to the worker whose request has just arrived:
nothing in the product knows that it is tested. PostgreSQL and the Prefect server are killed and
started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import httpx
import psycopg
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random

from benchmarks import _house
from benchmarks._house import House
from benchmarks._show import show
from cli._publishing import started
from clickpost.delivery import SETTLED, State
from clickpost.draft import MediaItem, PostFile
from clickpost.errors import ClickPostError, Unavailable
from clickpost.media import Cache, samples
from clickpost.store import DeliveryLine
from connectors._api import client
from deployments.postgres import Postgres
from deployments.stack import Stack
from tasks import intake

#: Where a post goes, and at which calls of that platform something may go wrong.
STEPS = {
    "bluesky": ("put_record", "upload_blob"),
    "mastodon": ("status", "media", "list_statuses"),
    "instagram": ("publish", "container", "container_status"),
    "youtube": ("init", "bytes", "videos_list"),
    "x": ("create", "append", "list_posts"),
}
#: What may go wrong, and how likely at each call.
FAULTS = {
    "drop_after": 0.05,
    "error_after": 0.05,
    "drop_before": 0.03,
    "server_error": 0.04,
    "rate_limit": 0.03,
    "slow": 0.03,
    "garbage": 0.02,
    "expire_token": 0.01,
    "kill_before": 0.006,
    "kill_after": 0.006,
}
FAILS_PROCESSING = {"mastodon": "media", "instagram": "upload", "youtube": "bytes", "x": "finalize"}
#: What must not happen.
BAD = ("duplicates", "lost", "stuck", "wrong verdicts")
#: A post whose platforms answer is out this many seconds after its moment.
LATE = 60.0
_err = Console(stderr=True)


@dataclass(frozen=True)
class Plan:
    """What is to happen: `posts` to every platform, misfortunes drawn from `seed`.

    `harsh` multiplies how likely each is; `patience`: seconds that everything has to settle in
    once they are over.
    """

    posts: int = 200
    seed: int = 1
    outages: int = 2
    harsh: float = 1.0
    patience: float = 420.0


@dataclass
class Sent:
    """What was asked of the engine: post id and moment by number; `None` is at once."""

    ids: dict[int, str] = field(default_factory=dict)
    due: dict[int, datetime] = field(default_factory=dict)


def main(*, as_json: bool, posts: int = 200, seed: int = 1) -> int:
    """Measure on a stack of its own; return 1 where anything was doubled, lost, wrong or stuck."""
    # What piled up while everything went wrong takes its time, too.
    rows, clean = run(Plan(posts, seed, outages=max(2, posts // 100), patience=420 + 1.5 * posts))
    show("chaos", rows, as_json=as_json)
    return 0 if clean else 1


def run(plan: Plan) -> tuple[list[dict[str, Any]], bool]:
    """Carry out a plan; return the rows of its table, and whether all is as it should be."""
    with (
        _deadly(),
        _house.unlimited_policies(),
        _house.settings() as given,
        _house.stack(given) as stack,
    ):
        return asyncio.run(_carried_out(plan, stack))


@contextlib.contextmanager
def _deadly() -> Iterator[None]:
    """Let the sandbox that is started now kill."""
    os.environ["SANDBOX_MAY_KILL"] = "1"
    try:
        yield
    finally:
        del os.environ["SANDBOX_MAY_KILL"]


async def _carried_out(plan: Plan, stack: Stack) -> tuple[list[dict[str, Any]], bool]:
    rng = Random(plan.seed)
    async with _house.house(stack.settings) as house:
        sent, world = Sent(), Misfortunes(stack)
        await _ordered(house, plan, rng)
        async with world.going_on(), _owned(house):
            outages = asyncio.create_task(world.outages(plan, sent))
            await _taken_in(house, plan, rng, sent)
            await outages
            last = max(sent.due.values())
            await asyncio.sleep(max(0.0, (last - datetime.now(UTC)).total_seconds()) + 15)
            await house.http.delete(f"{house.sandbox}/control/misbehave")
            took = await _settled(house, sent, plan.patience)
        return await _counted(house, sent, world, took)


async def _ordered(house: House, plan: Plan, rng: Random) -> None:
    """Tell the sandbox beforehand at which calls what is to go wrong."""
    for platform, steps in STEPS.items():
        for step in steps:
            await _orders(house, platform, step, plan, rng)
        failing = FAILS_PROCESSING.get(platform, "")
        for _ in range(-(-plan.posts // 40) if failing else 0):
            order = {"platform": platform, "what": "fail_processing", "step": failing}
            await _order(house, order | {"skip": rng.randrange(plan.posts)})
    _say(f"{plan.posts} posts to {len(STEPS)} platforms, seed {plan.seed}")


async def _orders(house: House, platform: str, step: str, plan: Plan, rng: Random) -> None:
    shares = [plan.harsh * share for share in FAULTS.values()]
    for number in range(plan.posts):
        what = rng.choices(["", *FAULTS], [1 - sum(shares), *shares])[0]
        if what:
            order = {"platform": platform, "step": step, "what": what, "seconds": 3.0}
            await _order(house, order | {"skip": number})


async def _order(house: House, order: dict[str, Any]) -> None:
    answer = await house.http.post(f"{house.sandbox}/control/misbehave", json=order)
    answer.raise_for_status()


class Misfortunes:
    """What befalls our own house, and who puts it right, as a service manager does."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.killed = 0
        self.restarts: Counter[str] = Counter()
        part = next(one for one in stack.parts(sandbox=False) if one.name == "worker")
        second = (*part.command, "--name", "second")
        self.workers = (part, replace(part, name="worker-2", command=second))

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Keep two workers alive for as long as this lasts."""
        keeping = asyncio.create_task(self._kept())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.to_thread(self.stack.processes.stop, "worker-2")

    async def _kept(self) -> None:
        first = {part.name for part in self.workers}
        while True:
            for part in self.workers:
                if self.stack.processes.running(part.name) is None:
                    self.killed += part.name not in first or part.name == "worker"
                    first.discard(part.name)
                    await asyncio.to_thread(self.stack.processes.start, part)
            await asyncio.sleep(0.3)

    async def outages(self, plan: Plan, sent: Sent) -> None:
        """Kill PostgreSQL and the Prefect server, in turn, spread over the intake."""
        for number in range(plan.outages):
            until = plan.posts * (number + 1) / (plan.outages + 1)
            while len(sent.ids) < until:
                await asyncio.sleep(0.2)
            await (self._database_away() if number % 2 == 0 else self._prefect_away())

    async def _database_away(self) -> None:
        _say("PostgreSQL is killed, and back after 5 s")
        server = Postgres(self.stack.home)
        if (pid := server.pid()) is not None:
            os.kill(pid, signal.SIGQUIT)  # An immediate shutdown: it recovers from its log.
        await asyncio.sleep(5)
        await asyncio.to_thread(server.start)
        self.restarts["PostgreSQL"] += 1

    async def _prefect_away(self) -> None:
        _say("the Prefect server is killed, and back after 5 s")
        part = next(one for one in self.stack.parts(sandbox=False) if one.name == "prefect")
        if process := self.stack.processes.running("prefect"):
            process.kill()
            process.wait(5)
        await asyncio.sleep(5)
        process = await asyncio.to_thread(self.stack.processes.start, part)
        await asyncio.to_thread(self.stack.processes.wait, part, process, lambda: None)
        self.restarts["Prefect server"] += 1


@contextlib.asynccontextmanager
async def _owned(house: House) -> AsyncIterator[None]:
    """Connect again what lost its grant, as an owner does who is told of it."""

    async def watching() -> None:
        while True:
            await asyncio.sleep(5)
            # The platforms misbehave towards an owner as well; the next look is soon.
            with contextlib.suppress(
                ClickPostError, SQLAlchemyError, psycopg.Error, httpx.HTTPError
            ):
                if any(row.status != "active" for row in await house.store.connections()):
                    await house.connect()

    task = asyncio.create_task(watching())
    try:
        yield
    finally:
        task.cancel()


async def _taken_in(house: House, plan: Plan, rng: Random, sent: Sent) -> None:
    """Hand in all posts, as a client does that repeats a request until it has an answer."""
    with tempfile.TemporaryDirectory(prefix="clickpost-chaos-") as folder:
        clip = samples.clip(Path(folder) / "clip.mov", seconds=4, size="640x360", fps=30)
        gate = asyncio.Semaphore(4)

        async def one(number: int, due: datetime | None) -> None:
            async with gate:
                await _handed_in(house, plan, number, clip, due, sent)

        draws = [rng.random() for _ in range(plan.posts)]
        tasks = []
        for number, draw in enumerate(draws):
            ahead = timedelta(seconds=5 + int(draw * 100))
            due = datetime.now(UTC).replace(microsecond=0) + ahead if draw < 0.5 else None
            tasks.append(asyncio.create_task(one(number, due)))
            await asyncio.sleep(0.3)
        await asyncio.gather(*tasks)


async def _handed_in(
    house: House, plan: Plan, number: int, clip: Path, due: datetime | None, sent: Sent
) -> None:
    post = PostFile(
        text=f"chaos {plan.seed}-{number:05d}: the tide comes in",
        title=f"Tide {number}",
        media=[MediaItem(file=str(clip), alt="boats in a harbour")],
        to=[f"{platform}/studio" for platform in STEPS],
        key=f"chaos-{plan.seed}-{number}",
        at=due,
    )
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((Unavailable, SQLAlchemyError, psycopg.Error, OSError)),
        wait=wait_random(0.2, 1.5),
        stop=stop_after_delay(120),
        reraise=True,
    ):
        with attempt:
            to = await intake.targets(house.store, post.to)
            looked = await intake.look(post, Path())
            cache = Cache(house.settings.media_root)
            made = await intake.take_in(house.store, cache, post, looked, to)
            sent.ids[number] = made.post_id
            sent.due.setdefault(number, due or datetime.now(UTC))
            # From here on the engine alone is responsible, whether or not Prefect hears of it.
            with contextlib.suppress(Unavailable, httpx.HTTPError):
                await started(house.settings, house.store, made.post_id, due)


async def _settled(house: House, sent: Sent, patience: float) -> float:
    """Wait until nothing moves any more; return the seconds that it took."""
    began = monotonic()
    told = 0.0
    while monotonic() - began < patience:
        with contextlib.suppress(SQLAlchemyError, psycopg.Error):
            open_ = [line for line in await _lines(house, sent) if not _is_over(line)]
            if not open_:
                break
            if monotonic() - told > 20:
                told = monotonic()
                states = Counter(line.state.value for line in open_)
                _say(f"still open: {', '.join(f'{n} {name}' for name, n in states.items())}")
        await asyncio.sleep(max(1.0, len(sent.ids) / 100))  # Each look costs a query a post.
    return monotonic() - began


def _is_over(line: DeliveryLine) -> bool:
    return (line.state in SETTLED and line.state is not State.HELD) or _is_asked(line)


def _is_asked(line: DeliveryLine) -> bool:
    return line.state is State.UNKNOWN and (line.who_acts or "") == "an operator"


async def _lines(house: House, sent: Sent) -> list[DeliveryLine]:
    found = []
    for post_id in sent.ids.values():
        found += await house.store.lines(post_id)
    return found


async def _counted(
    house: House, sent: Sent, world: Misfortunes, took: float
) -> tuple[list[dict[str, Any]], bool]:
    """Compare what the database says with what the platforms have."""
    async with client() as http:
        there = _there((await http.get(f"{house.sandbox}/control/posts")).json())
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    late: list[float] = []
    failed: Counter[str] = Counter()
    numbers = {post_id: number for number, post_id in sent.ids.items()}
    for line in await _lines(house, sent):
        number = numbers[line.post_id]
        received = there[number, line.platform]
        verdict = _verdict(line, len(received))
        tally[line.platform][verdict] += 1
        tally[line.platform]["duplicates"] += max(0, len(received) - 1)
        if verdict in BAD or len(received) > 1:
            await _explained(house, line, verdict, len(received))
        if verdict == "failed honestly":
            failed[_told(line)] += 1
        if received:
            late.append(min(received) - sent.due[number].timestamp())
    rows = _rows(tally, late, failed)
    rows.append({"measure": "workers killed", "value": str(world.killed)})
    rows += [
        {"measure": f"{name} killed", "value": str(times)}
        for name, times in sorted(world.restarts.items())
    ]
    rows.append({"measure": "seconds to settle after the last misfortune", "value": f"{took:.0f}"})
    return rows, not any(counts[name] for counts in tally.values() for name in BAD)


async def _explained(house: House, line: DeliveryLine, verdict: str, copies: int) -> None:
    """Say on stderr what is known of a delivery that is not as it should be."""
    _say(f"{verdict}: {line.post_id} {line.ref} is {line.state} ({line.reason}), {copies} there")
    for one in await house.store.attempts_of(line.id):
        took = f"{one.started_at:%H:%M:%S} {one.intent.get('step', 'send')}"
        _say(f"  attempt {one.number}: {took}, {one.verdict}, {one.status} {one.code}")
    _say(f"  its remote id: {line.remote_id}")


def _there(posts: Sequence[dict[str, Any]]) -> dict[tuple[int, str], list[float]]:
    """Return by post and platform when each copy was received; what failed there is not there."""
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for row in posts:
        match = re.match(r"chaos \d+-(\d{5})", row["text"])
        if match and not row["deleted"] and not row.get("failure"):
            found[int(match[1]), row["platform"]].append(float(row["received_at"]))
    return found


def _verdict(line: DeliveryLine, copies: int) -> str:
    """Judge one delivery by what is really there."""
    if _is_asked(line):
        return "asked of an operator"
    if not _is_over(line):
        return "stuck"
    if line.state is State.LIVE:
        return "live" if copies else "wrong verdicts"
    if copies:
        return "wrong verdicts"
    return "failed honestly" if line.state is State.FAILED and line.reason else "lost"


def _told(line: DeliveryLine) -> str:
    return f"{line.platform}: {re.sub(r'[0-9]+', 'N', line.reason or '')[:70]}"


def _rows(
    tally: dict[str, Counter[str]], late: list[float], failed: Counter[str]
) -> list[dict[str, Any]]:
    total: Counter[str] = sum(tally.values(), Counter())
    zero = set(BAD)
    order = ("live", *sorted(zero), "asked of an operator", "failed honestly")
    rows: list[dict[str, Any]] = []
    for name in order:
        each = ", ".join(f"{platform} {tally[platform][name]}" for platform in STEPS)
        row = {"measure": name, "value": f"{total[name]} ({each})"}
        rows.append(row | ({"aim": "0"} if name in zero else {}))
    rows += [{"measure": f"… {why}", "value": str(times)} for why, times in failed.most_common()]
    behind = sorted(late)
    if behind:
        tardy = sum(seconds > LATE for seconds in behind)
        rows.append({"measure": f"out more than {LATE:.0f} s late", "value": str(tardy)})
        half, most = behind[len(behind) // 2], behind[-1]
        rows.append(
            {"measure": "seconds late, median and most", "value": f"{half:.1f}, {most:.1f}"}
        )
    return rows


def _say(words: str) -> None:
    _err.print(words, style="dim", highlight=False)
