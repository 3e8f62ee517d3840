"""A stack of its own for a benchmark: temporary home, free ports, instant sandbox platforms."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx
from ruamel.yaml import YAML

from clickpost.draft import PostFile
from clickpost.media import Cache
from clickpost.policy.load import load_platforms
from clickpost.settings import Settings
from clickpost.store import Store
from connectors._api import client
from deployments import runs
from deployments.stack import Stack
from tasks import connecting, intake

_ENDS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_well() -> Iterator[None]:
    """Let what is asked to end meanwhile (by SIGTERM, or with its terminal) clean up after itself.

    Ctrl-C does so anyway. Elsewhere than in the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, _end) for one in _ENDS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nobody who is impatient leave behind what is being stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (*_ENDS, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def settings(**more: str) -> Iterator[Settings]:
    """Yield settings for a home that goes away afterwards; this process reads the same ones.

    `more` are others than those of place and ports, by their names in the environment without
    CLICKPOST_: the stack's processes have them too.
    """
    with ended_well(), tempfile.TemporaryDirectory(prefix="clickpost-bench-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where we are root.
        ports = _free_ports(3)
        names = ("PREFECT_PORT", "GATEWAY_PORT", "SANDBOX_PORT")
        said = {f"CLICKPOST_{name}": str(port) for name, port in zip(names, ports, strict=True)}
        said |= {"CLICKPOST_HOME": folder, "CLICKPOST_LOG_LEVEL": "WARNING"}
        said |= {f"CLICKPOST_{name}": value for name, value in more.items()}
        before = {name: os.environ.get(name) for name in said}
        os.environ.update(said)
        try:
            yield Settings()
        finally:
            _restored(before)


@contextmanager
def unlimited_policies() -> Iterator[Path]:
    """Yield a copy of the policies in which no budget ends and no guard trips.

    Settings made meanwhile use it: for benchmarks that send more in minutes than any account
    may in a day.
    """
    yaml = YAML()
    with tempfile.TemporaryDirectory(prefix="clickpost-policies-") as folder:
        copy = Path(folder) / "policies"
        shutil.copytree(Settings().policies, copy)
        for path in sorted((copy / "platforms").glob("*.yaml")):
            policy = yaml.load(path)
            for one in policy["budget"]:
                one["total"] = 10**9
            policy["burst"]["posts"] = 10**9
            if "quota" in policy["capabilities"]:  # The platform's own word would win.
                policy["capabilities"].remove("quota")
            with path.open("w") as file:
                yaml.dump(policy, file)
        before = {"CLICKPOST_POLICIES": os.environ.get("CLICKPOST_POLICIES")}
        os.environ["CLICKPOST_POLICIES"] = str(copy)
        try:
            yield copy
        finally:
            _restored(before)


def _restored(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@contextmanager
def stack(given: Settings) -> Iterator[Stack]:
    """Yield a running stack."""
    with stopped(given) as made:
        made.up(sandbox=True)
        yield made


@contextmanager
def stopped(given: Settings) -> Iterator[Stack]:
    """Yield a stack that does not run yet; it does not run afterwards, however that comes."""
    made = Stack(given)
    with ended_well():
        try:
            yield made
        finally:
            with _undisturbed():
                made.down()


@dataclass(frozen=True)
class House:
    """The store of the stack and the doors to its sandbox and its Prefect server."""

    settings: Settings
    store: Store
    http: httpx.AsyncClient

    @property
    def sandbox(self) -> str:
        """Where the sandbox platforms are."""
        return f"http://127.0.0.1:{self.settings.sandbox_port}"

    async def post(self, text: str, *to: str, **more: Any) -> str:
        """Take a post in and return its id."""
        post = PostFile(text=text, to=list(to), **more)
        targets = await intake.targets(self.store, post.to)
        cache = Cache(self.settings.media_root)
        return (await intake.take_in(self.store, cache, post, [], targets)).post_id

    async def prefect(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask Prefect's API."""
        answer = await self.http.post(f"{runs.api_url(self.settings)}{path}", json=dict(body))
        answer.raise_for_status()
        return answer.json()

    async def connect(self) -> None:
        """Connect the sandbox's accounts, or connect them again."""
        platforms = load_platforms(self.settings.policies)
        for row in (await self.http.get(f"{self.sandbox}/control/accounts")).json():
            wish = connecting.Wish(
                row["platform"], row["name"], row["credentials"], row["api_base"], row["options"]
            )
            await connecting.connect(self.store, self.http, platforms[row["platform"]], wish)

    async def received(self) -> list[dict[str, Any]]:
        """Return the sandbox's own record of what was posted."""
        return list((await self.http.get(f"{self.sandbox}/control/posts")).json())


@asynccontextmanager
async def house(given: Settings) -> AsyncIterator[House]:
    """Yield the stack's store with the sandbox accounts connected."""
    store = await Store.of(given)
    async with client() as http:
        made = House(given, store, http)
        calm = {"processing_seconds": 0}
        await http.post(f"{made.sandbox}/control/settings", json=calm)
        await made.connect()
        yield made
    await store.close()
