"""The closed shape of the roles policy: what each role may do, where two people are needed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from clickpost.people import Right, Rules
from clickpost.policy.folder import Kind
from clickpost.policy.load import Report, stamp
from clickpost.policy.shape import Facts, LastingSpan, Words
from clickpost.policy.source import Problem, Source


class Role(Facts):
    """One role, which several people may have, and a person beside others."""

    title: Words = Field(description="Who has it and what for, for people.")
    may: list[Annotated[Right, Field(strict=False)]] = Field(
        min_length=1, description="What it allows."
    )


class Roles(Facts):
    """What each role may do; who has which is said with `clickpost people`."""

    kind: Literal["roles"] = Field(description="What this file is.")
    name: Literal["clickpost"] = Field(description="The file's name: there is one such file.")
    roles: dict[Annotated[str, Field(pattern=r"^[a-z][a-z-]{1,30}$")], Role] = Field(
        description="The roles, by name."
    )
    two_people: list[Literal["approve"]] = Field(
        default_factory=list,
        description="What the author of a post may not do with it: somebody else has to.",
    )
    codes_last: LastingSpan = Field(
        description="How long a code is good with which a person signs off in the Prefect UI."
    )


KIND = Kind("roles", "roles", Roles)


def check(place: Path) -> Report:
    """Look at the roles policy under a folder; a right that no role has is a warning."""
    report = Report()
    warnings: list[Problem] = []

    def judged(source: Source, made: Roles) -> Iterator[Problem]:
        warnings.extend(_unheld(source, made))
        return _sound(source, made)

    KIND.read(place, report, judged)
    return Report(report.files, sorted(report.problems), sorted(warnings))


def load(folder: Path) -> Rules:
    """Return what the policy says, read again only when it changed; ours where there is none.

    Raises BrokenPolicies with every problem.
    """
    own = folder / KIND.folder
    return _loaded(folder, stamp((own if own.exists() else KIND.shipped) / "clickpost.yaml"))


@lru_cache(maxsize=4)
def _loaded(folder: Path, _stamp: tuple[int, int]) -> Rules:
    (found,) = KIND.load(folder, _sound).values()
    roles = {name: frozenset(role.may) for name, role in found.roles.items()}
    return Rules(roles, frozenset(map(Right, found.two_people)), found.codes_last)


def _unheld(source: Source, made: Roles) -> Iterator[Problem]:
    """Yield each right that no role has, as a file has none of an older version's newer rights."""
    held = {right for role in made.roles.values() for right in role.may}
    for right in Right:
        if right not in held and right is not Right.ADMINISTER:
            yield source.problem(("roles",), f"no role may `{right.value}`: nobody can, then")


def _sound(source: Source, made: Roles) -> Iterator[Problem]:
    if not any(Right.ADMINISTER in role.may for role in made.roles.values()):
        yield source.problem(("roles",), "no role may `administer`: nobody could name people")
