"""Removes what Prefect's records say of somebody who is erased, and looks again after the run."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from clickpost.certificate import Outcome
from clickpost.logs import logger
from clickpost.settings import Settings
from clickpost.store import history as stored
from clickpost.store import traces
from clickpost.store.erasing import Erasing
from clickpost.store.tables import Erasure
from clickpost.store.traces import Removed, Traces
from tasks import history
from tasks._wiring import House

log = logger("traces")

WHAT = "Runs, task runs, logs, artifacts and events of Prefect that carry their ids."


def remains(settings: Settings) -> list[str]:
    """Say what stays where Prefect's server is somebody else's: nothing of its database is ours."""
    if settings.prefect_api_url is None or history.address(settings) is not None:
        return []
    return ["Records of our runs, which hold ids and no value, stay until they expire there."]


async def note(house: House, rows: Sequence[Erasure], erasing: Erasing) -> None:
    """Write down by which ids Prefect may know whom is erased, while their rows are there."""
    if history.address(house.settings) is not None:
        await Traces.beside(house.store).note(rows, erasing)


async def remove(house: House, rows: Sequence[Erasure]) -> list[Outcome]:
    """Remove what Prefect remembers of whom is erased, in one look; say what went.

    The run that does this stays until it has ended: `after` removes it then. Where Prefect's
    database does not answer, that stands in the way.
    """
    address = history.address(house.settings)
    if address is None:
        return []
    ids = [row.id for row in rows]
    try:
        removed = await _removed(Traces.beside(house.store), address, ids)
    except psycopg.Error as error:
        why = f"Prefect's database refused: {type(error).__name__}"
        return [Outcome("prefect", WHAT, "unreachable", 1, why)]
    log.info("removed", erasures=ids, counts=dict(removed.counts))
    said = ["runs at work go once they have ended"] if removed.at_work else []
    said += [f"counted for all {len(ids)} that were erased together"] if len(ids) > 1 else []
    return [Outcome("prefect", WHAT, "erased", removed.total, "; ".join(said) or None)]


async def _removed(store: Traces, address: str, erasure_ids: list[str]) -> Removed:
    async with stored.opened(address) as connection:
        return await traces.remove(connection, store.words(erasure_ids))


async def after(house: House) -> int:
    """Look again for all who are erased, in one go; forget the ids that Prefect no longer has.

    Returns how many erasures are through with it.
    """
    store = Traces.beside(house.store)
    address, due = history.address(house.settings), list(await store.traced())
    if not due:
        return 0
    if address is None:
        await store.forget(due, Removed())
        return len(due)
    try:
        removed = await _removed(store, address, due)
    except psycopg.Error as error:
        log.warning("not looked", error=type(error).__name__)
        return 0
    if removed.at_work:
        return 0
    await store.forget(due, removed)
    return len(due)
