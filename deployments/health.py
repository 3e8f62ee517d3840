"""Asks the parts of the house how they are: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from clickpost.settings import Settings
from clickpost.store import Store
from deployments import runs

#: A worker is heard of each half minute; Prefect takes one for gone after three silent ones.
SILENT_AFTER = timedelta(seconds=90)
#: Less room than this and the next video, or the database, fails.
LEAST_ROOM = 500_000_000
#: Clocks that are further apart make posts early or late, and signatures old.
MOST_SKEW = timedelta(seconds=2)
_PATIENCE = 5.0


@dataclass(frozen=True)
class Part:
    """How one part is: `says` names no host, path or person; `do` is for operators."""

    name: str
    well: bool
    says: str = "ok"
    do: str = ""


@dataclass(frozen=True)
class Heard:
    """What Prefect said: each worker's last sign of life, and Prefect's clock less ours."""

    workers: dict[str, datetime]
    skew: timedelta | None


def prefect_client(settings: Settings) -> httpx.AsyncClient:
    """Return a client of Prefect's API."""
    return httpx.AsyncClient(
        base_url=runs.api_url(settings),
        auth=runs.auth(settings),
        timeout=_PATIENCE,
        trust_env=False,
    )


async def hear(http: httpx.AsyncClient) -> Heard:
    """Ask Prefect for its workers; raise httpx.HTTPError where it does not tell."""
    begun = datetime.now(UTC)
    answer = await http.post(f"/work_pools/{runs.POOL}/workers/filter", json={})
    answer.raise_for_status()
    workers = {
        str(one["name"]): datetime.fromisoformat(one["last_heartbeat_time"])
        for one in answer.json()
        if one.get("last_heartbeat_time")
    }
    return Heard(workers, _skew(answer, begun + (datetime.now(UTC) - begun) / 2))


def _skew(answer: httpx.Response, ours: datetime) -> timedelta | None:
    """Return by how much a server's clock is ahead of `ours`; whole seconds are all it tells."""
    try:
        # It says the second that had begun: in the mean that is half a second ago.
        theirs = parsedate_to_datetime(answer.headers["date"]) + timedelta(seconds=0.5)
    except (KeyError, ValueError):
        return None
    return theirs - ours


async def look(settings: Settings, store: Store, http: httpx.AsyncClient) -> list[Part]:
    """Return how database, Prefect, workers and disk are, all asked at once."""
    known, heard = await asyncio.gather(database(store), prefect(http))
    return [known, *heard, disk(settings)]


async def database(store: Store) -> Part:
    """Say whether the database answers, in time."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await store.ping()
    except Exception as error:  # Whatever its driver raises: it does not answer.
        do = "start it (clickpost up), or look at its log"
        return Part("database", False, f"does not answer ({type(error).__name__})", do)
    return Part("database", True)


async def prefect(http: httpx.AsyncClient) -> list[Part]:
    """Say whether Prefect answers, and whether a worker was heard of lately."""
    unknown = Part("worker", False, "nobody knows: Prefect does not tell", "see prefect")
    try:
        heard = await hear(http)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        return [Part("prefect", False, f"answers {status}", _to_do(status)), unknown]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        do = "start it (clickpost up), or look at its log"
        return [Part("prefect", False, f"does not answer ({type(error).__name__})", do), unknown]
    return [Part("prefect", True), worker(heard.workers.values(), datetime.now(UTC))]


def _to_do(status: int) -> str:
    if status in (401, 403):
        return "give its password: PREFECT_API_AUTH_STRING=USER:PASSWORD, then down and up"
    if status == httpx.codes.NOT_FOUND:
        return "it does not know our work pool: clickpost up"
    return "look at its log"


def worker(beats: Iterable[datetime], now: datetime) -> Part:
    """Say whether one of the workers was heard of lately: without one, nothing is sent."""
    last = max(beats, default=None)
    do = "start one (clickpost up), or look at its log; until then nothing is sent"
    if last is None:
        return Part("worker", False, "none was heard of yet", do)
    silent = now - last
    if silent > SILENT_AFTER:
        return Part("worker", False, f"silent for {silent.total_seconds():.0f} s", do)
    return Part("worker", True)


def disk(settings: Settings) -> Part:
    """Say whether there is room for renditions, and for an embedded database."""
    for path in (settings.home, settings.media_root):
        place = next((one for one in (path, *path.parents) if one.exists()), path)
        free = shutil.disk_usage(place).free
        if free < LEAST_ROOM:
            do = f"free some room on the disk of {path}"
            return Part("disk", False, f"{free // 1_000_000} MB are free", do)
    return Part("disk", True)
