"""Places where something arrives by real means: a feed over HTTP, a mailbox of an IMAP server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from imap_tools import MailBoxUnencrypted

from clickpost.errors import Unavailable

USER, PASSWORD = "desk", "a-password-of-nobody"


class Blog:
    """A feed on loopback, which knows what its readers have; `answers` are the statuses it gave."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.answers: list[int] = []
        blog = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body, mark = blog.body(), f'"{len(blog.entries)}"'
                status = 304 if self.headers.get("If-None-Match") == mark else 200
                blog.answers.append(status)
                self.send_response(status)
                self.send_header("ETag", mark)
                self.send_header("Content-Type", "application/rss+xml")
                self.end_headers()
                self.wfile.write(body if status == 200 else b"")

            def log_message(self, *given: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/feed.xml"

    def body(self) -> bytes:
        """Return the feed, its newest entry first."""
        items = "".join(
            f"<item><guid>{one}</guid><title>{one}</title><link>https://a.example/{one}</link>"
            "</item>"
            for one in reversed(self.entries)
        )
        return f'<rss version="2.0"><channel><title>b</title>{items}</channel></rss>'.encode()


@contextmanager
def blog() -> Iterator[Blog]:
    """Serve a feed without entries."""
    made = Blog()
    serving = threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True)
    serving.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


@contextmanager
def imap_server(folder: Path, user: str = USER, password: str = PASSWORD) -> Iterator[int]:
    """Run a real IMAP server (pymap) with one empty mailbox, its log in `folder`; yield its port.

    Raises Unavailable where pymap, which comes with the packages for development, is not there.
    """
    program = shutil.which("pymap", path=Path(sys.executable).parent)
    if program is None:
        raise Unavailable("pymap is not installed: it comes with the packages for development")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        *(program, "--host", "127.0.0.1", "--port", str(port), "--no-tls"),
        *("--no-service", "managesieve", "--no-service", "admin"),
        *("dict", "--demo-user", user, "--demo-password", password),
    ]
    with (folder / "imap.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(port)
        yield port
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


def put_mail(port: int, message_id: str) -> None:
    """Let a mail arrive that a person wrote."""
    mail = f"From: ann@example.org\r\nMessage-ID: <{message_id}>\r\nSubject: Hi\r\n\r\nHello.\r\n"
    with MailBoxUnencrypted("127.0.0.1", port, 5).login(USER, PASSWORD) as box:
        box.append(mail.encode(), "INBOX")
