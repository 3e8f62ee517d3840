"""A mailbox of a real IMAP server (pymap) on loopback, for tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imap_tools import BaseMailBox, MailBoxUnencrypted
from pydantic import SecretStr

from clickpost.settings import Settings
from tests.flows.conftest import free_ports

USER, PASSWORD = "privacy", "canary-password"


@dataclass(frozen=True)
class Mailbox:
    """The server, and the shortest ways to use it."""

    port: int

    def settings(self, given: Settings) -> Settings:
        """Return `given`, with this mailbox as the one that takes requests."""
        return given.model_copy(
            update={
                "imap_host": "127.0.0.1",
                "imap_port": self.port,
                "imap_security": "none",
                "imap_user": USER,
                "imap_password": SecretStr(PASSWORD),
                "privacy_address": "privacy@example.com",
            }
        )

    def opened(self) -> BaseMailBox:
        """Return the mailbox, signed in."""
        return MailBoxUnencrypted("127.0.0.1", self.port, 5).login(USER, PASSWORD)

    def put(self, *mails: bytes) -> None:
        """Let mails arrive."""
        with self.opened() as box:
            for one in mails:
                box.append(one, "INBOX")

    def titles(self) -> list[str]:
        """Return the subjects of all mails in it."""
        with self.opened() as box:
            return [one.subject for one in box.fetch(mark_seen=False)]


@contextmanager
def mailbox(folder: Path) -> Iterator[Mailbox]:
    """Run the server; stop it by its id."""
    made = Mailbox(free_ports(1)[0])
    command = [
        *(str(Path(sys.executable).parent / "pymap"), "--host", "127.0.0.1"),
        *("--port", str(made.port), "--no-tls"),
        *("--no-service", "managesieve", "--no-service", "admin"),
        *("dict", "--demo-user", USER, "--demo-password", PASSWORD),
    ]
    with (folder / "imap.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(made.port)
        yield made
    finally:
        server.terminate()
        server.wait(10)


def _wait(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError("the IMAP server did not start")
