"""The way into the command line; whoever stops it while it still loads sees no traceback."""

from __future__ import annotations

import sys


def run() -> None:
    """Load the command line and run it."""
    try:
        from cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    main.run()
