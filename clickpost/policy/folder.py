"""Reads a folder of policies of one kind: all that is wrong at once, with file, line, column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from clickpost.policy.load import (
    BrokenPolicies,
    Report,
    nearest,
    policy_files,
    shown_path,
    validated,
)
from clickpost.policy.source import Problem, Source, read_file
from clickpost.settings import PROJECT

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Kind(Generic[Model]):
    """One kind of policies, and the folder that they are in."""

    folder: str
    name: str
    model: type[Model]

    def check(self, place: Path, more: Callable[[Source, Model], Iterable[Problem]]) -> Report:
        """Look at the policies under a folder, or at one file; `more` judges what is sound."""
        report = Report()
        self.read(place, report, more)
        report.problems.sort()
        return report

    def load(
        self, folder: Path, more: Callable[[Source, Model], Iterable[Problem]]
    ) -> dict[str, Model]:
        """Return the policies of a folder by file name; raise BrokenPolicies with every problem.

        A folder that has none of this kind gets those that we ship.
        """
        own = folder / self.folder
        report = Report()
        found = self.read(own if own.exists() else self.shipped, report, more)
        if report.problems:
            raise BrokenPolicies(tuple(sorted(report.problems)))
        return {path.stem: found[path] for path in sorted(found)}

    @property
    def shipped(self) -> Path:
        """Return the folder of those that we ship."""
        return PROJECT / "policies" / self.folder

    def read(
        self, place: Path, report: Report, more: Callable[[Source, Model], Iterable[Problem]]
    ) -> dict[Path, Model]:
        """Return what is sound under a place; what is not is reported."""
        there = [place] if place.is_file() else policy_files(place, report)
        first: dict[str, str] = {}
        found: dict[Path, Model] = {}
        for path in there:
            if path.parent.name != self.folder:
                continue
            name = shown_path(path)
            report.files.append(name)
            if (earlier := first.setdefault(path.stem.casefold(), name)) != name:
                said = f"is a second {self.name} policy {path.stem!r}, beside {earlier}; keep one"
                report.problems.append(Problem(name, 1, 1, "", said))
            made = self._one(path, name, more)
            if isinstance(made, list):
                report.problems += made
            else:
                found[path] = made
        return found

    def _one(
        self, path: Path, name: str, more: Callable[[Source, Model], Iterable[Problem]]
    ) -> Model | list[Problem]:
        source = read_file(path, name)
        if isinstance(source, Problem):
            return [source]
        kind = source.data.get("kind")
        if kind != self.name:
            said = f"must be `{self.name}` in this folder; found {kind!r}" if kind else "is missing"
            near = nearest(kind, [self.name]) or "" if kind else ""
            return [source.problem(("kind",), said, "What this file is", near), *source.problems]
        made = validated(source, self.model)
        problems = made if isinstance(made, list) else [*more(source, made)]
        called = source.data.get("name")
        if isinstance(called, str) and called != path.stem:
            said = f"must be the file's name, {path.stem!r}; found {called!r}"
            problems = [*problems, source.problem(("name",), said)]
        return problems or made
