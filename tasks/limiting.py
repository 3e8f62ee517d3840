"""Keeps to the limits of policies/running: so many at once, or so many in a time, for all workers.

A limit that no policy makes limits nothing, and neither does a Prefect that is away: a post is not
lost for the sake of a limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Literal

import httpx

from clickpost.logs import logger

log = logger("limiting")

#: Our limits in Prefect begin so; all others are somebody else's.
PREFIX = "clickpost:"


@asynccontextmanager
async def taken(name: Literal["encodes"]) -> AsyncIterator[None]:
    """Hold one of the places of a limit, once one is free."""
    # Only a flow run pays for loading Prefect.
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError, concurrency

    held = AsyncExitStack()
    place = concurrency(PREFIX + name, raise_on_lease_renewal_failure=False)
    try:
        await held.enter_async_context(place)
    except ConcurrencySlotAcquisitionError as error:
        log.warning("no limit", limit=name, error=type(error).__name__)
    try:
        yield
    finally:
        with suppress(httpx.HTTPError):  # The place runs out by itself.
            await held.aclose()


async def turn(name: Literal["looks"]) -> None:
    """Wait until it is our turn under a limit of so many in a time."""
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError, rate_limit

    try:
        await rate_limit(PREFIX + name)
    except ConcurrencySlotAcquisitionError as error:
        log.warning("no limit", limit=name, error=type(error).__name__)
