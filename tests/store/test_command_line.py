"""Every command speaks to scripts in one way: JSON alone, and an exit code that tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer.main

from cli.main import app
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from tasks import _wiring
from tests.store.test_people_commands import Desk
from tests.store.test_rights import WORDS

ROOT = typer.main.get_command(app)
PAGE = (PROJECT / "docs" / "reference" / "commands.md").read_text()


def commands(here: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    subs: dict[str, Any] = getattr(here, "commands", {})
    if words and (not subs or here.invoke_without_command):
        yield " ".join(words), here
    for name, sub in subs.items():
        yield from commands(sub, (*words, name))


ALL = dict(commands(ROOT))


def test_every_command_takes_json_and_explains_all_that_it_takes() -> None:
    for name, one in ALL.items():
        assert (one.help or "").strip(), name
        taken = {param.name: param for param in one.params if param.name != "help"}
        assert "as_json" in taken, name
        for param in taken.values():
            assert getattr(param, "help", ""), f"{name}: {param.name} has no help"


#: Looks that need nothing but a database.
LOOKS = (
    "connections",
    "posts list",
    "series list",
    "platforms list",
    "policy check",
    "notify list",
    "people list",
    "people whoami",
    "hooks list",
    "workspaces",
    "workspaces show",
    "workspaces member list",
    "workspaces ticket list",
    "audit verify",
    "privacy erasures",
    "privacy requests",
    "privacy public-key",
)


async def test_looks_print_one_json_value_and_nothing_else(desk: Desk, store: Store) -> None:
    for name in LOOKS:
        answer = await desk.ran(*name.split(), "--json")
        json.loads(answer.stdout)


#: In the words of a command, what stands for something that there is not.
UNKNOWN = {
    "POST": "post_x", "UNKNOWN": "post_x", "WAITING": "post_x", "SERIES": "series_x",
    "MEMBER": "mem_x", "CONSENT": "cons_x", "SUBSCRIPTION": "sub_x", "TICKET": "tick_x",
    "REQUEST": "req_x", "HOLD": "hold_x", "ERASURE": "erasure_x", "WORKSPACE": "ws_x",
    "bluesky/studio": "bluesky/nobody", "bluesky": "nowhere", "mastodon": "nowhere", "ops": "none",
    "shop": "none", "boss": "nobody", "LATER": "2099-01-01 09:00",
}  # fmt: skip
#: They name nothing that could be missing.
NEW = {
    "audit rotate-keys", "backup", "restore", "replay", "policy apply", "hooks add", "notify add",
    "people add", "privacy purge", "privacy request", "workspaces approval",
    "workspaces member add",
    "workspaces member list", "workspaces subscription add", "workspaces ticket open",
    "workspaces ticket list",
}  # fmt: skip
#: Lists of what somebody has who is not there: nothing.
EMPTY = {
    "workspaces consent list", "workspaces preference list", "workspaces ticket show",
}  # fmt: skip


async def test_what_nothing_has_is_wrong_input_told_as_json(desk: Desk, store: Store) -> None:
    asked = [name for name in WORDS if name not in NEW | EMPTY]
    told = []
    for name in [*asked, "posts show", "series show", "hooks trace", "privacy certificate"]:
        words = [UNKNOWN.get(one, one.replace("_", " ")) for one in _words(name)]
        answer = await desk.tried(*name.split(), *words, "--json")
        try:
            said = json.loads(answer.stdout)
            fine = said["exit"] == answer.exit_code == 2 and len(said["error"]) > 10
        except (ValueError, KeyError, TypeError):
            fine = False
        if not fine or "error:" not in answer.stderr:
            told.append((name, answer.exit_code, answer.output))
    assert told == []


def _words(name: str) -> list[str]:
    return WORDS[name].split() if name in WORDS else ["none"]


def test_the_page_names_who_ends_with_1_though_nothing_broke() -> None:
    for line in PAGE.partition("though nothing broke")[2].splitlines():
        for words in [part for part in line.split("`") if part.partition(" ")[0] in _FIRST]:
            name, _, option = words.partition(" --")
            assert name in ALL, words
            flags = {flag for param in ALL[name].params for flag in param.opts}
            assert not option or f"--{option}" in flags


_FIRST = {name.partition(" ")[0] for name in ALL}


@pytest.fixture
def desk(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(_wiring, "Settings", lambda: settings)
    return Desk(settings, monkeypatch)
