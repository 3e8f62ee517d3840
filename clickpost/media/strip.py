"""Removes metadata from image files without touching a pixel; orientation and colour stay."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

#: A JPEG's segments that describe the picture and not its making: JFIF, ICC profile, Adobe.
_ICC, _ADOBE = b"ICC_PROFILE\0", b"Adobe"
_PNG_KEPT = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"),
    *(b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"),
}


def stripped(data: bytes, format_: str, orientation: int = 1) -> bytes:
    """Return the file without EXIF, XMP, IPTC and comments; raise ValueError for a broken one."""
    match format_:
        case "jpeg":
            return b"".join(_jpeg(data, orientation))
        case "png":
            return b"".join(_png(data))
        case "webp":
            return _webp(data)
        case "gif":
            return b"".join(_gif(data))
        case _:
            raise ValueError(f"cannot strip {format_}")


def _jpeg(data: bytes, orientation: int) -> Iterator[bytes]:
    yield data[:2]
    if orientation != 1:
        yield _orientation(orientation)
    at = 2
    while at < len(data):
        if data[at] != 0xFF:
            raise ValueError("broken JPEG")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            end = data.rfind(b"\xff\xd9")
            yield data[at : end + 2 if end > at else len(data)]
            return
        size = struct.unpack(">H", data[at + 2 : at + 4])[0]
        body = data[at + 4 : at + 2 + size]
        if _stays(marker, body):
            yield data[at : at + 2 + size]
        at += 2 + size


def _stays(marker: int, body: bytes) -> bool:
    if marker == 0xE2:
        return body.startswith(_ICC)
    if marker == 0xEE:
        return body.startswith(_ADOBE)
    return marker == 0xE0 or not (0xE1 <= marker <= 0xEF or marker == 0xFE)


def _orientation(value: int) -> bytes:
    """Return an EXIF segment that says the orientation and nothing else."""
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, value, 0) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _png(data: bytes) -> Iterator[bytes]:
    yield data[:8]
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at : at + 12 + size]
        if len(chunk) < 12 + size or zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
            raise ValueError("broken PNG")
        if name in _PNG_KEPT:
            yield chunk
        at += 12 + size
        if name == b"IEND":
            return


def _webp(data: bytes) -> bytes:
    kept, at = [], 12
    while at + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[at : at + 8])
        chunk = bytearray(data[at : at + 8 + size + size % 2])
        if name == b"VP8X":
            chunk[8] &= ~0x0C & 0xFF  # No EXIF, no XMP.
        if name not in (b"EXIF", b"XMP "):
            kept.append(bytes(chunk))
        at += 8 + size + size % 2
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(data: bytes) -> Iterator[bytes]:
    flags = data[10]
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    yield data[:at]
    while at < len(data):
        start, kind = at, data[at]
        if kind == 0x3B:
            yield b"\x3b"
            return
        if kind == 0x21:
            label, loops = data[at + 1], data[at + 3 : at + 14] in (b"NETSCAPE2.0", b"ANIMEXTS1.0")
            at = _after_blocks(data, at + 2)
            if label == 0xF9 or (label == 0xFF and loops):
                yield data[start:at]
        elif kind == 0x2C:
            local = data[at + 9]
            at += 10 + (3 << (local & 7) + 1 if local & 0x80 else 0)
            at = _after_blocks(data, at + 1)
            yield data[start:at]
        else:
            raise ValueError("broken GIF")


def _after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1
