"""The sandbox platforms over real HTTP, an account for each, and media that they take."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import pytest
from PIL import Image

import connectors
from clickpost.contract import Account, Kind, MediaFile
from clickpost.policy.load import load_platforms
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import PROJECT
from connectors._api import client
from sandbox.testing import serve

pytest.register_assert_rewrite("tests.contract.promises")

POLICIES = load_platforms(PROJECT / "policies")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture and a clip of three and a half seconds."""
    folder = tmp_path_factory.mktemp("media")
    Image.new("RGB", (640, 640), "teal").save(folder / "picture.jpg")
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi"),
        *("-i", "testsrc2=size=320x568:rate=30:duration=3.5", "-f", "lavfi"),
        *("-i", "sine=frequency=440:duration=3.5", "-pix_fmt", "yuv420p", "-preset", "ultrafast"),
        *("-c:v", "libx264", "-c:a", "aac", "-movflags", "+faststart", str(folder / "clip.mp4")),
    ]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[str]:
    """A sandbox of its own."""
    with serve(tmp_path / "sandbox") as base:
        yield base


@pytest.fixture
def http() -> httpx.AsyncClient:
    """The client that all connectors share."""
    return client()


def picture(files: Path, url: str | None = None, alt: str = "A teal square") -> MediaFile:
    """A picture as a connector gets it."""
    path = files / "picture.jpg"
    return MediaFile(
        Kind.IMAGE, path, "image/jpeg", path.stat().st_size, 640, 640, "0", alt=alt, url=url
    )


def clip(files: Path) -> MediaFile:
    """A clip as a connector gets it."""
    path = files / "clip.mp4"
    size = path.stat().st_size
    return MediaFile(Kind.VIDEO, path, "video/mp4", size, 320, 568, "0", 3.5, alt="A test picture")


async def connected(
    base: str,
    platform: str,
    http: httpx.AsyncClient,
    policy: PlatformPolicy | None = None,
    make: Callable[..., Any] = connectors.connector,
    **options: str,
) -> Any:
    """Return a connector for the sandbox's account, signed in as `clickpost connect` does."""
    policy = policy or POLICIES[platform]
    rows = (await http.get(f"{base}/control/accounts")).json()
    row = next(row for row in rows if row["platform"] == platform)
    account = Account(
        connection_id="conn_test",
        platform=platform,
        api_base=row["api_base"],
        secrets=row["credentials"],
        options=row["options"] | options,
    )
    made = make(account, policy, http)
    if "sign_in" in policy.capabilities:
        tokens = await made.sign_in()
        account = replace(account, secrets={**account.secrets, **tokens.secrets})
        made = make(account, policy, http)
    who = await made.whoami()
    account = replace(account, remote_id=who.remote_id, handle=who.handle)
    return make(account, policy, http)
