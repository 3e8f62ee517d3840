"""Where the state of a stack lives, and what is said where it may not be touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from cli._output import guarded
from clickpost import settings


def test_a_clone_with_a_space_in_its_path_has_its_state_where_postgresql_can_live(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clone, other = tmp_path / "My Projects" / "a", tmp_path / "My Projects" / "b"
    homes = []
    for one in (clone, other):
        one.mkdir(parents=True)
        (one / "pyproject.toml").touch()
        monkeypatch.setattr(settings, "PROJECT", one)
        homes.append(settings.Settings().home)
    assert homes[0] != homes[1]
    assert not any(" " in str(home) for home in homes)


def test_a_clone_has_its_state_in_itself() -> None:
    assert settings.Settings().home == settings.PROJECT / ".clickpost"


def test_another_users_state_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def command() -> None:
        raise PermissionError(13, "Permission denied", "/srv/other/.clickpost/run")

    with pytest.raises(typer.Exit):
        command()
    said = " ".join(capsys.readouterr().err.split())
    assert "belongs to another user" in said
    assert "/srv/other/.clickpost/run" in said
    assert "CLICKPOST_HOME=FOLDER" in said
