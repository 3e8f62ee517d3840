"""Asks vendors to erase a person: writes down whom, asks, looks again, tells what is overdue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    wait_random_exponential,
)

from clickpost import processors
from clickpost.certificate import Outcome
from clickpost.errors import ClickPostError, Conflict, InvalidInput, Unavailable
from clickpost.logs import logger
from clickpost.policy import processors as policies
from clickpost.policy.processors import Call, Processor
from clickpost.processors import Ask, Heard, Item
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.erasing import Erasing
from clickpost.store.erasures import Planned
from clickpost.store.processors import Processors
from clickpost.store.tables import Erasure, ProcessorAsk
from clickpost.telling import Event, Happening
from connectors import _vendors
from connectors._outward import outward
from tasks._wiring import House

log = logger("processors")

#: One run asks so often about one person at one vendor; a policy that leads in a circle ends here.
MOST_CALLS = 200
#: Seconds in which one run takes up people; who is left is taken up by the next, ten minutes later.
PATIENCE = 300.0


@dataclass
class Asked:
    """What came of it at all vendors, and what the person has to know."""

    outcomes: list[Outcome] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)


def enabled(settings: Settings) -> dict[str, Processor]:
    """Return the processors that are asked; raise BrokenPolicies."""
    return {name: one for name, one in policies.load(settings.policies).items() if one.enabled}


async def plan_lines(
    settings: Settings, store: Processors, row: Erasure, erasing: Erasing
) -> list[Planned]:
    """Return what a plan says of vendors: who would be asked about how many."""
    lines: list[Planned] = []
    for name, policy in enabled(settings).items():
        known = await store.known(row, erasing, policy)
        place = f"vendor {name}"
        if known.who:
            then = "asked" if policy.by_hand is None else "unsupported"
            lines.append(Planned(place, policy.title, then, len(known.who), policy.by_hand))
        if known.held:
            lines.append(Planned(place, policy.title, "held", known.held, _HELD))
    return lines


_HELD = "a hold on the same here"


async def ask(house: House, row: Erasure, erasing: Erasing) -> Asked:
    """Write down whom each vendor knows, ask those that are due, and say how it stands.

    It is called while the rows are there; what was written down is asked also when they are gone.
    """
    store = Processors.beside(house.store)
    known = {}
    for name, policy in enabled(house.settings).items():
        known[name] = await store.known(row, erasing, policy)
        await store.want(row, policy, known[name])
    await go_on(house, store, row.id, monotonic() + PATIENCE)
    every = policies.load(house.settings.policies)
    done = Asked(processors.outcomes(every, await store.asks(row.id)))
    for name, one in known.items():
        if one.held:
            title = every[name].title
            done.outcomes.append(Outcome(f"vendor {name}", title, "held", one.held, _HELD))
        if one.shared:
            done.remains.append(
                f"{one.shared} addresses stay at {name}: they are members of other accounts too."
            )
    return done


async def go_on(house: House, store: Processors, erasure_id: str, until: float) -> None:
    """Ask what is due about one erasure, one after the other, beginning none after `until`.

    `until` is of the monotonic clock.
    """
    due = await store.to_be_asked(erasure_id, datetime.now(UTC))
    if not due:
        return
    every = policies.load(house.settings.policies)
    async with outward(house.settings) as client:
        for row in due:
            if monotonic() > until:
                return
            policy = every.get(row.processor)
            if policy is None or not policy.enabled:
                why = "it is asked no more: see to it by hand, or enable its policy again"
                await store.pause(row, store.opened(row), "refused", why, None)
                continue
            try:
                settings = settings_of(policy, os.environ)
                await _One(store, policy, settings, client).go_on(row)
            except (Unavailable, InvalidInput) as error:
                again_at = datetime.now(UTC) + processors.wait_after(row.tries, None)
                await store.pause(row, store.opened(row), "again", str(error), again_at)


def settings_of(policy: Processor, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a processor's settings; raise Unavailable for one that is not set."""
    found = {}
    for name in policy.settings:
        variable = policy.variable(name)
        value = environ.get(variable, "").strip()
        if not value and (file := environ.get(f"{variable}_FILE")):
            try:
                value = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise Unavailable(f"the file that {variable}_FILE names cannot be read") from None
        if not value:
            raise Unavailable(f"{variable} is not set: see policies/processors/{policy.name}.yaml")
        found[name] = value
    return found


@dataclass(frozen=True)
class _One:
    """Asks one vendor."""

    store: Processors
    policy: Processor
    settings: Mapping[str, str] = field(repr=False)
    client: httpx.AsyncClient

    async def go_on(self, row: ProcessorAsk) -> None:
        """Ask until nothing is left, or the vendor, or a person, is waited for."""
        cut_short = row.step if row.state == "asking" else None
        ask = processors.taken_up(self.policy, self.store.opened(row), cut_short)
        ask = processors.begun(self.policy, self.settings, ask)
        waits: list[float] = []
        for _ in range(MOST_CALLS):
            number = processors.next_of(ask)
            if number is not None:
                row, ask = await self._item(row, ask, number, waits)
            elif processors.stands(ask.items) is not None:
                break
            else:
                looked = await self._look(row, ask)
                if looked is None:
                    return
                row, ask = looked
        await self._pause(row, ask, ask.items, waits)

    async def _item(
        self, row: ProcessorAsk, ask: Ask, number: int, waits: list[float]
    ) -> tuple[ProcessorAsk, Ask]:
        """Make the next call about one record, and write down what came of it."""
        item = ask.items[number]
        step = self.policy.step(item.step or "")
        row = await self.store.begin_call(row, step.name)
        heard = await self._send(ask, step.call, item, f"{row.id}-{number}-{step.name}", step.lost)
        if heard.retry_after is not None:
            waits.append(heard.retry_after)
        ask = ask.with_item(number, processors.judged(self.policy, item, step, heard))
        log.info("asked", ask_id=row.id, processor=row.processor, step=step.name,
                 status=heard.status)  # fmt: skip
        return await self.store.keep(row, ask), ask

    async def _look(self, row: ProcessorAsk, ask: Ask) -> tuple[ProcessorAsk, Ask] | None:
        """Ask whether there is anything (more) about them; None where that ended the run."""
        if self.policy.find is None or not ask.is_looked_for:
            await self.store.end(row, ask)
            return None
        row = await self.store.begin_call(row, "find")
        heard = await self._send(ask, self.policy.find.call, None, f"{row.id}-find", None)
        looked = processors.found(self.policy, self.settings, ask, heard)
        log.info("looked", ask_id=row.id, processor=row.processor, status=heard.status)
        if isinstance(looked, Item):
            waits = [heard.retry_after] if heard.retry_after is not None else []
            await self._pause(row, ask, [looked], waits)
            return None
        if len(looked.items) == len(ask.items):
            await self.store.end(row, ask)
            return None
        return await self.store.keep(row, looked), looked

    async def _pause(
        self, row: ProcessorAsk, ask: Ask, items: Sequence[Item], waits: Sequence[float]
    ) -> None:
        stands = processors.stands(items) or "again"
        why = "; ".join(sorted({one.why for one in items if one.stands == stands and one.why}))
        moment = datetime.now(UTC)
        again_at: datetime | None = None
        match stands:
            case "wait":
                again_at = moment + self._every(items)
            case "open" | "again":
                stands = "again"
                asked = max(waits, default=None)
                again_at = moment + processors.wait_after(row.tries, asked)
            case "refused":
                pass
        await self.store.pause(row, ask, stands, why, again_at)

    def _every(self, items: Sequence[Item]) -> timedelta:
        known = {step.name: step.every for step in self.policy.steps}
        usual = timedelta(minutes=30)
        return min(known.get(one.step or "", usual) for one in items if not one.is_done)

    async def _send(
        self, ask: Ask, call: Call, item: Item | None, once: str, lost: str | None
    ) -> Heard:
        """Send a call at the vendor's pace; one that may be made twice is, where none answers."""
        request = processors.request_of(self.policy, self.settings, ask, call, item, once)
        tries = AsyncRetrying(
            retry=retry_if_result(_came_to_nothing),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            stop=stop_after_attempt(3 if lost is None else 1),
            retry_error_callback=_last,
        )
        heard: Heard = await tries(
            _vendors.send, self.client, request, self.policy.auth, self.settings
        )
        if self.policy.pace is not None:
            await asyncio.sleep(self.policy.pace.per.total_seconds() / self.policy.pace.calls)
        return heard


def _came_to_nothing(heard: Heard) -> bool:
    return heard.status is None or heard.status >= 500


def _last(state: RetryCallState) -> Heard:
    assert state.outcome is not None
    found: Heard = state.outcome.result()
    return found


async def look_again(house: House) -> list[str]:
    """Ask again what is due, and wake each erasure for which something changed; return these."""
    store = Processors.beside(house.store)
    woken = []
    until = monotonic() + PATIENCE
    for erasure_id in await store.erasures_to_ask(datetime.now(UTC)):
        try:
            async with store.erasure_lock(erasure_id):
                before = _standing(await store.asks(erasure_id))
                await go_on(house, store, erasure_id, until)
                after = _standing(await store.asks(erasure_id))
        except Conflict:  # Its own run is at work.
            continue
        except ClickPostError as error:
            log.warning("not asked", erasure_id=erasure_id, error=type(error).__name__)
            continue
        if before != after:
            await store.wake(erasure_id)
            woken.append(erasure_id)
    await tell_overdue(house.store, store, datetime.now(UTC))
    return woken


def _standing(rows: Sequence[ProcessorAsk]) -> list[tuple[str, str]]:
    return [(row.id, row.state) for row in rows]


async def tell_overdue(store: Store, asks: Processors, moment: datetime) -> None:
    """Tell, once for each, what a vendor should have done by now."""
    for row in await asks.overdue(moment):
        facts = {
            "where": f"vendor {row.processor}",
            "reason": f"{row.erasure_id}: asked and not over by {row.due_at:%Y-%m-%d}: {row.state}",
            "who_acts": "an operator",
            "due_at": row.due_at.isoformat(),
        }
        await store.notify(Happening(Event.ALERT, row.erasure_id, f"vendor:{row.id}", facts))
