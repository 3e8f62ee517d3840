"""Sets going again, at a person's word, what ended before it was sent: drafts, failures, misses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from clickpost import repeats
from clickpost.delivery import State
from clickpost.people import Right
from clickpost.store.tables import Delivery
from tasks import _wiring, signing_off

#: What ended without being sent and may be tried again.
ENDED = (State.FAILED, State.MISSED)
_AFRESH: dict[str, Any] = {"attempts": 0, "not_before": None, "due_at": None}


async def again(post_id: str, states: Collection[State], code: str, run_id: str) -> int:
    """Plan the post's deliveries in these states anew; return how many there were.

    Where people are declared it takes the code of one who may publish: raises NotAllowed for one
    that does not hold, InvalidInput where a platform's policy blocks saying the same again.
    """
    house = await _wiring.house()
    rows = [row for row in await house.store.deliveries_of(post_id) if row.state in states]
    if not rows:
        return 0
    by = "operator:prefect-ui"
    if await house.store.anybody():
        about = signing_off.publish_key(post_id)
        by = await house.store.sign_off(code, Right.PUBLISH, about, run_id)
    await house.store.require(by, Right.PUBLISH)
    await _unrepeated(post_id, rows)
    for row in rows:
        await house.store.move(row.id, row.state, State.PLANNED, actor=by, **_AFRESH)
    return len(rows)


async def _unrepeated(post_id: str, rows: Collection[Delivery]) -> None:
    """Raise InvalidInput where an account got lately what a draft says, and may not again."""
    house = await _wiring.house()
    guards = {}
    for row in rows:
        if row.state is State.DRAFTED and row.fingerprint:
            policy = house.policy(await house.store.connection(row.connection_id))
            guards[row.connection_id] = repeats.guard(row.fingerprint, policy.repeat_guard)
    await house.store.repeats_of(post_id, guards, again=False)
