"""Takes webhooks in, and hands on to Prefect what was accepted: ids alone, never a body."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from clickpost.hooks import NAME, Call, Verdict, judge
from clickpost.logs import logger
from clickpost.store import Store
from clickpost.store.database import is_away
from clickpost.store.tables import Channel
from clickpost.telling import Said
from deployments._guard import GENUINE
from deployments.metrics import Counters

log = logger("hooks")

#: Seconds for which a hook's secret is remembered; a removed hook takes calls for so long.
REMEMBERED = 5.0
_MOST_REMEMBERED = 1000
#: Calls, and bytes of their bodies, that go into one statement.
_TOGETHER, _TOGETHER_BYTES = 200, 4 * 1024 * 1024
#: Calls that are told to Prefect together: those of a hook are one event.
_AT_ONCE = 2000
#: Seconds between two tellings. The first call of a flood is told at once, and the others some
#: hundreds at a time, for each telling is a run of a trigger's gate, and posts need the worker too.
_PACE = 0.5
#: Seconds between tries while Prefect does not take events; the flow `tell` tries as well.
_LEAST_WAIT, _LONGEST_WAIT = 1.0, 30.0


class Doorkeeper:
    """Knows the hooks' secrets for some seconds, so that a flood asks the database seldom."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[float, Channel | None, str | None]] = OrderedDict()

    async def hook(self, name: str) -> tuple[Channel | None, str | None]:
        """Return a hook and its secret; nothing for a name that there is not."""
        if not NAME.fullmatch(name):
            return None, None
        found = self._known.get(name)
        if found is None or monotonic() - found[0] > REMEMBERED:
            row = await self._store.hook(name)
            found = (monotonic(), row, self._store.hook_secret(row) if row else None)
            self._known[name] = found
            self._known.move_to_end(name)
            if len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        return found[1], found[2]


_Waiting = tuple[Channel, Call, asyncio.Future[tuple[str, bool]]]


class Inbox:
    """Writes accepted calls down: those that come while one write is on its way share the next.

    A disk takes some milliseconds to say that something is written, one call or a hundred.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, row: Channel, call: Call) -> tuple[str, bool]:
        """Return a call's id, and whether it is new, once it is durable; raise what a write did."""
        kept: asyncio.Future[tuple[str, bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, call, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await kept

    async def _write(self) -> None:
        try:
            while self._waiting:
                some = self._some()
                try:
                    done = await self._store.accept_all([(row, call) for row, call, _ in some])
                except Exception as error:  # Whoever waits for it decides.
                    for *_, kept in some:
                        if not kept.done():
                            kept.set_exception(error)
                else:
                    for (*_, kept), came in zip(some, done, strict=True):
                        if not kept.done():
                            kept.set_result(came)
        finally:
            self._writing = None

    def _some(self) -> list[_Waiting]:
        """Take what goes into one statement: not too many, and not too much."""
        some: list[_Waiting] = []
        size = 0
        while self._waiting and len(some) < _TOGETHER and size < _TOGETHER_BYTES:
            some.append(self._waiting.popleft())
            size += len(some[-1][1].body)
        return some


class Hooks:
    """The endpoint, and the task that hands accepted calls on."""

    def __init__(self, store: Store, prefect: httpx.AsyncClient, counters: Counters) -> None:
        self._store, self._prefect, self._counters = store, prefect, counters
        self._doorkeeper, self._inbox = Doorkeeper(store), Inbox(store)
        self._accepted, self._ends = asyncio.Event(), asyncio.Event()

    async def take(self, request: Request) -> Response:
        """Accept a genuine call once; 202 says that it is durable, 200 that it was so before.

        A wrong name and a wrong signature get the same 404.
        """
        call = Call.of(request.headers, await request.body())
        try:
            row, secret = await self._doorkeeper.hook(request.path_params["name"])
            verdict = judge(call, secret, datetime.now(UTC))
            if row is None or verdict is Verdict.FORGED:
                self._counters.hooks.labels("forged").inc()
                return PlainTextResponse("Not found.\n", 404)
            if verdict is Verdict.STALE:
                self._counters.hooks.labels("stale").inc()
                return PlainTextResponse("The timestamp is not of these five minutes.\n", 400)
            request.scope[GENUINE] = True
            notice_id, is_new = await self._inbox.keep(row, call)
        except Exception as error:
            self._counters.hooks.labels("failed").inc()
            if not is_away(error):
                raise
            return PlainTextResponse("Come again.\n", 503, {"Retry-After": "10"})
        self._counters.hooks.labels("accepted" if is_new else "repeated").inc()
        self._accepted.set()
        return JSONResponse({"id": notice_id}, 202 if is_new else 200)

    async def hand_on(self) -> None:
        """Give accepted calls to Prefect as they come, and what an earlier gateway left."""
        wait = _LEAST_WAIT
        while not self._ends.is_set():
            self._accepted.clear()
            try:
                while await self._some_handed_on() and not self._ends.is_set():
                    wait = _LEAST_WAIT
                    await _within(_PACE, self._ends)
            except Exception as error:  # Rows stay as they were: nothing is lost by waiting.
                log.warning("not handed on", error=type(error).__name__)
                await _within(wait, self._ends)
                wait = min(wait * 2, _LONGEST_WAIT)
                continue
            await _within(_LONGEST_WAIT, self._accepted)

    def stop(self) -> None:
        """Let `hand_on` end after what it does just now.

        It is not cancelled: a connection to the database that is cancelled half made stays open.
        """
        self._ends.set()
        self._accepted.set()

    async def _some_handed_on(self) -> bool:
        async with self._store.unemitted_calls(_AT_ONCE) as calls:
            if not calls:
                return False
            events = [event_of(one) for one in calls]
            (await self._prefect.post("/events", json=events)).raise_for_status()
        return True


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for `event`, but not for longer."""
    with suppress(TimeoutError):
        # Not `wait_for`: it loses a cancel that comes with what it waits for.
        async with asyncio.timeout(seconds):
            await event.wait()


def event_of(said: Said) -> dict[str, Any]:
    """Say accepted calls as Prefect's API takes events: the same as `tasks.telling.event_of`.

    `said` is the first of those that wait together. Prefect itself is left out here: it would take
    most of the gateway's memory.
    """
    return {
        "id": str(uuid5(NAMESPACE_URL, f"clickpost:{said.id}")),
        "event": said.event,
        "occurred": said.at.isoformat(),
        "resource": {"prefect.resource.id": f"clickpost.hook.{said.subject}"},
        "related": [
            {"prefect.resource.id": f"clickpost.calls.{said.id}", "prefect.resource.role": "calls"}
        ],
        "payload": {"notice_id": said.id, "who_acts": None},
    }
