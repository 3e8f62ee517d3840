"""Codes with which people sign off decisions in forms: what each is about, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from clickpost import asking
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.store import Asked, Store
from clickpost.store.tables import Delivery
from tasks.answering import standing_of


@dataclass(frozen=True)
class Signed:
    """A new code, for which right, and for how long."""

    code: str
    right: Right
    minutes: int


@dataclass(frozen=True)
class Form:
    """How a form in the UI is signed: with a person's code, where people are declared."""

    coded: bool
    refusals: int

    def key(self, about: str) -> str:
        """Return the form's key: after each refused code the question is put anew."""
        return f"{about}-{self.refusals}" if self.refusals else about

    def words(self, subject: str) -> list[str]:
        """Return what the form says (Markdown) about the code."""
        if not self.coded:
            return []
        said = f"Sign with a code of your own: `clickpost people code {subject}`"
        refused = "**The last code was refused; nothing was decided.** " if self.refusals else ""
        return ["", f"{refused}{said}"]


async def form(store: Store, about: str) -> Form:
    """Return how a decision is signed now."""
    if not await store.anybody():
        return Form(False, 0)
    return Form(True, await store.refusals(about))


async def code(store: Store, by: str, subject: str, *, takedown: bool = False) -> Signed:
    """Return a code of the person `by` for what waits at a delivery, for a post's form, a platform.

    A post's is to publish it, or to take it down. Raises InvalidInput where nothing waits at the
    delivery, NotAllowed for who may not decide it.
    """
    if subject.startswith("post_"):
        post_id = (await store.post(subject)).id
        right = Right.TAKEDOWN if takedown else Right.PUBLISH
        about = takedown_key(post_id) if takedown else publish_key(post_id)
    else:
        right, about, post_id = await _wanted(store, subject)
    made = await store.new_code(by, right, about, post_id)
    return Signed(made, right, int(store.rules.codes_last.total_seconds() // 60))


async def _wanted(store: Store, subject: str) -> tuple[Right, str, str]:
    if subject in {one.platform for one in await store.connections()}:
        return Right.CANCEL, platform_key(subject), subject
    seen = await store.delivery(subject)
    for asked in await store.open_approvals(post_id=seen.post_id):
        if asked.delivery_id == subject:
            return Right.APPROVE, approval_key(asked), seen.post_id
    if asking.question_of(standing_of(seen)) is not None:
        return Right.SETTLE, question_key(seen), seen.post_id
    raise InvalidInput(
        f"{subject}: nothing of it waits for a person; see: clickpost posts show {seen.post_id}"
    )


def approval_key(asked: Asked) -> str:
    """Return what an approval is bound to: another content or time is another question."""
    due = f"{asked.due_at.timestamp():.0f}" if asked.due_at else "none"
    # Prefect takes letters, digits and dashes for a form's key.
    return f"{asked.delivery_id}-{asked.content_hash[:32]}-{due}".replace("_", "-")


def question_key(seen: Delivery) -> str:
    """Return what a question is about: sent or due at another time, it is another one."""
    question = asking.question_of(standing_of(seen))
    word = question.value if question else "none"
    moments = [_stamp(seen.sent_at), _stamp(seen.due_at)]
    # Prefect takes small letters, digits and dashes.
    return "-".join([seen.id.replace("_", "-"), word, *moments])


def publish_key(post_id: str) -> str:
    """Return what setting a post going again is about."""
    return f"publish-{post_id.replace('_', '-')}"


def takedown_key(post_id: str) -> str:
    """Return what a takedown is about."""
    return f"takedown-{post_id.replace('_', '-')}"


def platform_key(platform: str) -> str:
    """Return what pausing a platform, and letting it go on, is about."""
    return f"platform-{platform.replace('_', '-')}"


def _stamp(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S%f") if moment else "none"
