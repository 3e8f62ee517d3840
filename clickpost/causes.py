"""Which run does what is done just now, so that what follows from it can be told from a cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_run: ContextVar[str | None] = ContextVar("run", default=None)


@contextmanager
def by(run_id: str) -> Iterator[None]:
    """Say that the run `run_id` does what is done meanwhile."""
    token = _run.set(run_id)
    try:
        yield
    finally:
        _run.reset(token)


def run() -> str | None:
    """Return the run that does this; None where no run does."""
    return _run.get()
