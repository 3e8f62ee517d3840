"""Looks into media as a strict platform does: what it really is, never what its name says."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from PIL import Image

_LOCATION_KEYS = ("location", "gps", "com.apple.quicktime.location.iso6709", "©xyz")
_DEVICE_KEYS = ("make", "model", "com.apple.quicktime.make", "com.apple.quicktime.model")


async def inspect(path: Path) -> dict[str, Any]:
    """Return kind, format, size, duration, codecs and what metadata travels along."""
    return dict(await asyncio.to_thread(_inspect, path, path.stat().st_mtime_ns))


@lru_cache(maxsize=2000)
def _inspect(path: Path, _: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"bytes": path.stat().st_size}
    try:
        return facts | _image(path)
    except Exception:  # Pillow raises many classes for what is no image.
        pass
    try:
        return facts | _video(path)
    except Exception:
        return facts | {"kind": "unknown", "format": "unknown"}


def _image(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        exif = image.getexif()
        image.load()
        orientation = int(exif.get(0x0112, 1))
        turned = orientation in (5, 6, 7, 8)
        size = (image.height, image.width) if turned else (image.width, image.height)
        return {
            "kind": "image",
            "format": str(image.format).lower(),
            "mime": Image.MIME.get(str(image.format), "application/octet-stream"),
            "width": size[0],
            "height": size[1],
            "mode": image.mode,
            "orientation": orientation,
            "has_location": bool(exif.get_ifd(0x8825)),
            "has_device": bool(exif.get(0x010F) or exif.get(0x0110)),
        }


def _video(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        sound = container.streams.audio[0] if container.streams.audio else None
        frame = next(container.decode(stream))
        rotated = abs(int(frame.rotation)) % 180 == 90
        size = (frame.height, frame.width) if rotated else (frame.width, frame.height)
        tags = {key.lower() for key in container.metadata}
        for one in container.streams:
            tags |= {key.lower() for key in one.metadata}
        seconds = float(container.duration or 0) / 1_000_000
        return {
            "kind": "video",
            "format": container.format.name,
            "mime": "video/webm" if "webm" in container.format.name else "video/mp4",
            "width": size[0],
            "height": size[1],
            "duration": round(seconds, 3),
            "codec": stream.codec_context.name,
            "pixels": str(stream.codec_context.pix_fmt),
            "fps": round(float(stream.average_rate or 0), 3),
            "bitrate": int(container.bit_rate or 0),
            "audio": sound.codec_context.name if sound else None,
            "audio_rate": sound.codec_context.sample_rate if sound else None,
            "moov_in_front": moov_in_front(path),
            "has_location": any(key.startswith(_LOCATION_KEYS) for key in tags),
            "has_device": any(key in _DEVICE_KEYS for key in tags),
        }


def moov_in_front(path: Path) -> bool:
    """Say whether the index comes before the media data."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, name = int.from_bytes(head[:4], "big"), head[4:]
            if name in (b"moov", b"mdat"):
                return name == b"moov"
            if size == 1:
                size = int.from_bytes(file.read(8), "big") - 8
            file.seek(size - 8, 1)
    return False
