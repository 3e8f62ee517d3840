"""Reads data maps, retention and erasure policies, and holds them against the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel

from clickpost import datamap, erasure, retention
from clickpost.datamap import Gap, Schema
from clickpost.errors import InvalidInput
from clickpost.policy.erasing import Erasure
from clickpost.policy.load import (
    BrokenPolicies,
    Report,
    nearest,
    policy_files,
    shown_path,
    stamp,
    validated,
)
from clickpost.policy.privacy import DataMap, Retention, StoreMap, TableMap
from clickpost.policy.source import Problem, Source, read_file

_SHAPES: dict[str, type[DataMap | Retention | Erasure]] = {
    "data_map": DataMap,
    "retention": Retention,
    "erasure": Erasure,
}


@dataclass
class Keeping:
    """All data maps as one, the retention policies by name, and where each was read."""

    tables: DataMap = field(default_factory=lambda: DataMap(kind="data_map", name="all"))
    retention: dict[str, Retention] = field(default_factory=dict)
    databases: dict[str, dict[str, TableMap]] = field(default_factory=dict)
    """The tables of further databases."""
    elsewhere: dict[str, Retention] = field(default_factory=dict)
    """The retention policies about these."""
    erasure: dict[str, Erasure] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    """By table, store and policy: `table post`, `store media`, `policy usage`, `erasure person`."""

    @property
    def whole(self) -> DataMap:
        """The map of all databases: tables of further ones have their database's name before."""
        further = {
            f"{name}.{table}": one
            for name, tables in sorted(self.databases.items())
            for table, one in tables.items()
        }
        return self.tables.model_copy(update={"tables": self.tables.tables | further})


def check(place: Path, schema: Schema | None, today: date | None = None) -> Report:
    """Look at the data maps and retention policies under a folder, or at one file.

    Where `schema` is given and a whole folder is looked at, map and tables must agree.
    """
    report = Report()
    found = _read(place, report, today or datetime.now(UTC).date())
    if schema is not None and place.is_dir() and found.tables.tables:
        report.problems += disagreements(found, schema)
        slow = datamap.unindexed(found.tables.tables, schema)
        report.warnings += [_at(found, gap) for gap in slow]
    report.problems.sort()
    report.warnings.sort()
    return report


def disagreements(keeping: Keeping, schema: Schema) -> list[Problem]:
    """Return where maps, policies and tables disagree, each naming its column."""
    found = []
    if not keeping.tables.tables:
        said = "there is no data map in the folder of policies; copy policies/data_map into it"
        return [Problem("data_map", 1, 1, "", said)]
    found += [_at(keeping, gap) for gap in datamap.gaps(keeping.tables.tables, schema)]
    for name, policy in keeping.retention.items():
        source = keeping.sources[f"policy {name}"]
        wrong = retention.faults(policy, keeping.tables.tables, schema)
        found += [source.problem(path, why) for path, why in wrong]
    for name, one in keeping.erasure.items():
        source = keeping.sources[f"erasure {name}"]
        faults = erasure.faults(one, keeping.tables.tables, keeping.retention, schema)
        found += [source.problem(path, why) for path, why in faults]
    return sorted(found)


def _at(keeping: Keeping, gap: Gap) -> Problem:
    """Return a gap with the place in the file where it would be mended."""
    table = gap.path[1] if gap.path else gap.place.split(".")[0]
    source = keeping.sources.get(f"table {table}")
    if source is None:
        return Problem("policies/data_map", 1, 1, gap.place, gap.why)
    return Problem(source.file, *source.place(gap.path or ("tables", table)), gap.place, gap.why)


def load(folder: Path) -> Keeping:
    """Return all maps and retention policies; raise BrokenPolicies with every problem.

    Read again only when a file changed.
    """
    report = Report()
    paths = [path for path in policy_files(folder, report) if path.parent.name in _SHAPES]
    if report.problems:
        raise BrokenPolicies(tuple(sorted(report.problems)))
    return _loaded(folder, tuple((path, stamp(path)) for path in paths))


@lru_cache(maxsize=4)
def _loaded(folder: Path, _files: tuple[tuple[Path, tuple[int, int]], ...]) -> Keeping:
    report = Report()
    found = _read(folder, report, datetime.now(UTC).date())
    if report.problems:
        raise BrokenPolicies(tuple(sorted(report.problems)))
    return found


def policy(folder: Path, name: str) -> Retention:
    """Return one retention policy; raise InvalidInput with the nearest name."""
    all_ = load(folder)
    found = all_.retention | all_.elsewhere
    if name in found:
        return found[name]
    near = nearest(name, found)
    hint = f"; did you mean {near}?" if near else ""
    known = ", ".join(sorted(found))
    raise InvalidInput(f"unknown retention policy {name!r}{hint} (known: {known})")


def _read(place: Path, report: Report, today: date) -> Keeping:
    found = Keeping()
    there = [place] if place.is_file() else policy_files(place, report)
    tables: dict[str, TableMap] = {}
    stores: dict[str, StoreMap] = {}
    for path in there:
        if path.parent.name not in _SHAPES:
            continue
        report.files.append(shown_path(path))
        source = read_file(path, shown_path(path))
        if isinstance(source, Problem):
            report.problems.append(source)
            continue
        made = validated(source, _SHAPES[path.parent.name])
        report.problems += made if isinstance(made, list) else _names(source, path)
        report.warnings += _old(source, made, today)
        if isinstance(made, DataMap):
            of = f"table {made.database}." if made.database else "table "
            report.problems += _twice(source, of, made.tables, found)
            report.problems += _twice(source, "store ", made.stores, found)
            if made.database:
                found.databases.setdefault(made.database, {}).update(made.tables)
            else:
                tables |= made.tables
            stores |= made.stores
        elif isinstance(made, Retention):
            (found.elsewhere if made.database else found.retention)[made.name] = made
            found.sources[f"policy {made.name}"] = source
        elif isinstance(made, Erasure):
            found.erasure[made.name] = made
            found.sources[f"erasure {made.name}"] = source
    found.tables = DataMap.model_construct(
        kind="data_map", name="all", tables=tables, stores=stores
    )
    return found


def _twice(
    source: Source, kind: str, mine: Mapping[str, BaseModel], found: Keeping
) -> Iterator[Problem]:
    for name in mine:
        earlier = found.sources.setdefault(f"{kind}{name}", source)
        if earlier is not source:
            said = f"is mapped already, in {earlier.file}"
            yield source.problem((f"{kind.split()[0]}s", name), said)


def _names(source: Source, path: Path) -> Iterator[Problem]:
    name = source.data.get("name")
    if name != path.stem:
        said = f"must be the file's name, {path.stem!r}; found {name!r}"
        yield source.problem(("name",), said)


def _old(source: Source, made: object, today: date) -> Iterator[Problem]:
    if not isinstance(made, Retention):
        return
    for number, one in enumerate(made.purposes):
        place = ("purposes", number, "checked")
        if today - one.checked > timedelta(days=365):
            yield source.problem(place, f"nobody looked since {one.checked}; look again")
