"""Reads one YAML document and remembers where every key stands; runs nothing, follows nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

Path_ = tuple[str | int, ...]

#: Far above what people write; a file beyond them is a mistake or an attack.
MOST_BYTES, DEEPEST = 2**20, 32


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

    @property
    def place(self) -> str:
        """Return `file:line:column`, as editors understand it."""
        return f"{self.file}:{self.line}:{self.column}"

    @property
    def said(self) -> str:
        """Return what is wrong, and the nearest spelling."""
        said = f"{self.key}: {self.message}" if self.key else self.message
        return said + (f"; did you mean '{self.hint}'?" if self.hint else "")

    def __str__(self) -> str:
        return f"{self.place}: {self.said}" + (f" ({self.meaning})" if self.meaning else "")


@dataclass(frozen=True)
class Source:
    """One YAML document as it was read, the places of its keys, and what is wrong already."""

    file: str
    data: dict[str, Any]
    places: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def place(self, path: Path_) -> tuple[int, int]:
        """Return line and column (from 1) of the deepest part of `path` that exists."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.places.get((), (1, 1))

    def problem(self, path: Path_, message: str, meaning: str = "", hint: str = "") -> Problem:
        """Return a problem at `path`."""
        key = ".".join(str(step) for step in path)
        return Problem(self.file, *self.place(path), key, message, meaning, hint)


class _Stop(Exception):
    """Reading on makes no sense."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def read(text: str, file: str) -> Source | Problem:
    """Read one YAML 1.2 document: NO stays a string, a key given twice is a problem."""
    try:
        return _Reading(file, _events(text)).source()
    except _Stop as stop:
        return stop.problem
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return Problem(file, line, column, "", _clear(error))
    except ReaderError as error:
        place = _place_in(text, error.position)
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return Problem(file, *place, "", f"the character U+{code:04X} is not text")
    except (YAMLError, ValueError) as error:
        return Problem(file, 1, 1, "", f"cannot be read as YAML: {type(error).__name__}")


def read_file(path: Path, name: str | None = None) -> Source | Problem:
    """Read a file; what cannot be opened or is no text is a problem too."""
    file = name or str(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            return Problem(file, 1, 1, "", f"is larger than {MOST_BYTES} bytes")
        content = path.read_bytes()
        return read(content.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        place = _place_in(content[: error.start].decode("utf-8-sig", "replace"), None)
        return Problem(file, *place, "", "is not UTF-8 text from here on; save it as UTF-8")
    except OSError as error:
        return Problem(file, 1, 1, "", f"cannot be read: {error.strerror}")


def _events(text: str) -> Iterator[Event]:
    # Events alone: no object is made, no anchor is followed, no depth is recursed into.
    events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
    return events


def _place_in(text: str, end: int | None) -> tuple[int, int]:
    before = text[:end]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


_CLEAR = {
    "found character '\\t'": "a tab; YAML is indented with spaces",
    "mapping values are not allowed": "a colon in the wrong place: look at the indentation, "
    "or put quotes around a value that holds `: `",
    "expected <block end>": "does not fit in here: look at the indentation of this line",
    "could not find expected ':'": "a key without a colon",
    "found unexpected end of stream": "a quote that is opened and never closed",
    "expected ',' or": "a bracket or brace that is opened and never closed, or a missing comma",
    "found undefined alias": "aliases have no place here; write the value again",
    "cannot start any token": "a value that starts with a special sign; put it in quotes",
}


def _clear(error: MarkedYAMLError) -> str:
    """Say a syntax error in words for people who do not know YAML's grammar."""
    said = " ".join((error.problem or "cannot be read").split())
    return next((words for start, words in _CLEAR.items() if start in said), f"not YAML: {said}")


class _Reading:
    """Makes one document out of events."""

    def __init__(self, file: str, events: Iterator[Event]) -> None:
        self.file, self.events = file, events
        self.places: dict[Path_, tuple[int, int]] = {}
        self.problems: list[Problem] = []

    def source(self) -> Source:
        """Return the document, which must be the only one and a mapping."""
        data: Any = None
        documents = 0
        for event in self.events:
            documents += isinstance(event, DocumentStartEvent)
            if documents > 1 and isinstance(event, DocumentStartEvent):
                raise self._stop(event, "a second document; one file holds one")
            if isinstance(event, NodeEvent):
                self.places[()] = _place_of(event)
                data = self._node(event, ())
        if isinstance(data, dict):
            return Source(self.file, data, self.places, tuple(self.problems))
        found = "nothing" if data is None else "a list" if isinstance(data, list) else "a value"
        line, column = self.places.get((), (1, 1))
        message = f"must be a mapping of keys to values, found {found}"
        raise _Stop(Problem(self.file, line, column, "", message))

    def _node(self, event: NodeEvent, path: Path_) -> Any:
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise self._stop(event, "anchors and aliases have no place here; write the value again")
        tag = getattr(event, "ctag", None)
        if tag is not None:
            raise self._stop(event, f"tags have no place here, found {tag}")
        if len(path) > DEEPEST:
            raise self._stop(event, f"is nested deeper than {DEEPEST} levels")
        match event:
            case MappingStartEvent():
                return self._mapping(path)
            case SequenceStartEvent():
                return self._sequence(path)
            case ScalarEvent(value=text):
                return value_of(text) if event.implicit[0] else text
        raise AssertionError(event)

    def _mapping(self, path: Path_) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self._stop(event, "a key must be a word")
            key = str(event.value)
            self._node(event, path)
            place = _place_of(event)
            if key in found:
                first = self.places[*path, key][0]
                said = f"a key given twice (first in line {first})"
                name = ".".join(str(step) for step in (*path, key))
                self.problems.append(Problem(self.file, *place, name, said))
                self._node(self._next(), (*path, f"{key} again"))
                continue
            self.places[*path, key] = place
            found[key] = self._node(self._next(), (*path, key))
        return found

    def _sequence(self, path: Path_) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            here = (*path, len(found))
            self.places[here] = _place_of(event)
            found.append(self._node(event, here))
        return found

    def _next(self) -> Any:
        return next(self.events)  # A node, or the end of a collection: YAML's grammar says so.

    def _stop(self, event: Event, message: str) -> _Stop:
        return _Stop(Problem(self.file, *_place_of(event), "", message))


def _place_of(event: Event) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WHOLE = re.compile(r"[-+]?[0-9]{1,30}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def value_of(text: str) -> Any:
    """Return what a value without quotes means: YAML 1.2's words, numbers, and days."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    if _DAY.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text
    return text
