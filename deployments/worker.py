"""Runs a warm worker: `python -m deployments.worker --name NAME --limit N`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from contextlib import suppress

from clickpost import logs
from clickpost.errors import Restored, Unavailable
from clickpost.settings import Settings
from clickpost.store import address
from clickpost.store.database import AWAY, refuse_other
from clickpost.store.restores import refuse
from clickpost.store.tombstones import Tombstones
from clickpost.store.vault import Vault
from deployments import folders, logfiles
from deployments.registry import POOL
from deployments.warm_worker import WarmWorker
from tasks import _wiring

#: Seconds between two looks whether the database still is the one that this code is for.
LOOK = 10.0
#: Seconds between two looks at the log files of this machine.
LOG_LOOK = 300.0


async def serve(pool: str, name: str, limit: int, version: str) -> None:
    """Work until told to stop, or the schema is no longer `version`; then finish or hand back."""
    worker = WarmWorker(work_pool_name=pool, name=name, limit=limit)
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    beside = [
        asyncio.create_task(_watch(version, task)),
        asyncio.create_task(_kept_logs()),
        asyncio.create_task(folders.watch(Settings().policies)),
    ]
    try:
        await worker.start()
    except asyncio.CancelledError:
        print(f"worker {name} stopped", flush=True)
    finally:
        for one in beside:
            one.cancel()
        await _wiring.close()


async def _watch(version: str, worker: asyncio.Task[None]) -> None:
    """Stop the worker once the database was brought up to date by newer code, from wherever."""
    while True:
        await asyncio.sleep(LOOK)
        with suppress(*AWAY):
            store = (await _wiring.house()).store
            try:
                await store.refuse_restored()
            except Restored as error:
                print(f"this worker stops: {error}", flush=True)
                worker.cancel()
                return
            found = await store.version()
            if found != version:
                print(f"the database is at version {found} now, and this worker is for {version}:")
                print("it stops. Start it again with the newer ClickPost", flush=True)
                worker.cancel()
                return


async def _kept_logs() -> None:
    """Keep the log files of this machine small and young, whoever writes them."""
    settings = Settings()
    while True:
        with suppress(OSError):  # A full disk, or files of another user: `doctor` tells.
            wanted = await asyncio.to_thread(logfiles.rules, settings.policies)
            await asyncio.to_thread(logfiles.keep, settings.home, wanted)
        await asyncio.sleep(LOG_LOOK)


def main() -> int:
    """Read the command line and work; say why where the database is not for this code."""
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", default=POOL)
    parser.add_argument("--name", default=f"warm-{socket.gethostname()}")
    parser.add_argument("--limit", type=int, default=settings.worker_limit)
    given = parser.parse_args()
    logs.configure(settings.log_format, settings.log_level)
    try:
        version = refuse_other(address(settings))
        refuse(address(settings), Tombstones.of(settings, Vault.of(settings)))
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    asyncio.run(serve(given.pool, given.name, given.limit, version))
    return 0


if __name__ == "__main__":
    sys.exit(main())
