"""Says running policies in Prefect's words: work pools, work queues and concurrency limits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import WorkPool, WorkQueue
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectNotFound

from clickpost.policy.folder import Kind
from clickpost.policy.load import BrokenPolicies, Report
from clickpost.policy.running import ASKED, Running
from clickpost.policy.source import Path_, Problem, Source
from deployments.registry import DEPLOYMENTS, POOL
from deployments.warm_worker import TYPE, WarmWorker
from tasks.limiting import PREFIX

KIND = Kind("running", "running", Running)
FLOWS = tuple(spec.flow.name for spec in DEPLOYMENTS)
#: So ends the description of every pool and queue that we make.
MADE = "Made by `clickpost policy apply` from running/{name}.yaml."

Facts = Mapping[str, str]

_DUE = "publish-due"
_QUEUE: Final = "/work_pools/{work_pool_name}/queues/{name}"


@dataclass(frozen=True)
class Pool:
    """A work pool as its policy wants it."""

    name: str
    description: str
    at_once: int | None

    @property
    def facts(self) -> Facts:
        """Return what is compared and shown."""
        return _pool(self.description, self.at_once)


@dataclass(frozen=True)
class Queue:
    """A work queue as its policy wants it."""

    pool: str
    name: str
    description: str
    priority: int
    at_once: int | None

    @property
    def full_name(self) -> str:
        """Return POOL/QUEUE."""
        return f"{self.pool}/{self.name}"

    @property
    def facts(self) -> Facts:
        """Return what is compared and shown."""
        return _queue(self.description, self.priority, self.at_once)


@dataclass(frozen=True)
class Limit:
    """A concurrency limit, or with a decay a rate limit, as its policy wants it."""

    name: str
    slots: int
    decay: float

    @property
    def facts(self) -> Facts:
        """Return what is compared and shown."""
        return _limit(self.slots, self.decay)


Wanted = Pool | Queue | Limit


def check(place: Path) -> Report:
    """Look at the running policies under a folder, or at one file."""
    judge = _Judge(place.is_dir() and (place / KIND.folder).exists())
    report = KIND.check(place, judge.faults)
    report.problems = sorted([*report.problems, *judge.after(report)])
    return report


def load(folder: Path) -> list[Running]:
    """Return the running policies; raise BrokenPolicies with every problem."""
    judge = _Judge(True)
    found = KIND.load(folder, judge.faults)
    if wrong := judge.after(Report()):
        raise BrokenPolicies(tuple(wrong))
    return list(found.values())


class _Judge:
    """Judges policies one after another, and what they say together."""

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self._first: dict[tuple[str, str], str] = {}
        self._sources: list[Source] = []

    def faults(self, source: Source, policy: Running) -> Iterator[Problem]:
        """Yield what is wrong in view of the flows and of the files before this one."""
        self._sources.append(source)
        ranks: dict[int, str] = {}
        for name, queue in policy.queues.items():
            place: Path_ = ("queues", name)
            if name == "default":
                yield source.problem(place, "is the name of Prefect's own queue; choose another")
            if (other := ranks.setdefault(queue.priority, name)) != name:
                said = f"{queue.priority} is the priority of {other}; each queue has its own"
                yield source.problem((*place, "priority"), said)
            for number, flow in enumerate(queue.flows):
                where = (*place, "flows", number)
                if flow not in FLOWS:
                    yield _unknown(source, where, "flow", flow, FLOWS)
                else:
                    yield from self._twice(source, where, "flow", flow)
        if policy.others is not None:
            if policy.others not in policy.queues:
                yield _unknown(source, ("others",), "queue", policy.others, policy.queues)
            yield from self._twice(source, ("others",), "others", "")
        for name in policy.limits:
            if name not in ASKED:
                yield _unknown(source, ("limits", name), "limit that is asked for", name, ASKED)
            yield from self._twice(source, ("limits", name), "limit", name)

    def _twice(self, source: Source, place: Path_, what: str, name: str) -> Iterator[Problem]:
        here = "{}:{}:{}".format(source.file, *source.place(place))
        if (earlier := self._first.setdefault((what, name), here)) != here:
            yield source.problem(place, f"is said already, in {earlier}")

    def after(self, report: Report) -> list[Problem]:
        """Return what is wrong with all of them together, where each by itself is sound."""
        if not self._whole or report.problems:
            return []
        found = []
        if ("others", "") not in self._first and self._sources:
            said = "no file says in which queue all other flows wait"
            found.append(self._sources[0].problem(("others",), said))
        pools = {source.data.get("name") for source in self._sources}
        if self._sources and POOL not in pools:
            said = f"no file is for the pool {POOL}, which `clickpost up` starts a worker for"
            found.append(self._sources[0].problem(("name",), said))
        return found


def _unknown(source: Source, place: Path_, what: str, word: str, known: Iterable[str]) -> Problem:
    near = difflib.get_close_matches(word, list(known), n=1)
    said = f"there is no {what} {word!r} (known: {', '.join(known)})"
    return source.problem(place, said, "", near[0] if near else "")


def wanted_of(policies: Sequence[Running]) -> list[Wanted]:
    """Return all that the policies want Prefect to have: pools, then queues, then limits."""
    pools = [Pool(one.name, _said(one.title, one.name), one.at_once) for one in policies]
    queues = [
        Queue(one.name, name, _said(queue.title, one.name), queue.priority, queue.at_once)
        for one in policies
        for name, queue in sorted(one.queues.items(), key=lambda pair: pair[1].priority)
    ]
    limits = [
        Limit(PREFIX + name, limit.slots, limit.decay)
        for one in policies
        for name, limit in sorted(one.limits.items())
    ]
    return [*pools, *queues, *limits]


def _said(title: str, name: str) -> str:
    return f"{title}\n\n{MADE.format(name=name)}"


@dataclass(frozen=True)
class Places:
    """In which queue the runs of each flow wait."""

    named: Mapping[str, tuple[str, str]]
    others: tuple[str, str]

    def of(self, flow: str) -> tuple[str, str]:
        """Return pool and queue of a flow."""
        return self.named.get(flow, self.others)


def places_of(policies: Sequence[Running]) -> Places:
    """Return where the runs of each flow wait."""
    named = {
        flow: (one.name, name)
        for one in policies
        for name, queue in one.queues.items()
        for flow in queue.flows
    }
    others = next((one.name, one.others) for one in policies if one.others)
    return Places(named, others)


def warnings_of(policies: Sequence[Running], worker_limit: int) -> Iterator[str]:
    """Yield where something may hold up posts that are due."""
    places = places_of(policies)
    by_name = {one.name: one for one in policies}
    pool, line = places.of(_DUE)
    lanes = by_name[pool].queues
    if lanes[line].at_once is not None:
        yield f"posts that are due wait for one another: the queue {line} has a limit"
    if any(other.priority < lanes[line].priority for other in lanes.values()):
        yield f"posts that are due wait behind others: the queue {line} is not the first one"
    if len(shared := [flow for flow in FLOWS if places.of(flow) == (pool, line)]) > 1:
        yield f"posts that are due wait with runs of {', '.join(sorted(set(shared) - {_DUE}))}"
    others = [queue.at_once for name, queue in lanes.items() if name != line]
    if None in others:
        yield f"a queue beside {line} has no limit: it can take all places of a worker"
    elif (taken := sum(one or 0 for one in others)) >= worker_limit:
        yield (
            f"the queues beside {line} may run {taken} at once, all {worker_limit} places of a"
            " worker: lower their at_once, or raise CLICKPOST_WORKER_LIMIT"
        )


@dataclass(frozen=True)
class There:
    """The pools, queues and limits that Prefect has; `waiting` are queues that are not empty."""

    pools: Mapping[str, WorkPool]
    queues: Mapping[str, WorkQueue]
    limits: Mapping[str, GlobalConcurrencyLimitResponse]
    waiting: frozenset[str]


async def there(client: PrefectClient, wanted: Sequence[Wanted]) -> There:
    """Return what Prefect has: what is wanted, and all that we once made."""
    names = {one.name for one in wanted if isinstance(one, Pool)}
    every = await client.read_work_pools(limit=200)
    pools = {one.name: one for one in every if one.name in names or is_ours(one.description)}
    queues = {}
    for pool in pools:
        for queue in await client.read_work_queues(work_pool_name=pool):
            queues[f"{pool}/{queue.name}"] = queue
    kept = {one.full_name for one in wanted if isinstance(one, Queue)}
    queues = {name: one for name, one in queues.items() if name in kept or is_ours(one.description)}
    waiting = {name for name in queues if name not in kept and await _waits(client, name)}
    found = await client.read_global_concurrency_limits(limit=200)
    limits = {one.name: one for one in found if one.name.startswith(PREFIX)}
    return There(pools, queues, limits, frozenset(waiting))


async def _waits(client: PrefectClient, name: str) -> bool:
    """Say whether a queue has runs that are not over: with the queue they would lose their line."""
    pool, _, queue = name.partition("/")
    going = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
    body = {
        "flow_runs": {"state": {"type": {"any_": going}}},
        "work_pools": {"name": {"any_": [pool]}},
        "work_pool_queues": {"name": {"any_": [queue]}},
    }
    return bool((await client.request("POST", "/flow_runs/count", json=body)).json())


def is_ours(description: str | None) -> bool:
    """Say whether `policy apply` made the pool or queue that is described so."""
    before, _, after = MADE.partition("{name}")
    last = (description or "").strip().rpartition("\n")[2]
    return last.startswith(before) and last.endswith(after)


def facts_of(found: WorkPool | WorkQueue | GlobalConcurrencyLimitResponse) -> Facts:
    """Return what is compared and shown of something that Prefect has."""
    match found:
        case WorkPool():
            return _pool(found.description or "", found.concurrency_limit)
        case WorkQueue():
            return _queue(found.description or "", found.priority or 0, found.concurrency_limit)
        case _:
            return _limit(found.limit, found.slot_decay_per_second or 0.0)


def _pool(description: str, at_once: int | None) -> Facts:
    return {"description": description, "at once": _number(at_once)}


def _queue(description: str, priority: int, at_once: int | None) -> Facts:
    return {
        "description": description,
        "priority": str(priority),
        "at once": _number(at_once),
    }


def _limit(slots: int, decay: float) -> Facts:
    return {"at once": str(slots)} if not decay else {"at most": f"{slots}, {decay:g} a second"}


def _number(at_once: int | None) -> str:
    return "no limit" if at_once is None else str(at_once)


async def make(client: PrefectClient, one: Wanted, known: There) -> None:
    """Make or change one thing; what an operator paused stays paused."""
    match one:
        case Pool():
            await _make_pool(client, one, one.name in known.pools)
        case Queue():
            await _make_queue(client, one, known.queues.get(one.full_name))
        case Limit():
            await _make_limit(client, one, one.name in known.limits)


async def _make_pool(client: PrefectClient, one: Pool, is_there: bool) -> None:
    if is_there:
        wish = WorkPoolUpdate(description=one.description, concurrency_limit=one.at_once)
        await client.update_work_pool(one.name, wish)
        return
    await client.create_work_pool(
        WorkPoolCreate(
            name=one.name,
            type=TYPE,
            description=one.description,
            concurrency_limit=one.at_once,
            base_job_template=WarmWorker.get_default_base_job_template(),
        )
    )


async def _make_queue(client: PrefectClient, one: Queue, known: WorkQueue | None) -> None:
    if known is None:
        await client.create_work_queue(
            one.name, one.description, None, one.at_once, one.priority, one.pool
        )
        return
    body = {
        "description": one.description,
        "concurrency_limit": one.at_once,
        "priority": one.priority,
        "is_paused": known.is_paused,
    }
    await client.request("PATCH", _QUEUE, path_params=_names(one.full_name), json=body)


def _names(full_name: str) -> dict[str, str]:
    pool, _, queue = full_name.partition("/")
    return {"work_pool_name": pool, "name": queue}


async def _make_limit(client: PrefectClient, one: Limit, is_there: bool) -> None:
    if is_there:
        change = GlobalConcurrencyLimitUpdate(limit=one.slots, slot_decay_per_second=one.decay)
        await client.update_global_concurrency_limit(one.name, change)
        return
    await client.create_global_concurrency_limit(
        GlobalConcurrencyLimitCreate(
            name=one.name, limit=one.slots, slot_decay_per_second=one.decay
        )
    )


async def settle(client: PrefectClient, wanted: Iterable[Wanted]) -> None:
    """Give each queue its priority again where another one, in taking its own, moved it."""
    queues = [one for one in wanted if isinstance(one, Queue)]
    for pool in sorted({one.pool for one in queues}):
        ours = sorted((one for one in queues if one.pool == pool), key=lambda one: one.priority)
        for one in ours:
            known = await client.read_work_queue_by_name(one.name, work_pool_name=pool)
            if known.priority != one.priority:
                await _make_queue(client, one, known)


async def remove(client: PrefectClient, kind: Literal["queue", "pool", "limit"], name: str) -> None:
    """Remove what no policy wants any more, and we made; what is gone already is no error."""
    try:
        match kind:
            case "queue":
                await client.request("DELETE", _QUEUE, path_params=_names(name))
            case "pool":
                await client.delete_work_pool(name)
            case "limit":
                await client.delete_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        return
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise
