"""All names of Prefect that it does not promise to keep, in one place, so that an upgrade that
breaks them fails in this module and its tests (tests/flows/test_worker.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from time import monotonic
from typing import Any
from uuid import UUID

import prefect.flow_engine
import prefect.results
from prefect._flow_run_suspension import mark_flow_run_suspension_requested
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
    "keep_to_one_thread",
    "mark_flow_run_suspension_requested",
    "remember_result_storage",
]


@contextlib.contextmanager
def _untouched(*_: object, **__: object) -> Iterator[None]:
    yield


def keep_to_one_thread() -> None:
    """Stop flow runs from doing for a whole process what here many runs share.

    SIGTERM is for the worker, which holds many runs. A thread and a client for each run, only to
    hear of its suspension, are not needed: the worker listens for all of them.
    """
    engine: Any = prefect.flow_engine
    engine.capture_sigterm = _untouched
    engine.observe_flow_run_suspension = _untouched


def remember_result_storage(seconds: float = 60.0) -> None:
    """Ask the server once in a while where results go by default, not several times a run.

    Prefect asks with a synchronous client, which stops the event loop that all runs share.
    """
    module: Any = prefect.results
    ask = module._read_server_default_result_storage_block_id
    known: tuple[float, UUID | None] | None = None

    def remembered() -> UUID | None:
        nonlocal known
        if known is None or monotonic() - known[0] > seconds:
            known = (monotonic(), ask())
        return known[1]

    async def aremembered() -> UUID | None:
        return remembered()

    module._read_server_default_result_storage_block_id = remembered
    module._aread_server_default_result_storage_block_id = aremembered
