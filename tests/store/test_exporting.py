"""An export holds all about one person, nothing of others, no token; it is whole or not there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from clickpost import exporting, verify_certificate
from clickpost.errors import GuardTripped, InvalidInput, NotAllowed
from clickpost.people import actor_of
from clickpost.policy import keeping
from clickpost.requests import Kind
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewConnection, Store
from clickpost.store.certificates import Certificates
from clickpost.store.exporting import Exports
from clickpost.store.schema import in_code
from clickpost.store.signer import Signer
from tasks import erasing, requests
from tasks import exporting as work
from tasks._wiring import House
from tasks.erasing import Wanted
from tests.store.test_erasure import NOW, PERSONAL, add, consent, person, rows
from tests.store.test_handling import Post, asked, house, post
from tests.store.test_requests import ADDRESS, member

__all__ = ["house", "post"]  # Fixtures.

KEEPING = keeping.load(PROJECT / "policies")
SCHEMA = in_code()


def attachment(settings: Settings, who: str) -> str:
    path = settings.media_root / "attachments" / f"{who}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"picture of {who}".encode())
    return str(path)


def everything_in(path: Path) -> str:
    """Return all that an archive holds, as one text."""
    with zipfile.ZipFile(path) as made:
        return "\n".join(made.read(name).decode() for name in made.namelist())


def data(path: Path, table: str) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as made:
        found: list[dict[str, Any]] = json.loads(made.read(f"data/{table}.json"))
    return found


async def test_all_about_a_person_is_in_it_and_nothing_of_another(
    store: Store, settings: Settings
) -> None:
    await person(store, events=700, file=attachment(settings, "ann"))
    await person(store, "bob", events=3, file=attachment(settings, "bob"))
    await consent(store)
    await add(
        store, "invoice", id="invoice_1", workspace_id="ws_default", number="1", status="paid",
        country="DE", currency="EUR", total=100, tax=19, billed_to="Ann Gone",
        email="ann@example.org", email_digest="d-ann", lines=[{"what": "a year"}], issued_at=NOW,
    )  # fmt: skip
    done = await work.of_subject(settings, store, "member_ann")
    held = {table: count for table, count in done.rows.items() if count}
    assert held == {
        "member": 1, "consent": 1, "inference": 1, "invoice": 1, "preference": 1, "ticket": 2,
        "ticket_message": 1, "ticket_attachment": 1, "usage_event": 700,
    }  # fmt: skip
    said = everything_in(done.parcel.path)
    assert not [word for word in PERSONAL if word in ("d-ann",) and word in said]
    for word in ("ann@example.org", "Ann Gone", "198.51.100.7", "parrots-not-ravens", "a year"):
        assert word in said
    assert "bob" not in said.casefold()
    assert len(data(done.parcel.path, "usage_event")) == 700
    assert data(done.parcel.path, "invoice")[0]["total"] == 100
    [file] = data(done.parcel.path, "ticket_attachment")
    with zipfile.ZipFile(done.parcel.path) as made:
        assert made.read(file["file"]) == b"picture of ann"
        page = made.read("index.html").decode()
        told = json.loads(made.read("about.json"))
    assert str(settings.media_root) not in said, "no path of our machine"
    assert "The first 200 of 700" in page
    assert f'<img src="{file["file"]}"' in page
    assert "tokens of connected accounts" in page
    [usage] = [one for one in told["tables"] if one["table"] == "usage_event"]
    assert usage["columns"]["ip"]["origin"] == "person"
    assert any("days from" in one for one in usage["kept"])


async def test_what_people_wrote_is_no_markup(store: Store, settings: Settings) -> None:
    await person(store, name="<script>alert(1)</script> \u2028 Ann\n")
    done = await work.of_subject(settings, store, "member_ann")
    with zipfile.ZipFile(done.parcel.path) as made:
        assert "<script" not in made.read("index.html").decode()
    assert data(done.parcel.path, "member")[0]["name"].startswith("<script>")


async def test_an_account_comes_without_tokens_and_without_its_members(
    store: Store, settings: Settings
) -> None:
    secrets = {"access_token": "parrots-not-ravens"}
    row = await store.add_connection(
        NewConnection("mastodon", "studio", "https://m.example", secrets)
    )
    await rows(store, "UPDATE workspace SET id = id")
    await person(store, events=2)
    await add(
        store, "post", id="post_1", workspace_id=row.workspace_id, content_hash="h",
        late="publish", draft=False, body={"post": {"text": "our words"}}, created_at=NOW,
    )  # fmt: skip
    await add(
        store, "delivery", id="delivery_1", post_id="post_1", connection_id=row.id, state="live",
        key="k", attempts=0, ticket={"upload": "ticket-to-ride"}, created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    await add(
        store, "usage_event", id="event_ws", workspace_id=row.workspace_id, event="looked",
        facts={"x": "of-the-house"}, at=NOW,
    )  # fmt: skip
    await rows(store, "UPDATE ticket SET workspace_id = :w", w=row.workspace_id)
    await rows(store, "UPDATE usage_event SET workspace_id = :w", w=row.workspace_id)
    done = await work.of_subject(settings, store, row.workspace_id, "account")
    held = {table: count for table, count in done.rows.items() if count}
    assert held == {"workspace": 1, "connection": 1, "post": 1, "delivery": 1, "usage_event": 1}
    said = everything_in(done.parcel.path)
    assert "our words" in said
    assert "of-the-house" in said
    assert not [word for word in (*PERSONAL, "member_ann", "ticket-to-ride") if word in said]
    assert "each member can ask for their own" in said


def test_no_column_that_opens_something_is_handed_out() -> None:
    telling = re.compile(r"digest|secret|token|code|nonce|^key$|data_key|once")
    harmless = {"delivery.key", "arrival.key", "notice.once", "attempt.code"}
    for table, said in KEEPING.tables.tables.items():
        for column in exporting.columns(said, SCHEMA[table]):
            place = f"{table}.{column}"
            assert SCHEMA[table].kinds[column] != "bytes", place
            if said.subject and place not in harmless:
                assert not telling.search(column), f"{place}: withheld, or say why it is harmless"


async def test_whoever_asks_gets_a_link_by_letter_until_it_expires(
    house: House, post: Post
) -> None:
    await member(house.store, ADDRESS)
    row = await asked(house, Kind.ACCESS)
    await requests.handle(row.id)
    await house.store.confirm_by_link(post.link())
    done = await work.of_request(house, row.id)
    assert done is not None
    assert data(done.parcel.path, "member")[0]["email"] == ADDRESS
    # Its own request is held about the person too; the code that opens its page is not in it.
    assert [one["id"] for one in data(done.parcel.path, "subject_request")] == [row.id]
    assert row.code not in everything_in(done.parcel.path)
    assert await work.of_request(house, row.id) is None, "a second run hands nothing out anew"
    await requests.handle(row.id)
    told = await house.store.request(row.id)
    assert (told.state, told.outcome) == ("answered", "done")
    [link] = re.findall(r"https://post\.example\.com/exports/\S+", post.texts()[-1])
    assert link == work.link_of(house.settings, house.store, done.parcel)
    certificate = await Certificates(house.store.engine, house.vault).certificate(row.id)
    document = json.loads(certificate.document)
    assert verify_certificate.faults(document, Signer.of(house.settings).public) == []
    outcomes = {o["location"]: o["outcome"] for o in document["statement"]["outcomes"]}
    assert outcomes == {"member": "exported", "subject_request": "exported"}
    lines = await rows(
        house.store, "SELECT action, l::text AS said FROM ledger l WHERE subject = :id", id=row.id
    )
    assert [one.action for one in lines if one.action != "request.acknowledged"][-7:] == [
        "request.planned", "request.executed", "request.read_back", "export.made",
        "certificate.issued", "request.certified", "request.answered", "request.told",
    ][-7:]  # fmt: skip
    assert "canary" not in " ".join(one.said for one in lines).casefold()


async def test_who_is_no_member_gets_what_stands_under_their_address(
    house: House, post: Post
) -> None:
    digest = await house.store.address_digest(ADDRESS)
    await add(
        house.store, "ticket", id="ticket_1", email=ADDRESS, email_digest=digest,
        title="parrots-not-ravens", status="closed", opened_at=NOW, closed_at=NOW,
    )  # fmt: skip
    await person(house.store, "bob")
    row = await asked(house, Kind.ACCESS)
    await requests.handle(row.id)
    await house.store.confirm_by_link(post.link())
    done = await work.of_request(house, row.id)
    assert done is not None
    assert {table: n for table, n in done.rows.items() if n} == {"ticket": 1, "subject_request": 1}
    assert "bob" not in everything_in(done.parcel.path)


async def test_a_letter_says_so_where_the_file_is_gone_by_then(house: House, post: Post) -> None:
    await member(house.store, ADDRESS)
    row = await asked(house, Kind.PORTABILITY)
    await requests.handle(row.id)
    await house.store.confirm_by_link(post.link())
    done = await work.of_request(house, row.id)
    assert done is not None
    done.parcel.path.unlink()
    await requests.handle(row.id)
    assert "Ask us again, and we make it anew" in post.texts()[-1]


async def test_what_is_not_verified_or_asks_otherwise_gets_nothing(house: House) -> None:
    row = await asked(house, Kind.ACCESS)
    with pytest.raises(InvalidInput, match="received"):
        await work.of_request(house, row.id)
    other = await asked(house, Kind.ERASURE)
    with pytest.raises(InvalidInput, match="nothing to hand out"):
        await work.of_request(house, other.id)
    account = await asked(house, Kind.ACCESS, workspace_id="ws_default", account=True)
    await house.store.verify_request(account.id, "link", "subject")
    with pytest.raises(InvalidInput, match="look whether they may ask"):
        await work.of_request(house, account.id)
    assert list(exporting.parcels(house.settings.media_root)) == []


_KILLED = """
import asyncio, os, signal, sys
from clickpost import exporting
from tasks import _wiring
from tasks import exporting as work

def killed(self):
    print("there", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

exporting.Archive.finish = killed

async def main():
    await work.of_request(await _wiring.house(), sys.argv[1])

asyncio.run(main())
"""


async def test_a_run_that_is_killed_hands_nothing_out_and_the_next_makes_it_anew(
    house: House, post: Post
) -> None:
    await member(house.store, ADDRESS)
    row = await asked(house, Kind.ACCESS)
    await requests.handle(row.id)
    await house.store.confirm_by_link(post.link())
    assert house.settings.database_url is not None
    env = os.environ | {
        "CLICKPOST_HOME": str(house.settings.home),
        "CLICKPOST_DATABASE_URL": house.settings.database_url.get_secret_value(),
    }
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _KILLED, row.id], cwd=PROJECT, env=env, check=False,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, b"there\n")
    media = house.settings.media_root
    assert list(exporting.parcels(media)) == []
    [part] = (media / "exports").iterdir()
    assert part.stat().st_mode & 0o077 == 0
    assert (await house.store.request(row.id)).state == "planned"
    assert await work.resume() == []
    assert (await house.store.request(row.id)).state == "certified"
    [whole] = exporting.parcels(media)
    assert [one.name for one in (media / "exports").iterdir()] == [whole.path.name]
    assert data(whole.path, "member")[0]["email"] == ADDRESS
    assert whole.path.stat().st_mode & 0o077 == 0
    assert (media / "exports").stat().st_mode & 0o077 == 0


async def test_an_archive_that_lacks_rows_is_not_handed_out(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await person(store)

    async def more(*_: object) -> int:
        return 7

    monkeypatch.setattr(Exports, "count", more)
    with pytest.raises(GuardTripped, match="not what the database counted"):
        await work.of_subject(settings, store, "member_ann")
    assert list(exporting.parcels(settings.media_root)) == []


async def test_archives_go_when_their_time_is_over_or_the_person_is_erased(
    store: Store, house: House
) -> None:
    settings = house.settings
    await person(store, file=attachment(settings, "ann"))
    await person(store, "bob")
    ann = await work.of_subject(settings, store, "member_ann")
    bob = await work.of_subject(settings, store, "member_bob")
    row, _ = await erasing.plan(settings, store, Wanted("person", "member_ann"))
    await erasing.Erasures(store.engine, store.vault).approve(row.id, "engine")
    await erasing.carry_out(house, row.id)
    assert not ann.parcel.path.exists()
    assert await work.remove_expired(settings, store) == 0
    assert bob.parcel.path.exists()
    past = exporting.place(
        settings.media_root, bob.export_id, "member_bob", datetime.now(UTC) - timedelta(seconds=2)
    )
    bob.parcel.path.rename(past.path)
    assert await work.remove_expired(settings, store) == 1
    assert list(exporting.parcels(settings.media_root)) == []
    lines = await rows(store, "SELECT subject FROM ledger WHERE action = 'export.expired'")
    assert [one.subject for one in lines] == [bob.export_id]


async def test_a_file_outside_the_media_store_is_never_handed_out(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    secret = tmp_path / "other.txt"
    secret.write_text("of the house")
    await person(store, file=str(secret))
    done = await work.of_subject(settings, store, "member_ann")
    assert (done.files, done.missing) == (0, 1)
    assert "of the house" not in everything_in(done.parcel.path)


async def test_only_who_may_see_personal_data_may_export(store: Store, settings: Settings) -> None:
    await person(store)
    admin = await store.add_person("Boss", ["admin"], "operator:x")
    writer = await store.add_person("Writer", ["publisher"], actor_of(admin.person_id))
    with pytest.raises(NotAllowed):
        await work.of_subject(settings, store, "member_ann", actor=actor_of(writer.person_id))
    with pytest.raises(NotAllowed):
        await work.of_subject(settings, store, "member_ann", actor="operator:x")


async def test_the_command_writes_a_file_or_shows_a_link(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await person(store)
    assert settings.database_url is not None
    monkeypatch.setenv("CLICKPOST_HOME", str(settings.home))
    monkeypatch.setenv("CLICKPOST_DATABASE_URL", settings.database_url.get_secret_value())
    runner, target = CliRunner(env={"COLUMNS": "250"}), tmp_path / "ann.zip"

    def ran(*words: str) -> Any:
        return runner.invoke(app, ["privacy", "export", *words])

    shown = await asyncio.to_thread(ran, "member_ann", "--out", str(target))
    assert shown.exit_code == 0, shown.output
    assert data(target, "member")[0]["name"] == "Ann Gone"
    assert target.stat().st_mode & 0o077 == 0
    assert "Ann" not in shown.output
    linked = json.loads((await asyncio.to_thread(ran, "member_ann", "--json")).output)
    assert linked["link"].startswith(f"{settings.gateway_url}/exports/export_")
    assert linked["rows"]["ticket"] == 2
    nobody = await asyncio.to_thread(ran, "member_nobody")
    assert nobody.exit_code == 2
    assert "has no row" in nobody.output
