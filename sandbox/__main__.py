"""Serves the sandbox: `python -m sandbox --port 4290 --data FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from sandbox.app import create_app


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4290)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    app = create_app(given.data, f"http://{given.host}:{given.port}")
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning", http="h11")


if __name__ == "__main__":
    main()
