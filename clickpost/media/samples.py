"""Makes the demo's sample photo and clip, as a phone would: with all that must not leave."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import imageio_ffmpeg
from PIL import Image, ImageColor, ImageDraw, ImageFilter
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


def _boat(draw: ImageDraw.ImageDraw, x: int, y: int, scale: float, sail: str = "#f5ead6") -> None:
    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x + px * scale, y + py * scale) for px, py in points]

    draw.polygon(at((0, 0), (230, 0), (185, 55), (40, 55)), fill="#12152b")
    draw.polygon(at((110, -12), (110, -300), (15, -12)), fill=sail)
    draw.polygon(at((122, -12), (122, -250), (210, -12)), fill="#d8573c")


def clip(path: Path, *, seconds: float = 4.0, size: str = "3840x2160", fps: int = 60) -> Path:
    """Make a portrait clip as a phone does: HEVC 4K60 lying with a rotation, place, device, AAC.

    It is the harbour of the photo, in motion: boats rock and sail, the water glitters, gulls fly.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    flat, part = path.with_suffix(".flat.mov"), path.with_suffix(".part.mov")
    height, width = (int(side) for side in size.split("x"))  # It lies: its width is our height.
    with TemporaryDirectory(dir=path.parent) as folder:
        inputs, graph = _film(width, height, Path(folder), fps)
        sound = f"sine=frequency=330:sample_rate=48000:duration={seconds}"
        number = len(inputs)
        _ffmpeg(
            *(word for picture in inputs for word in ("-i", str(picture))),
            *("-f", "lavfi", "-i", sound, "-filter_complex", graph),
            *("-map", "[film]", "-map", f"{number}:a", "-t", str(seconds), "-pix_fmt", "yuv420p"),
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


@dataclass(frozen=True)
class _Layer:
    """A picture over the film: where its upper left corner is, and when it shows (all over t)."""

    picture: Image.Image
    x: str
    y: str
    shows: str = "1"


def _film(width: int, height: int, folder: Path, fps: int) -> tuple[list[Path], str]:
    """Draw the layers into `folder`; return them, and the graph that moves them.

    Each is decoded once and turned beforehand: nothing of the size of a frame is drawn twice.
    """
    unit = width / 2160
    layers = [_Layer(_sea(width, height), "0", "0"), *_glitter(width, height, unit)]
    layers += [*_fleet(width, height, unit), *_gulls(width, height, unit)]
    paths, steps, last = [], [], "0"
    for number, layer in enumerate(layers):
        path = folder / f"{number}.png"
        lying = layer.picture.transpose(Image.Transpose.ROTATE_90)
        lying.save(path, compress_level=1)
        paths.append(path)
        kind = "yuva420p" if number else "yuv420p"
        steps.append(
            f"[{number}:v]format={kind},loop=-1:size=1,setpts=N/({fps}*TB),fps={fps}[p{number}]"
        )
        if number:
            # Upright (x, y) is (y, width - x - the layer's own width) in the lying frame.
            steps.append(
                f"[{last}][p{number}]overlay=x='{layer.y}':y='{width}-({layer.x})-h'"
                f":enable='{layer.shows}'[o{number}]"
            )
        last = f"o{number}" if number else "p0"
    return paths, ";".join(steps) + f";[{last}]null[film]"


def _sea(width: int, height: int) -> Image.Image:
    """Draw what rests: the sky of a late evening, a low sun, hills with a town, dark water."""
    unit, horizon = width / 2160, int(height * 0.56)
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    sky = ("#141a3c", "#2b2f66", "#6b4a86", "#c9688a", "#f29a6b", "#ffd08a")
    water = ("#c97a6d", "#7c4f78", "#3b3a6c", "#1c2350", "#10163a")
    _graded(draw, width, (0, horizon), sky)
    _graded(draw, width, (horizon, height), water)
    glow = Image.new("L", (width // 8, height // 8))
    middle, low, reach = width * 0.62 / 8, (horizon - 190 * unit) / 8, 620 * unit / 8
    box = (middle - reach, low - reach, middle + reach, low + reach)
    ImageDraw.Draw(glow).ellipse(box, fill=150)
    glow = glow.filter(ImageFilter.GaussianBlur(max(reach / 3, 1))).resize((width, height))
    glow.paste(0, (0, horizon, width, height))
    picture.paste(Image.new("RGB", (width, height), "#ffd79a"), mask=glow)
    draw = ImageDraw.Draw(picture)
    chance = Random(7)  # noqa: S311  # Stars need no secrecy, only to be the same each time.
    for _ in range(80):
        x, y = chance.random() * width, chance.random() ** 2 * horizon * 0.5
        dot = (2 + 4 * chance.random()) * unit
        draw.ellipse((x, y, x + dot, y + dot), fill="#aab0e6")
    sun = 205 * unit
    draw.ellipse(
        (width * 0.62 - sun, horizon - 190 * unit - sun, width * 0.62 + sun, horizon + 15 * unit),
        fill="#fff0c2",
    )
    for number, (lift, colour) in enumerate(((210, "#5a4479"), (120, "#3a3364"))):
        ridge = [(0, horizon), (width, horizon)]
        for column in range(width, -1, -max(int(20 * unit), 1)):
            wave = math.sin(column / (410 * unit) + number * 2.1) + 0.5 * math.sin(
                column / (170 * unit)
            )
            far = 1 - 0.75 * math.exp(-(((column / width) - 0.62) ** 2) / 0.03)
            ridge.append((column, int(horizon - unit * lift * far * (1 + 0.3 * wave))))
        draw.polygon(ridge, fill=colour)
    for house in range(46):
        x = (house * 373 % 860) * unit + chance.random() * 20 * unit
        y = horizon - (18 + (house * 59) % 76) * unit
        draw.rectangle((x, y, x + 9 * unit, y + 12 * unit), fill="#ffc56b")
    return picture


def _graded(
    draw: ImageDraw.ImageDraw, width: int, rows: tuple[int, int], colours: Sequence[str]
) -> None:
    stops = [ImageColor.getrgb(colour) for colour in colours]
    first, last = rows
    for row in range(first, last):
        where = (row - first) / (last - first) * (len(stops) - 1)
        one, other = stops[int(where)], stops[min(int(where) + 1, len(stops) - 1)]
        share = where % 1
        mixed = tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
        draw.line((0, row, width, row), fill=mixed)


def _glitter(width: int, height: int, unit: float) -> list[_Layer]:
    """Draw the sun's road on the water: bands that sway against one another."""
    horizon, layers = int(height * 0.56), []
    for band in range(4):
        tall = int((height - horizon) * 0.24)
        picture = Image.new("RGBA", (int(1300 * unit), tall))
        draw = ImageDraw.Draw(picture)
        for row in range(int(14 * unit), tall, max(int((30 + 10 * band) * unit), 2)):
            number = row * 31 + band * 17
            reach = (150 + 90 * band + 60 * math.sin(number)) * unit
            middle = 650 * unit + 70 * unit * math.sin(number / 3)
            thick = (5 + 2 * band + 3 * math.sin(number / 7)) * unit
            box = (middle - reach, row, middle + reach, row + max(thick, 1))
            draw.rounded_rectangle(box, thick / 2, fill=(255, 214, 150, 215 - 38 * band))
        sway, turn = (26 + 18 * band) * unit, 2.1 - 0.25 * band
        x = f"{width * 0.62 - 650 * unit:.1f}+{sway:.1f}*sin({turn:.2f}*t+{band * 2})"
        y = f"{horizon + band * tall}+{5 * unit:.1f}*sin(2.4*t+{band})"
        layers.append(_Layer(picture, x, y))
    return layers


def _fleet(width: int, height: int, unit: float) -> list[_Layer]:
    """Draw three boats, each on its way, with their likeness in the water below."""
    layers, horizon = [], int(height * 0.56)
    for start, down, size, speed, sail in (
        (0.60, 0.035, 1.0, -26, "#e8d9c8"),
        (0.08, 0.13, 2.1, 62, "#f5ead6"),
        (0.52, 0.29, 3.2, -95, "#fbf3e4"),
    ):
        scale = size * unit
        wide, deep, line = int(250 * scale), int(560 * scale), int(350 * scale)
        boat = Image.new("RGBA", (wide, deep))
        _boat(ImageDraw.Draw(boat), int(10 * scale), line - int(30 * scale), scale, sail)
        below = boat.crop((0, 0, wide, line)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        below = below.resize((wide, int(line * 0.55))).filter(ImageFilter.GaussianBlur(3 * scale))
        below.putalpha(below.getchannel("A").point(lambda value: value * 4 // 10))
        boat.paste(below, (0, line - int(6 * scale)), below)
        if speed < 0:
            boat = boat.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = f"{width * start:.1f}+{speed * unit:.1f}*t"
        rock = f"{9 * scale:.1f}*sin(1.9*t+{start * 9:.1f})"
        layers.append(_Layer(boat, x, f"{horizon + height * down - line:.1f}+{rock}"))
    return layers


def _gulls(width: int, height: int, unit: float) -> list[_Layer]:
    """Draw three gulls, with wings up and wings down in turn."""
    layers = []
    up, down = "lt(mod(t,0.56),0.28)", "gte(mod(t,0.56),0.28)"
    for start, level, size, speed in (
        (0.05, 0.23, 1.3, 210),
        (-0.06, 0.29, 0.9, 190),
        (0.24, 0.16, 0.6, 150),
    ):
        scale = size * unit
        x = f"{width * start:.1f}+{speed * unit:.1f}*t"
        glide = f"{24 * scale:.1f}*sin(2.2*t+{start * 20:.1f})"
        y = f"{height * level:.1f}-{34 * unit:.1f}*t+{glide}"
        layers.append(_Layer(_gull(scale, joint=40, tip=28), x, y, up))
        layers.append(_Layer(_gull(scale, joint=74, tip=124), x, y, down))
    return layers


def _gull(scale: float, *, joint: int, tip: int) -> Image.Image:
    bird = Image.new("RGBA", (int(260 * scale), int(180 * scale)))
    draw = ImageDraw.Draw(bird)
    for side in (-1, 1):
        points = [(130, 92), (130 + side * 55, joint), (130 + side * 120, tip)]
        wing = [(x * scale, y * scale) for x, y in points]
        draw.line(wing, fill="#fdf4e6", width=max(int(13 * scale), 1), joint="curve")
    draw.ellipse((105 * scale, 82 * scale, 160 * scale, 106 * scale), fill="#fdf4e6")
    return bird


def _ffmpeg(*words: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *words]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
