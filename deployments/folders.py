"""Lets the look of a trigger's folder begin as soon as a file is complete, not at its interval.

The interval stays: it finds what nobody saw, because no worker ran, or none that has the folder.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from clickpost.arrivals import digest
from clickpost.errors import ClickPostError
from clickpost.policy import triggering
from clickpost.policy.arriving import ByFolder
from deployments.triggers import LOOK
from tasks import arrivals

#: Seconds between two glances at names and dates, and between two at the triggers' own files.
GLANCE, POLICIES = 0.5, 5.0
#: Glances at large folders take no more of the time than this share.
SHARE = 0.05


@dataclass
class Watched:
    """The folders of triggers, by the triggers' names; read again when a trigger's file changed."""

    policies: Path
    folders: Mapping[str, ByFolder] = field(default_factory=dict)
    stamps: Sequence[tuple[Path, int]] = ()

    def read(self) -> None:
        """Read what changed; policies that are wrong for the moment have no folders."""
        stamps = []
        for path in sorted((self.policies / triggering.KIND.folder).glob("*.y*ml")):
            with suppress(OSError):  # Somebody may be just replacing it.
                stamps.append((path, path.stat().st_mtime_ns))
        if stamps == self.stamps:
            return
        self.stamps, self.folders = stamps, {}
        with suppress(ClickPostError):
            found = {one.name: one.when for one in triggering.load(self.policies)}
            self.folders = {
                name: when for name, when in found.items() if isinstance(when, ByFolder)
            }

    def complete(self) -> Mapping[str, frozenset[str]]:
        """Return what is complete in each folder that can be read here, by what tells it apart."""
        now, found = datetime.now(UTC), {}
        for trigger, when in self.folders.items():
            with suppress(ClickPostError, OSError):
                found[trigger] = frozenset(one.key for one in arrivals.complete(when, now))
        return found


async def watch(policies: Path) -> None:
    """Let looks begin until cancelled; `policies` is the folder that the triggers are in."""
    watched, read_at = Watched(policies), -POLICIES
    known: dict[str, frozenset[str]] = {}
    while True:
        began = time.monotonic()
        if began - read_at >= POLICIES:
            await asyncio.to_thread(watched.read)
            read_at = began
        there = await asyncio.to_thread(watched.complete)
        for trigger, keys in there.items():
            # What is there at the first glance waits for the interval, as after any pause.
            new = keys - known.get(trigger, keys)
            if not new or await _looks(trigger, new):
                known[trigger] = keys
        took = time.monotonic() - began
        await asyncio.sleep(max(GLANCE if watched.folders else POLICIES, took / SHARE))


async def _looks(trigger: str, new: frozenset[str]) -> bool:
    """Start a look, once for the same files whoever saw them; say whether that is done with."""
    try:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name(f"{LOOK}/{trigger}")
            if deployment.paused:
                return True
            key = f"{trigger} saw {digest(*sorted(new))}"
            await client.create_flow_run_from_deployment(deployment.id, idempotency_key=key)
    except ObjectNotFound:
        return True  # Not applied yet; the first look of its interval takes what is there.
    except httpx.HTTPError:
        return False  # Prefect is away: again at the next glance.
    return True
