"""Reads policy files: all that is wrong at once, with file, line, column, meaning and spelling."""

from __future__ import annotations

import difflib
import hashlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from clickpost.contract import CAPABILITIES
from clickpost.errors import InvalidInput, PolicyError
from clickpost.policy.shape import PlatformPolicy, Within

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in one place; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    key: str
    message: str
    meaning: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: "
        said = f"{self.key}: {self.message}" if self.key else self.message
        hint = f"; did you mean '{self.hint}'?" if self.hint else ""
        meaning = f" ({self.meaning})" if self.meaning else ""
        return place + said + hint + meaning


class BrokenPolicies(PolicyError):
    """Policy files that cannot be used; `problems` names every reason."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass
class Report:
    """What a look at a folder of policies found."""

    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """One YAML document as it was read, with the places of its keys."""

    file: str
    data: Any

    def place(self, path: Path_) -> tuple[int, int]:
        """Return line and column (from 1) of the deepest part of `path` that exists."""
        node, found = self.data, (0, 0)
        if isinstance(node, CommentedMap | CommentedSeq):
            found = (node.lc.line, node.lc.col)
        for step in path:
            try:
                if isinstance(node, CommentedMap):
                    found = node.lc.key(step)
                elif isinstance(node, CommentedSeq):
                    found = node.lc.item(step)
                node = node[step]
            except (KeyError, IndexError, TypeError):
                break
        return found[0] + 1, found[1] + 1

    def problem(self, path: Path_, message: str, meaning: str = "", hint: str = "") -> Problem:
        """Return a problem at `path`."""
        key = ".".join(str(step) for step in path)
        return Problem(self.file, *self.place(path), key, message, meaning, hint)


def read(text: str, file: str) -> Source | Problem:
    """Read one YAML document; a key given twice is an error, NO stays a string."""
    yaml = YAML(typ="rt")  # Round trip keeps the places; YAML 1.2, duplicate keys refused.
    try:
        data = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = (error.problem or "cannot be read").split("\n")[0].strip()
        if "duplicate key" in message:
            message = f"a key given twice: {message}"
        return Problem(file, line, column, "", message)
    except (YAMLError, ValueError) as error:
        return Problem(file, 1, 1, "", f"cannot be read as YAML: {type(error).__name__}")
    if not isinstance(data, CommentedMap):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        return Problem(file, 1, 1, "", f"must be a mapping of keys to values, found {found}")
    return Source(file, data)


def read_file(path: Path, name: str | None = None) -> Source | Problem:
    """Read a file; what cannot be opened or is no text is a problem too."""
    file = name or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return Problem(file, 1, 1, "", "is not UTF-8 text")
    except OSError as error:
        return Problem(file, 1, 1, "", f"cannot be read: {error.strerror}")
    return read(text, file)


Model = typing.TypeVar("Model", bound=BaseModel)


def validated(source: Source, model: type[Model]) -> Model | list[Problem]:
    """Return `source` as a `model`, or every problem that it has."""
    try:
        return model.model_validate(_plain(source.data))
    except ValidationError as error:
        return sorted(
            {_problem(source, model, detail) for detail in error.errors(include_url=False)}
        )


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def _problem(source: Source, model: type[BaseModel], detail: ErrorDetails) -> Problem:
    path = tuple(step for step in detail["loc"] if not _is_tag(step, source.data, detail["loc"]))
    parent = _model_at(model, path[:-1])
    names = _names(parent)
    key = str(path[-1]) if path else ""
    match detail["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            meaning = names[near[0]] if near else ""
            return source.problem(path, "unknown key", meaning, near[0] if near else "")
        case "missing":
            return source.problem(path, "is missing", names.get(key, ""))
        case "literal_error":
            choices = str(detail.get("ctx", {}).get("expected", ""))
            words = [word.strip(" '") for word in choices.replace(" or ", ",").split(",")]
            near = difflib.get_close_matches(str(detail["input"]), words, n=1, cutoff=0.5)
            message = f"must be one of {choices}; found {_shown(detail['input'])}"
            return source.problem(path, message, names.get(key, ""), near[0] if near else "")
        case _:
            message = detail["msg"].removeprefix("Value error, ")
            return source.problem(
                path, f"{message}; found {_shown(detail['input'])}", names.get(key, "")
            )


def _is_tag(step: str | int, data: Any, path: tuple[str | int, ...]) -> bool:
    """Say whether a step of pydantic's path names a type and no key (as unions do)."""
    return isinstance(step, str) and ("[" in step or step == "function-before")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _names(model: type[BaseModel] | None) -> dict[str, str]:
    if model is None:
        return {}
    return {
        (one.alias or name): (one.description or "").rstrip(".")
        for name, one in model.model_fields.items()
    }


def _model_at(model: type[BaseModel], path: Path_) -> type[BaseModel] | None:
    found: type[BaseModel] | None = model
    for step in path:
        if found is None:
            return None
        if isinstance(step, int):
            continue
        by_name = {(one.alias or name): one for name, one in found.model_fields.items()}
        one = by_name.get(step)
        found = None if one is None else next(_models_in(one.annotation), None)
        if one is None:
            return None
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (list, dict, types.UnionType, typing.Union):
        for part in typing.get_args(annotation):
            yield from _models_in(part)


def check(folder: Path, today: date | None = None) -> Report:
    """Look at every policy file under `folder` and report all that is wrong, and what will be."""
    today = today or datetime.now(UTC).date()
    report = Report()
    for path in _files(folder):
        name = str(path.relative_to(folder.parent))
        report.files.append(name)
        _look_at(path, name, today, report)
    if not report.files:
        report.problems.append(Problem(str(folder), 1, 1, "", "has no policy files"))
    report.problems.sort()
    report.warnings.sort()
    return report


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file()
    )


def _look_at(path: Path, name: str, today: date, report: Report) -> PlatformPolicy | None:
    source = read_file(path, name)
    if isinstance(source, Problem):
        report.problems.append(source)
        return None
    kind = source.data.get("kind")
    if kind != "platform":
        message = "is missing" if kind is None else f"unknown kind; found {_shown(kind)}"
        report.problems.append(source.problem(("kind",), message, "platform", "platform"))
        return None
    policy = validated(source, PlatformPolicy)
    if isinstance(policy, list):
        report.problems.extend(policy)
        return None
    report.problems.extend(_contradictions(source, policy, path, today))
    report.warnings.extend(_ageing(source, policy, today))
    return policy


def _contradictions(
    source: Source, policy: PlatformPolicy, path: Path, today: date
) -> Iterator[Problem]:
    if policy.name != path.stem:
        yield source.problem(("name",), f"must be the file's name, {path.stem!r}")
    for number, word in enumerate(policy.capabilities):
        if word not in CAPABILITIES:
            near = difflib.get_close_matches(word, CAPABILITIES, n=1, cutoff=0.5)
            yield source.problem(
                ("capabilities", number),
                f"unknown capability {word!r}",
                "",
                near[0] if near else "",
            )
    for place, span in _ranges(policy, ()):
        if span.min is not None and span.max is not None and span.min > span.max:
            yield source.problem(place, f"min {span.min:g} is above max {span.max:g}")
    for place, day in _checked(source.data, ()):
        if day > today + timedelta(days=1):
            yield source.problem(place, f"{day} is in the future")


def _ranges(model: BaseModel, path: Path_) -> Iterator[tuple[Path_, Within]]:
    for name, value in model:
        if isinstance(value, Within):
            yield (*path, name), value
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
    files = tuple((path, path.stat().st_mtime_ns) for path in _files(folder / "platforms"))
    return _loaded(folder, files)


@lru_cache(maxsize=4)
def _loaded(folder: Path, files: tuple[tuple[Path, int], ...]) -> Mapping[str, PlatformPolicy]:
    today = datetime.now(UTC).date()
    report = Report()
    found: dict[str, PlatformPolicy] = {}
    for path, _ in files:
        policy = _look_at(path, str(path.relative_to(folder.parent)), today, report)
        if policy is not None:
            found[policy.name] = policy
    if report.problems:
        raise BrokenPolicies(tuple(sorted(report.problems)))
    if not found:
        raise BrokenPolicies((Problem(str(folder), 1, 1, "", "has no platform policies"),))
    return types.MappingProxyType(found)


def platform(folder: Path, name: str) -> PlatformPolicy:
    """Return one platform's policy; raise InvalidInput with the nearest name."""
    platforms = load_platforms(folder)
    if name in platforms:
        return platforms[name]
    near = difflib.get_close_matches(name, platforms, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InvalidInput(f"unknown platform {name!r}{hint} (known: {', '.join(sorted(platforms))})")


def policy_hash(policy: PlatformPolicy) -> str:
    """Return the SHA-256 of the policy's canonical JSON: which rules an action followed."""
    return hashlib.sha256(policy.model_dump_json(by_alias=True).encode()).hexdigest()


def narrowed(policy: PlatformPolicy, limits: Mapping[str, Any]) -> PlatformPolicy:
    """Return `policy` with the limits that a server told of itself; unknown words are ignored."""
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
        if name not in type(ours).model_fields:
            continue
        if isinstance(mine, BaseModel) and isinstance(value, Mapping):
            update[name] = _overlaid(mine, value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            update[name] = value
    return ours.model_copy(update=update)
