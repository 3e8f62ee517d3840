"""What the media tests share: small clips, pictures that tell too much, and the real policies."""

from __future__ import annotations

import asyncio
import io
import struct
import subprocess
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
from PIL import Image, PngImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from clickpost.media import Cache, Rendition, Target, probe, renditions
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT

POLICIES = load_platforms(PROJECT / "policies")
#: X is not among them: its small pictures would need a file of their own in each case.
ALL = ("bluesky", "instagram", "mastodon", "youtube")
#: Planted wherever a file can hold words; nothing that leaves may contain it.
MARK = b"leak-me-not"
WORD = MARK.decode()
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><p>{WORD} 52.52N</p></x:xmpmeta>'.encode()
PLACE = "+52.5200+013.4050/"


def target(name: str, **changes: object) -> Target:
    """Return a platform's rules, with some of them changed."""
    policy = POLICIES[name]
    images = policy.images.model_copy(
        update={k: v for k, v in changes.items() if k in type(policy.images).model_fields}
    )
    video = policy.video.model_copy(
        update={k: v for k, v in changes.items() if k in type(policy.video).model_fields}
    )
    return Target(name, images, video)


def targets(*names: str) -> list[Target]:
    """Return the real rules of platforms, all four without a name."""
    return [target(name) for name in names or ALL]


def outcome(source: Path, *wanted: Target) -> dict[str, object]:
    """Make what the targets need of `source`, in a cache beside it."""
    cache = Cache(source.parent / "cache")
    return dict(asyncio.run(renditions(source, list(wanted), cache)))


def made(source: Path, wanted: str | Target) -> Rendition:
    """Make one rendition, and insist that it is clean and what was said about it is true."""
    one = target(wanted) if isinstance(wanted, str) else wanted
    done = outcome(source, one)[one.name]
    assert isinstance(done, Rendition), done
    again = probe(done.path)
    assert (again.width, again.height) == (done.width, done.height)
    assert (again.has_location, again.has_device, again.metadata) == (False, False, False)
    assert MARK not in done.path.read_bytes()
    return done


def ffmpeg(*words: object) -> str:
    """Run ffmpeg and return what it says."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-y", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
    return done.stderr + done.stdout


def clip(
    path: Path,
    *more: object,
    seconds: float = 3.2,
    size: str = "320x240",
    fps: int = 25,
    sound: str | None = "sine=frequency=440:sample_rate=48000",
    codec: str = "libx264",
    pictures: str = "testsrc2",
) -> Path:
    """Encode a small clip; `more` are words for its output."""
    joint = ":" if "=" in pictures else "="
    words: list[object] = ["-f", "lavfi", "-i", f"{pictures}{joint}size={size}:rate={fps}"]
    if sound:
        words += ["-f", "lavfi", "-i", sound, "-c:a", "aac"]
    speed = ["-preset", "ultrafast"] if codec.startswith("libx26") else []
    quiet = ["-x265-params", "log-level=error"] if codec == "libx265" else []
    words += ["-t", seconds, "-pix_fmt", "yuv420p", "-c:v", codec, *speed, *quiet]
    ffmpeg(*words, *more, path)
    return path


def clean(path: Path, *more: object, **about: object) -> Path:
    """Encode a clip that every platform takes as it is."""
    plain = ("-map_metadata", -1, "-fflags", "+bitexact", "-movflags", "+faststart")
    return clip(path, "-bf", 0, "-use_editlist", 0, *plain, *more, **about)  # type: ignore[arg-type]


def stream_digest(path: Path) -> str:
    """Return a digest of the coded packets, whatever holds them."""
    words = ("-i", path, "-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-f", "streamhash", "-")
    said = ffmpeg("-v", "error", *words)
    return "\n".join(sorted(line for line in said.splitlines() if "SHA256" in line))


def photo(width: int = 400, height: int = 300, mode: str = "RGB") -> Image.Image:
    """Draw four corners in four colours on a gradient, so that turns and colours show."""
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    w, h = width // 3, height // 3
    for colour, at in (
        ("#e02020", (0, 0)),
        ("#20e020", (width - w, 0)),
        ("#2020e0", (0, height - h)),
        ("#e0e020", (width - w, height - h)),
    ):
        picture.paste(colour, (*at, at[0] + w, at[1] + h))
    return picture.convert(mode)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Return the colours of the four corners, top left first."""
    image = image.convert("RGB")
    x, y = image.width // 10, image.height // 10
    right, bottom = image.width - 1 - x, image.height - 1 - y
    return [image.getpixel(at) for at in ((x, y), (right, y), (x, bottom), (right, bottom))]  # type: ignore[misc]


def near(one: Sequence[int], other: Sequence[int], slack: int = 14) -> bool:
    """Say whether two colours are the same but for what coding does to them."""
    return all(abs(a - b) <= slack for a, b in zip(one, other, strict=True))


def same(ones: list[tuple[int, ...]], others: list[tuple[int, ...]], slack: int = 14) -> bool:
    """Say whether colours are the same, one by one."""
    return all(near(a, b, slack) for a, b in zip(ones, others, strict=True))


def telling_exif(orientation: int = 1) -> Image.Exif:
    """Return EXIF with place, device, maker's note and words."""
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    exif[Base.Make], exif[Base.Model], exif[Base.Software] = WORD, WORD, WORD
    exif[Base.ImageDescription] = WORD
    inner = exif.get_ifd(IFD.Exif)
    inner[Base.MakerNote], inner[Base.UserComment] = b"Maker\0" + MARK, b"ASCII\0\0\0" + MARK
    place = exif.get_ifd(IFD.GPSInfo)
    place[GPS.GPSLatitudeRef], place[GPS.GPSLatitude] = "N", (52.0, 31.0, 12.0)
    place[GPS.GPSLongitudeRef], place[GPS.GPSLongitude] = "E", (13.0, 24.0, 18.0)
    return exif


def telling(path: Path, image: Image.Image | None = None, orientation: int = 1) -> Path:
    """Save a picture with all that must not leave, in the format of the name."""
    image = image or photo()
    exif = telling_exif(orientation)
    match path.suffix:
        case ".jpg":
            image.save(path, quality=95, exif=exif, xmp=XMP, comment=MARK)
            path.write_bytes(_with_iptc(path.read_bytes()) + MARK)
        case ".png":
            words = PngImagePlugin.PngInfo()
            words.add_text("Author", WORD)
            words.add_itxt("XML:com.adobe.xmp", XMP.decode())
            words.add_text("Comment", WORD * 9, zip=True)
            image.save(path, exif=exif, pnginfo=words)
        case ".gif":
            image.convert("P").save(path, comment=MARK)
            path.write_bytes(_with_gif_xmp(path.read_bytes()))
        case _:
            image.save(path, exif=exif, xmp=XMP, quality=95)
    return path


def _with_iptc(jpeg: bytes) -> bytes:
    words = b"\x1c\x02\x5a" + struct.pack(">H", len(MARK)) + MARK
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(words)) + words + b"\0"
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def _with_gif_xmp(gif: bytes) -> bytes:
    at = gif.index(b"\x21\xfe")
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    return gif[:at] + b"\x21\xff\x0bXMP DataXMP" + XMP + trailer + gif[at:]


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    crc = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """Write a PNG that Pillow cannot write."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def box(name: bytes, body: bytes) -> bytes:
    """Return an MP4 box."""
    return struct.pack(">I4s", len(body) + 8, name) + body


def jpeg(image: Image.Image, **about: object) -> bytes:
    """Return the picture as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **about)
    return buffer.getvalue()


def _onset(path: Path, *words: str, loud: float) -> float:
    """Return when the first sound is heard."""
    given = words if probe(path).format in ("mp4", "mov") else ()
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *given, "-i", str(path)]
    command += ["-vn", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", "8000"]
    raw = subprocess.run([*command, "-f", "f32le", "-"], check=True, capture_output=True).stdout
    return next(n for n, value in enumerate(array("f", raw)) if abs(value) > loud) / 8000


def _lit(path: Path, words: tuple[str, ...]) -> float:
    """Return when the picture turns from black to white."""
    given = words if probe(path).format in ("mp4", "mov") else ()
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *given, "-i", str(path), "-an"]
    command += ["-vf", "fps=100:start_time=0,scale=1:1,format=gray", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return next(n for n, value in enumerate(raw) if value > 120) / 100


def drift(path: Path, *, edits: bool) -> float:
    """Return how many seconds a flash comes after its beep, with or without edit lists."""
    words = () if edits else ("-ignore_editlist", "1")
    return _lit(path, words) - _onset(path, *words, loud=0.02)


def frame(path: Path, at: float = 0.5) -> Image.Image:
    """Return a frame as a player shows it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-ss", str(at), "-i", str(path)]
    command += ["-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-"]
    done = subprocess.run(command, check=True, capture_output=True)
    return Image.open(io.BytesIO(done.stdout)).convert("RGB")
