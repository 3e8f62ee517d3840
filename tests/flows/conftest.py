"""The whole one-machine stack, started once as a user starts it, on ports of its own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import pytest
import pytest_asyncio

from benchmarks import _places
from clickpost.delivery import SETTLED
from clickpost.draft import MediaItem, PostFile
from clickpost.media import Cache
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT, Settings
from clickpost.store import DeliveryLine, Store
from connectors._api import client
from deployments import runs
from deployments.stack import Stack
from tasks import connecting, intake


def free_ports(number: int) -> list[int]:
    """Return ports of loopback that nobody has."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class House:
    """A running stack, and the shortest ways to use it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings, self.store = settings, store
        self.sandbox = f"http://127.0.0.1:{settings.sandbox_port}"
        self.http = httpx.Client(timeout=20)

    def api(self, method: str, path: str, **request: Any) -> Any:
        """Call Prefect's API."""
        answer = self.http.request(method, runs.api_url(self.settings) + path, **request)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def order(self, platform: str, what: str, step: str = "*", **more: Any) -> None:
        """Let the sandbox misbehave."""
        said = {"platform": platform, "what": what, "step": step, **more}
        self.http.post(f"{self.sandbox}/control/misbehave", json=said).raise_for_status()

    def there(self, text: str) -> list[dict[str, Any]]:
        """Return what the sandbox has of a text."""
        rows = self.http.get(f"{self.sandbox}/control/posts").json()
        return [row for row in rows if row["text"].startswith(text)]

    async def post(
        self,
        text: str,
        *to: str,
        media: tuple[Path, ...] = (),
        draft: bool = False,
        **more: Any,
    ) -> str:
        """Take a post in."""
        items = [MediaItem(file=str(path), alt="what it shows") for path in media]
        post = PostFile(text=text, media=items, to=list(to), **more)
        targets = await intake.targets(self.store, post.to)
        looked = await intake.look(post, Path())
        cache = Cache(self.settings.media_root)
        made = await intake.take_in(self.store, cache, post, looked, targets, draft=draft)
        return made.post_id

    async def connect(self) -> None:
        """Connect (again) the sandbox's accounts."""
        platforms = load_platforms(self.settings.policies)
        async with client() as http:
            for row in self.http.get(f"{self.sandbox}/control/accounts").json():
                wish = connecting.Wish(
                    row["platform"],
                    row["name"],
                    row["credentials"],
                    row["api_base"],
                    row["options"],
                )
                made = await connecting.connect(self.store, http, platforms[row["platform"]], wish)
                # All tests of the session share these accounts: the guard is for people's.
                await self.store.set_burst(made.id, 10_000)

    def run(self, flow: str, post_id: str) -> str:
        """Start a run about a post."""
        return runs.start(self.settings, flow, {"post": {"post_id": post_id}})

    async def settled(self, post_id: str, within: float = 60) -> dict[str, DeliveryLine]:
        """Wait until every delivery of the post has ended."""
        for _ in range(int(within / 0.2)):
            lines = await self.store.lines(post_id)
            if all(line.state in SETTLED for line in lines):
                return {line.ref: line for line in lines}
            await asyncio.sleep(0.2)
        raise AssertionError([(line.ref, line.state, line.reason) for line in lines])

    async def ended(self, run_id: str, within: float = 60) -> dict[str, Any]:
        """Wait until a flow run has ended, and return it."""
        for _ in range(int(within / 0.2)):
            run = self.api("GET", f"/flow_runs/{run_id}")
            if run["state_type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
                return dict(run)
            await asyncio.sleep(0.2)
        raise AssertionError(run["state"])

    async def until(self, holds: Callable[[], bool], within: float = 30) -> None:
        """Wait until something holds."""
        for _ in range(int(within / 0.1)):
            if holds():
                return
            await asyncio.sleep(0.1)
        raise AssertionError("it never held")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with its own home and ports, stopped at the end."""
    prefect, gateway, sandbox = free_ports(3)
    home = tmp_path_factory.mktemp("stack")
    for folder in (home, *home.parents[:3]):
        folder.chmod(0o755)  # PostgreSQL runs as another user where we are root.
    # Its own copy: a test may change a policy.
    shutil.copytree(PROJECT / "policies", home / "policies")
    settings = Settings(
        home=home,
        policies=home / "policies",
        prefect_port=prefect,
        gateway_port=gateway,
        sandbox_port=sandbox,
        receivers="127.0.0.1",
    )
    made = Stack(settings)
    with pytest.MonkeyPatch.context() as patched:  # The worker reads a mailbox's credentials there.
        patched.setenv("CLICKPOST_MAILBOX_STACK_USER", _places.USER)
        patched.setenv("CLICKPOST_MAILBOX_STACK_PASSWORD", _places.PASSWORD)
        made.up(sandbox=True)
        yield made
        made.down()


@pytest_asyncio.fixture
async def house(stack: Stack) -> AsyncIterator[House]:
    """The stack with four accounts connected and a calm sandbox."""
    store = await Store.of(stack.settings)
    made = House(stack.settings, store)
    made.http.delete(f"{made.sandbox}/control/misbehave")
    made.http.post(f"{made.sandbox}/control/settings", json={"processing_seconds": 0.3})
    await made.connect()
    yield made
    await store.close()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of three and a half seconds."""

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i"),
        *("testsrc2=size=320x568:rate=30:duration=3.5", "-pix_fmt", "yuv420p", "-c:v", "libx264"),
        *("-preset", "ultrafast", str(path)),
    ]
    subprocess.run(command, check=True)
    return path
