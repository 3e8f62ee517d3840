"""Looks into a file: what it really is, never what its name says."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import pillow_heif
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base as Exif

from clickpost.contract import Kind
from clickpost.errors import ContentRejected, Fault
from clickpost.media import boxes, strip

pillow_heif.register_heif_opener()

#: More pixels than any camera makes: a decompression bomb.
MOST_PIXELS = 250_000_000
MOST_SECONDS = 24 * 3600
MOST_IMAGE_BYTES = 1_000_000_000
#: Pillow refuses twice this before we can look; up to there our own limit speaks.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS
#: Nothing else is opened: some of Pillow's readers start other programs.
READERS = ("JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF", "TIFF", "BMP")
_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp", "GIF": "gif"} | {
    "HEIF": "heic",
    "AVIF": "avif",
    "TIFF": "tiff",
    "BMP": "bmp",
}
_IMAGE_NAMES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".heic", ".heif", ".avif", ".tiff"}
_VIDEO_NAMES = {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg"}
_PLACES = ("location", "gps", "©xyz", "com.apple.quicktime.location")
_DEVICES = ("make", "model", "software", "com.apple.quicktime.make", "com.apple.quicktime.model")
_CODECS = {"mpeg4": "mpeg4", "prores": "prores", "libdav1d": "av1", "libvpx-vp9": "vp9"}


@dataclass(frozen=True)
class Probed:
    """What a file is. Sizes in pixels as displayed, `duration` seconds, bitrates bits a second.

    `retimed`: sound or pictures wait for, or are cut by, an edit list or a time stamp.
    """

    path: Path
    kind: Kind
    format: str
    mime: str
    bytes: int
    width: int
    height: int
    sha256: str
    rotation: int = 0
    orientation: int = 1
    duration: float | None = None
    fps: float | None = None
    frames: int = 1
    codec: str | None = None
    chroma: str | None = None
    bit_depth: int = 8
    hdr: bool = False
    interlaced: bool = False
    bitrate: int | None = None
    audio: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None
    audio_bitrate: int | None = None
    moov_in_front: bool = True
    edit_lists: bool = False
    retimed: bool = False
    matrix: str = "bt709"
    has_location: bool = False
    has_device: bool = False
    metadata: bool = False
    colour: str = "srgb"
    mode: str = ""
    animated: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def aspect(self) -> float:
        """Width divided by height."""
        return self.width / self.height


def refused(field_: str, limit: str, found: str) -> ContentRejected:
    """Return a refusal of one fault."""
    return ContentRejected("media", (Fault(field_, limit, found),))


def probe(path: Path) -> Probed:
    """Return what `path` is; raise ContentRejected for what is broken, lying or no media."""
    size = path.stat().st_size
    if size == 0:
        raise refused("file", "not empty", "0 bytes")
    with path.open("rb") as file:
        head = file.read(64)
        digest = hashlib.sha256(head)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    demuxer = demuxer_of(head)
    _same_kind(path, Kind.IMAGE if demuxer is None else Kind.VIDEO)
    if demuxer is not None:
        return _video(path, size, digest.hexdigest(), demuxer)
    return _image(path, size, digest.hexdigest())


def _same_kind(path: Path, found: Kind) -> None:
    """Refuse a video that is named as an image."""
    suffix = path.suffix.lower()
    if found is Kind.VIDEO and suffix in _IMAGE_NAMES:
        raise refused("file", f"an image, as {suffix} says", "a video")


_STILLS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"mif2", b"msf1", b"avif", b"avis"),
)


def demuxer_of(head: bytes) -> str | None:
    """Return the one demuxer that may open a file beginning with `head`; None for no video.

    A fixed demuxer never follows a playlist to other files or addresses.
    """
    brand = head[8:12]
    if head[4:8] == b"ftyp" and brand in _STILLS:
        return None
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith((b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")):
        return "mpeg"
    return None


def _image(path: Path, size: int, digest: str) -> Probed:
    if size > MOST_IMAGE_BYTES:
        raise refused("bytes", f"at most {MOST_IMAGE_BYTES} for an image", str(size))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=READERS) as image:
                if path.suffix.lower() in _VIDEO_NAMES:
                    raise refused("file", f"a video, as {path.suffix} says", "an image")
                return _image_facts(image, path, size, digest)
    except UnidentifiedImageError:
        known = "an image or a video (JPEG, PNG, WebP, GIF, HEIC, AVIF, MP4, MOV, WebM, …)"
        raise refused("file", known, "something else, or a broken file") from None
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise refused("pixels", f"at most {MOST_PIXELS}", found[0] if found else "more") from None
    except _BROKEN as error:
        raise refused("file", "a whole image", f"a broken one ({type(error).__name__})") from None


#: What Pillow raises for broken files.
_BROKEN = (
    *(OSError, SyntaxError, ValueError, struct.error, EOFError, MemoryError),
    *(IndexError, KeyError, TypeError, OverflowError, RuntimeError, ZeroDivisionError),
)


def _image_facts(image: Image.Image, path: Path, size: int, digest: str) -> Probed:
    kind = _FORMATS.get(str(image.format))
    if kind is None:
        raise refused(
            "format", ", ".join(sorted(set(_FORMATS.values()))), str(image.format).lower()
        )
    if image.width * image.height > MOST_PIXELS:
        raise refused("pixels", f"at most {MOST_PIXELS}", f"{image.width}x{image.height}")
    frames = int(getattr(image, "n_frames", 1)) if kind in _MOVING else 1
    if frames > 5000 or frames * image.width * image.height > 8 * MOST_PIXELS:
        raise refused("frames", "an animation that can be decoded", f"{frames} frames")
    exif = image.getexif()
    orientation = int(exif.get(Exif.Orientation, 1) or 1)
    orientation = orientation if 1 <= orientation <= 8 and kind != "heic" else 1
    image.load()
    turned = orientation >= 5
    width, height = (image.height, image.width) if turned else (image.width, image.height)
    return Probed(
        path=path,
        kind=Kind.IMAGE,
        format=kind,
        mime=f"image/{kind}",
        bytes=size,
        width=width,
        height=height,
        sha256=digest,
        orientation=orientation,
        frames=frames,
        animated=frames > 1,
        mode=image.mode,
        bit_depth=_depth(image, path),
        colour=_colour(image),
        has_location=bool(exif.get_ifd(0x8825)),
        has_device=bool({Exif.Make, Exif.Model, Exif.Software} & set(exif)),
        metadata=_tells(image, path, kind, orientation),
        notes=("its first picture is used",) if image.format == "MPO" else (),
    )


_MOVING = {"gif", "png", "webp", "avif"}


def _depth(image: Image.Image, path: Path) -> int:
    if image.format == "PNG":
        # Pillow shows colours of 16 bits as 8; the header says the truth.
        with path.open("rb") as file:
            return 16 if file.read(25)[24] == 16 else 8
    return 16 if image.mode.startswith(("I", "F")) else 8


def _tells(image: Image.Image, path: Path, kind: str, orientation: int) -> bool:
    """Say whether the file holds more than its picture: what stripping would change."""
    if kind in strip.FORMATS:
        data = path.read_bytes()
        return strip.stripped(data, kind, orientation) != data
    return bool(set(image.getexif()) - {Exif.Orientation}) or bool(image.info.get("xmp"))


def _colour(image: Image.Image) -> str:
    """Return the name of the embedded colour space: `srgb` where none says otherwise."""
    if image.mode == "CMYK":
        return "cmyk"
    raw = image.info.get("icc_profile")
    if not raw:
        return "srgb"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(raw))
        name = ImageCms.getProfileDescription(profile).strip().lower()
    except (ImageCms.PyCMSError, OSError):
        return "unknown"
    return "srgb" if "srgb" in name else name


def _video(path: Path, size: int, digest: str, demuxer: str) -> Probed:
    found = boxes.read(path) if demuxer == "mov" else boxes.Boxes(moov_in_front=True)
    if not found.whole:
        raise refused("file", "a whole video", "one whose end is missing")
    try:
        with av.open(
            str(path.absolute()), format=demuxer, options={"protocol_whitelist": "file"}
        ) as container:
            return _video_facts(container, path, size, digest, found)
    except (av.error.FFmpegError, StopIteration, OSError, ValueError) as error:
        name = f"a broken one ({type(error).__name__})"
        raise refused("file", "a whole video", name) from None


def _video_facts(container: Any, path: Path, size: int, digest: str, found: boxes.Boxes) -> Probed:
    stream = _pictures(container)
    sound = container.streams.audio[0] if container.streams.audio else None
    _no_bomb(stream.codec_context.width, stream.codec_context.height)
    seconds = _seconds(container, stream)
    frame = next(container.decode(stream))
    _no_bomb(frame.width, frame.height)
    _last_frame(container, stream, seconds)
    rotation = int(frame.rotation) % 360
    width, height = _displayed(stream, frame, rotation)
    name = stream.codec_context.pix_fmt or str(frame.format.name)
    family = _family(container, path)
    fps = float(stream.average_rate or stream.guessed_rate or 0) or None
    tags = _tags(container)
    return Probed(
        path=path,
        kind=Kind.VIDEO,
        format=family,
        mime={"mov": "video/quicktime", "webm": "video/webm", "mkv": "video/x-matroska"}.get(
            family, f"video/{family}"
        ),
        bytes=size,
        width=width,
        height=height,
        sha256=digest,
        rotation=rotation,
        duration=seconds,
        fps=fps,
        frames=int(stream.frames or round(seconds * (fps or 0))),
        codec=_CODECS.get(stream.codec_context.name, stream.codec_context.name),
        chroma="444" if _is_444(name) else "422" if "422" in name or "yuyv" in name else "420",
        bit_depth=frame.format.components[0].bits,
        hdr=int(stream.codec_context.color_trc or 0) in (16, 18),
        interlaced=bool(frame.interlaced_frame),
        bitrate=int(stream.bit_rate or container.bit_rate or size * 8 / seconds),
        audio=_audio(sound.codec_context.name) if sound else None,
        audio_rate=sound.codec_context.sample_rate if sound else None,
        audio_channels=len(sound.codec_context.layout.channels) if sound else None,
        audio_bitrate=sound.bit_rate if sound else None,
        moov_in_front=found.moov_in_front,
        edit_lists=found.edit_lists,
        retimed=found.retimed or abs(_waits(stream, sound)) > boxes.HEARD,
        matrix=_matrix(stream, min(width, height)),
        has_location=any(key.startswith(_PLACES) for key in tags),
        has_device=any(key in _DEVICES for key in tags),
        metadata=found.metadata or bool(tags) or _other_tracks(container),
    )


def _pictures(container: Any) -> Any:
    """Return the first stream of pictures that is not a cover."""
    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            return stream
    raise refused("file", "a video with pictures", "sound only")


def _no_bomb(width: int, height: int) -> None:
    most = MOST_PIXELS // 2
    if width * height > most:
        raise refused("pixels", f"at most {most}", f"{width}x{height}")


def _displayed(stream: Any, frame: Any, rotation: int) -> tuple[int, int]:
    """Return the size with square pixels, turned upright."""
    shape = stream.sample_aspect_ratio or 1
    width = max(1, round(frame.width * shape)) if 0.1 < shape < 10 else frame.width
    return (frame.height, width) if rotation in (90, 270) else (width, frame.height)


def _is_444(name: str) -> bool:
    return "444" in name or name.startswith(("gbr", "rgb", "bgr", "argb", "abgr"))


def _matrix(stream: Any, short: int) -> str:
    """Return which colours the numbers mean; untagged files mean what players assume."""
    said = int(stream.codec_context.colorspace or 2)
    known = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}
    return known.get(said, "bt709" if short > 576 else "smpte170m")


def _waits(stream: Any, sound: Any) -> float:
    """Return how many seconds the sound begins after the pictures."""
    if sound is None or sound.start_time is None or stream.start_time is None:
        return 0.0
    return float(sound.start_time * sound.time_base - stream.start_time * stream.time_base)


#: Words that muxers write by themselves, and that say nothing about a place or a device.
_HARMLESS = {
    *("major_brand", "minor_version", "compatible_brands", "language", "vendor_id"),
    *("duration", "bps", "number_of_frames", "number_of_bytes", "timecode"),
    *("_statistics_writing_app", "_statistics_tags"),
}
_MUXERS = {"handler_name": ("VideoHandler", "SoundHandler"), "encoder": ("Lav",)}


def _tags(container: Any) -> set[str]:
    """Return the names of tags that tell something."""
    found: set[str] = set()
    for words in (container.metadata, *(stream.metadata for stream in container.streams)):
        for name, value in words.items():
            known = _MUXERS.get(name.lower(), ())
            if name.lower() not in _HARMLESS and value and not value.startswith(known or "\0"):
                found.add(name.lower())
    return found


def _other_tracks(container: Any) -> bool:
    streams = container.streams
    return len(streams) > 1 + bool(streams.audio) or bool(container.chapters())


def _seconds(container: Any, stream: Any) -> float:
    seconds = 0.0
    if stream.duration:
        seconds = float(Fraction(stream.duration) * stream.time_base)
    elif container.duration:
        seconds = float(container.duration) / 1_000_000
    if seconds <= 0:
        raise refused("duration", "a known length", "none")
    if seconds > MOST_SECONDS:
        raise refused("duration", "24 h", f"{seconds / 3600:.1f} h")
    return seconds


def _last_frame(container: Any, stream: Any, seconds: float) -> None:
    """Refuse a file that ends before it says: its last second must be there."""
    began = float((stream.start_time or 0) * stream.time_base)
    if seconds > 2:
        container.seek(int((began + seconds - 1) / stream.time_base), stream=stream)
    else:
        container.seek(0)
    # Where only the file as a whole says its length, the sound may be what lasts so long.
    parts = [stream] if stream.duration else [*container.streams.video, *container.streams.audio]
    last = 0.0
    for packet in container.demux(parts):
        if packet.pts is not None:
            until = (packet.pts + (packet.duration or 0)) * packet.stream.time_base
            last = max(last, float(until) - began)
    if last < seconds - max(0.3, min(1.5, seconds / 20)):
        raise refused("file", f"{seconds:.1f} s as it says", f"{last:.1f} s: the rest is missing")


def _family(container: Any, path: Path) -> str:
    name = container.format.name
    if "mov" in name:
        brand = str(container.metadata.get("major_brand", "")).strip()
        return "mov" if brand in ("qt", "") else "mp4"
    if "matroska" in name:
        with path.open("rb") as file:
            return "webm" if b"webm" in file.read(64) else "mkv"
    return "avi" if "avi" in name else "mpeg"


def _audio(name: str) -> str:
    if name.startswith("pcm"):
        return "pcm"
    return {"mp3float": "mp3", "libopus": "opus"}.get(name, name)
