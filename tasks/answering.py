"""Takes a person's answer about a delivery: whoever answers first has it, the other hears so."""

from __future__ import annotations

from datetime import UTC, datetime

from clickpost import asking
from clickpost.asking import Answer, Decision, Question, Standing
from clickpost.errors import Conflict
from clickpost.logs import logger
from clickpost.store import Store
from clickpost.store.tables import Delivery

log = logger("answering")


def standing_of(delivery: Delivery) -> Standing:
    """Return what a question needs to know of the row."""
    parts = len(delivery.message or [])
    return Standing(delivery.state, delivery.reason, len(delivery.receipts or []), parts)


async def settle(
    store: Store, seen: Delivery, answer: Answer, url: str | None, *, actor: str
) -> Decision:
    """Do what a person decided about the delivery as it was `seen`.

    Raises Conflict, saying how it stands, where it was settled or sent again since: who answers
    first wins. Raises InvalidInput where there is no such question or no such answer.
    """
    standing = standing_of(seen)
    question = asking.question_of(standing)
    if question is None:
        raise Conflict(f"there is nothing to settle: {seen.id} is {seen.state} already")
    if question is Question.OUTCOME and (seen.who_acts or "").startswith("nobody"):
        raise Conflict(f"ClickPost still looks for {seen.id} by itself; ask again in a minute")
    decision = asking.decided(question, answer, standing, url, datetime.now(UTC))
    because = {"question": question.value, "answer": answer.value}
    try:
        await store.settle_by_answer(
            seen,
            decision.state,
            reason=decision.reason,
            actor=actor,
            because=because,
            **decision.columns,
        )
    except Conflict:
        current = await store.delivery(seen.id)
        raise Conflict(f"somebody else was faster: {seen.id} is {current.state} by now") from None
    log.info("answered", delivery_id=seen.id, question=question.value, answer=answer.value)
    return decision
