"""The closed shape of processor policies: what an erasure asks of a vendor, what answers mean."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from clickpost.datamap import Schema
from clickpost.policy.folder import Kind
from clickpost.policy.load import Report, nearest, shown_path, stamp
from clickpost.policy.shape import Facts, LastingSpan, Sourced, Words
from clickpost.policy.source import Path_, Problem, Source, read_file
from clickpost.reach import is_loopback

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Value = str | int | bool | None
#: What a person is known by: as it is, in small letters, and the MD5 of these in hexadecimal.
PERSON = ("who", "who_lower", "who_md5")
#: The same for each try of one step, by which a vendor knows that it is the same call.
ONCE = "once"
#: Of the request itself: the address that it came from.
ADDRESS = "request.address"


def _path(value: str) -> str:
    if not value.startswith("/") or value.startswith("//") or {"?", "#"} & set(value):
        raise ValueError("must be a path that begins with one `/`, without `?` and `#`")
    return value


def words_in(template: str) -> list[str]:
    """Return the words that a template is filled with; raise ValueError where it is broken."""
    found = []
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or spec or conversion:
            raise ValueError("words stand in braces, as {id}; nothing else may stand in them")
        found.append(name)
    return found


def _template(value: str) -> str:
    words_in(value)
    return value


Template = Annotated[str, AfterValidator(_template)]


class Setting(Facts):
    """One value that the environment, or a file that it names, has to hold."""

    why: Words = Field(description="What it is, and where its owner finds it.")
    secret: bool = Field(True, description="False for what may be shown.")
    many: bool = Field(False, description="True where it may hold several, separated by commas.")


class Auth(Facts):
    """How the vendor knows that it is us."""

    by: Literal["bearer", "basic", "header"] = Field(
        description="`Authorization: Bearer`, a user and a password, or a header of its own."
    )
    secret: Template = Field(description="The token or password, e.g. `{key}`.")
    user: Template = Field("", description="With `basic`: the user, e.g. `{agent}/token`.")
    header: str = Field("", description="With `header`: its name.")


class Call(Facts):
    """One request; each `{word}` is filled in and encoded for its place.

    Words are settings, who it is, `{id}` of a record, what earlier steps took, and `{once}`, which
    is the same for each try of the same step.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(description="The HTTP method.")
    path: Annotated[Template, AfterValidator(_path)] = Field(description="Behind the base address.")
    query: dict[str, Template] = Field(default_factory=dict, description="Behind the `?`.")
    form: dict[str, Template] = Field(
        default_factory=dict, description="A body as HTML forms send it."
    )
    document: dict[str, Template] = Field(default_factory=dict, description="A body of JSON.")
    headers: dict[str, Template] = Field(default_factory=dict, description="Further headers.")


class Answer(Facts):
    """What one kind of answer means; the first that fits decides."""

    status: Annotated[int, Field(ge=100, le=599)] = Field(description="The HTTP status.")
    holds: dict[str, Value] = Field(
        default_factory=dict,
        description="What its JSON holds, by dotted path: `deleted: true`. `*` is every item of a"
        " list, and one that fits is enough.",
    )
    means: Literal["done", "gone", "wait", "again", "refused"] = Field(
        description="`done`: this step is done. `gone`: nothing is left there, so all is done."
        " `wait`: the vendor works on it, so the step is made again later. `again`: the vendor"
        " is not to be had now. `refused`: a person has to act."
    )
    next: Name | None = Field(None, description="The step to go on with, instead of the next.")
    why: Words | None = Field(None, description="What a person has to do; no names.")


class Step(Facts):
    """One request of an erasure, and what its answers mean."""

    name: Name = Field(description="What it is called.")
    call: Call = Field(description="What is asked.")
    answers: list[Answer] = Field(
        description="Beside these, 408, 425, 429 and 5xx are `again`, and so are 401 and 403,"
        " where our own key is wrong; the rest is `refused`."
    )
    take: dict[Name, str] = Field(
        default_factory=dict,
        description="Words for later steps, by dotted path of the answer's JSON.",
    )
    every: LastingSpan = Field(
        timedelta(minutes=30), description="How often it is made again while the vendor works."
    )
    lost: Name | None = Field(
        None,
        description="The step that looks what became of this one where its answer was lost;"
        " without it the call is made again: twice does no harm.",
    )


class Find(Facts):
    """How the vendor is asked which of its records are about the person."""

    call: Call = Field(description="What is asked.")
    records: str = Field(description="Where the records are in the answer, as a dotted path.")
    id: str = Field(description="Where a record's id is, as a dotted path.")
    where: dict[str, Template] = Field(
        default_factory=dict,
        description="What a record has to hold, whatever the case: some vendors find too much.",
    )


class Keeps(Sourced):
    """What the vendor keeps all the same."""

    what: Words = Field(description="What, for people.")
    cite: Words = Field(description="Why, and who says so.")


class Pace(Sourced):
    """How fast we may ask."""

    calls: Annotated[int, Field(gt=0)] = Field(description="Most calls.")
    per: LastingSpan = Field(description="In this span.")


class Processor(Sourced):
    """Somebody who processes people's data for us, and how they are asked to erase it."""

    kind: Literal["processor"] = Field(description="What this file is.")
    name: Name = Field(description="The file's name.")
    title: Words = Field(description="Who it is, and what they hold, for people.")
    enabled: bool = Field(False, description="True once you use it; until then nobody is asked.")
    base: Template = Field("", description="The address before each path; words are settings.")
    settings: dict[Name, Setting] = Field(
        default_factory=dict,
        description="What it takes to ask: CLICKPOST_PROCESSOR_<NAME>_<SETTING> holds it, or the"
        " same with _FILE names a file that does.",
    )
    auth: Auth | None = Field(None, description="How the vendor knows that it is us.")
    headers: dict[str, Template] = Field(
        default_factory=dict, description="Headers of every request."
    )
    who: Annotated[list[Words], Field(min_length=1)] = Field(
        description="The columns, as TABLE.COLUMN, that say who it is; `request.address` is the"
        " address that a request came from. They are `{who}`, in small letters `{who_lower}`, and"
        " the MD5 of these `{who_md5}`."
    )
    references: bool = Field(
        False,
        description="True where a vendor's ids that a request names are erased without a look whose"
        " they are: only where a program of yours fills them in, never the person who asks.",
    )
    find: Find | None = Field(
        None, description="How its records are found; without it the steps themselves say whose."
    )
    each: Name | None = Field(
        None, description="A setting of several values: the steps are made for each."
    )
    steps: list[Step] = Field(
        default_factory=list, description="What is asked, for each record that was found."
    )
    by_hand: Words | None = Field(
        None,
        description="What a person has to do there, where nothing can be asked; no steps then.",
    )
    due: LastingSpan = Field(
        description="So long after it was asked an erasure there is overdue, and raises an alarm."
    )
    pace: Pace | None = Field(None, description="How fast we may ask.")
    keeps: list[Keeps] = Field(default_factory=list, description="What stays there, and why.")

    def step(self, name: str) -> Step:
        """Return a step by its name; raise StopIteration for none."""
        return next(one for one in self.steps if one.name == name)

    def after(self, name: str) -> str | None:
        """Return the name of the step behind one, None behind the last."""
        names = [one.name for one in self.steps]
        number = names.index(name) + 1
        return names[number] if number < len(names) else None

    def variable(self, setting: str) -> str:
        """Return the name of the environment variable that holds a setting."""
        return f"CLICKPOST_PROCESSOR_{self.name}_{setting}".upper()


KIND = Kind("processors", "processor", Processor)


def check(place: Path, schema: Schema | None = None) -> Report:
    """Look at the processor policies under a folder, or at one file."""
    report = KIND.check(place, lambda source, one: _faults(source, one, schema))
    report.warnings += _old(place)
    return report


def load(folder: Path) -> dict[str, Processor]:
    """Return the processors by name; raise BrokenPolicies with every problem.

    Read again only when a file changed.
    """
    own = folder / KIND.folder
    place = own if own.exists() else KIND.shipped
    return _loaded(folder, tuple((path, stamp(path)) for path in sorted(place.glob("*.y*ml"))))


@lru_cache(maxsize=4)
def _loaded(folder: Path, _files: tuple[tuple[Path, tuple[int, int]], ...]) -> dict[str, Processor]:
    return KIND.load(folder, lambda source, one: _faults(source, one, None))


def _old(place: Path) -> Iterator[Problem]:
    """Yield the facts that nobody looked at for a year, of files that are sound."""
    today = datetime.now(UTC).date()
    there = [place] if place.is_file() else sorted(place.rglob(f"{KIND.folder}/*.y*ml"))
    for path in there:
        source = read_file(path, shown_path(path))
        if isinstance(source, Source) and source.data.get("kind") == KIND.name:
            checked = source.data.get("checked")
            if isinstance(checked, date) and today - checked > timedelta(days=365):
                yield source.problem(("checked",), f"nobody looked since {checked}; look again")


def _faults(source: Source, one: Processor, schema: Schema | None) -> Iterator[Problem]:
    """Yield what no shape can forbid: words that nobody fills in, steps that are not there."""
    yield from _base(source, one)
    yield from _ways(source, one)
    settings = set(one.settings)
    single = settings - {name for name, said in one.settings.items() if said.many}
    yield from _unknown(source, ("base",), one.base, single)
    if one.auth is not None:
        for key in ("secret", "user"):
            yield from _unknown(source, ("auth", key), getattr(one.auth, key), single)
    known = single | set(PERSON) | {ONCE}
    yield from _unknown_in(source, ("headers",), one.headers, known)
    if one.find is not None:
        yield from _call(source, ("find", "call"), one.find.call, known)
        yield from _unknown_in(source, ("find", "where"), one.find.where, known)
        known |= {"id"}
    if one.each is not None:
        known |= {one.each}
    for number, step in enumerate(one.steps):
        yield from _call(source, ("steps", number, "call"), step.call, known)
        known |= set(step.take)
    yield from _columns(source, one, schema)


def _base(source: Source, one: Processor) -> Iterator[Problem]:
    if one.by_hand is not None:
        if one.steps or one.find:
            yield source.problem(("by_hand",), "stands alone: what can be asked has steps")
        return
    if not one.steps:
        yield source.problem(("steps",), "is empty; say what is asked, or `by_hand`")
    parts = urlsplit(one.base.replace("{", "x").replace("}", "x"))
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query:
        yield source.problem(("base",), "must be an address that starts with https://")
    elif parts.scheme == "http" and not is_loopback(parts.hostname):
        said = "must start with https://: people's addresses go there (http only to this machine)"
        yield source.problem(("base",), said)


def _ways(source: Source, one: Processor) -> Iterator[Problem]:
    """Yield names of steps that are given twice, or lead nowhere."""
    names = [step.name for step in one.steps]
    for number, step in enumerate(one.steps):
        if step.name in names[:number]:
            place: Path_ = ("steps", number, "name")
            yield source.problem(place, f"a second step {step.name!r}")
        asked: list[tuple[Path_, str | None]] = [(("steps", number, "lost"), step.lost)]
        for index, answer in enumerate(step.answers):
            asked.append((("steps", number, "answers", index, "next"), answer.next))
        for place, name in asked:
            if name is not None and name not in names:
                yield source.problem(place, "is no step", "", nearest(name, names) or "")
    if one.each is not None and not (one.each in one.settings and one.settings[one.each].many):
        yield source.problem(("each",), "is no setting with `many: true`")


def _call(source: Source, place: Path_, call: Call, known: set[str]) -> Iterator[Problem]:
    yield from _unknown(source, (*place, "path"), call.path, known)
    for key in ("query", "form", "document", "headers"):
        yield from _unknown_in(source, (*place, key), getattr(call, key), known)
    if call.form and call.document:
        yield source.problem((*place, "document"), "a request has one body: `form` or `document`")


def _unknown_in(
    source: Source, place: Path_, templates: Mapping[str, str], known: set[str]
) -> Iterator[Problem]:
    for key, template in templates.items():
        yield from _unknown(source, (*place, key), template, known)


def _unknown(
    source: Source, place: Path_, template: str, known: Iterable[str]
) -> Iterator[Problem]:
    for word in words_in(template):
        if word not in known:
            near = nearest(word, known) or ""
            said = f"nothing fills in {{{word}}} (known here: {', '.join(sorted(known))})"
            yield source.problem(place, said, "", near)


def _columns(source: Source, one: Processor, schema: Schema | None) -> Iterator[Problem]:
    for number, place in enumerate(one.who):
        table, _, column = place.partition(".")
        known = bool(table and column) if schema is None else _is_text(schema, table, column)
        if place != ADDRESS and not known:
            yield source.problem(("who", number), f"{place} is no column of text")


def _is_text(schema: Schema, table: str, column: str) -> bool:
    return table in schema and schema[table].kinds.get(column) == "text"
