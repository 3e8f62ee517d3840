"""`clickpost people`, and how commands ask who acts: by a secret, never by an argument."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydantic import SecretStr
from sqlalchemy import text
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.settings import Settings
from clickpost.store import Store

runner = CliRunner(env={"COLUMNS": "250"})


class Desk:
    """Runs commands as one or another person would."""

    def __init__(self, given: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = given
        monkeypatch.setattr(_house, "settings", lambda: self.given)

    def sits(self, secret: str) -> None:
        self.given = self.given.model_copy(update={"person_secret": SecretStr(secret)})

    async def tried(self, *words: str) -> Result:
        return await asyncio.to_thread(runner.invoke, app, list(words))

    async def ran(self, *words: str, code: int = 0) -> Result:
        answer = await self.tried(*words)
        assert answer.exit_code == code, answer.output
        return answer

    async def json(self, *words: str) -> Any:
        return json.loads((await self.ran(*words, "--json")).stdout)


@pytest.fixture
def desk(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(settings, monkeypatch)


async def test_people_are_declared_prove_themselves_and_leave(desk: Desk, store: Store) -> None:
    assert "nobody is declared" in (await desk.ran("people", "list")).output
    assert (await desk.json("people", "whoami"))["id"] is None
    boss = await desk.json("people", "add", "kim", "--role", "admin")
    assert "name the file" in (await desk.ran("people", "whoami", code=1)).output
    desk.sits(boss["secret"])
    made = await desk.json("people", "add", "ana", "--role", "publisher")
    assert [one["name"] for one in await desk.json("people", "list")] == ["kim", "ana"]
    await desk.ran("people", "roles", "ana", "--role", "compliance")
    fresh = await desk.json("people", "secret", "ana")
    desk.sits(made["secret"])
    assert "not, or no longer" in (await desk.ran("people", "whoami", code=1)).output
    desk.sits(fresh["secret"])
    assert (await desk.json("people", "whoami"))["may"] == [
        "erase",
        "hold",
        "see",
        "serve",
        "takedown",
    ]
    refused = await desk.ran("people", "remove", "kim", code=1)
    assert "you may not administer: that takes the role admin" in refused.output
    desk.sits(boss["secret"])
    await desk.ran("people", "remove", "ana")
    desk.sits(fresh["secret"])
    assert "nobody's here" in (await desk.ran("people", "whoami", code=1)).output


async def test_what_a_person_may_not_is_refused_by_each_command(desk: Desk, store: Store) -> None:
    boss = await store.add_person("kim", ["admin"], "operator")
    desk.sits(boss.secret)
    workspace = await store.workspace_id()
    for words, right in (
        (("privacy", "explain", "workspace", workspace), "see"),
        (("privacy", "purge", "--policy", "usage", "--apply"), "erase"),
        (("privacy", "hold", "workspace", workspace, "--kind", "legal", "--cite", "1"), "hold"),
    ):
        assert f"you may not {right}" in (await desk.ran(*words, code=1)).output
    await desk.ran("privacy", "purge", "--policy", "usage")  # Counting is everybody's.
    await desk.ran("workspaces", "approval", "on")
    query = text("SELECT actor FROM ledger WHERE action = 'approval.required'")
    async with store.engine.connect() as connection:
        assert await connection.scalar(query) == f"person:{boss.person_id}"


async def test_a_name_on_the_command_line_is_no_proof(desk: Desk, store: Store) -> None:
    await store.add_person("kim", ["admin"], "operator")
    answer = await desk.ran("workspaces", "approval", "on", "--as", "kim", code=2)
    assert "your personal secret says who acts" in answer.output


async def test_a_secret_is_read_from_a_file_that_nobody_else_reads(
    desk: Desk, store: Store, tmp_path: Path
) -> None:
    made = await store.add_person("kim", ["admin"], "operator")
    file = tmp_path / "secret"
    file.write_text(f"{made.secret}\n")
    desk.given = desk.given.model_copy(update={"person_secret_file": file})
    file.chmod(0o644)
    answer = await desk.ran("people", "whoami", code=2)
    assert "others may read your secret" in answer.output
    assert made.secret not in answer.output
    file.chmod(0o600)
    assert (await desk.json("people", "whoami"))["name"] == "kim"
