"""Counts by the day on which rows expire: what a purge will touch, and no value of any row."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from clickpost.simulation import RECENT, Bucket
from clickpost.store._base import Base
from clickpost.store.expiring import Compiled
from clickpost.store.treatments import quoted

_PARAM = re.compile(r"(?<![\\:]):(p\d+|held_\d+)\b")
#: As many days of counts are fetched at a time.
_AT_ONCE = 1000


@dataclass(frozen=True)
class Rule:
    """One policy as it stands in a query beside others about the same table."""

    number: int
    compiled: Compiled

    def sql(self, said: str) -> str:
        """Return a condition or value of the policy, its parameters told from those of others."""
        return _PARAM.sub(rf":q{self.number}_\1", said)

    @property
    def params(self) -> dict[str, Any]:
        """The values of those parameters."""
        return {f"q{self.number}_{name}": one for name, one in self.compiled.params.items()}

    def columns(self) -> list[str]:
        """Return what a query needs of a row `r`: its expiry, the purpose, whether it stays."""
        one, policy = self.compiled, self.compiled.policy
        ends = [
            f"CASE WHEN {one.is_active(purpose)}"
            f" THEN coalesce({one.until(purpose)}, 'infinity'\\:\\:timestamptz) END"
            for purpose in policy.purposes
        ]
        longest = f"greatest({', '.join(ends)})"
        applies = f"({one.concerned()}) AND {one.untreated()}"
        which = " ".join(f"WHEN {end} = {longest} THEN {n}" for n, end in enumerate(ends))
        begins = ", ".join(f"r.{quoted(name)}" for name in policy.purposes[0].clock)
        said = (
            f"CASE WHEN {applies} THEN {longest} END AS e{self.number}",
            f"CASE {which} END AS w{self.number}",
            f"{one.staying()} AS s{self.number}",
            f"coalesce(coalesce({begins}) > :at - {_span(RECENT)}, false) AS n{self.number}",
        )
        return [self.sql(part) for part in said]


class Forecasting(Base):
    """Histograms of expiry, one for each policy and table."""

    async def buckets(
        self, policies: Sequence[Compiled], at: datetime, horizon: timedelta
    ) -> AsyncIterator[Bucket]:
        """Yield how many rows of one table each of its policies touches, by day until `horizon`.

        The tables that lose rows with these come too. Where two policies delete the same row, it
        counts for the one that does so first; anonymizing counts as long as the row is there.
        """
        rules = [Rule(number, one) for number, one in enumerate(policies)]
        given: dict[str, Any] = {"at": at, "until": at + horizon}
        query = _inner(rules)
        for rule in rules:
            given |= rule.params
        for rule in rules:
            for table, joined in _tables(rule.compiled):
                counted = text(_counted(rules, rule, query, joined))
                async for bucket in self._fetched(counted, given, rule, table):
                    yield bucket

    async def _fetched(
        self, query: Any, given: dict[str, Any], rule: Rule, table: str
    ) -> AsyncIterator[Bucket]:
        async with self.engine.connect() as connection:
            rows = await connection.stream(query, given)
            async for part in rows.partitions(_AT_ONCE):
                for row in part:
                    policy = rule.compiled.policy
                    why = policy.purposes[row.which].why
                    yield Bucket(
                        policy.name, table, row.day, why, row.stays, row.recent, row.number
                    )

    async def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Return how many rows each table has."""
        async with self.session() as session:
            return {
                name: int(await session.scalar(text(f"SELECT count(*) FROM {quoted(name)}")) or 0)
                for name in names
            }


def _inner(rules: Sequence[Rule]) -> str:
    columns = ", ".join(part for rule in rules for part in rule.columns())
    one = rules[0].compiled
    return f"SELECT r.{one.key(one.policy.data)} AS id, {columns} FROM {one.table} r"


def _tables(compiled: Compiled) -> list[tuple[str, str]]:
    """Return the policy's table and those that lose rows with it, each with its joins."""
    joins = {compiled.policy.data: ("e", "")}
    for number, key in enumerate(compiled.below):
        owner, before = joins[key.to]
        alias = f"c{number}"
        # The innermost query calls the key of the policy's own table `id`.
        at = f"{owner}.{'id' if owner == 'e' else compiled.key(key.to)}"
        join = f" JOIN {quoted(key.table)} {alias} ON {alias}.{quoted(key.column)} = {at}"
        joins[key.table] = (alias, before + join)
    return [(table, join) for table, (_, join) in joins.items()]


def _counted(rules: Sequence[Rule], rule: Rule, inner: str, joined: str) -> str:
    """Return a query that counts what one rule touches, by day, purpose, and whether it stays."""
    n = rule.number
    deleting = [one.number for one in rules if one.compiled.policy.then != "anonymize"]
    others = [f"(e.e{m} IS NULL OR e.s{m} OR {_is_before(rule, m)})" for m in deleting if m != n]
    first = " AND ".join(others) or "true"
    return f"""
        SELECT (greatest(e.e{n}, :at) AT TIME ZONE 'UTC')::date AS day, e.w{n} AS which,
               e.s{n} AS stays, e.n{n} AS recent, count(*) AS number
        FROM ({inner}) e{joined}
        WHERE e.e{n} <= :until AND {first}
        GROUP BY 1, 2, 3, 4 ORDER BY 1
    """.replace("::date", r"\:\:date")


def _is_before(rule: Rule, deleting: int) -> str:
    """Return the condition that a rule finds the row before another one deletes it.

    One run treats before it deletes; of two that delete at once the first by name counts.
    """
    n, m = rule.number, deleting
    if rule.compiled.policy.then == "anonymize":
        return f"greatest(e.e{n}, :at) <= greatest(e.e{m}, :at)"
    return f"e.e{n} {'<=' if n < m else '<'} e.e{m}"


def _span(span: timedelta) -> str:
    return f"interval '{span.total_seconds():.0f} seconds'"
