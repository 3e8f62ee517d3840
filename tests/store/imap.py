"""A mailbox of a real IMAP server (pymap) on loopback, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imap_tools import BaseMailBox, MailBoxUnencrypted
from pydantic import SecretStr

from benchmarks._places import imap_server
from clickpost.settings import Settings

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
    with imap_server(folder, USER, PASSWORD) as port:
        yield Mailbox(port)
