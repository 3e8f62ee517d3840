"""Decides about retention: whether a policy fits the tables, a run its limit; says it in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from clickpost.datamap import Reference, Schema, follow
from clickpost.errors import GuardTripped
from clickpost.policy.privacy import Retention, TableMap, places_of

Place = tuple[str | int, ...]


def faults(
    policy: Retention, tables: Mapping[str, TableMap], schema: Schema
) -> Iterator[tuple[Place, str]]:
    """Yield where a policy speaks of what is not there, and why."""
    there = schema.get(policy.data)
    if there is None or policy.data not in tables:
        yield ("data",), f"{policy.data} is no table of the data map"
        return
    if there.key == "id" and "id" not in there.kinds:
        yield ("data",), f"{policy.data} has no column id, by which rows are walked"
    for number, purpose in enumerate(policy.purposes):
        for step, column in enumerate(purpose.clock):
            if there.kinds.get(column) != "time":
                yield ("purposes", number, "from", step), f"{column} is no time of {policy.data}"
        yield from _unknown(("purposes", number, "where"), purpose.where, policy.data, schema)
        yield from _unknown(("purposes", number, "unless"), purpose.unless, policy.data, schema)
    yield from _unknown(("where",), policy.where, policy.data, schema)
    yield from _unknown(("by",), policy.by, policy.data, schema)
    yield from _unknown(("person",), [policy.person] if policy.person else [], policy.data, schema)
    if policy.platform is not None and tables[policy.data].platform is None:
        yield ("platform",), f"the map does not say from which platform a row of {policy.data} came"
    reached = {one.table for one in below(policy, schema)}
    for number, table in enumerate(policy.beside):
        if table not in reached:
            yield ("with", number), f"{table} does not belong to {policy.data} by a foreign key"
    for number, column in enumerate(policy.columns or ()):
        if not treated(tables[policy.data], [column]):
            yield ("columns", number), f"the map has no treatment for {policy.data}.{column}"
    if policy.then == "anonymize" and not treated(tables[policy.data], policy.columns):
        yield ("then",), f"the map keeps every column of {policy.data} as it is"


def _unknown(
    place: Place, names: Iterable[str], table: str, schema: Schema
) -> Iterator[tuple[Place, str]]:
    for name in names:
        if name not in schema[table].kinds:
            yield place, f"{name} is no column of {table}"


def below(policy: Retention, schema: Schema) -> list[Reference]:
    """Return the foreign keys by which rows go with those of the policy, nearest table first.

    A table appears once, after the one that it belongs to, so that the reverse is the order in
    which rows can be deleted.
    """
    found: list[Reference] = []
    known = {policy.data}
    waiting = list(policy.beside)
    while waiting:
        for table in waiting:
            keys = schema[table].references if table in schema else ()
            key = next((one for one in keys if one.to in known and one.table != one.to), None)
            if key is not None:
                found.append(key)
                known.add(table)
                waiting.remove(table)
                break
        else:
            return found
    return found


def outside(policy: Retention, schema: Schema) -> list[Reference]:
    """Return the foreign keys of other tables that keep a row of the policy from being deleted."""
    inside = {policy.data, *policy.beside}
    used = below(policy, schema)
    return [
        one
        for columns in schema.values()
        for one in columns.references
        if one.to in inside and one not in used and one.table != one.to
    ]


def treated(table: TableMap, columns: Iterable[str] | None) -> list[str]:
    """Return the columns (all, or of `columns`) that anonymization changes."""
    wanted = set(columns) if columns is not None else None
    return [
        name
        for name, said in table.columns.items()
        if (wanted is None or name in wanted)
        and any(one.treatment not in (None, "keep") for one in places_of(name, said).values())
    ]


def subject_tables(table: str, tables: Mapping[str, TableMap], schema: Schema) -> set[str]:
    """Return the tables through which rows of `table` lead to whom they are about."""
    found = set()
    for path in tables[table].subject:
        if (led := follow(schema, table, path)) is not None:
            found |= {step.to for step in led[0]}
    return found


@dataclass(frozen=True)
class Tally:
    """What a purge would touch: `found` rows of `total`; `held` have expired, and stay."""

    policy: str
    data: str
    found: int
    total: int
    held: int
    referred_to: int


def guard(policy: Retention, tally: Tally) -> None:
    """Raise GuardTripped where a run would touch more than its policy allows."""
    if tally.found > policy.limit.rows:
        raise GuardTripped(
            f"{policy.name}: {tally.found} rows of {policy.data} have expired, and one run may"
            f" touch {policy.limit.rows}; raise limit.rows in its policy once you have looked"
        )
    if tally.found > policy.limit.share * tally.total:
        raise GuardTripped(
            f"{policy.name}: {tally.found} of {tally.total} rows of {policy.data} have expired, and"
            f" one run may touch {policy.limit.share:.0%}; raise limit.share in its policy once you"
            " have looked"
        )


@dataclass(frozen=True)
class Clock:
    """One purpose as it stands for one row: `until` None where its time has not begun."""

    policy: str
    then: str
    why: str
    basis: str
    cite: str
    until: datetime | None
    confirmed: bool = True


@dataclass(frozen=True)
class Fate:
    """What one policy does to one row: the purpose that lasts longest, holds, and referrers."""

    clock: Clock
    holds: tuple[str, ...] = ()
    referrers: tuple[str, ...] = ()
    mode: str = "dry_run"

    def is_over(self, at: datetime) -> bool:
        """Say whether a purge at this moment touches it."""
        past = self.clock.until is not None and self.clock.until <= at
        return past and not self.holds and not self.referrers


def longest(clocks: Iterable[Clock]) -> Clock:
    """Return the purpose that lasts longest; one whose time has not begun lasts longer than all."""
    return max(clocks, key=lambda one: (one.until is None, one.until or datetime.max))


def first(fates: Iterable[Fate]) -> Fate | None:
    """Return the fate that comes first of all policies that are about a value, None for none."""
    order = sorted(
        fates,
        key=lambda one: (
            bool(one.holds or one.referrers),
            one.clock.until is None,
            one.clock.until.timestamp() if one.clock.until else 0.0,
        ),
    )
    return order[0] if order else None


_BASIS = {
    "consent": "by consent",
    "contract": "for the contract",
    "legal_obligation": "because the law demands it",
    "legal_claims": "for legal claims",
    "legitimate_interest": "for a legitimate interest",
    "platform_terms": "within the platform's terms",
}
_THEN = {
    "delete": "deleted",
    "anonymize": "anonymized",
    "aggregate": "counted, then deleted",
}


def sentence(place: str, fate: Fate | None, left: str | None = None) -> str:
    """Say in one sentence why a value is still there and until when; `left` what remains of it."""
    if fate is None:
        return f"{place} stays: no retention policy is about it."
    clock = fate.clock
    doubt = "" if clock.confirmed else ", which nobody confirmed at its source"
    why = f"{place} is kept {_BASIS[clock.basis]} ({clock.why}; {clock.cite}{doubt})"
    if clock.until is None:
        until = f"with no end yet: the time of {clock.policy} has not begun"
    else:
        until = f"until {clock.until:%Y-%m-%d %H:%M} UTC"
    if left == "keep" and clock.then == "anonymize":
        return f"{place} stays: it is what anonymization keeps ({clock.policy})."
    then = f"then it is {_THEN[clock.then]}"
    if fate.holds:
        then = f"and then held: {'; '.join(fate.holds)}"
    elif fate.referrers:
        then = f"and then as long as {', '.join(fate.referrers)} still needs it"
    elif fate.mode == "dry_run":
        then += f" once {clock.policy} says mode: apply"
    return f"{why} {until}; {then}."
