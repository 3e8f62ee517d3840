"""What our documents name exists, and what we track names no machine."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app
from clickpost.settings import PROJECT

COMMANDS = typer.main.get_command(app)


def tracked(*patterns: str) -> list[Path]:
    """Return the files under version control; skip where there is no repository."""
    git = shutil.which("git")
    if git is None or not (PROJECT / ".git").exists():
        pytest.skip("not in a clone")
    listed = subprocess.run(
        [git, "-C", str(PROJECT), "ls-files", "-z", *patterns], capture_output=True, check=True
    ).stdout.decode()
    return [PROJECT / name for name in listed.split("\0") if name and (PROJECT / name).is_file()]


def code_of(page: str) -> Iterator[str]:
    """Yield the lines of a page's shell blocks, and what stands between backticks."""
    blocks = re.findall(r"^```(?:sh|bash|console|shell)\n(.*?)^```$", page, re.M | re.S)
    for block in blocks:
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page)


def words_of(line: str) -> list[str] | None:
    """Return the words after `clickpost`, None where the line calls something else."""
    try:
        words = shlex.split(line.removeprefix("$ "), comments=True)
    except ValueError:
        words = line.split()
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words or words[0] not in ("clickpost", ".venv/bin/clickpost"):
        return None
    return words[1:]


def unknown_in(words: list[str]) -> str | None:
    """Return the first word that is neither a command nor an option that there is."""
    at, path, options = COMMANDS, "clickpost", {"--help"}
    for word in words:
        inner = getattr(at, "commands", {})
        if word in ("|", "&&", ";", ">", "||"):
            break
        if word in inner:
            at, path = inner[word], f"{path} {word}"
            options |= {one for param in at.params for one in [*param.opts, *param.secondary_opts]}
        elif _is_no_command(word, inner) or _is_no_option(word, options, at.context_settings):
            return f"{path} {word}"
    return None


def _is_no_command(word: str, commands: Mapping[str, Any]) -> bool:
    return bool(commands) and re.fullmatch(r"[a-z][a-z-]*", word) is not None


def _is_no_option(word: str, options: set[str], context: Mapping[str, Any]) -> bool:
    if context.get("ignore_unknown_options") or not re.match(r"--[a-z]", word):
        return False
    return word.partition("=")[0] not in options


def test_documents_name_only_commands_that_exist() -> None:
    pages = tracked("*.md")
    wrong = [
        f"{page.relative_to(PROJECT)}: {found}"
        for page in pages
        for line in code_of(page.read_text(encoding="utf-8"))
        if (words := words_of(line)) is not None and (found := unknown_in(words))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("clickpost policy check --json", None),
        ("clickpost policy chekc", "clickpost policy chekc"),
        ("X=1 clickpost polices", "clickpost polices"),
        ("$ clickpost policy check --jsn", "clickpost policy check --jsn"),
        ("clickpost policy check | wc -l", None),
    ],
)
def test_a_command_that_is_not_there_is_noticed(line: str, found: str | None) -> None:
    words = words_of(line)
    assert words is not None
    assert unknown_in(words) == found


def test_links_between_documents_lead_somewhere() -> None:
    wrong = []
    for page in tracked("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
            if "://" not in target and not (page.parent / target).exists():
                wrong.append(f"{page.relative_to(PROJECT)}: {target}")
    assert wrong == []


#: Homes, mounts and temporary folders of somebody's machine.
MACHINE = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|work|mnt|tmp)/(?!\.\.\.)[\w.-]+")


def test_no_tracked_file_names_a_machine() -> None:
    wrong = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # A picture.
        for found in MACHINE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            wrong.append(f"{path.relative_to(PROJECT)}:{line}: {found[0]}")
    assert wrong == []


def test_a_change_log_is_kept() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ", text, re.M)


def test_a_machine_is_noticed_and_an_address_is_not() -> None:
    assert MACHINE.search("see " + "/home" + "/alice/clickpost")
    assert not MACHINE.search("https://parrot.example/home/alice")
    assert not MACHINE.search("`tests/work/x`")
