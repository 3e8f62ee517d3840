"""Builds certificates: what was done, where, under which rules; no personal value is in one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import rfc8785
from jinja2 import Environment, StrictUndefined

TYPE = "clickpost.certificate/1"
_PAGE = Path(__file__).parent / "pages" / "certificate.html"

Kind = Literal[
    "erased", "anonymized", "held", "vendor_pending", "exported", "unreachable", "unsupported"
]
#: What is not done while one of these stands anywhere.
BLOCKING: frozenset[Kind] = frozenset({"unreachable", "unsupported"})
#: What each outcome means, for people.
MEANINGS: dict[str, str] = {
    "erased": "is gone",
    "anonymized": "remains, and leads to nobody any more",
    "held": "stays for now, because a rule demands it",
    "vendor_pending": "was asked of somebody who processes it for us",
    "exported": "was handed out",
    "unreachable": "could not be reached",
    "unsupported": "cannot be done there by us",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one location: how many, and of what is held by which rule until when."""

    location: str
    what: str
    outcome: Kind
    count: int
    rule: str | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Statement:
    """What a certificate states; ids, counts, rules and times only."""

    certificate: str
    action: str
    request: str
    outcomes: tuple[Outcome, ...]
    policy: str
    policy_sha256: str
    asked_at: datetime
    begun_at: datetime
    read_back_at: datetime
    certified_at: datetime
    remains: Sequence[str] = field(default=())
    """What the person has to do at a platform, in words of ours."""

    @property
    def result(self) -> str:
        """Whether it is complete; raise ValueError where something stands in the way."""
        kinds = {one.outcome for one in self.outcomes}
        if kinds & BLOCKING:
            raise ValueError("what is unreachable or unsupported is not certified as complete")
        parts = ["complete"]
        if "vendor_pending" in kinds:
            parts.append("except for what others were asked to do")
        if "held" in kinds:
            parts.append("except for what a rule holds")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return it as the certificate holds it: texts and whole numbers."""
        return {
            "type": TYPE,
            "certificate": self.certificate,
            "action": self.action,
            "request": self.request,
            "result": self.result,
            "outcomes": [as_json(one) for one in self.outcomes],
            "remains": list(self.remains),
            "policy": {"name": self.policy, "sha256": self.policy_sha256},
            "code": {"name": "clickpost", "version": code_version()},
            "times": {
                "asked": stamp(self.asked_at),
                "begun": stamp(self.begun_at),
                "read_back": stamp(self.read_back_at),
                "certified": stamp(self.certified_at),
            },
        }


def as_json(one: Outcome) -> dict[str, Any]:
    """Return one outcome as certificates write it."""
    return {
        "location": one.location,
        "what": one.what,
        "outcome": one.outcome,
        "count": one.count,
        "rule": one.rule,
        "until": stamp(one.until) if one.until else None,
    }


def stamp(moment: datetime) -> str:
    """Return a moment as certificates write it, UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def code_version() -> str:
    """Return the version of this program."""
    return metadata.version("clickpost")


def canonical(value: Any) -> bytes:
    """Return JSON as RFC 8785 writes it, which is what digests and signatures are over."""
    return rfc8785.dumps(value)


def digest(statement: dict[str, Any]) -> str:
    """Return what a line of the ledger says of a statement."""
    return hashlib.sha256(canonical(statement)).hexdigest()


def as_html(document: dict[str, Any]) -> str:
    """Return a page that a person can read and print; it needs nothing from elsewhere."""
    statement = document["statement"]
    told = [{**one, "meaning": MEANINGS[one["outcome"]]} for one in statement["outcomes"]]
    return str(_page().render(statement=statement, outcomes=told, document=document))


@cache
def _page() -> Any:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return made.from_string(_PAGE.read_text(encoding="utf-8"))
