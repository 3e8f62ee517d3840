"""Keeps to limits: those of policies/running, for all workers, and one of the machine's own.

A limit that no policy makes limits nothing, and neither does a Prefect that is away: a post is not
lost for the sake of a limit.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Literal

from clickpost.logs import logger

log = logger("limiting")

#: Our limits in Prefect begin so; all others are somebody else's.
PREFIX = "clickpost:"


@asynccontextmanager
async def encoding() -> AsyncIterator[None]:
    """Hold one of the worker's places for making renditions, once one is free.

    It is the machine's processors that are scarce, so this is no limit of Prefect's: a place there
    outlives a worker that was killed by minutes, and a post would wait for nobody.
    """
    async with _places(asyncio.get_running_loop()):
        yield


@cache
def _places(loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
    return asyncio.Semaphore(max(2, os.cpu_count() or 1))


async def turn(name: Literal["looks"]) -> None:
    """Wait until it is our turn under a limit of so many in a time."""
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError, rate_limit
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:  # Prefect would start a server for it.
        return
    try:
        await rate_limit(PREFIX + name)
    except ConcurrencySlotAcquisitionError as error:
        log.warning("no limit", limit=name, error=type(error).__name__)
