"""Carries an erasure into the further databases, and says of each what became of it there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from clickpost import elsewhere
from clickpost.certificate import BLOCKING, Outcome
from clickpost.datamap import Gap, Schema
from clickpost.elsewhere import Roots
from clickpost.erasure import Action, State
from clickpost.errors import ClickPostError, GuardTripped, InvalidInput, PolicyError
from clickpost.logs import logger
from clickpost.policy import keeping
from clickpost.policy.erasing import Erasure as ErasurePolicy
from clickpost.policy.keeping import Keeping
from clickpost.policy.load import BrokenPolicies, Report
from clickpost.policy.privacy import Retention, TableMap
from clickpost.policy.source import Problem
from clickpost.retention import Fate
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.elsewhere import Elsewhere, gaps_of, live
from clickpost.store.erasing import Erasing
from clickpost.store.erasing_elsewhere import ErasingElsewhere, erasing_of
from clickpost.store.erasures import Erasures, Planned
from clickpost.store.erasures_elsewhere import ErasuresElsewhere, remember, sought
from clickpost.store.purging import BATCH, Purging
from clickpost.store.subjects import Subjects
from clickpost.store.tables import Erasure
from tasks._rounds import Progress, worked_out

log = logger("elsewhere")

#: What a further database is called in plans and certificates that cannot say more of it.
_WHAT = "A further database."
#: A database that is away is tried again so much later.
_AGAIN = timedelta(minutes=15)


@dataclass(frozen=True)
class Left:
    """What became of the subject in all further databases; `open` says why that is not the end."""

    outcomes: tuple[Outcome, ...] = ()
    open: str | None = None
    state: State = "waiting"

    @property
    def again_at(self) -> datetime | None:
        """When it is tried again by itself; None where somebody has to act first."""
        return datetime.now(UTC) + _AGAIN if self.state == "waiting" else None


@dataclass(frozen=True)
class Reach:
    """One erasure, and the policies by which it is followed in further databases."""

    erasures: Erasures
    row: Erasure
    ours: Erasing
    known: Keeping
    policy: ErasurePolicy

    @property
    def databases(self) -> Mapping[str, Mapping[str, TableMap]]:
        """The further databases that have anything to do with it."""
        found = sorted(self.known.databases.items())
        return {name: tables for name, tables in found if elsewhere.is_about(self.policy, tables)}

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[tuple[ErasuresElsewhere, ErasingElsewhere]]:
        """Yield what works on it in one database; raise PolicyError where its map does not fit."""
        tables = self.known.databases[name]
        purging = Purging(self.erasures.engine, self.erasures.vault)
        async with Elsewhere.opened(name, purging) as there:
            schema = await _fitting(there, tables)
            action = cast("Action", self.row.action)
            retention = _retention(self.known, name)
            one = erasing_of(self.policy, action, name, tables, retention, schema)
            yield ErasuresElsewhere(self.erasures, there), one


async def _fitting(there: Elsewhere, tables: Mapping[str, TableMap]) -> Schema:
    """Return the tables that there are; raise PolicyError where the map does not fit them."""
    schema = await there.schema()
    if gaps := await there.gaps(tables, schema):
        raise PolicyError("; ".join(gaps))
    return schema


def _retention(known: Keeping, name: str) -> dict[str, Retention]:
    """Return the retention policies about a database."""
    return {one.name: one for one in known.elsewhere.values() if one.database == name}


async def reading(
    there: Elsewhere, known: Keeping, policy: ErasurePolicy, roots: Roots
) -> ErasingElsewhere:
    """Return by what rows are found there, for who only reads; raise as `_fitting` does."""
    tables = known.databases[there.name]
    schema = await _fitting(there, tables)
    return ErasingElsewhere(
        elsewhere.derived(policy, there.name, roots),
        "erasure",
        tables,
        _retention(known, there.name),
        schema,
        database=there.name,
        roots=roots,
    )


async def may_hold(settings: Settings, store: Store, digest: str) -> bool:
    """Say whether a further database knows an address, by its digest; yes where one cannot tell."""
    known = keeping.load(settings.policies)
    key = await Subjects(store.engine, store.vault).subject_key()
    for policy in (one for one in known.erasure.values() if one.digest is not None):
        for name, tables in sorted(known.databases.items()):
            if not elsewhere.is_about(policy, tables):
                continue
            roots = elsewhere.only(elsewhere.roots(policy, tables), "address")
            try:
                async with Elsewhere.opened(name, Purging(store.engine, store.vault)) as there:
                    found = await reading(there, known, policy, roots)
                    if any((await sought(there, found, {}, key, digest)).values()):
                        return True
            except ClickPostError as error:
                log.warning("nobody can tell", database=name, error=type(error).__name__)
                return True
    return False


def reach(settings: Settings, erasures: Erasures, row: Erasure, ours: Erasing) -> Reach:
    """Return how an erasure reaches further databases."""
    return Reach(erasures, row, ours, keeping.load(settings.policies), ours.policy)


async def plan(reached: Reach) -> list[Planned]:
    """Return what would be done in each further database; what cannot be known is said."""
    lines: list[Planned] = []
    for name in reached.databases:
        await remember(reached.erasures, reached.row, reached.ours, name)
        try:
            async with reached.opened(name) as (erasures, one):
                lines += await erasures.planned(reached.row, one)
        except ClickPostError as error:
            blocked = _blocked(name, error)
            lines.append(Planned(name, _WHAT, blocked.outcome, 0, blocked.rule))
    return lines


async def carry_out(reached: Reach, size: int = BATCH, progress: Progress = lambda _: None) -> Left:
    """Do what is left in every further database, and read back; one that fails stops no other."""
    outcomes: list[Outcome] = []
    for name in reached.databases:
        try:
            async with reached.opened(name) as (erasures, one):
                found = await _erased(erasures, reached.row, one, size, progress)
            outcomes += [replace(said, location=f"{name}.{said.location}") for said in found]
        except ClickPostError as error:
            log.warning("not erased there", database=name, error=type(error).__name__)
            outcomes.append(_blocked(name, error))
    blocking = [one for one in outcomes if one.outcome in BLOCKING]
    if not blocking:
        return Left(tuple(outcomes))
    is_away = any(one.outcome == "unreachable" for one in blocking)
    reasons = "; ".join(str(one.rule) for one in blocking)
    return Left(tuple(outcomes), reasons, "waiting" if is_away else "blocked")


async def remember_all(reached: Reach) -> None:
    """Keep by which ids of ours each further database may know the subject, while we have them."""
    for name in reached.databases:
        await remember(reached.erasures, reached.row, reached.ours, name)


async def _erased(
    erasures: ErasuresElsewhere,
    row: Erasure,
    one: ErasingElsewhere,
    size: int,
    progress: Progress,
) -> list[Outcome]:
    await erasures.settle(row)
    await erasures.find(row, one)
    return await worked_out(erasures, row, one, size, progress)


def _blocked(name: str, error: ClickPostError) -> Outcome:
    """Return what stands in the way: a database that is away, or one where we cannot work."""
    match error:
        case PolicyError() | GuardTripped():
            return Outcome(name, _WHAT, "unsupported", 0, str(error))
        case _:
            return Outcome(name, _WHAT, "unreachable", 0, str(error))


async def fates(
    store: Store, known: Keeping, place: str, row_id: str, at: datetime
) -> dict[str, Fate]:
    """Return what each policy that is about a row there does to it; `place` is `shop.orders`.

    Raises InvalidInput for no table or no row, Unavailable where the database is away.
    """
    name, _, table = place.partition(".")
    tables = known.databases.get(name, {})
    if table not in tables:
        places = (f"{one}.{each}" for one, some in known.databases.items() for each in some)
        raise InvalidInput(f"unknown table {place!r} (known: {', '.join(sorted(places))})")
    async with Elsewhere.opened(name, Purging(store.engine, store.vault)) as there:
        schema = await _fitting(there, tables)
        about = [
            there.compiled(one, tables, schema)
            for one in _retention(known, name).values()
            if table in (one.data, *one.beside)
        ]
        return await there.fates(table, row_id, about, at)


def looked(folder: Path) -> Report:
    """Hold every further database against its map, as far as each answers.

    A gap is a problem that names its column. That a database does not answer is a warning, for it
    says nothing about the map; so is what erasures would stop at.
    """
    report = Report()
    try:
        known = keeping.load(folder)
    except BrokenPolicies:  # Which whoever reads the files tells.
        return report
    for name, tables in sorted(known.databases.items()):
        try:
            schema = live(name)
        except ClickPostError as error:
            said = f"{error}; its map was not held against its tables"
            report.warnings.append(Problem(_source(known, name), 1, 1, name, said))
            continue
        found = [_problem(known, name, gap) for gap in gaps_of(name, tables, schema)]
        report.problems += found
        for why in () if found else faults(known, name, schema):
            report.warnings.append(Problem(_source(known, name), 1, 1, name, why))
    return report


def faults(known: Keeping, name: str, schema: Schema) -> list[str]:
    """Return, of each erasure policy that reaches a database, what would stop an erasure there."""
    tables = known.databases[name]
    return [
        f"an erasure under {policy.name} would stop: {why}"
        for _, policy in sorted(known.erasure.items())
        if elsewhere.is_about(policy, tables)
        for why in elsewhere.faults(policy, name, tables, schema)
    ]


def _problem(known: Keeping, name: str, gap: Gap) -> Problem:
    """Return a gap as a problem of the file that maps its table, or that would."""
    table = gap.path[1] if gap.path else ""
    source = known.sources.get(f"table {name}.{table}")
    if source is None:
        return Problem(_source(known, name), 1, 1, gap.place, gap.why)
    return Problem(source.file, *source.place(gap.path), gap.place, gap.why)


def _source(known: Keeping, name: str) -> str:
    """Return the file that maps a database."""
    files = (one.file for key, one in known.sources.items() if key.startswith(f"table {name}."))
    return next(files, "policies/data_map")
