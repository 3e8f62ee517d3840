"""Log files are packed by size and age while processes write, then deleted; none holds a value."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from clickpost.policy.history import LogFiles
from clickpost.settings import PROJECT, Settings
from deployments import logfiles, worker
from deployments.logfiles import Kept
from deployments.postgres import Postgres

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RULES = LogFiles.model_validate({"rotate_at": "10 kB", "rotate_after": "7 d", "keep_for": "30 d"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def unpacked(home: Path) -> str:
    found = sorted((home / "logs").glob("*.gz"))
    return "".join(gzip.decompress(one.read_bytes()).decode() for one in found)


@contextmanager
def talking(file: Path) -> Iterator[None]:
    """A process that writes numbered lines, as the parts of the stack do."""
    code = (
        "import itertools, time\n"
        "for n in itertools.count(): print(n, ' ' * 200, flush=True); time.sleep(0.001)"
    )
    with file.open("ab") as out, subprocess.Popen([sys.executable, "-c", code], stdout=out) as one:
        try:
            yield
        finally:
            one.terminate()


def test_what_a_process_writes_goes_on_in_the_emptied_file(home: Path) -> None:
    file = home / "logs" / "worker.log"
    with talking(file):
        for number in range(3):
            while not file.exists() or file.stat().st_size < RULES.rotate_at:
                pass
            assert logfiles.keep(home, RULES, NOW + timedelta(seconds=number)).packed == 1
    lines = [int(one) for one in (unpacked(home) + file.read_text()).split()]
    assert lines == sorted(lines)
    assert lines[0] == 0
    assert b"\0" not in file.read_bytes()  # It is appended to, not written at its former end.
    assert lines[-1] + 1 - len(lines) < 50  # What is written in the moment of emptying.
    assert {one.stat().st_mode & 0o777 for one in (home / "logs").glob("*.gz")} == {0o600}


def test_a_small_file_is_packed_when_it_is_old_and_goes_when_it_is_older(home: Path) -> None:
    (home / "logs" / "gateway.log").write_text("a line\n")
    (home / "logs" / "prefect.log").touch()
    assert logfiles.keep(home, RULES, NOW) == Kept()
    assert logfiles.keep(home, RULES, NOW + timedelta(days=6)) == Kept()
    assert logfiles.keep(home, RULES, NOW + timedelta(days=8)) == Kept(packed=1)
    assert unpacked(home) == "a line\n"
    assert logfiles.keep(home, RULES, NOW + timedelta(days=37)) == Kept()
    assert logfiles.keep(home, RULES, NOW + timedelta(days=39)) == Kept(deleted=1)
    assert logfiles.size(home).bytes == 0


def test_the_databases_own_log_and_what_earlier_versions_left_are_kept_as_well(home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "log").write_text("x" * 20_000)
    (home / "logs" / "worker.log.1").write_text("old")
    later = datetime.now(UTC) + timedelta(days=31)
    assert logfiles.keep(home, RULES, later) == Kept(packed=1, deleted=1)
    assert unpacked(home) == "x" * 20_000


def test_two_at_once_pack_a_file_once(home: Path) -> None:
    (home / "logs" / "worker.log").write_text("x" * 20_000)
    with logfiles._alone(home) as first:
        assert first
        assert logfiles.keep(home, RULES, NOW) == Kept()
    assert logfiles.keep(home, RULES, NOW).packed == 1


def test_a_home_without_logs_and_a_broken_policy_stop_nothing(tmp_path: Path) -> None:
    assert logfiles.keep(tmp_path, RULES, NOW) == Kept()
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "prefect_history.yaml").write_text("kind: nonsense")
    assert logfiles.rules(tmp_path) == LogFiles()
    assert logfiles.rules(PROJECT / "policies") == LogFiles()


async def test_a_worker_keeps_the_logs_of_its_machine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.home / "logs").mkdir(parents=True)
    file = settings.home / "logs" / "gateway.log"
    file.write_text("x" * 11_000_000)
    monkeypatch.setattr(worker, "Settings", lambda: settings)
    keeping = asyncio.create_task(worker._kept_logs())
    async with asyncio.timeout(20):
        while file.stat().st_size:
            await asyncio.sleep(0.02)
    keeping.cancel()


def test_the_database_logs_errors_without_the_values_of_rows(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE canary (email text PRIMARY KEY)")
        for _ in range(2):
            try:
                connection.execute("INSERT INTO canary VALUES ('ann-canary@example.org')")
            except psycopg.errors.UniqueViolation:
                break
        else:
            pytest.fail("the second insert was taken")
    log = (postgres.data / "log").read_text(errors="replace")
    assert "canary_pkey" in log
    assert "ann-canary" not in log
