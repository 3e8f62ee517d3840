"""On the whole stack: what is beyond a budget goes later, by the sweep, in its order."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import text as sql

from clickpost.delivery import State
from deployments import runs
from tests.flows.conftest import House

pytestmark = [pytest.mark.xdist_group("sending"), pytest.mark.timeout(150)]


async def an_hour_later(house: House) -> None:
    """Let an hour pass for budgets and what waits for them."""
    async with house.store.transaction() as session:
        for change in (
            "UPDATE spend SET at = at - interval '61 minutes'",
            "UPDATE delivery SET not_before = not_before - interval '61 minutes',"
            " updated_at = updated_at - interval '61 minutes' WHERE queued_at IS NOT NULL",
        ):
            await session.execute(sql(change))


async def test_posts_beyond_a_small_budget_go_later_in_their_order(house: House) -> None:
    await an_hour_later(house)  # What other tests sent counts no more.
    connection = await house.store.connection("mastodon/studio")
    await house.store.set_burst(connection.id, 2)
    text = uuid.uuid4().hex
    posts = [await house.post(f"{text} {number}", "mastodon/studio") for number in range(6)]
    for post_id in posts:
        await house.ended(house.run("publish", post_id))
    assert [row["text"][-1] for row in house.there(text)] in (["0", "1"], ["1", "0"])
    waiting = (await house.store.lines(posts[2]))[0]
    assert (waiting.state, waiting.who_acts) == (State.READY, "nobody")
    assert str(waiting.reason).startswith("burst guard: 2 posts in 1 h were sent; next at ")
    for expected in ({"0", "1", "2", "3"}, {"0", "1", "2", "3", "4", "5"}):
        await an_hour_later(house)
        sweep = runs.start(house.settings, "sweep-deliveries", {})
        await house.ended(sweep)
        assert {row["text"][-1] for row in house.there(text)} == expected
