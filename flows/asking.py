"""Asks an operator what only people can know: the run waits in the UI until somebody answers."""

from __future__ import annotations

from typing import Any, Literal

from prefect import State as PrefectState
from prefect import flow
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from clickpost.asking import Answer, Question, checked
from clickpost.delivery import State
from clickpost.errors import Conflict, InvalidInput, NotAllowed
from flows import _run
from flows._choice import CODE, CODED_FORM, FORM, DeliveryChoice
from tasks import asking, reporting


class Outcome(RunInput):
    """The answer about a send of unknown outcome."""

    model_config = FORM

    answer: Literal["it is there", "send again", "give up"] = Field(
        title="Answer", description="What you see at the account."
    )
    # Not `str | None`: the UI would make a switch of it instead of a field to write in.
    permalink: str = Field(
        "", title="Permalink", description="Where it is, if it is there; may stay empty."
    )


class Late(RunInput):
    """The answer about a delivery that is late."""

    model_config = FORM

    answer: Literal["publish now", "skip"] = Field(
        title="Answer", description="Whether it still shall be published."
    )


class Rest(RunInput):
    """The answer about a thread of which a part is there."""

    model_config = FORM

    answer: Literal["send the rest", "give up"] = Field(
        title="Answer", description="Whether the parts that are missing shall be sent."
    )


class CodedOutcome(Outcome):
    """The same, where people are declared."""

    model_config = CODED_FORM

    code: str = Field("", title="Code", description=CODE)


class CodedLate(Late):
    """The same, where people are declared."""

    model_config = CODED_FORM

    code: str = Field("", title="Code", description=CODE)


class CodedRest(Rest):
    """The same, where people are declared."""

    model_config = CODED_FORM

    code: str = Field("", title="Code", description=CODE)


_FORMS: dict[Question, type[RunInput]] = {
    Question.OUTCOME: Outcome,
    Question.LATE: Late,
    Question.REST: Rest,
}
_CODED: dict[Question, type[RunInput]] = {
    Question.OUTCOME: CodedOutcome,
    Question.LATE: CodedLate,
    Question.REST: CodedRest,
}
_SAID = {
    "it is there": Answer.THERE,
    "send again": Answer.AGAIN,
    "send the rest": Answer.AGAIN,
    "give up": Answer.GIVE_UP,
    "publish now": Answer.PUBLISH,
    "skip": Answer.SKIP,
}


@flow(
    name="ask-operator",
    flow_run_name="ask-operator {delivery.delivery_id}",
    validate_parameters=True,
)
async def ask_operator(delivery: DeliveryChoice) -> PrefectState[Any]:
    """Ask an operator about one delivery, wait for the answer, and do what it says.

    Press Resume on the waiting run's page to answer. The command line can answer too, and so may
    the platform in a later look: the first to settle it wins, and this run says so.
    """
    while (asked := await asking.put(delivery.delivery_id)) is not None:
        form = (_CODED if asked.form.coded else _FORMS)[asked.question]
        given: Any = await asuspend_flow_run(
            wait_for_input=form.with_initial_data(description=asked.words), key=asked.key
        )
        try:
            by = await asking.signed(asked, getattr(given, "code", ""), str(flow_run.id))
        except NotAllowed:
            continue  # The form is put anew, and says so.
        return await _answered(asked, given, by)
    return Completed(message="there is nothing to ask: it is settled")


async def _answered(asked: asking.Put, given: Any, by: str) -> PrefectState[Any]:
    url = getattr(given, "permalink", "").strip() or None
    try:
        decision = await asking.take(asked, _SAID[given.answer], checked(url), by)
    except Conflict as error:
        return Completed(message=str(error))
    except (InvalidInput, NotAllowed) as error:
        # The question is put anew by the next `reconcile-deliveries`.
        return Failed(message=str(error))
    return await _done(asked.seen.post_id, asked.seen.id, decision.sends, given.answer)


async def _done(post_id: str, delivery_id: str, sends: bool, answer: str) -> PrefectState[Any]:
    if sends:
        return await _sent(post_id, delivery_id, f"{answer}: ")
    await _run.report(post_id)
    row = next(row for row in await reporting.rows(post_id) if row.delivery_id == delivery_id)
    return Completed(message=f"{answer}: {row.state.value}")


async def _sent(post_id: str, delivery_id: str, what: str) -> PrefectState[Any]:
    """Send what the answer lets go, here and now."""
    rows = [row for row in await reporting.rows(post_id) if row.delivery_id == delivery_id]
    if any(row.state is State.PLANNED for row in rows):
        await _run.prepare(post_id)
        rows = [row for row in await reporting.rows(post_id) if row.delivery_id == delivery_id]
    steps = await _run.side_by_side(_run.deliver(row) for row in rows)
    await _run.report(post_id)
    return _run.ended(steps, what)
