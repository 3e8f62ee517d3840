"""What a file breaks of a platform's rules, and what rules of several platforms have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from clickpost.contract import Kind
from clickpost.errors import Fault
from clickpost.media.probe import Probed
from clickpost.policy.shape import ImageRules, Lasts, VideoRules, Within

#: Rounding that no platform minds.
_FPS_SLACK, _ASPECT_SLACK, _TIME_SLACK, _BITRATE_SLACK = 0.05, 0.005, 0.1, 1.1

Rules = TypeVar("Rules", ImageRules, VideoRules)


def faults_of(probed: Probed, images: ImageRules, video: VideoRules) -> tuple[Fault, ...]:
    """Return every rule that the file breaks; none means that it may go as it is."""
    if probed.kind is Kind.IMAGE:
        return tuple(_image_faults(probed, images))
    return tuple(_video_faults(probed, video))


def _image_faults(probed: Probed, rules: ImageRules) -> Iterable[Fault]:
    if rules.max == 0:
        yield Fault("image", "none", "an image")
        return
    yield from _size_faults(probed, rules, "image")
    if probed.format not in rules.formats:
        yield Fault("image.format", ", ".join(rules.formats), probed.format)
    edge = max(probed.width, probed.height)
    if rules.edge is not None and edge > rules.edge:
        yield Fault("image.edge", f"{rules.edge} px", f"{edge} px")
    if rules.colour == "srgb" and probed.colour != "srgb":
        yield Fault("image.colour", "sRGB", probed.colour)
    if probed.colour == "cmyk":
        yield Fault("image.colour", "RGB", "CMYK")
    if probed.bit_depth > 8:
        yield Fault("image.bit_depth", "8", str(probed.bit_depth))
    if probed.animated and not rules.animated:
        yield Fault("image.frames", "1", str(probed.frames))


def _video_faults(probed: Probed, rules: VideoRules) -> Iterable[Fault]:
    if rules.max == 0:
        yield Fault("video", "none", "a video")
        return
    yield from _size_faults(probed, rules, "video")
    for name, value, allowed in (
        ("video.container", probed.format, rules.containers),
        ("video.codec", probed.codec, rules.codecs),
        ("video.chroma", probed.chroma, rules.chroma),
    ):
        if value not in allowed:
            yield Fault(name, ", ".join(allowed), str(value))
    if probed.audio is not None and probed.audio not in rules.audio:
        yield Fault("video.audio", ", ".join(rules.audio), probed.audio)
    for name, number, limit in (
        ("video.bit_depth", probed.bit_depth, rules.bit_depth),
        ("video.frames", probed.frames, rules.frames),
        ("video.bitrate", probed.bitrate, rules.bitrate),
        ("video.audio_rate", probed.audio_rate, rules.audio_rate),
        ("video.audio_channels", probed.audio_channels, rules.audio_channels),
        ("video.audio_bitrate", _rounded(probed.audio_bitrate), rules.audio_bitrate),
    ):
        if number is not None and limit is not None and number > limit:
            yield Fault(name, f"at most {limit}", str(number))
    yield from _outside("video.fps", probed.fps, rules.fps, _FPS_SLACK)
    yield from time_faults(probed, rules.lasts)
    for name, broken, wanted, found in (
        ("video.colour", probed.hdr and not rules.hdr, "SDR", "HDR"),
        ("video.scan", probed.interlaced and rules.progressive, "progressive", "interlaced"),
        ("video.edit_lists", probed.edit_lists and not rules.edit_lists, "none", "some"),
        ("video.index", rules.moov_in_front and not probed.moov_in_front, "in front", "at the end"),
    ):
        if broken:
            yield Fault(name, wanted, found)


def _rounded(bitrate: int | None) -> int | None:
    """Return an audio bitrate as its encoder was told it: what comes out wavers around that."""
    return None if bitrate is None else int(bitrate / _BITRATE_SLACK)


def time_faults(probed: Probed, lasts: Lasts) -> Iterable[Fault]:
    """Return what is too long or too short."""
    seconds = probed.duration or 0.0
    if lasts.max is not None and seconds > lasts.max.total_seconds() + _TIME_SLACK:
        yield Fault("video.duration", f"at most {_time(lasts.max)}", f"{seconds:.1f} s")
    if lasts.min is not None and seconds < lasts.min.total_seconds() - _TIME_SLACK:
        yield Fault("video.duration", f"at least {_time(lasts.min)}", f"{seconds:.1f} s")


def _time(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds / 60:g} min" if seconds >= 120 else f"{seconds:g} s"


def _size_faults(probed: Probed, rules: ImageRules | VideoRules, what: str) -> Iterable[Fault]:
    if rules.bytes is not None and probed.bytes > rules.bytes:
        yield Fault(f"{what}.bytes", f"at most {rules.bytes}", str(probed.bytes))
    pixels = probed.width * probed.height
    if rules.pixels is not None and pixels > rules.pixels:
        yield Fault(f"{what}.pixels", f"at most {rules.pixels}", str(pixels))
    yield from _outside(f"{what}.width", probed.width, rules.width, 0)
    yield from _outside(f"{what}.height", probed.height, rules.height, 0)
    yield from _outside(f"{what}.aspect", probed.aspect, rules.aspect, _ASPECT_SLACK)


def _outside(name: str, value: float | None, span: Within, slack: float) -> Iterable[Fault]:
    if value is None:
        return
    if span.max is not None and value > span.max + slack:
        yield Fault(name, f"at most {span.max:g}", f"{value:.4g}")
    if span.min is not None and value < span.min - slack:
        yield Fault(name, f"at least {span.min:g}", f"{value:.4g}")


def common(rules: Sequence[Rules]) -> Rules | None:
    """Return the rules that satisfy all of `rules`, None where they have nothing in common."""
    found = rules[0]
    for other in rules[1:]:
        update: dict[str, Any] = {}
        for name in type(found).model_fields:
            mine, theirs = getattr(found, name), getattr(other, name)
            merged = _common(name, mine, theirs)
            if merged is _NOTHING:
                return None
            update[name] = merged
        found = found.model_copy(update=update)
    return found


_NOTHING = object()
_ALL_OF = {"progressive", "closed_gop", "moov_in_front"}


def _common(name: str, mine: Any, theirs: Any) -> Any:
    if isinstance(mine, Within | Lasts):
        return _overlap(mine, theirs)
    if isinstance(mine, list):
        both = [one for one in mine if one in theirs]
        return both or _NOTHING
    if name in ("source", "checked", "confirmed", "note"):
        return mine
    if name == "colour":
        return "srgb" if "srgb" in (mine, theirs) else "any"
    if isinstance(mine, bool):
        return (mine or theirs) if name in _ALL_OF else (mine and theirs)
    known = [one for one in (mine, theirs) if one is not None]
    return min(known) if known else None


def _overlap(mine: Any, theirs: Any) -> Any:
    lows = [one for one in (mine.min, theirs.min) if one is not None]
    highs = [one for one in (mine.max, theirs.max) if one is not None]
    low, high = max(lows, default=None), min(highs, default=None)
    if low is not None and high is not None and low > high:
        return _NOTHING
    return mine.model_copy(update={"min": low, "max": high})
