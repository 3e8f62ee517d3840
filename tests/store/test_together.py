"""Erasures that go together do for each what they would do for it alone, in fewer statements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import event

from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.erasing_together import Together
from clickpost.store.erasures import Erasures
from clickpost.store.erasures_together import ErasuresTogether
from tasks import erasing, together
from tasks._wiring import House
from tasks.erasing import Wanted
from tests.store.test_erasure import (
    NOW,
    add,
    consent,
    everything,
    person,
    planned,
    rows,
)  # fmt: skip
from tests.store.test_erasure import erasing as policy
from tests.store.test_erasure_runs import approved, house

__all__ = ["house"]


def all_at_once(**more: Any) -> Together:
    one = policy(**more)
    return Together(one.policy, one.action, one.tables, one.retention, one.schema)


async def crowd(store: Store, settings: Settings, names: Sequence[str]) -> list[str]:
    """Store people of whom the second is held, and the third has a consent; all are named."""
    found = []
    for number, who in enumerate(names):
        file = settings.media_root / f"{who}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("parrots-not-ravens")
        found.append(await person(store, who, events=3 + number, file=str(file)))
    await add(
        store, "hold", id=f"hold_{names[1]}", kind="legal", scope="ticket",
        target=f"ticket_{names[1]}", cite="case 17", placed_by="counsel", placed_at=NOW,
        until=NOW + timedelta(days=40),
    )  # fmt: skip
    await consent(store, names[2])
    said = " and ".join(f"{one.capitalize()} Gone" for one in names)
    await add(
        store, "post", id=f"post_{names[0]}", workspace_id="ws_default", content_hash="h",
        late="publish", draft=False, body={"post": {"text": f"{said} were here."}},
        created_at=NOW,
    )  # fmt: skip
    return found


async def told(store: Store, erasure_id: str) -> list[tuple[str, str, int, str | None]]:
    certificate = await Erasures(store.engine, store.vault).certificate(erasure_id)
    outcomes = json.loads(certificate.document)["statement"]["outcomes"]
    return [(one["location"], one["outcome"], one["count"], one["rule"]) for one in outcomes]


async def test_what_becomes_of_each_is_what_becomes_of_it_alone(
    store: Store, settings: Settings, house: House
) -> None:
    """But for the ids, two crowds of the same shape: one goes together, one goes one by one."""
    first = await crowd(store, settings, ("ann", "bob", "cid", "dan"))
    second = await crowd(store, settings, ("eva", "fay", "gil", "hal"))
    ones = [await approved(house, Wanted("person", one)) for one in first]
    ended = await erasing.resume()
    assert sorted(one.erasure_id for one in ended) == sorted(ones)
    assert {one.state for one in ended} == {"complete", "parked"}
    others = [await approved(house, Wanted("person", one)) for one in second]
    for one in others:
        await erasing.carry_out(house, one)
    for mine, alone in zip(ones, others, strict=True):
        assert await told(store, mine) == await told(store, alone)
    said = await everything(store)
    assert not [word for word in ("ann@", "dan@", "Ann Gone", "d-dan") if word in said]
    assert len(await rows(store, "SELECT 1 FROM post WHERE body::text LIKE '%Gone%'")) == 0
    left = sorted(one.stem for one in settings.media_root.glob("*.png"))
    assert left == ["bob", "fay"]
    assert (await store.verify()).broken is None


async def test_left_in_the_middle_nothing_is_done_or_counted_twice(
    store: Store, settings: Settings
) -> None:
    members = [await person(store, who, events=30) for who in ("ann", "bob")]
    open_ = [await planned(store, policy(), one) for one in members]
    erasures = ErasuresTogether(store.engine, store.vault)

    async def some(batches: int) -> None:
        async for _ in erasures.erase_all(open_, all_at_once(), size=4):
            batches -= 1
            if not batches:
                return

    for batches in (2, 3, 1):
        await some(batches)
    await some(1000)
    counts = await erasures.counted_all(open_)
    for one in open_:
        assert counts[one.id]["erased usage_event"] == 30
        assert counts[one.id]["erased ticket"] == 2
    found = await erasures.read_back_all(open_, all_at_once())
    assert not any(there.total for one in found.values() for there in one)


async def test_who_has_many_rows_holds_up_nobody_and_gets_them_all_erased(store: Store) -> None:
    open_ = [
        await planned(store, policy(), await person(store, who, events=events))
        for who, events in (("ann", 57), ("bob", 1), ("cid", 2))
    ]
    erasures = ErasuresTogether(store.engine, store.vault)
    sizes = [done async for done in erasures.erase_all(open_, all_at_once(), size=10)]
    assert max(sizes) <= 12
    counts = await erasures.counted_all(open_)
    assert [counts[one.id]["erased usage_event"] for one in open_] == [57, 1, 2]


async def test_what_is_about_two_of_them_counts_once(store: Store, settings: Settings) -> None:
    """Somebody with one address in two workspaces asks for both at once."""
    await person(store)
    await add(store, "workspace", id="ws_2", name="second", approval=False, created_at=NOW)
    await add(
        store, "member", id="member_again", workspace_id="ws_2", name="Ann Gone",
        email="ann@example.org", email_digest="d-ann", role="publisher", created_at=NOW,
    )  # fmt: skip
    open_ = [await planned(store, policy(), one) for one in ("member_ann", "member_again")]
    erasures = ErasuresTogether(store.engine, store.vault)
    async for _ in erasures.erase_all(open_, all_at_once()):
        pass
    counts = await erasures.counted_all(open_)
    assert sum(one["erased ticket"] for one in counts.values()) == 2
    assert sum(one["erased member"] for one in counts.values()) == 2
    assert "ann@example.org" not in await everything(store)


async def test_one_that_cannot_be_done_stops_no_other(
    store: Store, settings: Settings, house: House
) -> None:
    inside = settings.media_root / "mine.png"
    inside.parent.mkdir(parents=True)
    inside.write_text("x")
    await person(store, file=str(inside))
    await person(store, "bob", file="/elsewhere/file.png")
    ones = [await approved(house, Wanted("person", one)) for one in ("member_ann", "member_bob")]
    ended = {one.erasure_id: one.state for one in await erasing.resume()}
    assert ended == {ones[0]: "complete", ones[1]: "failed"}
    assert not inside.exists()


async def test_what_another_run_works_on_is_left_to_it(store: Store, house: House) -> None:
    ones = []
    for who in ("ann", "bob", "cid"):
        member = await person(store, who, file=str(house.settings.media_root / who))
        ones.append(await approved(house, Wanted("person", member)))
    async with Erasures(store.engine, store.vault).erasure_lock(ones[1]):
        ended = await erasing.resume()
    assert {one.erasure_id: one.state for one in ended} == {
        ones[0]: "complete", ones[2]: "complete",
    }  # fmt: skip


async def test_what_has_to_leave_a_platform_or_further_databases_goes_by_itself(
    house: House,
) -> None:
    keeping = together.load(house.settings.policies)
    assert together.may_go(keeping, "person")
    assert not together.may_go(keeping, "account")
    people = {"customer": keeping.tables.tables["member"]}
    further = replace(keeping, databases={"billing": people})
    assert not together.may_go(further, "person")


async def test_statements_do_not_grow_with_the_people(store: Store, house: House) -> None:
    async def counted(names: Sequence[str]) -> int:
        for who in names:
            member = await person(store, who, file=str(house.settings.media_root / who))
            await approved(house, Wanted("person", member))
        statements: list[str] = []

        def one(*said: Any) -> None:
            statements.append(said[2])

        engine = house.store.engine.sync_engine
        event.listen(engine, "before_cursor_execute", one)
        ended = await erasing.resume()
        event.remove(engine, "before_cursor_execute", one)
        assert {each.state for each in ended} == {"complete"}
        return len(statements)

    few = await counted(["ann", "bob"])
    many = await counted([f"p{number}" for number in range(20)])
    # Each has its own certificate; all else is shared.
    assert (many - few) / 18 < 12
