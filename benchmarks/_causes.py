"""Causes of each kind of trigger, by real means, and how long after each its first task began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic, time
from typing import Any
from uuid import uuid4

from PIL import Image

from benchmarks import _places
from benchmarks._house import House
from benchmarks._places import Blog
from clickpost.telling import signed
from deployments import runs

ROUNDS = 15
#: Nobody may look at a feed more often than each minute: so there are as many as give ROUNDS.
FEED_EVERY, FEEDS = 60, 5
MAIL_EVERY = 10
#: A file is seen at once; so long nobody has written to one that is complete.
FILE_EVERY, SETTLED = 10, 0.5
ACCOUNT = "bluesky/studio"
_SEED = 7
_SILENCE = 10.0


@dataclass(frozen=True)
class Places:
    """Where something arrives."""

    blogs: Sequence[Blog]
    folder: Path
    imap_port: int

    def whens(self) -> dict[str, str]:
        """Return what the triggers on arrivals wait for, by their names."""
        return {
            **{
                f"bench-feed-{number}": f"{{feed: '{blog.url}', every: {FEED_EVERY} s, first: all}}"
                for number, blog in enumerate(self.blogs)
            },
            "bench-folder": f"{{folder: '{self.folder}', every: 1 h,"
            f" settled: {SETTLED * 1000:.0f} ms}}",
            "bench-mailbox": f"{{mailbox: 127.0.0.1, port: {self.imap_port}, login: bench,"
            f" security: none, every: {MAIL_EVERY} s, first: all}}",
        }


@contextmanager
def places(folder: Path) -> Iterator[Places]:
    """Yield feeds, a folder and a mailbox, all of them empty."""
    outbox = folder / "outbox"
    outbox.mkdir()
    with ExitStack() as held:
        blogs = [held.enter_context(_places.blog()) for _ in range(FEEDS)]
        yield Places(blogs, outbox, held.enter_context(_places.imap_server(folder)))


@dataclass(frozen=True)
class _Run:
    """A run that a trigger started: when it was made, and when its first task began."""

    made: float
    began: float


async def latencies(house: House, secret: str, there: Places) -> list[dict[str, Any]]:
    """Cause, again and again and all kinds at once, what starts a run; return how long it took."""
    began = datetime.now(UTC)
    floor = await _bare_runs(house)
    hooked, told, silent, filed, mailed, *fed = await asyncio.gather(
        _webhooks(house, secret),
        _events(house),
        _silences(house),
        _arrivals(partial(_put_file, there.folder), FILE_EVERY, ROUNDS, 2),
        _arrivals(partial(_put_mail, there.imap_port), MAIL_EVERY, ROUNDS, 3),
        *(
            _arrivals(partial(_put_entry, blog), FEED_EVERY, ROUNDS // FEEDS, 4 + number)
            for number, blog in enumerate(there.blogs)
        ),
    )
    kinds = {
        "webhook received": await _after(house, "bench-webhook", hooked),
        "event emitted": await _after(house, "bench-event", told),
        "schedule due": await _late(house, began),
        "absence complete": await _after(house, "bench-absence", silent),
        f"file written, and {SETTLED} s untouched": await _after(house, "bench-folder", filed),
    }
    rows = [_row(kind, took, floor) for kind, took in kinds.items()]
    feeds = {f"bench-feed-{number}": causes for number, causes in enumerate(fed)}
    for kind, every, causes in (
        ("mail arrived", MAIL_EVERY, {"bench-mailbox": mailed}),
        ("feed entry published", FEED_EVERY, feeds),
    ):
        rows += await _looked_for(house, kind, every, causes, floor)
    return rows


def _row(kind: str, took: Sequence[float], floor: float) -> dict[str, Any]:
    half, most = share(took, 0.5), share(took, 0.95)
    return {
        "measure": f"{kind}: seconds to its first task, p50, p95 of {len(took)}",
        "value": f"{half:.2f}, {most:.2f}",
        "floor": f"{floor:.2f} s: a run asked for by API",
        "ratio": f"{half / floor:.1f}",
        "aim": "p95 ≤ 3 s",
    }


async def _looked_for(
    house: House, kind: str, every: int, causes: Mapping[str, Sequence[float]], floor: float
) -> list[dict[str, Any]]:
    """Return the rows of a kind that is looked for: from the cause, and beyond the interval."""
    whole: list[float] = []
    beyond: list[float] = []
    for trigger, moments in causes.items():
        fired = await _fired(house, trigger, moments)
        looks = await _looks(house, trigger)
        whole += [run.began - moment for run, moment in zip(fired, moments, strict=True)]
        beyond += [run.began - max(at for at, began in looks if began <= run.made) for run in fired]
    return [
        {
            "measure": f"{kind}, a look each {every} s: seconds to its first task,"
            f" p50, p95 of {len(whole)}",
            "value": f"{share(whole, 0.5):.2f}, {share(whole, 0.95):.2f}",
            "floor": f"{every / 2:.0f}, {0.95 * every:.0f} s: the wait for the look alone",
            "aim": f"p95 ≤ {every} + 3 s",
        },
        {
            "measure": "… of these, from the due moment of the look",
            "value": f"{share(beyond, 0.5):.2f}, {share(beyond, 0.95):.2f}",
            "floor": f"{floor:.2f} s: a run asked for by API",
            "ratio": f"{share(beyond, 0.5) / floor:.1f}",
            "aim": "p95 ≤ 3 s",
        },
    ]


async def _bare_runs(house: House) -> float:
    """Return the median seconds from asking Prefect for a run by its API to its first task."""
    post_id = await house.post("bare", ACCOUNT, at=datetime.now(UTC) + timedelta(days=30))
    took = []
    for _ in range(5):
        asked = time()
        given = {"post": {"post_id": post_id}}
        run_id = await asyncio.to_thread(runs.start, house.settings, "prepare", given)
        took.append(await _begun(house, run_id) - asked)
    return share(took, 0.5)


# Causes


async def _webhooks(house: House, secret: str) -> list[float]:
    rng, causes = Random(_SEED), []
    for number in range(ROUNDS):
        await asyncio.sleep(rng.uniform(4, 10))
        body = b'{"bench": %d}' % number
        headers = signed(f"single {number}".replace(" ", "-"), body, secret, datetime.now(UTC))
        causes.append(time())
        url = f"{house.settings.gateway_url}/hooks/bench"
        (await house.http.post(url, content=body, headers=headers)).raise_for_status()
    return causes


async def _events(house: House) -> list[float]:
    rng, causes = Random(_SEED + 1), []
    for _ in range(ROUNDS):
        await asyncio.sleep(rng.uniform(4, 10))
        causes.append(time())
        await _emit(house, "post.gone")
    return causes


async def _silences(house: House) -> list[float]:
    """Break the silence, then let it be: it is complete ten seconds after."""
    causes = []
    for _ in range(ROUNDS // 2):
        causes.append(time() + _SILENCE)
        await _emit(house, "post.edited")
        await asyncio.sleep(_SILENCE + 4)
    return causes


async def _emit(house: House, event: str) -> None:
    said = {
        "event": event,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": "clickpost.delivery.dlv_bench"},
        "id": str(uuid4()),
    }
    url = f"{runs.api_url(house.settings)}/events"
    (await house.http.post(url, json=[said])).raise_for_status()


async def _arrivals(
    put: Callable[[int], None], every: float, rounds: int, seed: int
) -> list[float]:
    """Let one thing arrive in each interval, at any moment of it."""
    rng, causes = Random(_SEED + seed), []
    for number in range(rounds):
        before = rng.uniform(0, every)
        await asyncio.sleep(before)
        await asyncio.to_thread(put, number)
        causes.append(time())
        await asyncio.sleep(every - before)
    return causes


def _put_file(folder: Path, number: int) -> None:
    """Write a picture; each is another one, else they would be one asset."""
    Image.new("RGB", (320, 240), (number, 128, 128)).save(folder / f"{number:02}.png")


def _put_mail(port: int, number: int) -> None:
    _places.put_mail(port, f"{number}@bench.example.org")


def _put_entry(blog: Blog, number: int) -> None:
    blog.entries.append(f"entry-{number}")


# What they started


async def _after(house: House, trigger: str, causes: Sequence[float]) -> list[float]:
    """Return the seconds from each cause to the first task of the first run after it."""
    await asyncio.sleep(8)
    begins = sorted(run.began for run in await _started(house, trigger))
    took = []
    for cause in causes:
        later = [at for at in begins if at >= cause - 0.5]
        if not later:
            raise SystemExit(f"{trigger} did not start a run for one of its causes")
        took.append(later[0] - cause)
        if trigger != "bench-absence":
            begins.remove(later[0])
    return took


async def _fired(house: House, trigger: str, causes: Sequence[float]) -> list[_Run]:
    """Return the run of each cause; what arrives first is taken first."""
    end = monotonic() + FEED_EVERY + 30
    while len(found := await _started(house, trigger)) < len(causes):
        if monotonic() > end:
            raise SystemExit(f"{trigger} did not start a run for one of its causes")
        await asyncio.sleep(1)
    if len(found) > len(causes):
        raise SystemExit(f"{trigger} started {len(found)} runs for {len(causes)} causes")
    return sorted(found, key=lambda run: run.made)


async def _late(house: House, since: datetime) -> list[float]:
    found = await _runs_of(house, "bench-schedule")
    took = []
    for run in found:
        due = datetime.fromisoformat(run["expected_start_time"])
        if run["state_type"] == "COMPLETED" and due > since:
            took.append(await _begun(house, run["id"]) - due.timestamp())
    return took


async def _started(house: House, trigger: str) -> list[_Run]:
    found = await _runs_of(house, trigger)
    return [
        _Run(_seconds(one["created"]), await _begun(house, one["id"]))
        for one in found
        if one["state_type"] == "COMPLETED"
    ]


async def _looks(house: House, trigger: str) -> list[tuple[float, float]]:
    """Return when each look of a trigger was due, and when it began."""
    found = await _runs_of(house, trigger, "take-arrivals")
    return [
        (_seconds(one["expected_start_time"]), _seconds(one["start_time"]))
        for one in found
        if one["start_time"]
    ]


async def _runs_of(house: House, trigger: str, flow: str = "prepare") -> list[dict[str, Any]]:
    asked = {"deployments": {"name": {"any_": [trigger]}}, "flows": {"name": {"any_": [flow]}}}
    return list(await house.prefect("/flow_runs/filter", asked))


async def _begun(house: House, run_id: str) -> float:
    """Return when the first task of a run began, in seconds since 1970."""
    asked = {"flow_runs": {"id": {"any_": [run_id]}}}
    end = monotonic() + 60
    while monotonic() < end:
        rows = await house.prefect("/task_runs/filter", asked)
        moments = [one["start_time"] for one in rows if one["start_time"]]
        if moments:
            return _seconds(min(moments))
        await asyncio.sleep(0.2)
    raise SystemExit("a run has begun no task after a minute")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def share(values: Sequence[float], part: float) -> float:
    """Return the value below which a part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
