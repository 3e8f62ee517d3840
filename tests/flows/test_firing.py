"""What a trigger's gate decides about each cause, with a Prefect that only counts runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlmodel import select

from clickpost import causes
from clickpost.hooks import Call
from clickpost.store import Store
from clickpost.store.tables import Firing, Notice
from clickpost.telling import Event, Happening, Said, payload
from clickpost.triggers import QuietHours
from tasks import _wiring, telling, triggers
from tasks.triggers import Asked, Cause


@dataclass
class Server:
    """Keeps runs by their key, as Prefect does; ends after so many, as in a crash."""

    runs: dict[str, Any] = field(default_factory=dict)
    ends_after: int = 10**6

    async def read_deployment_by_name(self, name: str) -> Any:
        return SimpleNamespace(id=UUID(int=1), tags=[])

    async def read_flow_runs(self, *, limit: int, offset: int, **_: Any) -> list[Any]:
        return list(self.runs.values())[offset : offset + limit]

    async def create_flow_run_from_deployment(
        self, *_: Any, idempotency_key: str, state: Any, **__: Any
    ) -> Any:
        if idempotency_key not in self.runs and len(self.runs) >= self.ends_after:
            raise RuntimeError("killed")
        made = SimpleNamespace(
            id=uuid4(),
            idempotency_key=idempotency_key,
            expected_start_time=state.state_details.scheduled_time,
        )
        return self.runs.setdefault(idempotency_key, made)


@pytest.fixture
def server(store: Store, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()

    @asynccontextmanager
    async def client() -> AsyncIterator[Server]:
        yield made

    async def house() -> Any:
        return SimpleNamespace(store=store)

    async def wake() -> bool:
        return True

    monkeypatch.setattr(triggers, "get_client", client)
    monkeypatch.setattr(_wiring, "house", house)
    monkeypatch.setattr(telling, "wake", wake)
    return made


def asked(trigger: str = "a", at_most: int | None = 60) -> Asked:
    return Asked(trigger, f"tell/{trigger}", {}, None, at_most)


def about(run: Any, event_id: str) -> Cause:
    return Cause("gate", event_id, [f"prefect.flow-run.{run.id}"])


async def calls(store: Store, number: int) -> tuple[Cause, list[str]]:
    """Return what Prefect hears of so many calls of a hook, and their ids."""
    hook = await store.add_hook(await store.workspace_id(), "cms", "whsec_x")
    given = [(hook, Call(f"msg_{one}", "1", "", b"{}")) for one in range(number)]
    made = [notice_id for notice_id, _ in await store.accept_all(given)]
    async with store.unemitted_calls(1000) as heard:
        [one] = heard
    event = telling.event_of(one)
    names = [str(event.resource.id), *(str(related.id) for related in event.related)]
    return Cause("gate", str(event.id), names), made


async def verdicts(store: Store) -> list[str]:
    async with store.session() as session:
        return sorted((await session.scalars(select(Firing.verdict))).all())


async def test_of_calls_told_together_each_fires_or_is_left_out_and_that_is_kept(
    store: Store, server: Server
) -> None:
    cause, made = await calls(store, 50)
    came = await triggers.start(asked(at_most=3), cause)
    assert (len(came.started), came.left) == (3, 47)
    assert await verdicts(store) == ["fired"] * 3 + ["left_out"] * 47
    assert await store.undecided("a", made) == []
    again = await triggers.start(asked(at_most=3), cause)
    assert (again.started, again.left, len(server.runs)) == ([], 0, 3)
    other = await triggers.start(asked("b", at_most=100), cause)
    assert (len(other.started), other.left) == (50, 0), "what one trigger decides is its own"


@pytest.mark.parametrize("event_id", ["event-0", None])
async def test_quiet_hours_put_a_run_off_or_leave_it_out_whatever_the_cause(
    store: Store, server: Server, event_id: str | None
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    begin, end = (now - timedelta(hours=1)).time(), now + timedelta(hours=1)
    hours = QuietHours(begin, end.time(), ZoneInfo("UTC"), True)
    late = replace(asked("late", at_most=1), quiet=hours)
    came = await triggers.start(late, Cause("gate-1", event_id))
    assert [one.at for one in came.started] == [end]
    again = await triggers.start(late, Cause("gate-2", event_id and "event-1"))
    assert again.started == []
    never = replace(asked("never"), quiet=replace(hours, waits=False))
    came = await triggers.start(never, Cause("gate-3", event_id))
    assert came.skip is not None
    assert came.skip.reason == f"quiet hours until {end:%H:%M} UTC"
    assert await verdicts(store) == ["fired", "left_out", "quiet"]


async def test_a_gate_that_was_killed_halfway_is_followed_by_one_that_doubles_nothing(
    store: Store, server: Server
) -> None:
    cause, _ = await calls(store, 10)
    server.ends_after = 4
    with pytest.raises(RuntimeError):
        await triggers.start(asked(at_most=5), cause)
    async with store.transaction() as session:  # And the last one was not written down.
        await session.delete((await session.scalars(select(Firing))).first())
    server.ends_after = 100
    came = await triggers.start(asked(at_most=5), cause)
    assert (len(came.started), came.left) == (2, 5)
    assert len(server.runs) == 5
    assert await verdicts(store) == ["fired"] * 5 + ["left_out"] * 5


async def test_triggers_that_go_in_a_circle_are_stopped_and_people_are_told_once(
    store: Store, server: Server
) -> None:
    first = await triggers.start(asked("ping"), Cause("gate", "event-0"))
    second = await triggers.start(asked("pong"), about(server.runs["ping event-0"], "event-1"))
    assert (len(first.started), len(second.started)) == (1, 1)
    for event in ("event-2", "event-3"):
        third = await triggers.start(asked("ping"), about(server.runs["pong event-1"], event))
        assert third.started == []
        assert third.skip is not None
        assert third.skip.reason.endswith("ping → pong → ping")
    assert await verdicts(store) == ["fired", "fired", "loop", "loop"]
    async with store.session() as session:
        [notice] = (await session.scalars(select(Notice))).all()
    assert (notice.event, notice.subject) == (Event.GUARD, "ping")
    assert "ping → pong → ping" in notice.facts["reason"]
    assert notice.facts["who_acts"] == "an operator"


async def test_an_event_of_ours_names_the_run_that_it_comes_from(
    store: Store, server: Server
) -> None:
    """Also where that is not the run of the post: a sweep, say, that a trigger started."""
    await triggers.start(asked("ping"), Cause("gate", "event-0"))
    run_id = str(server.runs["ping event-0"].id)
    with causes.by(run_id):
        await store.notify(Happening(Event.STUCK, "dlv_1", "once", {"run_id": "of-the-post"}))
    assert causes.run() is None
    async with store.unemitted(10) as [said]:
        event = telling.event_of(said)
    names = [str(related.id) for related in event.related]
    came = await triggers.start(asked("ping"), Cause("gate", str(event.id), names))
    assert came.skip is not None
    assert came.skip.reason.endswith("ping → ping")
    told = Said(said.id, said.event, said.subject, said.facts, said.at)
    assert run_id.encode() not in payload(told, "http://ui"), "it is nothing for a receiver"
