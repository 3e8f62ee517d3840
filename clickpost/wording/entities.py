"""Finds links, mentions and hashtags in a text, in linear time, with code point and byte offsets.

Hashtags follow Bluesky's client (a tag is not only digits, loses trailing punctuation, has at
most 64 graphemes); links keep balanced parentheses and lose trailing punctuation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex


@dataclass(frozen=True)
class Entity:
    """A piece of text: [start, end) in code points, [byte_start, byte_end) in UTF-8."""

    start: int
    end: int
    byte_start: int
    byte_end: int


@dataclass(frozen=True)
class Link(Entity):
    """An address; `bare` where the text has no scheme (`example.com/page`)."""

    url: str
    bare: bool


@dataclass(frozen=True)
class Mention(Entity):
    """A handle without its @: `name`, and `host` of a fediverse address."""

    name: str
    host: str | None


@dataclass(frozen=True)
class Tag(Entity):
    """A hashtag without its #."""

    tag: str


#: Ends of bare domains that are links; a full list would call `file.py` one.
_BARE_ENDS = frozenset(
    [
        "com",
        "org",
        "net",
        "edu",
        "gov",
        "mil",
        "int",
        "io",
        "co",
        "ai",
        "app",
        "dev",
        "blog",
        "news",
        "info",
        "biz",
        "eu",
        "uk",
        "de",
        "fr",
        "es",
        "it",
        "nl",
        "be",
        "ch",
        "at",
        "se",
        "no",
        "fi",
        "dk",
        "pl",
        "cz",
        "pt",
        "ie",
        "us",
        "ca",
        "au",
        "nz",
        "jp",
        "kr",
        "cn",
        "in",
        "br",
        "mx",
        "ar",
        "ru",
        "ua",
        "tr",
        "gr",
        "hu",
        "ro",
        "il",
        "za",
        "social",
        "xyz",
        "me",
        "tv",
        "online",
        "site",
        "store",
        "shop",
        "art",
        "tech",
        "cloud",
        "live",
        "page",
        "link",
        "click",
        "world",
        "studio",
        "agency",
        "media",
    ]
)
#: Marks of direction, which belong to no link or tag: a cut closes an isolate right behind one.
_BIDI = r"\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LABEL = r"[\p{L}\p{N}][\p{L}\p{M}\p{N}_-]{0,62}"
_HOST = rf"{_LABEL}(?:\.{_LABEL})++"
_URL = regex.compile(
    # As on Mastodon, a letter of another script than ours may stand right before a link.
    r"(?<![a-zA-Z0-9@＠$#＃/\u202a-\u202e])https?://"
    rf"[^\s<>\"\u2018\u2019\u201c\u201d\u00ab\u00bb\u3000-\u3002\uff0c{_BIDI}]+",
    regex.IGNORECASE,
)
_BARE = regex.compile(
    rf"(?<![\p{{L}}\p{{N}}@/_.:#-])(?:www\.)?({_HOST})(?::\d{{2,5}})?"
    rf"(?:/[^\s<>\"\u201c\u201d\u3000-\u3002\uff0c{_BIDI}]*)?"
    r"(?![\p{L}\p{N}@])",
    regex.IGNORECASE,
)
_MENTION = regex.compile(
    r"(?<![\p{L}\p{M}\p{N}_@/=+])@([\p{L}\p{N}_](?:[\p{L}\p{N}_.-]{0,250}[\p{L}\p{N}_])?)"
    rf"(?:@({_HOST}|localhost)(?::\d{{2,5}})?)?(?![@\p{{L}}\p{{N}}])",
)
_TAG = regex.compile(
    rf"(?:(?<=^|[\s\p{{P}}\p{{S}}{_BIDI}])(?<![&/#＃\w]))[#＃](?!\ufe0f|\u20e3)"
    rf"([^\s\u00ad\u2060\u200a\u200b\u200c\u200d\u20e2{_BIDI}#＃]+"
    rf"(?:\u200d[^\s\u200b{_BIDI}#＃]+)*)"
)
_TRAILING = regex.compile(r"[\p{P}]+$")
_ONLY_DIGITS = regex.compile(r"^[\p{N}\p{P}]+$")
_GRAPHEME = regex.compile(r"\X")
_PAIRS = {")": "(", "]": "[", "}": "{"}
_ENDING = frozenset(".,;:!?'\"*_~|…。、！？；：")


def entities(text: str) -> tuple[Entity, ...]:
    """Return the links, mentions and tags of `text`, in order, none overlapping another."""
    if not any(sign in text for sign in ("@", "#", "＃", ".", "://")):
        return ()
    found: list[tuple[int, int, str, tuple[str | None, ...]]] = []
    taken = _Taken()
    for kind, pieces in (
        ("url", _urls(text)),
        ("mention", _mentions(text)),
        ("bare", _bares(text)),
        ("tag", _tags(text)),
    ):
        for start, end, *rest in pieces:
            if taken.take(start, end):
                found.append((start, end, kind, tuple(rest)))
    found.sort()
    return tuple(_measured(text, found))


class _Taken:
    """Which stretches of the text are spoken for."""

    def __init__(self) -> None:
        self._cells: set[int] = set()

    def take(self, start: int, end: int) -> bool:
        """Take [start, end) unless a part of it is taken."""
        cells = range(start, end)
        if not self._cells.isdisjoint(cells):
            return False
        self._cells.update(cells)
        return True


def _measured(
    text: str, found: list[tuple[int, int, str, tuple[str | None, ...]]]
) -> Iterator[Entity]:
    at, at_byte = 0, 0
    for start, end, kind, rest in found:
        byte_start = at_byte + len(text[at:start].encode("utf-8", "surrogatepass"))
        byte_end = byte_start + len(text[start:end].encode("utf-8", "surrogatepass"))
        at, at_byte = end, byte_end
        place = (start, end, byte_start, byte_end)
        match kind:
            case "mention":
                yield Mention(*place, name=str(rest[0]), host=rest[1])
            case "tag":
                yield Tag(*place, tag=str(rest[0]))
            case _:
                bare = kind == "bare"
                shown = text[start:end]
                yield Link(*place, url=f"https://{shown}" if bare else shown, bare=bare)


def trimmed(url: str) -> str:
    """Return `url` without trailing punctuation and unbalanced closing brackets."""
    balance = {opener: url.count(opener) for opener in _PAIRS.values()}
    closers = {closer: url.count(closer) for closer in _PAIRS}
    end = len(url)
    while end:
        last = url[end - 1]
        if last in _PAIRS and closers[last] > balance[_PAIRS[last]]:
            closers[last] -= 1
        elif last in _PAIRS.values():
            balance[last] -= 1
        elif last not in _ENDING:
            break
        end -= 1
    return url[:end]


def _urls(text: str) -> Iterator[tuple[int, int]]:
    for match in _URL.finditer(text):
        url = trimmed(match[0])
        host = url.partition("://")[2]
        if host and host[0].isalnum():
            yield match.start(), match.start() + len(url)


def _bares(text: str) -> Iterator[tuple[int, int]]:
    for match in _BARE.finditer(text):
        end = match[1].rpartition(".")[2]
        # `The end.It was` lacks a space; it is no link to Italy.
        if end.lower() in _BARE_ENDS and not end.istitle():
            shown = trimmed(match[0])
            yield match.start(), match.start() + len(shown)


def _mentions(text: str) -> Iterator[tuple[int, int, str, str | None]]:
    for match in _MENTION.finditer(text):
        yield match.start(), match.end(), match[1], match[2]


def digit_tags(text: str) -> tuple[str, ...]:
    """Return what looks like a hashtag and has only digits, which is none on some platforms."""
    links = [(one.start, one.end) for one in entities(text) if isinstance(one, Link)]
    return tuple(
        f"#{tag}"
        for match in _TAG.finditer(text)
        if (tag := _TRAILING.sub("", match[1]))
        and _ONLY_DIGITS.match(tag)
        and not any(start <= match.start() < end for start, end in links)
    )


def _tags(text: str) -> Iterator[tuple[int, int, str]]:
    for match in _TAG.finditer(text):
        tag = _TRAILING.sub("", match[1])
        if not tag or _ONLY_DIGITS.match(tag):
            continue
        if len(tag) > 64 and len(_GRAPHEME.findall(tag)) > 64:
            continue
        yield match.start(), match.start() + 1 + len(tag), tag
