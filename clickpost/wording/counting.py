"""Counts a text as a platform counts it."""

from __future__ import annotations

from dataclasses import dataclass

import regex

from clickpost.policy.shape import Count, TextRules
from clickpost.wording.entities import Link, Mention, entities

_GRAPHEME = regex.compile(r"\X")
#: Code points that X's weighted count takes as one; all others count two.
_LIGHT = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))
_X_LINK = 23


@dataclass(frozen=True)
class Measure:
    """How long a text is: in the platform's `units`, and in UTF-8 `bytes`."""

    units: int
    bytes: int


def measure(text: str, rules: TextRules) -> Measure:
    """Return the length of `text` by `rules`."""
    return Measure(units_of(text, rules.count, rules.links), octets(text))


def units_of(text: str, count: Count, links: int | None = None) -> int:
    """Return the units of `text`; `links` is what every http(s) link counts, if not as written."""
    match count:
        case "graphemes":
            return graphemes(text) if links is None else graphemes(_shortened(text, links, False))
        case "mastodon":
            return graphemes(_shortened(text, links, True))
        case "code_points":
            return len(text)
        case "utf16":
            return len(text.encode("utf-16-le", "surrogatepass")) // 2
        case "bytes":
            return octets(text)
        case "x_weighted":
            return _weighted(text)


def graphemes(text: str) -> int:
    """Return the number of grapheme clusters (UAX #29)."""
    if text.isascii() and "\r" not in text:
        return len(text)
    return len(_GRAPHEME.findall(text))


def octets(text: str) -> int:
    """Return the number of UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _shortened(text: str, links: int | None, mentions: bool) -> str:
    """Return `text` with links as long as they count and remote mentions as their local part."""
    pieces, at = [], 0
    for found in entities(text):
        if links is not None and isinstance(found, Link) and not found.bare:
            pieces += [text[at : found.start], "x" * links]
        elif mentions and isinstance(found, Mention) and found.host and found.name.isascii():
            pieces += [text[at : found.start], f"@{found.name}"]
        else:
            continue
        at = found.end
    return "".join([*pieces, text[at:]])


def _weighted(text: str) -> int:
    """Return X's weighted length: links 23, an emoji 2, most letters 1, CJK 2."""
    total, at = 0, 0
    for found in entities(text):
        if isinstance(found, Link):
            total += _weight(text[at : found.start]) + _X_LINK
            at = found.end
    return total + _weight(text[at:])


def _weight(text: str) -> int:
    total = 0
    for cluster in _GRAPHEME.findall(text):
        if regex.search(r"\p{Extended_Pictographic}|\p{Regional_Indicator}|\u20e3", cluster):
            total += 2
        else:
            total += sum(1 if _light(ord(char)) else 2 for char in cluster)
    return total


def _light(point: int) -> bool:
    return any(low <= point <= high for low, high in _LIGHT)
