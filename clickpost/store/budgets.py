"""Budgets: what was taken and what platforms said, under one lock for each holder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, func, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlmodel import col, select

from clickpost import budget
from clickpost.budget import Ask, Pot, Short, Spent, Standing, Told, Waiting
from clickpost.delivery import State
from clickpost.errors import Conflict
from clickpost.people import Right
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.tables import Allowance, Connection, Delivery, Post, Spend
from clickpost.telling import Event, Happening

#: Who should have asked again this long ago keeps nobody behind it waiting.
_LOST_AFTER = timedelta(hours=1)
#: Longer than any window: what is older counts nowhere and goes.
_KEPT_FOR = timedelta(days=2)
_OPEN = (State.PLANNED, State.PREPARING, State.READY)
#: In the order given, which is the same for all, so that nobody waits in a circle.
_LOCK = text(
    "SELECT pg_advisory_xact_lock(hashtextextended(one, 0))"
    " FROM unnest(CAST(:holders AS text[])) one"
)


_TOLD = """
    SELECT holder, what, "window", "left", resets_at, seen_at, total
    FROM allowance WHERE holder = ANY(CAST(:holders AS text[]))
"""
#: By the second, what is older by minutes. A group counts as its latest member: what it holds is
#: free a little later, never earlier.
_SPENT = """
    SELECT holder, what, sum(amount) AS amount, max(at) AS at
    FROM spend
    WHERE holder = ANY(CAST(:holders AS text[])) AND at > :since
      AND id <> ALL(CAST(:without AS text[]))
    GROUP BY holder, what, CASE
        WHEN at > :minutes THEN date_trunc('second', at)
        WHEN at > :hours THEN date_trunc('minute', at)
        ELSE date_bin('5 minutes', at, 'epoch')
    END
"""
#: Who was put off to another day meanwhile keeps nobody waiting until then.
_WAITING = """
    SELECT d.waits_for AS holder, d.id, p.workspace_id, d.queued_at, coalesce(
        jsonb_array_length(d.message) - coalesce(jsonb_array_length(d.receipts), 0), 1) AS posts
    FROM delivery d JOIN post p ON p.id = d.post_id JOIN connection c ON c.id = d.connection_id
    WHERE d.waits_for = ANY(CAST(:holders AS text[])) AND d.queued_at IS NOT NULL
      AND d.state = ANY(CAST(:open AS text[])) AND d.not_before > :lost
      AND coalesce(d.due_at, :moment) <= :moment AND c.status = 'active'
"""
#: All in one statement: each of them alone costs as much.
_BOOKS = text(f"""
    SELECT
        (SELECT jsonb_agg(to_jsonb(said)) FROM ({_TOLD}) said) AS told,
        (SELECT jsonb_agg(to_jsonb(taken)) FROM ({_SPENT}) taken) AS spent,
        (SELECT jsonb_agg(to_jsonb(queue)) FROM ({_WAITING}) queue) AS lines,
        delivery.state, delivery.queued_at, post.workspace_id
    FROM (SELECT CAST(:delivery AS text) AS id) asked
    LEFT JOIN delivery ON delivery.id = asked.id
    LEFT JOIN post ON post.id = delivery.post_id
""")  # noqa: S608 - of the parts above, and nothing else
_TAKE = text("""
    INSERT INTO spend (id, holder, what, amount, at, delivery_id)
    SELECT id, holder, what, amount, :at, :delivery
    FROM jsonb_to_recordset(:rows) AS taken (id text, holder text, what text, amount int)
    ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, at = excluded.at
""").bindparams(bindparam("rows", type_=JSONB))

Key = tuple[str, str]
PotKey = tuple[str, str, int]


@dataclass(frozen=True)
class Books:
    """What is written of some holders' pots: what platforms said, what was taken, who waits.

    And of the delivery that is asked about: its state and its place in line.
    """

    told: Mapping[PotKey, Told]
    spent: Mapping[Key, Sequence[Spent]]
    lines: Mapping[str, Sequence[Waiting]]
    state: str | None
    queued_at: datetime | None
    workspace_id: str | None


@dataclass(frozen=True)
class Taking:
    """What one delivery wants to take: its parts from `first` to before `end`, and its files."""

    delivery_id: str
    pots: tuple[Pot, ...]
    first: int = 0
    end: int = 1
    uploads: int = 0
    linked: frozenset[int] = frozenset()
    """The parts with an address in their text, by number."""

    @property
    def posts(self) -> int:
        """Return how many posts it has left to send."""
        return self.end - self.first

    def need(self, pot: Pot) -> int:
        """Return what all of it takes from one pot."""
        return sum(amount for _, amount in self._acts(pot, self.first))

    def rows(self, first: int | None = None) -> dict[str, tuple[Pot, int]]:
        """Return what each part takes, by the row's id: the same part takes once.

        Windows of the same budget, an hour and a day, share their rows.
        """
        start = self.first if first is None else first
        return {
            _row_id(self.delivery_id, act, pot): (pot, amount)
            for pot in self.pots
            for act, amount in self._acts(pot, start)
            if amount
        }

    def _acts(self, pot: Pot, first: int) -> list[tuple[str, int]]:
        # The guard counts a thread once: with its first part.
        acts = [
            (f"post{part}", int(part == 0) if pot.guard else self._one(pot, part))
            for part in range(first, self.end)
        ]
        return [*acts, ("upload", budget.need_of(pot, uploads=self.uploads))]

    def _one(self, pot: Pot, part: int) -> int:
        return budget.need_of(pot, posts=1, linked=int(part in self.linked))


def _row_id(delivery_id: str, act: str, pot: Pot) -> str:
    return f"{delivery_id}:{act}:{pot.holder}:{pot.what}"


class Budgets(Base):
    """What was taken from budgets, and what platforms said is left."""

    async def reserve(self, taking: Taking) -> Short | None:
        """Take what a delivery needs of all its pots, or none and put it in line.

        One transaction under the lock of each holder: two workers never take the same. A part's
        unused reservation, as a crash leaves it, is replaced. A delivery in line gets its
        `not_before`, place and reason. Raises Conflict where it is on its way already.
        """
        holders = sorted({pot.holder for pot in taking.pots})
        async with self.transaction() as session:
            await session.execute(_LOCK, {"holders": holders})
            moment = now()
            # Its own reservations were not used, or it would be on its way.
            own = list(taking.rows())
            books = await _books(session, holders, moment, own, taking.delivery_id)
            if books.state not in _OPEN:
                raise Conflict(f"{taking.delivery_id} is {books.state}, and needs no budget")
            short = _stopped(books.told, moment)
            if short is None:
                short = budget.decide(await _asks(session, taking, books, moment), moment)
            if short is not None:
                await _give_back(session, own)
                await _queue(session, taking.delivery_id, short, moment)
                return short
            await _take(session, taking.rows(), taking.delivery_id, moment)
            if books.queued_at is not None:
                await session.execute(_out_of_line(taking.delivery_id))
        return None

    async def forget_spent(self) -> None:
        """Remove what is older than any window."""
        async with self.session() as session:
            await session.execute(delete(Spend).where(col(Spend.at) < now() - _KEPT_FOR))

    async def give_back(self, taking: Taking, first: int) -> None:
        """Give back what was taken for the parts from `first` on, which were not sent."""
        spared = taking.rows(first).items()
        ids_ = [key for key, (pot, _) in spared if pot.what not in ("requests", "units")]
        async with self.session() as session:
            await _give_back(session, ids_)

    async def spend(self, delivery_id: str, act: str, pots: Sequence[Pot], **acts: int) -> None:
        """Count what was done without asking, as a takedown is."""
        needs = [(pot, budget.need_of(pot, **acts)) for pot in pots]
        rows = {_row_id(delivery_id, act, pot): (pot, need) for pot, need in needs if need}
        async with self.transaction() as session:
            await _take(session, rows, delivery_id, now())

    async def allow(self, holder: str, what: str, window: int, told: Told) -> None:
        """Keep what a platform said of a pot; an older answer never replaces a newer one."""
        values = {
            "total": told.total,
            "left": told.left,
            "resets_at": told.resets_at,
            "seen_at": told.seen_at,
        }
        change = insert(Allowance).values(holder=holder, what=what, window=window, **values)
        newest = change.on_conflict_do_update(
            index_elements=["holder", "what", "window"],
            set_=values,
            where=col(Allowance.seen_at) <= told.seen_at,
        )
        async with self.session() as session:
            await session.execute(newest)

    async def stop(self, holder: str, until: datetime) -> None:
        """Let nothing of the holder leave before `until`, as its platform asks; never earlier."""
        values = {"holder": holder, "what": budget.ANYTHING, "window": 0, "left": 0}
        change = insert(Allowance).values(**values, resets_at=until, seen_at=now())
        latest = func.greatest(Allowance.resets_at, change.excluded.resets_at)
        async with self.session() as session:
            await session.execute(
                change.on_conflict_do_update(
                    index_elements=["holder", "what", "window"],
                    set_={"resets_at": latest, "seen_at": change.excluded.seen_at},
                )
            )

    async def allowance_of(self, pot: Pot) -> Told | None:
        """Return what the platform last said of a pot."""
        async with self.session() as session:
            return (await _books(session, [pot.holder], now())).told.get(_told_key(pot))

    async def standings(self, pots: Sequence[Pot]) -> list[Standing]:
        """Return how pots stand now."""
        holders = sorted({pot.holder for pot in pots})
        moment = now()
        async with self.session() as session:
            books = await _books(session, holders, moment)
        return [
            budget.standing(pot, _spent_of(books, pot), books.told.get(_told_key(pot)), moment)
            for pot in pots
        ]

    async def stopped_until(self, holder: str) -> datetime | None:
        """Return until when the platform asked us to send nothing of the holder."""
        async with self.session() as session:
            short = _stopped((await _books(session, [holder], now())).told, now())
        return None if short is None else short.until

    async def foresee(
        self,
        pots: Sequence[Pot],
        *,
        posts: int = 0,
        linked: int = 0,
        uploads: int = 0,
        looks: int = 0,
    ) -> Short | None:
        """Say whether so much would have to wait, behind those in line; takes nothing."""
        holders = sorted({pot.holder for pot in pots})
        moment = now()
        async with self.session() as session:
            books = await _books(session, holders, moment)
        if short := _stopped(books.told, moment):
            return short
        asks = [
            Ask(
                pot,
                need=budget.need_of(pot, posts=posts, linked=linked, uploads=uploads, looks=looks),
                ahead=_needs(pot, books.lines.get(pot.holder, [])),
                spent=_spent_of(books, pot),
                told=books.told.get(_told_key(pot)),
            )
            for pot in pots
        ]
        return budget.decide(asks, moment)

    async def set_burst(
        self, connection_id: str, posts: int | None, *, actor: str = "operator"
    ) -> None:
        """Set how many posts an account may send in the guard's window; None: as the policy says.

        What waits for the guard asks again at once. Raises NotAllowed for who may not.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CONFIGURE)
            row = await session.get_one(Connection, connection_id, with_for_update=True)
            row.burst = posts
            await session.flush()
            change = update(Delivery).where(
                col(Delivery.connection_id) == connection_id,
                col(Delivery.state).in_(_OPEN),
                col(Delivery.queued_at).is_not(None),
            )
            await session.execute(change.values(not_before=now()))
            await append(session, "connection.burst", row.id, {"posts": posts}, actor)


async def _give_back(session: Any, ids_: Sequence[str]) -> None:
    await session.execute(delete(Spend).where(col(Spend.id).in_(ids_)))


async def _asks(session: Any, taking: Taking, books: Books, moment: datetime) -> list[Ask]:
    asks = []
    for pot in taking.pots:
        line = books.lines.get(pot.holder, [])
        before = await _before(session, taking, pot.holder, books, moment) if line else []
        asks.append(
            Ask(
                pot=pot,
                need=taking.need(pot),
                ahead=_needs(pot, before),
                spent=_spent_of(books, pot),
                told=books.told.get(_told_key(pot)),
            )
        )
    return asks


def _needs(pot: Pot, line: Sequence[Waiting]) -> int:
    return sum(budget.need_of(pot, posts=one.posts) for one in line)


async def _books(
    session: Any,
    holders: Sequence[str],
    moment: datetime,
    without: Sequence[str] = (),
    delivery_id: str | None = None,
) -> Books:
    """Return what is written of the holders' pots; `without` are takings that do not count."""
    given = {
        "holders": list(holders),
        "without": list(without),
        "since": moment - _KEPT_FOR,
        "minutes": moment - timedelta(minutes=10),
        "hours": moment - timedelta(hours=2),
        "open": [state.value for state in _OPEN],
        "lost": moment - _LOST_AFTER,
        "moment": moment,
        "delivery": delivery_id,
    }
    row = (await session.execute(_BOOKS, given)).one()
    spent: dict[Key, list[Spent]] = defaultdict(list)
    for one in row.spent or []:
        spent[one["holder"], one["what"]].append(Spent(one["amount"], _at(one["at"])))
    lines: dict[str, list[Waiting]] = defaultdict(list)
    for one in row.lines or []:
        place = one["id"], one["workspace_id"], _at(one["queued_at"]), max(one["posts"], 1)
        lines[one["holder"]].append(Waiting(*place))
    told = {
        (one["holder"], one["what"], one["window"]): Told(
            one["left"], _at(one["resets_at"]), _at(one["seen_at"]), one["total"]
        )
        for one in row.told or []
    }
    return Books(told, spent, lines, row.state, row.queued_at, row.workspace_id)


def _at(said: str) -> datetime:
    return datetime.fromisoformat(said)


def _spent_of(books: Books, pot: Pot) -> tuple[Spent, ...]:
    return tuple(books.spent.get((pot.holder, pot.what), ()))


def _told_key(pot: Pot) -> PotKey:
    return pot.holder, pot.what, pot.seconds


def _stopped(told: Mapping[PotKey, Told], moment: datetime) -> Short | None:
    """Return until when platforms asked us to send nothing; None where none did."""
    stops = [
        (one.resets_at, holder)
        for (holder, what, _), one in told.items()
        if what == budget.ANYTHING and one.resets_at > moment
    ]
    if not stops:
        return None
    until, holder = max(stops)
    return Short(holder, until, f"the platform says: too fast; next at {budget.clock(until)}")


async def _before(
    session: Any, taking: Taking, holder: str, books: Books, moment: datetime
) -> list[Waiting]:
    """Return who of a holder's line goes before this delivery."""
    line = list(books.lines[holder])
    if all(one.delivery_id != taking.delivery_id for one in line):
        since = books.queued_at or moment
        line.append(Waiting(taking.delivery_id, str(books.workspace_id), since))
    return budget.ahead_of(taking.delivery_id, line, await _served(session, holder))


async def _served(session: Any, holder: str) -> dict[str, datetime]:
    """Return when each workspace last took from the holder's pots."""
    query = (
        select(col(Post.workspace_id), func.max(Spend.at))
        .join(Delivery, col(Delivery.post_id) == col(Post.id))
        .join(Spend, col(Spend.delivery_id) == col(Delivery.id))
        .where(Spend.holder == holder)
        .group_by(col(Post.workspace_id))
    )
    return {row[0]: row[1] for row in (await session.execute(query)).all()}


async def _take(
    session: Any, rows: Mapping[str, tuple[Pot, int]], delivery_id: str, moment: datetime
) -> None:
    taken = [
        {"id": key, "holder": pot.holder, "what": pot.what, "amount": amount}
        for key, (pot, amount) in rows.items()
    ]
    if taken:
        await session.execute(_TAKE, {"rows": taken, "at": moment, "delivery": delivery_id})


async def _queue(session: Any, delivery_id: str, short: Short, moment: datetime) -> None:
    """Put a delivery in line; tell an operator where the guard holds back more than a few."""
    reason, who = short.reason, "nobody"
    if short.guard:
        reason, who = budget.guarded(reason, await _waiting(session, delivery_id, short.holder))
    change = (
        update(Delivery)
        .where(col(Delivery.id) == delivery_id, col(Delivery.state).in_(_OPEN))
        .values(
            not_before=short.until,
            queued_at=func.coalesce(Delivery.queued_at, moment),
            waits_for=short.holder,
            reason=reason,
            who_acts=who,
            updated_at=moment,
        )
        .returning(col(Delivery.connection_id))
    )
    connection_id = await session.scalar(change)
    if who != "nobody" and connection_id is not None:
        await _tripped(session, connection_id, short, reason)


async def _waiting(session: Any, delivery_id: str, holder: str) -> int:
    """Return how many wait in a holder's line, this delivery among them."""
    query = select(func.count()).where(
        col(Delivery.waits_for) == holder,
        col(Delivery.id) != delivery_id,
        col(Delivery.queued_at).is_not(None),
        col(Delivery.state).in_(_OPEN),
    )
    return int(await session.scalar(query)) + 1


async def _tripped(session: Any, connection_id: str, short: Short, reason: str) -> None:
    """Write that the guard holds back more than a few: once for each hour and connection."""
    connection = await session.get_one(Connection, connection_id)
    facts = {
        "where": connection.ref,
        "reason": reason,
        "who_acts": "an operator",
        "connection_id": connection_id,
    }
    once = f"{Event.GUARD}:{connection_id}:{now():%Y-%m-%dT%H}"
    happening = Happening(Event.GUARD, connection_id, once, facts)
    await notices.write(session, connection.workspace_id, happening)


def _out_of_line(delivery_id: str) -> Any:
    return (
        update(Delivery)
        .where(col(Delivery.id) == delivery_id, col(Delivery.queued_at).is_not(None))
        .values(queued_at=None, waits_for=None, reason=None, who_acts=None)
    )
