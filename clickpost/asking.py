"""What only a person can settle: which questions there are, their words, what an answer does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from clickpost.delivery import State
from clickpost.errors import InvalidInput
from clickpost.publishing import ASK


class Question(StrEnum):
    """What is asked about a delivery."""

    OUTCOME = "outcome"
    """It was sent, and nobody can see whether it is there."""
    LATE = "late"
    """It is late, and its policy says ask."""
    REST = "rest"
    """A part of its thread is there, and the rest failed."""


class Answer(StrEnum):
    """What a person says, in the words of the command line."""

    THERE = "there"
    AGAIN = "again"
    GIVE_UP = "give-up"
    PUBLISH = "publish"
    SKIP = "skip"


#: The answers that each question takes.
ANSWERS: dict[Question, tuple[Answer, ...]] = {
    Question.OUTCOME: (Answer.THERE, Answer.AGAIN, Answer.GIVE_UP),
    Question.LATE: (Answer.PUBLISH, Answer.SKIP),
    Question.REST: (Answer.AGAIN, Answer.GIVE_UP),
}


@dataclass(frozen=True)
class Standing:
    """Where a delivery stands, as far as a question needs to know: `there` of `parts` are there."""

    state: State
    reason: str | None
    there: int
    parts: int


@dataclass(frozen=True)
class Decision:
    """What an answer does: the next state, why, and what else of the row it sets."""

    state: State
    reason: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sends(self) -> bool:
        """Say whether something has to be sent now."""
        return self.state in (State.READY, State.PLANNED)


def question_of(standing: Standing) -> Question | None:
    """Return what a person can settle about the delivery, None where there is nothing."""
    match standing.state:
        case State.UNKNOWN:
            return Question.OUTCOME
        case State.HELD if (standing.reason or "").endswith(ASK):
            return Question.LATE
        case State.FAILED if 0 < standing.there < standing.parts:
            return Question.REST
        case _:
            return None


def decided(
    question: Question, answer: Answer, standing: Standing, url: str | None, moment: datetime
) -> Decision:
    """Return what `answer` does; raise InvalidInput for one that the question does not take."""
    if answer not in ANSWERS[question]:
        allowed = ", ".join(ANSWERS[question])
        raise InvalidInput(f"this question takes: {allowed}; found {answer}")
    if url is not None and answer is not Answer.THERE:
        raise InvalidInput(f"a permalink goes with the answer {Answer.THERE} only")
    match answer:
        case Answer.THERE:
            return _there(standing, checked(url), moment)
        case Answer.AGAIN:
            return _again(question)
        case Answer.GIVE_UP:
            return Decision(State.CANCELLED, _given_up(question, standing))
        case Answer.PUBLISH:
            return Decision(State.PLANNED, None, {**_AFRESH, "due_at": None})
        case Answer.SKIP:
            return Decision(State.MISSED, "late; an operator said skip")


_AFRESH: Mapping[str, Any] = MappingProxyType({"attempts": 0, "not_before": None})


def _there(standing: Standing, url: str | None, moment: datetime) -> Decision:
    if standing.there + 1 < standing.parts:
        # Only the platform's own id would let the next part answer this one.
        part = f"part {standing.there + 1} of {standing.parts}"
        reason = f"an operator says {part} is there; the rest has nothing to answer, and stays away"
        return Decision(State.CANCELLED, reason)
    more = {"live_at": moment} if url is None else {"live_at": moment, "url": url}
    return Decision(State.LIVE, None, more)


def _again(question: Question) -> Decision:
    if question is Question.REST:
        return Decision(State.PLANNED, None, {**_AFRESH, "due_at": None})
    return Decision(State.READY, "an operator says it is not there", _AFRESH)


def _given_up(question: Question, standing: Standing) -> str:
    there = f"{standing.there} of {standing.parts} parts are there" if standing.there else ""
    if question is Question.REST:
        return f"an operator gave up: {there}"
    doubt = f"part {standing.there + 1}" if standing.parts > 1 else "it"
    said = f"an operator gave up: nobody knows whether {doubt} is there"
    return f"{said}; {there}" if there else said


def checked(url: str | None) -> str | None:
    """Return a permalink that somebody typed; raise InvalidInput where it is no web address."""
    if url is None or not url.strip():
        return None
    given = url.strip()
    parts = urlsplit(given)
    if parts.scheme not in ("https", "http") or not parts.hostname or len(given) > 2000:
        raise InvalidInput("the permalink is no address of the form https://…")
    return given


@dataclass(frozen=True)
class Sent:
    """One try, as a question shows it."""

    at: datetime
    part: int
    verdict: str | None


@dataclass(frozen=True)
class Shown:
    """What a question shows: ids, names of accounts, times and counts; nothing of the content."""

    platform: str
    ref: str
    post_id: str
    delivery_id: str
    characters: tuple[int, ...]
    """Of each part's text."""
    media: int
    due_at: datetime | None
    sent: tuple[Sent, ...]
    account_url: str | None
    command: str = "clickpost posts settle"


_ASKED = {
    Question.OUTCOME: "It was sent, and {platform} did not say what came of it. A look could not"
    " tell. **Is it there?** *It is there* takes it as published; *send again* sends it once more;"
    " *give up* leaves it for good.",
    Question.LATE: "It is late, and its policy says ask. **Publish it now, or skip it?**",
    Question.REST: "A part of its thread is there, the rest is not. **Send the rest, or give up?**"
    " Giving up leaves the part that is there.",
}


def worded(question: Question, standing: Standing, shown: Shown) -> str:
    """Return the question as Markdown, as an operator reads it in the Prefect UI."""
    lines = [_ASKED[question].format(platform=shown.platform), ""]
    lines += [f"- connection: `{shown.ref}` ({shown.platform})"]
    if shown.account_url:
        lines += [f"- look here: [the account's page]({shown.account_url})"]
    lines += [f"- post: `{shown.post_id}`, delivery: `{shown.delivery_id}`"]
    if shown.due_at:
        lines += [f"- due: {_at(shown.due_at)}"]
    lines += [f"- sent: {_at(one.at)}{_which(one, standing)}" for one in shown.sent]
    lines += [f"- size: {_size(shown)}"]
    if standing.there:
        lines += [f"- there already: {standing.there} of {standing.parts} parts"]
    answers = "|".join(ANSWERS[question])
    command = f"{shown.command} {shown.post_id} --to {shown.ref} --answer {answers}"
    return "\n".join([*lines, "", f"The same from the command line: `{command}`"])


def _which(sent: Sent, standing: Standing) -> str:
    part = f", part {sent.part + 1} of {standing.parts}" if standing.parts > 1 else ""
    return f"{part}: {sent.verdict or 'no answer'}"


def _size(shown: Shown) -> str:
    counts = " + ".join(str(one) for one in shown.characters) or "0"
    files = "1 file" if shown.media == 1 else f"{shown.media} files"
    return f"{counts} characters, {files}"


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
