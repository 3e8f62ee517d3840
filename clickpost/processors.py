"""Decides how a vendor is asked to erase a person: which call is next, what its answer means."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, Protocol
from urllib.parse import quote

from clickpost.certificate import Outcome
from clickpost.errors import InvalidInput
from clickpost.policy.processors import ONCE, Answer, Call, Processor, Step, words_in

#: What is not to be had now is tried again after 5, 10, 20, … minutes, at most 6 hours.
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=5), timedelta(hours=6)
#: What says "not now", and what says that our own key is wrong, which somebody may mend.
_NOT_NOW = (408, 425, 429)
_NOT_US = (401, 403)

Means = Literal["done", "gone", "wait", "again", "refused"]
#: `open`: there is something to be asked now. The others wait for the vendor, or for a person.
Stands = Literal["open", "wait", "again", "refused"]


@dataclass(frozen=True)
class Item:
    """One record at the vendor, the step that is next, and how it stands."""

    id: str
    step: str | None
    words: Mapping[str, str] = field(default_factory=dict)
    stands: Stands = "open"
    why: str = ""
    erased: bool = False
    """Whether the vendor had it, and was asked to erase it."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be asked."""
        return self.step is None


@dataclass(frozen=True)
class Ask:
    """What is known of one person at one vendor; it is sealed wherever it is kept."""

    id: str
    who: str = field(repr=False)
    items: tuple[Item, ...] = field(default=(), repr=False)
    is_looked_for: bool = True
    """Whether its records are found by asking; False where somebody told us their ids."""

    def as_text(self) -> str:
        """Return what is sealed of it."""
        return json.dumps({"who": self.who, "items": [asdict(one) for one in self.items]})

    def with_item(self, number: int, item: Item) -> Ask:
        """Return it with one item changed."""
        return replace(self, items=(*self.items[:number], item, *self.items[number + 1 :]))


def ask_of(ask_id: str, text: str, *, is_looked_for: bool) -> Ask:
    """Return an ask as it was sealed."""
    said = json.loads(text)
    return Ask(ask_id, said["who"], tuple(Item(**one) for one in said["items"]), is_looked_for)


def begun(policy: Processor, settings: Mapping[str, str], ask: Ask) -> Ask:
    """Return the ask with the items that are known without asking the vendor."""
    first = policy.steps[0].name
    if ask.items or policy.find is not None:
        return ask
    ids = _several(settings[policy.each]) if policy.each else ["all"]
    return replace(ask, items=tuple(Item(one, first) for one in ids))


def _several(value: str) -> list[str]:
    return [one.strip() for one in value.split(",") if one.strip()]


@dataclass(frozen=True)
class Request:
    """A request as it is sent; never to be logged."""

    method: str
    url: str = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    document: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def request_of(
    policy: Processor,
    settings: Mapping[str, str],
    ask: Ask,
    call: Call,
    item: Item | None,
    once: str,
) -> Request:
    """Fill a call in; raise InvalidInput for what would lead to another address than it says."""
    words = _words(policy, settings, ask, item) | {ONCE: once}
    for name in words_in(call.path):
        if words[name] in ("", ".", ".."):
            raise InvalidInput(f"{policy.name}: {{{name}}} would lead to another address")
    in_path = {name: quote(value, safe="") for name, value in words.items()}
    return Request(
        call.method,
        base_of(policy, settings) + call.path.format_map(in_path),
        _filled(call.query, words),
        _filled(call.form, words),
        _filled(call.document, words),
        _filled({**policy.headers, **call.headers}, words),
    )


def base_of(policy: Processor, settings: Mapping[str, str]) -> str:
    """Return a vendor's address; raise InvalidInput for a setting that cannot stand in one."""
    for name in re.findall(r"{(\w+)}", policy.base):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", settings[name]):
            raise InvalidInput(f"{policy.variable(name)}: needs letters, digits and hyphens only")
    return policy.base.format_map(dict(settings)).rstrip("/")


def _words(
    policy: Processor, settings: Mapping[str, str], ask: Ask, item: Item | None
) -> dict[str, str]:
    small = ask.who.strip().lower()
    # The vendor's own name of an address, no secret of ours.
    named = hashlib.md5(small.encode(), usedforsecurity=False).hexdigest()
    words = {**settings, "who": ask.who, "who_lower": small, "who_md5": named}
    if item is not None:
        words |= {**item.words, "id": item.id}
        if policy.each is not None:
            words[policy.each] = item.id
    return words


def _filled(templates: Mapping[str, str], words: Mapping[str, str]) -> dict[str, str]:
    return {name: template.format_map(dict(words)) for name, template in templates.items()}


@dataclass(frozen=True)
class Heard:
    """What came back: `status` None where nothing did; then `is_lost` says that it may have."""

    status: int | None
    document: Any = field(default=None, repr=False)
    retry_after: float | None = None
    """Seconds that the vendor asks us to wait."""
    is_lost: bool = False
    why: str = ""


def found(policy: Processor, settings: Mapping[str, str], ask: Ask, heard: Heard) -> Ask | Item:
    """Return the ask with the records that a look found, or an item that says why there was none.

    A record that was erased and is found all the same is waited for: searches lag behind.
    """
    find = policy.find
    assert find is not None
    if heard.status is None or not 200 <= heard.status < 300:
        means, why = _usual(heard)
        return Item("", "find", {}, "refused" if means == "refused" else "again", why)
    words = _words(policy, settings, ask, None)
    lists = [one for one in values_of(heard.document, find.records) if isinstance(one, list)]
    if not lists:
        return Item(
            "", "find", {}, "refused", "the vendor's answer has no list where one has to be"
        )
    wanted = {name: template.format_map(words) for name, template in find.where.items()}
    ids = [
        str(one)
        for record in lists[0]
        if all(_is_like(values_of(record, name), value) for name, value in wanted.items())
        for one in values_of(record, find.id)
    ]
    known = {item.id: item for item in ask.items}
    first = policy.steps[0].name
    fresh = tuple(Item(one, first) for one in dict.fromkeys(ids) if one not in known)
    if not fresh and any(one in known for one in ids):
        return Item("", "find", {}, "wait", "it is still found there")
    return replace(ask, items=(*ask.items, *fresh))


def _is_like(values: Sequence[Any], wanted: str) -> bool:
    return any(str(one).strip().lower() == wanted.strip().lower() for one in values)


def judged(policy: Processor, item: Item, step: Step, heard: Heard) -> Item:
    """Return the item as it stands after an answer."""
    is_lost = heard.is_lost or (heard.status or 0) >= 500
    if is_lost and step.lost is not None:
        return replace(item, step=step.lost, stands="open", why="")
    answer = next((one for one in step.answers if _fits(one, heard)), None)
    if answer is None:
        means, why = _usual(heard)
    else:
        means, why = answer.means, answer.why or ""
    match means:
        case "gone":
            return replace(item, step=None, stands="open", why="")
        case "done":
            words = {**item.words, **_taken(step, heard)}
            further = answer.next if answer is not None and answer.next else policy.after(step.name)
            if missing := [name for name in step.take if name not in words]:
                said = f"its answer has no {', '.join(missing)}"
                return replace(item, stands="refused", why=said)
            erased = item.erased or step.call.method != "GET"
            return Item(item.id, further, words, erased=erased)
        case "wait" | "again" | "refused":
            further = answer.next if answer is not None and answer.next else step.name
            return replace(item, step=further, stands=means, why=why)


def _fits(answer: Answer, heard: Heard) -> bool:
    return heard.status == answer.status and all(
        any(_same(one, value) for one in values_of(heard.document, path))
        for path, value in answer.holds.items()
    )


def _same(one: Any, value: Any) -> bool:
    return type(one) is type(value) and one == value


def _taken(step: Step, heard: Heard) -> dict[str, str]:
    found = {name: values_of(heard.document, path) for name, path in step.take.items()}
    return {name: str(values[0]) for name, values in found.items() if values}


def _usual(heard: Heard) -> tuple[Means, str]:
    """Return what an answer means of which the policy says nothing."""
    status = heard.status
    if status is None:
        return "again", heard.why or "no answer came"
    if status in _NOT_US:
        return "again", f"HTTP {status}: it does not take our key; look at its settings"
    if status in _NOT_NOW or status >= 500:
        return "again", f"HTTP {status}"
    return "refused", f"HTTP {status}, of which its policy says nothing"


def values_of(document: Any, path: str) -> list[Any]:
    """Return what stands at a dotted path of a JSON document; `*` is every item of a list."""
    found = [document]
    for key in path.split(".") if path else ():
        if key == "*":
            found = [item for one in found if isinstance(one, list) for item in one]
        else:
            found = [one[key] for one in found if isinstance(one, dict) and key in one]
    return found


def taken_up(policy: Processor, ask: Ask, cut_short: str | None) -> Ask:
    """Return an ask as it goes on: what waited is open, and `cut_short` is the step of a dead run.

    Nobody knows whether that one was made: where its policy says who looks, that one is next.
    """
    lost = {step.name: step.lost for step in policy.steps if step.lost and step.name == cut_short}
    items = tuple(
        one if one.step is None else replace(one, step=lost.get(one.step, one.step), stands="open")
        for one in ask.items
    )
    return replace(ask, items=items)


def next_of(ask: Ask) -> int | None:
    """Return the number of the item that is to be asked next, None where none is."""
    open_ = (n for n, one in enumerate(ask.items) if not one.is_done and one.stands == "open")
    return next(open_, None)


def stands(items: Sequence[Item]) -> Stands | None:
    """Return how the whole stands: as its worst item; None once all are done."""
    left = {one.stands for one in items if not one.is_done}
    order: tuple[Stands, ...] = ("open", "refused", "again", "wait")
    return next((one for one in order if one in left), None)


def wait_after(tries: int, asked: float | None) -> timedelta:
    """Return how long to wait for a vendor who was away `tries` times; `asked` is in seconds."""
    usual = min(FIRST_WAIT * 2 ** min(tries, 10), LONGEST_WAIT)
    return usual if asked is None else max(timedelta(seconds=asked), FIRST_WAIT)


class Row(Protocol):
    """What is kept of an ask, without who it is about."""

    processor: str
    state: str
    erased: int
    reason: str | None
    due_at: Any


#: How an ask that is not over stands in a certificate.
_OUTCOMES: Mapping[str, Literal["vendor_pending", "unreachable", "unsupported"]] = {
    "wanted": "unreachable",
    "asking": "unreachable",
    "again": "unreachable",
    "wait": "vendor_pending",
    "refused": "unsupported",
}
_NOT_YET = "not asked yet"
#: What is over: erased there, or done there by a person.
OVER = ("erased", "settled")


def outcomes(policies: Mapping[str, Processor], rows: Sequence[Row]) -> list[Outcome]:
    """Return what became of the copies at each vendor, by name and outcome."""
    told: list[Outcome] = []
    for name in dict.fromkeys(row.processor for row in rows):
        mine = [row for row in rows if row.processor == name]
        what = policies[name].title if name in policies else "A vendor that is declared no more."
        place = f"vendor {name}"
        for outcome in ("unreachable", "unsupported", "vendor_pending"):
            some = [row for row in mine if _OUTCOMES.get(row.state) == outcome]
            if some:
                reasons = {row.reason or _NOT_YET for row in some if row.state != "wait"}
                why = "; ".join(sorted(reasons)) or None
                until = max(row.due_at for row in some) if outcome == "vendor_pending" else None
                told.append(Outcome(place, what, outcome, len(some), why, until))
        if any(row.state in OVER for row in mine):
            kept = "; ".join(f"{one.what}: {one.cite}" for one in _keeps(policies, name))
            rule = f"it keeps {kept}" if kept else None
            told.append(Outcome(place, what, "erased", sum(row.erased for row in mine), rule))
    return told


def _keeps(policies: Mapping[str, Processor], name: str) -> Sequence[Any]:
    return policies[name].keeps if name in policies else ()
