"""Starts, finds and stops the processes of the one-machine stack, each by its id and birth."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from clickpost.errors import Unavailable


@dataclass(frozen=True)
class Part:
    """One process of the stack: its command, its port (0 for none), how to ask if it is well."""

    name: str
    command: tuple[str, ...]
    port: int
    setting: str
    health: str | None
    environment: Mapping[str, str]
    patience: float = 60.0


class Processes:
    """The processes whose ids are kept under `home`/run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runs = home / "run"
        self.logs = home / "logs"

    def running(self, name: str) -> psutil.Process | None:
        """Return the process that we started under `name`, None where it is no more."""
        try:
            kept = json.loads((self.runs / f"{name}.json").read_text())
            process = psutil.Process(kept["pid"])
            # An id is used again by others: the time of birth tells.
            if abs(process.create_time() - kept["born"]) < 1 and process.status() != "zombie":
                return process
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        return None

    def start(self, part: Part) -> psutil.Process:
        """Start a part, detached from this terminal; raise Unavailable where its port is taken."""
        if part.port:
            refuse_taken(part)
        self._no_orphans(part.name)
        log = self.logs / f"{part.name}.log"
        with log.open("ab") as out:  # Appended to, so that it can be emptied while it runs.
            process = subprocess.Popen(
                part.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.home,
                env={**_inherited(), **part.environment},
                start_new_session=True,
            )
        found = psutil.Process(process.pid)
        kept = {"pid": process.pid, "born": found.create_time()}
        (self.runs / f"{part.name}.json").write_text(json.dumps(kept))
        return found

    def _no_orphans(self, name: str) -> None:
        """End what a killed part left running in its session (a worker's ffmpeg)."""
        try:
            session = int(json.loads((self.runs / f"{name}.json").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return
        with contextlib.suppress(psutil.Error):
            if psutil.Process(session).status() != psutil.STATUS_ZOMBIE:
                return  # It lives, or its id is somebody else's by now.
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(one.pid) == session and one.pid != session:
                    one.kill()
                    one.wait(5)

    def wait(self, part: Part, process: psutil.Process, tick: Callable[[], None]) -> None:
        """Wait until the part is well; raise Unavailable with the end of its log where it died."""
        until = time.monotonic() + part.patience
        while not self.is_well(part):
            if not process.is_running() or process.status() == "zombie":
                raise Unavailable(f"{part.name} stopped at its start: {self.last_words(part.name)}")
            if time.monotonic() > until:
                raise Unavailable(
                    f"{part.name} did not answer within {part.patience:.0f} s:"
                    f" {self.last_words(part.name)}"
                )
            tick()
            time.sleep(0.1)

    def is_well(self, part: Part) -> bool:
        """Ask the part itself; one without an address is well while it runs."""
        if part.health is None:
            return self.running(part.name) is not None
        try:
            return httpx.get(part.health, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def last_words(self, name: str) -> str:
        """Return the end of a part's log."""
        log = self.logs / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        words = " / ".join(line.strip() for line in lines[-4:] if line.strip())
        return (words or "it said nothing") + f" (whole log: {log})"

    def stop(self, name: str, patience: float = 25.0) -> bool:
        """Stop a part and its children; return whether it ran. Killed when it takes too long."""
        process = self.running(name)
        if process is None:
            (self.runs / f"{name}.json").unlink(missing_ok=True)
            return False
        family = [process]
        with contextlib.suppress(psutil.Error):
            family += process.children(recursive=True)
            process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs([process], timeout=patience)
        for one in {*left, *family}:
            with contextlib.suppress(psutil.Error):
                if one.is_running():
                    one.kill()
        psutil.wait_procs(family, timeout=5)
        (self.runs / f"{name}.json").unlink(missing_ok=True)
        return True


def refuse_taken(part: Part) -> None:
    """Raise Unavailable where somebody else has the part's port, naming who if it can be seen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", part.port))
        except OSError:
            raise Unavailable(
                f"port {part.port} (for {part.name}) is taken{_holder(part.port)}. Stop that, or"
                f" choose another: {part.setting}=PORT"
            ) from None


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            listening = one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
            if listening and one.pid:
                return f" by process {one.pid} ({psutil.Process(one.pid).name()})"
    return " by another user's process or one that cannot be seen"


def _inherited() -> dict[str, str]:
    """Return our environment without what would lead Prefect astray."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}


def memory_of(process: psutil.Process) -> int:
    """Return the bytes that a process and its children use for themselves (proportional set)."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                info = one.memory_full_info()
                total += int(getattr(info, "pss", None) or info.uss)
    return total


PYTHON = sys.executable
