"""Decides what of the privacy promises holds, is about to fail, or has failed; says it in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from clickpost import canary
from clickpost.canary import Flight
from clickpost.policy.privacy import Retention
from clickpost.retention import Tally

#: A request that is due within this span is told before it is late.
SOON = timedelta(days=7)
#: A purge each night leaves nothing that expired so long ago.
BEHIND = timedelta(hours=48)
#: A connection that nobody connects again is forgotten by its owner.
FORGOTTEN = timedelta(days=7)
#: An erasure that stands still for this span waits too long, even where we try again by ourselves.
STANDS = timedelta(hours=48)
#: A canary flies each week: one that is a day late is missed.
WEEKLY = timedelta(days=8)
#: So many names stand in one sentence; of the rest only the number.
_NAMED = 8


class Light(StrEnum):
    """How a promise stands: the word says it, the symbol beside it too, a colour is no more."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"

    @property
    def symbol(self) -> str:
        """A form for each, for those who see no colours."""
        return {Light.GREEN: "✔", Light.AMBER: "▲", Light.RED: "✖"}[self]

    @property
    def means(self) -> str:
        """What it asks of whoever reads it."""
        said = {
            Light.GREEN: "holds",
            Light.AMBER: "look at it soon",
            Light.RED: "broken: act now",
        }
        return said[self]


@dataclass(frozen=True)
class Finding:
    """What one check found: ids, rules and counts, no value; `next` is who does what."""

    check: str
    light: Light
    said: str
    next: str = ""

    def as_json(self) -> dict[str, str]:
        """Return what is kept of it."""
        return {
            "check": self.check,
            "light": self.light.value,
            "said": self.said,
            "next": self.next,
        }


def finding_of(row: dict[str, str]) -> Finding:
    """Return a finding as it was kept."""
    return Finding(row["check"], Light(row["light"]), row["said"], row["next"])


def worst(findings: Iterable[Finding]) -> Light:
    """Return the light of the whole: that of its worst part."""
    order = list(Light)
    return max((one.light for one in findings), key=order.index, default=Light.GREEN)


def named(names: Sequence[str]) -> str:
    """Return names for a sentence, the first ones and how many more."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Request:
    """A request that is not answered: when it has to be acknowledged, and when answered."""

    id: str
    acknowledge_by: datetime | None
    due_at: datetime


def requests(open_: Sequence[Request], now: datetime) -> list[Finding]:
    """Say which requests are late, and which will be soon."""
    check = "requests"
    unacknowledged = [one.id for one in open_ if one.acknowledge_by and one.acknowledge_by < now]
    late = [one.id for one in open_ if one.due_at < now]
    soon = [one.id for one in open_ if now <= one.due_at < now + SOON]
    see = "answer them: clickpost privacy requests"
    found = []
    if late:
        found.append(Finding(check, Light.RED, f"overdue: {named(late)}", see))
    if unacknowledged:
        said = f"not acknowledged in time: {named(unacknowledged)}"
        found.append(Finding(check, Light.RED, said, see))
    if soon:
        said = f"due within {SOON.days} days: {named(soon)}"
        found.append(Finding(check, Light.AMBER, said, see))
    return found or [Finding(check, Light.GREEN, f"{len(open_)} open, none due within a week")]


def purges(tallies: Sequence[tuple[Retention, Tally]]) -> list[Finding]:
    """Say what a purge should have done two days ago; `tallies` are as of then."""
    behind = [(one, tally) for one, tally in tallies if tally.found]
    terms = [pair for pair in behind if is_duty(pair[0])]
    rest = [pair for pair in behind if not is_duty(pair[0])]
    applied = [pair for pair in rest if pair[0].mode == "apply"]
    counted = [pair for pair in rest if pair[0].mode != "apply"]
    found = []
    if applied:
        look = "look at the latest run of purge-retention"
        said = f"expired two days ago and still there: {_rows(applied)}"
        found.append(Finding("purges", Light.RED, said, look))
    if counted:
        turn_on = "look at the counts, then write mode: apply into these policies"
        said = f"expired, under policies that only count: {_rows(counted)}"
        found.append(Finding("purges", Light.AMBER, said, turn_on))
    if not rest:
        found.append(Finding("purges", Light.GREEN, f"nothing is behind ({len(tallies)} policies)"))
    if terms:
        now = "clickpost privacy purge --policy NAME --apply, then mode: apply"
        said = f"a platform's terms ask for it by now: {_rows(terms)}"
        found.append(Finding("platform duties", Light.RED, said, now))
    else:
        found.append(Finding("platform duties", Light.GREEN, "nothing of a platform is kept late"))
    return found


def is_duty(policy: Retention) -> bool:
    """Say whether a platform's terms demand what the policy does."""
    return any(one.basis == "platform_terms" for one in policy.purposes)


def _rows(pairs: Sequence[tuple[Retention, Tally]]) -> str:
    return named([f"{one.name} ({tally.found} of {one.data})" for one, tally in pairs])


@dataclass(frozen=True)
class Grant:
    """One connected account, as far as its grant goes."""

    id: str
    status: str
    expires_at: datetime | None
    updated_at: datetime


def vendors(late: Sequence[str], refused: Sequence[str]) -> list[Finding]:
    """Say which erasures a vendor should have done by now, and which wait for somebody."""
    check, see = "vendors", "see how they stand: clickpost privacy vendors ERASURE"
    found = []
    if late:
        said = f"asked to erase, and overdue: {named(late)}"
        found.append(Finding(check, Light.RED, said, see))
    if refused:
        said = f"refused, or to be done by hand: {named(refused)}"
        found.append(Finding(check, Light.AMBER, said, see))
    return found or [Finding(check, Light.GREEN, "nothing is overdue, nothing refused")]


def tokens(grants: Sequence[Grant], now: datetime) -> list[Finding]:
    """Say whose grant is over and not noticed, and whose is dead for long."""
    check = "tokens"
    connect = "let the owner connect it again, or remove it: clickpost connections"
    over = [
        one.id
        for one in grants
        if one.status == "active" and one.expires_at is not None and one.expires_at < now
    ]
    dead = [one.id for one in grants if one.status == "paused" and now - one.updated_at > FORGOTTEN]
    found = []
    if over:
        said = f"past its end and still taken for alive: {named(over)}"
        found.append(Finding(check, Light.RED, said, connect))
    if dead:
        said = f"dead for more than {FORGOTTEN.days} days: {named(dead)}"
        found.append(Finding(check, Light.AMBER, said, connect))
    return found or [Finding(check, Light.GREEN, f"{len(grants)} accounts, none forgotten")]


@dataclass(frozen=True)
class OpenErasure:
    """One erasure that is not complete; `outcomes` as its row keeps them."""

    id: str
    state: str
    asked_at: datetime
    outcomes: Sequence[Mapping[str, Any]] = ()

    def places(self, outcome: str) -> list[str]:
        """Return where it came to an outcome."""
        return [str(one["location"]) for one in self.outcomes if one["outcome"] == outcome]

    def overdue(self, now: datetime) -> list[str]:
        """Return whose word that they erased it should have come by now."""
        pending = [one for one in self.outcomes if one["outcome"] == "vendor_pending"]
        return [str(one["location"]) for one in pending if _is_over(one.get("until"), now)]


def _is_over(until: Any, now: datetime) -> bool:
    """Say whether a time, as rows keep it, has passed; without one somebody has to look."""
    return not isinstance(until, str) or datetime.fromisoformat(until) < now


def erasures(open_: Sequence[OpenErasure], now: datetime) -> list[Finding]:
    """Say which erasures stand still: what nobody reaches, what vendors owe, who has to act."""
    check = "erasures"
    look = "clickpost privacy erasures says why; `clickpost privacy erase` goes on"
    found = []
    for outcome, says in (
        ("unreachable", "not reached"),
        ("unsupported", "cannot be erased by us"),
    ):
        if wrong := [
            f"{one.id} ({named(one.places(outcome))})" for one in open_ if one.places(outcome)
        ]:
            found.append(Finding(check, Light.RED, f"{says}: {named(wrong)}", look))
    if late := [f"{one.id} ({named(one.overdue(now))})" for one in open_ if one.overdue(now)]:
        ask = "ask them, for they were to have erased it by now"
        found.append(Finding(check, Light.RED, f"vendors owe an answer: {named(late)}", ask))
    still = [one for one in open_ if one.state != "parked" and now - one.asked_at > STANDS]
    blocked = [one.id for one in still if one.state == "blocked"]
    waits = [one.id for one in still if one.state != "blocked"]
    if blocked:
        said = f"somebody has to act, for more than {STANDS.days} days: {named(blocked)}"
        found.append(Finding(check, Light.RED, said, look))
    if waits:
        said = f"not done after {STANDS.days} days: {named(waits)}"
        found.append(Finding(check, Light.AMBER, said, look))
    parked = sum(one.state == "parked" for one in open_)
    said = f"{len(open_) - parked} under way, {parked} parked by a rule"
    return found or [Finding(check, Light.GREEN, said)]


def canaries(flights: Sequence[Flight], now: datetime) -> list[Finding]:
    """Say whether the latest canary was found nowhere, and whether one flew; newest first."""
    check, run = "canary", "start canary-erasure, and look at its run"
    ended = next((one for one in flights if one.became != "planted"), None)
    if ended is None:
        return [Finding(check, Light.AMBER, "none has flown to its end yet", run)]
    when = f"{ended.at:%Y-%m-%d %H:%M} UTC"
    if ended.became == "failed":
        said = f"{when}: could not be erased: {ended.facts.get('why', '')}"
        return [Finding(check, Light.RED, said, run)]
    if ended.looked.traces:
        act = "what erases these places is broken: tell a developer, then let another one fly"
        return [Finding(check, Light.RED, f"{when}: {canary.said(ended.looked)}", act)]
    if now - ended.at > WEEKLY:
        return [Finding(check, Light.RED, f"none for {(now - ended.at).days} days", run)]
    said = f"{when}: {canary.said(ended.looked)}"
    light = Light.AMBER if ended.looked.unsearched else Light.GREEN
    return [
        Finding(check, light, said, "search there by other means" if light is Light.AMBER else "")
    ]


def data_map(wrong: Sequence[str]) -> Finding:
    """Say what stands in the database, or in its JSON columns, and in no data map."""
    if not wrong:
        return Finding("data map", Light.GREEN, "every column is mapped, and none has vanished")
    mend = "write it into policies/data_map; until then no purge runs"
    return Finding("data map", Light.RED, named(list(wrong)), mend)


def erasable(stops: Sequence[str]) -> list[Finding]:
    """Say what would stop an erasure in a further database, before somebody asks for one."""
    mend = "mend it in policies/data_map: docs/how-to/other-databases.md"
    return [Finding("data map", Light.AMBER, named(list(stops)), mend)] if stops else []


def came_back(database: str, number: int) -> list[Finding]:
    """Say that people who were erased are in a further database all the same."""
    if not number:
        return []
    said = f"{database}: {number} who were erased are there again: was it restored?"
    act = f"clickpost privacy again {database}, unless they came again of their own will"
    return [Finding("erasures", Light.RED, said, act)]


def proof(check: str, size: int, broken: str | None) -> Finding:
    """Say whether the ledger, or the certificates, are what was written and signed."""
    if broken is None:
        return Finding(check, Light.GREEN, f"{size}, none changed")
    act = "somebody changed what must not change: compare with a backup, and look who could"
    return Finding(check, Light.RED, broken, act)


def citations(
    policies: Iterable[Retention], warnings: Sequence[str], problems: Sequence[str]
) -> list[Finding]:
    """Say which sources nobody looked at for a year, and which nobody saw at all."""
    found = []
    if problems:
        said = f"policy files that cannot be used: {named(list(problems))}"
        found.append(Finding("sources", Light.RED, said, "clickpost policy check"))
    if warnings:
        said = f"to be looked at again: {named(list(warnings))}"
        found.append(Finding("sources", Light.AMBER, said, "clickpost policy check"))
    unseen = [
        one.name for one in policies if any(not purpose.confirmed for purpose in one.purposes)
    ]
    if unseen:
        said = f"nobody confirmed the source itself: {named(unseen)}"
        open_ = "open the page, then set confirmed and checked in the policy"
        found.append(Finding("sources", Light.AMBER, said, open_))
    return found or [Finding("sources", Light.GREEN, "all looked at within a year")]


@dataclass(frozen=True)
class Past:
    """One sweep of the history."""

    at: datetime
    light: Light
    red: int
    amber: int


def as_markdown(findings: Sequence[Finding], history: Sequence[Past], at: datetime) -> str:
    """Return the report that a compliance officer reads: worst first, then the history."""
    whole = worst(findings)
    lines = [
        f"# {whole.symbol} {whole.value.upper()}: {whole.means}",
        "",
        f"Swept at {at:%Y-%m-%d %H:%M} UTC. It holds ids, names of rules and counts, no personal"
        " value.",
        "",
        "| | Check | Found | What to do |",
        "|---|---|---|---|",
    ]
    order = list(reversed(Light))
    for one in sorted(findings, key=lambda each: order.index(each.light)):
        light = f"{one.light.symbol} {one.light.value.upper()}"
        lines.append(f"| {light} | {one.check} | {_cell(one.said)} | {_cell(one.next)} |")
    lines += ["", "## Before", "", "| When (UTC) | | Red | Amber |", "|---|---|---|---|"]
    for past in history:
        light = f"{past.light.symbol} {past.light.value.upper()}"
        lines.append(f"| {past.at:%Y-%m-%d %H:%M} | {light} | {past.red} | {past.amber} |")
    lines += ["", "✔ GREEN holds · ▲ AMBER look at it soon · ✖ RED broken, act now", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def summary(findings: Sequence[Finding]) -> str:
    """Say in one sentence how it stands."""
    red = sorted({one.check for one in findings if one.light is Light.RED})
    amber = sorted({one.check for one in findings if one.light is Light.AMBER})
    parts = [f"{worst(findings).value}"]
    parts += [f"red: {', '.join(red)}"] if red else []
    parts += [f"amber: {', '.join(amber)}"] if amber else []
    return "; ".join(parts)
