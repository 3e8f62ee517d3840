"""Makes all video renditions of one source in one ffmpeg process, with one decode."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from clickpost.errors import Unavailable
from clickpost.media.limited import Limits
from clickpost.media.plan import Profile
from clickpost.media.probe import Probed, demuxer_of, refused

Progress = Callable[[float], None]

#: Fast enough for a laptop, and phones see no difference.
PRESET, CRF = "veryfast", 22
#: Nothing may take longer than this many times the clip's own length (and a minute).
_PATIENCE = 60.0
#: Far more than 4K in several sizes takes: a file that wants more is an attack, or broken.
_MEMORY = 8_000_000_000
#: A rendition is seldom larger than its source, and short ones may be.
_GROWTH, _SMALL = 8, 512_000_000
#: What ffmpeg needs to know of our environment: our secrets are not among it.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: What ffmpeg answers when it was asked to stop.
_STOPPED = 255
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
        shutil.copyfile(probed.path, path)
    rest = {profile: path for profile, path in outs.items() if profile not in plain}
    if not rest:
        return
    _run(command(probed, rest), probed, on_progress)
    for profile, path in rest.items():
        _within(probed, profile, path, on_progress)


def _within(probed: Probed, profile: Profile, path: Path, on_progress: Progress | None) -> None:
    """Encode again at a bitrate corrected by what came out, while that is too large."""
    if profile.bytes is None or profile.bitrate is None:
        return
    bitrate = profile.bitrate
    for _ in range(3):
        found = path.stat().st_size
        if found <= profile.bytes:
            return
        # The rate that came out counts: a quiet file may stay far below what it was allowed.
        came = min(bitrate, int(found * 8 / (probed.duration or 1.0)))
        bitrate = int(came * profile.bytes / found * 0.9)
        _run(command(probed, {replace(profile, bitrate=bitrate): path}), probed, on_progress)
    if path.stat().st_size > profile.bytes:
        raise refused("video.bytes", f"at most {profile.bytes}", str(path.stat().st_size))


def command(probed: Probed, outs: Mapping[Profile, Path]) -> list[str]:
    """Return the one ffmpeg command that makes all of `outs`."""
    with probed.path.open("rb") as file:
        demuxer = demuxer_of(file.read(64))
    source = ffmpeg.input(
        f"file:{probed.path.absolute()}",
        f=str(demuxer),
        protocol_whitelist="file",
        v="error",
        nostdin=None,
    )
    encoded = [profile for profile in outs if profile.how == "encoded"]
    pictures = _pictures(source, probed, encoded)
    sounds = _sounds(source, probed, encoded)
    outputs = []
    for profile, path in outs.items():
        streams = [pictures.get(profile, source["V:0"])]
        if probed.audio is not None:
            streams.append(sounds.get(profile, source["a:0"]))
        target = f"file:{path.absolute()}"
        outputs.append(ffmpeg.output(*streams, target, **_options(probed, profile)))
    whole = ffmpeg.merge_outputs(*outputs).global_args("-progress", "pipe:1").overwrite_output()
    return [str(word) for word in whole.compile(cmd=_program())]


def _program() -> str:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise Unavailable("there is no ffmpeg: install imageio-ffmpeg again") from None


def _pictures(source: Any, probed: Probed, profiles: list[Profile]) -> dict[Profile, Any]:
    """Return one filtered picture stream for each encode, all from one decode."""
    if not profiles:
        return {}
    picture = source["V:0"]
    if probed.interlaced:
        picture = picture.filter("yadif")
    parts = [picture]
    if len(profiles) > 1:
        split = picture.filter_multi_output("split", len(profiles))
        parts = [split[number] for number in range(len(profiles))]
    return {
        profile: _filtered(part, probed, profile)
        for profile, part in zip(profiles, parts, strict=True)
    }


def _sounds(source: Any, probed: Probed, profiles: list[Profile]) -> dict[Profile, Any]:
    """Return the sound for each encode; what starts late is filled, so that nothing shifts."""
    if not profiles or probed.audio is None:
        return {}
    sound = source["a:0"].filter("aresample", **{"async": 1, "first_pts": 0})
    if len(profiles) == 1:
        return {profiles[0]: sound}
    split = sound.filter_multi_output("asplit", len(profiles))
    return {profile: split[number] for number, profile in enumerate(profiles)}


def _filtered(picture: Any, probed: Probed, profile: Profile) -> Any:
    if probed.retimed:
        # Pictures that start late are preceded by the first one.
        picture = picture.filter("fps", profile.fps or probed.fps or 30, start_time=0)
    elif profile.fps is not None:
        picture = picture.filter("fps", profile.fps)
    inner = (profile.inner_width, profile.inner_height)
    colours = {} if probed.hdr else _colours(probed)
    picture = picture.filter("scale", *inner, flags="bicubic", **colours)
    if probed.hdr:
        for name, given in _TONEMAP:
            picture = picture.filter(name, **given)
    if inner != (profile.width, profile.height):
        x, y = (profile.width - inner[0]) // 2, (profile.height - inner[1]) // 2
        picture = picture.filter("pad", profile.width, profile.height, x, y)
    return picture.filter("setsar", 1).filter("format", "yuv420p")


def _colours(probed: Probed) -> dict[str, str]:
    return {"in_color_matrix": probed.matrix, "out_color_matrix": "bt709", "out_range": "tv"}


def _options(probed: Probed, profile: Profile) -> dict[str, Any]:
    """Return what stands before an output in the command."""
    format_ = {"mkv": "matroska", "mpeg": "vob"}.get(profile.format, profile.format)
    given: dict[str, Any] = {
        "map_metadata": -1,
        "map_chapters": -1,
        "fflags": "+bitexact",
        "f": format_,
    }
    if profile.how == "encoded":
        given |= _encoding(profile)
        if probed.audio is not None:
            given |= {"c:a": "aac", "b:a": profile.audio_bitrate, "ar": profile.audio_rate}
            given |= {"ac": min(probed.audio_channels or 2, 2)}
    else:
        given["c"] = "copy"
    if format_ in ("mp4", "mov"):
        given |= _boxed(probed, profile)
    return given


def _boxed(probed: Probed, profile: Profile) -> dict[str, Any]:
    given: dict[str, Any] = {}
    flags = ["+faststart"] if profile.moov_in_front else []
    if profile.how != "encoded" and probed.codec == "hevc":
        given["tag:v"] = "hvc1"
    if not profile.edit_lists:
        given["use_editlist"] = 0
        flags.append("+negative_cts_offsets")
    if flags:
        given["movflags"] = "".join(flags)
    return given


def _encoding(profile: Profile) -> dict[str, Any]:
    return {
        "c:v": "libx264",
        "preset": PRESET,
        "crf": CRF,
        "maxrate": profile.bitrate,
        "bufsize": profile.bitrate,
        "profile:v": "high",
        "flags": "+cgop",
        "g": 120,
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
    }


def _run(words: list[str], probed: Probed, on_progress: Progress | None) -> None:
    """Run ffmpeg to its end; whatever interrupts us ends it as well."""
    seconds = probed.duration or 1.0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            _limits(probed).around(words),
            stdout=subprocess.PIPE,
            stderr=said,
            stdin=subprocess.DEVNULL,
            text=True,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        late = threading.Timer(_longest(probed), process.kill)
        late.daemon = True
        late.start()
        try:
            _followed(process, seconds, on_progress)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            late.cancel()
        said.seek(0)
        _judge(code, said.read(100_000))


def _longest(probed: Probed) -> float:
    """Return the seconds after which ffmpeg is taken for hung."""
    return (probed.duration or 1.0) * _PATIENCE + 60


def _limits(probed: Probed) -> Limits:
    """Return what ffmpeg may use for one source."""
    return Limits(
        memory=_MEMORY,
        seconds=int(_longest(probed) * (os.cpu_count() or 1)),
        written=probed.bytes * _GROWTH + _SMALL,
    )


def _followed(process: subprocess.Popen[str], seconds: float, on_progress: Progress | None) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            name, _, value = line.strip().partition("=")
            if name == "out_time_us" and value.isdigit() and on_progress is not None:
                on_progress(min(int(value) / 1_000_000 / seconds, 1.0))


def _judge(code: int, said: str) -> None:
    """Raise what ffmpeg's end means; its words may name files and stay here."""
    if code == 0:
        return
    if "No space left on device" in said:
        raise Unavailable("the disk is full: free some room, then retry")
    if "Cannot allocate memory" in said:
        raise refused("video", f"what needs {_MEMORY // 10**9} GB of memory at most", "more")
    if code == -signal.SIGXFSZ or "File too large" in said:
        raise refused("video", f"renditions up to {_GROWTH} times the source", "more")
    if code < 0 or code == _STOPPED:
        raise Unavailable(f"ffmpeg was stopped from outside ({code}), or hung: retry")
    raise refused("video", "a file that ffmpeg can read", "errors")
