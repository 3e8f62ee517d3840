"""Looks into a file: what it really is, never what its name says."""

from __future__ import annotations

import hashlib
import io
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

pillow_heif.register_heif_opener()

#: More pixels than any camera makes: a decompression bomb.
MOST_PIXELS = 250_000_000
MOST_FRAMES = 3_000_000
MOST_SECONDS = 24 * 3600
_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp", "GIF": "gif"} | {
    "HEIF": "heic",
    "AVIF": "avif",
    "TIFF": "tiff",
    "BMP": "bmp",
}
_PLACES = ("location", "gps", "©xyz", "com.apple.quicktime.location")
_DEVICES = ("make", "model", "software", "com.apple.quicktime.make", "com.apple.quicktime.model")
_CODECS = {"mpeg4": "mpeg4", "prores": "prores", "libdav1d": "av1", "libvpx-vp9": "vp9"}


@dataclass(frozen=True)
class Probed:
    """What a file is. Sizes in pixels as displayed, `duration` seconds, bitrates bits a second."""

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
    if demuxer is not None:
        return _video(path, size, digest.hexdigest(), demuxer)
    return _image(path, size, digest.hexdigest())


def demuxer_of(head: bytes) -> str | None:
    """Return the one demuxer that may open a file beginning with `head`; None for no video.

    A fixed demuxer never follows a playlist to other files or addresses.
    """
    brand = head[8:12]
    if head[4:8] == b"ftyp" and brand in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"):
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return _image_facts(image, path, size, digest)
    except UnidentifiedImageError:
        known = "an image or a video (JPEG, PNG, WebP, GIF, HEIC, AVIF, MP4, MOV, WebM, …)"
        raise refused("file", known, "something else, or a broken file") from None
    except Image.DecompressionBombError:
        raise refused("pixels", f"at most {MOST_PIXELS}", "a decompression bomb") from None
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, MemoryError) as error:
        raise refused("file", "a whole image", f"a broken one ({type(error).__name__})") from None


def _image_facts(image: Image.Image, path: Path, size: int, digest: str) -> Probed:
    kind = _FORMATS.get(str(image.format))
    if kind is None:
        raise refused(
            "format", ", ".join(sorted(set(_FORMATS.values()))), str(image.format).lower()
        )
    if image.width * image.height > MOST_PIXELS:
        found = f"{image.width}x{image.height}"
        raise refused("pixels", f"at most {MOST_PIXELS}", found)
    frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    if frames > 5000 or frames * image.width * image.height > 8 * MOST_PIXELS:
        raise refused("frames", "an animation that can be decoded", f"{frames} frames")
    exif = image.getexif()
    orientation = int(exif.get(Exif.Orientation, 1) or 1)
    image.load()
    turned = orientation >= 5 and kind not in ("heic", "avif")
    width, height = (image.height, image.width) if turned else (image.width, image.height)
    info = set(image.info)
    metadata = bool(set(exif) - {Exif.Orientation}) or bool(info & _NOTES)
    texts = set(getattr(image, "text", {}) or {})
    return Probed(
        path=path,
        kind=Kind.IMAGE,
        format=kind,
        mime=f"image/{kind}",
        bytes=size,
        width=width,
        height=height,
        sha256=digest,
        orientation=orientation if kind not in ("heic", "avif") else 1,
        frames=frames,
        animated=frames > 1,
        mode=image.mode,
        bit_depth=16 if image.mode.startswith("I") else 8,
        colour=_colour(image),
        has_location=bool(exif.get_ifd(0x8825)),
        has_device=bool({Exif.Make, Exif.Model, Exif.Software} & set(exif)),
        metadata=metadata or bool(texts) or image.format == "MPO",
        notes=("its first picture is used",) if image.format == "MPO" else (),
    )


_NOTES = {"xmp", "XML:com.adobe.xmp", "photoshop", "comment", "Raw profile type exif"}


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
    try:
        with av.open(
            str(path), format=demuxer, options={"protocol_whitelist": "file"}
        ) as container:
            return _video_facts(container, path, size, digest)
    except (av.error.FFmpegError, StopIteration, OSError, ValueError) as error:
        found = f"a broken one ({type(error).__name__})"
        raise refused("file", "a whole video", found) from None


def _video_facts(container: Any, path: Path, size: int, digest: str) -> Probed:
    if not container.streams.video:
        raise refused("file", "a video with pictures", "sound only")
    stream = container.streams.video[0]
    sound = container.streams.audio[0] if container.streams.audio else None
    frame = next(container.decode(stream))
    seconds = _seconds(container, stream)
    if seconds is None or seconds <= 0:
        raise refused("duration", "a known length", "none")
    if seconds > MOST_SECONDS:
        raise refused("duration", "24 h", f"{seconds / 3600:.1f} h")
    if frame.width * frame.height > MOST_PIXELS // 2:
        raise refused("pixels", f"at most {MOST_PIXELS // 2}", f"{frame.width}x{frame.height}")
    _last_frame(container, stream, seconds)
    rotation = int(frame.rotation) % 360
    turned = rotation in (90, 270)
    name = stream.codec_context.pix_fmt or str(frame.format.name)
    component = frame.format.components[0].bits
    family = _family(container, path)
    fps = float(stream.average_rate or stream.guessed_rate or 0) or None
    tags = _tags(container)
    moov, edits = _boxes(path) if family in ("mp4", "mov") else (True, False)
    return Probed(
        path=path,
        kind=Kind.VIDEO,
        format=family,
        mime={"mov": "video/quicktime", "webm": "video/webm", "mkv": "video/x-matroska"}.get(
            family, f"video/{family}"
        ),
        bytes=size,
        width=frame.height if turned else frame.width,
        height=frame.width if turned else frame.height,
        sha256=digest,
        rotation=rotation,
        duration=seconds,
        fps=fps,
        frames=int(stream.frames or round(seconds * (fps or 0))),
        codec=_CODECS.get(stream.codec_context.name, stream.codec_context.name),
        chroma="444" if "444" in name else "422" if "422" in name else "420",
        bit_depth=component,
        hdr=int(stream.codec_context.color_trc or 0) in (16, 18),
        interlaced=bool(frame.interlaced_frame),
        bitrate=int(stream.bit_rate or container.bit_rate or size * 8 / seconds),
        audio=_audio(sound.codec_context.name) if sound else None,
        audio_rate=sound.codec_context.sample_rate if sound else None,
        audio_channels=len(sound.codec_context.layout.channels) if sound else None,
        audio_bitrate=sound.bit_rate if sound else None,
        moov_in_front=moov,
        edit_lists=edits,
        has_location=any(key.startswith(_PLACES) for key in tags),
        has_device=any(key in _DEVICES for key in tags),
        metadata=bool(tags - _HARMLESS) or _other_tracks(container),
    )


_HARMLESS = {
    *("major_brand", "minor_version", "compatible_brands", "encoder", "handler_name"),
    *("language", "vendor_id", "duration", "bps", "number_of_frames", "number_of_bytes"),
    *("_statistics_writing_app", "_statistics_tags"),
}


def _tags(container: Any) -> set[str]:
    found = {key.lower() for key in container.metadata}
    for stream in container.streams:
        found |= {key.lower() for key in stream.metadata}
    return found


def _other_tracks(container: Any) -> bool:
    return len(container.streams) > len(container.streams.video) + len(container.streams.audio)


def _seconds(container: Any, stream: Any) -> float | None:
    if stream.duration:
        return float(Fraction(stream.duration) * stream.time_base)
    return float(container.duration) / 1_000_000 if container.duration else None


def _last_frame(container: Any, stream: Any, seconds: float) -> None:
    """Refuse a file that ends before it says: its last second must be there."""
    if seconds < 2:
        return
    at = int((seconds - 1) / stream.time_base)
    container.seek(at, stream=stream)
    packets = (packet for packet in container.demux(stream) if packet.pts is not None)
    last = max((float(packet.pts * stream.time_base) for packet in packets), default=0.0)
    if last < seconds - 3:
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


def _boxes(path: Path) -> tuple[bool, bool]:
    """Return whether the index leads the file, and whether a track has a real edit list."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", head)
            body = size - 8
            if size == 1:
                body = int.from_bytes(file.read(8), "big") - 16
            if name == b"mdat":
                moov = _moov_after(file, body)
                return False, b"elst" in moov
            if name == b"moov":
                return True, b"elst" in file.read(min(body, 50_000_000))
            file.seek(body, 1)
    return False, False


def _moov_after(file: Any, body: int) -> bytes:
    """Return the index that follows the media data."""
    file.seek(body, 1)
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        if name == b"moov":
            return bytes(file.read(min(size - 8, 50_000_000)))
        file.seek(size - 8 if size >= 8 else 0, 1)
        if size < 8:
            break
    return b""
