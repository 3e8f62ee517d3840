"""Removes metadata from image files without touching a pixel; orientation and colour stay."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

#: What describes the picture and not its making.
_ICC, _ADOBE, _JFIF = b"ICC_PROFILE\0", b"Adobe", b"JFIF\0"
_PNG_KEPT = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"),
    *(b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"),
}
_WEBP_KEPT = {b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"}
_GIF_KEPT = {b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012"}
FORMATS = {"jpeg", "png", "webp", "gif"}


def stripped(data: bytes, format_: str, orientation: int = 1) -> bytes:
    """Return the file without EXIF, XMP, IPTC and comments; raise ValueError for a broken one.

    What follows the picture's end (a phone's second picture, a film, a trailer) goes too.
    """
    try:
        match format_:
            case "jpeg":
                return b"".join(_jpeg(data, orientation))
            case "png":
                return b"".join(_png(data, orientation))
            case "webp":
                return _webp(data, orientation)
            case "gif":
                return b"".join(_gif(data))
            case _:
                raise ValueError(f"cannot strip {format_}")
    except (IndexError, struct.error):
        raise ValueError(f"broken {format_}") from None


def _jpeg(data: bytes, orientation: int) -> Iterator[bytes]:
    yield data[:2]
    if orientation != 1:
        yield _segment(0xE1, b"Exif\0\0" + _orientation(orientation))
    at = 2
    while at < len(data) and (marker := data[at + 1]) != 0xD9:
        if data[at] != 0xFF:
            raise ValueError("broken JPEG")
        if marker == 0xFF:
            at += 1
            continue
        end = at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xDA:
            end = _scan_end(data, end)
        if _stays(marker, data[at + 4 : end]):
            yield data[at:end]
        at = end
    yield b"\xff\xd9"


def _scan_end(data: bytes, at: int) -> int:
    """Return where the coded picture ends: at a marker that is no stuffing and no restart."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            return len(data)  # Some cameras forget the end marker.
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def _stays(marker: int, body: bytes) -> bool:
    if marker == 0xE2:
        return body.startswith(_ICC)
    if marker == 0xEE:
        return body.startswith(_ADOBE)
    if marker == 0xE0:
        return body.startswith(_JFIF)
    return not (0xE1 <= marker <= 0xEF or marker == 0xFE)


def _orientation(value: int) -> bytes:
    """Return EXIF that says the orientation and nothing else."""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, value, 0) + b"\0" * 4


def _png(data: bytes, orientation: int) -> Iterator[bytes]:
    yield data[:8]
    at = 8
    while True:
        size, name = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at : at + 12 + size]
        if len(chunk) < 12 + size or zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
            raise ValueError("broken PNG")
        if name in _PNG_KEPT:
            yield chunk
        if name == b"IEND":
            return
        if name == b"IHDR" and orientation != 1:
            yield _chunk(b"eXIf", _orientation(orientation))
        at += 12 + size


def _chunk(name: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def _webp(data: bytes, orientation: int) -> bytes:
    kept, at, end = [], 12, 8 + struct.unpack("<I", data[4:8])[0]
    if end > len(data) + 1:
        raise ValueError("broken WebP")
    turned = orientation != 1
    while at + 8 <= min(end, len(data)):
        name, size = struct.unpack("<4sI", data[at : at + 8])
        chunk = bytearray(data[at : at + 8 + size + size % 2])
        if name == b"VP8X":
            # No XMP; EXIF only for the orientation.
            chunk[8] = chunk[8] & ~0x0C & 0xFF | (0x08 if turned else 0)
        if name in _WEBP_KEPT:
            kept.append(bytes(chunk))
        at += 8 + size + size % 2
    if turned:
        exif = _orientation(orientation)
        kept.append(b"EXIF" + struct.pack("<I", len(exif)) + exif)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(data: bytes) -> Iterator[bytes]:
    flags = data[10]
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    yield data[:at]
    while at < len(data) and data[at] != 0x3B:
        start, kind = at, data[at]
        if kind == 0x21:
            label, known = data[at + 1], data[at + 3 : at + 14] in _GIF_KEPT
            at = _after_blocks(data, at + 2)
            if label == 0xF9 or (label == 0xFF and known):
                yield data[start:at]
        elif kind == 0x2C:
            local = data[at + 9]
            at += 10 + (3 << (local & 7) + 1 if local & 0x80 else 0)
            at = _after_blocks(data, at + 1)
            yield data[start:at]
        else:
            raise ValueError("broken GIF")
    yield b"\x3b"


def _after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1
