"""What a person reads, what a script reads, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import connectors
from cli.main import app
from clickpost.policy.schema import SHAPES
from tests.policies.conftest import ALL, changed

runner = CliRunner()


@pytest.fixture
def broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a parrot that has faults, where a parrot is all that connectors know."""
    monkeypatch.setattr(connectors, "capabilities", lambda: {"parrot": {"whoami", "publish"}})
    text = changed("  limit: 280", "  limt: 280").replace("[jpeg, png]", "[jpeg, 'p[ng]']")
    (folder / "platforms" / "parrot.yaml").write_text(text)
    return folder


def test_the_shipped_policies_pass() -> None:
    done = runner.invoke(app, ["policy", "check"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1].startswith(f"{len(ALL)} files, no errors, ")


def test_a_person_reads_place_fault_spelling_and_meaning(broken: Path) -> None:
    done = runner.invoke(app, ["policy", "check", "policies"])
    assert done.exit_code == 2
    assert done.output.splitlines() == [
        "policies/platforms/parrot.yaml:9:3: error: text.limt: unknown key; did you mean 'limit'?",
        "    limit: Most units of `count`; null for no limit.",
        "policies/platforms/parrot.yaml:16:19: error: images.formats.1: must be one of 'jpeg', "
        "'png', 'webp', 'gif', 'heic' or 'avif'; found 'p[ng]'; did you mean 'png'?",
        "    formats: Formats accepted, the best one first.",
        "1 file, 2 errors, no warnings",
    ]


def test_a_script_reads_the_same_as_json(broken: Path) -> None:
    done = runner.invoke(app, ["policy", "check", "policies", "--json"])
    assert done.exit_code == 2
    told = json.loads(done.stdout)
    assert told["files"] == ["policies/platforms/parrot.yaml"]
    assert told["warnings"] == []
    assert told["problems"][0] == {
        "file": "policies/platforms/parrot.yaml",
        "line": 9,
        "column": 3,
        "key": "text.limt",
        "message": "unknown key",
        "meaning": "Most units of `count`; null for no limit",
        "hint": "limit",
    }


@pytest.mark.parametrize("command", ["diff", "apply"])
def test_nothing_is_applied_while_any_policy_is_wrong(
    broken: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKPOST_POLICIES", str(broken))
    done = runner.invoke(app, ["policy", command])
    assert done.exit_code == 2
    assert "policies/platforms/parrot.yaml:9:3: text.limt: unknown key" in done.output


def test_a_prefect_that_is_away_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKPOST_HOME", str(tmp_path))
    monkeypatch.setenv("CLICKPOST_PREFECT_PORT", "9")
    done = runner.invoke(app, ["policy", "diff", "--json"])
    assert done.exit_code == 1
    assert "Run: clickpost up" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_place_that_is_not_there_is_wrong_input(folder: Path, more: list[str]) -> None:
    done = runner.invoke(app, ["policy", "check", "nowhere", *more])
    assert done.exit_code == 2
    assert "there is no such file or folder" in done.output


def test_schemas_are_written_where_asked(tmp_path: Path) -> None:
    done = runner.invoke(app, ["policy", "schema", str(tmp_path / "s"), "--json"])
    assert done.exit_code == 0
    paths = [Path(one) for one in json.loads(done.stdout)]
    assert [path.name for path in paths] == [f"{name}.schema.json" for name in SHAPES]
    assert all(json.loads(path.read_text())["$schema"] for path in paths)


def test_a_place_that_cannot_be_written_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = runner.invoke(app, ["policy", "schema", str(tmp_path / "file" / "s")])
    assert done.exit_code == 2
    assert "cannot be written: Not a directory" in done.output
