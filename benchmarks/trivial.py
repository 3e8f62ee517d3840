"""The floor of publishing: a flow that does nothing, on the same server and the same worker."""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.client.orchestration import get_client

from deployments.registry import Spec, deploy


@flow(name="trivial")
async def trivial() -> None:
    """Do nothing."""


async def register() -> None:
    """Make Prefect know it."""
    spec = Spec(trivial, "benchmarks.trivial.trivial", "Does nothing; the floor of `bench publish`")
    async with get_client() as client:
        await deploy(client, spec)


if __name__ == "__main__":
    asyncio.run(register())
