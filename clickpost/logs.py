"""One log for all processes: structlog lines bound with ids, through the standard library.

The lines are rendered before they reach the logger `clickpost`, so that Prefect's run logs carry
the very same ones.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog


def configure(form: str = "console", level: str = "INFO") -> None:
    """Send our lines to standard error as `console` or `json`, from `level` up."""
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # httpx writes whole addresses at INFO, and some platforms take tokens in the query.
    for loud in ("httpx", "httpcore"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    log = logging.getLogger("clickpost")
    if os.environ.get("PREFECT_LOGGING_EXTRA_LOGGERS") == "clickpost":
        return  # Prefect's own handlers write our lines, to the console and to the run's log.
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        log.addHandler(_Console(sys.stderr))
    log.setLevel(level.upper())


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Ours, so that a second `configure` does not add a second one."""


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger for one module; bind ids only, never content."""
    log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"clickpost.{name}")
    return log
