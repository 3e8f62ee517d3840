"""The one-machine stack: PostgreSQL, Prefect server, worker, gateway, sandbox; up, status, down."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from clickpost.errors import InvalidInput, Unavailable
from clickpost.policy import keeping
from clickpost.policy.load import BrokenPolicies
from clickpost.reach import from_here, is_loopback
from clickpost.settings import PROJECT, Settings
from clickpost.store import schema
from clickpost.store.database import is_behind, migrate
from clickpost.store.restores import refuse
from clickpost.store.signer import Signer
from clickpost.store.tombstones import Tombstones
from clickpost.store.vault import Vault
from deployments import prefect_database, runs
from deployments.postgres import Postgres
from deployments.processes import PYTHON, Part, Processes, memory_of
from tasks import elsewhere

Say = Callable[[str], None]

_OURS = ("clickpost", "connectors", "tasks", "flows", "deployments")
#: What each part has read at its start; policies are read anew by each run.
_CODE = {
    "prefect": ("deployments/prefect_server.py", "requirements.lock"),
    "worker": (*_OURS, "requirements.lock"),
    "gateway": (*_OURS, "requirements.lock"),
    "sandbox": ("sandbox", "requirements.lock"),
}
_LEAST_ROOM = 500_000_000
_LEAST_PASSWORD = 16
#: What is under `home` beside the database and the secrets: for our eyes only.
_FOLDERS = ("run", "logs", "prefect", "media", "demo", "sandbox")
#: The order of a stop: who takes work first, who holds the data last.
STOPPING = ("worker", "gateway", "sandbox", "prefect")


@dataclass(frozen=True)
class PartStatus:
    """Where one part stands; `memory` in bytes."""

    name: str
    state: str
    pid: int | None = None
    url: str | None = None
    memory: int = 0
    log: str | None = None


class Stack:
    """The parts that `settings` call for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = settings.home
        self.processes = Processes(settings.home)

    def up(self, *, sandbox: bool = False, say: Say = lambda _: None) -> list[PartStatus]:
        """Start what does not run, reuse what does; what fails halfway is stopped again.

        Raises Unavailable with what to do about it, and InvalidInput where others could reach
        Prefect without a password.
        """
        refuse_open(self.settings)
        self._make_home()
        with self._lock(say):
            started: list[str] = []
            try:
                self._up(sandbox, say, started)
            except BaseException as error:
                for name in reversed(started):
                    self._stop_one(name)
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise Unavailable(f"the disk of {self.home} is full") from None
                raise
        return self.status()

    def down(self, say: Say = lambda _: None) -> list[str]:
        """Stop every part that we started, and return their names."""
        if not self.home.exists():
            return []
        stopped = []
        with self._lock(say):
            for name in (*STOPPING, "postgres"):
                if self._runs(name):
                    say(f"stopping {name}")
                    self._stop_one(name)
                    stopped.append(name)
        return stopped

    def status(self) -> list[PartStatus]:
        """Return where each part stands."""
        found = [self._database_status()]
        for part in self.parts(sandbox=True):
            process = self.processes.running(part.name)
            state = "stopped"
            if process is not None:
                state = "running" if self.processes.is_well(part) else "not answering"
            url = part.health.rsplit("/", 1)[0] if part.health else None
            found.append(
                PartStatus(
                    part.name,
                    state,
                    process.pid if process else None,
                    runs.ui_url(self.settings) if part.name == "prefect" else url,
                    memory_of(process) if process else 0,
                    str(self.processes.logs / f"{part.name}.log") if process else None,
                )
            )
        if self.settings.prefect_api_url:
            state = "external" if runs.answers(self.settings) else "not answering"
            external = PartStatus("prefect", state, url=runs.ui_url(self.settings))
            found.insert(1, external)
        return found

    def parts(self, *, sandbox: bool) -> list[Part]:
        """Return the processes that belong to the stack."""
        parts = []
        if not self.settings.prefect_api_url:
            parts.append(self._prefect())
        parts += [self._worker(), self._gateway()]
        return [*parts, self._sandbox()] if sandbox else parts

    def _up(self, sandbox: bool, say: Say, started: list[str]) -> None:
        if self.settings.prefect_api_url and not runs.answers(self.settings):
            raise runs.silent(self.settings)
        url = self._database(say, started)
        self._make_way(url, say)
        migrate(url)
        refuse_unmapped(self.settings, say)
        refuse(url, Tombstones.of(self.settings, Vault.of(self.settings)))
        wanted = self.parts(sandbox=sandbox)
        waiting = []
        # All but the worker at once; it needs the Prefect server and its deployments.
        for part in [one for one in wanted if one.name != "worker"]:
            stale = self._is_stale(part.name)
            if not stale and self.processes.running(part.name) and self.processes.is_well(part):
                continue
            self.processes.stop(part.name, patience=25 if stale else 5)
            say(f"starting {part.name}")
            started.append(part.name)
            waiting.append((part, self.processes.start(part)))
        Signer.of(self.settings)  # Made now, not by the first who needs it.
        for part, process in waiting:
            self.processes.wait(part, process, lambda: say(f"waiting for {part.name}"))  # noqa: B023
        worker = self._worker()
        if waiting or self.processes.running("worker") is None:
            say("registering flows with Prefect")
            self._register()
        if self.processes.running("worker") is None:
            say("starting worker")
            started.append("worker")
            self.processes.start(worker)

    @contextlib.contextmanager
    def database_alone(self, say: Say = lambda _: None) -> Iterator[str]:
        """Yield the address of our database while nothing else of ours works with it.

        The embedded one is started if need be, and stopped again then. Raises Unavailable where
        a part runs.
        """
        self._make_home()
        with self._lock(say):
            if busy := [name for name in ("worker", "gateway") if self.processes.running(name)]:
                raise Unavailable(f"{' and '.join(busy)} still runs. Run: clickpost down")
            started: list[str] = []
            try:
                yield self._database(say, started)
            finally:
                for name in started:
                    self._stop_one(name)

    def _make_way(self, url: str, say: Say) -> None:
        """Stop who runs on older code before it meets newer tables, or flows that it has not.

        A worker finishes or hands back what it holds. Raises Unavailable, and stops nobody, where
        it is this code that is the older one.
        """
        behind = is_behind(url)
        for name in ("worker", "gateway"):
            if self.processes.running(name) and (behind or self._is_stale(name)):
                say(f"stopping {name}: it runs on older code")
                self.processes.stop(name)

    def _database(self, say: Say, started: list[str]) -> str:
        """Start the embedded PostgreSQL unless a URL names another; return our database's URL."""
        if self.settings.database_url is not None:
            url = self.settings.database_url.get_secret_value()
            if not self.settings.prefect_api_url:
                _write_secret(self.home / "prefect.url", prefect_database.beside(url))
            return url
        server = Postgres(self.home)
        if server.pid() is None:
            say("starting postgres")
            started.append("postgres")
        server.start()
        server.make("clickpost", "prefect")
        url = server.url("clickpost")
        _write_secret(self.home / "database.url", url)
        _write_secret(self.home / "prefect.url", server.url("prefect", "postgresql+asyncpg"))
        return url

    def _database_status(self) -> PartStatus:
        if self.settings.database_url is not None:
            return PartStatus("postgres", "external")
        if not (self.home / "postgres").exists():
            return PartStatus("postgres", "stopped")
        pid = Postgres(self.home).pid()
        if pid is None:
            return PartStatus("postgres", "stopped")
        log = str(self.home / "postgres" / "log")
        return PartStatus("postgres", "running", pid, None, memory_of(psutil.Process(pid)), log)

    def _is_stale(self, name: str) -> bool:
        """Say whether a part runs on code older than what lies here, as after an upgrade."""
        process = self.processes.running(name)
        return process is not None and process.create_time() < _changed_at(_CODE[name])

    def _runs(self, name: str) -> bool:
        if name == "postgres":
            exists = (self.home / "postgres").exists() and self.settings.database_url is None
            return exists and Postgres(self.home).pid() is not None
        return self.processes.running(name) is not None

    def _stop_one(self, name: str) -> None:
        if name == "postgres":
            Postgres(self.home).stop()
        else:
            self.processes.stop(name)

    def _register(self) -> None:
        """Make Prefect know pool, deployments and triggers, in a process with its settings."""
        done = subprocess.run(
            [PYTHON, "-m", "deployments.agreeing"],
            env={**os.environ, **self.prefect_client(), **self._ours()},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise Unavailable(f"Prefect did not take the flows: {last}")

    def _ours(self) -> dict[str, str]:
        """Return our settings for a child process."""
        said = {"CLICKPOST_HOME": str(self.home), "CLICKPOST_HOST": self.settings.host}
        for name in ("prefect_port", "gateway_port", "sandbox_port", "worker_limit"):
            said[f"CLICKPOST_{name.upper()}"] = str(getattr(self.settings, name))
        for name in (
            "prefect_api_url",
            "policies",
            "media",
            "tombstones",
            "public_url",
            "receivers",
            "log_format",
            "log_level",
        ):
            if value := getattr(self.settings, name):
                said[f"CLICKPOST_{name.upper()}"] = str(value)
        for name in (
            "database_url",
            "master_key",
            "master_key_old",
            "signing_key",
            "metrics_token",
        ):
            if secret := getattr(self.settings, name):
                said[f"CLICKPOST_{name.upper()}"] = secret.get_secret_value()
        return said | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}

    def prefect_client(self) -> dict[str, str]:
        """Return what a client of the Prefect server needs to know."""
        said = {
            "PREFECT_API_URL": runs.api_url(self.settings),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_PROFILES_PATH": str(self.home / "prefect" / "profiles.toml"),
            "PREFECT_LOGGING_EXTRA_LOGGERS": "clickpost",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_PREFETCH_SECONDS": "4",
            "DO_NOT_TRACK": "1",
        }
        return said | self._password("PREFECT_API_AUTH_STRING")

    def _password(self, name: str) -> dict[str, str]:
        secret = self.settings.prefect_auth
        return {name: secret.get_secret_value()} if secret else {}

    def _prefect(self) -> Part:
        port = self.settings.prefect_port
        host, api = self.settings.host, f"http://{from_here(self.settings.host)}:{port}/api"
        environment = (
            self.prefect_client()
            | self._ours()
            | self._password("PREFECT_SERVER_API_AUTH_STRING")
            | {
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                # A browser elsewhere asks the host that it got the page from.
                "PREFECT_UI_API_URL": api if is_loopback(host) else "/api",
                "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
                "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "12",
                "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
                # How late it may be seen that something did not happen: five seconds, else.
                "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
            }
        )
        file = self.home / "prefect.url"
        if file.exists():
            environment["PREFECT_API_DATABASE_CONNECTION_URL"] = file.read_text().strip()
        command: tuple[str, ...] = (PYTHON, "-m", "deployments.prefect_server")
        command += ("--host", host, "--port", str(port))
        health = f"{api}/health"
        return Part("prefect", command, port, "CLICKPOST_PREFECT_PORT", health, environment, 120)

    def _worker(self) -> Part:
        command = (PYTHON, "-m", "deployments.worker")
        environment = self._ours() | self.prefect_client()
        return Part("worker", command, 0, "", None, environment)

    def _gateway(self) -> Part:
        port, host = self.settings.gateway_port, self.settings.host
        command = (PYTHON, "-m", "deployments.gateway", "--host", host, "--port", str(port))
        health = f"http://{from_here(host)}:{port}/livez"
        environment = self._ours() | self._password("CLICKPOST_PREFECT_AUTH")
        return Part("gateway", command, port, "CLICKPOST_GATEWAY_PORT", health, environment)

    def _sandbox(self) -> Part:
        port = self.settings.sandbox_port
        data = str(self.home / "sandbox")
        command = (PYTHON, "-m", "sandbox", "--port", str(port), "--data", data)
        health = f"http://127.0.0.1:{port}/healthz"
        return Part("sandbox", command, port, "CLICKPOST_SANDBOX_PORT", health, self._ours())

    def _make_home(self) -> None:
        """Make the state folder, ours alone; say clearly where that cannot be done."""
        try:
            # Run as root, PostgreSQL's own user has to pass through.
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700 if os.geteuid() else 0o711)
            for name in _FOLDERS:
                (self.home / name).mkdir(exist_ok=True, mode=0o700)
            (self.home / "run" / ".probe").write_text("")
        except PermissionError:
            raise Unavailable(
                f"{self.home} belongs to another user. Choose a folder of your own:"
                " CLICKPOST_HOME=FOLDER (and other ports, if that user's stack runs)"
            ) from None
        except OSError as error:
            raise Unavailable(f"{self.home} cannot be used: {error.strerror}") from None
        if self.home.stat().st_uid != os.getuid():
            raise Unavailable(
                f"{self.home} belongs to another user. Choose a folder of your own:"
                " CLICKPOST_HOME=FOLDER"
            )
        free = shutil.disk_usage(self.home).free
        if free < _LEAST_ROOM:
            raise Unavailable(
                f"only {free // 1_000_000} MB are free for {self.home}; ClickPost needs"
                f" {_LEAST_ROOM // 1_000_000} MB"
            )

    @contextlib.contextmanager
    def _lock(self, say: Say) -> Iterator[None]:
        """Let one `up` or `down` work at a time; the next waits and reuses."""
        with (self.home / "lock").open("w") as file:
            waited = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waited:
                        say("another clickpost command is starting or stopping the stack; waiting")
                    waited = True
                    time.sleep(0.2)
            yield


def refuse_open(settings: Settings) -> None:
    """Raise InvalidInput where others would reach our Prefect, and with it all posts, unasked."""
    if settings.prefect_api_url or is_loopback(settings.host):
        return
    user, _, password = (
        settings.prefect_auth.get_secret_value() if settings.prefect_auth else ""
    ).partition(":")
    if not user or len(password) < _LEAST_PASSWORD:
        raise InvalidInput(
            f"CLICKPOST_HOST={settings.host} lets others reach Prefect's UI and API, so they need a"
            " password. Set PREFECT_API_AUTH_STRING=USER:PASSWORD for every clickpost command, the"
            f" password of {_LEAST_PASSWORD} characters or more (openssl rand -hex 24); or leave"
            " CLICKPOST_HOST at 127.0.0.1 and put a reverse proxy with a login in front"
        )


def refuse_unmapped(settings: Settings, say: Say = lambda _: None) -> None:
    """Raise BrokenPolicies, naming each, where a column is in no data map or a map in no table.

    Further databases count as far as they answer: of one that does not, it is said.
    """
    wrong = keeping.disagreements(keeping.load(settings.policies), schema.at_hand(settings))
    further = elsewhere.looked(settings.policies)
    if wrong or further.problems:
        raise BrokenPolicies((*wrong, *further.problems))
    for one in further.warnings:
        say(f"look at it: {one.said}")


def _changed_at(names: tuple[str, ...]) -> float:
    """Return when the newest file of the project's folders or files `names` was written."""
    there = [PROJECT / name for name in names]
    files = [file for one in there for file in ([one] if one.is_file() else one.rglob("*.py"))]
    return max((file.stat().st_mtime for file in files), default=0.0)


def _write_secret(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    fresh.replace(path)
