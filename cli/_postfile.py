"""Makes a post out of a file and flags; what is wrong is named by file, line and key."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from clickpost.draft import MediaItem, PostFile
from clickpost.errors import InvalidInput
from clickpost.policy.load import Problem, read_file, validated


@dataclass(frozen=True)
class Flags:
    """What the command line says of a post; None or empty where it says nothing."""

    text: str | None
    text_file: Path | None
    title: str | None
    media: Sequence[str]
    alt: Sequence[str]
    to: Sequence[str]
    at: str | None
    zone: str | None
    fit: str | None
    late: str | None
    key: str | None
    visibility: str | None
    tags: Sequence[str]
    repeat: str | None = None


NO_FLAGS = Flags(None, None, None, (), (), (), None, None, None, None, None, None, ())


def post_of(file: Path | None, flags: Flags) -> tuple[PostFile, Path]:
    """Return the post and the folder that its files are relative to; flags win over the file."""
    post, folder = (PostFile(), Path()) if file is None else (_read(file), file.parent)
    said: dict[str, Any] = {
        name: getattr(flags, name)
        for name in ("title", "zone", "fit", "late", "key", "visibility")
        if getattr(flags, name) is not None
    }
    if flags.text is not None and flags.text_file is not None:
        raise InvalidInput("--text and --text-file: give one of them")
    if flags.text is not None:
        said["text"] = flags.text
    if flags.text_file is not None:
        said["text"] = _text(flags.text_file)
    if flags.at is not None:
        said["at"] = time_of(flags.at)
    if flags.repeat is not None:
        said["repeat"] = {"rule": flags.repeat}
    if flags.to:
        said["to"] = list(flags.to)
    if flags.tags:
        said["tags"] = list(flags.tags)
    if flags.media:
        said["media"] = _media(flags.media, flags.alt)
        folder = Path()
    elif flags.alt:
        raise InvalidInput("--alt: describes a --media, and there is none")
    try:
        return PostFile.model_validate(post.model_dump() | said), folder
    except ValueError as error:
        details = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": str(error)}
        name = ".".join(str(step) for step in details["loc"])
        raise InvalidInput(f"--{name}: {details['msg']}") from None


def _read(file: Path) -> PostFile:
    source = read_file(file)
    if isinstance(source, Problem):
        raise InvalidInput(str(source))
    post = validated(source, PostFile)
    if isinstance(post, list):
        raise InvalidInput("\n".join(str(problem) for problem in post))
    return post


def _text(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"--text-file: {path} is not UTF-8 text") from None
    except OSError as error:
        raise InvalidInput(f"--text-file: {path}: {error.strerror}") from None


def _media(files: Sequence[str], alts: Sequence[str]) -> list[MediaItem]:
    if len(alts) > len(files):
        raise InvalidInput(f"--alt: {len(alts)} descriptions for {len(files)} media")
    padded = [*alts, *[""] * (len(files) - len(alts))]
    return [MediaItem(file=file, alt=alt) for file, alt in zip(files, padded, strict=True)]


def time_of(word: str) -> datetime | Literal["next-slot"]:
    """Return the time that `--at` means; raise InvalidInput where it means none."""
    if word == "next-slot":
        return "next-slot"
    try:
        return datetime.fromisoformat(word)
    except ValueError:
        raise InvalidInput(
            f"--at: needs a time such as 2026-12-01T09:00+01:00, or next-slot; found {word!r}"
        ) from None
