"""What a simulation says is what the purges then do, and it touches and reads nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.policy import keeping
from clickpost.policy.privacy import Retention
from clickpost.settings import PROJECT, Settings
from clickpost.simulation import AT_ONCE, Bucket, forecast
from clickpost.store import Store
from clickpost.store.expiring import Compiled
from clickpost.store.forecasting import Forecasting
from clickpost.store.holds import Holds, NewHold

from .test_purging import AT, SCHEMA, TABLES, compiled, policy, purged, rows, ticket

runner = CliRunner(env={"COLUMNS": "200"})


async def counted(store: Store, *policies: Retention, days: int = 365) -> list[Bucket]:
    forecasting = Forecasting(store.engine, store.vault)
    horizon = timedelta(days=days)
    found = forecasting.buckets([compiled(one) for one in policies], AT, horizon)
    return [one async for one in found]


async def test_rows_fall_on_the_day_on_which_they_expire(store: Store) -> None:
    for number, age in enumerate((400, 31, 30, 29, 10, None)):
        await ticket(store, number, age)
    found = await counted(store, policy())
    by_day = {one.day: one.number for one in found if one.table == "ticket"}
    today = AT.date()
    assert by_day == {
        today: 3,
        today + timedelta(days=1): 1,
        today + timedelta(days=20): 1,
    }
    messages = sum(one.number for one in found if one.table == "ticket_message")
    files = sum(one.number for one in found if one.table == "ticket_attachment")
    assert (messages, files) == (10, 5)
    assert {one.why for one in found} == {"to answer"}


async def test_the_first_run_is_what_a_purge_then_does(store: Store) -> None:
    for number, age in enumerate((400, 90, 31, 20)):
        await ticket(store, number, age)
    held = NewHold("legal", "ticket", "ticket_000000", "case 7")
    await Holds(store.engine, store.vault).place_hold(held, "tests")
    found = await counted(store, policy(), days=1)
    made = forecast([policy()], found, {"ticket": 4}, AT.date(), 1)
    spikes = {one.table: made.spike(one) for one in made.courses}
    assert {one.table: one.kept for one in made.courses}["ticket"] == 1
    assert await purged(store, policy()) == spikes


async def test_of_two_policies_the_first_to_delete_counts(store: Store) -> None:
    for number, age in enumerate((5, 40)):
        await ticket(store, number, age)
    short = policy(name="short", keep_for="10 d")
    long_ = policy(name="long", keep_for="30 d")
    masked = policy(name="masked", keep_for="20 d", then="anonymize")
    found = [one for one in await counted(store, long_, short, masked) if one.table == "ticket"]
    assert [(one.policy, one.number) for one in found if one.day > AT.date()] == [("short", 1)]
    masked = policy(name="masked", keep_for="7 d", then="anonymize")
    found = [one for one in await counted(store, long_, short, masked) if one.table == "ticket"]
    assert sum(one.number for one in found if one.policy == "masked") == 2


async def test_the_purpose_that_lasts_longest_is_the_rule_that_binds(store: Store) -> None:
    await ticket(store, 1, 1)
    await rows(store, "UPDATE ticket SET status = 'open' WHERE id = 'ticket_000001'")
    await ticket(store, 2, 1)
    longer = {
        "why": "while it may be opened again",
        "keep_for": "60 d",
        "from": ["closed_at"],
        "where": {"status": ["open"]},
        "basis": "contract",
        "cite": "our own choice",
        "checked": "2026-11-24",
    }
    plain = policy().model_dump(by_alias=True, mode="json")
    plain["purposes"][0]["keep_for"] = "30 d"
    plain["purposes"].append(longer)
    one = Retention.model_validate(plain)
    found = {
        (each.day - AT.date()).days: each.why
        for each in await counted(store, one)
        if each.table == "ticket"
    }
    assert found == {29: "to answer", 59: "while it may be opened again"}


def test_what_came_in_lately_is_expected_to_come_in_again() -> None:
    day = AT.date() + timedelta(days=20)
    bucket = Bucket("parrot", "ticket", day, "to answer", stays=False, recent=True, number=7)
    made = forecast([policy()], [bucket], {"ticket": 7}, AT.date(), 90)
    [course] = made.courses
    assert course.by_day() == {day: 7, **{day + timedelta(days=28 * n): 7 for n in (1, 2)}}
    assert sum(course.expected.values()) == 14


def test_a_table_is_told_by_month_whatever_policies_are_about_it() -> None:
    first = AT.date()
    names = ("parrot", "raven")
    policies = [policy(name=name) for name in names]
    buckets = [
        Bucket(name, "ticket", first + timedelta(days=days), "to answer", False, False, number)
        for name, days, number in (("parrot", 0, 5), ("parrot", 40, 2), ("raven", 40, 3))
    ]
    made = forecast(policies, buckets, {"ticket": 10}, first, 60)
    month = f"{first + timedelta(days=40):%Y-%m}"
    assert made.by_table() == {("ticket", "deleted"): {AT_ONCE: 5, month: 5}}
    assert made.months()[0] == f"{first:%Y-%m}"
    assert made.months()[-1] == f"{first + timedelta(days=60):%Y-%m}"
    assert len(set(made.months())) in (2, 3)


def test_a_first_run_beyond_its_limit_is_said_to_stop() -> None:
    one = policy(limit={"rows": 10, "share": 0.2})
    bucket = Bucket("parrot", "ticket", AT.date(), "to answer", stays=False, recent=False, number=7)
    made = forecast([one], [bucket], {"ticket": 10}, AT.date(), 90)
    assert made.stopped(made.courses[0]) == "limit.share is 20%, and this is 70%"
    assert forecast([one], [bucket], {"ticket": 100}, AT.date(), 9).stopped(made.courses[0]) is None


async def test_every_shipped_policy_can_be_foretold(store: Store) -> None:
    found = keeping.load(PROJECT / "policies")
    by_table: dict[str, list[Compiled]] = {}
    for one in found.retention.values():
        by_table.setdefault(one.data, []).append(Compiled(one, TABLES, SCHEMA))
    forecasting = Forecasting(store.engine, store.vault)
    for group in by_table.values():
        assert [b async for b in forecasting.buckets(group, AT, timedelta(days=90))] == []


@pytest.fixture
def house(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    shutil.copytree(PROJECT / "policies", tmp_path / "house" / "policies")
    made = settings.model_copy(update={"policies": tmp_path / "house" / "policies"})
    monkeypatch.setattr(_house, "settings", lambda: made)
    return made


async def ran(*words: str, code: int = 0) -> str:
    answer = await asyncio.to_thread(runner.invoke, app, ["policy", "simulate", *words])
    assert answer.exit_code == code, answer.output
    return answer.output


async def closed(store: Store, *days: int) -> None:
    """Store tickets that were closed so many days ago by the clock on the wall."""
    for number, age in enumerate(days):
        await ticket(store, number, 1)
        when = datetime.now(UTC) - timedelta(days=age)
        query = "UPDATE ticket SET closed_at = :w WHERE id = :i"
        await rows(store, query, w=when, i=f"ticket_{number:06}")


def committed(folder: Path) -> None:
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "before"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True)


async def test_a_change_is_compared_with_a_revision_before_it_is_made(
    house: Settings, store: Store, tmp_path: Path
) -> None:
    await closed(store, 800, 200, 200)
    folder = house.policies.parent
    await asyncio.to_thread(committed, folder)
    file = house.policies / "retention" / "tickets.yaml"
    file.write_text(file.read_text().replace("keep_for: 730 d", "keep_for: 90 d"))
    picture = tmp_path / "plan.svg"
    said = json.loads(await ran("--against", "HEAD", "--json", "--plot", str(picture)))
    [row] = [one for one in said["policies"] if one["table"] == "ticket"]
    assert (row["before"]["first_run"], row["after"]["first_run"]) == (1, 3)
    assert row["after"]["then"] == "deleted"
    assert "<svg" in picture.read_text()
    shown = await ran("--against", "HEAD")
    assert "1 → 3" in shown
    assert "before → after: HEAD" in shown
    [before, after] = [line.split() for line in shown.splitlines() if line.startswith("ticket  ")]
    assert before[:4] == ["ticket", "deleted", "before", "1"]
    assert after[:4] == ["ticket", "deleted", "after", "3"]
    assert (before[-1], after[-1]) == ("1", "3"), "in all"
    assert len(await rows(store, "SELECT 1 FROM ticket")) == 3, "nothing is touched"
    assert "no revision" in await ran("--against", "nowhere", code=2)
    assert ".png or .svg" in await ran("--plot", "plan.gif", code=2)


async def test_a_folder_can_be_compared_and_a_png_drawn(
    house: Settings, store: Store, tmp_path: Path
) -> None:
    await closed(store, 800)
    other = tmp_path / "other"
    shutil.copytree(house.policies, other)
    (other / "retention" / "tickets.yaml").unlink()
    picture = tmp_path / "plan.png"
    said = json.loads(await ran("--against", str(other), "--json", "--plot", str(picture)))
    [row] = [one for one in said["policies"] if one["table"] == "ticket"]
    assert row["before"] is None
    assert row["after"]["first_run"] == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


async def test_no_value_of_a_row_reaches_us(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the queries answer, it is dates, counts, flags and numbers of purposes."""
    await ticket(store, 1, 31)
    seen: set[str] = set()
    fetched = Forecasting._fetched

    async def watched(self: Any, query: Any, given: Any, rule: Any, table: str) -> Any:
        async with self.engine.connect() as connection:
            for row in (await connection.execute(query, given)).mappings():
                seen.update(type(value).__name__ for value in row.values())
        async for one in fetched(self, query, given, rule, table):
            yield one

    monkeypatch.setattr(Forecasting, "_fetched", watched)
    await counted(store, policy())
    assert seen == {"date", "int", "bool"}
