"""The commands that plan ahead, change and approve: what they print, and with which exit code."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import _house, _publishing
from cli.main import app
from clickpost.settings import Settings
from clickpost.store import NewConnection, Store
from clickpost.store.vault import Vault


@pytest.fixture
def command(settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a command against a house whose Prefect takes every run."""
    settings.home.mkdir(exist_ok=True)
    monkeypatch.setattr(_house, "settings", lambda: settings)
    monkeypatch.setattr(_publishing.runs, "start", lambda *_, **__: str(uuid.uuid4()))

    async def connected() -> None:
        store = await Store.open(database_url, Vault.of(settings))
        new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "x"})
        await store.add_connection(new)
        await store.close()

    asyncio.run(connected())

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run


PUBLISH = ("publish", "--to", "bluesky/studio", "--text")


def test_the_same_key_says_existing_and_another_content_is_wrong_input(command: Any) -> None:
    first = command(*PUBLISH, "hello", "--key", "k")
    again = command(*PUBLISH, "hello", "--key", "k")
    assert (first["existing"], again["existing"]) == (False, True)
    assert first["post"] == again["post"]
    assert first["post"] in command(*PUBLISH, "other", "--key", "k", code=2)["error"]


def test_the_same_again_is_noted_unless_it_is_said(command: Any) -> None:
    first = command(*PUBLISH, "Good morning!")
    assert first["repeats"] == []
    (note,) = command(*PUBLISH, "good  morning")["repeats"]
    assert first["post"] in note
    assert command(*PUBLISH, "good morning", "--again")["repeats"] == []


def test_slots_are_filled_and_shown(command: Any) -> None:
    slots = ("connections", "slots", "bluesky/studio")
    assert command(*slots)["days"] == {}
    assert (
        "slots bluesky/studio --add" in command(*PUBLISH, "x", "--at", "next-slot", code=2)["error"]
    )
    command(*slots, "--add", "mon 09:00", code=2)  # In which zone?
    shown = command(*slots, "--add", "mon-tue 9:00,17:30", "--zone", "Europe/Berlin")
    assert shown["days"] == {"mon": ["09:00", "17:30"], "tue": ["09:00", "17:30"]}
    made = command(*PUBLISH, "hello", "--at", "next-slot")
    utc = made["deliveries"][0]["due_at"].replace("T", " ")[:16]
    assert utc == shown["free"][0]["utc"]
    assert command(*slots)["free"][0] == shown["free"][1]
    moved = command("posts", "reschedule", made["post"], "--at", "2030-01-01T09:00+00:00")
    assert moved["deliveries"][0]["due_at"].startswith("2030-01-01T09:00")
    assert command(*slots)["free"][0] == shown["free"][0]
    command("posts", "reschedule", made["post"], "--at", "2020-01-01T09:00+00:00", code=2)


def test_a_post_is_edited_by_a_file(command: Any, tmp_path: Path) -> None:
    made = command(*PUBLISH, "hello", "--at", "2030-01-01T09:00+00:00")
    (tmp_path / "post.yaml").write_text("kind: post\ntext: other\n")
    done = command("posts", "edit", made["post"], str(tmp_path / "post.yaml"))
    (delivery,) = done["deliveries"]
    assert (delivery["state"], delivery["due_at"][:10]) == ("planned", "2030-01-01")
    (tmp_path / "post.yaml").write_text("kind: post\ntext: x\nrepeat: {rule: FREQ=DAILY}\n")
    command("posts", "edit", made["post"], str(tmp_path / "post.yaml"), code=2)


def test_a_series_shows_its_next_five_times_and_stops_when_told(command: Any) -> None:
    rule = ("--repeat", "FREQ=DAILY;BYHOUR=9", "--zone", "Europe/Berlin")
    made = command(*PUBLISH, "hello", *rule)
    assert [bool(one["post"]) for one in made["next"]] == [True, True, False, False, False]
    assert all(one["local"].endswith("09:00") for one in made["next"])
    assert [row["series"] for row in command("series", "list")] == [made["series"]]
    paused = command("series", "pause", made["series"], "--as", "anna")
    assert (paused["status"], paused["next"][0]["states"]) == ("paused", "bluesky/studio held")
    resumed = command("series", "resume", made["series"])
    assert (resumed["status"], resumed["next"][0]["states"]) == ("active", "bluesky/studio planned")
    gone = command("series", "cancel", made["series"])
    assert gone["status"] == "cancelled"
    assert {one["states"] for one in gone["next"]} == {"bluesky/studio cancelled"}
    command("series", "resume", made["series"], code=2)
    command(*PUBLISH, "hello", "--repeat", "FREQ=DAILY", "--zone", "UTC", code=2)


def test_approval_is_switched_and_asked_for_by_name(command: Any) -> None:
    made = command(*PUBLISH, "hello")
    assert "waits for an approval" in command("approve", made["post"], code=2)["error"]
    assert command("workspaces", "approval", "on", "--as", "anna")["approval"] == "on"
    command("connections", "require-approval", "bluesky/studio", "on")
    (row,) = command("connections")
    assert row["approval"] is True
    command("connections", "require-approval", "bluesky/nobody", "on", code=2)
    assert command("posts", "list", "--state", "awaiting_approval") == []
    assert len(command("posts", "list", "--state", "planned")) == 1
