"""The cache: what is there is whole, whoever was interrupted, killed or at it twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import imageio_ffmpeg
import psutil
import pytest

from clickpost.errors import ContentRejected, Unavailable
from clickpost.media import Cache, Rendition, plan, probe, renditions, video
from clickpost.settings import PROJECT
from tests.core.media import _house as house

SMALL = house.target("mastodon", pixels=20_000)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose encoding lasts long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("long")
    house.clip(folder / "one.mp4", seconds=6, size="640x360", fps=60)
    path = folder / "long.mp4"
    loop = ("-stream_loop", 200, "-i", folder / "one.mp4", "-c", "copy", path)
    house.ffmpeg(*loop)
    return path


def files(folder: Path) -> list[Path]:
    """Return every file in the cache, hidden ones too."""
    return [path for path in folder.rglob("*") if path.is_file()]


def our_ffmpegs() -> list[psutil.Process]:
    """Return the ffmpeg processes that this test run started."""
    name = Path(imageio_ffmpeg.get_ffmpeg_exe()).name[:15]
    found = psutil.Process().children(recursive=True)
    return [one for one in found if one.is_running() and one.name()[:15] == name]


async def _until_ffmpeg_runs() -> psutil.Process:
    for _ in range(500):
        if found := our_ffmpegs():
            return found[0]
        await asyncio.sleep(0.02)
    raise AssertionError("ffmpeg never started")


async def test_a_cancelled_rendition_ends_ffmpeg_and_leaves_nothing(
    long_clip: Path, tmp_path: Path
) -> None:
    work = asyncio.create_task(renditions(long_clip, [SMALL], Cache(tmp_path)))
    await _until_ffmpeg_runs()
    await asyncio.sleep(0.2)
    work.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert time.monotonic() - began < 5
    assert not our_ffmpegs()
    assert not files(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_ffmpeg_is_not_the_writers_fault(
    long_clip: Path, tmp_path: Path, how: signal.Signals
) -> None:
    work = asyncio.create_task(renditions(long_clip, [SMALL], Cache(tmp_path)))
    process = await _until_ffmpeg_runs()
    await asyncio.sleep(0.3)
    process.send_signal(how)
    with pytest.raises(Unavailable, match="stopped from outside"):
        await work
    assert not files(tmp_path)


async def test_the_loop_is_never_blocked(long_clip: Path, tmp_path: Path) -> None:
    work = asyncio.create_task(renditions(long_clip, [SMALL], Cache(tmp_path)))
    worst, last, began = 0.0, time.monotonic(), time.monotonic()
    while time.monotonic() - began < 1.5:
        await asyncio.sleep(0.01)
        now = time.monotonic()
        worst, last = max(worst, now - last), now
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert worst < 1


def test_progress_is_told_and_grows(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4")
    told: list[float] = []

    async def work() -> None:
        await renditions(source, [SMALL], Cache(tmp_path / "cache"), told.append)

    asyncio.run(work())
    assert told
    assert told == sorted(told)
    assert 0 <= told[-1] <= 1


SCRIPT = """
import asyncio, sys
from pathlib import Path
from clickpost.media import Cache, renditions
from tests.core.media.test_cache import SMALL
done = asyncio.run(renditions(Path(sys.argv[1]), [SMALL], Cache(Path(sys.argv[2]))))
print(done["mastodon"].sha256)
"""


def test_two_processes_make_the_same_rendition_at_once(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4", seconds=6)
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", SCRIPT, str(source), str(cache)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) for _ in "ab"]
    said = [one.communicate(timeout=60)[0].strip() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    (left,) = files(cache)
    assert said == [probe(left).sha256] * 2


def test_a_rendition_is_made_once(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4")
    first = house.made(source, SMALL)
    before = first.path.stat()
    assert house.made(source, SMALL) == first
    assert first.path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_name_says_source_and_profile(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4")
    done = house.made(source, SMALL)
    assert done.path.name == f"{probe(source).sha256[:32]}-{done.profile_hash[:32]}.mp4"


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_rendition_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    source = house.clip(tmp_path / "in.mp4")
    done = house.made(source, SMALL)
    data = done.path.read_bytes()
    done.path.write_bytes(data[: len(data) // 2] if damage is None else damage)
    assert house.made(source, SMALL).sha256 == done.sha256


def test_a_full_disk_is_the_operators_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = house.clip(tmp_path / "in.mp4")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Unavailable, match="disk is full"):
        house.outcome(source, SMALL)
    assert not files(tmp_path / "cache")


def test_an_original_that_changes_while_it_is_kept_is_not_kept(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(Unavailable, match="changed"):
        cache.keep(source, "0" * 64)
    assert not files(cache.folder)
    kept = cache.keep(source, probe(source).sha256)
    assert kept.read_bytes() == source.read_bytes()


def test_what_a_killed_process_left_is_swept_and_what_is_at_work_is_not(tmp_path: Path) -> None:
    cache, digest = Cache(tmp_path / "cache"), "ab" * 32
    source = tmp_path / "in.bin"
    source.write_bytes(b"some bytes")
    folder = cache.folder / "originals" / "ab"
    folder.mkdir(parents=True)
    left, busy = folder / ".dead-part.mp4", folder / ".live-part.mp4"
    for path in (left, busy):
        path.write_bytes(b"half")
    os.utime(left, (1, 1))
    with pytest.raises(Unavailable):
        cache.keep(source, digest)
    assert files(cache.folder) == [busy]


def test_one_target_that_cannot_be_helped_spoils_nothing(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4", seconds=2)
    done = house.outcome(source, *house.targets())
    refused = {name for name, one in done.items() if isinstance(one, ContentRejected)}
    assert refused == {"instagram"}
    assert all(isinstance(done[name], Rendition) for name in set(house.ALL) - refused)


def test_an_ffmpeg_that_complains_without_end_blocks_nothing(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4")
    planned = plan(probe(source), [SMALL])
    outs = {one.profile: tmp_path / "out.mp4" for one in planned.renditions}
    words = video.command(planned.source, outs)
    noisy = [sys.executable, "-c", "import sys; sys.stderr.write('x' * 3_000_000); sys.exit(1)"]
    done = threading.Event()

    def run() -> None:
        with pytest.raises(ContentRejected):
            video._run(noisy, planned.source, None)
        done.set()

    threading.Thread(target=run, daemon=True).start()
    assert done.wait(20)
    assert words
