"""Asks for approvals and takes what somebody decided; what is shown of a post holds no content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from clickpost import triggers
from clickpost.delivery import State
from clickpost.logs import logger
from clickpost.people import Right
from clickpost.store import Asked
from tasks import _runs, _wiring, signing_off
from tasks.signing_off import Form

log = logger("approving")

#: The flow whose runs wait for somebody to approve.
APPROVE = "approve"


@dataclass(frozen=True)
class Put:
    """What is asked, the words (Markdown) in which it is shown, and how it is signed."""

    asked: Asked
    words: str
    form: Form

    @property
    def key(self) -> str:
        """The form's key: another content or time is another question, a wrong code asks anew."""
        return self.form.key(self.about)

    @property
    def about(self) -> str:
        """What the answer is bound to."""
        return signing_off.approval_key(self.asked)


async def put(delivery_id: str) -> Put | None:
    """Return what there is to approve of the delivery now; None where there is nothing."""
    house = await _wiring.house()
    post_id = (await house.store.delivery(delivery_id)).post_id
    for asked in await house.store.open_approvals(post_id=post_id):
        if asked.delivery_id == delivery_id:
            lines = await house.store.lines(post_id)
            rendition = next(one.rendition for one in lines if one.id == delivery_id)
            form = await signing_off.form(house.store, signing_off.approval_key(asked))
            return Put(asked, _words(asked, rendition, form), form)
    return None


def _words(asked: Asked, rendition: str, form: Form) -> str:
    due = f"{asked.due_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if asked.due_at else "at once"
    parts = "1 part" if asked.parts == 1 else f"{asked.parts} parts"
    files = f"{asked.media} ({rendition})" if asked.media else "none"
    lines = [
        "**May this be published?** Read it first, for nothing of it is kept here:"
        f" `clickpost approve {asked.post_id} --show`",
        "",
        f"- connection: `{asked.ref}`",
        f"- due: {due}",
        f"- size: {parts}, files: {files}",
        f"- post: `{asked.post_id}`, delivery: `{asked.delivery_id}`",
        f"- content: `{asked.content_hash[:16]}`; a change of text, files or time asks anew",
        *form.words(asked.delivery_id),
    ]
    return "\n".join(lines)


async def require(post_id: str, tags: Sequence[str]) -> None:
    """Note that the post needs an approval, where the tags of a trigger's run say so."""
    if (trigger := triggers.gate_of(tags)) is not None:
        await (await _wiring.house()).store.require_approval_of(post_id, trigger)


async def ask(post_id: str) -> None:
    """Start a run for each approval of the post that no run asks for, and end those out of date."""
    house = await _wiring.house()
    await _ended(await house.store.former_approval_runs(post_id))
    for asked in await house.store.open_approvals(post_id=post_id):
        if asked.run_id is None:
            await house.store.set_approval_run([asked], await _begun(asked))


async def _ended(run_ids: list[str]) -> None:
    """End the runs that ask about what has changed, or was sent, cancelled or missed."""
    house = await _wiring.house()
    for run_id in run_ids:
        await _runs.complete(run_id, "nothing to approve any more: it changed, or was decided")
        await house.store.forget_approval_run(run_id)


async def _begun(asked: Asked) -> str:
    run_id = await _runs.begin(
        APPROVE,
        {"delivery": {"delivery_id": asked.delivery_id}},
        key=f"{APPROVE} {signing_off.approval_key(asked)}",
        name=f"{APPROVE} {asked.delivery_id}",
        tags=[f"post:{asked.post_id}", f"platform:{asked.ref.partition('/')[0]}", "question"],
    )
    log.info("asked for approval", delivery_id=asked.delivery_id)
    return run_id


async def tidy() -> list[str]:
    """Ask for what nobody asks for (any more), end what is asked in vain, give up what is too late.

    Return the posts that were given up.
    """
    house = await _wiring.house()
    missed = await house.store.miss_unapproved()
    await _ended(await house.store.former_approval_runs())
    asking = {one.run_id for one in await house.store.open_approvals() if one.run_id}
    for run_id in await _runs.over(asking):  # Somebody cancelled it, or it was lost.
        await house.store.forget_approval_run(run_id)
    for post_id in await house.store.posts_to_approve(unasked=True):
        await ask(post_id)
    return missed


async def signed(put: Put, code: str, signature: str, run_id: str) -> str:
    """Return who decides, as the ledger writes it: by the code, or as they signed themselves.

    Raises NotAllowed for a code that does not hold; the next `put` asks anew.
    """
    if not put.form.coded:
        return f"operator:{signature.strip() or 'in the Prefect UI'}"
    house = await _wiring.house()
    return await house.store.sign_off(code, Right.APPROVE, put.about, run_id)


async def decide(asked: Asked, *, approve: bool, by: str, note: str) -> State:
    """Take what somebody decided; raises what the store's `decide` raises."""
    house = await _wiring.house()
    state = await house.store.decide(asked, approve=approve, by=by, note=note)
    log.info("decided", delivery_id=asked.delivery_id, state=state.value)
    return state
