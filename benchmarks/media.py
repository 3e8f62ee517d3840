"""One 4K clip to the four platforms' renditions, beside bare ffmpeg in the same run.

Floor (a): one naive ffmpeg for each platform. Floor (b): the best single command by hand, whose
files must satisfy the same policies as ours. Rounds take turns, so that a busy machine is busy for
all; the medians are compared.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter

import imageio_ffmpeg

from benchmarks._show import show
from clickpost.media import Cache, Rendition, Target, faults_of, probe, renditions, samples
from clickpost.media.video import CRF, PRESET
from clickpost.policy.load import load_platforms
from clickpost.policy.shape import PlatformPolicy
from clickpost.settings import PROJECT

_ENCODE = ("-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF), "-pix_fmt", "yuv420p")
_SOUND = ("-c:a", "aac", "-b:a", "128k")
_SMALL = ("-vf", "scale=1080:1920")
_CLEAN = ("-map_metadata", "-1", "-fflags", "+bitexact")
_STRICT = ("-use_editlist", "0", "-movflags", "+faststart+negative_cts_offsets")
Policies = Mapping[str, PlatformPolicy]


def main(*, as_json: bool = False, rounds: int = 3) -> None:
    """Measure and show."""
    with tempfile.TemporaryDirectory(prefix="clickpost-bench-") as folder:
        rows = _measured(Path(folder), rounds)
    show("media", rows, as_json=as_json)


#: X is not among them: it takes no more than 1024 rows of pixels, so it needs an encode of its own.
PLATFORMS = ("bluesky", "instagram", "mastodon", "youtube")


def _measured(folder: Path, rounds: int) -> list[dict[str, object]]:
    known = load_platforms(PROJECT / "policies")
    policies = {name: known[name] for name in PLATFORMS}
    clip, compliant = samples.clip(folder / "clip.mov"), _compliant(folder)
    work: dict[str, Callable[[int], None]] = {
        "naive": lambda n: _naive(clip, folder, policies),
        "best": lambda n: _best(clip, folder),
        "ours": lambda n: _ours(clip, folder / f"ours-{n}", policies, 2),
        "naive, compliant": lambda n: _naive(compliant, folder, policies),
        "ours, compliant": lambda n: _ours(compliant, folder / f"through-{n}", policies, 1),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds):
        for name, one in work.items():
            began = perf_counter()
            one(number)
            times[name].append(perf_counter() - began)
    _honest(folder, policies)
    took = {name: median(all_) for name, all_ in times.items()}
    each, single = "one ffmpeg each", "best single command"
    return [
        _row("4K clip to four platforms", took["ours"], took["naive"], each, 0.5),
        _row("the same", took["ours"], took["best"], single, 1.1),
        _row("a compliant clip", took["ours, compliant"], took["naive, compliant"], each, 0.05),
    ]


def _compliant(folder: Path) -> Path:
    """Make what every platform takes as it is: ten seconds as an editor exports them."""
    path = folder / "compliant.mp4"
    flat = samples.clip(folder / "flat.mov", seconds=10, size="1920x1080", fps=30)
    _ffmpeg("-i", str(flat), *_SMALL, *_ENCODE, *_SOUND, *_CLEAN, *_STRICT, str(path))
    return path


def _row(measure: str, ours: float, floor: float, what: str, aim: float) -> dict[str, object]:
    return {
        "measure": measure,
        "value": f"{ours:.2f} s",
        "floor": f"{floor:.2f} s: {what}",
        "ratio": round(ours / floor, 3),
        "aim": f"≤ {aim}",
    }


def _ours(source: Path, cache: Path, policies: Policies, files: int) -> None:
    targets = [Target(name, one.images, one.video) for name, one in policies.items()]
    done = asyncio.run(renditions(source, targets, Cache(cache)))
    made = {one.path for one in done.values() if isinstance(one, Rendition)}
    assert len(made) == files, done


def _naive(source: Path, folder: Path, policies: Policies) -> None:
    """One ffmpeg for each platform, as most tools do."""
    for name in policies:
        _ffmpeg("-i", str(source), *_SMALL, *_ENCODE, *_SOUND, str(folder / f"naive-{name}.mp4"))


def _best(source: Path, folder: Path) -> None:
    """What somebody who knows the rules writes by hand: one encode and one copy, one process."""
    copy = ("-map", "0:v:0", "-map", "0:a:0", "-c", "copy", "-tag:v", "hvc1")
    _ffmpeg(
        *("-i", str(source), *_SMALL, *_ENCODE, *_SOUND, *_CLEAN, *_STRICT),
        *(str(folder / "best.mp4"), *copy, *_CLEAN, "-movflags", "+faststart"),
        str(folder / "best.mov"),
    )


def _honest(folder: Path, policies: Policies) -> None:
    """Insist that the hand-written command's files are what the policies ask for."""
    for name, policy in policies.items():
        found = probe(folder / ("best.mov" if name == "youtube" else "best.mp4"))
        faults = faults_of(found, policy.images, policy.video)
        assert not faults, (name, faults)
        assert not found.metadata, name


def _ffmpeg(*words: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *words]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
