"""The closed shape of request policies: by whose law a request is answered, and until when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from clickpost.errors import InvalidInput
from clickpost.policy.folder import Kind as Folder
from clickpost.policy.load import Report, nearest, stamp
from clickpost.policy.shape import Facts, LastingSpan, Url, Words
from clickpost.policy.source import Problem, Source
from clickpost.policy.units import Day
from clickpost.requests import Clocks, Kind, Period

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
#: The file of those about whom no other says anything.
DEFAULT = "default"


def _period(value: Any) -> Period:
    if isinstance(value, Period):
        return value
    if not isinstance(value, str):
        raise ValueError("needs a number and h, d, business days or months, e.g. 45 d")
    return Period.of(value)


def _kind(value: Any) -> Kind:
    if value not in {one.value for one in Kind}:
        raise ValueError(f"must be one of {', '.join(Kind)}")
    return Kind(value)


Lasting = Annotated[
    Period,
    BeforeValidator(_period),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+\s*(h|d|business days?|months?)\s*$"}),
]
KindName = Annotated[
    Kind, BeforeValidator(_kind), WithJsonSchema({"enum": [one.value for one in Kind]})
]


class Cited(Facts):
    """Something that a law says, with the place where it does."""

    cite: Words = Field(description="The law and its article.")
    source: Url | None = Field(None, description="The page that states it.")
    checked: Day = Field(description="The day somebody looked.")
    confirmed: bool = Field(True, description="False where only a secondary source supports it.")


class Clock(Cited):
    """How long something may take."""

    within: Lasting = Field(description="From receipt, e.g. 1 month, 45 d, 10 business days.")


class Extension(Cited):
    """By how much an answer may be late, once, where the person is told why in time."""

    by: Lasting = Field(description="Beyond the first clock, e.g. 2 months.")


class Stop(Cited):
    """Where the clock stands still while we wait for the person."""

    when: Words = Field(description="For what we may wait, for people.")


class Ground(Cited):
    """Why a request may be refused, in whole or in part."""

    says: Words = Field(description="What the person is told.")
    kinds: list[KindName] = Field(
        default_factory=list, description="Requests that it holds against; [] for all."
    )


class Everywhere(Facts):
    """What is the same whatever law applies: our own choices."""

    flows: dict[KindName, Words] = Field(
        description="By kind, the flow that carries it out; a kind that is not here is done by an"
        " operator, who then answers."
    )
    phrases: dict[KindName, Annotated[list[Words], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="By kind, what stands in the subject of a mail that asks for it, whatever the"
        " case and whatever stands around it.",
    )
    warn: LastingSpan = Field(description="So long before a deadline an alarm is raised.")
    link_lives: LastingSpan = Field(description="So long a link to confirm a request opens it.")
    export_lives: LastingSpan = Field(
        timedelta(days=7),
        description="So long what was asked for can be fetched; then the file is removed.",
    )
    letters: Annotated[int, Field(gt=0)] = Field(
        description="At most so many links a day go to one address, whoever asks."
    )


class Jurisdiction(Facts):
    """What one law demands of who answers a request."""

    kind: Literal["requests"] = Field(description="What this file is.")
    name: Name = Field(description="The file's name.")
    title: Words = Field(description="The law, for people.")
    places: list[Words] = Field(
        default_factory=list,
        description="Whose residents it protects: ISO 3166 codes, e.g. DE, US-CA.",
    )
    acknowledge: Clock | None = Field(
        None, description="Until when receipt has to be confirmed; null where no law says so."
    )
    answer: Clock = Field(description="Until when the answer has to be there.")
    extend: Extension | None = Field(None, description="By how much it may be late, once.")
    stop: Stop | None = Field(None, description="When its clock stands still; null: never.")
    expedite: dict[KindName, Clock] = Field(
        default_factory=dict, description="By kind, where the answer has to be there sooner."
    )
    refuse: dict[Name, Ground] = Field(
        default_factory=dict, description="Why a request may be refused, by a word of ours."
    )
    complain: Words = Field(description="Where a person can complain, for people.")
    everywhere: Everywhere | None = Field(
        None, description="What holds for all of them; only `default` says it."
    )

    def clocks(self, kind: Kind, received_at: datetime) -> Clocks:
        """Return what of a request is due when."""
        ends = [self.answer.within.after(received_at)]
        if kind in self.expedite:
            ends.append(self.expedite[kind].within.after(received_at))
        by = self.acknowledge.within.after(received_at) if self.acknowledge else None
        return Clocks(received_at, min(ends), by)

    def extended(self, clocks: Clocks, now: datetime) -> datetime:
        """Return the later `due_at`; raise InvalidInput where it may not be later (any more)."""
        if self.extend is None:
            raise InvalidInput(f"{self.title} knows no longer time")
        if clocks.extended_at is not None:
            raise InvalidInput("this request was extended before; once is all")
        if now > clocks.due(now):
            raise InvalidInput("the first clock has run out: the person had to be told before that")
        return self.extend.by.after(clocks.due_at)

    def ground(self, name: str, kind: Kind) -> Ground:
        """Return why a request may be refused; raise InvalidInput for a word that it lacks."""
        known = {
            word: one for word, one in self.refuse.items() if not one.kinds or kind in one.kinds
        }
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean {near}?" if near else ""
            raise InvalidInput(
                f"{self.name} has no ground {name!r} for {kind}{hint} (known: {', '.join(known)})"
            )
        return known[name]


_FOLDER = Folder("requests", "requests", Jurisdiction)


def _more(source: Source, made: Jurisdiction) -> Iterable[Problem]:
    if (made.everywhere is not None) != (made.name == DEFAULT):
        yield source.problem(("everywhere",), f"belongs into {DEFAULT}.yaml, and only there")
    for number, one in enumerate(made.places):
        if one in made.places[:number]:
            yield source.problem(("places", number), f"{one} is there already")


def check(place: Path) -> Report:
    """Look at the request policies under a folder, or at one file."""
    return _FOLDER.check(place, _more)


@dataclass(frozen=True)
class Rules:
    """All of them, and what holds everywhere."""

    laws: Mapping[str, Jurisdiction]

    @property
    def everywhere(self) -> Everywhere:
        """Return what is the same whatever law applies."""
        found = self.laws[DEFAULT].everywhere
        if found is None:  # `check` and `load` have seen to it.
            raise InvalidInput(f"policies/requests/{DEFAULT}.yaml lacks `everywhere`")
        return found

    def named(self, name: str) -> Jurisdiction:
        """Return a law by name or by place (`gdpr`, `DE`, `US-CA`); raise InvalidInput for none."""
        if name in self.laws:
            return self.laws[name]
        wanted = name.upper()
        for law in self.laws.values():
            if wanted in law.places:
                return law
        near = nearest(
            name, [*self.laws, *(one for law in self.laws.values() for one in law.places)]
        )
        hint = f"; did you mean {near}?" if near else ""
        raise InvalidInput(f"unknown jurisdiction {name!r}{hint} (known: {', '.join(self.laws)})")


def load(folder: Path) -> Rules:
    """Return the rules of a folder, or those that we ship; raise BrokenPolicies, all at once.

    Read again only when a file changed.
    """
    own = folder / _FOLDER.folder
    paths = sorted((own if own.exists() else _FOLDER.shipped).glob("*.y*ml"))
    return _loaded(folder, tuple((path, stamp(path)) for path in paths))


@lru_cache(maxsize=4)
def _loaded(folder: Path, _files: tuple[tuple[Path, tuple[int, int]], ...]) -> Rules:
    laws = _FOLDER.load(folder, _more)
    if DEFAULT not in laws:
        raise InvalidInput(f"there is no {DEFAULT}.yaml among the request policies; copy ours")
    return Rules(laws)
