"""What Prometheus reads at `/metrics`: counts with ids and platforms, no names of anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clickpost.budget import Standing
from clickpost.policy.load import load_platforms, narrowed
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.measuring import Measures
from clickpost.stuck import Stuck
from deployments import health
from deployments.health import Part
from tasks import budgeting, watching

#: Who asks more often gets the same answer: a scrape costs the database some queries.
FRESH_FOR = 10.0
#: Budgets of so many accounts are told, for each costs a query.
_MOST_ACCOUNTS = 300


class Counters:
    """What the gateway counts itself, since its start."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter(
            "clickpost_gateway_answers",
            "Answers of the gateway, by what was asked and the status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.hooks = Counter(
            "clickpost_hook_calls",
            "Webhooks that came in: accepted, repeated, forged, stale, or failed.",
            ["verdict"],
            registry=self.registry,
        )
        self.sign_ins = Counter(
            "clickpost_sign_ins",
            "Ways of owners to a platform: begun; and back: connected, or why not.",
            ["outcome"],
            registry=self.registry,
        )


@dataclass(frozen=True)
class Seen:
    """All that one scrape tells."""

    measures: Measures | None
    stuck: Sequence[Stuck]
    budgets: Sequence[tuple[str, str, Standing]]
    parts: Sequence[Part]
    workers: Mapping[str, datetime]


class Metrics:
    """Looks at the house, at most once in `FRESH_FOR` seconds, however many ask."""

    def __init__(
        self, settings: Settings, store: Store, http: httpx.AsyncClient, counters: Counters
    ) -> None:
        self._settings, self._store, self._http, self._counters = settings, store, http, counters
        self._one = asyncio.Lock()
        self._told, self._told_at = b"", -FRESH_FOR

    async def tell(self) -> bytes:
        """Return the metrics as Prometheus reads them."""
        async with self._one:
            if monotonic() - self._told_at >= FRESH_FOR:
                registry = CollectorRegistry()
                registry.register(_Once(_families(await self._look())))
                self._told = generate_latest(registry)
                self._told_at = monotonic()
        return self._told + generate_latest(self._counters.registry)

    async def _look(self) -> Seen:
        parts = await health.look(self._settings, self._store, self._http)
        workers: Mapping[str, datetime] = {}
        if _well(parts, "prefect"):
            workers = (await health.hear(self._http)).workers
        if not _well(parts, "database"):
            return Seen(None, (), (), parts, workers)
        return Seen(
            await self._store.measures(datetime.now(UTC)),
            await watching.found(self._settings, self._store),
            await self._budgets(),
            parts,
            workers,
        )

    async def _budgets(self) -> list[tuple[str, str, Standing]]:
        platforms = load_platforms(self._settings.policies)
        rows = [row for row in await self._store.connections() if row.status == "active"]
        told = []
        for row in rows[:_MOST_ACCOUNTS]:
            policy = narrowed(platforms[row.platform], row.limits or {})
            for one in await budgeting.standings(self._store, row, policy):
                told.append((row.id, row.platform, one))
        return told


def _well(parts: Iterable[Part], name: str) -> bool:
    return any(one.name == name and one.well for one in parts)


class _Once(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(seen: Seen) -> Iterator[Metric]:
    parts = {(one.name,): float(one.well) for one in seen.parts}
    yield _gauge("clickpost_part_up", "Whether a part of the house is well.", ["part"], parts)
    yield _gauge(
        "clickpost_worker_heartbeat_timestamp_seconds",
        "When a worker was last heard of.",
        ["worker"],
        {(name,): at.timestamp() for name, at in seen.workers.items()},
    )
    if seen.measures is not None:
        yield from _measured(seen.measures)
        yield from _watched(seen)


def _measured(one: Measures) -> Iterator[Metric]:
    by_state = ["platform", "state"]
    yield _gauge("clickpost_deliveries", "Deliveries by state.", by_state, one.deliveries)
    yield _gauge(
        "clickpost_attempts_last_hour",
        "Tries of the last hour by verdict; none_yet is on its way, or got lost.",
        ["platform", "verdict"],
        one.attempts,
    )
    yield _gauge(
        "clickpost_connections", "Accounts by status.", ["platform", "status"], one.connections
    )
    yield GaugeHistogramMetricFamily(
        "clickpost_lateness_seconds",
        "How late what was due in the last hour was sent.",
        buckets=[(_bound(bound), number) for bound, number in one.lateness],
        gsum_value=one.lateness_sum,
    )
    plain = (
        ("clickpost_due", "Deliveries that are due and not sent.", one.due),
        ("clickpost_oldest_due_seconds", "For how long the oldest of them is.", one.oldest_due),
        ("clickpost_waiting_for_budget", "Deliveries in line.", one.waiting_for_budget),
        ("clickpost_events_unemitted", "Events that Prefect has not heard.", one.unemitted),
    )
    for name, says, value in plain:
        yield GaugeMetricFamily(name, says, value=value)
    untold = {(state,): number for state, number in one.untold.items()}
    says = "Notices that a channel did not take: tried again, or given up."
    yield _gauge("clickpost_notices_untold", says, ["state"], untold)


def _watched(seen: Seen) -> Iterator[Metric]:
    stuck: dict[tuple[str, ...], float] = {}
    for one in seen.stuck:
        key = one.going.platform, one.going.state.value
        stuck[key] = stuck.get(key, 0) + 1
    says = "Deliveries that should have moved on by themselves."
    yield _gauge("clickpost_stuck", says, ["platform", "state"], stuck)
    labels = ["connection_id", "platform", "what", "window_seconds", "guard"]
    left, total = {}, {}
    for connection_id, platform, one_pot in seen.budgets:
        pot = one_pot.pot
        names = connection_id, platform, pot.what, str(pot.seconds), str(pot.guard).lower()
        left[names] = max(one_pot.total - one_pot.used, 0)
        total[names] = one_pot.total
    yield _gauge("clickpost_budget_left", "What an account may still send.", labels, left)
    yield _gauge("clickpost_budget_total", "What it may send in a window.", labels, total)


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else str(seconds)


def _gauge(
    name: str, says: str, labels: Sequence[str], values: Mapping[Any, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, says, labels=labels)
    for names, value in values.items():
        family.add_metric(list(names), value)
    return family
