"""All names of Prefect that it does not promise to keep, in one place, so that an upgrade that
breaks them fails in this module and its tests (tests/flows/test_worker.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import prefect.flow_engine
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.events.clients import get_events_subscriber
from prefect.flow_engine import AsyncFlowRunEngine
from prefect.workers.base import (
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
)

__all__ = [
    "AsyncClientContext",
    "AsyncFlowRunEngine",
    "BaseJobConfiguration",
    "BaseVariables",
    "BaseWorker",
    "BaseWorkerResult",
    "SyncClientContext",
    "get_events_subscriber",
    "keep_signals",
]


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    yield


def keep_signals() -> None:
    """Stop flow runs from catching SIGTERM: here it is for the worker, which holds many runs."""
    engine: Any = prefect.flow_engine
    engine.capture_sigterm = _untouched
