"""What a cause came to at a trigger is decided once, and tells which triggers led there."""

from __future__ import annotations

import asyncio

from clickpost.store import Store
from clickpost.triggers import Verdict


async def test_a_cause_is_decided_once_for_each_trigger(store: Store) -> None:
    causes = [f"note_{number}" for number in range(1500)]
    await store.decided("a", causes[:1], Verdict.FIRED, run_id="run-1")
    await store.decided("a", causes, Verdict.LEFT_OUT, reason="60 within the hour already")
    await store.decided("b", causes[:1], Verdict.QUIET)
    assert await store.undecided("a", [*causes, "note_x"]) == ["note_x"]
    assert await store.undecided("b", causes) == causes[1:]
    [first, second] = await store.firings(causes[0])
    assert (first.verdict, first.run_id, second.verdict) == ("fired", "run-1", "quiet")
    [other] = await store.firings(causes[1])
    assert (other.verdict, other.reason) == ("left_out", "60 within the hour already")


async def test_a_run_knows_the_longest_line_of_triggers_that_led_to_it(store: Store) -> None:
    await store.decided("a", ["e1"], Verdict.FIRED, run_id="run-a")
    await store.decided("b", ["e2"], Verdict.FIRED, run_id="run-b", chain=("a",))
    assert await store.chain_of(["run-a", "run-b", "run-x"]) == ("a", "b")
    assert await store.chain_of(["run-x"]) == ()
    assert await store.chain_of([]) == ()


async def test_one_at_a_time_has_a_triggers_turn(store: Store) -> None:
    inside: list[str] = []

    async def one() -> None:
        async with store.turn("a"):
            inside.append("in")
            assert inside.count("in") - inside.count("out") == 1
            await asyncio.sleep(0)
            inside.append("out")

    await asyncio.gather(*(one() for _ in range(5)))
