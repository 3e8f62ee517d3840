"""The delivery's states, walked at random over the real store: no part is ever sent twice.

The platform here is a count of copies of each part. Two senders, looks, an operator, a canceller
and a worker that takes back what vanished act in any order, each on what it read some time ago.
What the model grants is what the house grants: a lease outlives its request (so that nothing
arrives after a take-back), looks and people tell the truth of the moment at which they look.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clickpost.asking import Answer
from clickpost.contract import Receipt
from clickpost.delivery import CANCELLABLE, SETTLED, WAYS, State
from clickpost.draft import PostFile
from clickpost.errors import (
    Conflict,
    OutcomeUnknown,
    PlatformRejected,
    RateLimited,
    Reauthorize,
    Transient,
)
from clickpost.publishing import Verdict, verdict_of
from clickpost.settings import Settings
from clickpost.store import NewConnection, NewPost, Started, Store
from clickpost.store.tables import Delivery
from clickpost.store.vault import Vault
from tasks import answering

T = TypeVar("T")

PARTS = 2
LEASE = timedelta(minutes=5)
#: Verdicts that prove that nothing happened.
NOTHING = {
    "transient": Transient("never left"),
    "rate_limited": RateLimited("429", retry_after=0),
    "rejected": PlatformRejected("400"),
    "revoked": Reauthorize("401"),
}
#: What has ended goes nowhere, or down.
DOWN = {State.REMOVED, State.GONE}
#: From here senders go on: also one that holds an old view of the row.
GOING = (State.READY, State.SENDING)
_names = itertools.count()


def at_once(verdict: Verdict) -> Verdict:
    """Return the verdict without its wait: no walk may depend on the clock."""
    return replace(verdict, wait=0.0)


@dataclass
class Sender:
    """A worker's step on its way: what it read, and what it is just sending."""

    holder: str
    view: int
    started: Started | None = None
    arrived: bool = False
    over: bool = False
    """Whether its lease is over: from then on its request does not arrive any more."""


@dataclass
class Look:
    """A look, an answer or a take-back that was begun, on a row as it was then."""

    seen: Delivery
    there: bool = False


@dataclass
class World:
    """What the model knows: copies at the platform, and who is at it."""

    copies: list[int] = field(default_factory=lambda: [0] * PARTS)
    senders: list[Sender] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    answers: list[Look] = field(default_factory=list)
    spotted: list[Delivery] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """One delivery of a thread of two parts, and everybody who touches it."""

    runner: asyncio.Runner
    store: Store

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @property
    def row(self) -> Delivery:
        return self.do(self.store.delivery(self.id))

    @initialize()
    def take_in(self) -> None:
        self.world = World()
        self.id = self.do(self._taken_in())
        self.state = State.READY

    @precondition(lambda self: WAYS[self.state] <= DOWN)
    @rule()
    def take_in_the_next(self) -> None:
        """What has ended is left behind, so that a walk is not over with its first delivery."""
        self._is_sound(self.row)
        self.take_in()

    async def _taken_in(self) -> str:
        name = f"studio{next(_names)}"
        new = NewConnection("bluesky", name, "http://127.0.0.1:1", {"access_jwt": "x"})
        connection = await self.store.add_connection(new)
        post = NewPost(PostFile(text=name), (), (connection.id,))
        post_id = (await self.store.create_post(post)).post_id
        delivery_id = (await self.store.deliveries_of(post_id))[0].id
        await self._prepared(delivery_id)
        return delivery_id

    async def _prepared(self, delivery_id: str) -> None:
        await self.store.move(delivery_id, State.PLANNED, State.PREPARING, lease_owner="p")
        parts = [{"text": f"part {number}", "media": []} for number in range(PARTS)]
        await self.store.save_message(
            delivery_id, message=parts, content_hash="c", policy_hash="p", notes=[], holder="p"
        )
        ready = [{"state": {"rkey": str(number)}, "ready": True} for number in range(PARTS)]
        await self.store.save_prepared(delivery_id, ready)
        await self.store.move(delivery_id, State.PREPARING, State.READY)

    @precondition(lambda self: self.state in GOING and len(self.world.senders) < 2)
    @rule()
    def a_sender_reads(self) -> None:
        view = len(self.row.receipts or [])
        self.world.senders.append(Sender(f"w{next(_names)}", view))

    @precondition(lambda self: self.state is State.READY and not self.world.senders)
    @rule(arrives=st.booleans())
    def send_and_hear_nothing(self, arrives: bool) -> None:
        """A whole step whose answer gets lost: it begins, may arrive, and is settled unknown."""
        self.a_sender_reads()
        [sender] = self.world.senders
        self.world.senders.clear()
        self._lost_in(sender, arrives)

    def _lost_in(self, sender: Sender, arrives: bool) -> None:
        started = sender.started = self.do(self._begun(sender))
        self._arrive(sender, arrives)
        lost = OutcomeUnknown("lost")
        verdict = verdict_of(lost, started.tries)
        last = started.part == PARTS - 1
        self.do(self.store.settle(started, verdict, lost, last=last, seconds=0.1))

    async def _begun(self, sender: Sender) -> Started:
        return await self.store.begin_attempt(
            self.id,
            worker=sender.holder,
            part=sender.view,
            intent={"content": "c"},
            lease=LEASE,
            run_id=None,
        )

    @precondition(lambda self: any(one.started is None for one in self.world.senders))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        idle = [one for one in self.world.senders if one.started is None]
        sender = data.draw(st.sampled_from(idle))
        if sender.view >= PARTS:
            self.world.senders.remove(sender)
            return
        try:
            sender.started = self.do(self._begun(sender))
            sender.arrived = sender.over = False
        except Conflict:
            self.world.senders.remove(sender)

    def _sending(self, data: st.DataObject) -> Sender:
        return data.draw(st.sampled_from([one for one in self.world.senders if one.started]))

    @precondition(lambda self: any(one.started for one in self.world.senders))
    @rule(data=st.data(), arrives=st.booleans(), said=st.sampled_from(["yes", *NOTHING, "lost"]))
    def settle(self, data: st.DataObject, arrives: bool, said: str) -> None:
        sender = self._sending(data)
        started = sender.started
        assert started is not None
        self._arrive(sender, arrives)
        outcome: Any = OutcomeUnknown("lost")
        if sender.arrived and said != "lost":
            outcome = Receipt(f"id{started.part}", f"https://example.org/{started.part}", {})
        elif not sender.arrived and said in NOTHING:
            outcome = NOTHING[said]
        self._settled(sender, outcome)

    def _settled(self, sender: Sender, outcome: Any) -> None:
        """Write the verdict; a sender that is through, or too late, goes home."""
        started = sender.started
        assert started is not None
        if outcome is None:
            outcome = Receipt(f"id{started.part}", f"https://example.org/{started.part}", {})
        verdict = at_once(verdict_of(outcome, started.tries))
        last = started.part == PARTS - 1
        sender.started = None
        try:
            self.do(self.store.settle(started, verdict, outcome, last=last, seconds=0.1))
        except Conflict:
            self.world.senders.remove(sender)
            return
        if isinstance(outcome, Receipt) and not last:
            sender.view += 1
        else:
            self.world.senders.remove(sender)

    def _arrive(self, sender: Sender, arrives: bool) -> None:
        if arrives and not sender.arrived and not sender.over:
            assert sender.started is not None
            self.world.copies[sender.started.part] += 1
            sender.arrived = True

    @precondition(lambda self: any(one.started for one in self.world.senders))
    @rule(data=st.data(), arrives=st.booleans())
    def crash(self, data: st.DataObject, arrives: bool) -> None:
        """The process is killed; its request arrives, or does not; its lease is seen through."""
        sender = self._sending(data)
        self._arrive(sender, arrives)
        self.world.senders.remove(sender)
        self._expire(sender.holder)

    @precondition(lambda self: any(one.started for one in self.world.senders))
    @rule(data=st.data(), arrives=st.booleans())
    def lose_the_lease(self, data: st.DataObject, arrives: bool) -> None:
        """The sender hangs on its verdict (the database is away) until its lease is over."""
        sender = self._sending(data)
        self._arrive(sender, arrives)
        sender.over = True
        self._expire(sender.holder)

    def _expire(self, holder: str) -> None:
        async def expire() -> None:
            async with self.store.engine.begin() as db:
                await db.exec_driver_sql(
                    "UPDATE delivery SET lease_until = %s WHERE id = %s AND lease_owner = %s",
                    (datetime.now(UTC) - timedelta(seconds=1), self.id, holder),
                )

        self.do(expire())

    @precondition(lambda self: self.state is State.SENDING)
    @rule()
    def spot_what_vanished(self) -> None:
        row = self.row
        over = row.lease_until is not None and row.lease_until < datetime.now(UTC)
        if row.state is State.SENDING and over:
            self.world.spotted.append(row)

    @precondition(lambda self: self.world.spotted)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        seen = data.draw(st.sampled_from(self.world.spotted))
        self.world.spotted.remove(seen)
        with suppress(Conflict):
            self.do(self.store.take_back(seen, State.UNKNOWN))

    @precondition(lambda self: self.state is State.UNKNOWN)
    @rule(arrives=st.booleans())
    def a_slow_look(self, arrives: bool) -> None:
        """Meanwhile another look is faster, and what that lets go is lost again."""
        slow = Look(row := self.row, self._there(row))
        self._judge(slow)
        if (now := self.row).state is State.READY:
            self._lost_in(Sender(f"w{next(_names)}", len(now.receipts or [])), arrives)
        self._judge(slow)

    @precondition(lambda self: self.state is State.UNKNOWN)
    @rule(arrives=st.booleans())
    def a_slow_answer(self, arrives: bool) -> None:
        """Meanwhile a look settles it, and what that lets go is lost again."""
        self.world.answers.clear()
        self.ask()
        [asked] = self.world.answers
        self._judge(Look(self.row, asked.there))
        if (now := self.row).state is State.READY:
            self._lost_in(Sender(f"w{next(_names)}", len(now.receipts or [])), arrives)
        self._answered(asked, gives_up=False)
        self.world.answers.clear()

    @precondition(lambda self: self.state is State.SENDING and self._alone())
    @rule(arrives=st.booleans(), arrives_again=st.booleans(), late=st.booleans())
    def a_slow_end(self, arrives: bool, arrives_again: bool, late: bool) -> None:
        """A sender loses its lease, and is heard (or taken back) when another sends already."""
        [sender] = self.world.senders
        self._arrive(sender, arrives)
        sender.over = True
        self._expire(sender.holder)
        spotted = self.row
        self.do(self.store.take_back(spotted, State.UNKNOWN))
        self._judge(Look(row := self.row, self._there(row)))
        self.world.senders.clear()
        second = Sender(f"w{next(_names)}", len(self.row.receipts or []))
        if self.row.state is State.READY and late:
            self._lost_in(second, arrives_again)
        elif self.row.state is State.READY:
            second.started = self.do(self._begun(second))
            self.world.senders.append(second)
        self.world.senders.append(sender)
        if late:
            self._settled(sender, None if sender.arrived else NOTHING["transient"])
        else:
            self.world.senders.remove(sender)
            with suppress(Conflict):
                self.do(self.store.take_back(spotted, State.UNKNOWN))
            if (row := self.row).state is State.UNKNOWN:
                self._judge(Look(row, self._there(row)))
        if second.started is not None:
            self._arrive(second, arrives_again)
        self._goes_on()

    def _goes_on(self) -> None:
        """Let another send what is ready now."""
        if (now := self.row).state is State.READY:
            self._lost_in(Sender(f"w{next(_names)}", len(now.receipts or [])), arrives=True)

    @precondition(lambda self: self.state is State.READY and not self.world.senders)
    @rule()
    def a_slow_reader(self) -> None:
        """Another sends the part that it read of, and fails at the next."""
        slow = Sender(f"w{next(_names)}", len(self.row.receipts or []))
        quick = Sender(f"w{next(_names)}", slow.view)
        self.world.senders.append(quick)
        quick.started = self.do(self._begun(quick))
        self._arrive(quick, arrives=True)
        self._settled(quick, None)
        if self.row.state is State.SENDING:
            quick.started = self.do(self._begun(quick))
            self._settled(quick, NOTHING["transient"])
        with suppress(Conflict):
            slow.started = self.do(self._begun(slow))
            self._arrive(slow, arrives=True)
            self.world.senders.append(slow)

    def _alone(self) -> bool:
        [*senders] = self.world.senders
        return len(senders) == 1 and senders[0].started is not None and not senders[0].over

    def _there(self, seen: Delivery) -> bool:
        return self.world.copies[len(seen.receipts or [])] > 0

    @precondition(lambda self: self.state is State.UNKNOWN and len(self.world.looks) < 3)
    @rule()
    def begin_a_look(self) -> None:
        row = self.row
        self.world.looks.append(Look(row, self._there(row)))

    @precondition(lambda self: self.world.looks)
    @rule(data=st.data())
    def end_a_look(self, data: st.DataObject) -> None:
        look = data.draw(st.sampled_from(self.world.looks))
        self.world.looks.remove(look)
        self._judge(look)

    def _judge(self, look: Look) -> None:
        part = len(look.seen.receipts or [])
        with suppress(Conflict):
            if look.there:
                found = Receipt(f"id{part}", f"https://example.org/{part}", {})
                self.do(self.store.adopt_found(look.seen, found, last=part == PARTS - 1))
            else:
                self.do(self.store.clear_unknown(look.seen, State.READY, reason="looked"))

    @precondition(lambda self: self.state is State.UNKNOWN and len(self.world.answers) < 2)
    @rule()
    def ask(self) -> None:
        row = self.row
        self.do(self.store.note_unknown(row, reason="cannot tell", who_acts="an operator"))
        asked = self.row
        self.world.answers.append(Look(asked, self._there(asked)))

    @precondition(lambda self: self.world.answers)
    @rule(data=st.data(), gives_up=st.integers(0, 9).map(lambda drawn: drawn == 9))
    def answer(self, data: st.DataObject, gives_up: bool) -> None:
        asked = data.draw(st.sampled_from(self.world.answers))
        self.world.answers.remove(asked)
        self._answered(asked, gives_up=gives_up)

    def _answered(self, asked: Look, *, gives_up: bool) -> None:
        answer = Answer.THERE if asked.there else Answer.AGAIN
        answer = Answer.GIVE_UP if gives_up else answer
        with suppress(Conflict):
            self.do(answering.settle(self.store, asked.seen, answer, None, actor="operator:a"))

    @precondition(lambda self: self.state in CANCELLABLE)
    @rule(really=st.integers(0, 9))
    def cancel(self, really: int) -> None:
        if really == 9:  # Seldom, for it ends most that could go wrong.
            self.do(self.store.move(self.id, self.row.state, State.CANCELLED))

    @precondition(lambda self: self.state in (State.FAILED, State.HELD))
    @rule()
    def retry(self) -> None:
        fresh: dict[str, Any] = {"attempts": 0, "not_before": None}
        self.do(self.store.move(self.id, self.row.state, State.PLANNED, **fresh))
        self.do(self._prepared(self.id))

    @invariant()
    def nothing_is_there_twice(self) -> None:
        if hasattr(self, "world"):
            self.state = self.row.state
            assert max(self.world.copies) <= 1

    def _is_sound(self, row: Delivery) -> None:
        assert max(self.world.copies) <= 1
        if row.state is State.LIVE:
            assert self.world.copies == [1] * PARTS

    def teardown(self) -> None:
        """Let everybody go home: the house alone has to bring the delivery to its end."""
        if not hasattr(self, "world"):
            return
        for sender in self.world.senders:
            self._expire(sender.holder)
        for _ in range(2 * PARTS + 2):
            if (row := self.row).state in SETTLED:
                break
            self._moved_on(row)
        row = self.row
        assert row.state in SETTLED
        self._is_sound(row)
        assert self.do(self.store.verify()).broken is None

    def _moved_on(self, row: Delivery) -> None:
        match row.state:
            case State.SENDING:
                self.do(self.store.take_back(row, State.UNKNOWN))
            case State.UNKNOWN:
                self._judge(Look(row, self._there(row)))
            case State.READY:
                self._sent(len(row.receipts or []))
            case _:
                raise AssertionError(f"stuck in {row.state}")

    def _sent(self, part: int) -> None:
        holder = f"w{next(_names)}"
        for number in range(part, PARTS):
            started = self.do(self._begun(Sender(holder, number)))
            self.world.copies[number] += 1
            receipt = Receipt(f"id{number}", f"https://example.org/{number}", {})
            last = number == PARTS - 1
            verdict = verdict_of(receipt, started.tries)
            self.do(self.store.settle(started, verdict, receipt, last=last, seconds=0.1))


def test_no_order_of_events_sends_twice_gets_stuck_or_breaks_the_ledger(
    database_url: str, settings: Settings
) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(Store.open(database_url, Vault.of(settings)))
        Machine.runner, Machine.store = runner, store
        try:
            run_state_machine_as_test(Machine, settings=_WALKS)
        finally:
            runner.run(store.close())


_WALKS = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
