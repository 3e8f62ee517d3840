"""`clickpost privacy`: the map drawn, a row explained, a purge counted and done, holds, files."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import time
import xml.dom.minidom
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.errors import PolicyError
from clickpost.policy.load import BrokenPolicies
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from deployments.stack import refuse_unmapped
from tasks import purging

runner = CliRunner(env={"COLUMNS": "250"})


@pytest.fixture
def house(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Let commands meet the test's database, with policies of its own."""
    shutil.copytree(PROJECT / "policies", tmp_path / "policies")
    logging.getLogger("clickpost").handlers.clear()  # Of commands whose terminal is gone.
    made = settings.model_copy(update={"policies": tmp_path / "policies"})
    monkeypatch.setattr(_house, "settings", lambda: made)
    return made


async def ran(*words: str, code: int) -> Result:
    """Run a command as a shell would, beside the test's own loop."""
    answer = await asyncio.to_thread(runner.invoke, app, list(words))
    assert answer.exit_code == code, answer.output
    return answer


async def called(*words: str, code: int = 0) -> str:
    return (await ran(*words, code=code)).output


async def shown(*words: str, code: int = 0) -> Any:
    return json.loads((await ran(*words, "--json", code=code)).stdout)


async def run(store: Store, query: str, values: Mapping[str, Any] | None = None) -> list[Any]:
    async with store.engine.begin() as connection:
        done = await connection.execute(text(query), dict(values or {}))
        return list(done.all()) if done.returns_rows else []


async def tickets(store: Store, folder: Path, number: int = 2) -> list[Path]:
    """Store tickets that were closed three years ago, each with a message and a file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for n in range(number):
        file = folder / f"me{n}.png"
        file.write_bytes(b"me")
        files.append(file)
        when = datetime.now(UTC) - timedelta(days=1095)
        values = {"id": f"ticket_{n}", "m": f"message_{n}", "at": when, "f": str(file)}
        await run(
            store,
            "INSERT INTO ticket (id, title, status, email, opened_at, closed_at) VALUES"
            " (:id, 'Help', 'closed', 'ann@example.org', :at, :at)",
            values,
        )
        await run(
            store,
            "INSERT INTO ticket_message (id, ticket_id, author, body, at)"
            " VALUES (:m, :id, 'person', 'Hi', :at)",
            values,
        )
        await run(
            store,
            "INSERT INTO ticket_attachment (id, message_id, name, mime, bytes, sha256, stored_at)"
            " VALUES ('file' || :m, :m, 'me.png', 'image/png', 2, 's', :f)",
            values,
        )
    return files


async def test_a_value_is_explained_in_a_sentence(house: Settings, store: Store) -> None:
    await tickets(store, house.media_root)
    said = await shown("privacy", "explain", "ticket", "ticket_0")
    until = datetime.now(UTC) - timedelta(days=1095 - 730)
    assert said["email"].startswith("email is kept for the contract (to know what was answered;")
    assert f"until {until:%Y-%m-%d}" in said["email"]
    assert said["email"].endswith("then it is deleted once tickets says mode: apply.")
    said = await shown("privacy", "explain", "ticket_message", "message_0")
    assert "until" in said["body"]
    await called("privacy", "hold", "ticket", "ticket_0", "--kind", "legal", "--cite", "case 7")
    said = await shown("privacy", "explain", "ticket_message", "message_0")
    assert said["body"].endswith("and then held: a hold on ticket.")
    assert "has no row nobody" in await called("privacy", "explain", "ticket", "nobody", code=2)
    assert "unknown table" in await called("privacy", "explain", "tickets", "x", code=2)


async def test_a_purge_counts_until_somebody_decides(house: Settings, store: Store) -> None:
    files = await tickets(store, house.media_root)
    policy = house.policies / "retention" / "tickets.yaml"
    policy.write_text(policy.read_text().replace("share: 0.2", "share: 1.0"))
    for words in (("purge",), ("purge", "--policy", "tickets"), ("purge", "--apply")):
        rows = await shown("privacy", *words)
        [row] = [one for one in rows if one["policy"] == "tickets"]
        assert (row["mode"], row["expired"], row["done"]) == ("dry_run", 2, "")
    assert len(await run(store, "SELECT 1 FROM ticket")) == 2
    held = await shown("privacy", "hold", "ticket", "ticket_1", "--kind", "tax", "--cite", "AO")
    [row] = await shown("privacy", "purge", "--policy", "tickets", "--apply")
    assert row["done"] == "ticket: 1, ticket_attachment: 1, ticket_message: 1"
    assert (row["held"], row["expired"]) == (1, 1)
    await called("privacy", "release", held["hold"])
    await called("privacy", "release", held["hold"], code=2)
    [row] = await shown("privacy", "purge", "--policy", "tickets", "--apply")
    assert row["done"].startswith("ticket: 1")
    assert all(file.exists() for file in files), "somebody may be about to name them again"
    await _aged(store)
    await shown("privacy", "purge")
    assert not any(file.exists() for file in files)
    assert await run(store, "SELECT 1 FROM doomed_file") == []


async def _aged(store: Store) -> None:
    await run(store, "UPDATE doomed_file SET doomed_at = doomed_at - interval '2 hours'")


async def test_a_file_that_has_a_row_again_stays(house: Settings, store: Store) -> None:
    [file] = await tickets(store, house.media_root, 1)
    outside = house.media_root.parent / "outside.png"
    outside.write_bytes(b"not ours")
    for path in (file, outside):
        await run(
            store,
            "INSERT INTO doomed_file VALUES (:f, now() - interval '1 day')",
            {"f": str(path)},
        )
    await shown("privacy", "purge")
    assert file.exists()
    assert outside.exists(), "what is outside the media store is nobody's to remove"


async def test_a_limit_stops_a_purge_with_exit_code_1(house: Settings, store: Store) -> None:
    await tickets(store, house.media_root)
    [row] = await shown("privacy", "purge", "--policy", "tickets", "--apply", code=1)
    assert "limit.share" in row["note"]
    assert len(await run(store, "SELECT 1 FROM ticket")) == 2


async def test_an_unmapped_column_stops_up_check_and_purge(house: Settings, store: Store) -> None:
    refuse_unmapped(house)
    await run(store, "ALTER TABLE member ADD phone text")
    with pytest.raises(BrokenPolicies, match=r"member\.phone"):
        refuse_unmapped(house)
    said = await called("policy", "check", code=2)
    assert "member.phone: is not in the data map" in said
    assert "member.phone" in await called("privacy", "purge", code=2)


async def test_an_unmapped_key_of_a_document_stops_a_purge(house: Settings, store: Store) -> None:
    await run(
        store,
        "INSERT INTO post (id, workspace_id, body, content_hash, draft, late, created_at) VALUES"
        " ('post_1', 'ws_default', CAST(:b AS jsonb), 'c', false, 'publish', now())",
        {"b": json.dumps({"post": {"text": "", "author": "Ann"}, "media": []})},
    )
    with pytest.raises(PolicyError, match=r"post\.body\.post\.author") as error:
        await purging.opened(store, house)
    assert "Ann" not in str(error.value)


async def test_the_map_is_drawn(house: Settings, tmp_path: Path) -> None:
    page = await called("privacy", "map")
    assert "## ticket_message" in page
    for name in ("map.md", "map.svg"):
        await called("privacy", "map", "--out", str(tmp_path / name))
    assert (tmp_path / "map.md").read_text() == page
    picture = xml.dom.minidom.parse(str(tmp_path / "map.svg"))
    nodes = picture.getElementsByTagName("text")
    words = {node.firstChild.nodeValue for node in nodes if node.firstChild is not None}
    assert {"ticket_message", "body", "email"} <= words
    assert "must end in .md or .svg" in await called(
        "privacy", "map", "--out", str(tmp_path / "map.txt"), code=2
    )


async def test_all_shipped_policies_work_in_their_order(house: Settings, store: Store) -> None:
    begun = time.monotonic()
    for path in (house.policies / "retention").glob("*.yaml"):
        path.write_text(path.read_text().replace("mode: dry_run", "mode: apply"))
    rows = await shown("privacy", "purge", "--apply")
    names = [one["policy"] for one in rows]
    assert names.pop() == "prefect_history"
    assert len(names) == len(os.listdir(house.policies / "retention"))
    assert names.index("posts") < names.index("media")
    assert names.index("invoices") < names.index("subscriptions")
    assert names.index("tickets") < names.index("departed")
    assert names.index("addresses") < names.index("usage")
    assert time.monotonic() - begun < 30
