"""Reads the boxes of MP4 and QuickTime files: where the index is, what hides, what is cut."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: An index larger than this is an attack.
_MOST_INDEX = 64_000_000
_PLAIN = {
    *(b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"moof", b"mfra", b"sidx", b"styp"),
    *(b"mvhd", b"trak", b"mvex", b"iods", b"tkhd", b"edts", b"mdia", b"tref", b"tapt", b"load"),
    *(b"pdin", b"ssix", b"clip", b"ctab", b"matt"),
}
#: An encoder's delay is hidden by a shift this short; more is somebody's cut. Seconds.
_DELAY, HEARD = 0.25, 0.045

Box = tuple[bytes, bytes]


@dataclass(frozen=True)
class Boxes:
    """What a file's boxes say. `retimed`: an edit list does more than hide an encoder's delay."""

    whole: bool = True
    moov_in_front: bool = False
    edit_lists: bool = False
    retimed: bool = False
    metadata: bool = False


def read(path: Path) -> Boxes:
    """Walk over the file's boxes without reading its media."""
    order: list[bytes] = []
    moov, metadata, whole = b"", False, True
    size = path.stat().st_size
    with path.open("rb") as file:
        for name, start, end in _top(file, size):
            order.append(name)
            whole = whole and end <= size
            file.seek(start)
            if name == b"moov":
                moov = file.read(min(end - start, _MOST_INDEX))
            elif name in (b"free", b"skip"):
                metadata = metadata or any(file.read(min(end - start, 1_000_000)))
            metadata = metadata or name not in _PLAIN
    tracks = [body for name, body in _inside(moov) if name == b"trak"]
    lists = [one for track in tracks if (one := _edits(track)) is not None]
    first = next((name for name in order if name in (b"moov", b"mdat")), b"")
    return Boxes(
        whole=whole and b"moov" in order and len(moov) < _MOST_INDEX,
        moov_in_front=first == b"moov",
        edit_lists=bool(lists),
        retimed=any(_retimes(one, _clock(moov, b"mvhd")) for one in lists),
        metadata=metadata or _tells(moov) or any(_tells(track) for track in tracks),
    )


def _top(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each box of the file; the end may lie behind the file's."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, name = struct.unpack(">I4s", head[:8])
        start = at + 8
        if length == 1 and len(head) == 16:
            length, start = int.from_bytes(head[8:16], "big"), at + 16
        end = size if length == 0 else at + length
        yield name, start, max(end, start)
        at = max(end, start)


def _inside(data: bytes) -> Iterator[Box]:
    """Yield the boxes in a box's body."""
    at = 0
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if length < 8:
            return
        yield name, data[at + 8 : at + length]
        at += length


def _first(data: bytes, *names: bytes) -> bytes:
    """Return the body of the box at the end of the path `names`, empty where it is missing."""
    for name in names:
        data = next((body for found, body in _inside(data) if found == name), b"")
    return data


def _tells(data: bytes) -> bool:
    """Say whether a movie or a track carries words beside the name of a muxer."""
    for name, body in _inside(data):
        if name in (b"free", b"skip"):
            if any(body):
                return True
        elif name not in _PLAIN and not (name == b"udta" and _only_muxer(body)):
            return True
    return False


def _only_muxer(udta: bytes) -> bool:
    """Say whether user data holds nothing, or the name of ffmpeg's muxer alone."""
    names = {name for name, _ in _inside(udta)}
    items = list(_inside(_first(udta, b"meta")[4:]))
    words = [one for name, body in items if name == b"ilst" for one in _inside(body)]
    return (
        names <= {b"meta"}
        and {name for name, _ in items} <= {b"hdlr", b"ilst", b"free"}
        and all(name == b"\xa9too" and b"Lavf" in body for name, body in words)
    )


@dataclass(frozen=True)
class _Edits:
    entries: tuple[tuple[int, int, int], ...]
    clock: int


def _edits(track: bytes) -> _Edits | None:
    """Return a track's edit list: for each entry length, start in the media, and rate."""
    body = _first(track, b"edts", b"elst")
    if len(body) < 8:
        return None
    shape = ">QqI" if body[0] == 1 else ">IiI"
    size, count = struct.calcsize(shape), struct.unpack(">I", body[4:8])[0]
    known = min(count, (len(body) - 8) // size)
    entries = [struct.unpack_from(shape, body, 8 + size * n) for n in range(known)]
    return _Edits(tuple(entries), _clock(_first(track, b"mdia"), b"mdhd"))


def _clock(data: bytes, header: bytes) -> int:
    body = _first(data, header)
    at = 20 if body[:1] == b"\x01" else 12
    return int.from_bytes(body[at : at + 4], "big") or 1


def _retimes(edits: _Edits, movie_clock: int) -> bool:
    played = [entry for entry in edits.entries if entry[1] >= 0]
    waits = sum(entry[0] for entry in edits.entries if entry[1] < 0) / movie_clock
    return (
        len(played) > 1
        or waits > HEARD
        or any(rate != 0x10000 or start / edits.clock > _DELAY for _, start, rate in played)
    )
