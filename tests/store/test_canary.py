"""A canary is erased as real people are, and a look that finds nothing of it is evidence."""

from __future__ import annotations

import base64
import os
import re
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import canary, compliance
from clickpost.canary import Flight, Looked, Marks, Trace
from clickpost.compliance import Light, OpenErasure
from clickpost.errors import GuardTripped
from clickpost.requests import Kind
from clickpost.store import Store
from clickpost.store.canaries import flights
from flows.canary import canary_erasure
from tasks import _wiring, erasing
from tasks import canary as canaries
from tasks import compliance as sweeping
from tasks._wiring import House
from tests.store.test_erasure import rows
from tests.store.test_erasure_runs import house

__all__ = ["house"]

NOW = datetime(2026, 11, 24, 5, tzinfo=UTC)


async def erased(request_id: str) -> None:
    """Do what the flow does, without Prefect."""
    opened = await _wiring.house()
    row, why = await erasing.of_request(opened, request_id)
    wait = await canaries.approved(request_id)
    assert (wait == []) is (why is None)
    await erasing.carry_out(opened, row.id)
    await canaries.finish(request_id)


async def flown() -> tuple[canaries.Canary, Looked]:
    flying = await canaries.begin()
    await canaries.export(flying, await canaries.ask(flying, Kind.ACCESS))
    await erased(await canaries.ask(flying))
    left = await canaries.look_for_person(flying)
    await erased(await canaries.ask(flying, account=True))
    return flying, left + await canaries.look_everywhere(flying)


async def test_a_canary_is_found_while_it_flies_and_nowhere_afterwards(
    store: Store, house: House
) -> None:
    for _ in range(2):
        _, looked = await flown()
        await canaries.record(looked)
        assert looked.traces == ()
        assert looked.places > 40
        assert looked.unsearched == ("Prefect's database, which is another server's",)
    assert await rows(store, "SELECT 1 FROM member") == []
    assert len(await store.workspaces()) == 1, "its own is gone"
    states = await rows(store, "SELECT DISTINCT state FROM erasure")
    assert [one.state for one in states] == ["complete"]
    assert [
        one.state for one in await rows(store, "SELECT DISTINCT state FROM subject_request")
    ] == ["answered"]
    files = [one for one in house.settings.media_root.rglob("*") if one.is_file()]
    assert [
        one for one in files if one.parent.name in ("originals", "attachments", "exports")
    ] == []
    sent = await rows(store, "SELECT state, attempts FROM delivery")
    assert sent == [], "its draft went, and was never sent"
    [last, *_] = await flights(store.engine)
    assert (last.became, last.looked) == ("searched", looked)


async def test_what_an_erasure_misses_is_found_and_told(store: Store, house: House) -> None:
    flying = await canaries.begin()
    seen = {one.place for one in (await canaries._look_in_tables(house, *flying.marks.all)).traces}
    assert {
        f"clickpost: table public.{table}"
        for table in ("member", "ticket", "ticket_message", "ticket_attachment", "usage_event",
                      "inference", "connection", "post", "workspace")
    } <= seen  # fmt: skip
    mark = flying.marks.account
    hidden = base64.b64encode(f"xx{mark}".encode()).decode()
    await rows(store, "UPDATE workspace SET name = :name WHERE id = 'ws_default'", name=hidden)
    media = house.settings.media_root
    (media / f"{mark}.txt").write_text("nothing inside")
    with zipfile.ZipFile(media / "old.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("page.html", mark * 50)
    await erased(await canaries.ask(flying, account=False))
    await erased(await canaries.ask(flying, account=True))
    looked = await canaries.look_everywhere(flying)
    assert looked.traces == (
        Trace("clickpost: table public.workspace", 1),
        Trace("file home/media/MARK.txt", 1),
        Trace("file home/media/old.zip", 1),
    )
    await canaries.record(looked)
    told = await rows(
        store, "SELECT facts::text AS facts FROM notice WHERE event = 'compliance.red'"
    )
    assert len(told) == 1
    kept = await rows(store, "SELECT l::text AS line FROM ledger l")
    assert not [one for one in [*told, *kept] if mark in str(one)]


async def test_an_old_file_is_not_read_for_it_cannot_hold_what_is_younger(
    store: Store, house: House
) -> None:
    flying = await canaries.begin()
    old = house.settings.media_root / "old.txt"
    old.write_text(flying.marks.person)
    os.utime(old, (0, 0))
    looked = canaries._look_in_files(house, flying)
    assert "file home/media/old.txt" not in {one.place for one in looked.traces}


async def test_a_canary_whose_run_was_killed_is_erased_by_the_next_one(
    store: Store, house: House
) -> None:
    await canaries.begin()
    _, looked = await flown()
    assert looked.traces == ()
    assert await rows(store, "SELECT 1 FROM member") == []
    assert [one.became for one in await flights(store.engine)] == ["planted", "failed", "planted"]
    assert len(await store.workspaces()) == 1


async def test_a_look_that_sees_nothing_is_no_evidence(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blind(house: House, *marks: str) -> Looked:
        return Looked(places=50)

    monkeypatch.setattr(canaries, "_look_in_tables", blind)
    with pytest.raises(GuardTripped, match="no proof"):
        await canaries.begin()


async def test_what_went_wrong_is_kept_and_told_by_its_kind(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("words of nobody knows whom")

    monkeypatch.setattr(canaries, "begin", broken)
    with pytest.raises(RuntimeError):
        await canary_erasure.fn()
    [last] = await flights(store.engine)
    assert (last.became, last.facts) == ("failed", {"why": "RuntimeError"})
    [told] = await rows(store, "SELECT n::text AS n FROM notice n WHERE event = 'compliance.red'")
    assert "RuntimeError" in told.n
    assert "nobody knows whom" not in told.n


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_a_mark_is_found_in_every_spelling_whatever_stands_around_it(
    before: bytes, after: bytes
) -> None:
    mark = Marks.new().person
    wanted = re.compile(canary.pattern([mark]).encode())
    text = before + mark.encode() + after
    for spelt in (text, text.hex().encode(), base64.b64encode(text)):
        assert wanted.search(spelt)
        cut = len(spelt) // 2
        assert canary.stands_in(iter([spelt[:cut], spelt[cut:]]), wanted)
    assert not canary.stands_in(iter([Marks.new().person.encode()]), wanted)


def test_a_flight_is_judged_by_its_end_and_its_age() -> None:
    def one(became: str, days: int = 1, **facts: object) -> Light:
        flight = Flight(became, NOW - timedelta(days=days), facts)
        return compliance.worst(compliance.canaries([flight], NOW))

    assert compliance.worst(compliance.canaries([], NOW)) is Light.AMBER
    assert one("searched", found={}, places=50) is Light.GREEN
    assert one("searched", found={}, unsearched=["Prefect's database"]) is Light.AMBER
    assert one("searched", found={"clickpost: table public.post": 1}) is Light.RED
    assert one("searched", days=9, found={}) is Light.RED
    assert one("failed", why="Transient: away") is Light.RED
    planted = Flight("planted", NOW, {})
    before = Flight("searched", NOW - timedelta(days=7), {"found": {}})
    assert compliance.worst(compliance.canaries([planted, before], NOW)) is Light.GREEN


def test_an_erasure_that_stands_still_is_said() -> None:
    def one(state: str, days: int, *outcomes: dict[str, object]) -> Light:
        erasure = OpenErasure("erasure_1", state, NOW - timedelta(days=days), outcomes)
        return compliance.worst(compliance.erasures([erasure], NOW))

    def said(outcome: str, until: str | None = None) -> dict[str, object]:
        return {"location": "stripe", "outcome": outcome, "until": until}

    assert compliance.worst(compliance.erasures([], NOW)) is Light.GREEN
    assert one("parked", 100, said("held")) is Light.GREEN
    assert one("erasing", 0) is Light.GREEN
    assert one("waiting", 3) is Light.AMBER
    assert one("blocked", 1) is Light.GREEN
    assert one("blocked", 3) is Light.RED
    assert one("waiting", 0, said("unreachable")) is Light.RED
    assert one("parked", 0, said("unsupported")) is Light.RED
    assert one("waiting", 0, said("vendor_pending", "2026-11-25T00:00:00Z")) is Light.GREEN
    assert one("waiting", 0, said("vendor_pending", "2026-11-23T00:00:00Z")) is Light.RED
    assert one("waiting", 0, said("vendor_pending")) is Light.RED


async def test_the_sweep_says_both(store: Store, house: House) -> None:
    found = await sweeping.look(store, house.settings, datetime.now(UTC))
    lights = {one.check: one.light for one in found}
    assert lights["canary"] is Light.AMBER
    assert lights["erasures"] is Light.GREEN
