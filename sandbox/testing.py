"""Serves the sandbox inside a test's process, on a free port of loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from sandbox.app import create_app


@contextmanager
def serve(data: Path, *, processing_seconds: float = 0.0) -> Iterator[str]:
    """Serve the sandbox and yield its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(create_app(data, base), log_level="error", http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    httpx.post(f"{base}/control/settings", json={"processing_seconds": processing_seconds})
    try:
        yield base
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
