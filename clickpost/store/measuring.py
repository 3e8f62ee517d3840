"""Numbers for whoever watches the engine as a whole: counts by platform and state, no names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, text
from sqlmodel import col, select

from clickpost import ids
from clickpost.store._base import Base
from clickpost.store.tables import Attempt, Connection, Delivery, Notice, Telling

#: Lateness and attempts are told of this last span.
LATELY = timedelta(hours=1)
#: Seconds of lateness that are told apart.
LATENESS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True)
class Measures:
    """How many there are now, each by its labels; times in seconds."""

    deliveries: dict[tuple[str, str], int]
    attempts: dict[tuple[str, str], int]
    connections: dict[tuple[str, str], int]
    lateness: tuple[tuple[float, int], ...]
    lateness_sum: float
    due: int
    oldest_due: float
    waiting_for_budget: int
    untold: dict[str, int]
    unemitted: int


_LATENESS = text(
    """
    SELECT width_bucket(late, CAST(:bounds AS float8[])) AS bucket, count(*), sum(late)
    FROM (
        SELECT greatest(extract(epoch FROM sent_at - due_at), 0)::float8 AS late
        FROM delivery
        WHERE state IN ('live', 'processing', 'gone', 'removed')
          AND due_at BETWEEN :since AND :moment AND sent_at IS NOT NULL
    ) one
    GROUP BY bucket
    """
)
_DUE = text(
    """
    SELECT count(*) FILTER (WHERE waits_for IS NULL),
           coalesce(extract(epoch FROM :moment - min(due_at) FILTER (WHERE waits_for IS NULL)), 0),
           count(*) FILTER (WHERE waits_for IS NOT NULL)
    FROM delivery
    WHERE state IN ('planned', 'preparing', 'ready')
      AND (waits_for IS NOT NULL
           OR (due_at <= :moment AND (not_before IS NULL OR not_before <= :moment)))
    """
)


class Measuring(Base):
    """Counts over the whole house."""

    async def measures(self, moment: datetime) -> Measures:
        """Count what there is at `moment`."""
        async with self.session() as session:
            lateness, late_sum = await _lateness(session, moment)
            due, oldest, waiting = (await session.execute(_DUE, {"moment": moment})).one()
            emitted = select(func.count()).where(col(Notice.emitted_at).is_(None))
            return Measures(
                deliveries=await _deliveries(session),
                attempts=await _attempts(session, moment),
                connections=await _connections(session),
                lateness=lateness,
                lateness_sum=late_sum,
                due=int(due),
                oldest_due=max(float(oldest), 0.0),
                waiting_for_budget=int(waiting),
                untold=await _untold(session),
                unemitted=int(await session.scalar(emitted) or 0),
            )

    async def clock(self) -> datetime:
        """Return the database's time."""
        async with self.session() as session:
            found: datetime = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one()
        return found


async def _by_two(session: Any, query: Any) -> dict[tuple[str, str], int]:
    rows = (await session.execute(query)).all()
    return {(str(row[0]), str(row[1])): int(row[2]) for row in rows}


async def _deliveries(session: Any) -> dict[tuple[str, str], int]:
    counted = (
        select(col(Delivery.connection_id), col(Delivery.state), func.count().label("number"))
        .group_by(col(Delivery.connection_id), col(Delivery.state))
        .subquery()
    )
    query = (
        select(col(Connection.platform), counted.c.state, func.sum(counted.c.number))
        .join(counted, counted.c.connection_id == col(Connection.id))
        .group_by(col(Connection.platform), counted.c.state)
    )
    return await _by_two(session, query)


async def _attempts(session: Any, moment: datetime) -> dict[tuple[str, str], int]:
    verdict = func.coalesce(col(Attempt.verdict), "none_yet")
    query = (
        select(col(Connection.platform), verdict, func.count())
        .join(Delivery, col(Delivery.connection_id) == col(Connection.id))
        .join(Attempt, col(Attempt.delivery_id) == col(Delivery.id))
        # Ids begin with their time: the primary key finds the last ones.
        .where(col(Attempt.id) >= ids.first_of("try", moment - LATELY))
        .group_by(col(Connection.platform), verdict)
    )
    return await _by_two(session, query)


async def _connections(session: Any) -> dict[tuple[str, str], int]:
    query = select(col(Connection.platform), col(Connection.status), func.count()).group_by(
        col(Connection.platform), col(Connection.status)
    )
    return await _by_two(session, query)


async def _lateness(session: Any, moment: datetime) -> tuple[tuple[tuple[float, int], ...], float]:
    """Return how many came at most so many seconds late, growing; the last is all of them."""
    given = {"bounds": list(LATENESS), "since": moment - LATELY, "moment": moment}
    rows = (await session.execute(_LATENESS, given)).all()
    counts = {int(row[0]): int(row[1]) for row in rows}
    grown, so_far = [], 0
    for number, bound in enumerate((*LATENESS, float("inf"))):
        so_far += counts.get(number, 0)
        grown.append((bound, so_far))
    return tuple(grown), float(sum(row[2] for row in rows))


async def _untold(session: Any) -> dict[str, int]:
    trouble = (col(Telling.state) == "waiting") & col(Telling.reason).is_not(None)
    query = (
        select(col(Telling.state), func.count())
        .where(trouble | (col(Telling.state) == "given_up"))
        .group_by(col(Telling.state))
    )
    rows = (await session.execute(query)).all()
    return {"waiting": 0, "given_up": 0} | {str(row[0]): int(row[1]) for row in rows}
