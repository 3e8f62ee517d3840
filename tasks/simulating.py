"""Foretells what retention policies will touch: today's, and those of another revision."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from io import BytesIO
from itertools import groupby
from pathlib import Path

from clickpost import datamap, simulation
from clickpost.datamap import Schema
from clickpost.errors import ClickPostError, InvalidInput
from clickpost.policy import keeping
from clickpost.policy.keeping import Keeping
from clickpost.policy.load import BrokenPolicies
from clickpost.policy.privacy import Retention
from clickpost.settings import Settings
from clickpost.simulation import Bucket, Forecast
from clickpost.store import Store
from clickpost.store.elsewhere import Elsewhere
from clickpost.store.expiring import Compiled
from clickpost.store.forecasting import Forecasting
from clickpost.store.purging import Purging

#: Git gets so many seconds to hand over a revision.
_GIT = 30


async def foretold(
    store: Store, folder: Path, at: datetime, days: int, *, strict: bool = True
) -> Forecast:
    """Return what the policies of a folder will touch in `days` days from `at` on.

    Every policy is taken as if it said `mode: apply`. Raises BrokenPolicies where the folder does
    not fit the tables; without `strict`, columns that its map does not know yet are no fault.
    """
    found = keeping.load(folder)
    schema = await Purging(store.engine, store.vault).schema()
    _refuse(found, schema, strict=strict)
    policies = [Compiled(one, found.tables.tables, schema) for one in found.retention.values()]
    forecasting = Forecasting(store.engine, store.vault)
    buckets = [one async for one in _all(forecasting, policies, at, timedelta(days=days))]
    names = sorted({one.policy.data for one in policies} | {one.table for one in buckets})
    sizes = await forecasting.sizes(names)
    further = await _further(store, found, at, timedelta(days=days))
    forecast = simulation.forecast(
        [*found.retention.values(), *further.policies],
        [*buckets, *further.buckets],
        sizes | further.sizes,
        at.date(),
        days,
    )
    forecast.missing = tuple(further.missing)
    return forecast


@dataclass
class _Further:
    """What was counted in further databases, whose tables have their database's name before."""

    policies: list[Retention] = field(default_factory=list)
    buckets: list[Bucket] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


async def _further(store: Store, known: Keeping, at: datetime, horizon: timedelta) -> _Further:
    """Count what the policies about further databases touch; one that is away stops no other."""
    counted = _Further()
    for name in sorted({str(one.database) for one in known.elsewhere.values()}):
        try:
            async with Elsewhere.opened(name, Purging(store.engine, store.vault)) as there:
                await _counted(there, known, at, horizon, counted)
        except ClickPostError as error:
            counted.missing.append(str(error))
    return counted


async def _counted(
    there: Elsewhere, known: Keeping, at: datetime, horizon: timedelta, counted: _Further
) -> None:
    """Count under all policies about one database; raise InvalidInput for one that misses it."""
    tables, schema = known.databases.get(there.name, {}), await there.schema()
    policies = [
        there.compiled(one, tables, schema)
        for one in known.elsewhere.values()
        if one.database == there.name
    ]
    for one in policies:
        await there.bind(one, at)
    forecasting = Forecasting(there.engine, there.ours.vault)
    buckets = [one async for one in _all(forecasting, policies, at, horizon)]
    names = {one.policy.data for one in policies} | {one.table for one in buckets}
    sizes = await forecasting.sizes(sorted(names))
    at_home = f"{there.name}."
    for one in policies:
        policy = one.policy.model_copy(update={"data": at_home + one.policy.data})
        counted.policies.append(policy)
    counted.buckets += [replace(one, table=at_home + one.table) for one in buckets]
    counted.sizes |= {at_home + table: size for table, size in sizes.items()}


def _refuse(found: Keeping, schema: Schema, *, strict: bool) -> None:
    wrong = keeping.disagreements(found, schema)
    if not strict:
        known = {gap.place for gap in datamap.gaps(found.tables.tables, schema) if not gap.path}
        wrong = [one for one in wrong if one.key not in known]
    if wrong:
        raise BrokenPolicies(tuple(wrong))


async def _all(
    forecasting: Forecasting, policies: Sequence[Compiled], at: datetime, horizon: timedelta
) -> AsyncIterator[Bucket]:
    """Yield the counts of all policies: at most a row for each table, day and purpose."""
    ordered = sorted(policies, key=lambda one: (one.policy.data, one.policy.name))
    for _, group in groupby(ordered, key=lambda one: one.policy.data):
        async for bucket in forecasting.buckets(list(group), at, horizon):
            yield bucket


async def compared(
    store: Store, settings: Settings, against: str | None, at: datetime, days: int
) -> tuple[Forecast | None, Forecast]:
    """Return the forecast of what `against` names, None for nothing, and that of today's folder."""
    now = await foretold(store, settings.policies, at, days)
    if against is None:
        return None, now
    with folder_of(against, settings.policies) as folder:
        return await foretold(store, folder, at, days, strict=False), now


@contextmanager
def folder_of(against: str, policies: Path) -> Iterator[Path]:
    """Yield a folder of policies: that one, or the folder `policies` as a git revision has it.

    Raises InvalidInput for what is neither.
    """
    if Path(against).is_dir():
        yield Path(against)
        return
    with tempfile.TemporaryDirectory(prefix="clickpost-policies-") as scratch:
        archive = _archived(against, policies.resolve())
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(scratch, filter="data")
        yield Path(scratch)


def _archived(revision: str, policies: Path) -> bytes:
    """Return the folder as a revision of its repository has it, as a tar."""
    if revision.startswith("-"):
        raise InvalidInput(f"--against: {revision} is no revision and no folder")
    asked = _git(policies, "rev-parse", "--show-toplevel", "--show-prefix")
    top, _, prefix = asked.stdout.decode().strip().partition("\n")
    done = asked
    if not asked.returncode:
        done = _git(Path(top), "archive", "--format=tar", f"{revision}:{prefix}")
    if done.returncode:
        raise InvalidInput(
            f"--against: {revision} is no folder, and no revision in which git knows {policies}"
        )
    return done.stdout


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Ask git; raise InvalidInput where there is none, or where it does not answer."""
    said = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(said, capture_output=True, timeout=_GIT, check=False)
    except FileNotFoundError:
        raise InvalidInput("--against: there is no git here; name a folder of policies") from None
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"--against: git did not answer within {_GIT} s") from None
