"""The one-machine stack: reused, repaired, refused clearly, and gone without a trace."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from clickpost.errors import Unavailable
from clickpost.settings import PROJECT, Settings
from deployments import stack as stacks
from deployments.postgres import Postgres
from deployments.processes import Part, refuse_taken
from deployments.registry import DEPLOYMENTS
from deployments.stack import Stack
from tests.flows.conftest import free_ports

pytestmark = [pytest.mark.xdist_group("stacks"), pytest.mark.timeout(150)]


def test_a_second_up_reuses_every_part(stack: Stack) -> None:
    before = {one.name: one.pid for one in stack.status()}
    began = time.monotonic()
    after = {one.name: one.pid for one in stack.up(sandbox=True)}
    assert after == before
    assert time.monotonic() - began < 10


def test_a_killed_part_is_repaired_and_the_others_stay(stack: Stack) -> None:
    before = {one.name: one.pid for one in stack.status()}
    pid = before["gateway"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    after = {one.name: one.pid for one in stack.up(sandbox=True)}
    assert after.pop("gateway") not in (None, before.pop("gateway"))
    assert after == before


def test_a_part_that_runs_on_older_code_is_started_anew(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newer = tmp_path / "newer.py"
    newer.write_text("")
    before = {one.name: one.pid for one in stack.status()}
    code = {**stacks._CODE, "gateway": (str(newer),), "worker": (str(newer),)}
    monkeypatch.setattr(stacks, "_CODE", code)
    after = {one.name: one.pid for one in stack.up(sandbox=True)}
    changed = {name for name in before if after[name] not in (None, before[name])}
    assert changed == {"gateway", "worker"}


def test_secrets_of_the_stack_are_in_no_command_line_and_no_open_file(stack: Stack) -> None:
    password = (stack.home / "postgres.password").read_text().strip()
    for one in psutil.process_iter(["cmdline"]):
        assert password not in " ".join(one.info["cmdline"] or [])
    for name in ("postgres.password", "master.key", "database.url", "prefect.url"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0


def test_the_state_is_for_its_owner_alone(stack: Stack) -> None:
    for name in ("media", "demo", "sandbox", "prefect", "logs", "run", "postgres"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root opens folders for PostgreSQL's user.")
def test_folders_above_the_database_stay_unreadable_for_others(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o711)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = Postgres(private / "state", lasting=False)
    try:
        assert server.start()
    finally:
        server.stop()
    assert private.stat().st_mode & 0o777 == 0o711


def test_a_lock_of_another_user_does_not_keep_postgres_from_starting(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    server = Postgres(tmp_path / "state", lasting=False)
    with server._server._lock:  # Held here; where it is another user's, it cannot be opened.
        try:
            assert server.start()
        finally:
            server.stop()


def test_a_taken_port_is_named_with_its_holder_and_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        part = Part("gateway", (), port, "CLICKPOST_GATEWAY_PORT", None, {})
        with pytest.raises(Unavailable) as caught:
            refuse_taken(part)
    assert f"port {port} (for gateway) is taken by process {os.getpid()}" in str(caught.value)
    assert "CLICKPOST_GATEWAY_PORT=PORT" in str(caught.value)


def test_an_up_that_fails_halfway_leaves_no_process(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(home=tmp_path / "home", prefect_port=taken.getsockname()[1])
        with pytest.raises(Unavailable, match="is taken"):
            Stack(settings).up()
    mode = settings.home.stat().st_mode & 0o777
    assert mode == (0o700 if os.geteuid() else 0o711)  # PostgreSQL's own user passes through.
    left = [one for one in psutil.process_iter(["cmdline"]) if _is_of(one, tmp_path)]
    assert left == []


def test_a_home_with_a_space_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"space in its path .* CLICKPOST_HOME"):
        Stack(Settings(home=tmp_path / "my posts")).up()


def test_a_relative_home_is_taken_from_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(home=Path("state")).home == tmp_path / "state"


def test_a_prefect_of_yours_that_is_away_is_named_before_anything_starts(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_ports(1)[0]}/api"
    settings = Settings(home=tmp_path / "home", PREFECT_API_URL=away)
    stack = Stack(settings)
    with pytest.raises(Unavailable, match="PREFECT_API_URL names"):
        stack.up()
    assert not (settings.home / "postgres").exists()
    assert "not answering" in {one.state for one in stack.status() if one.name == "prefect"}


def test_an_existing_server_is_used_by_its_address_and_prefect_sits_beside_us(
    tmp_path: Path,
) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    server = Postgres(tmp_path / "elsewhere", lasting=False)
    server.start()
    prefect, gateway = free_ports(2)
    settings = Settings(
        home=tmp_path / "home",
        database_url=SecretStr(server.url()),
        prefect_port=prefect,
        gateway_port=gateway,
    )
    stack = Stack(settings)
    try:
        stack.up()
        states = {one.name: one.state for one in stack.up()}
        assert states == {
            "postgres": "external",
            "prefect": "running",
            "worker": "running",
            "gateway": "running",
            "sandbox": "stopped",
        }
        assert not (stack.home / "postgres").exists()
        with psycopg.connect(server.url("postgres_prefect")) as connection:
            found = connection.execute("SELECT count(*) FROM deployment").fetchone()
        triggers = list((PROJECT / "policies" / "triggers").glob("*.yaml"))
        assert found == (len(DEPLOYMENTS) + len(triggers),)
    finally:
        stack.down()
        server.stop()


def _is_of(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in word for word in process.info["cmdline"] or [])
