"""Joins the parts: one store, one HTTP client and one set of policies for a process."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

import connectors
from clickpost import logs
from clickpost.budget import Reading
from clickpost.contract import Account
from clickpost.media import Cache
from clickpost.policy.load import BrokenPolicies, load_platforms, narrowed
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import Connection
from clickpost.store.vault import Vault
from connectors._api import client

#: The platform policies with which the run that is going now began.
_begun_with: ContextVar[Mapping[str, PlatformPolicy] | None] = ContextVar("policies", default=None)


@contextmanager
def one_version(policies: Path) -> Iterator[None]:
    """Let all that is done inside follow the policies as they are now, whatever changes meanwhile.

    Policies that are broken now are none: whoever asks for one then is told why.
    """
    try:
        now = load_platforms(policies)
    except BrokenPolicies:
        now = None
    token = _begun_with.set(now)
    try:
        yield
    finally:
        _begun_with.reset(token)


@dataclass(frozen=True)
class House:
    """What every task needs, opened once for each event loop."""

    settings: Settings
    store: Store
    vault: Vault
    client: httpx.AsyncClient
    cache: Cache
    name: str

    def holder(self) -> str:
        """Return a new name to hold a lease under: two steps of one process never share one."""
        return f"{self.name}#{secrets.token_hex(4)}"

    def policy(self, connection: Connection) -> PlatformPolicy:
        """Return the platform's policy, narrowed by what the account's own server told.

        Within `one_version` it is the one with which that began.
        """
        platforms = _begun_with.get() or load_platforms(self.settings.policies)
        return narrowed(platforms[connection.platform], connection.limits or {})

    def connector(
        self,
        account: Account,
        policy: PlatformPolicy,
        heard: Callable[[Reading], None] | None = None,
    ) -> object:
        """Return the connector that speaks for `account`; `heard` gets what answers tell."""
        return connectors.connector(account, policy, self.client, heard)


#: Seconds for which a step waits for a database that is away, before it fails.
PATIENCE = 60.0
#: Names of holders whose step ended without a word to the database: what they held is free.
_left: set[str] = set()


def leave(holder: str) -> None:
    """Remember that nobody holds a lease under this name any more, which the row cannot say."""
    _left.add(holder)


_houses: dict[asyncio.AbstractEventLoop, House] = {}
_opening = asyncio.Lock()


async def house() -> House:
    """Return the process's house, opening it on first use."""
    loop = asyncio.get_running_loop()
    if found := _houses.get(loop):
        return found
    async with _opening:
        if loop not in _houses:
            _houses[loop] = await _open(Settings())
    return _houses[loop]


async def _open(settings: Settings) -> House:
    logs.configure(settings.log_format, settings.log_level)
    return House(
        settings=settings,
        store=await Store.of(settings, patience=PATIENCE),
        vault=Vault.of(settings),
        client=client(),
        cache=Cache(settings.media_root),
        name=_name_of(psutil.Process(os.getpid())),
    )


def _name_of(process: psutil.Process) -> str:
    """Return the name under which a process holds leases: an id alone is used again by others."""
    return f"{socket.gethostname()}:{process.pid}:{int(process.create_time())}"


def is_dead(owner: str) -> bool:
    """Say whether the lease's owner is a process of this machine that is no more.

    Or whether its step here has ended. Of another machine's processes nothing is known: their
    leases run out.
    """
    if owner in _left:
        return True
    host, _, rest = owner.partition("#")[0].rpartition(":")[0].rpartition(":")
    born = owner.partition("#")[0].rpartition(":")[2]
    if host != socket.gethostname() or not (rest.isdigit() and born.isdigit()):
        return False
    try:
        # The clock may have been set since: a birth moves by it.
        return abs(psutil.Process(int(rest)).create_time() - int(born)) > 2
    except psutil.Error:
        return True


async def close() -> None:
    """Close what this loop opened."""
    if found := _houses.pop(asyncio.get_running_loop(), None):
        await found.client.aclose()
        await found.store.close()
