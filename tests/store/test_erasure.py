"""An erasure takes everything about one person, nothing of others, and proves what it did."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from clickpost import erasure, verify_certificate
from clickpost.erasure import Action
from clickpost.errors import InvalidInput
from clickpost.policy import keeping
from clickpost.policy.load import policy_hash
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from clickpost.store.erasing import Erasing
from clickpost.store.erasures import Erasures
from clickpost.store.schema import in_code
from clickpost.store.signer import Signer
from clickpost.store.tables import Erasure
from tasks import erasing as work

KEEPING = keeping.load(PROJECT / "policies")
SCHEMA = in_code()
NOW = datetime.now(UTC)
#: What nobody may find afterwards.
PERSONAL = ("ann@example.org", "Ann Gone", "198.51.100.7", "d-ann", "parrots-not-ravens")


def erasing(name: str = "person", action: Action = "erasure", **more: Any) -> Erasing:
    policy = KEEPING.erasure[name].model_copy(update=more)
    return Erasing(policy, action, KEEPING.tables.tables, KEEPING.retention, SCHEMA)


async def rows(store: Store, query: str, **given_: Any) -> list[Any]:
    async with store.engine.begin() as connection:
        done = await connection.execute(text(query), given_)
        return list(done.all()) if done.returns_rows else []


async def add(store: Store, table: str, **values: Any) -> str:
    names = ", ".join(values)
    marks = ", ".join(
        f"CAST(:{name} AS jsonb)" if isinstance(value, dict | list) else f":{name}"
        for name, value in values.items()
    )
    given_ = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in values.items()}
    await rows(store, f"INSERT INTO {table} ({names}) VALUES ({marks})", **given_)
    return str(values["id"])


async def person(store: Store, who: str = "ann", events: int = 1, **more: Any) -> str:
    """Store a member with rows in all tables that are about people."""
    email, digest = f"{who}@example.org", f"d-{who}"
    name = more.get("name", f"{who.capitalize()} Gone")
    member = await add(
        store, "member", id=f"member_{who}", workspace_id="ws_default", name=name, email=email,
        email_digest=digest, role="publisher", created_at=NOW,
    )  # fmt: skip
    ticket = await add(
        store, "ticket", id=f"ticket_{who}", member_id=member, email=email, email_digest=digest,
        title="parrots-not-ravens", status="closed", opened_at=NOW, closed_at=NOW,
    )  # fmt: skip
    message = await add(
        store, "ticket_message", id=f"message_{who}", ticket_id=ticket, author="person",
        body=f"I am {name}, {email}", at=NOW,
    )  # fmt: skip
    await add(
        store, "ticket_attachment", id=f"file_{who}", message_id=message, name="me.png",
        mime="image/png", bytes=1, sha256="s", stored_at=more.get("file", f"/f/{who}"),
    )  # fmt: skip
    # As somebody who wrote before they were a member: only the address says who.
    await add(
        store, "ticket", id=f"ticket_{who}_before", email=email, email_digest=digest,
        title="parrots-not-ravens", status="closed", opened_at=NOW, closed_at=NOW,
    )  # fmt: skip
    for number in range(events):
        await add(
            store, "usage_event", id=f"event_{who}_{number:05}", member_id=member, event="looked",
            ip="198.51.100.7", agent="parrots-not-ravens", facts={"x": 1}, at=NOW,
        )  # fmt: skip
    await add(
        store, "preference", id=f"pref_{who}", member_id=member, event="e", way="mail",
        wanted=True, updated_at=NOW,
    )  # fmt: skip
    await add(
        store, "inference", id=f"inference_{who}", member_id=member, kind="taste",
        value={"likes": "parrots-not-ravens"}, made_at=NOW,
    )  # fmt: skip
    return member


async def consent(store: Store, who: str = "ann") -> None:
    await add(
        store, "consent", id=f"consent_{who}", member_id=f"member_{who}", purpose="news",
        wording="1", ip="198.51.100.7", given_at=NOW,
    )  # fmt: skip


async def everything(store: Store) -> str:
    """Return all rows of all tables as one text."""
    parts = []
    for table in SCHEMA:
        found = await rows(store, f"SELECT row_to_json(r)::text AS said FROM {table} r")
        parts += [f"{table}: {one.said}" for one in found]
    return "\n".join(parts)


async def planned(store: Store, one: Erasing, subject: str) -> Erasure:
    erasures = Erasures(store.engine, store.vault)
    row = await erasures.plan(one, subject, policy_hash(one.policy))
    await erasures.approve(row.id, "engine")
    return await erasures.begin(row.id)


async def erased(
    store: Store, settings: Settings, one: Erasing, subject: str, size: int = 3
) -> tuple[Erasure, dict[str, Any] | None]:
    """Plan, approve and carry out the part that is in the database; return its certificate."""
    row = await planned(store, one, subject)
    erasures = Erasures(store.engine, store.vault)
    document = await work.in_database(erasures, row, one, Signer.of(settings), size=size)
    return await erasures.erasure(row.id), document


async def test_nothing_of_a_person_is_left_and_nothing_of_others_is_gone(
    store: Store, settings: Settings
) -> None:
    await person(store, events=10)
    await person(store, "bob", events=4)
    row, document = await erased(store, settings, erasing(), "member_ann")
    assert row.state == "complete"
    said = await everything(store)
    assert not [word for word in (*PERSONAL[:2], "d-ann", "ticket_ann") if word in said]
    assert document is not None
    assert verify_certificate.faults(document, Signer.of(settings).public) == []
    counts = {(o["location"], o["outcome"]): o["count"] for o in document["statement"]["outcomes"]}
    assert counts == {
        ("inference", "erased"): 1,
        ("preference", "erased"): 1,
        ("ticket_attachment", "erased"): 1,
        ("usage_event", "erased"): 10,
        ("ticket_message", "erased"): 1,
        ("ticket", "erased"): 2,
        ("member", "erased"): 1,
    }
    assert not [word for word in (*PERSONAL, "member_ann") if word in json.dumps(document)]
    left = await rows(store, "SELECT count(*) AS n FROM usage_event")
    assert left[0].n == 4
    assert "bob@example.org" in said
    files = await rows(store, "SELECT stored_at, erasure_id FROM doomed_file")
    assert [(one.stored_at, one.erasure_id) for one in files] == [("/f/ann", row.id)]
    assert (row.digest, row.nonce) == (None, None)
    assert (await store.verify()).broken is None


async def test_a_plan_says_where_and_how_many_and_touches_nothing(store: Store) -> None:
    await person(store, events=2)
    before = await everything(store)
    row = await Erasures(store.engine, store.vault).plan(erasing(), "member_ann", "h")
    told = {(one["location"], one["then"]): one["count"] for one in row.plan}
    assert told[("usage_event", "erased")] == 2
    assert told[("ticket", "erased")] == 2
    after = await everything(store)
    assert [line for line in before.splitlines() if line not in after] == [
        line for line in before.splitlines() if line.startswith("ledger_head")
    ]
    assert not [word for word in PERSONAL if word in json.dumps(row.plan)]


async def test_what_others_wrote_names_nobody_any_more(store: Store, settings: Settings) -> None:
    await person(store)
    await person(store, "joann")
    said = "Ask Ann\tGone (ANN@example.org, joann@example.org), not Joann Gone or Ann Gonerson."
    await add(
        store, "ticket_message", id="message_x", ticket_id="ticket_joann", author="staff",
        body=said, at=NOW,
    )  # fmt: skip
    await add(
        store, "post", id="post_1", workspace_id="ws_default", content_hash="h", late="publish",
        draft=False, body={"post": {"text": said, "tags": ["Ann Gone"]}}, created_at=NOW,
    )  # fmt: skip
    _, document = await erased(store, settings, erasing(), "member_ann")
    [message] = await rows(store, "SELECT body FROM ticket_message WHERE id = 'message_x'")
    expected = "Ask [erased] ([erased], joann@example.org), not Joann Gone or Ann Gonerson."
    assert message.body == expected
    [post] = await rows(store, "SELECT body FROM post")
    assert post.body == {"post": {"text": expected, "tags": ["[erased]"]}}
    assert document is not None
    counts = {(o["location"], o["outcome"]): o["count"] for o in document["statement"]["outcomes"]}
    assert counts[("ticket_message", "anonymized")] == 1
    assert counts[("post", "anonymized")] == 1


async def test_a_name_may_hold_what_patterns_are_made_of(store: Store, settings: Settings) -> None:
    name = r"O'Brien (Jr.) [x]* \d+ $1 %"
    await person(store, name=name)
    await person(store, "bob")
    await add(
        store, "ticket_message", id="message_x", ticket_id="ticket_bob", author="staff",
        body=f"about {name}!", at=NOW,
    )  # fmt: skip
    await erased(store, settings, erasing(), "member_ann")
    [message] = await rows(store, "SELECT body FROM ticket_message WHERE id = 'message_x'")
    assert message.body == "about [erased]!"


async def test_a_hold_keeps_and_the_erasure_goes_on_when_it_ends(
    store: Store, settings: Settings
) -> None:
    await person(store)
    until = NOW + timedelta(days=40)
    await add(
        store, "hold", id="hold_1", kind="legal", scope="ticket", target="ticket_ann",
        cite="case 17", placed_by="counsel", placed_at=NOW, until=until,
    )  # fmt: skip
    row, document = await erased(store, settings, erasing(), "member_ann")
    assert row.state == "parked"
    assert document is not None
    assert document["statement"]["result"] == "complete, except for what a rule holds"
    held = [o for o in document["statement"]["outcomes"] if o["outcome"] == "held"]
    assert {(o["location"], o["rule"]) for o in held} == {
        ("ticket", "legal: case 17"),
        ("ticket_message", "legal: case 17"),
        ("ticket_attachment", "legal: case 17"),
    }
    assert {o["until"] for o in held} == {until.strftime("%Y-%m-%dT%H:%M:%SZ")}
    # The member is still referred to, and leads to nobody.
    [member] = await rows(store, "SELECT * FROM member")
    assert (member.name, member.email, member.email_digest) == (None, None, None)
    assert await rows(store, "SELECT 1 FROM usage_event") == []

    erasures = Erasures(store.engine, store.vault)
    assert await erasures.due(NOW) == []
    assert await erasures.due(NOW + timedelta(days=2)) == [row.id]
    await rows(store, "UPDATE hold SET ended_at = now()")
    again = await erasures.begin(row.id)
    document = await work.in_database(erasures, again, erasing(), Signer.of(settings))
    assert (await erasures.erasure(row.id)).state == "complete"
    said = await everything(store)
    assert not [word for word in PERSONAL if word in said]
    assert await rows(store, "SELECT 1 FROM member") == []
    assert document is not None
    assert {o["outcome"] for o in document["statement"]["outcomes"]} == {"erased", "anonymized"}


async def test_a_law_keeps_a_consent_until_its_clock_ends(store: Store, settings: Settings) -> None:
    await person(store)
    await consent(store)
    row, document = await erased(store, settings, erasing(), "member_ann")
    assert row.state == "parked"
    assert document is not None
    [held] = [o for o in document["statement"]["outcomes"] if o["outcome"] == "held"]
    assert held["location"] == "consent"
    assert held["rule"].startswith("consents: GDPR art. 7(1)")
    assert held["until"][:4] == str((NOW + timedelta(days=1096)).year)
    [kept] = await rows(store, "SELECT withdrawn_at FROM consent")
    assert kept.withdrawn_at is not None
    assert "ann@example.org" not in await everything(store)


async def test_an_invoice_stays_as_long_as_its_country_demands(
    store: Store, settings: Settings
) -> None:
    await person(store)
    await add(
        store, "invoice", id="invoice_1", workspace_id="ws_default", number="1", status="paid",
        country="DE", currency="EUR", total=1, tax=0, billed_to="Ann Gone",
        email="ann@example.org", email_digest="d-ann", lines=[], issued_at=NOW,
    )  # fmt: skip
    _, document = await erased(store, settings, erasing(), "member_ann")
    assert document is not None
    [held] = [o for o in document["statement"]["outcomes"] if o["outcome"] == "held"]
    assert "AO §147" in held["rule"]
    # Eight years from the end of the year.
    assert held["until"].startswith(f"{NOW.year + 9}-01-0")
    assert await rows(store, "SELECT 1 FROM invoice WHERE billed_to = 'Ann Gone'")


async def test_anonymized_rows_stay_and_lead_to_nobody(store: Store, settings: Settings) -> None:
    await person(store, events=7)
    await person(store, "bob")
    row, document = await erased(store, settings, erasing(action="anonymization"), "member_ann")
    assert row.state == "complete"
    said = await everything(store)
    assert not [word for word in ("ann@example.org", "Ann Gone", "d-ann") if word in said]
    [member] = await rows(store, "SELECT * FROM member WHERE id = 'member_ann'")
    assert (member.name, member.email, member.email_digest) == (None, None, None)
    events = await rows(store, "SELECT * FROM usage_event WHERE id LIKE 'event_ann%'")
    assert len(events) == 7
    assert {(one.member_id, one.ip, one.agent) for one in events} == {
        (None, "198.51.100.0/24", None)
    }
    assert document is not None
    assert document["statement"]["action"] == "anonymization"
    assert {o["outcome"] for o in document["statement"]["outcomes"]} == {"anonymized"}


async def test_pseudonyms_are_the_same_in_all_tables_and_after_a_resumption(
    store: Store, settings: Settings
) -> None:
    await rows(store, "INSERT INTO workspace (id, name, created_at) VALUES ('ws_2', 'A', now())")
    row = await planned(store, erasing("account", "anonymization"), "ws_2")
    erasures = Erasures(store.engine, store.vault)
    assert erasures._pads(row) == Erasures(store.engine, store.vault)._pads(row)
    other = row.model_copy(update={"nonce": b"x" * 32})
    assert erasures._pads(row) != erasures._pads(other)


async def test_an_account_goes_with_all_that_is_in_it(store: Store, settings: Settings) -> None:
    await person(store)
    await rows(store, "INSERT INTO workspace (id, name, created_at) VALUES ('ws_2', 'B', now())")
    await rows(store, "UPDATE member SET workspace_id = 'ws_2' WHERE id = 'member_ann'")
    await add(
        store, "post", id="post_1", workspace_id="ws_2", content_hash="h", late="publish",
        draft=False, body={"post": {"text": "parrots-not-ravens"}}, created_at=NOW,
    )  # fmt: skip
    await add(
        store, "variant", id="v_1", post_id="post_1", target="mastodon",
        body={"text": "parrots-not-ravens"},
    )  # fmt: skip
    row, _ = await erased(store, settings, erasing("account"), "ws_2")
    assert row.state == "complete"
    said = await everything(store)
    left = [line for line in said.splitlines() if "parrots-not-ravens" in line]
    # Written before anybody was a member: nothing but the address leads there.
    assert all("ticket_ann_before" in line for line in left)
    [workspace] = await rows(store, "SELECT name FROM workspace WHERE id = 'ws_2'")
    assert workspace.name.startswith("gone:")


async def test_only_what_was_approved_begins(store: Store) -> None:
    await person(store)
    erasures = Erasures(store.engine, store.vault)
    row = await erasures.plan(erasing(), "member_ann", "h")
    with pytest.raises(InvalidInput, match="planned"):
        await erasures.begin(row.id)
    assert (await erasures.plan(erasing(), "member_ann", "h")).id == row.id
    with pytest.raises(InvalidInput, match="no row"):
        await erasures.plan(erasing(), "member_nobody", "h")


_KILLED = """
import asyncio, sys
from pathlib import Path
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.erasures import Erasures
from clickpost.store.vault import Vault
from tests.store.test_erasure import erasing

async def main(url, home, row_id):
    settings = Settings(home=Path(home), database_url=url)
    store = await Store.open(url, Vault.of(settings))
    erasures = Erasures(store.engine, store.vault)
    row = await erasures.erasure(row_id)
    async for done in erasures.erase(row, erasing(), size=2):
        print(done.number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_killed_at_any_batch_it_goes_on_and_counts_nothing_twice(
    store: Store, settings: Settings
) -> None:
    await person(store, events=300)
    row = await planned(store, erasing(), "member_ann")
    url = str(settings.database_url.get_secret_value()) if settings.database_url else ""
    command = [sys.executable, "-c", _KILLED, url, str(settings.home), row.id]
    for wanted in (2, 4, 3):
        process = await asyncio.to_thread(
            subprocess.Popen, command, stdout=subprocess.PIPE, text=True, cwd=PROJECT
        )
        assert process.stdout is not None
        for _ in range(wanted):
            await asyncio.to_thread(process.stdout.readline)
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        process.stdout.close()
    erasures = Erasures(store.engine, store.vault)
    left = await rows(store, "SELECT count(*) AS n FROM usage_event")
    assert 0 < left[0].n < 300
    document = await work.in_database(erasures, row, erasing(), Signer.of(settings), size=5)
    assert document is not None
    counts = {o["location"]: o["count"] for o in document["statement"]["outcomes"]}
    assert counts["usage_event"] == 300
    assert counts["ticket"] == 2
    assert "ann@example.org" not in await everything(store)


def test_every_table_about_people_has_an_order() -> None:
    for name, policy in KEEPING.erasure.items():
        order = erasure.about(policy, KEEPING.tables.tables, SCHEMA)
        assert order.index(policy.of) == len(order) - 1, name
        for table in order:
            for reference in SCHEMA[table].references:
                if reference.to in order:
                    assert order.index(table) < order.index(reference.to)


async def test_a_channel_of_ones_own_goes_with_what_was_told_there(
    store: Store, settings: Settings
) -> None:
    await person(store)
    await add(
        store, "channel", id="channel_1", workspace_id="ws_default", member_id="member_ann",
        name="parrots-not-ravens", kind="email", events=[], status="active", secrets="x",
        data_key="x", key_id="k", created_at=NOW,
    )  # fmt: skip
    await add(
        store, "notice", id="notice_1", workspace_id="ws_default", event="e", subject="post_1",
        facts={}, once="1", created_at=NOW,
    )  # fmt: skip
    await add(
        store, "telling", id="telling_1", notice_id="notice_1", channel_id="channel_1",
        state="told", tries=1,
    )  # fmt: skip
    row, _ = await erased(store, settings, erasing(), "member_ann")
    assert row.state == "complete"
    for table in ("telling", "channel", "member"):
        assert await rows(store, f"SELECT 1 FROM {table}") == []
    assert len(await rows(store, "SELECT 1 FROM notice")) == 1
