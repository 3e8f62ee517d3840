"""Asks an operator, in a run that waits for the answer, what no look can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.states import Completed

from clickpost import asking
from clickpost.asking import Answer, Decision, Question, Sent, Shown
from clickpost.logs import logger
from clickpost.people import Right
from clickpost.store import Store
from clickpost.store.tables import Delivery
from tasks import _wiring, answering, signing_off
from tasks._wiring import House
from tasks.answering import standing_of
from tasks.signing_off import Form

log = logger("asking")

#: The flow that asks, and the flow that looks.
ASK = "ask-operator"
LOOK = "reconcile-deliveries"
_PAGE = 200


@dataclass(frozen=True)
class Put:
    """A question as it is put: about which send, and in which words (Markdown)."""

    seen: Delivery
    question: Question
    words: str
    form: Form

    @property
    def key(self) -> str:
        """The form's key: sent or due at another time it is another question."""
        return self.form.key(self.about)

    @property
    def about(self) -> str:
        """What the answer is bound to."""
        return signing_off.question_key(self.seen)


async def put(delivery_id: str) -> Put | None:
    """Return what there is to ask about the delivery now, None where there is nothing."""
    house = await _wiring.house()
    delivery = await house.store.delivery(delivery_id)
    question = asking.question_of(standing_of(delivery))
    if question is None:
        return None
    form = await signing_off.form(house.store, signing_off.question_key(delivery))
    words = await _words(house, delivery, question)
    return Put(delivery, question, "\n".join([words, *form.words(delivery_id)]), form)


async def _words(house: House, delivery: Delivery, question: Question) -> str:
    connection = await house.store.connection(delivery.connection_id)
    sent = [
        Sent(one.started_at, one.part, one.verdict)
        for one in await house.store.attempts_of(delivery.id)
        if one.intent.get("step") != "prepare"
    ]
    message = delivery.message or []
    shown = Shown(
        platform=house.policy(connection).title,
        ref=connection.ref,
        post_id=delivery.post_id,
        delivery_id=delivery.id,
        characters=tuple(len(part["text"]) for part in message),
        media=sum(len(part["media"]) for part in message),
        due_at=delivery.due_at,
        sent=tuple(sent),
        account_url=connection.url,
    )
    return asking.worded(question, standing_of(delivery), shown)


async def signed(put: Put, code: str, run_id: str) -> str:
    """Return who answers, as the ledger writes it: the UI itself does not tell its users apart.

    Raises NotAllowed for a code that does not hold; the next `put` asks anew.
    """
    if not put.form.coded:
        return "operator:prefect-ui"
    house = await _wiring.house()
    return await house.store.sign_off(code, Right.SETTLE, put.about, run_id)


async def take(asked: Put, answer: Answer, url: str | None, by: str) -> Decision:
    """Do what was answered in the Prefect UI; raises what `answering.settle` raises."""
    house = await _wiring.house()
    decision = await answering.settle(house.store, asked.seen, answer, url, actor=by)
    await house.store.set_question(asked.seen.id, None)
    return decision


async def ask(delivery_id: str) -> bool:
    """Put the delivery's question, unless it waits for its answer already; say whether it is put.

    A question whose run was cancelled, or lost, is put anew: nothing else moves the delivery on.
    """
    house = await _wiring.house()
    asked = await put(delivery_id)
    if asked is None or not _is_for_people(asked):
        return False
    async with get_client() as client:
        if await _waiting(client, [asked.seen.question_run_id]):
            return True
        run_id = await _begun(client, house, asked)
    await house.store.set_question(delivery_id, run_id)
    log.info("asked", delivery_id=delivery_id, question=asked.question.value)
    return True


def _is_for_people(asked: Put) -> bool:
    """Say whether only a person can go on; an unknown outcome is looked for first."""
    return asked.question is not Question.OUTCOME or asked.seen.who_acts == "an operator"


async def _begun(client: PrefectClient, house: House, asked: Put) -> str:
    """Start the question's run; the same question is one run, until that has ended."""
    deployment = await client.read_deployment_by_name(f"{ASK}/{ASK}")
    connection = await house.store.connection(asked.seen.connection_id)
    key = f"ask {asked.about}"
    while True:
        run = await client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"delivery": {"delivery_id": asked.seen.id}},
            idempotency_key=key,
            name=f"{ASK} {asked.seen.id}",
            tags=[f"post:{asked.seen.post_id}", f"platform:{connection.platform}", "question"],
        )
        if run.state is None or not run.state.is_final():
            return str(run.id)
        key += " again"


async def tidy() -> int:
    """Put every question that is open, end every run that asks what is settled; count the open."""
    house = await _wiring.house()
    count = 0
    for delivery in await house.store.maybe_asking():
        standing = standing_of(delivery)
        if asking.question_of(standing) is not None and await ask(delivery.id):
            count += 1
        elif delivery.question_run_id is not None:
            await close(house.store, delivery)
    return count


async def close(store: Store, delivery: Delivery, why: str = "settled without an answer") -> None:
    """End the run that still waits for an answer which nobody needs any more."""
    if delivery.question_run_id is None:
        return
    async with get_client() as client:
        run_id = UUID(delivery.question_run_id)
        if await _waiting(client, [delivery.question_run_id]):
            await client.set_flow_run_state(run_id, Completed(message=why), force=True)
    await store.set_question(delivery.id, None)


async def _waiting(client: PrefectClient, run_ids: Iterable[str | None]) -> bool:
    wanted = [UUID(one) for one in run_ids if one is not None]
    if not wanted:
        return False
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=wanted)), limit=_PAGE
    )
    return any(run.state is not None and not run.state.is_final() for run in found)


async def look_for_sends_of(run_id: str) -> None:
    """Start a look for each send of a run that has ended and left its outcome unknown."""
    house = await _wiring.house()
    left = await house.store.unknown_of(run_id)
    if not left:
        return
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"{LOOK}/{LOOK}")
        for delivery_id in left:
            await client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"delivery": {"delivery_id": delivery_id}},
                name=f"{LOOK} {delivery_id}",
                idempotency_key=f"{LOOK} {delivery_id} {run_id}",
            )
