"""Decides about people's requests: kinds, states, clocks; it never touches a row."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from dateutil.relativedelta import relativedelta
from dateutil.rrule import DAILY, FR, MO, TH, TU, WE, rrule

from clickpost.errors import InvalidInput


class Kind(StrEnum):
    """What somebody asks for."""

    ACCESS = "access"
    ERASURE = "erasure"
    RECTIFICATION = "rectification"
    RESTRICTION = "restriction"
    OBJECTION = "objection"
    PORTABILITY = "portability"
    CHILD = "child"
    """Somebody reports that a child under 13 uses the service: its data goes, at once."""


class State(StrEnum):
    """How far a request has come; the words are those of the database, the UI and the reports."""

    RECEIVED = "received"
    VERIFIED = "verified"
    PLANNED = "planned"
    APPROVED = "approved"
    EXECUTED = "executed"
    READ_BACK = "read_back"
    CERTIFIED = "certified"
    ANSWERED = "answered"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class Door(StrEnum):
    """Where a request came in."""

    MAIL = "mail"
    API = "api"
    CLI = "cli"
    PLATFORM = "platform"
    """A platform's callback, which its signature proves."""
    PAGE = "page"
    SWEEP = "sweep"


#: What the request is about: one person, or a whole business account.
About = Literal["person", "account"]

S = State
_ASIDE = frozenset({S.REFUSED, S.WITHDRAWN})

#: From each state, where a request may go. A kind that people carry out by hand, and one about
#: somebody of whom nothing is held, go from `verified` to `answered`.
WAYS: dict[State, frozenset[State]] = {
    S.RECEIVED: frozenset({S.VERIFIED}) | _ASIDE,
    S.VERIFIED: frozenset({S.PLANNED, S.ANSWERED}) | _ASIDE,
    S.PLANNED: frozenset({S.APPROVED, S.EXECUTED}) | _ASIDE,
    S.APPROVED: frozenset({S.EXECUTED}) | _ASIDE,
    # What was begun is finished: it can neither be refused nor taken back.
    S.EXECUTED: frozenset({S.READ_BACK}),
    # A look that finds something left sends it back.
    S.READ_BACK: frozenset({S.CERTIFIED, S.EXECUTED}),
    S.CERTIFIED: frozenset({S.ANSWERED}),
    S.ANSWERED: frozenset(),
    S.REFUSED: frozenset(),
    S.WITHDRAWN: frozenset(),
}

CLOSED = frozenset({S.ANSWERED, S.REFUSED, S.WITHDRAWN})
OPEN = tuple(state for state in State if state not in CLOSED)


def before(after: State) -> tuple[State, ...]:
    """Return the states from which a request may come to `after`."""
    return tuple(state for state in State if after in WAYS[state])


Unit = Literal["h", "d", "business days", "months"]
_PERIOD = re.compile(r"\s*([0-9]{1,4})\s*(h|d|business days?|months?)\s*")
_WORKDAYS = (MO, TU, WE, TH, FR)


@dataclass(frozen=True)
class Period:
    """A span as laws say it: `1 month` ends on the same day of the next one."""

    count: int
    unit: Unit

    @classmethod
    def of(cls, words: str) -> Period:
        """Return the period that `10 business days` means; raise ValueError for what is none."""
        match = _PERIOD.fullmatch(words)
        if match is None or int(match[1]) < 1:
            raise ValueError("needs a number and h, d, business days or months, e.g. 45 d")
        units: dict[str, Unit] = {"h": "h", "d": "d", "b": "business days", "m": "months"}
        return cls(int(match[1]), units[match[2][0]])

    def after(self, moment: datetime) -> datetime:
        """Return the moment at which the period ends that begins at `moment`.

        Months end on the same day, or the month's last one. Business days are Monday to Friday:
        a holiday among them only makes our own deadline earlier than the law's.
        """
        match self.unit:
            case "h":
                return moment + timedelta(hours=self.count)
            case "d":
                return moment + timedelta(days=self.count)
            case "months":
                return moment + relativedelta(months=self.count)
            case "business days":
                days = rrule(DAILY, moment + timedelta(days=1), byweekday=_WORKDAYS)
                found: datetime = next(day for n, day in enumerate(days, 1) if n == self.count)
                # A rule drops parts of a second; a deadline that is earlier by one hurts nobody.
                return found

    def __str__(self) -> str:
        plural = self.count != 1
        word = {"h": " h", "d": " d", "months": " months" if plural else " month"}
        return f"{self.count}{word.get(self.unit, ' business days' if plural else ' business day')}"


@dataclass(frozen=True)
class Clocks:
    """What of a request is due when."""

    received_at: datetime
    due_at: datetime
    acknowledge_by: datetime | None = None
    extended_at: datetime | None = None
    paused_at: datetime | None = None

    def due(self, now: datetime) -> datetime:
        """Return when the answer is due; while the clock stands still that moves with `now`."""
        return self.due_at if self.paused_at is None else self.due_at + (now - self.paused_at)

    def resumed(self, now: datetime) -> datetime:
        """Return the new `due_at` where the clock goes on; raise InvalidInput where it does."""
        if self.paused_at is None:
            raise InvalidInput("the clock of this request is not stopped")
        return self.due(now)


class Urgency(StrEnum):
    """How near a request's end is."""

    FINE = "fine"
    SOON = "soon"
    OVERDUE = "overdue"


def urgency(clocks: Clocks, acknowledged: bool, warn: timedelta, now: datetime) -> Urgency:
    """Say how near the next deadline is: of the acknowledgement as long as there is none."""
    ends = [clocks.due(now)]
    if clocks.acknowledge_by is not None and not acknowledged:
        ends.append(clocks.acknowledge_by)
    next_ = min(ends)
    if next_ < now:
        return Urgency.OVERDUE
    # A short clock would warn from its first hour on: its last third is soon enough.
    span = min(warn, (next_ - clocks.received_at) / 3)
    return Urgency.SOON if next_ - now <= span else Urgency.FINE


_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE = re.compile(rf"[{_LETTERS}]{{20}}")


def new_code() -> str:
    """Return a confirmation code: 98 bits of chance in letters that nobody mixes up."""
    return "".join(secrets.choice(_LETTERS) for _ in range(20))


def code_of(typed: str) -> str | None:
    """Return the confirmation code that somebody typed, None where it is none."""
    code = re.sub(r"[\s-]", "", typed).upper()
    return code if CODE.fullmatch(code) else None


class Step(StrEnum):
    """What is to be done next for a request."""

    CHALLENGE = "challenge"
    """Ask the address whether it was them."""
    CARRY_OUT = "carry out"
    """Start the flow of its kind."""
    NOTHING_HELD = "nothing held"
    """Answer that there is nothing."""
    ANSWER = "answer"
    TELL = "tell"
    """Tell the person the end."""
    ASK = "ask"
    """An operator has to act."""
    WAIT = "wait"


@dataclass(frozen=True)
class Standing:
    """What is known of a request that decides its next step."""

    kind: Kind
    state: State
    about: About = "person"
    has_address: bool = True
    challenged: bool = False
    authority: str | None = None
    known: bool = True
    """Whether anything is held about whom it is about."""
    flow: str | None = None
    names_somebody: bool = True
    """Whether it says whose data it is: a person, a business, or accounts to be erased."""
    told: bool = False


def next_step(one: Standing) -> Step:
    """Return what is to be done next; nothing is looked up about whom nobody has verified."""
    match one.state:
        case State.RECEIVED if not one.has_address:
            return Step.ASK
        case State.RECEIVED:
            return Step.WAIT if one.challenged else Step.CHALLENGE
        # Whoever speaks for a business has to be its owner, or somebody has to look.
        case State.VERIFIED if one.about == "account" and one.authority is None:
            return Step.ASK
        case State.VERIFIED if not one.known:
            return Step.NOTHING_HELD
        case State.VERIFIED:
            return Step.CARRY_OUT if one.flow and one.names_somebody else Step.ASK
        case State.PLANNED | State.APPROVED | State.EXECUTED | State.READ_BACK:
            return Step.WAIT
        case State.CERTIFIED:
            return Step.ANSWER
        case State.ANSWERED | State.REFUSED | State.WITHDRAWN:
            return Step.WAIT if one.told else Step.TELL


def why_ask(one: Standing) -> str:
    """Say what an operator has to do about a request that waits for one."""
    if one.state is State.RECEIVED:
        return "nobody can be asked whether it is theirs: verify it another way"
    if one.about == "account" and one.authority is None:
        return "it is about a business account, and not from its owner: look whether they may ask"
    if not one.names_somebody:
        return "it names nobody whom we know: look whose data it is, erase, then answer"
    return f"{one.kind} is done by hand, then answered"
