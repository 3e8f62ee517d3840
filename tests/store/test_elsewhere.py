"""A further database is purged as its own map and policies say, or it is said that it was not."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from clickpost.store.elsewhere import Elsewhere
from deployments.postgres import Postgres
from tasks import compliance as sweeping
from tasks import purging
from tests.conftest import database

runner = CliRunner(env={"COLUMNS": "250"})
AT = datetime(2026, 11, 24, 3, tzinfo=UTC)
#: Another application's tables: numbers and UUIDs as keys, nothing of ours.
TABLES = """
CREATE TABLE customer (id bigint PRIMARY KEY, email text, joined timestamptz NOT NULL);
CREATE TABLE charge (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id bigint NOT NULL REFERENCES customer (id), cents int NOT NULL, at timestamptz);
CREATE TABLE charge_line (id bigserial PRIMARY KEY,
    charge_id uuid NOT NULL REFERENCES charge (id), what text NOT NULL);
INSERT INTO customer SELECT n, n || '@example.org', '2019-01-01' FROM generate_series(1, 7) n;
INSERT INTO charge (customer_id, cents, at)
    SELECT 1 + n % 7, 100, CASE n % 2 WHEN 0 THEN timestamptz '2019-01-01' ELSE '2026-11-20' END
    FROM generate_series(1, 40) n;
INSERT INTO charge_line (charge_id, what) SELECT id, 'posts' FROM charge;
"""
MAP = """
kind: data_map
name: billing_db
database: billing
tables:
  customer:
    what: Who pays.
    subject: [id]
    category: billing
    purpose: to bill
    columns:
      id: {treatment: keep}
      email: {treatment: clear}
      joined: {treatment: month}
  charge:
    what: What was paid.
    subject: [customer_id]
    category: billing
    purpose: to bill
    columns:
      id: {treatment: keep}
      customer_id: {treatment: keep}
      cents: {treatment: keep}
      at: {treatment: month}
  charge_line:
    what: What it was for.
    subject: [charge_id.customer_id]
    category: billing
    purpose: to bill
    columns:
      id: {treatment: keep}
      charge_id: {treatment: keep}
      what: {treatment: blank}
"""
CHARGES = """
kind: retention
name: charges
database: billing
data: charge
with: [charge_line]
purposes:
  - {why: to bill, keep_for: 730 d, from: [at], basis: contract, cite: ours, checked: 2026-11-24}
then: delete
limit: {rows: 1000, share: 1.0}
mode: apply
"""
CUSTOMERS = """
kind: retention
name: payers
database: billing
data: customer
purposes:
  - {why: to bill, keep_for: 730 d, from: [joined], basis: contract, cite: ours,
     checked: 2026-11-24}
then: anonymize
limit: {rows: 1000, share: 1.0}
mode: apply
"""


@pytest.fixture
def billing(postgres: Postgres) -> Iterator[str]:
    with database(postgres, "template1") as url:
        with psycopg.connect(url) as connection:
            connection.execute(TABLES)
        yield url


@pytest.fixture
def house(
    settings: Settings, billing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    policies = tmp_path / "policies"
    shutil.copytree(PROJECT / "policies", policies)
    (policies / "data_map" / "billing_db.yaml").write_text(MAP)
    (policies / "retention" / "charges.yaml").write_text(CHARGES)
    (policies / "retention" / "payers.yaml").write_text(CUSTOMERS)
    secret = tmp_path / "billing.url"
    secret.write_text(f"{billing}\n")
    monkeypatch.setenv("CLICKPOST_DATABASE_BILLING_FILE", str(secret))
    logging.getLogger("clickpost").handlers.clear()  # Of commands whose terminal is gone.
    made = settings.model_copy(update={"policies": policies})
    monkeypatch.setattr(_house, "settings", lambda: made)
    return made


def rows(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


async def outcomes(store: Store, house: Settings, **how: Any) -> dict[str, purging.Outcome]:
    retained = await purging.opened(store, house)
    found = [one async for one in purging.purge_all(retained, at=AT, **how)]
    return {one.policy: one for one in found if one.policy in ("charges", "payers")}


async def test_rows_go_there_and_their_receipts_are_here(
    house: Settings, store: Store, billing: str
) -> None:
    counted = await outcomes(store, house, apply=False)
    tally = counted["charges"].tally
    assert tally is not None
    assert tally.found == 20
    assert len(rows(billing, "SELECT 1 FROM charge")) == 40, "counting touches nothing"
    done = await outcomes(store, house)
    assert done["charges"].counts == {"billing.charge": 20, "billing.charge_line": 20}
    assert done["payers"].counts == {"billing.customer": 7}
    assert rows(billing, "SELECT count(*) FROM charge_line") == [(20,)]
    assert rows(billing, "SELECT DISTINCT email FROM customer") == [(None,)]
    again = await outcomes(store, house)
    assert again["charges"].counts == again["payers"].counts == {}
    assert purging.is_well(list(again.values()), ())


async def test_a_kill_between_there_and_here_loses_no_row(
    house: Settings, store: Store, billing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Elsewhere.purge, "__defaults__", (6,))
    there, calls = Elsewhere._there, 0

    async def killed(self: Elsewhere, *given: Any) -> Any:
        nonlocal calls
        row = await there(self, *given)
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return row

    monkeypatch.setattr(Elsewhere, "_there", killed)
    with pytest.raises(KeyboardInterrupt):
        await outcomes(store, house, only="charges")
    assert rows(billing, "SELECT count(*) FROM charge") == [(28,)]
    resumed = (await outcomes(store, house, only="charges"))["charges"]
    assert resumed.resumed
    assert rows(billing, "SELECT count(*) FROM charge") == [(20,)]
    assert resumed.counts["billing.charge"] == 14, "one receipt was lost; never too many"


async def test_what_a_hold_names_stays(house: Settings, store: Store, billing: str) -> None:
    async def ran(*words: str, code: int = 0) -> str:
        answer = await asyncio.to_thread(runner.invoke, app, ["privacy", *words])
        assert answer.exit_code == code, answer.output
        return answer.output

    said = ("--kind", "dispute", "--cite", "case 7")
    assert "has no row 99" in await ran("hold", "billing.customer", "99", *said, code=2)
    await ran("hold", "billing.customer", "1", *said)
    done = await outcomes(store, house)
    assert done["payers"].counts == {"billing.customer": 6}
    assert rows(billing, "SELECT email FROM customer WHERE id = 1") == [("1@example.org",)]
    held = rows(billing, "SELECT count(*) FROM charge WHERE customer_id = 1 AND at < '2020-01-01'")
    assert held == [(2,)], "what belongs to them stays with them"


async def test_unreachable_is_said_and_never_done(
    house: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "postgresql://canary:secret@127.0.0.1:1/billing"
    monkeypatch.setenv("CLICKPOST_DATABASE_BILLING", secret)
    for apply in (False, None):
        found = await outcomes(store, house, apply=apply)
        assert found["charges"].unreachable
        assert "billing cannot be reached" in str(found["charges"].trouble)
        assert not purging.is_well(list(found.values()), ())
        assert "canary" not in str(found), "no address in a message"
    monkeypatch.delenv("CLICKPOST_DATABASE_BILLING")
    monkeypatch.delenv("CLICKPOST_DATABASE_BILLING_FILE")
    found = await outcomes(store, house)
    assert "set CLICKPOST_DATABASE_BILLING" in str(found["charges"].trouble)
    swept = [one for one in await sweeping.look(store, house, AT) if one.check == "data map"]
    assert "red" in {one.light.value for one in swept}


async def test_a_column_that_nobody_mapped_stops_it_and_is_named(
    house: Settings, store: Store, billing: str
) -> None:
    with psycopg.connect(billing) as connection:
        connection.execute("ALTER TABLE customer ADD COLUMN shoe_size int")
    found = await outcomes(store, house)
    assert "billing.customer.shoe_size is not in the data map" in str(found["charges"].trouble)
    assert len(rows(billing, "SELECT 1 FROM charge")) == 40
    answer = await asyncio.to_thread(runner.invoke, app, ["privacy", "purge", "--json"])
    assert answer.exit_code == 1
    [row] = [one for one in json.loads(answer.stdout) if one["policy"] == "charges"]
    assert "shoe_size" in row["note"]


async def test_values_are_masked_there_by_functions_that_go_with_the_connection(
    house: Settings, store: Store, billing: str
) -> None:
    file = house.policies / "data_map" / "billing_db.yaml"
    file.write_text(
        file.read_text().replace("email: {treatment: clear}", "email: {treatment: mask}")
    )
    found = await outcomes(store, house)
    assert found["payers"].counts == {"billing.customer": 7}
    assert rows(billing, "SELECT DISTINCT email FROM customer") == [("[mail]",)]
    assert rows(billing, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'privacy%'") == [(0,)]


async def test_what_cannot_be_done_there_is_refused(
    house: Settings, store: Store, billing: str
) -> None:
    file = house.policies / "data_map" / "billing_db.yaml"
    file.write_text(
        file.read_text().replace("{treatment: clear}", "{treatment: clear, file: true}")
    )
    found = await outcomes(store, house)
    assert "customer.email: files are removed" in str(found["payers"].trouble)
    assert rows(billing, "SELECT count(*) FROM customer WHERE email IS NULL") == [(0,)]


async def test_a_database_that_breaks_off_is_not_done(
    house: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: Any) -> Any:
        raise OperationalError("SELECT", {}, OSError("canary"))

    monkeypatch.setattr(Elsewhere, "_there", gone)
    found = (await outcomes(store, house, only="charges"))["charges"]
    assert found.unreachable
    assert "canary" not in str(found.trouble)
