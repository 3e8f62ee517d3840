"""Makes the demo's sample photo and clip, as a phone would: with all that must not leave."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import imageio_ffmpeg
from PIL import Image, ImageDraw, ImageFilter
from PIL.ExifTags import GPS, IFD, Base

_PLACE = "+52.5200+013.4050+034.000/"


def photo(path: Path) -> Path:
    """Draw a harbour at dusk: JPEG, GPS and device EXIF, lying on its side with orientation 6."""
    if path.exists():
        return path
    upright = _scene(1200, 1500)
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = lying.getexif()
    exif[Base.Orientation] = 6
    exif[Base.Make], exif[Base.Model] = "Example", "Phone 12"
    place = exif.get_ifd(IFD.GPSInfo)
    place[GPS.GPSLatitudeRef], place[GPS.GPSLatitude] = "N", (52.0, 31.0, 12.0)
    place[GPS.GPSLongitudeRef], place[GPS.GPSLongitude] = "E", (13.0, 24.0, 18.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    lying.save(part, "JPEG", quality=92, exif=exif)
    part.replace(path)
    return path


def _scene(width: int, height: int) -> Image.Image:
    sky = Image.linear_gradient("L").resize((width, height))
    picture = Image.composite(
        Image.new("RGB", (width, height), "#f2a65a"),
        Image.new("RGB", (width, height), "#1f2a52"),
        sky,
    )
    draw = ImageDraw.Draw(picture)
    horizon = int(height * 0.62)
    draw.ellipse((width * 0.56, horizon - 260, width * 0.56 + 300, horizon + 40), fill="#ffe3a3")
    picture = picture.filter(ImageFilter.GaussianBlur(2))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, horizon, width, height), fill="#27305f")
    for row in range(horizon + 8, height, 14):
        reach = 150 + 70 * math.sin(row / 37)
        middle = width * 0.56 + 150 + 30 * math.sin(row / 19)
        draw.line((middle - reach, row, middle + reach, row), fill="#d9a066", width=4)
    for x, scale in ((170, 1.0), (430, 0.62), (880, 0.8)):
        _boat(draw, x, horizon + int(120 * scale), scale)
    return picture


def _boat(draw: ImageDraw.ImageDraw, x: int, y: int, scale: float) -> None:
    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x + px * scale, y + py * scale) for px, py in points]

    draw.polygon(at((0, 0), (230, 0), (185, 55), (40, 55)), fill="#12152b")
    draw.polygon(at((110, -12), (110, -300), (15, -12)), fill="#f5ead6")
    draw.polygon(at((122, -12), (122, -250), (210, -12)), fill="#d8573c")


def clip(path: Path, *, seconds: float = 4.0, size: str = "3840x2160", fps: int = 60) -> Path:
    """Make a portrait clip as a phone does: HEVC 4K60 lying with a rotation, place, device, AAC."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    flat, part = path.with_suffix(".flat.mov"), path.with_suffix(".part.mov")
    picture = f"gradients=size={size}:rate={fps}:duration={seconds}:speed=0.03:n=4:seed=7"
    sound = f"sine=frequency=330:sample_rate=48000:duration={seconds}"
    _ffmpeg(
        *("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-pix_fmt", "yuv420p"),
        *("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error"),
        *("-tag:v", "hvc1", "-c:a", "aac", "-af", "volume=0.2", str(flat)),
    )
    # The rotation and the phone's own words are added as a phone does: beside the pictures.
    _ffmpeg(
        *("-display_rotation", "-90", "-i", str(flat), "-c", "copy"),
        *("-movflags", "use_metadata_tags"),
        *("-metadata", f"com.apple.quicktime.location.ISO6709={_PLACE}"),
        *("-metadata", "com.apple.quicktime.make=Example"),
        *("-metadata", "com.apple.quicktime.model=Phone 12", str(part)),
    )
    flat.unlink()
    part.replace(path)
    return path


def _ffmpeg(*words: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *words]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
