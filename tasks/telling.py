"""Works the outbox: events to Prefect, notices through their channels, and tries again."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event, RelatedResource, Resource
from prefect.exceptions import ObjectNotFound

from clickpost import telling
from clickpost.errors import ClickPostError, RateLimited
from clickpost.logs import logger
from clickpost.store import Store
from clickpost.store.notices import Due
from clickpost.store.tables import Channel
from clickpost.telling import Said
from connectors import _channels, _letters
from connectors._outward import outward
from tasks import _wiring
from tasks._wiring import House

log = logger("telling")

#: Longer than a try may take; then whoever had it is taken for dead.
LEASE = timedelta(seconds=_letters.PATIENCE * 3)
#: One run works the outbox for at most so many seconds; the next one goes on.
ENOUGH = 45.0
_EVENTS, _CALLS = 200, 2000
#: What an id's first word says that it is.
_KINDS = {
    "dlv": "delivery",
    "conn": "connection",
    "hook": "hook",
    "req": "request",
    "arr": "arrival",
    "sub": "subscription",
    "sweep": "sweep",
}


@dataclass
class Worked:
    """What one going through the outbox came to."""

    emitted: int = 0
    told: int = 0
    failed: int = 0
    given_up: int = 0


async def work() -> Worked:
    """Emit what Prefect has not heard, and tell what is due; channels never wait for each other."""
    house = await _wiring.house()
    done = Worked(emitted=await _emitted(house, _notices, _calls))
    channels = await house.store.channels_due(datetime.now(UTC))
    await asyncio.gather(*(_through(house, channel, done) for channel in channels))
    return done


async def wake() -> bool:
    """Emit what Prefect has not heard; start a run that tells people, where something waits for it.

    Say whether it did.
    """
    house = await _wiring.house()
    moment = datetime.now(UTC)
    waits = await house.store.outbox(moment)
    parts = [part for part, there in ((_notices, waits.notices), (_calls, waits.calls)) if there]
    await _emitted(house, *parts)
    if not waits.tellings:
        return False
    try:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name("tell/tell")
            key = f"tell {moment:%Y-%m-%d %H:%M}"
            await client.create_flow_run_from_deployment(deployment.id, idempotency_key=key)
    except (ObjectNotFound, httpx.HTTPError) as error:  # Its own schedule starts it soon.
        log.info("not woken", error=type(error).__name__)
        return False
    return True


async def _emitted(house: House, *parts: Callable[[Store], Awaitable[int]]) -> int:
    """Give Prefect the events it has not heard; an event that it has keeps its id, and is one."""
    count = 0
    try:
        for part in parts:
            count += await part(house.store)
    except httpx.HTTPError as error:  # They wait; people are told all the same.
        log.warning("not emitted", error=type(error).__name__)
    return count


async def _notices(store: Store) -> int:
    count, more = 0, True
    while more:  # Most often one event waits: nothing is asked for twice.
        some = await _some_emitted(store.unemitted(_EVENTS))
        count, more = count + some, some == _EVENTS
    return count


async def _calls(store: Store) -> int:
    count = 0
    while some := await _some_emitted(store.unemitted_calls(_CALLS)):
        count += some
    return count


async def _some_emitted(waiting: AbstractAsyncContextManager[list[Said]]) -> int:
    async with waiting as notices:
        if notices:
            events = [event_of(one).model_dump(mode="json") for one in notices]
            async with get_client() as client:
                await client.request("POST", "/events", json=events)
    return len(notices)


def event_of(said: Said) -> Event:
    """Say a notice as an event of Prefect: ids and the platform, no names and no reason."""
    facts = said.facts
    platform = str(facts.get("where", "")).partition("/")[0]
    related = [
        _related(f"clickpost.{kind}.{found}", kind)
        for kind in ("post", "connection")
        if (found := facts.get(f"{kind}_id")) and found != said.subject
    ]
    if run_id := facts.get("run_id"):
        related.append(_related(f"prefect.flow-run.{run_id}", "flow-run"))
    if (by := facts.get("by_run")) and by != run_id:
        related.append(_related(f"prefect.flow-run.{by}", "cause"))
    if said.event.startswith("hook."):
        related.append(_related(f"clickpost.calls.{said.id}", "calls"))
    kind = _KINDS.get(said.subject.partition("_")[0], "subject")
    named = {"prefect.resource.id": f"clickpost.{kind}.{said.subject}"}
    if platform:
        named["clickpost.platform"] = platform
    return Event(
        id=event_id(said.id),
        event=said.event,
        occurred=said.at,
        resource=Resource(named),
        related=related,
        payload={"notice_id": said.id, "who_acts": facts.get("who_acts")},
    )


def _related(resource_id: str, role: str) -> RelatedResource:
    return RelatedResource({"prefect.resource.id": resource_id, "prefect.resource.role": role})


def event_id(notice_id: str) -> UUID:
    """Return the event's id, the same at every try."""
    return uuid5(NAMESPACE_URL, f"clickpost:{notice_id}")


async def _through(house: House, channel: Channel, done: Worked) -> None:
    until = monotonic() + ENOUGH
    while monotonic() < until:
        limit = 1 if channel.kind == "webhook" else telling.MOST_IN_ONE
        now = datetime.now(UTC)
        due = await house.store.claim_tellings(channel.id, limit, now, LEASE)
        if not due:
            return
        if not await _told(house, channel, due, done):
            return  # It has trouble: what else waits for it is not tried in vain.


async def _told(house: House, channel: Channel, due: Sequence[Due], done: Worked) -> bool:
    try:
        await deliver(house, channel, due)
    except Exception as error:  # Whatever a channel's library raises: it is tried again.
        spread = random.random()  # noqa: S311 - it spreads tries, and hides nothing.
        wait = telling.again_in(max(one.tries for one in due), spread)
        if isinstance(error, RateLimited):
            wait = max(wait, timedelta(seconds=error.retry_after))
        reason = str(error) if isinstance(error, ClickPostError) else type(error).__name__
        done.failed += len(due)
        done.given_up += await house.store.not_told(due, reason, datetime.now(UTC) + wait)
        log.warning("not told", channel_id=channel.id, notices=len(due), reason=reason)
        return False
    await house.store.told([one.telling_id for one in due])
    done.told += len(due)
    log.info("told", channel_id=channel.id, notices=[one.said.id for one in due])
    return True


async def deliver(house: House, channel: Channel, due: Sequence[Due]) -> None:
    """Carry notices through a channel once; raise what says why it did not take them."""
    secrets = house.store.channel_secrets(channel)
    notices = [one.said for one in due]
    ui = house.settings.prefect_ui
    match channel.kind:
        case "email":
            mark = mark_of(due)
            await _channels.send_email(secrets, notices, mark, house.settings, ui)
        case "webhook":
            async with outward(house.settings) as http:
                for said in notices:
                    await _channels.send_webhook(secrets, said, http, ui)
        case _:
            await _channels.send_chat(secrets, notices, ui, house.settings)


def mark_of(due: Sequence[Due]) -> str:
    """Return what names these very tellings together, the same at every try."""
    return hashlib.sha256(" ".join(one.telling_id for one in due).encode()).hexdigest()[:32]
