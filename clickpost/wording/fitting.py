"""Fits a text into a platform's limits: refuses, shortens at a word, or makes a thread."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import regex

from clickpost.draft import Fit
from clickpost.errors import ContentRejected, Fault
from clickpost.policy.shape import AltRules, PlatformPolicy, TagRules, TextRules
from clickpost.wording.counting import graphemes, measure, units_of
from clickpost.wording.entities import Link, Mention, Tag, digit_tags, entities

_GRAPHEME = regex.compile(r"\X")
_CONTROL = regex.compile(r"[\p{Cc}--[\n\t]]", regex.V1)
_VISIBLE = regex.compile(r"[^\s\p{Cf}\p{Cc}\p{Cs}]")
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_OPENS = {"\u2066", "\u2067", "\u2068"}
_CLOSES = "\u2069"
_ELLIPSIS = "…"
#: What belongs to the character before it, even to a space.
_ATTACHED = r"[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]"
_SPACES = rf"(?:\s(?!{_ATTACHED}))+"
#: Where a text may be parted, the best place first: paragraph, line, sentence, word.
_SEAMS = (
    regex.compile(r"\n\s*\n\s*"),
    regex.compile(r"\n\s*"),
    regex.compile(rf"(?<=[.!?…。！？][\"'”’)»]?){_SPACES}|(?<=[。！？])(?!{_ATTACHED})"),
    regex.compile(_SPACES),
)
#: A word longer than most dictionaries have: a text without spaces, which may be cut anywhere.
_ENDLESS = regex.compile(r"\s*\S{40}")
_LEADING = regex.compile(rf"^{_SPACES}")
_UNITS = {
    "graphemes": "graphemes",
    "mastodon": "characters",
    "code_points": "characters",
    "utf16": "UTF-16 units",
    "bytes": "bytes",
    "x_weighted": "weighted characters",
}


@dataclass(frozen=True)
class Wording:
    """What a platform gets: the text's parts (several are a thread), title, tags, descriptions."""

    parts: tuple[str, ...]
    title: str = ""
    tags: tuple[str, ...] = ()
    alts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Work:
    """Faults and notes, gathered so that all are told at once."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def fit(
    text: str,
    *,
    policy: PlatformPolicy,
    how: Fit,
    title: str = "",
    spoiler: str = "",
    tags: Sequence[str] = (),
    media: int = 0,
    alts: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> Wording:
    """Return the wording that `policy` permits, or raise ContentRejected with every fault.

    `how` decides about a text that is too long. `media` counts the files that go along; `alts`
    and `kinds` (image or video) are theirs, in order.
    """
    work = _Work()
    body = text = _clean(text, "text", work)
    title = _clean(title, "title", work)
    spoiler = _clean(spoiler, "spoiler", work) if policy.spoiler else ""
    kept_tags = _tags(tags, policy, work)
    if policy.tags is None or policy.title_rules is None:
        text = _with_hashtags(text, kept_tags)
        kept_tags = ()
    _forbidden(text, policy.text, "text", work)
    _counts(text, policy.text, work)
    _digits(text, policy.text, work)
    _presence(text, policy, media, work)
    parts = _parts(text, text.removeprefix(body) if body else "", policy, how, spoiler, work)
    heading = _heading(title, text, policy, work)
    worded_alts = tuple(
        _alt(alt, kind, policy.alt, how, number, work)
        for number, (alt, kind) in enumerate(
            zip(alts, [*kinds, *["image"] * len(alts)], strict=False), 1
        )
    )
    if work.faults:
        raise ContentRejected(policy.name, tuple(work.faults))
    return Wording(parts, heading, kept_tags, worded_alts, tuple(work.notes))


def _clean(text: str, name: str, work: _Work) -> str:
    """Return `text` with plain line ends and without control characters, which it notes."""
    if _SURROGATE.search(text):
        work.faults.append(Fault(name, "valid Unicode", "a lone surrogate"))
        return ""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    clean, removed = _CONTROL.subn("", text)
    if removed:
        work.notes.append(f"{name}: {removed} control characters removed")
    return clean.strip()


def _presence(text: str, policy: PlatformPolicy, media: int, work: _Work) -> None:
    said = bool(_VISIBLE.search(text))
    if not said and (policy.text.required or media == 0):
        work.faults.append(Fault("text", "at least one visible character", "none"))


def _forbidden(text: str, rules: TextRules, name: str, work: _Work) -> None:
    found = sorted({char for char in rules.forbidden if char in text})
    if found:
        limit = "no " + " ".join(rules.forbidden)
        work.faults.append(Fault(name, limit, " ".join(found)))


def _counts(text: str, rules: TextRules, work: _Work) -> None:
    if rules.hashtags is None and rules.mentions is None:
        return
    found = entities(text)
    for kind, name, limit in (
        (Tag, "hashtags", rules.hashtags),
        (Mention, "mentions", rules.mentions),
    ):
        number = sum(isinstance(one, kind) for one in found)
        if limit is not None and number > limit:
            work.faults.append(Fault(name, f"at most {limit}", str(number)))


def _digits(text: str, rules: TextRules, work: _Work) -> None:
    """Note the hashtags that will be none, as they have only digits."""
    if rules.digit_tags:
        return
    for tag in dict.fromkeys(digit_tags(text)):
        work.notes.append(f"text: {tag} stays plain text, digits alone make no hashtag here")


def _room(text: str, rules: TextRules, reserved: int = 0) -> bool:
    """Say whether `text` is within the units and the bytes, with `reserved` units taken."""
    size = measure(text, rules)
    within = rules.limit is None or size.units + reserved <= rules.limit
    return within and (rules.bytes is None or size.bytes <= rules.bytes)


def _too_long(text: str, rules: TextRules, reserved: int, name: str) -> list[Fault]:
    size = measure(text, rules)
    faults = []
    if rules.limit is not None and size.units + reserved > rules.limit:
        unit = _UNITS[rules.count]
        faults.append(Fault(name, f"{rules.limit} {unit}", f"{size.units + reserved} {unit}"))
    if rules.bytes is not None and size.bytes > rules.bytes:
        faults.append(Fault(name, f"{rules.bytes} bytes", f"{size.bytes} bytes"))
    return faults


def _parts(
    text: str, tail: str, policy: PlatformPolicy, how: Fit, spoiler: str, work: _Work
) -> tuple[str, ...]:
    rules = policy.text
    reserved = units_of(spoiler, rules.count, rules.links) if spoiler else 0
    if _room(text, rules, reserved):
        return (text,)
    if rules.limit is not None and reserved >= rules.limit:
        work.faults += _too_long(text, rules, reserved, "spoiler and text")
        return (text,)
    if how == "shorten" and (short := _shortest(text, tail, rules, reserved)):
        before, after = measure(text, rules).units, measure(short, rules).units
        work.notes.append(f"text: shortened from {before} to {after} {_UNITS[rules.count]}")
        return (short,)
    if how == "thread" and policy.thread.supported and (parts := thread(text, rules, reserved)):
        work.notes.append(f"text: sent as a thread of {len(parts)}")
        return parts
    work.faults += _too_long(text, rules, reserved, "text")
    if how == "thread" and not policy.thread.supported:
        work.faults.append(Fault("fit", "refuse or shorten", "thread, which is not possible here"))
    elif how != "refuse":
        limit = "links, mentions, tags and characters that fit"
        work.faults.append(Fault("text", limit, "one that fits into no part"))
    return (text,)


def _shortest(text: str, tail: str, rules: TextRules, reserved: int) -> str:
    """Shorten what stands before the hashtags of `tail`, or everything where that is too little."""
    body = text.removesuffix(tail) if tail else text
    return shorten(body, rules, reserved, tail) or shorten(text, rules, reserved)


def shorten(text: str, rules: TextRules, reserved: int = 0, tail: str = "") -> str:
    """Return the longest beginning of `text` that fits, cut at a word, with an ellipsis.

    `tail` follows in full. Returns "" where not even the first link or character fits.
    """
    if _room(text + tail, rules, reserved):
        return text + tail
    window = _window(text, rules, reserved)
    links = {one.end for one in entities(window) if isinstance(one, Link)}

    def cut_at(cut: int) -> str:
        kept = text[:cut].rstrip()
        # Some servers take an ellipsis for the link's last character.
        gap = " " if len(kept) in links else ""
        return f"{_closed(kept)}{gap}{_ELLIPSIS}{tail}"

    cut = _longest(window, rules, reserved, cut_at)
    return cut_at(cut) if cut else ""


def _longest(text: str, rules: TextRules, reserved: int, cut_at: Callable[[int], str]) -> int:
    """Return where to cut so that `cut_at` fits: at a word unless that wastes half the room."""

    def fits(cut: int) -> bool:
        return _room(cut_at(cut), rules, reserved)

    word = _last_that(_cuts(text, _SEAMS[3].finditer(text)), fits)
    if word and not _ENDLESS.match(text, word):
        return word
    anywhere = _last_that(_cuts(text, _GRAPHEME.finditer(text), ends=True), fits)
    return word if word * 2 >= anywhere else anywhere


def _cuts(text: str, seams: Iterable[regex.Match[str]], *, ends: bool = False) -> list[int]:
    """Return the places of `seams` that lie in no link, mention or tag."""
    held = [(one.start, one.end) for one in entities(text)]
    places, number = [], 0
    for seam in seams:
        place = seam.end() if ends else seam.start()
        while number < len(held) and held[number][1] <= place:
            number += 1
        inside = number < len(held) and held[number][0] < place < held[number][1]
        if place and not inside:
            places.append(place)
    return places


def _last_that(places: list[int], fits: Callable[[int], bool]) -> int:
    """Return the greatest place that fits, by bisection; 0 where none does."""
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if fits(places[middle]):
            low = middle + 1
        else:
            high = middle
    while low and not fits(places[low - 1]):  # Links make the length jump: step back.
        low -= 1
    return places[low - 1] if low else 0


def _closed(text: str) -> str:
    """Return `text` with every bidirectional isolate that it opens also closed."""
    depth = 0
    for char in text:
        if char in _OPENS:
            depth += 1
        elif char == _CLOSES and depth:
            depth -= 1
    return text + _CLOSES * depth


def thread(text: str, rules: TextRules, reserved: int = 0) -> tuple[str, ...]:
    """Return `text` in parts that each fit, parted at paragraphs, sentences, then words.

    Nothing is lost but white space at the seams. Returns () where a link or character fits nowhere.
    """
    parts: list[str] = []
    rest = text
    while rest and not _room(rest, rules, reserved):
        cut = _seam(_window(rest, rules, reserved), rules, reserved)
        if not cut:
            return ()
        parts.append(_closed(rest[:cut].rstrip()))
        rest = _LEADING.sub("", rest[cut:])
    if rest:
        parts.append(rest)
    return tuple(part for part in parts if part)


def _window(text: str, rules: TextRules, reserved: int) -> str:
    """Return a beginning of `text` that does not fit, and enough more to see its links whole."""
    end = 500
    while end < len(text) and _room(text[:end], rules, reserved):
        end *= 2
    return text[: end + 1000]


def _seam(text: str, rules: TextRules, reserved: int) -> int:
    """Return where the next part ends: the best kind of seam that leaves it half full, or 0."""
    longest = _longest(text, rules, reserved, lambda cut: _closed(text[:cut].rstrip()))
    for seam in _SEAMS[:3]:
        for place in reversed(_cuts(text, seam.finditer(text, 0, longest + 1))):
            if longest // 2 <= place <= longest:
                return place
    return longest


def _heading(title: str, text: str, policy: PlatformPolicy, work: _Work) -> str:
    rules = policy.title_rules
    if rules is None:
        return ""
    if not _VISIBLE.search(title) and rules.required:
        first = text.split("\n", 1)[0].strip()
        title = shorten(first, rules)
        if not _VISIBLE.search(title):
            work.faults.append(Fault("title", "at least one visible character", "none"))
            return ""
        work.notes.append("title: taken from the text's first line")
    _forbidden(title, rules, "title", work)
    work.faults += _too_long(title, rules, 0, "title")
    return title


def _alt(alt: str, kind: str, rules: AltRules, how: Fit, number: int, work: _Work) -> str:
    alt = _clean(alt, f"alt of {kind} {number}", work)
    if kind not in rules.on:
        if alt:
            work.notes.append(f"alt of {kind} {number}: left out, a {kind} has none here")
        return ""
    most = rules.limits_of(kind)
    limits = TextRules(
        **most.model_dump(include={"limit", "count", "bytes"}),
        source=most.source,
        checked=most.checked,
    )
    if _room(alt, limits):
        return alt
    if how != "refuse" and (short := shorten(alt, limits)):
        before, after = measure(alt, limits).units, measure(short, limits).units
        unit = _UNITS[limits.count]
        work.notes.append(f"alt of {kind} {number}: shortened from {before} to {after} {unit}")
        return short
    work.faults += _too_long(alt, limits, 0, f"alt of {kind} {number}")
    return alt


def _tags(tags: Sequence[str], policy: PlatformPolicy, work: _Work) -> tuple[str, ...]:
    plain = tuple(dict.fromkeys(tag.strip().lstrip("#＃").strip() for tag in tags))
    kept = tuple(unicodedata.normalize("NFC", tag) for tag in plain if tag)
    rules = policy.tags
    if rules is None:
        return kept
    longest = max((graphemes(tag) for tag in kept), default=0)
    if rules.each is not None and longest > rules.each:
        work.faults.append(Fault("tags", f"{rules.each} characters each", f"{longest} characters"))
    if policy.title_rules is None:
        return kept
    if rules.total is not None and (size := tags_size(kept, rules)) > rules.total:
        work.faults.append(Fault("tags", f"{rules.total} characters", f"{size} characters"))
    return kept


def tags_size(tags: Sequence[str], rules: TagRules) -> int:
    """Return the characters of all tags: commas count, and quotes around a tag with a space."""
    quotes = sum(2 for tag in tags if rules.quoting and " " in tag)
    return sum(len(tag) for tag in tags) + max(len(tags) - 1, 0) + quotes


def _with_hashtags(text: str, tags: Sequence[str]) -> str:
    """Append the tags that the text does not have yet, as hashtags."""
    said = {one.tag.casefold() for one in entities(text) if isinstance(one, Tag)}
    new = []
    for tag in tags:
        word = regex.sub(r"[^\p{L}\p{N}\p{M}_]", "", tag)
        if word and word.casefold() not in said:
            said.add(word.casefold())
            new.append(f"#{word}")
    if not new:
        return text
    return f"{text}\n\n{' '.join(new)}" if text else " ".join(new)
