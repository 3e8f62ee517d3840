"""An erasure from its command, its request or the sweep to its end: platforms, files, proof."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.contract import Receipt
from clickpost.errors import InvalidInput, Transient
from clickpost.settings import Settings
from clickpost.store import NewConnection, Store
from clickpost.store.erasures import Erasures
from tasks import _wiring, erasing
from tasks._wiring import House
from tasks.erasing import Wanted
from tests.store.test_erasure import NOW, PERSONAL, add, everything, person, rows

runner = CliRunner(env={"COLUMNS": "250"})


@dataclass
class Parrot:
    """A platform that deletes and takes grants back, as long as it answers."""

    deleted: list[str] = field(default_factory=list)
    revoked: int = 0
    is_down: bool = False

    async def delete(self, receipt: Receipt) -> None:
        if self.is_down:
            raise Transient("DELETE /squawks never left")
        self.deleted.append(receipt.remote_id)

    async def revoke(self) -> None:
        self.revoked += 1


class Raven:
    """A platform that can do neither."""


@pytest_asyncio.fixture
async def house(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    """A house of the test's own, whose Prefect is nobody's business here."""
    logging.getLogger("clickpost").handlers.clear()
    opened = await _wiring._open(settings)

    async def given() -> House:
        return opened

    monkeypatch.setattr(_wiring, "house", given)
    yield opened
    await opened.client.aclose()
    await opened.store.close()


def speaks(monkeypatch: pytest.MonkeyPatch, platform: object) -> None:
    monkeypatch.setattr(House, "connector", lambda *_: platform)


async def account(store: Store, state: str = "live", posts: int = 1) -> str:
    """Store an account with posts in a state, and a planned one; return its workspace."""
    secrets = {"access_token": "parrots-not-ravens"}
    row = await store.add_connection(
        NewConnection("mastodon", "studio", "https://m.example", secrets)
    )
    for number in range(posts + 1):
        post = await add(
            store, "post", id=f"post_{number}", workspace_id=row.workspace_id, content_hash="h",
            late="publish", draft=False, body={"post": {"text": "parrots-not-ravens"}},
            created_at=NOW,
        )  # fmt: skip
        await add(
            store, "delivery", id=f"delivery_{number}", post_id=post, connection_id=row.id,
            state=state if number < posts else "planned", key=f"k{number}", attempts=0,
            receipts=[{"remote_id": f"r{number}", "url": "https://m.example/1"}],
            created_at=NOW, updated_at=NOW, takedown_at=None,
        )  # fmt: skip
    await rows(store, "UPDATE delivery SET receipts = NULL WHERE state = 'planned'")
    return str(row.workspace_id)


def file(settings: Settings) -> str:
    return str(settings.media_root / "attachments" / "gone.png")


async def approved(house: House, wanted: Wanted) -> str:
    row, _ = await erasing.plan(house.settings, house.store, wanted)
    await Erasures(house.store.engine, house.vault).approve(row.id, "engine")
    return row.id


async def test_an_account_leaves_the_platforms_before_its_rows_go(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    parrot = Parrot()
    speaks(monkeypatch, parrot)
    workspace = await account(store, posts=2)
    row, why = await erasing.plan(
        house.settings, store, Wanted("account", workspace, takedown=True)
    )
    assert why is not None
    await Erasures(store.engine, store.vault).approve(row.id, "engine")
    done = await erasing.carry_out(house, row.id)
    assert (done.state, parrot.revoked) == ("complete", 1)
    assert sorted(parrot.deleted) == ["r0", "r1"]
    certificate = await Erasures(store.engine, store.vault).certificate(row.id)
    outcomes = json.loads(certificate.document)["statement"]["outcomes"]
    told = {(one["location"], one["what"]): one["count"] for one in outcomes}
    assert told[("platforms", "Published posts.")] == 2
    assert told[("platforms", "Grants of connected accounts.")] == 1
    assert told[("delivery", "One post to one connection.")] == 3
    for table in ("post", "delivery", "connection"):
        assert await rows(store, f"SELECT 1 FROM {table}") == []
    moved = await rows(store, "SELECT facts FROM ledger WHERE subject = 'delivery_2'")
    assert [one.facts["to"] for one in moved] == ["cancelled"]


async def test_a_platform_that_is_down_is_waited_for_and_no_row_goes(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    parrot = Parrot(is_down=True)
    speaks(monkeypatch, parrot)
    monkeypatch.setattr("tasks.leaving.PATIENCE", 0.0)
    erasure_id = await approved(house, Wanted("account", await account(store), takedown=True))
    done = await erasing.carry_out(house, erasure_id)
    assert (done.state, done.certificate) == ("waiting", None)
    assert "1 posts are not down yet" in done.said
    assert len(await rows(store, "SELECT 1 FROM delivery")) == 2
    parrot.is_down = False
    await rows(store, "UPDATE erasure SET again_at = now() - interval '1 s'")
    [ended] = await erasing.resume()
    assert ended.state == "complete"


async def test_what_a_platform_cannot_do_is_blocked_until_the_owner_was_told(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks(monkeypatch, Raven())
    erasure_id = await approved(house, Wanted("account", await account(store), takedown=True))
    done = await erasing.carry_out(house, erasure_id)
    assert done.state == "blocked"
    assert "delete nothing for us: mastodon 1" in done.said
    assert await erasing.resume() == []
    erasures = Erasures(store.engine, store.vault)
    await erasures.leave_up(erasure_id, "engine")
    [done] = await erasing.resume()
    assert done.state == "complete"
    document = json.loads((await erasures.certificate(erasure_id)).document)
    assert document["statement"]["remains"] == [
        "1 posts stay visible on Mastodon: delete them there.",
        "Withdraw our access in your settings on Mastodon.",
    ]


async def test_what_is_on_its_way_is_not_erased_under_its_sender(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks(monkeypatch, Parrot())
    erasure_id = await approved(house, Wanted("account", await account(store, state="sending")))
    done = await erasing.carry_out(house, erasure_id)
    assert done.state == "waiting"
    assert len(await rows(store, "SELECT 1 FROM delivery WHERE state = 'sending'")) == 1


async def test_files_go_with_their_last_row(store: Store, house: House) -> None:
    folder = house.settings.media_root / "attachments"
    folder.mkdir(parents=True)
    mine, shared = folder / "mine.png", folder / "shared.png"
    for file in (mine, shared):
        file.write_text("parrots-not-ravens")
    await person(store, file=str(mine))
    await person(store, "bob", file=str(shared))
    await add(
        store, "ticket_attachment", id="file_2", message_id="message_ann", name="x",
        mime="image/png", bytes=1, sha256="s", stored_at=str(shared),
    )  # fmt: skip
    done = await erasing.carry_out(house, await approved(house, Wanted("person", "member_ann")))
    assert done.state == "complete"
    assert (mine.exists(), shared.exists()) == (False, True)
    assert await rows(store, "SELECT 1 FROM doomed_file") == []


async def test_the_sweep_takes_up_what_its_run_left(store: Store, house: House) -> None:
    await person(store, file=file(house.settings))
    erasure_id = await approved(house, Wanted("person", "member_ann"))
    await Erasures(store.engine, store.vault).begin(erasure_id)  # Its process is gone since.
    [ended] = await erasing.resume()
    assert (ended.erasure_id, ended.state) == (erasure_id, "complete")
    assert await erasing.resume() == []
    with pytest.raises(InvalidInput, match="complete"):
        await erasing.carry_out(house, erasure_id)


async def request(store: Store, **more: Any) -> str:
    values = dict(
        id="req_1", kind="erasure", state="verified", about="person", door="cli",
        jurisdiction="gdpr", code="C" * 20, secrets="", data_key="", key_id="",
        connection_ids=[], takedown=False, challenge_tries=0, received_at=NOW, due_at=NOW,
        updated_at=NOW, **more,
    )  # fmt: skip
    return await add(store, "subject_request", **values)


async def test_a_request_is_carried_out_and_certified(store: Store, house: House) -> None:
    await person(store, file=file(house.settings))
    request_id = await request(store, member_id="member_ann", address_digest="d-ann")
    row, why = await erasing.of_request(house, request_id)
    assert why is None
    done = await erasing.carry_out(house, row.id)
    asked = await house.store.request(request_id)
    assert (asked.state, asked.certificate_id) == ("certified", done.certificate)
    assert await rows(store, "SELECT 1 FROM member") == []


async def test_who_was_never_a_member_is_found_by_their_address(store: Store, house: House) -> None:
    await add(
        store, "ticket", id="ticket_1", email="ann@example.org", email_digest="d-ann",
        title="parrots-not-ravens", status="closed", opened_at=NOW, closed_at=NOW,
    )  # fmt: skip
    request_id = await request(store, address_digest="d-ann")
    row, _ = await erasing.of_request(house, request_id)
    assert (await erasing.carry_out(house, row.id)).state == "complete"
    assert await rows(store, "SELECT 1 FROM ticket") == []
    await rows(store, "UPDATE subject_request SET address_digest = NULL")
    with pytest.raises(InvalidInput, match="by hand"):
        await erasing.of_request(house, request_id)


async def test_the_commands_plan_erase_and_prove(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_house, "settings", lambda: settings)
    monkeypatch.setattr(_wiring, "Settings", lambda: settings)
    logging.getLogger("clickpost").handlers.clear()
    await person(store, events=3, file=file(settings))

    async def called(*words: str, code: int = 0) -> str:
        answer = await asyncio.to_thread(runner.invoke, app, ["privacy", *words])
        assert answer.exit_code == code, answer.output
        assert not [word for word in PERSONAL if word in answer.output]
        return answer.stdout

    told = json.loads(await called("plan", "member_ann", "--json"))
    assert {"location": "usage_event", "then": "erased", "count": 3}.items() <= next(
        one for one in told["plan"] if one["location"] == "usage_event"
    ).items()
    assert "usage_event" in await called("plan", "member_ann")
    await called("plan", "member_nobody", code=2)
    await called("plan", "member_ann", "--takedown", code=2)
    done = json.loads(await called("erase", told["erasure"], "--json"))
    assert done["state"] == "complete"
    await called("certificate", done["certificate"], "--out", str(tmp_path / "c.json"))
    assert "valid" in await called("verify", str(tmp_path / "c.json"))
    assert told["erasure"] in await called("erasures")
    await called("erase", told["erasure"], code=2)
    assert "ann@example.org" not in await everything(store)
