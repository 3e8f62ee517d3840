"""What the documents name exists, and what exists is named."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import typer.main
from pydantic import BaseModel

from cli.main import app
from clickpost.draft import MediaItem, PostFile, Wording
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT, Settings

PAGES = sorted([PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")])
REFERENCE = PROJECT / "docs" / "reference"
_CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`(clickpost [a-z][^`]*)`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def _said(page: Path) -> list[str]:
    """Return the `clickpost …` commands that a page tells its reader to run."""
    text = page.read_text()
    blocks = "\n".join(_CONSOLE.findall(text)).replace("\\\n", " ").splitlines()
    lines = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line) for line in blocks]
    return [one for one in (*lines, *_INLINE.findall(text)) if one.startswith("clickpost ")]


def _fault_of(command: str) -> str | None:
    """Say what of a command the command line does not know."""
    here: click.Command = typer.main.get_command(app)
    words = command.partition(" #")[0].split()[1:]
    while words and hasattr(here, "commands") and not words[0].startswith("-"):
        names = words.pop(0)
        subs = here.commands
        if names not in subs:
            return names
        here = subs[names]
    known = {name for one in here.params for name in (*one.opts, *one.secondary_opts)}
    unknown = [
        word.partition("=")[0]
        for word in words
        if word.startswith("--") and not word.endswith("-env") and word != "--help"
    ]
    return next((word for word in unknown if word not in known), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_in_a_page_exists(page: Path) -> None:
    faults = [(one, fault) for one in _said(page) if (fault := _fault_of(one))]

    assert not faults


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert _fault_of("clickpost posts forget POST") == "forget"
    assert _fault_of("clickpost publish --soon") == "--soon"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = [one for one in _LINK.findall(page.read_text()) if not one.startswith("http")]

    assert not [one for one in links if not (page.parent / one).exists()]


@pytest.mark.parametrize("model", [PostFile, MediaItem, Wording])
def test_every_key_of_a_post_file_is_documented(model: type[BaseModel]) -> None:
    page = (REFERENCE / "post-file.md").read_text()
    rows = {name: field.description for name, field in model.model_fields.items()}
    missing = [
        name for name, meaning in rows.items() if not re.search(_row(name, meaning or ""), page)
    ]

    assert not missing


def _row(name: str, meaning: str) -> str:
    return rf"(?m)^\| `{name}` \|.*\| {re.escape(meaning)} \|$"


def test_every_setting_is_documented() -> None:
    page = (REFERENCE / "settings.md").read_text()
    missing = [
        name
        for name, field in Settings.model_fields.items()
        if not re.search(rf"(?m)^\| .*`CLICKPOST_{name.upper()}` \|.*\| ", page)
        or (field.description or "") not in page
    ]

    assert not missing


def test_every_platform_is_documented_with_its_credentials() -> None:
    page = (PROJECT / "docs" / "platforms.md").read_text()
    for policy in load_platforms(PROJECT / "policies").values():
        assert f"[{policy.title}](../policies/platforms/{policy.name}.yaml)" in page
        assert all(f"`{key.replace('_', '-')}`" in page for key in policy.credentials)


def test_every_decision_is_listed_and_dated() -> None:
    folder = PROJECT / "docs" / "decisions"
    listed = (folder / "README.md").read_text()
    for page in sorted(folder.glob("2*.md")):
        assert f"({page.name})" in listed
        assert page.read_text().splitlines()[2] == page.name[:10]
