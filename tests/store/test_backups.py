"""A restored backup brings nobody back: it is recognised, refused, and erased again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.errors import InvalidInput, Restored, Unavailable
from clickpost.settings import Settings
from clickpost.store import NewConnection, Store, address
from clickpost.store.restores import refuse
from clickpost.store.tombstones import Head, Tombstone, Tombstones
from clickpost.store.vault import Vault
from deployments import backups, gateway, worker
from deployments.postgres import Postgres
from tasks import _wiring, erasing, replaying, sending
from tasks._wiring import House
from tasks.erasing import Wanted
from tests.store.test_erasure import NOW, PERSONAL, add, everything, person, rows
from tests.store.test_erasure_runs import approved, file, house

__all__ = ["house"]
runner = CliRunner(env={"COLUMNS": "250"})
HEAD = Head(0, "0" * 64)


@pytest.fixture(autouse=True)
def tools(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's client programs, in the version of the server of the tests."""
    monkeypatch.setenv("PATH", f"{postgres.tools}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def kept(settings: Settings) -> Tombstones:
    """The tombstones of the test's house."""
    return Tombstones.of(settings, Vault.of(settings))


async def erase(house: House, member: str) -> str:
    done = await erasing.carry_out(house, await approved(house, Wanted("person", member)))
    assert done.state == "complete"
    return done.erasure_id


async def backup(settings: Settings, to: Path) -> Path:
    await asyncio.to_thread(backups.dump, settings, address(settings), to)
    return to


async def restore(settings: Settings, store: Store, house: House, file: Path) -> None:
    """Restore as somebody would who knows nothing of tombstones."""
    await store.engine.dispose()
    await house.store.engine.dispose()
    url = address(settings)
    await asyncio.to_thread(backups.load, settings, url, file, replace=True)


async def test_who_was_erased_since_the_backup_is_erased_again(
    store: Store, house: House, kept: Tombstones, settings: Settings, tmp_path: Path
) -> None:
    await person(store, events=3, file=file(settings))
    await person(store, "bob", file=f"{file(settings)}.2")
    dump = await backup(settings, tmp_path / "clickpost.dump")
    erasure_id = await erase(house, "member_ann")
    await restore(settings, store, house, dump)
    assert "ann@example.org" in await everything(store)

    with pytest.raises(Restored, match="clickpost replay"):
        refuse(address(settings), kept)
    with pytest.raises(Restored):
        await house.store.refuse_restored()
    with pytest.raises(Restored):
        await sending.send("delivery_1")
    bob, _ = await erasing.plan(settings, store, Wanted("person", "member_bob"))
    with pytest.raises(Restored):
        await erasing.carry_out(house, bob.id)

    done = await replaying.replay(house)
    assert (done.tombstones, done.erased) == (1, 1)
    left = await everything(store)
    assert not [word for word in ("ann@example.org", "Ann Gone", "d-ann") if word in left]
    assert "bob@example.org" in left
    [again] = await rows(store, "SELECT id, state FROM erasure WHERE subject = 'member_ann'")
    assert (again.state, again.id == erasure_id) == ("complete", False)
    refuse(address(settings), kept)
    await house.store.refuse_restored()
    assert not (await replaying.replay(house)).was_restored
    assert (await store.verify()).broken is None

    await restore(settings, store, house, dump)  # The same backup once more.
    assert (await replaying.replay(house)).erased == 1
    assert "ann@example.org" not in await everything(store)


async def test_a_worker_and_the_gateway_serve_no_restored_database(
    store: Store, house: House, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    await person(store, file=file(settings))
    dump = await backup(settings, tmp_path / "clickpost.dump")
    await erase(house, "member_ann")
    await restore(settings, store, house, dump)
    monkeypatch.setattr(worker, "Settings", lambda: settings)
    monkeypatch.setattr("sys.argv", ["worker"])
    assert await asyncio.to_thread(worker.main) == 1
    assert "clickpost replay" in capsys.readouterr().err

    async def asked() -> list[int]:
        made = gateway.app(settings)
        async with made.router.lifespan_context(made):
            through = httpx.ASGITransport(made)
            async with httpx.AsyncClient(transport=through, base_url="http://gateway") as client:
                return [(await client.get(path)).status_code for path in ("/requests/x", "/livez")]

    assert await asked() == [503, 200]
    await replaying.replay(house)
    assert await asked() == [404, 200]


async def test_who_came_again_before_the_backup_stays(
    store: Store, house: House, settings: Settings, tmp_path: Path
) -> None:
    await person(store, file=file(settings))
    await person(store, "bob", file=f"{file(settings)}.2")
    await erase(house, "member_ann")
    await add(
        store, "member", id="member_ann_again", workspace_id="ws_default", name="Ann Gone",
        email="ann@example.org", email_digest="d-ann", role="publisher", created_at=NOW,
    )  # fmt: skip
    dump = await backup(settings, tmp_path / "clickpost.dump")
    await erase(house, "member_bob")
    await restore(settings, store, house, dump)
    assert (await replaying.replay(house)).erased == 1
    found = await rows(store, "SELECT id FROM member")
    assert [one.id for one in found] == ["member_ann_again"]


async def test_somebody_known_by_address_alone_is_erased_again(
    store: Store, house: House, settings: Settings, tmp_path: Path
) -> None:
    await add(
        store, "ticket", id="ticket_1", email="ann@example.org", email_digest="d-ann",
        title="parrots-not-ravens", status="closed", opened_at=NOW, closed_at=NOW,
    )  # fmt: skip
    dump = await backup(settings, tmp_path / "clickpost.dump")
    wanted = Wanted("person", "req_1", digest="d-ann")
    assert (await erasing.carry_out(house, await approved(house, wanted))).state == "complete"
    await restore(settings, store, house, dump)
    assert (await replaying.replay(house)).erased == 1
    assert await rows(store, "SELECT 1 FROM ticket") == []


async def test_a_kill_after_the_tombstone_loses_nothing(
    store: Store, house: House, kept: Tombstones, settings: Settings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await person(store, file=file(settings))
    dump = await backup(settings, tmp_path / "clickpost.dump")
    erasure_id = await approved(house, Wanted("person", "member_ann"))

    async def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(erasing, "in_ours", killed)
        with pytest.raises(SystemExit):
            await erasing.carry_out(house, erasure_id)
    assert "ann@example.org" in await everything(store)
    [ended] = await erasing.resume()
    assert (ended.state, len(kept.lines())) == ("complete", 1)
    await restore(settings, store, house, dump)
    with pytest.raises(Restored):
        await house.store.refuse_restored()
    with monkeypatch.context() as patched:
        patched.setattr(erasing, "in_ours", killed)
        with pytest.raises(SystemExit):
            await replaying.replay(house)
    with pytest.raises(Restored):
        await house.store.refuse_restored()
    assert (await replaying.replay(house)).erased == 1
    assert "ann@example.org" not in await everything(store)


async def test_the_mark_is_read_again_only_when_another_one_took_its_place(
    store: Store,
    house: House,
    kept: Tombstones,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await rows(store, "SELECT ledger_append('engine', 'x', 'y', '{}')")
    await house.store.refuse_restored()
    read, mark = 0, kept.mark

    def counted() -> Head | None:
        nonlocal read
        read += 1
        return mark()

    monkeypatch.setattr(kept, "mark", counted)
    for _ in range(20):
        await house.store.refuse_restored()
    assert read == 1  # The first look wrote the mark.
    elsewhere = Tombstones(settings.tombstones_root, Vault.of(settings))
    elsewhere.advance(Head(1_000_000, "f" * 64))  # Another process has seen more than is here.
    with pytest.raises(Restored):
        await house.store.refuse_restored()
    assert read == 2


async def test_what_may_have_been_sent_since_the_backup_waits_for_somebody(
    store: Store, house: House, settings: Settings, tmp_path: Path
) -> None:
    row = await store.add_connection(
        NewConnection("mastodon", "studio", "https://m.example", {"access_token": "t"})
    )
    for name, due in (("past", NOW - timedelta(hours=1)), ("future", NOW + timedelta(days=1))):
        post = await add(
            store, "post", id=f"post_{name}", workspace_id=row.workspace_id, content_hash="h",
            late="publish", draft=False, body={"post": {"text": "t"}}, created_at=NOW,
        )  # fmt: skip
        await add(
            store, "delivery", id=f"delivery_{name}", post_id=post, connection_id=row.id,
            state="planned", key=name, attempts=0, created_at=NOW, updated_at=NOW, due_at=due,
        )  # fmt: skip
    dump = await backup(settings, tmp_path / "clickpost.dump")
    await rows(store, "SELECT ledger_append('engine', 'x', 'y', '{}')")
    await house.store.refuse_restored()  # As each send does: outside it is known how far we are.
    await restore(settings, store, house, dump)
    with pytest.raises(Restored):
        await house.store.refuse_restored()
    assert (await replaying.replay(house)).set_aside == 1
    found = await rows(store, "SELECT id, state, who_acts FROM delivery ORDER BY id")
    assert [(one.id, one.state) for one in found] == [
        ("delivery_future", "planned"),
        ("delivery_past", "missed"),
    ]
    assert found[1].who_acts == "an operator"


async def test_tombstones_say_nobodys_name(
    store: Store, house: House, kept: Tombstones, settings: Settings
) -> None:
    await person(store, file=file(settings))
    await erase(house, "member_ann")
    said = kept.file.read_text() + (kept.folder / "mark.json").read_text()
    assert not [word for word in (*PERSONAL, "member_ann") if word in said]
    [line] = kept.lines()
    for wrong in ({"name": "Ann"}, {"subject": "member_ann"}, {"address": "ann@example.org"}):
        with pytest.raises(ValidationError):
            Tombstone.model_validate({**line.model_dump(), **wrong})
    assert kept.file.stat().st_mode & 0o077 == 0


def filled(settings: Settings, number: int = 3) -> Tombstones:
    found = Tombstones(settings.tombstones_root, Vault.of(settings))
    for one in range(number):
        found.keep(f"erasure_{one}", "erasure", "person", (f"member:{one}", None), HEAD)
    return found


def test_changed_or_lost_tombstones_are_refused(settings: Settings) -> None:
    whole = filled(settings).file.read_bytes()
    lines = whole.splitlines(keepends=True)
    path = settings.tombstones_root / "tombstones.jsonl"

    def read() -> int:
        return Tombstones(settings.tombstones_root, Vault.of(settings)).check()

    assert read() == 4
    wrong = {
        "changed at line 3": lines[2].replace(b'"erasure":"erasure_1"', b'"erasure":"erasure_9"'),
        "cut short": b"",
    }
    for why, line in wrong.items():
        rest = lines[3] if line else b""
        path.write_bytes(b"".join(lines[:2]) + line + rest)
        with pytest.raises(Unavailable, match=why):
            read()
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(Unavailable, match="changed at line 3"):
        read()
    path.unlink()
    with pytest.raises(Unavailable, match="is gone"):
        read()
    path.write_bytes(whole)
    mark = settings.tombstones_root / "mark.json"
    mark.write_text(mark.read_text().replace('"lines":4', '"lines":3'))
    with pytest.raises(Unavailable, match=r"mark\.json was changed"):
        read()


def test_half_a_line_of_a_killed_writer_is_no_tombstone(settings: Settings) -> None:
    found = filled(settings, 1)
    with found.file.open("ab") as half:
        half.write(b'{"kind":"tombst')
    other = filled(settings, 2)
    assert [one.erasure for one in other.lines() if isinstance(one, Tombstone)] == [
        "erasure_0",
        "erasure_1",
    ]
    assert found.check() == 3


def test_tombstones_outlive_the_master_keys_rotation(settings: Settings) -> None:
    filled(settings)
    old, new = Vault(b"o" * 32), Vault(b"n" * 32)
    folder = settings.home / "elsewhere"
    Tombstones(folder, old).keep("erasure_1", "erasure", "person", ("member:1", None), HEAD)
    both = Tombstones(folder, Vault(b"n" * 32, (b"o" * 32,)))
    assert (both.seal_anew(), both.seal_anew()) == (1, 0)
    assert Tombstones(folder, new).has("erasure_1")
    with pytest.raises(Unavailable, match="another master key"):
        Tombstones(folder, Vault(b"x" * 32)).check()


async def test_tombstones_that_are_not_here_are_missed(
    store: Store, house: House, settings: Settings, tmp_path: Path
) -> None:
    await person(store, file=file(settings))
    await erase(house, "member_ann")
    alone = Settings(home=settings.home, tombstones=tmp_path / "empty")
    with pytest.raises(Unavailable, match="CLICKPOST_TOMBSTONES"):
        refuse(address(settings), Tombstones.of(alone, Vault.of(settings)))


async def test_a_restore_that_fails_leaves_all_as_it_was(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await person(store, file=file(settings))
    dump = await backup(settings, tmp_path / "clickpost.dump")
    with pytest.raises(InvalidInput, match="overwrites nothing"):
        await backup(settings, dump)
    assert dump.stat().st_mode & 0o077 == 0
    key = (settings.home / "master.key").read_bytes().strip()
    assert key not in dump.read_bytes()
    url = address(settings)
    with pytest.raises(InvalidInput, match="not empty"):
        await asyncio.to_thread(backups.load, settings, url, dump)
    await store.engine.dispose()
    broken, whole = tmp_path / "broken.dump", dump.read_bytes()
    for wrong in (whole[:-1], whole[:-20_000], b"", b"x" + whole[1:], whole + b"x"):
        broken.write_bytes(wrong)
        with pytest.raises(InvalidInput, match="cut short or changed"):
            await asyncio.to_thread(backups.load, settings, url, broken, replace=True)

    def broke(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "pg_restore: error: out of patience\n")

    monkeypatch.setattr(backups, "_ran", broke)
    with pytest.raises(Unavailable, match="out of patience"):
        await asyncio.to_thread(backups.load, settings, url, dump, replace=True)
    assert len(await rows(store, "SELECT 1 FROM member")) == 1


async def test_the_commands_back_up_restore_and_replay(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:1/api"})
    monkeypatch.setattr(_house, "settings", lambda: settings)
    monkeypatch.setattr(_wiring, "Settings", lambda: settings)
    logging.getLogger("clickpost").handlers.clear()
    await person(store, file=file(settings))
    dump = str(tmp_path / "clickpost.dump")

    async def called(*words: str, code: int = 0) -> str:
        await store.engine.dispose()
        answer = await asyncio.to_thread(runner.invoke, app, list(words))
        assert answer.exit_code == code, answer.output
        return answer.stdout

    assert json.loads(await called("backup", dump, "--json"))["bytes"] > 0
    told = json.loads(await called("privacy", "plan", "member_ann", "--json"))
    await called("privacy", "erase", told["erasure"])
    await called("restore", dump, code=2)
    done = json.loads(await called("restore", dump, "--replace", "--json"))
    assert (done["erased"], done["was_restored"]) == (1, True)
    assert "ann@example.org" not in await everything(store)
    assert "nothing was forgotten" in await called("replay")
