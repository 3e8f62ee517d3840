"""One 4K clip to the four platforms' renditions, beside bare ffmpeg in the same run.

Floor (a): one naive ffmpeg for each platform. Floor (b): the best single command by hand.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import imageio_ffmpeg

from benchmarks._show import show
from clickpost.media import Cache, Target, renditions, samples
from clickpost.media.video import CRF, PRESET
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT

_ENCODE = ("-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF), "-pix_fmt", "yuv420p")
_SOUND = ("-c:a", "aac", "-b:a", "128k")
_SMALL = ("-vf", "scale=1080:1920")


def main(*, as_json: bool = False, rounds: int = 3) -> None:
    """Measure and show."""
    with tempfile.TemporaryDirectory(prefix="clickpost-bench-") as folder:
        rows = _measured(Path(folder), rounds)
    show("media", rows, as_json=as_json)


def _measured(folder: Path, rounds: int) -> list[dict[str, object]]:
    clip = samples.clip(folder / "clip.mov")
    ours, naive, best, through = [], [], [], []
    compliant = folder / "compliant.mp4"
    _ffmpeg("-i", str(clip), *_SMALL, *_ENCODE, *_SOUND, "-map_metadata", "-1", str(compliant))
    for number in range(rounds):
        naive.append(_timed(lambda: _naive(clip, folder)))
        best.append(_timed(lambda: _best(clip, folder)))
        ours.append(_timed(lambda: _ours(clip, folder / f"a{number}")))  # noqa: B023
        through.append(_timed(lambda: _ours(compliant, folder / f"b{number}", video="mastodon")))  # noqa: B023
    a, b, mine, passed = median(naive), median(best), median(ours), median(through)
    return [
        _row("4K clip to four platforms", mine, f"{a:.2f} s: one ffmpeg each", mine / a, "≤ 0.5"),
        _row("the same", mine, f"{b:.2f} s: best single command", mine / b, "≤ 1.1"),
        _row("a compliant source", passed, f"{a:.2f} s: one ffmpeg each", passed / a, "≤ 0.05"),
    ]


def _row(measure: str, value: float, floor: str, ratio: float, aim: str) -> dict[str, object]:
    return {
        "measure": measure,
        "value": f"{value:.2f} s",
        "floor": floor,
        "ratio": round(ratio, 3),
        "aim": aim,
    }


def _timed(work: object) -> float:
    assert callable(work)
    began = perf_counter()
    work()
    return perf_counter() - began


def _ours(source: Path, cache: Path, video: str | None = None) -> None:
    policies = load_platforms(PROJECT / "policies")
    names = [video] if video else list(policies)
    targets = [Target(name, policies[name].images, policies[name].video) for name in names]
    done = asyncio.run(renditions(source, targets, Cache(cache)))
    broken = [name for name, one in done.items() if isinstance(one, Exception)]
    assert not broken, broken


def _naive(source: Path, folder: Path) -> None:
    """One ffmpeg for each platform, as most tools do."""
    for name in ("bluesky", "mastodon", "instagram", "youtube"):
        _ffmpeg("-i", str(source), *_SMALL, *_ENCODE, *_SOUND, str(folder / f"naive-{name}.mp4"))


def _best(source: Path, folder: Path) -> None:
    """What somebody who knows the rules writes by hand: one encode and one copy, one process."""
    clean = ("-map_metadata", "-1", "-movflags", "+faststart")
    _ffmpeg(
        *("-i", str(source), *_SMALL, *_ENCODE, *_SOUND, *clean, str(folder / "best.mp4")),
        *("-map", "0:v:0", "-map", "0:a:0", "-c", "copy", *clean, str(folder / "best.mov")),
    )


def _ffmpeg(*words: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *words]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
