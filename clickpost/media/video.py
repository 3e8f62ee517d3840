"""Makes all video renditions of one source in one ffmpeg process, with one decode."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from clickpost.errors import ContentRejected, Fault, Unavailable
from clickpost.media.plan import Profile
from clickpost.media.probe import Probed, demuxer_of

Progress = Callable[[float], None]

#: Fast enough for a laptop, and phones see no difference.
PRESET, CRF = "veryfast", 22
#: Nothing may take longer than this many times the clip's own length (and a minute).
_PATIENCE = 60.0
_TONEMAP = (
    ("zscale", {"t": "linear", "npl": 100}),
    ("format", {"pix_fmts": "gbrpf32le"}),
    ("zscale", {"p": "bt709"}),
    ("tonemap", {"tonemap": "hable", "desat": 0}),
    ("zscale", {"t": "bt709", "m": "bt709", "r": "tv"}),
)


def make(probed: Probed, outs: Mapping[Profile, Path], on_progress: Progress | None = None) -> None:
    """Write every rendition; raise ContentRejected where ffmpeg cannot read the source."""
    plain = {profile: path for profile, path in outs.items() if profile.how == "as it is"}
    for path in plain.values():
        path.write_bytes(probed.path.read_bytes())
    rest = {profile: path for profile, path in outs.items() if profile not in plain}
    if not rest:
        return
    _run(command(probed, rest), probed, on_progress)
    over = {p: f for p, f in rest.items() if p.bytes is not None and f.stat().st_size > p.bytes}
    for profile, path in over.items():
        _smaller(probed, profile, path, on_progress)


def _smaller(probed: Probed, profile: Profile, path: Path, on_progress: Progress | None) -> None:
    """Encode once more at a bitrate corrected by what came out."""

    assert profile.bytes is not None
    assert profile.bitrate is not None
    share = profile.bytes / path.stat().st_size
    less = replace(profile, bitrate=int(profile.bitrate * share * 0.9))
    _run(command(probed, {less: path}), probed, on_progress)
    if path.stat().st_size > profile.bytes:
        found = str(path.stat().st_size)
        raise ContentRejected("media", (Fault("video.bytes", f"at most {profile.bytes}", found),))


def command(probed: Probed, outs: Mapping[Profile, Path]) -> list[str]:
    """Return the one ffmpeg command that makes all of `outs`."""
    with probed.path.open("rb") as file:
        demuxer = demuxer_of(file.read(64))
    source = ffmpeg.input(
        str(probed.path), f=str(demuxer), protocol_whitelist="file,pipe", v="error", nostdin=None
    )
    encoded = [profile for profile in outs if profile.how == "encoded"]
    branches = _branches(source, probed, encoded)
    outputs = [
        _output(source, branches.get(profile), probed, profile, path)
        for profile, path in outs.items()
    ]
    whole = ffmpeg.merge_outputs(*outputs).global_args("-progress", "pipe:1").overwrite_output()
    return [str(word) for word in whole.compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())]


def _branches(source: Any, probed: Probed, profiles: list[Profile]) -> dict[Profile, Any]:
    """Return one filtered picture stream for each encode, all from one decode."""
    if not profiles:
        return {}
    picture = source.video
    if probed.interlaced:
        picture = picture.filter("yadif")
    if len(profiles) == 1:
        return {profiles[0]: _filtered(picture, probed, profiles[0])}
    parts = picture.filter_multi_output("split", len(profiles))
    return {profile: _filtered(parts[n], probed, profile) for n, profile in enumerate(profiles)}


def _filtered(picture: Any, probed: Probed, profile: Profile) -> Any:
    if profile.fps is not None:
        picture = picture.filter("fps", profile.fps)
    inner = (profile.inner_width, profile.inner_height)
    if inner != (probed.width, probed.height):
        picture = picture.filter("scale", *inner, flags="bicubic")
    if probed.hdr:
        for name, given in _TONEMAP:
            picture = picture.filter(name, **given)
    if inner != (profile.width, profile.height):
        x, y = (profile.width - inner[0]) // 2, (profile.height - inner[1]) // 2
        picture = picture.filter("pad", profile.width, profile.height, x, y)
    return picture.filter("setsar", 1).filter("format", "yuv420p")


def _output(source: Any, picture: Any, probed: Probed, profile: Profile, path: Path) -> Any:
    flags = ["+faststart"] if profile.moov_in_front else []
    given: dict[str, Any] = {
        "map_metadata": -1,
        "map_chapters": -1,
        "fflags": "+bitexact",
        "f": {"mov": "mov", "webm": "webm", "mkv": "matroska"}.get(profile.format, "mp4"),
    }
    if profile.how == "encoded":
        streams = [picture]
        given |= _encoding(profile)
    else:
        streams = [source["v:0"]]
        given |= {"c": "copy"}
        if probed.codec == "hevc":
            given["tag:v"] = "hvc1"
    if probed.audio is not None:
        streams.append(source["a:0"])
        if profile.how == "encoded":
            given |= {"c:a": "aac", "b:a": profile.audio_bitrate, "ar": profile.audio_rate}
            given |= {"ac": min(probed.audio_channels or 2, 2)}
    if not profile.edit_lists:
        given["use_editlist"] = 0
        flags.append("+negative_cts_offsets")
    if flags and given["f"] in ("mp4", "mov"):
        given["movflags"] = "".join(flags)
    return ffmpeg.output(*streams, str(path), **given)


def _encoding(profile: Profile) -> dict[str, Any]:
    return {
        "c:v": "libx264",
        "preset": PRESET,
        "crf": CRF,
        "maxrate": profile.bitrate,
        "bufsize": (profile.bitrate or 0) * 2,
        "profile:v": "high",
        "flags": "+cgop",
        "g": 120,
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
    }


def _run(words: list[str], probed: Probed, on_progress: Progress | None) -> None:
    seconds = probed.duration or 1.0
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        for line in process.stdout:
            name, _, value = line.strip().partition("=")
            if name == "out_time_us" and value.isdigit() and on_progress is not None:
                on_progress(min(int(value) / 1_000_000 / seconds, 1.0))
        said = process.stderr.read()
        code = process.wait(timeout=seconds * _PATIENCE + 60)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()
        process.stderr.close()
    if code != 0:
        if "No space left on device" in said:
            raise Unavailable("the disk is full: free some room, then retry")
        raise ContentRejected("media", (Fault("video", "a file that ffmpeg can read", "errors"),))
