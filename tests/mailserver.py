"""A small IMAP server on loopback: one mailbox, one user, what a reader of new mails asks for."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class MailServer:
    """Its mails by UID; `seen` is every command that came in, without the password."""

    user: str = "desk"
    password: str = "canary-password-1"
    validity: int = 7
    mails: dict[int, bytes] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    port: int = 0
    trusted: ssl.SSLContext | None = None
    """Its certificate, where it speaks TLS."""
    upgrades: bool = False
    """True: only after STARTTLS, which it offers; no password is taken before."""

    def add(self, head: str, body: str = "canary body") -> None:
        """Let a mail come in."""
        mail = f"{head.strip()}\n\n{body}\n".replace("\n", "\r\n").encode()
        self.mails[max(self.mails, default=0) + 1] = mail

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK ready\r\n")
        while line := (await reader.readline()).decode().strip():
            tag, _, command = line.partition(" ")
            name = command.upper()
            self.seen.append("LOGIN" if name.startswith("LOGIN") else command)
            state = b"OK"
            if name == "CAPABILITY":
                offers = " STARTTLS" if self.upgrades else ""
                writer.write(f"* CAPABILITY IMAP4rev1 AUTH=PLAIN{offers}\r\n".encode())
            elif name == "STARTTLS":
                writer.write(f"{tag} OK begin\r\n".encode())
                await writer.start_tls(self.trusted)
                continue
            elif name == "AUTHENTICATE PLAIN":
                writer.write(b"+ \r\n")
                said = base64.b64decode(await reader.readline()).decode()
                state = b"OK" if said == f"\0{self.user}\0{self.password}" else b"NO"
            elif name.startswith("LOGIN"):
                right = f'"{self.user}" "{self.password}"'
                state = b"OK" if command.partition(" ")[2].strip() == right else b"NO"
            elif name == "LOGOUT":
                writer.write(b"* BYE\r\n")
            elif name.startswith("STATUS"):
                following = max(self.mails, default=0) + 1
                told = f"UIDVALIDITY {self.validity} UIDNEXT {following}"
                writer.write(f'* STATUS "INBOX" ({told})\r\n'.encode())
            elif name.startswith(("SELECT", "EXAMINE")):
                writer.write(f"* {len(self.mails)} EXISTS\r\n".encode())
            elif match := re.match(r"UID SEARCH UID (\d+):\*", name):
                found = [uid for uid in self.mails if uid >= int(match[1])]
                found = found or sorted(self.mails)[-1:]  # So the standard has it.
                writer.write(f"* SEARCH {' '.join(map(str, found))}\r\n".encode())
            elif match := re.match(r"UID FETCH ([\d,]+)", name):
                for uid in map(int, match[1].split(",")):
                    head = self.mails[uid].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                    told = f"UID {uid} RFC822.SIZE {len(self.mails[uid])} BODY[HEADER]<0>"
                    writer.write(f"* {uid} FETCH ({told} {{{len(head)}}}\r\n".encode())
                    writer.write(head + b")\r\n")
            writer.write(f"{tag} ".encode() + state + b" done\r\n")
            await writer.drain()
            if name == "LOGOUT":
                break
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[MailServer]:
        """Serve on a free port of loopback."""
        at_once = None if self.upgrades else self.trusted
        server = await asyncio.start_server(self.talk, "127.0.0.1", 0, ssl=at_once)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
