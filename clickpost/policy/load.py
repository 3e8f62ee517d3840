"""Reads policy files: all that is wrong at once, with file, line, column, meaning and spelling."""

from __future__ import annotations

import difflib
import hashlib
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from clickpost.contract import CAPABILITIES
from clickpost.errors import InvalidInput, PolicyError
from clickpost.policy.shape import ErrorRule, Lasts, PlatformPolicy, Within
from clickpost.policy.source import Path_, Problem, Source, read, read_file

__all__ = [
    "BrokenPolicies",
    "Problem",
    "Report",
    "Source",
    "check",
    "faults_in",
    "joined",
    "load_platforms",
    "narrowed",
    "nearest",
    "platform",
    "policy_files",
    "policy_hash",
    "read",
    "read_file",
    "shown_path",
    "stamp",
    "validated",
]

#: Folders of other kinds, which other modules read; all the rest hold platforms.
OTHERS = (
    "data_map", "retention", "triggers", "running", "roles", "requests", "erasure", "history",
    "processors",
)  # fmt: skip

#: What the connectors' code can do, by platform; compared with what the policies say.
Code = Mapping[str, AbstractSet[str]]


class BrokenPolicies(PolicyError):
    """Policy files that cannot be used; `problems` names every reason."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass
class Report:
    """What a look at a folder of policies found."""

    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def joined(one: Report, other: Report) -> Report:
    """Return two reports as one, in the order of places."""
    return Report(
        one.files + other.files,
        sorted(one.problems + other.problems),
        sorted(one.warnings + other.warnings),
    )


Model = typing.TypeVar("Model", bound=BaseModel)


def validated(source: Source, model: type[Model]) -> Model | list[Problem]:
    """Return `source` as a `model`, or every problem that it has."""
    problems = set(source.problems)
    try:
        made = model.model_validate(source.data)
    except ValidationError as error:
        return sorted(problems | set(_problems(source, model, error, ())))
    return sorted(problems) or made


def faults_in(
    source: Source, model: type[BaseModel], value: Any, under: Path_
) -> Iterator[Problem]:
    """Yield what is wrong with `value`, which stands at `under`, as a `model`."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        yield from _problems(source, model, error, under)


def _problems(
    source: Source, model: type[BaseModel], error: ValidationError, under: Path_
) -> Iterator[Problem]:
    for one in error.errors(include_url=False):
        yield _problem(source, model, one, under)


def _problem(source: Source, model: type[BaseModel], detail: ErrorDetails, under: Path_) -> Problem:
    inside = tuple(step for step in detail["loc"] if not _is_tag(step))
    path = (*under, *inside)
    names = _names(_models_at(model, inside[:-1]))
    key = str(path[-1]) if path else ""
    meaning = names.get(key) or _meaning_above(model, inside)
    match detail["type"]:
        case "extra_forbidden":
            near = nearest(key, names)
            if near is None:
                return source.problem(path, f"unknown key (known here: {', '.join(names)})")
            return source.problem(path, "unknown key", names[near], near)
        case "missing":
            return source.problem(path, "is missing", meaning)
        case "literal_error":
            choices = str(detail.get("ctx", {}).get("expected", ""))
            words = [word.strip(" '") for word in choices.replace(" or ", ",").split(",")]
            message = f"must be one of {choices}; found {_shown(detail['input'])}"
            return source.problem(path, message, meaning, nearest(detail["input"], words) or "")
        case kind:
            message = _PLAINLY.get(kind) or _sentence(detail["msg"])
            return source.problem(path, f"{message}; found {_shown(detail['input'])}", meaning)


_PLAINLY = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number, without quotes",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number, without quotes",
    "string_type": "must be a text (put quotes around a number or true/false)",
    "string_too_short": "must not be empty",
    "greater_than": "must be more than 0",
    "url_parsing": "must be an address that starts with https://",
    "url_scheme": "must be an address that starts with https://",
    "list_type": "must be a list: [a, b]",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
}


def _sentence(message: str) -> str:
    plain = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return plain if plain == message or message.startswith("Value") else f"must be {plain}"


def _is_tag(step: str | int) -> bool:
    """Say whether a step of pydantic's path names a type and no key (as unions do)."""
    return isinstance(step, str) and "[" in step


def _shown(value: Any) -> str:
    """Return `value` as a YAML author would know it again."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case date():
            return str(value)
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that `word` was most likely meant to be."""
    by_case = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(str(word).casefold(), by_case, n=1, cutoff=0.6)
    return by_case[near[0]] if near else None


def _meaning_above(model: type[BaseModel], path: Path_) -> str:
    """Return what the nearest documented key above `path` means, for items of lists."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return _names(_models_at(model, path[:-1])).get(str(path[-1]), "") if path else ""


def _names(models: Iterable[type[BaseModel]]) -> dict[str, str]:
    return {
        (one.alias or name): (one.description or "").rstrip(".")
        for model in models
        for name, one in model.model_fields.items()
    }


def _models_at(model: type[BaseModel], path: Path_) -> list[type[BaseModel]]:
    """Return the models whose keys may stand at `path`."""
    shapes: list[Any] = [model]
    for step in path:
        shapes = [found for shape in shapes for found in _inside(shape, step)]
    return [one for shape in shapes for one in _plain(shape) if _is_model(one)]


def _inside(shape: Any, step: str | int) -> Iterator[Any]:
    """Yield what may stand under `step` of what has this type."""
    for one in _plain(shape):
        inner = typing.get_args(one)
        if _is_model(one):
            by_name = {field.alias or name: field for name, field in one.model_fields.items()}
            if step in by_name:
                yield by_name[str(step)].annotation
        elif typing.get_origin(one) is (list if isinstance(step, int) else dict):
            yield inner[-1]


def _plain(shape: Any) -> Iterator[Any]:
    """Yield the members of a union, without what `Annotated` adds."""
    if typing.get_origin(shape) is Annotated:
        yield from _plain(typing.get_args(shape)[0])
    elif typing.get_origin(shape) in (types.UnionType, typing.Union):
        for part in typing.get_args(shape):
            yield from _plain(part)
    else:
        yield shape


def _is_model(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, BaseModel)


def check(place: Path, today: date | None = None, code: Code | None = None) -> Report:
    """Look at a policy file, or at all under a folder; report what is wrong, and what will be.

    `code` is what the connectors can do; where it is given, policies must say the same.
    """
    today = today or datetime.now(UTC).date()
    report = Report()
    if not place.exists():
        report.problems.append(_about(place, "there is no such file or folder"))
        return report
    there = [place] if place.is_file() else policy_files(place, report)
    files = [path for path in there if path.parent.name not in OTHERS]
    _look_at_all({path: shown_path(path) for path in files}, today, report, code)
    if not there and not report.problems:
        report.problems.append(_about(place, "holds no policy files (*.yaml)"))
    if code is not None and files and place.is_dir():
        missing = sorted(set(code) - {path.stem for path in files})
        report.problems += [
            _about(place, f"connectors/{one}.py has no policy; write {one}.yaml") for one in missing
        ]
    report.problems.sort()
    report.warnings.sort()
    return report


def shown_path(path: Path) -> str:
    """Return the path as it is opened from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _about(path: Path, message: str) -> Problem:
    return Problem(shown_path(path), 1, 1, "", message)


def policy_files(folder: Path, report: Report) -> list[Path]:
    """Return the policy files under `folder`; what is hidden belongs to editors and mounts."""
    found: list[Path] = []

    def failed(error: OSError) -> None:
        report.problems.append(_about(Path(error.filename), f"cannot be read: {error.strerror}"))

    for here, folders, names in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(here, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in (".yaml", ".yml")]
    return sorted(found)


def _look_at_all(
    files: Mapping[Path, str], today: date, report: Report, code: Code | None = None
) -> dict[str, PlatformPolicy]:
    first: dict[str, str] = {}
    found: dict[str, PlatformPolicy] = {}
    for path, name in files.items():
        report.files.append(name)
        if (earlier := first.setdefault(path.stem.casefold(), name)) != name:
            said = f"is a second policy of {path.stem!r}, beside {earlier}; keep one"
            report.problems.append(Problem(name, 1, 1, "", said))
        policy = _look_at(path, name, today, report, code)
        if policy is not None:
            found[policy.name] = policy
    return found


def _look_at(
    path: Path, name: str, today: date, report: Report, code: Code | None
) -> PlatformPolicy | None:
    source = read_file(path, name)
    if isinstance(source, Problem):
        report.problems.append(source)
        return None
    if (wrong := _wrong_kind(source)) is not None:
        report.problems.extend({wrong, *source.problems})
        return None
    policy = validated(source, PlatformPolicy)
    report.problems.extend(_contradictions(source, path, today))
    report.problems.extend(_against_code(source, path.stem, code))
    if isinstance(policy, list):
        report.problems.extend(policy)
        return None
    report.problems.extend(_impossible(source, policy))
    report.warnings.extend(_ageing(source, policy, today))
    report.warnings.extend(_dead_rules(source, policy))
    return policy


def _wrong_kind(source: Source) -> Problem | None:
    kind = source.data.get("kind")
    if kind == "platform":
        return None
    if kind is None:
        return source.problem(("kind",), "is missing; write `kind: platform`", "What this file is")
    near = nearest(kind, ["platform"]) or ""
    return source.problem(("kind",), f"unknown kind {_shown(kind)} (known: platform)", "", near)


def _contradictions(source: Source, path: Path, today: date) -> Iterator[Problem]:
    """Yield what no shape can forbid; looks at the file as it is, so a broken one too."""
    name, words = source.data.get("name"), source.data.get("capabilities")
    if isinstance(name, str) and name != path.stem:
        yield source.problem(("name",), f"must be the file's name, {path.stem!r}; found {name!r}")
    words = words if isinstance(words, list) else []
    for number, word in enumerate(words):
        if word not in CAPABILITIES:
            near = nearest(word, CAPABILITIES) or ""
            known = "" if near else f" (known: {', '.join(CAPABILITIES)})"
            meaning = (CAPABILITIES[near].__doc__ or "").split("\n")[0].rstrip(".") if near else ""
            said = f"unknown capability {_shown(word)}{known}"
            yield source.problem(("capabilities", number), said, meaning, near)
        elif word in words[:number]:
            yield source.problem(("capabilities", number), f"{word!r} is there already")
    for place, day in _checked(source.data, ()):
        if day > today + timedelta(days=1):
            yield source.problem(place, f"{day} is in the future")


def _against_code(source: Source, name: str, code: Code | None) -> Iterator[Problem]:
    """Yield where the policy and its connector disagree."""
    words = source.data.get("capabilities")
    if code is None or not isinstance(words, list):
        return
    if name not in code:
        if source.data.get("name") != name:
            return  # Said already: the name is not the file's.
        near = nearest(name, code) or ""
        known = f"there is no connector {name!r} (known: {', '.join(sorted(code))})"
        yield source.problem(("name",), known, "", near)
        return
    for number, word in enumerate(words):
        if word in CAPABILITIES and word not in code[name]:
            said = f"the connector cannot {word!r}: connectors/{name}.py lacks it"
            yield source.problem(("capabilities", number), said)
    for word in sorted(code[name] - {one for one in words if isinstance(one, str)}):
        yield source.problem(("capabilities",), f"{word!r} is missing, which the connector can do")


def _without_purpose(source: Source, policy: PlatformPolicy) -> Iterator[Problem]:
    """Yield the permissions that are asked for and of which nobody says why."""
    rules = policy.oauth
    for key, asked in (("scopes", rules.scopes), ("optional", rules.optional)) if rules else ():
        for number, one in enumerate(asked):
            if one not in policy.scopes:
                near = nearest(one, policy.scopes) or ""
                said = f"{one!r} has no purpose: it is not among `scopes`"
                yield source.problem(("oauth", key, number), said, "", near)
    if rules and policy.api.base is not None and not rules.authorize.startswith("https://"):
        yield source.problem(("oauth", "authorize"), "needs a whole address: `api.base` is known")


def _impossible(source: Source, policy: PlatformPolicy) -> Iterator[Problem]:
    yield from _without_purpose(source, policy)
    for place, low, high in _ranges(policy, ()):
        if low is not None and high is not None and low > high:
            yield source.problem(place, f"min {low} is above max {high}")
    for number, rule in enumerate(policy.errors.rules):
        if not _asks(rule):
            said = "matches every answer; give a status, code, subcode, contains or step"
            yield source.problem(("errors", "rules", number), said)
    yield from _unknown_credentials(source, policy)
    yield from _uncounted_holders(source, policy)


def _unknown_credentials(source: Source, policy: PlatformPolicy) -> Iterator[Problem]:
    for name, one in policy.credentials.items():
        for number, other in enumerate(one.instead_of):
            if other not in policy.credentials or other == name:
                near = nearest(other, policy.credentials.keys() - {name}) or ""
                place = ("credentials", name, "instead_of", number)
                yield source.problem(place, f"no other credential is called {other!r}", "", near)


def _uncounted_holders(source: Source, policy: PlatformPolicy) -> Iterator[Problem]:
    """Yield the stops that no send would meet: it looks for them where its budgets are."""
    known = {one.per for one in policy.budget} | {"account"}
    for number, rule in enumerate(policy.errors.rules):
        if rule.per not in known:
            place = ("errors", "rules", number, "per")
            yield source.problem(place, f"needs a budget with `per: {rule.per}`")


def _asks(rule: ErrorRule) -> dict[str, Any]:
    names = ("status", "code", "subcode", "contains", "step")
    return {name: getattr(rule, name) for name in names if getattr(rule, name) is not None}


def _dead_rules(source: Source, policy: PlatformPolicy) -> Iterator[Problem]:
    """Yield the rules that an earlier, more general one keeps from ever matching."""
    asked = [_asks(rule) for rule in policy.errors.rules]
    for number, ours in enumerate(asked):
        for earlier, theirs in enumerate(asked[:number]):
            if theirs and _covers(theirs, ours):
                said = f"never matches: rule {earlier} takes all of its answers first"
                yield source.problem(("errors", "rules", number), said)
                break


def _covers(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    return all(
        name in ours
        and (value.lower() in ours[name].lower() if name == "contains" else value == ours[name])
        for name, value in theirs.items()
    )


def _ranges(model: BaseModel, path: Path_) -> Iterator[tuple[Path_, Any, Any]]:
    for name, value in model:
        if isinstance(value, Within | Lasts):
            yield (*path, name), value.min, value.max
        elif isinstance(value, BaseModel):
            yield from _ranges(value, (*path, name))


def _checked(node: Any, path: Path_) -> Iterator[tuple[Path_, date]]:
    pairs: Any = ()
    if isinstance(node, Mapping):
        pairs = node.items()
    elif isinstance(node, list):
        pairs = enumerate(node)
    for key, value in pairs:
        if key == "checked" and isinstance(value, date):
            yield (*path, key), value
        else:
            yield from _checked(value, (*path, key))


def _ageing(source: Source, policy: PlatformPolicy, today: date) -> Iterator[Problem]:
    sunset = policy.api.sunset
    if sunset is not None and sunset - today < timedelta(days=60):
        word = "stopped" if sunset <= today else "stops"
        yield source.problem(("api", "sunset"), f"{policy.api.version} {word} on {sunset}")
    for place, day in _checked(source.data, ()):
        if today - day > timedelta(days=365):
            yield source.problem(place, f"nobody looked since {day}; look again")


def load_platforms(folder: Path) -> Mapping[str, PlatformPolicy]:
    """Return the platform policies by name; raise BrokenPolicies with every problem.

    Read again only when a file changed.
    """
    report = Report()
    files = policy_files(folder / "platforms", report)
    if report.problems or not files:
        missing = _about(folder / "platforms", "holds no platform policies (*.yaml)")
        raise BrokenPolicies(tuple(report.problems) or (missing,))
    return _loaded(folder, tuple((path, stamp(path)) for path in files))


def stamp(path: Path) -> tuple[int, int]:
    try:
        known = path.stat()
    except OSError:
        return 0, 0  # The look at the file says why.
    return known.st_mtime_ns, known.st_size


@lru_cache(maxsize=4)
def _loaded(
    folder: Path, files: tuple[tuple[Path, tuple[int, int]], ...]
) -> Mapping[str, PlatformPolicy]:
    report = Report()
    names = {path: str(path.relative_to(folder.parent)) for path, _ in files}
    found = _look_at_all(names, datetime.now(UTC).date(), report)
    if report.problems:
        raise BrokenPolicies(tuple(sorted(report.problems)))
    return types.MappingProxyType(found)


def platform(folder: Path, name: str) -> PlatformPolicy:
    """Return one platform's policy; raise InvalidInput with the nearest name."""
    platforms = load_platforms(folder)
    if name in platforms:
        return platforms[name]
    near = difflib.get_close_matches(name, platforms, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InvalidInput(f"unknown platform {name!r}{hint} (known: {', '.join(sorted(platforms))})")


def policy_hash(policy: BaseModel) -> str:
    """Return the SHA-256 of the policy's canonical JSON: which rules an action followed."""
    return hashlib.sha256(policy.model_dump_json(by_alias=True).encode()).hexdigest()


def narrowed(policy: PlatformPolicy, limits: Mapping[str, Any]) -> PlatformPolicy:
    """Return `policy` with the limits that a server told of itself; unknown words are ignored.

    Numbers are in the plainest unit: bytes, seconds, bits a second. Of a list, what the server
    does not take is left out; where nothing is left, it takes no such medium at all.
    """
    update: dict[str, Any] = {}
    for section, told in limits.items():
        ours = getattr(policy, section, None)
        if isinstance(ours, BaseModel) and isinstance(told, Mapping):
            update[section] = _overlaid(ours, told)
    return policy.model_copy(update=update) if update else policy


def _overlaid(ours: BaseModel, told: Mapping[str, Any]) -> BaseModel:
    update: dict[str, Any] = {}
    for name, value in told.items():
        mine = getattr(ours, name, None)
        kinds = _kinds_of(type(ours), name)
        if isinstance(mine, BaseModel) and isinstance(value, Mapping):
            update[name] = _overlaid(mine, value)
        elif isinstance(mine, list) and isinstance(value, list):
            update[name] = [one for one in mine if one in value]
        elif name == "links" and value == 0:  # Servers that count a link as written say so.
            update[name] = None
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            if timedelta in kinds:
                update[name] = _span_of(value)
            elif kinds & {int, float}:
                update[name] = value
    if [] in update.values() and "max" in type(ours).model_fields:
        update["max"] = 0
    return ours.model_copy(update=update)


def _kinds_of(model: type[BaseModel], name: str) -> set[Any]:
    """Return the plain types that a field takes; none where the model has no such field."""
    if name not in model.model_fields:
        return set()
    said = model.model_fields[name].annotation
    return {getattr(one, "__origin__", one) for one in typing.get_args(said) or (said,)}


def _span_of(seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return timedelta.max
