"""Decides what of a feed, a folder or a mailbox is new and complete, and what its post says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from clickpost.draft import MediaItem, PostFile, Wording
from clickpost.policy.arriving import ByArrival, ByFeed, ByFolder, Template
from clickpost.telling import Event


class State(StrEnum):
    """How far something that arrived has come."""

    NEW = "new"
    TAKEN = "taken"
    PASSED = "passed"
    """Not meant: it was there before the first look, or a machine wrote it."""
    REFUSED = "refused"


#: What is not looked at for so long is new to us: what it holds by then is no news.
FORGOTTEN_AFTER = timedelta(days=30)
#: A post file waits so long for the media that it names.
PATIENCE = timedelta(hours=1)
#: The words of an entry, and of a file, that a template may ask for.
ENTRY_WORDS = ("title", "link", "summary", "author")
FILE_WORDS = ("name", "stem")

POST_FILES = (".yaml", ".yml", ".json")
#: Names of what is still on its way, as browsers, rsync and the like give them.
_PARTIAL = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart")
_WORD = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True)
class Arrived:
    """Something that is there now: `key` tells it from all else of its place."""

    key: str
    facts: Mapping[str, Any] = field(repr=False)
    """What is needed to take it; forgotten once it is taken."""
    at: datetime | None = None
    """When its author says that it appeared."""
    passed: str | None = None
    """Why it is not meant, where it is not."""


@dataclass(frozen=True)
class File:
    """A file of a folder, as the system tells it."""

    name: str
    bytes: int
    inode: int
    written_at: datetime
    """When anybody last wrote to it or to its name, whatever its own date says."""
    dated: int
    """Its own date, in nanoseconds."""


def digest(*parts: object) -> str:
    """Return what tells these parts from all others; it says nothing of them."""
    joined = "\x00".join(str(part) for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def place_of(when: ByArrival) -> str:
    """Return the digest of where a trigger looks: elsewhere everything is there for the first."""
    match when:
        case ByFeed():
            return digest("feed", when.feed)
        case ByFolder():
            return digest("folder", when.folder, when.of)
        case _:
            return digest("mailbox", when.mailbox, when.port, when.login, when.inbox)


def is_first(known: tuple[str, datetime] | None, place: str, now: datetime) -> bool:
    """Say whether a look at `place` is the first one, or as good as that.

    `known` is where the trigger looked before, and when.
    """
    return known is None or known[0] != place or known[1] < now - FORGOTTEN_AFTER


def event_of(when: ByArrival) -> Event:
    """Return what is told to triggers once something is taken."""
    match when:
        case ByFeed():
            return Event.ENTRY
        case ByFolder():
            return Event.MEDIA_ADDED
        case _:
            return Event.MAIL


def words_of(when: ByArrival) -> tuple[str, ...]:
    """Return the words that a template may ask for."""
    return ENTRY_WORDS if isinstance(when, ByFeed) else FILE_WORDS


def asked(template: Template) -> set[str]:
    """Return the words that a template asks for."""
    wordings = template.variants.values()
    texts = [template.text, template.title, template.alt]
    texts += [text for one in wordings for text in (one.text, one.title) if text]
    return {word for text in texts for word in _WORD.findall(text)}


def worded(text: str, words: Mapping[str, str]) -> str:
    """Return a text with its words filled in; what stands in them is taken as it is."""
    return _WORD.sub(lambda match: words.get(match[1], match[0]), text).strip()


def post_of(template: Template, words: Mapping[str, str], key: str, *files: str) -> PostFile:
    """Return the post that a template makes of `words` and `files`."""
    alt = worded(template.alt, words)
    plain = template.model_dump(exclude={"text", "title", "alt", "draft", "variants"})
    return PostFile(
        **plain,
        text=worded(template.text, words),
        title=worded(template.title, words),
        media=[MediaItem(file=file, alt=alt) for file in files],
        variants={name: _varied(one, words) for name, one in template.variants.items()},
        key=key,
    )


def _varied(variant: Wording, words: Mapping[str, str]) -> Wording:
    said = {name: getattr(variant, name) for name in ("text", "title")}
    filled = {name: worded(text, words) for name, text in said.items() if text is not None}
    return variant.model_copy(update=filled)


def is_meant(name: str) -> bool:
    """Say whether a file's name is that of something that is there to be taken."""
    return not name.startswith((".", "~")) and not name.lower().endswith((*_PARTIAL, "~"))


def is_post_file(name: str) -> bool:
    """Say whether a file is named as one that holds a post."""
    return PurePath(name).suffix.lower() in POST_FILES


def is_settled(file: File, span: timedelta, now: datetime) -> bool:
    """Say whether nobody has written to a file for a while: it is complete."""
    return file.written_at <= now - span


def beside(name: str, names: Iterable[str]) -> str | None:
    """Return the post file of a medium: `sea.yaml`, or `sea.jpg.yaml`, for `sea.jpg`."""
    stems = (name, PurePath(name).stem)
    return next(
        (one for one in sorted(names) if is_post_file(one) and one[: one.rindex(".")] in stems),
        None,
    )


def key_of(file: File, *, moves: bool) -> str:
    """Return what tells a file from others; where it `moves`, the same put there again is new."""
    same = (file.name, file.bytes, file.dated)
    return digest(*same, file.inode) if moves else digest(*same)


#: Words of headers by which programs know each other (RFC 3834, and what came before it).
_BULK = ("bulk", "junk", "list", "auto_reply", "auto-reply")
_SAYS_SO = ("x-autoreply", "x-autorespond", "x-autorespond-to", "x-auto-reply-from", "list-id")
_MACHINES = ("mailer-daemon", "postmaster", "noreply", "no-reply", "donotreply", "do-not-reply")


def machine_made(headers: Mapping[str, str]) -> str | None:
    """Return by what one sees that no person wrote a mail; None where nothing says so.

    Who answers such mails answers machines, which answer again. Names are in lower case.
    """
    submitted = headers.get("auto-submitted", "no").partition(";")[0].strip().lower()
    if submitted != "no":
        return "auto-submitted"
    if headers.get("precedence", "").strip().lower() in _BULK:
        return "precedence"
    for name in _SAYS_SO:
        if name in headers:
            return name
    if headers.get("return-path", "").strip() == "<>":
        return "return-path"
    if "multipart/report" in headers.get("content-type", "").lower():
        return "content-type"
    local = headers.get("from", "").rpartition("<")[2].partition("@")[0].strip().lower()
    return "from" if local in _MACHINES else None
