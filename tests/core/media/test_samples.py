"""The demo's clip: what a phone would film, and something to look at."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest
from PIL import Image, ImageChops, ImageStat

from clickpost.media import probe, samples


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip, small and short."""
    path = tmp_path_factory.mktemp("film") / "harbour.mov"
    return samples.clip(path, seconds=1.5, size="640x360", fps=60)


def _frame(film: Path, at: float) -> Image.Image:
    picture = film.with_suffix(f".{at}.png")
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-ss", str(at), "-i", str(film)),
        *("-frames:v", "1", str(picture)),
    ]
    subprocess.run(command, check=True)
    return Image.open(picture).convert("RGB")


def test_the_clip_is_a_phones_portrait_with_all_that_must_not_leave(film: Path) -> None:
    found = probe(film)
    assert (found.width, found.height) == (360, 640)
    assert found.rotation in (90, 270)
    assert (found.codec, found.fps, found.audio) == ("hevc", 60, "aac")
    assert (found.has_location, found.has_device) == (True, True)
    assert found.duration == pytest.approx(1.5, abs=0.1)
    assert [one.name for one in film.parent.iterdir() if one.suffix != ".png"] == ["harbour.mov"]


def test_the_clip_stands_upright_and_moves(film: Path) -> None:
    first, later = _frame(film, 0.1), _frame(film, 1.2)
    assert first.size == (360, 640)
    top, water = first.crop((0, 0, 360, 40)), first.crop((0, 600, 360, 640))
    glow = first.crop((150, 240, 300, 300))
    brightness = [sum(ImageStat.Stat(part).mean) for part in (top, glow, water)]
    assert brightness[1] > 2 * max(brightness[0], brightness[2])
    changed = ImageChops.difference(first, later).convert("L").histogram()
    assert sum(changed[40:]) > 360 * 640 * 0.01
