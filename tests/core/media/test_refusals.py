"""Files that are refused: the reason names field, limit and what was found."""

from __future__ import annotations

import http.server
import struct
import threading
import zlib
from pathlib import Path

import pytest
from PIL import Image

from clickpost.errors import ContentRejected
from clickpost.media import probe
from tests.core.media import _house as house


def refusal(path: Path) -> ContentRejected:
    """Return why the file is refused."""
    with pytest.raises(ContentRejected) as caught:
        probe(path)
    for fault in caught.value.faults:
        assert fault.field
        assert fault.limit
        assert fault.found
        assert str(path.parent) not in str(fault)
    assert caught.value.faults
    return caught.value


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sizes of the same: the index in front, and at the end."""
    folder = tmp_path_factory.mktemp("clips")
    house.clip(folder / "front.mp4", "-movflags", "+faststart", seconds=4)
    house.clip(folder / "back.mp4", seconds=4)
    house.clip(folder / "clip.mkv", seconds=4)
    house.clip(folder / "short.mp4", "-movflags", "+faststart", seconds=1)
    return folder


TEXTS = {
    "words.mp4": b"this is a text, and no film at all\n" * 50,
    "empty.mp4": b"",
    "empty.jpg": b"",
    "picture.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n",
    "list.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "list.txt": b"file '/etc/passwd'\n",
    "font.ttf": b"\0\1\0\0\0\x0c\0\x80\0\3\0\x40" + bytes(400),
    "font.woff2": b"wOF2\0\1\0\0" + bytes(400),
    "page.pdf": b"%PDF-1.7\n" + bytes(400),
    "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%id) run\n",
    "archive.png": b"PK\3\4" + bytes(400),
    "program.gif": b"\x7fELF" + bytes(400),
    "head.jpg": b"\xff\xd8\xff\xe0",
    "head.gif": b"GIF89a",
    "head.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "head.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0),
    "loop.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + bytes(4) + b"free" + bytes(99),
    "tiny.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + b"\0\0\0\x02moov" + bytes(99),
    "ebml.webm": b"\x1a\x45\xdf\xa3" + bytes(500),
    "riff.avi": b"RIFF\xff\xff\0\0AVI LIST" + bytes(500),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_picture_and_no_film_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[name])
    refusal(path)


@pytest.mark.parametrize("name", ["front.mp4", "back.mp4", "clip.mkv", "short.mp4"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_clip_that_ends_too_early_is_refused(
    clip: Path, tmp_path: Path, name: str, share: float
) -> None:
    data = (clip / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    refusal(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".heic", ".avif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_picture_that_ends_too_early_is_refused(
    tmp_path: Path, suffix: str, share: float
) -> None:
    path = tmp_path / f"in{suffix}"
    Image.effect_noise((300, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refusal(path)


def test_a_film_named_as_a_picture_is_refused(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.jpg"
    path.write_bytes((clip / "front.mp4").read_bytes())
    assert "video" in refusal(path).faults[0].found


def test_a_picture_named_as_a_film_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    path.write_bytes(house.jpeg(house.photo()))
    assert "image" in refusal(path).faults[0].found


def test_a_picture_is_what_it_is_and_not_what_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(house.jpeg(house.photo()))
    assert probe(path).mime == "image/jpeg"


@pytest.mark.parametrize("side", [18_000, 40_000, 2_000_000])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, side: int) -> None:
    path = tmp_path / "in.png"
    rows = zlib.compress(bytes(10_000))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + house.chunk(b"IHDR", head) + house.chunk(b"IDAT", rows)
    path.write_bytes(data + house.chunk(b"IEND", b""))
    fault = refusal(path).faults[0]
    assert fault.field == "pixels"
    assert "250000000" in fault.limit
    assert fault.found in (f"{side}x{side}", str(side * side))


def test_a_bomb_of_words_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    house.photo(40, 30).save(path)
    data = path.read_bytes()
    text = house.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    path.write_bytes(data[:33] + text + data[33:])
    refusal(path)


def test_a_bomb_of_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.gif"
    one = Image.new("P", (1, 1))
    one.save(path)
    data = path.read_bytes()
    frame = data[data.index(b"\x2c") : -1]
    head = data[:6] + struct.pack("<HH", 9000, 9000) + data[10 : data.index(b"\x2c")]
    path.write_bytes(head + frame * 40 + b"\x3b")
    assert refusal(path).faults[0].field in ("frames", "pixels")


def test_a_film_of_no_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    house.ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25", "-t", 1, "-an"),
        *("-movflags", "+frag_keyframe+empty_moov+default_base_moof", path),
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    refusal(path)


def test_a_film_without_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    house.ffmpeg("-f", "lavfi", "-i", "sine", "-t", 1, path)
    assert refusal(path).faults[0].found == "sound only"


def test_a_song_with_a_cover_is_refused(tmp_path: Path) -> None:
    cover, path = tmp_path / "cover.jpg", tmp_path / "in.mp4"
    house.photo().save(cover)
    house.ffmpeg(
        *("-f", "lavfi", "-i", "sine", "-i", cover, "-map", 0, "-map", 1, "-t", 1),
        *("-c:v", "mjpeg", "-disposition:v:0", "attached_pic", path),
    )
    assert refusal(path).faults[0].found == "sound only"


def test_garbage_in_the_middle_makes_no_half_rendition(clip: Path, tmp_path: Path) -> None:
    data = bytearray((clip / "front.mp4").read_bytes())
    start = data.index(b"mdat") + 2000
    data[start : start + 60_000] = bytes(60_000)
    path = tmp_path / "in.mp4"
    path.write_bytes(data)
    done = house.outcome(path, house.target("mastodon", pixels=20_000))["mastodon"]
    if not isinstance(done, ContentRejected):
        found = probe(done.path)  # type: ignore[attr-defined]
        assert found.duration == pytest.approx(4, abs=0.5)


def test_no_list_and_no_film_ever_calls_out(tmp_path: Path) -> None:
    asked: list[str] = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/a.ts"
    try:
        for name in ("a.m3u8", "a.mp4", "a.mov", "a.mkv", "a.jpg"):
            path = tmp_path / name
            path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n")
            refusal(path)
    finally:
        server.shutdown()
        server.server_close()
    assert not asked
