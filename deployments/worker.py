"""Runs a warm worker: `python -m deployments.worker --name NAME --limit N`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket

from clickpost import logs
from clickpost.settings import Settings
from deployments.registry import POOL
from deployments.warm_worker import WarmWorker
from tasks import _wiring


async def serve(pool: str, name: str, limit: int) -> None:
    """Work until told to stop; then hand back what is unfinished."""
    worker = WarmWorker(work_pool_name=pool, name=name, limit=limit)
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await worker.start()
    except asyncio.CancelledError:
        print(f"worker {name} stopped", flush=True)
    finally:
        await _wiring.close()


def main() -> None:
    """Read the command line and work."""
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", default=POOL)
    parser.add_argument("--name", default=f"warm-{socket.gethostname()}")
    parser.add_argument("--limit", type=int, default=settings.worker_limit)
    given = parser.parse_args()
    logs.configure(settings.log_format, settings.log_level)
    asyncio.run(serve(given.pool, given.name, given.limit))


if __name__ == "__main__":
    main()
