"""Purges keep their promises: what has expired goes, once, whole, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from clickpost import retention
from clickpost.errors import Conflict, GuardTripped
from clickpost.policy import keeping
from clickpost.policy.privacy import Retention
from clickpost.settings import PROJECT
from clickpost.store import Store
from clickpost.store.expiring import Compiled
from clickpost.store.purging import Purging
from clickpost.store.schema import in_code

TABLES = keeping.load(PROJECT / "policies").tables.tables
SHIPPED = keeping.load(PROJECT / "policies").retention
SCHEMA = in_code()
AT = datetime(2026, 11, 24, 3, tzinfo=UTC)


def policy(**said: Any) -> Retention:
    """Return a policy about tickets that were closed for 30 days, with some of it otherwise."""
    purpose = {
        "why": "to answer",
        "keep_for": "30 d",
        "from": ["closed_at"],
        "basis": "contract",
        "cite": "our own choice",
        "checked": "2026-11-24",
    }
    plain = {
        "kind": "retention",
        "name": "parrot",
        "data": "ticket",
        "with": ["ticket_message", "ticket_attachment"],
        "purposes": [purpose],
        "then": "delete",
        "limit": {"rows": 10**6, "share": 1.0},
        "mode": "apply",
    }
    if "keep_for" in said or "clock" in said:
        purpose["keep_for"] = said.pop("keep_for", "30 d")
        purpose["from"] = said.pop("clock", ["closed_at"])
    if said.get("data", "ticket") != "ticket" or said.get("then") == "anonymize":
        plain["with"] = []
    return Retention.model_validate({**plain, **said})


def compiled(one: Retention) -> Compiled:
    assert list(retention.faults(one, TABLES, SCHEMA)) == []
    return Compiled(one, TABLES, SCHEMA)


async def purged(store: Store, one: Retention, at: datetime = AT, size: int = 3) -> dict[str, int]:
    """Purge, and return what went by table."""
    purging = Purging(store.engine, store.vault)
    ready = compiled(one)
    tally = await purging.tally(ready, at)
    run = await purging.open_purge(one.name, "h") or await purging.begin_purge(tally, "h", at, None)
    async for _ in purging.purge(run, ready, size):
        pass
    return dict(await purging.end_purge(run))


async def rows(store: Store, query: str, **given_: Any) -> list[Any]:
    async with store.engine.begin() as connection:
        done = await connection.execute(text(query), given_)
        return list(done.all()) if done.returns_rows else []


async def ticket(store: Store, number: int, days: int | None, **more: Any) -> str:
    """Store a ticket that was closed so many days ago, with two messages and an attachment."""
    closed = AT - timedelta(days=days) if days is not None else None
    id_ = f"ticket_{number:06}"
    await rows(
        store,
        "INSERT INTO ticket (id, title, status, email, email_digest, opened_at, closed_at,"
        " member_id) VALUES (:id, 'My printer', 'closed', 'a@example.org', 'd', :o, :c, :m)",
        id=id_, o=AT - timedelta(days=400), c=closed, m=more.get("member_id"),
    )  # fmt: skip
    for part in "ab":
        await rows(
            store,
            "INSERT INTO ticket_message (id, ticket_id, author, body, at) VALUES (:id, :t,"
            " 'person', 'write to a@example.org or +49 170 1234567, @ann, https://x.org/a', :o)",
            id=f"{id_}_{part}", t=id_, o=AT,
        )  # fmt: skip
    await rows(
        store,
        "INSERT INTO ticket_attachment (id, message_id, name, mime, bytes, sha256, stored_at)"
        " VALUES (:id, :m, 'me.png', 'image/png', 1, 's', :f)",
        id=f"{id_}_f", m=f"{id_}_a", f=more.get("file", f"/f/{number}"),
    )  # fmt: skip
    return id_


async def ids(store: Store, table: str) -> list[str]:
    return [row.id for row in await rows(store, f"SELECT id FROM {table} ORDER BY id")]


async def hold(store: Store, scope: str, target: str, **more: Any) -> None:
    await rows(
        store,
        "INSERT INTO hold (id, kind, scope, target, cite, placed_by, placed_at, until) VALUES"
        " (:id, 'legal', :s, :t, 'case 1', 'counsel', :at, :u)",
        id=f"hold_{scope}_{target}", s=scope, t=target, at=AT, u=more.get("until"),
    )  # fmt: skip


async def test_what_has_expired_goes_with_all_that_belongs_to_it(store: Store) -> None:
    for number in range(10):
        await ticket(store, number, days=31 if number % 2 else 29)
    await ticket(store, 10, days=None)
    done = await purged(store, policy())
    assert done == {"ticket": 5, "ticket_message": 10, "ticket_attachment": 5}
    assert await ids(store, "ticket") == [f"ticket_{n:06}" for n in (0, 2, 4, 6, 8, 10)]
    assert len(await ids(store, "ticket_message")) == 12
    files = await rows(store, "SELECT stored_at FROM doomed_file ORDER BY 1")
    assert [one.stored_at for one in files] == [f"/f/{n}" for n in (1, 3, 5, 7, 9)]
    receipts = await rows(store, "SELECT counts FROM purge_batch ORDER BY number")
    assert [one.counts["ticket"] for one in receipts] == [3, 2]
    assert (await store.verify()).broken is None


async def test_a_second_purge_finds_nothing(store: Store) -> None:
    await ticket(store, 1, days=40)
    assert await purged(store, policy())
    assert await purged(store, policy()) == {}


async def test_the_longest_purpose_that_applies_counts(store: Store) -> None:
    for number, country in enumerate(("DE", "US", "GB", "FR")):
        await rows(
            store,
            "INSERT INTO invoice (id, workspace_id, number, status, country, currency, total, tax,"
            " lines, issued_at) VALUES"
            " (:id, 'ws_default', :id, 'paid', :c, 'EUR', 1, 0, '[]', :at)",
            id=f"inv_{number}", c=country, at=datetime(2018, 6, 1, tzinfo=UTC),
        )  # fmt: skip
    shipped = SHIPPED["invoices"]
    assert await purged(store, shipped, datetime(2024, 12, 31, tzinfo=UTC)) == {}
    for year, left in ((2025, "DE US FR"), (2026, "DE FR"), (2027, "FR"), (2029, "")):
        await purged(store, shipped, datetime(year, 1, 3, tzinfo=UTC))
        found = await rows(store, "SELECT country FROM invoice ORDER BY id")
        assert " ".join(one.country for one in found) == left


@pytest.mark.parametrize("scope", ["ticket", "ticket_message", "member", "workspace", "ended"])
async def test_a_hold_wins(store: Store, scope: str) -> None:
    await rows(
        store,
        "INSERT INTO member (id, workspace_id, role, created_at) VALUES ('m1', 'ws_default', 'x',"
        " now())",
    )
    held = await ticket(store, 1, days=40, member_id="m1")
    await ticket(store, 2, days=40)
    match scope:
        case "ticket":
            await hold(store, scope, held)
        case "ticket_message":
            await hold(store, scope, f"{held}_b")
        case "member":
            await hold(store, scope, "m1")
        case "workspace":
            await hold(store, scope, "ws_default")
        case _:
            await hold(store, "ticket", held, until=AT - timedelta(days=1))
    await purged(store, policy())
    assert await ids(store, "ticket") == ([] if scope == "ended" else [held])


async def test_what_is_still_needed_stays(store: Store) -> None:
    """An asset that a post names by its JSON stays, and the one whose rendition one will send."""
    for name in ("a", "b"):
        await rows(
            store,
            "INSERT INTO asset (id, workspace_id, sha256, kind, mime, bytes, width, height,"
            " stored_at, created_at) VALUES"
            " (:id, 'ws_default', :id, 'image', 'i', 1, 1, 1, :id, :c)",
            id=f"asset_{name}", c=AT - timedelta(days=100),
        )  # fmt: skip
    await rows(
        store,
        "INSERT INTO post (id, workspace_id, body, content_hash, draft, late, created_at) VALUES"
        " ('post_1', 'ws_default', :b, 'c', false, 'publish', :c)",
        b=json.dumps({"post": {}, "media": [{"asset_id": "asset_a"}]}), c=AT,
    )  # fmt: skip
    assert await purged(store, SHIPPED["media"]) == {"asset": 1}
    assert await ids(store, "asset") == ["asset_a"]
    fate = await Purging(store.engine, store.vault).fates(
        "asset", "asset_a", [compiled(SHIPPED["media"])], AT
    )
    assert fate["media"].referrers == ("post",)


async def test_each_treatment_leaves_what_it_says(store: Store) -> None:
    one = await ticket(store, 1, days=40)
    await purged(store, policy(then="anonymize"))
    [row] = await rows(store, "SELECT * FROM ticket")
    assert (row.id, row.title, row.email, row.member_id) == (one, "", None, None)
    assert row.opened_at == datetime(2025, 10, 1, tzinfo=UTC)
    messages = policy(then="anonymize", data="ticket_message", clock=["at"])
    await purged(store, messages, AT + timedelta(days=40))
    [message, _] = await rows(store, "SELECT body FROM ticket_message")
    assert message.body == "write to [mail] or [number], [handle], [link]"


async def test_pseudonyms_are_the_same_within_a_run_and_nobody_can_make_them_again(
    store: Store,
) -> None:
    for number in range(3):
        await rows(
            store,
            "INSERT INTO connection (id, workspace_id, platform, name, api_base, options, limits,"
            " status, approval, secrets, data_key, key_id, created_at, updated_at) VALUES (:id,"
            " 'ws_default', :id, 'ann', 'x', '{}', '{}', 'revoked', false, 'abc', 'k', 'k',"
            " :c, :c)",
            id=f"conn_{number}", c=AT - timedelta(days=40),
        )  # fmt: skip
    one = policy(data="connection", then="anonymize", clock=["updated_at"])
    assert await purged(store, one, size=1) == {"connection": 3}
    found = await rows(store, "SELECT name, secrets FROM connection")
    assert len({row.name for row in found}) == 1
    assert re.fullmatch("gone:[0-9a-f]{64}", found[0].name)
    assert bytes(found[0].secrets) == b""
    assert await store.seal_anew() == 0, "there is nothing left to seal"
    assert await purged(store, one, AT + timedelta(days=90)) == {}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_mask_done_twice_is_a_mask_done_once(database_url: str, said: str) -> None:
    import psycopg

    with psycopg.connect(database_url) as connection:
        once, twice = connection.execute(
            "SELECT privacy_mask(%(s)s), privacy_mask(privacy_mask(%(s)s))", {"s": said}
        ).fetchone() or ("", "-")
    assert once == twice


def test_networks_and_documents_are_coarsened(database_url: str) -> None:
    import psycopg

    with psycopg.connect(database_url) as connection:

        def of(query: str) -> Any:
            return (connection.execute(f"SELECT {query}").fetchone() or [None])[0]

        assert of("privacy_network('192.0.2.77')") == "192.0.2.0/24"
        assert of("privacy_network('2001:db8:1:2::7')") == "2001:db8:1::/48"
        assert of("privacy_network(privacy_network('192.0.2.77'))") == "192.0.2.0/24"
        assert of("privacy_network('no address')") is None
        document = """'{"media": [{"alt": "x", "n": 1}, {"n": 2}], "text": "y"}'"""
        path = "ARRAY['media', '[]', 'alt']"
        assert of(f"privacy_json({document}, {path}, 'blank')") == {
            "media": [{"alt": "", "n": 1}, {"n": 2}],
            "text": "y",
        }


async def events(store: Store, event: str, people: int, days: int) -> None:
    for number in range(people):
        await rows(
            store,
            "INSERT INTO member (id, workspace_id, role, created_at) VALUES (:m, 'ws_default', 'x',"
            " now()) ON CONFLICT DO NOTHING",
            m=f"m{number}",
        )
        await rows(
            store,
            "INSERT INTO usage_event (id, member_id, event, facts, at)"
            " VALUES (:id, :m, :e, '{}', :c)",
            id=f"use_{event}_{number}_{days}", m=f"m{number}", e=event, c=AT - timedelta(days=days),
        )  # fmt: skip


async def test_small_groups_are_not_written_down(store: Store) -> None:
    await events(store, "seen", people=12, days=150)
    await events(store, "rare", people=9, days=150)
    await events(store, "seen", people=3, days=95)  # Its month is not over for 90 days.
    done = await purged(store, SHIPPED["usage"])
    assert done == {"rollup": 1, "usage_event": 21}
    [row] = await rows(store, "SELECT by, rows, people FROM rollup")
    assert tuple(row) == ('["seen"]', 12, 12)
    assert len(await ids(store, "usage_event")) == 3


async def test_a_run_beyond_its_limit_touches_nothing(store: Store) -> None:
    for number in range(4):
        await ticket(store, number, days=40)
    purging = Purging(store.engine, store.vault)
    for limit in ({"rows": 3, "share": 1.0}, {"rows": 10, "share": 0.5}):
        one = policy(limit=limit)
        tally = await purging.tally(compiled(one), AT)
        with pytest.raises(GuardTripped, match=r"limit\.(rows|share)"):
            retention.guard(one, tally)


async def test_two_purges_under_one_policy_do_not_meet(store: Store) -> None:
    purging = Purging(store.engine, store.vault)
    async with purging.purge_lock("parrot"):
        with pytest.raises(Conflict):
            async with purging.purge_lock("parrot"):
                pass
        async with purging.purge_lock("raven"):
            pass
    async with purging.purge_lock("parrot"):
        pass


async def test_a_batch_waits_for_a_lock_and_then_goes_on(store: Store) -> None:
    one = await ticket(store, 1, days=40)
    async with store.engine.connect() as other:
        await other.execute(text("SELECT 1 FROM ticket FOR UPDATE"))
        work = asyncio.create_task(purged(store, policy()))
        await asyncio.sleep(2.6)  # Longer than the lock timeout.
        assert not work.done()
        await other.execute(text("UPDATE ticket SET closed_at = NULL WHERE id = :i"), {"i": one})
        await other.commit()
    assert await work == {}  # It was opened again meanwhile.
    assert await ids(store, "ticket") == [one]


KILLED = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[2])
from tests.store.test_purging import AT, Purging, compiled, policy
from clickpost.store import Store
from clickpost.store.vault import Vault

async def main():
    store = await Store.open(sys.argv[1], Vault(bytes(32)))
    purging, ready = Purging(store.engine, store.vault), compiled(policy())
    async with purging.purge_lock("parrot"):
        run = await purging.open_purge("parrot", "h")
        if run is None:
            run = await purging.begin_purge(await purging.tally(ready, AT), "h", AT, None)
        async for batch in purging.purge(run, ready, 5):
            print(batch.number, flush=True)
            await asyncio.sleep(0.02)
asyncio.run(main())
"""


async def test_what_was_killed_is_resumed_without_doing_anything_twice(
    store: Store, database_url: str
) -> None:
    for number in range(60):
        await ticket(store, number, days=40 if number % 3 else 10)
    command = [sys.executable, "-c", KILLED, database_url, str(PROJECT)]
    for _ in range(3):
        process = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs here
            command, stdout=subprocess.PIPE, cwd=PROJECT
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    purging, ready = Purging(store.engine, store.vault), compiled(policy())
    run = await purging.open_purge("parrot", "h")
    assert run is not None
    async for _batch in purging.purge(run, ready, 5):
        pass
    done = await purging.end_purge(run)
    assert dict(done) == {"ticket": 40, "ticket_message": 80, "ticket_attachment": 40}
    assert len(await ids(store, "ticket")) == 20
    assert len(await rows(store, "SELECT 1 FROM doomed_file")) == 40
    numbers = await rows(store, "SELECT number FROM purge_batch ORDER BY number")
    assert [one.number for one in numbers] == list(range(1, len(numbers) + 1))
    assert len(await rows(store, "SELECT 1 FROM purge_run")) == 1


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 60)), st.booleans()), min_size=1, max_size=8
    ),
    st.integers(1, 4),
)
def test_a_purge_leaves_exactly_what_explain_says_stays(
    database_url: str, given_tickets: list[tuple[int | None, bool]], size: int
) -> None:
    async def scene() -> None:
        from clickpost.store.vault import Vault

        store = await Store.open(database_url, Vault(bytes(32)))
        for table in ("ticket_attachment", "ticket_message", "ticket", "hold", "doomed_file"):
            await rows(store, f"DELETE FROM {table}")
        names = []
        for number, (days, held) in enumerate(given_tickets):
            names.append(await ticket(store, number, days))
            if held:
                await hold(store, "ticket", names[-1])
        purging, ready = Purging(store.engine, store.vault), compiled(policy())
        stays = []
        for name in names:
            fates: Mapping[str, Any] = await purging.fates("ticket", name, [ready], AT)
            message = await purging.fates("ticket_message", f"{name}_a", [ready], AT)
            assert message == fates
            fate = retention.first(fates.values())
            if fate is None or not fate.is_over(AT):
                stays.append(name)
        await purged(store, policy(), size=size)
        left = await ids(store, "ticket")
        await store.close()
        assert left == stays

    asyncio.run(scene())


async def test_the_ledger_says_what_was_purged_and_nothing_of_whom(store: Store) -> None:
    await ticket(store, 1, days=40)
    await purged(store, policy())
    lines = await rows(
        store, "SELECT action, facts FROM ledger WHERE subject = 'parrot' ORDER BY seq"
    )
    assert [one.action for one in lines] == ["retention.begun", "retention.purged"]
    assert lines[1].facts["ticket_message"] == 2
    purging = Purging(store.engine, store.vault)
    assert await purging.personal_in_ledger() == []
    await rows(
        store,
        "SELECT ledger_append('engine', 'x', 'y', CAST(:f AS jsonb))",
        f=json.dumps({"who": "ann@example.org"}),
    )
    [found] = await purging.personal_in_ledger()
    assert found == 3


def test_shipped_policies_say_dry_run_until_somebody_decides() -> None:
    assert {one.mode for one in SHIPPED.values()} == {"dry_run"}


async def test_every_shipped_policy_can_be_counted_and_run(store: Store) -> None:
    for one in SHIPPED.values():
        assert await purged(store, one) in ({}, {"rollup": 0})


def test_every_platform_of_the_facts_has_its_clock() -> None:
    told = {one.platform for one in SHIPPED.values()} - {None}
    assert told >= {"youtube", "x", "instagram", "linkedin", "pinterest", "tiktok", "reddit"}
