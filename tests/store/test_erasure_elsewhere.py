"""An erasure reaches another application's database, proves it there, and says where it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost import verify_certificate
from clickpost.erasure import Action
from clickpost.media import Cache
from clickpost.policy.load import BrokenPolicies
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from clickpost.store.certificates import Certificates
from clickpost.store.erasures import Erasures
from clickpost.store.erasures_elsewhere import ErasuresElsewhere
from clickpost.store.signer import Signer
from clickpost.store.tables import Erasure
from connectors._api import client
from deployments.postgres import Postgres
from deployments.stack import refuse_unmapped
from tasks import compliance as sweeping
from tasks import elsewhere, erasing_again
from tasks import erasing as work
from tasks._wiring import House
from tasks.erasing import Ended, Wanted
from tests.conftest import database
from tests.store import shop

runner = CliRunner(env={"COLUMNS": "250"})
NOW = datetime.now(UTC)


@pytest.fixture
def there(postgres: Postgres) -> Iterator[str]:
    """The shop's database."""
    with database(postgres, "template1") as url:
        with psycopg.connect(url) as connection:
            connection.execute(shop.TABLES)
            connection.execute(shop.ROWS)
        yield url


@pytest.fixture
def house(
    settings: Settings, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    policies = tmp_path / "policies"
    shutil.copytree(PROJECT / "policies", policies)
    (policies / "data_map" / "shop_db.yaml").write_text(shop.MAP)
    (policies / "retention" / "shop_invoices.yaml").write_text(shop.INVOICES)
    person = policies / "erasure" / "person.yaml"
    names = "[customers.email, customers.first_name customers.last_name]"
    person.write_text(f"{person.read_text()}elsewhere: {{shop: {{names: {names}}}}}\n")
    monkeypatch.setenv("CLICKPOST_DATABASE_SHOP", there)
    logging.getLogger("clickpost").handlers.clear()  # Of commands whose terminal is gone.
    made = settings.model_copy(update={"policies": policies})
    monkeypatch.setattr(_house, "settings", lambda: made)
    return made


def rows(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]  # of this file


def everything(url: str) -> str:
    """Return all rows of all tables as one text, in small letters."""
    tables = rows(
        url,
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname IN ('public', 'crm')",
    )
    found = [rows(url, f"SELECT row_to_json(r)::text FROM {table} r") for (table,) in tables]
    return "\n".join(row for part in found for (row,) in part).casefold()


async def member(store: Store) -> None:
    """Make Ann a member of ours."""
    digest = await store.address_digest("ann.gone@example.org")
    insert = text(
        "INSERT INTO member (id, workspace_id, name, email, email_digest, role, created_at) VALUES"
        " ('member_ann', 'ws_default', 'Ann Gone', 'ann.gone@example.org', :digest, 'publisher',"
        " now())"
    )
    async with store.engine.begin() as connection:
        await connection.execute(insert, {"digest": digest})


async def planned(
    store: Store, house: Settings, subject: str = "member_ann", action: Action = "erasure"
) -> Erasure:
    wanted = Wanted("person", subject, action)
    if subject.startswith("req_"):
        digest = await store.address_digest("ann.gone@example.org")
        wanted = Wanted("person", subject, action, digest=digest)
    row, _ = await work.plan(house, store, wanted)
    return row


async def carried_out(store: Store, house: Settings, row: Erasure) -> Ended:
    """Carry a planned erasure out, as a run does once the platforms are left."""
    erasures = Erasures(store.engine, store.vault)
    if row.state == "planned":
        await erasures.approve(row.id, "engine")
    begun = await erasures.begin(row.id)
    erasing = await work.loaded(house, store, begun.policy, begun.action)
    return await work.everywhere(house, erasures, begun, erasing)


async def now_is(store: Store, row: Erasure) -> Erasure:
    return await Erasures(store.engine, store.vault).erasure(row.id)


def lines(found: list[dict[str, Any]], kind: str = "outcome") -> dict[tuple[str, str], int]:
    return {(one["location"], one[kind]): one["count"] for one in found}


async def test_nothing_of_a_person_is_left_there_and_nothing_of_others_is_gone(
    house: Settings, store: Store, there: str
) -> None:
    await member(store)
    before = everything(there)
    row = await planned(store, house)
    said = lines(row.plan, "then")
    assert everything(there) == before, "a plan touches nothing"
    assert said["shop.customers", "erased"] == 1
    assert said["shop.order_lines", "erased"] == 30
    assert said["shop.invoices", "held"] == 2
    [held] = [one for one in row.plan if one["then"] == "held"]
    assert (held["rule"], held["until"]) == ("shop_invoices: AO §147", "2034-01-30T00:00:00Z")
    done = await carried_out(store, house, row)
    assert done.state == "parked", done.said
    left = everything(there)
    # Invoices, with the orders and the customer that they need, stay by law.
    assert rows(there, "SELECT count(*) FROM invoices WHERE billed_to = 'Ann Gone'") == [(2,)]
    kept = ("ann gone",) if "ann gone" in left else ()
    assert [word for word in shop.PERSONAL if word in left and word not in kept] == []
    assert rows(there, "SELECT count(*) FROM orders WHERE customer_id = 1") == [(2,)]
    assert rows(there, "SELECT DISTINCT ship_to::text FROM orders WHERE customer_id = 1") == [
        ("{}",)
    ]
    [(email, born, ip, settings)] = rows(
        there,
        "SELECT email, born::text, last_ip::text, settings FROM customers WHERE first_name IS NULL",
    )
    assert email.startswith("gone:")
    assert (born, ip, settings) == (
        "1980-05-01",
        "198.51.100.0/24",
        {"theme": "dark", "nick": None},
    )
    assert rows(there, "SELECT body, meta FROM messages WHERE id = 2") == [
        ("Dear [erased] ([erased]), yes", {"cc": ["[erased]"]})
    ]
    assert rows(there, "SELECT count(*) FROM addresses") == [(8,)]
    assert rows(there, "SELECT email FROM newsletter") == [("bob@example.org",)]
    assert "bob stays" in left


async def test_a_law_that_ends_lets_the_rest_go_and_the_certificate_says_so(
    house: Settings, store: Store, there: str
) -> None:
    with psycopg.connect(there) as connection:
        connection.execute("UPDATE invoices SET issued_on = '2010-01-01'")
    row = await planned(store, house, "req_ann")
    done = await carried_out(store, house, row)
    assert done.state == "complete", done.said
    left = everything(there)
    assert [word for word in shop.PERSONAL[:-2] if word in left] == []
    found = await now_is(store, row)
    counts = lines(found.outcomes)
    # Bob answered one of their messages, which stays empty, and needs whom it leads to.
    assert counts["shop.customers", "anonymized"] == 1
    assert counts["shop.messages", "erased"] == 1
    assert counts["shop.invoices", "erased"] == 2
    assert counts["shop.newsletter", "erased"] == 1
    proof = await Certificates(store.engine, store.vault).certificate(str(done.certificate))
    document = json.loads(proof.document)
    assert verify_certificate.faults(document, Signer.of(house).public) == []
    async with store.engine.connect() as connection:
        kept = (
            await connection.execute(text("SELECT ours, subjects FROM erasure_elsewhere"))
        ).all()
        after = await connection.scalars(text("SELECT DISTINCT after FROM erasure_elsewhere_batch"))
        assert [tuple(one) for one in kept] == [({}, {})]
        assert after.all() == [""]


@pytest.mark.parametrize("at", ["_seen", "_receipt"])
async def test_a_kill_between_there_and_here_does_nothing_twice_and_loses_no_count(
    house: Settings, store: Store, there: str, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Killed after the work was committed there, or before: the next run asks, and goes on."""
    monkeypatch.setattr(work, "BATCH", 4)
    row = await planned(store, house, "req_ann")
    original, calls = getattr(ErasuresElsewhere, at), 0

    def after_some(self: ErasuresElsewhere, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return original(self, *given)

    monkeypatch.setattr(ErasuresElsewhere, at, after_some)
    with pytest.raises(KeyboardInterrupt):
        await carried_out(store, house, row)
    unseen = "SELECT count(*) FROM erasure_elsewhere_batch WHERE NOT committed"
    async with store.engine.connect() as connection:
        assert await connection.scalar(text(unseen)) == (1 if at == "_seen" else 0)
    done = await carried_out(store, house, await now_is(store, row))
    assert done.state == "parked", done.said
    counts = lines((await now_is(store, row)).outcomes)
    assert counts["shop.order_lines", "erased"] == 30
    assert counts["shop.addresses", "erased"] == 4
    assert counts["shop.orders", "erased"] == 8
    async with store.engine.connect() as connection:
        assert await connection.scalar(text(unseen)) == 0


async def test_a_receipt_whose_work_was_rolled_back_counts_for_nothing(
    house: Settings, store: Store, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away as the work is committed: the receipt is here, the work is not."""
    row = await planned(store, house, "req_ann")
    original = ErasuresElsewhere._receipt

    def and_away(self: ErasuresElsewhere, *given: Any) -> Any:
        with psycopg.connect(there, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return original(self, *given)

    monkeypatch.setattr(ErasuresElsewhere, "_receipt", and_away)
    done = await carried_out(store, house, row)
    assert done.state == "waiting", done.said
    assert "cannot be reached, or broke off" in done.said
    assert rows(there, "SELECT count(*) FROM order_lines WHERE engraving IS NOT NULL") == [(60,)]
    monkeypatch.setattr(ErasuresElsewhere, "_receipt", original)
    again = await now_is(store, row)
    assert again.again_at is not None, "it is tried again by itself"
    assert lines(again.outcomes)["shop", "unreachable"] == 0
    done = await carried_out(store, house, again)
    assert done.state == "parked", done.said
    counts = lines((await now_is(store, row)).outcomes)
    assert counts["shop.order_lines", "erased"] == 30
    assert ("shop", "unreachable") not in counts


_KILLED = """
import asyncio, sys
from pathlib import Path
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.erasures import Erasures
from clickpost.store.vault import Vault
from tasks import erasing as work

async def main(url, home, policies, row_id):
    settings = Settings(home=Path(home), database_url=url, policies=Path(policies))
    store = await Store.open(url, Vault.of(settings))
    erasures = Erasures(store.engine, store.vault)
    row = await erasures.begin(row_id)
    erasing = await work.loaded(settings, store, row.policy, row.action)
    work.BATCH = 3
    say = lambda rows: print(rows, flush=True)
    await work.everywhere(settings, erasures, row, erasing, progress=say)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_killed_by_the_system_it_goes_on_and_counts_nothing_twice(
    house: Settings, store: Store, there: str
) -> None:
    with psycopg.connect(there) as connection:
        connection.execute("DELETE FROM invoices")
        connection.execute(
            "INSERT INTO addresses (customer_id, street) SELECT 1, 'Gone Street 1' "
            "FROM generate_series(1, 100)"
        )
    row = await planned(store, house, "req_ann")
    await Erasures(store.engine, store.vault).approve(row.id, "engine")
    url = house.database_url.get_secret_value() if house.database_url else ""
    command = [sys.executable, "-c", _KILLED, url, str(house.home), str(house.policies), row.id]
    for wanted in (7, 15):
        process = await asyncio.to_thread(
            subprocess.Popen, command, stdout=subprocess.PIPE, text=True, cwd=PROJECT
        )
        assert process.stdout is not None
        for _ in range(wanted):
            await asyncio.to_thread(process.stdout.readline)
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        process.stdout.close()
    [(left,)] = rows(there, "SELECT count(*) FROM addresses WHERE customer_id = 1")
    assert 0 < left < 104
    done = await carried_out(store, house, await now_is(store, row))
    assert done.state == "complete", done.said
    counts = lines((await now_is(store, row)).outcomes)
    assert counts["shop.addresses", "erased"] == 104
    assert counts["shop.order_lines", "erased"] == 30
    assert counts["shop.orders", "erased"] == 10
    assert [word for word in shop.PERSONAL[:-2] if word in everything(there)] == []


async def test_somebody_of_whom_only_another_database_knows_is_not_told_that_nothing_is_held(
    house: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await store.address_digest(" ANN.Gone@example.ORG")
    nobody = await store.address_digest("nobody@example.org")
    assert await elsewhere.may_hold(house, store, ann)
    assert not await elsewhere.may_hold(house, store, nobody)
    monkeypatch.delenv("CLICKPOST_DATABASE_SHOP")
    assert await elsewhere.may_hold(house, store, nobody), "nobody can tell"


async def test_who_is_erased_here_while_it_is_away_is_found_there_later(
    house: Settings, store: Store, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await member(store)
    monkeypatch.setenv("CLICKPOST_DATABASE_SHOP", "postgresql://canary:secret@127.0.0.1:1/shop")
    row = await planned(store, house)
    assert lines(row.plan, "then")["shop", "unreachable"] == 0
    done = await carried_out(store, house, row)
    assert done.state == "waiting"
    assert done.certificate is None
    assert "canary" not in str((row.plan, done.said))
    async with store.engine.connect() as connection:
        assert (
            await connection.scalar(text("SELECT count(*) FROM member WHERE id = 'member_ann'"))
            == 0
        )
    monkeypatch.setenv("CLICKPOST_DATABASE_SHOP", there)
    done = await carried_out(store, house, await now_is(store, row))
    assert done.state == "parked", done.said
    assert rows(there, "SELECT lead_id FROM crm.leads") == [(2,)], "found by the id of ours"
    assert rows(there, "SELECT count(*) FROM newsletter") == [(1,)]


async def test_anonymization_leaves_rows_that_lead_to_nobody(
    house: Settings, store: Store, there: str
) -> None:
    with psycopg.connect(there) as connection:
        connection.execute("DELETE FROM invoices")
    await member(store)
    done = await carried_out(store, house, await planned(store, house, action="anonymization"))
    assert done.state == "complete", done.said
    left = everything(there)
    # Where an address is the key and stays, the map says so.
    assert [word for word in shop.PERSONAL[1:] if word in left] == []
    assert rows(there, "SELECT count(*) FROM order_lines") == [(60,)]
    assert rows(there, "SELECT count(*) FROM messages WHERE customer_id = 1") == [(0,)]


async def test_what_nobody_mapped_or_cannot_be_done_blocks_and_is_named(
    house: Settings, store: Store, there: str
) -> None:
    with psycopg.connect(there) as connection:
        connection.execute("ALTER TABLE customers ADD COLUMN shoe_size int")
    done = await carried_out(store, house, await planned(store, house, "req_ann"))
    assert done.state == "blocked"
    assert "shop.customers.shoe_size is not in the data map" in done.said
    with psycopg.connect(there) as connection:
        connection.execute("ALTER TABLE customers DROP COLUMN shoe_size")
        connection.execute("UPDATE customers SET settings = '{\"hobby\": 1}' WHERE customer_id = 2")
    done = await carried_out(store, house, await planned(store, house, "req_ann"))
    assert "shop.customers.settings.hobby is in rows, and not in the data map" in done.said
    with psycopg.connect(there) as connection:
        connection.execute("UPDATE customers SET settings = NULL WHERE customer_id = 2")
    map_ = house.policies / "data_map" / "shop_db.yaml"
    map_.write_text(map_.read_text().replace("found_by: {email: address}", "found_by: {}"))
    done = await carried_out(store, house, await planned(store, house, "req_ann"))
    assert done.state == "blocked"
    assert "is about people, and nothing leads from its rows to an address" in done.said


async def ran(*words: str, code: int = 0) -> str:
    answer = await asyncio.to_thread(runner.invoke, app, list(words))
    assert answer.exit_code == code, answer.output
    return answer.output


async def test_an_archive_holds_what_is_held_there_and_nothing_of_others(
    house: Settings, store: Store, there: str, tmp_path: Path
) -> None:
    await member(store)
    file = tmp_path / "ann.zip"
    told = json.loads(await ran("privacy", "export", "member_ann", "--out", str(file), "--json"))
    assert told["rows"]["shop.customers"] == 1
    assert told["rows"]["shop.orders"] == 10
    assert told["rows"]["shop.order_lines"] == 30
    assert told["rows"]["shop.messages"] == 2
    with zipfile.ZipFile(file) as archive:
        [customer] = json.loads(archive.read("data/shop.customers.json"))
        page = archive.read("index.html").decode()
        everything_ = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert customer["email"] == "Ann.Gone@Example.org"
    assert customer["settings"]["nick"] == "parrots-not-ravens"
    assert "What customers and the shop wrote." in page
    assert "bob@example.org" not in everything_


async def test_no_archive_is_made_without_a_database_that_is_away(
    house: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await member(store)
    monkeypatch.setenv("CLICKPOST_DATABASE_SHOP", "postgresql://canary:secret@127.0.0.1:1/shop")
    file = tmp_path / "ann.zip"
    said = await ran("privacy", "export", "member_ann", "--out", str(file), code=1)
    assert "shop cannot be reached" in said
    assert "canary" not in said
    assert not file.exists()


async def test_a_row_there_is_explained_and_its_table_drawn(house: Settings, there: str) -> None:
    said = json.loads(await ran("privacy", "explain", "shop.invoices", "I-1", "--json"))
    assert "because the law demands it (to account; AO §147) until 2034-01-30" in said["billed_to"]
    [(order,)] = rows(there, "SELECT order_no::text FROM orders WHERE customer_id = 2 LIMIT 1")
    said = json.loads(await ran("privacy", "explain", "shop.orders", order, "--json"))
    assert said["note"] == "note stays: no retention policy is about it."
    assert "shop.invoices has no row I-99" in await ran(
        "privacy", "explain", "shop.invoices", "I-99", code=2
    )
    unknown = await ran("privacy", "explain", "shop.shoes", "1", code=2)
    assert "unknown table 'shop.shoes'" in unknown
    assert "## shop.crm.leads" in await ran("privacy", "map")


async def test_a_simulation_counts_there_too_or_says_that_it_could_not(
    house: Settings, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(there) as connection:
        connection.execute("UPDATE invoices SET issued_on = '2010-01-01' WHERE invoice_no = 'I-1'")
    found = json.loads(await ran("policy", "simulate", "--days", "3000", "--json"))
    [invoices] = [one for one in found["policies"] if one["table"] == "shop.invoices"]
    assert invoices["after"]["rows_now"] == 2
    assert invoices["after"]["first_run"] == 1
    assert "2034-01-30" in invoices["after"]["by_day"]
    monkeypatch.delenv("CLICKPOST_DATABASE_SHOP")
    found = json.loads(await ran("policy", "simulate", "--json"))
    [missing] = found["missing"]
    assert "set CLICKPOST_DATABASE_SHOP" in missing


async def test_check_and_up_name_what_nobody_mapped_there_and_say_what_is_away(
    house: Settings, store: Store, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    refuse_unmapped(house, heard.append)
    assert heard == []
    with psycopg.connect(there) as connection:
        connection.execute("ALTER TABLE crm.leads ADD COLUMN shoe_size int")
        connection.execute("ALTER TABLE addresses DROP COLUMN city")
    with pytest.raises(BrokenPolicies, match=r"shop\.crm\.leads\.shoe_size"):
        refuse_unmapped(house)
    said = await ran("policy", "check", code=2)
    assert "shop.crm.leads.shoe_size: is not in the data map" in said
    assert "shop.addresses.city: is in the data map, and no column any more" in said
    found = [one.said for one in await sweeping.look(store, house, NOW) if one.light == "red"]
    assert any("shop.crm.leads.shoe_size" in one for one in found)
    monkeypatch.setenv("CLICKPOST_DATABASE_SHOP", "postgresql://canary:secret@127.0.0.1:1/shop")
    refuse_unmapped(house, heard.append)
    assert "shop cannot be reached" in heard[0]
    said = await ran("policy", "check")
    assert "its map was not held against its tables" in said
    assert "canary" not in said + str(heard)


async def test_a_hold_there_or_on_the_member_of_ours_keeps_what_is_theirs(
    house: Settings, store: Store, there: str
) -> None:
    with psycopg.connect(there) as connection:
        connection.execute("DELETE FROM invoices")
    how = ("--kind", "dispute", "--cite", "case 7")
    await ran("privacy", "hold", "shop.customers", "1", *how)
    row = await planned(store, house, "req_ann")
    done = await carried_out(store, house, row)
    assert done.state == "parked", done.said
    counts = lines((await now_is(store, row)).outcomes)
    assert counts["shop.orders", "held"] == 10
    assert counts["shop.newsletter", "erased"] == 1, "a hold on a customer is on no reader"
    held = [one for one in (await now_is(store, row)).outcomes if one["outcome"] == "held"]
    assert {one["rule"] for one in held} == {"dispute: case 7"}
    assert rows(there, "SELECT count(*) FROM addresses") == [(12,)]
    async with store.engine.begin() as connection:
        await connection.execute(text("UPDATE hold SET ended_at = now()"))
    done = await carried_out(store, house, await now_is(store, row))
    assert done.state == "complete", done.said
    assert rows(there, "SELECT count(*) FROM addresses") == [(8,)]


async def test_odd_tables_lose_what_is_theirs_and_nothing_of_others(
    house: Settings, store: Store, there: str
) -> None:
    """Parts without a key, keys of several columns, and tables that need each other."""
    with psycopg.connect(there) as connection:
        connection.execute(shop.ODD)
    maps = house.policies / "data_map"
    (maps / "shop_odd.yaml").write_text(shop.ODD_MAP)
    customers = maps / "shop_db.yaml"
    via = "      via: {treatment: clear}\n"
    customers.write_text(
        customers.read_text().replace(via, f"{via}      card: {{treatment: clear}}\n")
    )
    row = await planned(store, house, "req_ann")
    done = await carried_out(store, house, row)
    assert done.state == "complete", done.said
    counts = lines((await now_is(store, row)).outcomes)
    assert counts["shop.visits", "erased"] == 18
    assert rows(there, "SELECT customer_id, count(*) FROM visits GROUP BY 1") == [(2, 18)]
    # A line that somebody else needs stays, and so do its order and customer, anonymized.
    assert rows(there, "SELECT count(*) FROM engravings") == [(1,)]
    assert counts["shop.orders", "erased"] == 9
    assert counts["shop.customers", "anonymized"] == 1
    assert rows(there, "SELECT count(*) FROM orders WHERE customer_id = 2") == [(10,)]
    assert [word for word in shop.PERSONAL[:-2] if word in everything(there)] == []


async def test_who_is_back_there_with_a_backup_is_seen_and_erased_again(
    house: Settings, store: Store, there: str, tmp_path: Path
) -> None:
    with psycopg.connect(there) as connection:
        connection.execute("DELETE FROM invoices")
    made = House(house, store, store.vault, client(), Cache(tmp_path), "test")
    row = await planned(store, house, "req_ann")
    await Erasures(store.engine, store.vault).approve(row.id, "engine")
    assert (await work.carry_out(made, row.id)).state == "complete"
    assert await erasing_again.again(made, "shop") == []
    with psycopg.connect(there) as connection:  # As an older dump has it.
        connection.execute(
            "INSERT INTO customers (customer_id, email, first_name, last_name, created_at) VALUES"
            " (11, 'ann.gone@example.org', 'Ann', 'Gone', now())"
        )
        connection.execute("INSERT INTO addresses (customer_id, street) VALUES (11, 'Gone Street')")
    red = [one for one in await sweeping.look(store, house, NOW) if one.check == "erasures"]
    assert "shop: 1 who were erased are there again: was it restored?" in [one.said for one in red]
    [done] = await erasing_again.again(made, "shop")
    assert done.state == "complete", done.said
    assert rows(there, "SELECT 1 FROM customers WHERE customer_id = 11") == []
    assert "ann gone" not in everything(there)
    assert await erasing_again.again(made, "shop") == []
    await made.client.aclose()
