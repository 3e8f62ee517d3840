"""Videos: what the policy says is what the file has; sound stays with its pictures."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from clickpost.contract import Kind
from clickpost.errors import ContentRejected
from clickpost.media import Rendition, plan, probe, video
from tests.core.media import _house as house

#: A beep and a flash at the same moment.
BEEP = "aevalsrc=if(gte(t\\,1)\\,0.6*sin(2*PI*880*t)\\,0):s=48000"


def flash(path: Path, *more: object, codec: str = "libx264") -> Path:
    """Make four seconds in which light and sound begin after one."""
    picture = "color=c=black:size=320x240:rate=50:duration=1"
    rest = "color=c=white:size=320x240:rate=50:duration=3"
    house.ffmpeg(
        *("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", rest, "-f", "lavfi", "-i", BEEP),
        *("-filter_complex", "[0:v][1:v]concat=n=2:v=1:a=0[v]", "-map", "[v]", "-map", "2:a"),
        *("-t", 4, "-c:v", codec, "-preset", "fast", "-pix_fmt", "yuv420p", "-c:a", "aac"),
        *(*more, path),
    )
    return path


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compliant phone clip with place, device, words and a chapter."""
    folder = tmp_path_factory.mktemp("telling")
    plain = house.clip(folder / "plain.mov", "-bf", 0)
    words = folder / "chapters.txt"
    words.write_text(f";FFMETADATA1\n[CHAPTER]\nSTART=0\nEND=900000000\ntitle={house.WORD}\n")
    house.ffmpeg(
        *("-i", plain, "-i", words, "-map", 0, "-map_metadata", 0, "-map_chapters", 1),
        *("-c", "copy", "-movflags", "use_metadata_tags"),
        *("-metadata", f"com.apple.quicktime.location.ISO6709={house.PLACE}"),
        *("-metadata", f"com.apple.quicktime.make={house.WORD}"),
        *("-metadata", f"com.apple.quicktime.model={house.WORD}"),
        *("-metadata", f"comment={house.WORD}", "-metadata:s:v", f"handler_name={house.WORD}"),
        *("-metadata", "creation_time=2026-01-02T03:04:05Z", folder / "telling.mov"),
    )
    return folder / "telling.mov"


@pytest.mark.parametrize("name", house.ALL)
def test_place_and_device_are_gone_and_the_pictures_are_untouched(
    telling: Path, name: str, tmp_path: Path
) -> None:
    source = tmp_path / "in.mov"
    source.write_bytes(telling.read_bytes())
    found = probe(source)
    assert found.has_location
    assert found.has_device
    done = house.made(source, name)
    assert house.PLACE.encode() not in done.path.read_bytes()
    assert house.stream_digest(done.path) == house.stream_digest(source)


@pytest.mark.parametrize(
    "hidden",
    [
        house.box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + house.XMP),
        house.box(b"free", house.MARK),
        house.box(b"meta", house.MARK),
        house.box(b"udta", house.box(b"\xa9xyz", house.MARK)),
    ],
    ids=["xmp", "free", "meta", "udta"],
)  # fmt: skip
def test_what_hides_in_a_box_is_found(tmp_path: Path, hidden: bytes) -> None:
    source = house.clean(tmp_path / "in.mp4")
    assert not probe(source).metadata
    source.write_bytes(source.read_bytes() + hidden)
    done = house.made(source, "mastodon")
    assert house.stream_digest(done.path) == house.stream_digest(source)


def test_android_place_and_device_are_gone(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    words = ("-metadata", f"location={house.PLACE}", "-metadata", f"model={house.WORD}")
    house.clip(source, *words)
    assert probe(source).has_location
    assert house.PLACE.encode() not in house.made(source, "bluesky").path.read_bytes()


def test_a_cover_and_a_second_sound_do_not_leave(tmp_path: Path) -> None:
    cover = tmp_path / "cover.jpg"
    house.photo().save(cover, comment=house.MARK)
    plain = house.clean(tmp_path / "plain.mp4")
    source = tmp_path / "in.mp4"
    house.ffmpeg(
        *("-i", cover, "-i", plain, "-map", "1:v", "-map", "1:a", "-map", "1:a", "-map", 0),
        *("-c", "copy", "-disposition:v:1", "attached_pic", source),
    )
    assert probe(source).metadata
    done = house.made(source, "mastodon")
    assert house.stream_digest(done.path) == house.stream_digest(plain)


def test_a_clean_compliant_clip_passes_byte_for_byte(tmp_path: Path) -> None:
    source = house.clean(tmp_path / "in.mp4")
    done = house.outcome(source, *house.targets())
    paths = {one.path for one in done.values()}  # type: ignore[attr-defined]
    assert len(paths) == 1
    assert paths.pop().read_bytes() == source.read_bytes()


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_clip_that_lies_stands_up(tmp_path: Path, degrees: int) -> None:
    plain = house.clip(tmp_path / "plain.mp4", pictures="smptebars")
    source = tmp_path / "in.mp4"
    house.ffmpeg("-display_rotation", -degrees, "-i", plain, "-c", "copy", source)
    shown = (240, 320) if degrees != 180 else (320, 240)
    expected = house.corners(house.frame(source))
    for one in (house.target("mastodon"), house.target("mastodon", pixels=50_000)):
        done = house.made(source, one)
        assert (done.width > done.height) == (shown[0] > shown[1])
        assert house.same(house.corners(house.frame(done.path)), expected, 30)
    assert probe(done.path).rotation == 0


@pytest.mark.parametrize("late", ["sound", "pictures", "neither"])
@pytest.mark.parametrize("way", ["copy", "encode", "without edit lists", "both"])
def test_sound_stays_with_its_pictures(tmp_path: Path, late: str, way: str) -> None:
    plain, source = flash(tmp_path / "plain.mp4"), tmp_path / "in.mp4"
    delays = {"sound": (0, 0.5), "pictures": (0.5, 0), "neither": (0, 0)}[late]
    house.ffmpeg(
        *("-itsoffset", delays[0], "-i", plain, "-itsoffset", delays[1], "-i", plain),
        *("-map", "0:v", "-map", "1:a", "-c", "copy", source),
    )
    if late == "neither":
        source = plain
    changes: dict[str, object] = {}
    if way in ("encode", "both"):
        changes["pixels"] = 50_000
    if way in ("without edit lists", "both"):
        changes["edit_lists"] = False
    done = house.made(source, house.target("mastodon", **changes))
    meant = delays[0] - delays[1]
    assert house.drift(done.path, edits=True) == pytest.approx(meant, abs=0.045)
    if changes.get("edit_lists") is False:
        assert not probe(done.path).edit_lists
        assert house.drift(done.path, edits=False) == pytest.approx(meant, abs=0.045)


def test_what_an_edit_list_cut_off_stays_off(tmp_path: Path) -> None:
    plain, source = flash(tmp_path / "plain.mp4", "-g", 500), tmp_path / "in.mp4"
    house.ffmpeg("-ss", 0.7, "-i", plain, "-c", "copy", source)
    assert probe(source).retimed
    done = house.made(source, house.target("mastodon", edit_lists=False))
    assert "metadata" not in done.label
    assert house.drift(done.path, edits=False) == pytest.approx(0, abs=0.045)
    assert house._onset(done.path, "-ignore_editlist", "1", loud=0.02) < 0.45


@pytest.mark.parametrize(
    "kind",
    ["hevc", "ten bits", "444", "odd", "silent", "mono", "5.1", "120 fps", "10 fps", "vp9", "96k"],
)
def test_every_platform_gets_what_its_policy_says(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.mkv"
    mono = "sine=frequency=440:sample_rate=48000"
    match kind:
        case "hevc":
            house.clip(source, codec="libx265")
        case "ten bits":
            house.clip(source, "-pix_fmt", "yuv420p10le")
        case "444":
            house.clip(source, "-pix_fmt", "yuv444p")
        case "odd":
            house.clip(source, "-pix_fmt", "yuv444p", size="321x243")
        case "silent":
            house.clip(source, sound=None)
        case "mono":
            house.clip(source, "-ac", 1)
        case "5.1":
            house.clip(source, "-ac", 6, "-b:a", "384k")
        case "120 fps":
            house.clip(source, fps=120)
        case "10 fps":
            house.clip(source, fps=10)
        case "vp9":
            house.clip(source, "-deadline", "realtime", "-cpu-used", 8, codec="libvpx-vp9")
        case "96k":
            house.clip(source, "-ar", 96_000, "-b:a", "320k", sound=mono)
    done = house.outcome(source, *house.targets())
    assert {name for name, one in done.items() if isinstance(one, Rendition)} == set(house.ALL)
    before, found = probe(source), probe(done["instagram"].path)  # type: ignore[attr-defined]
    # Instagram takes HEVC: it is not encoded again.
    assert found.codec == ("hevc" if kind == "hevc" else "h264")
    assert (found.chroma, found.bit_depth) == ("420", 8)
    assert found.fps == pytest.approx(
        min(60, 30 if kind == "10 fps" else before.fps or 0), rel=0.01
    )
    assert (found.audio is None) == (kind == "silent")
    assert found.audio_channels in (None, 1, 2)
    assert found.moov_in_front
    assert not found.edit_lists
    assert found.duration == pytest.approx(before.duration, abs=0.15)


def test_a_rate_that_varies_keeps_its_time(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    uneven = "select='not(mod(n,2))+lt(n,60)'"
    house.clip(source, "-vf", uneven, "-fps_mode", "vfr", seconds=6)
    done = house.made(source, house.target("instagram", pixels=50_000))
    assert done.duration == pytest.approx(probe(source).duration, abs=0.1)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4", "-vf", "setsar=2/1")
    assert (probe(source).width, probe(source).height) == (640, 240)
    done = house.made(source, house.target("mastodon", pixels=100_000))
    assert done.width / done.height == pytest.approx(640 / 240, rel=0.02)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "untagged"])
def test_colours_mean_after_encoding_what_they_meant_before(tmp_path: Path, matrix: str) -> None:
    tags = () if matrix == "untagged" else ("-colorspace", matrix)
    said = "smpte170m" if matrix == "untagged" else matrix
    paint = ("-vf", f"scale=out_color_matrix={said}:out_range=tv,format=yuv420p")
    source = house.clip(tmp_path / "in.mkv", *paint, *tags, pictures="color=c=0x30c040")
    done = house.made(source, house.target("mastodon", containers=["mp4"], pixels=50_000))
    assert house.near(house.corners(house.frame(done.path))[0], (0x30, 0xC0, 0x40), 8)


def test_high_dynamic_range_is_mapped_where_it_must_and_kept_where_it_may(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    colours = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:log-level=error"
    house.clip(source, "-pix_fmt", "yuv420p10le", "-x265-params", colours, codec="libx265")
    assert probe(source).hdr
    done = house.outcome(source, *house.targets("bluesky", "youtube"))
    kept, mapped = (probe(done[name].path) for name in ("youtube", "bluesky"))  # type: ignore[attr-defined]
    assert (kept.hdr, kept.bit_depth, kept.codec) == (True, 10, "hevc")
    assert (mapped.hdr, mapped.bit_depth, mapped.codec) == (False, 8, "h264")


def test_interlaced_becomes_progressive(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4", "-vf", "interlace", "-flags", "+ilme+ildct")
    assert probe(source).interlaced
    assert not probe(house.made(source, "instagram").path).interlaced


@pytest.mark.parametrize(("seconds", "word"), [(2, "at least 3 s"), (7, "at most 5 s")])
def test_too_short_and_too_long_are_refused_with_the_limit(
    tmp_path: Path, seconds: float, word: str
) -> None:
    source = house.clip(tmp_path / "in.mp4", seconds=seconds)
    five = house.POLICIES["instagram"].video.lasts.model_copy(update={"max": _span(5)})
    refused = house.outcome(source, house.target("instagram", lasts=five))["instagram"]
    assert isinstance(refused, ContentRejected)
    assert refused.faults[0].field == "video.duration"
    assert word in str(refused)
    assert f"{seconds:.1f} s" in refused.faults[0].found


def _span(seconds: float) -> object:
    from datetime import timedelta

    return timedelta(seconds=seconds)


def test_a_shape_outside_the_limits_is_padded_and_never_cut(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4", pictures="color=c=0xc02020", size="640x64")
    square = house.POLICIES["instagram"].images.aspect
    done = house.made(source, house.target("mastodon", aspect=square))
    assert done.width / done.height == pytest.approx(1.91, abs=0.05)
    image = house.frame(done.path)
    assert house.near(house.corners(image)[0], (0, 0, 0))
    middle = image.getpixel((image.width // 2, image.height // 2))
    assert house.near(middle, (0xC0, 0x20, 0x20))  # type: ignore[arg-type]


@pytest.mark.parametrize("kilobytes", [900, 300])
def test_bytes_are_reached_by_bitrate(tmp_path: Path, kilobytes: int) -> None:
    noise = "nullsrc=size=640x480:rate=25,noise=alls=100:allf=t+u"
    source = tmp_path / "in.mp4"
    words = ("-f", "lavfi", "-i", noise, "-f", "lavfi", "-i", "anoisesrc", "-t", 4)
    house.ffmpeg(*words, "-c:v", "libx264", "-preset", "ultrafast", "-crf", 20, source)
    assert source.stat().st_size > 2_000_000
    done = house.made(source, house.target("mastodon", bytes=kilobytes * 1000))
    assert kilobytes * 500 < done.bytes <= kilobytes * 1000
    assert done.duration == pytest.approx(4, abs=0.1)


def test_a_limit_of_bitrate_is_kept_by_a_short_wild_clip(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    noise = "nullsrc=size=640x480:rate=25,noise=alls=100:allf=t+u"
    words = ("-f", "lavfi", "-i", noise, "-t", 3.2, "-c:v", "libx264", "-preset", "ultrafast")
    house.ffmpeg(*words, "-crf", 20, source)
    done = house.made(source, house.target("instagram", bitrate=2_000_000))
    assert (probe(done.path).bitrate or 0) <= 2_000_000


def test_a_clip_too_large_to_mend_is_refused_with_numbers(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mkv", seconds=30, fps=5, size="64x48")
    limited = house.target("instagram", bytes=400_000)
    refused = house.outcome(source, limited)["instagram"]
    assert isinstance(refused, ContentRejected)
    assert refused.faults[0].field == "video.bytes"
    assert "400000" in refused.faults[0].limit
    assert "30 s" in refused.faults[0].found


def test_a_limit_of_frames_is_kept(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mp4", seconds=3.3)
    done = house.made(source, house.target("mastodon", frames=77))
    assert probe(done.path).frames <= 77


def test_all_renditions_come_from_one_process_and_one_decode(tmp_path: Path) -> None:
    source = house.clip(tmp_path / "in.mkv", codec="libx265")
    one, two = house.target("bluesky", pixels=10_000), house.target("mastodon")
    two = replace(two, name="mastodon")
    planned = plan(probe(source), [one, two, house.target("youtube", containers=["mp4"])])
    outs = {each.profile: tmp_path / f"{n}.mp4" for n, each in enumerate(planned.renditions)}
    words = video.command(planned.source, outs)
    assert words.count("-i") == 1
    assert "file" in words[words.index("-protocol_whitelist") + 1]
    assert "http" not in words[words.index("-protocol_whitelist") + 1]
    runs: list[list[str]] = []
    real = subprocess.Popen

    class Counted(real):  # type: ignore[type-arg,misc]
        def __init__(self, command: list[str], **about: object) -> None:
            runs.append(command)
            super().__init__(command, **about)  # type: ignore[call-overload]

    video.subprocess.Popen = Counted  # type: ignore[attr-defined,misc,assignment]
    try:
        video.make(planned.source, outs)
    finally:
        video.subprocess.Popen = real  # type: ignore[attr-defined,misc]
    assert len(runs) == 1
    assert all(probe(path).kind is Kind.VIDEO for path in outs.values())
