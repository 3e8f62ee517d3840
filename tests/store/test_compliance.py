"""A sweep says what is broken, in words, keeps it, and tells it; it holds no personal value."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost import compliance, retention
from clickpost.compliance import Finding, Grant, Light, Request
from clickpost.policy import keeping
from clickpost.retention import Clock, Fate
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewConnection, Store
from clickpost.store.compliance import Compliance
from clickpost.store.tables import Notice
from tasks import compliance as sweeping

from .test_purging import rows

NOW = datetime(2026, 11, 24, 4, 30, tzinfo=UTC)
runner = CliRunner(env={"COLUMNS": "250"})


@pytest.fixture
def house(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    shutil.copytree(PROJECT / "policies", tmp_path / "policies")
    logging.getLogger("clickpost").handlers.clear()  # Of commands whose terminal is gone.
    made = settings.model_copy(update={"policies": tmp_path / "policies"})
    monkeypatch.setattr(_house, "settings", lambda: made)
    return made


def lights(found: list[Finding]) -> dict[str, Light]:
    return {
        one: compliance.worst(x for x in found if x.check == one)
        for one in {each.check for each in found}
    }


async def old_ticket(store: Store) -> None:
    when = NOW - timedelta(days=1095)
    await rows(
        store,
        "INSERT INTO ticket (id, title, status, email, opened_at, closed_at) VALUES"
        " ('ticket_1', 'Parrot', 'closed', 'parrot@example.org', :at, :at)",
        at=when,
    )


def test_a_request_is_red_once_late_and_amber_a_week_before() -> None:
    def one(due: int, acknowledge: int | None = None) -> list[Light]:
        by = NOW + timedelta(days=acknowledge) if acknowledge is not None else None
        request = Request("req_1", by, NOW + timedelta(days=due))
        return [each.light for each in compliance.requests([request], NOW)]

    assert one(-1) == [Light.RED]
    assert one(3) == [Light.AMBER]
    assert one(20) == [Light.GREEN]
    assert one(20, acknowledge=-1) == [Light.RED]
    assert one(20, acknowledge=5) == [Light.GREEN]
    assert [each.light for each in compliance.requests([], NOW)] == [Light.GREEN]


def test_a_grant_past_its_end_is_red_and_a_dead_one_amber() -> None:
    def one(status: str, end: int | None, age: int) -> Light:
        ends = NOW + timedelta(days=end) if end is not None else None
        grant = Grant("conn_1", status, ends, NOW - timedelta(days=age))
        return compliance.worst(compliance.tokens([grant], NOW))

    assert one("active", -1, 1) is Light.RED
    assert one("active", 1, 1) is Light.GREEN
    assert one("active", None, 400) is Light.GREEN
    assert one("paused", None, 8) is Light.AMBER
    assert one("paused", None, 1) is Light.GREEN


def test_the_report_says_it_in_words_and_forms_and_puts_the_worst_first() -> None:
    found = [
        Finding("ledger", Light.GREEN, "7, none changed"),
        Finding("purges", Light.RED, "a | b", "act"),
        Finding("sources", Light.AMBER, "old"),
    ]
    page = compliance.as_markdown(found, [], NOW)
    assert page.startswith("# ✖ RED: broken: act now")
    table = [line for line in page.splitlines() if line.startswith("| ") and "What" not in line]
    assert [line.split("|")[1].strip() for line in table[:3]] == ["✖ RED", "▲ AMBER", "✔ GREEN"]
    assert r"a \| b" in page


async def test_a_house_in_order_is_not_red(house: Settings, store: Store) -> None:
    found = await sweeping.look(store, house, NOW)
    assert compliance.worst(found) is not Light.RED, found
    assert set(lights(found)) == {
        "requests", "data map", "purges", "platform duties", "tokens", "ledger", "certificates",
        "sources", "erasures", "canary", "vendors",
    }  # fmt: skip


async def test_what_should_be_gone_is_red_once_its_policy_applies(
    house: Settings, store: Store
) -> None:
    await old_ticket(store)
    assert lights(await sweeping.look(store, house, NOW))["purges"] is Light.AMBER
    file = house.policies / "retention" / "tickets.yaml"
    file.write_text(file.read_text().replace("mode: dry_run", "mode: apply"))
    found = await sweeping.look(store, house, NOW)
    assert lights(found)["purges"] is Light.RED
    assert "tickets (1 of ticket)" in str(found)


async def test_a_platforms_duty_is_red_whatever_the_mode(house: Settings, store: Store) -> None:
    new = NewConnection("youtube", "studio", "http://127.0.0.1:1", {"refresh_token": "s"})
    row = await store.add_connection(new)
    await rows(
        store,
        "UPDATE connection SET status = 'revoked', updated_at = :at WHERE id = :id",
        at=NOW - timedelta(days=40), id=row.id,
    )  # fmt: skip
    found = lights(await sweeping.look(store, house, NOW))
    assert found["platform duties"] is Light.RED


async def test_an_unmapped_column_is_red_and_named(house: Settings, store: Store) -> None:
    await rows(store, "ALTER TABLE member ADD COLUMN shoe_size text")
    found = await sweeping.look(store, house, NOW)
    [mapped] = [one for one in found if one.check == "data map"]
    assert mapped.light is Light.RED
    assert "member.shoe_size" in mapped.said


async def test_a_changed_ledger_is_red(house: Settings, store: Store) -> None:
    await store.add_connection(NewConnection("bluesky", "a", "http://127.0.0.1:1", {"k": "s"}))
    await rows(store, "ALTER TABLE ledger DISABLE TRIGGER USER")
    await rows(
        store, "UPDATE ledger SET actor = 'nobody' WHERE seq = (SELECT max(seq) FROM ledger)"
    )
    found = lights(await sweeping.look(store, house, NOW))
    assert found["ledger"] is Light.RED
    assert found["certificates"] is Light.GREEN


async def test_a_file_that_cannot_be_used_is_red_and_stops_no_other_check(
    house: Settings, store: Store
) -> None:
    (house.policies / "retention" / "tickets.yaml").write_text("kind: retention\nnam: tickets\n")
    found = lights(await sweeping.look(store, house, NOW))
    assert (found["sources"], found["ledger"]) == (Light.RED, Light.GREEN)


async def test_what_nobody_looked_at_for_a_year_is_amber(house: Settings, store: Store) -> None:
    file = house.policies / "retention" / "usage.yaml"
    file.write_text(file.read_text().replace("checked: 2026-11-24", "checked: 2020-01-01"))
    found = [one for one in await sweeping.look(store, house, NOW) if one.check == "sources"]
    assert {one.light for one in found} == {Light.AMBER}
    assert "nobody looked since 2020-01-01" in str(found)
    assert "nobody confirmed the source itself" in str(found)


async def test_red_is_kept_told_and_holds_no_value(house: Settings, store: Store) -> None:
    async def ran(*words: str, code: int) -> Any:
        answer = await asyncio.to_thread(runner.invoke, app, ["privacy", *words])
        assert answer.exit_code == code, answer.output
        return answer.stdout

    assert "nobody swept yet" in await ran("status", code=0)
    await ran("sweep", "--json", code=0)
    await old_ticket(store)
    file = house.policies / "retention" / "tickets.yaml"
    file.write_text(file.read_text().replace("mode: dry_run", "mode: apply"))
    page = house.policies / "report.md"
    assert "✖ RED" in await ran("sweep", "--out", str(page), code=1)
    assert "parrot" not in page.read_text().lower()
    swept = json.loads(await ran("status", "--json", code=1))
    assert [one["light"] for one in swept] == ["red", "amber"]
    assert "parrot" not in json.dumps(swept).lower()
    assert "✖ RED" in await ran("status", code=1)
    async with store.session() as session:
        [told] = (await session.scalars(select(Notice))).all()
    assert (told.event, told.subject) == ("compliance.red", swept[0]["sweep"])
    assert "purges" in told.facts["reason"]
    assert await Compliance(store.engine, store.vault).sweeps(1)


def test_a_figure_that_nobody_confirmed_is_said_to_be_so() -> None:
    until = NOW + timedelta(days=1)
    given = ("parrot", "delete", "to answer", "contract", "Parrot's terms", until)
    assert "terms, which nobody confirmed at its source)" in retention.sentence(
        "handle", Fate(Clock(*given, confirmed=False))
    )
    assert "nobody confirmed" not in retention.sentence("handle", Fate(Clock(*given)))


@pytest.mark.parametrize("platform", ["x", "linkedin", "tiktok", "pinterest", "reddit"])
def test_terms_that_were_read_in_a_copy_are_not_called_confirmed(platform: str) -> None:
    found = keeping.load(PROJECT / "policies").retention[f"revoked_{platform}"]
    assert not any(one.confirmed for one in found.purposes)
