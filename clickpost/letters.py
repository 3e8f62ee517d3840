"""Words the letters to people who asked something about their data; plain text, no markup."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from clickpost.requests import Kind, State

_ASKS = {
    Kind.ACCESS: "to know what we hold about you",
    Kind.ERASURE: "to delete what we hold about you",
    Kind.RECTIFICATION: "to correct what we hold about you",
    Kind.RESTRICTION: "to restrict what we do with your data",
    Kind.OBJECTION: "to stop using your data",
    Kind.PORTABILITY: "to be given your data, to take it elsewhere",
    Kind.CHILD: "to delete what we hold about a child",
}
#: A reply that confirms a request begins with it. It stands apart from the code, so that a machine
#: that sends our letter back confirms nothing.
CONFIRM = "CONFIRM"


@dataclass(frozen=True)
class About:
    """What every letter says of a request."""

    kind: Kind
    code: str
    due_at: datetime
    status_url: str
    complain: str


@dataclass(frozen=True)
class Handed:
    """Where a person fetches their data; `link` None: they did not within its time."""

    link: str | None = field(repr=False)
    until: datetime | None = None


@dataclass(frozen=True)
class Letter:
    """A letter as it is sent."""

    title: str
    text: str = field(repr=False)


def shown(code: str) -> str:
    """Return a confirmation code as people read it."""
    return "-".join(code[n : n + 4] for n in range(0, len(code), 4))


def challenge(
    about: About, link: str, reply: str, until: datetime, *, by_reply: bool = True
) -> Letter:
    """Confirm receipt, and ask whether the request came from whoever reads this.

    It is the same letter for everybody: nobody has looked whether the address is known.
    """
    ways = [f"To confirm it, open this page and press the button:\n{link}"]
    if by_reply:
        ways.append(
            f"Or answer this message: begin your answer with the word {CONFIRM}, and behind it\n"
            f"this code: {reply}"
        )
    said = [
        f"Somebody, perhaps you, asked us {_ASKS[about.kind]}, giving this address.",
        "We do nothing before you confirm that it was you.",
        *ways,
        f"Both work once, until {_time(until)}. You will have our answer by {_day(about.due_at)},"
        " if you confirm.",
        "If it was not you, do nothing: nothing will happen, and nobody learns whether we know"
        " this address.",
        _footer(about),
    ]
    return _letter("Please confirm your request", about, said)


def received(about: About) -> Letter:
    """Confirm receipt of a request that needs no further proof."""
    said = [
        f"We have your request {_ASKS[about.kind]}, and know that it is yours.",
        f"You will have our answer by {_day(about.due_at)}.",
        _footer(about),
    ]
    return _letter("We have your request", about, said)


def extended(about: About, why: str) -> Letter:
    """Say that it takes longer, until when and why."""
    said = [
        f"You asked us {_ASKS[about.kind]}. It takes us longer than we said: you will have our"
        f" answer by {_day(about.due_at)}.",
        f"The reason: {why}",
        about.complain,
        _footer(about),
    ]
    return _letter("Your request takes longer", about, said)


def answered(
    about: About,
    outcome: str,
    note: str | None,
    certificate_id: str | None = None,
    handed: Handed | None = None,
) -> Letter:
    """Say what was done; `outcome` is `done`, `nothing_held` or `by_hand`."""
    said = [f"You asked us {_ASKS[about.kind]}.", _done(about.kind, outcome)]
    if handed is not None:
        said.append(_fetch(handed))
    if note:
        said.append(note)
    if certificate_id is not None:
        said.append(
            "What was done, place by place, and what has to be kept and why, is in a signed"
            f" certificate ({certificate_id}). The page below lets you download it."
        )
    said += [
        "We keep a record of this request, without your address, to prove that it was answered.",
        about.complain,
        _footer(about),
    ]
    return _letter("Your request is answered", about, said)


def _fetch(handed: Handed) -> str:
    if handed.link is None or handed.until is None:
        return "The file with your data is removed by now. Ask us again, and we make it anew."
    return (
        "All we hold about you is in one file, for you to read (begin with index.html) and for"
        f" programs. Until {_time(handed.until)} this link gives it to whoever has it, so keep it"
        f" to yourself:\n{handed.link}"
    )


def _done(kind: Kind, outcome: str) -> str:
    if outcome == "nothing_held":
        return "We hold nothing about you under this address."
    match kind:
        case Kind.ERASURE | Kind.CHILD:
            return (
                "It is done. What we deleted here may still be on platforms where it was published"
                " by others, and in backups until they are overwritten; from those it is deleted"
                " again should one be restored."
            )
        case _:
            return "It is done."


def refused(about: About, says: str, cite: str, note: str | None) -> Letter:
    """Say that and why we do not do it, and where the person can complain."""
    said = [f"You asked us {_ASKS[about.kind]}. We cannot do that.", f"{says} ({cite})"]
    if note:
        said.append(note)
    said += [about.complain, _footer(about)]
    return _letter("Your request is refused", about, said)


def _letter(title: str, about: About, paragraphs: list[str]) -> Letter:
    return Letter(f"{title} [{shown(about.code)}]", "\n\n".join(paragraphs) + "\n")


def _footer(about: About) -> str:
    return (
        f"Your confirmation code is {shown(about.code)}. How far your request has come:\n"
        f"{about.status_url}"
    )


def _day(moment: datetime) -> str:
    return f"{moment:%d %B %Y}".lstrip("0")


def _time(moment: datetime) -> str:
    return f"{_day(moment)}, {moment:%H:%M} UTC"


def asks(kind: Kind) -> str:
    """Say what a kind asks, after `you asked us`."""
    return _ASKS[kind]


def stands(state: State, outcome: str | None) -> str:
    """Say how far a request has come, for whom it is about."""
    match state:
        case State.RECEIVED:
            return "We wait for your confirmation"
        case State.VERIFIED:
            return "Your request is confirmed, and we are working on it"
        case State.PLANNED | State.APPROVED:
            return "We know where your data is, and are working on it"
        case State.EXECUTED | State.READ_BACK:
            return "It is done, and we are looking whether anything is left"
        case State.CERTIFIED:
            return "It is done, and our answer is on its way"
        case State.ANSWERED if outcome == "nothing_held":
            return "Your request is answered: we hold nothing about you"
        case State.ANSWERED:
            return "Your request is answered: it is done"
        case State.REFUSED:
            return "We could not do what you asked"
        case State.WITHDRAWN:
            return "Your request was taken back"
