"""Plans the fewest renditions that satisfy every target, and says why each is needed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import combinations
from typing import Literal

from clickpost.contract import Kind
from clickpost.errors import ContentRejected, Fault
from clickpost.media import strip
from clickpost.media.probe import Probed
from clickpost.media.rules import common, faults_of, time_faults
from clickpost.policy.shape import ImageRules, VideoRules, Within

#: When a video has to be encoded anyway, larger pictures than these help nobody on a phone.
LONG_EDGE, SHORT_EDGE = 1920, 1080
_LEAST_BITRATE = 250_000
_AUDIO_BITRATE = 128_000
_VERSION = 6  # Raise it when the making changes, so that caches do not serve old files.
#: Faults that a stream copy mends without encoding.
_BY_COPY = {"video.container", "video.index", "video.edit_lists"}

How = Literal["as it is", "metadata removed", "encoded"]


@dataclass(frozen=True)
class Target:
    """One delivery's rules for a file."""

    name: str
    images: ImageRules
    video: VideoRules


@dataclass(frozen=True)
class Profile:
    """How to make one rendition; sizes in pixels, bitrates in bits a second."""

    kind: Kind
    how: How
    format: str
    width: int
    height: int
    inner_width: int
    inner_height: int
    fps: float | None = None
    bitrate: int | None = None
    audio_bitrate: int | None = None
    audio_rate: int | None = None
    bytes: int | None = None
    colour: str = "any"
    animated: bool = False
    moov_in_front: bool = False
    edit_lists: bool = True

    @property
    def hash(self) -> str:
        """Return what the cache knows it by."""
        said = json.dumps([_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def label(self) -> str:
        """Return it in words for a table."""
        size = f"{self.width}×{self.height}"
        if self.how == "encoded":
            return f"{size} {self.format}"
        return f"{size} {self.format} ({self.how})"


@dataclass(frozen=True)
class Planned:
    """One rendition, for whom it is, and what the source breaks of their rules."""

    profile: Profile
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What to make of one source."""

    source: Probed
    renditions: tuple[Planned, ...]
    refusals: dict[str, ContentRejected] = field(default_factory=dict)
    why: dict[str, tuple[Fault, ...]] = field(default_factory=dict)

    def of(self, target: str) -> Planned | None:
        """Return the rendition that `target` gets, None where it is refused."""
        return next((one for one in self.renditions if target in one.targets), None)


def plan(probed: Probed, targets: Sequence[Target]) -> Plan:
    """Return the fewest renditions that satisfy all of `targets` that can be satisfied."""
    refusals: dict[str, ContentRejected] = {}
    why = {one.name: faults_of(probed, one.images, one.video) for one in targets}
    kept: dict[str, list[Profile]] = {}
    encoded: list[Target] = []
    for target in targets:
        if untouched := _untouched(probed, target, why[target.name]):
            kept[target.name] = untouched
            continue
        try:
            _solved(probed, [target])
        except ContentRejected as error:
            refusals[target.name] = ContentRejected(target.name, error.faults)
            continue
        encoded.append(target)
    made = [Planned(profile, names) for profile, names in _shared(kept)]
    made += [
        Planned(_solved(probed, group), tuple(one.name for one in group))
        for group in fewest(probed, encoded)
    ]
    return Plan(probed, tuple(made), refusals, why)


def _untouched(probed: Probed, target: Target, faults: Sequence[Fault]) -> list[Profile]:
    """Return the profiles that keep the source's own pictures, none where it must be encoded."""
    if any(fault.field not in _BY_COPY for fault in faults):
        return []
    if not (probed.metadata or probed.has_location or probed.has_device or faults):
        return [_copy(probed, "as it is", probed.format, edit_lists=True)]
    if probed.kind is Kind.IMAGE:
        can = probed.format in strip.FORMATS
        return [_copy(probed, "metadata removed", probed.format, edit_lists=True)] if can else []
    # Without an edit list nothing can wait or be cut: such a file has to be encoded.
    lists = [kept for kept in (True, False) if target.video.edit_lists or not kept]
    lists = [kept for kept in lists if kept or not probed.retimed]
    containers = [one for one in target.video.containers if _holds(one, probed)]
    containers.sort(key=lambda one: one != probed.format)
    return [
        _copy(probed, "metadata removed", container, edit_lists=kept)
        for container in containers
        for kept in lists
    ]


def _copy(probed: Probed, how: How, format_: str, *, edit_lists: bool) -> Profile:
    return Profile(
        kind=probed.kind,
        how=how,
        format=format_,
        width=probed.width,
        height=probed.height,
        inner_width=probed.width,
        inner_height=probed.height,
        animated=probed.animated,
        moov_in_front=probed.kind is Kind.VIDEO and how != "as it is",
        edit_lists=edit_lists,
    )


def _shared(kept: dict[str, list[Profile]]) -> list[tuple[Profile, tuple[str, ...]]]:
    """Return the fewest profiles of which everybody finds one in its list."""
    choices = list(dict.fromkeys(profile for profiles in kept.values() for profile in profiles))
    for count in range(len(choices) + 1):
        for chosen in combinations(choices, count):
            if all(set(chosen) & set(profiles) for profiles in kept.values()):
                return _handed(chosen, kept)
    return []


def _handed(
    chosen: Sequence[Profile], kept: dict[str, list[Profile]]
) -> list[tuple[Profile, tuple[str, ...]]]:
    """Give everybody the first of its list that is made."""
    of = {name: next(p for p in profiles if p in chosen) for name, profiles in kept.items()}
    return [(one, tuple(name for name, profile in of.items() if profile == one)) for one in chosen]


def _holds(container: str, probed: Probed) -> bool:
    """Say whether `container` can hold the source's streams as they are."""
    mp4 = probed.codec in ("h264", "hevc", "av1", "mpeg4") and probed.audio in (
        None, "aac", "mp3", "ac3", "opus", "flac",
    )  # fmt: skip
    webm = probed.codec in ("vp8", "vp9", "av1") and probed.audio in (None, "opus", "vorbis")
    if container == probed.format:
        return True
    return {"mp4": mp4, "mov": mp4 and probed.audio != "opus", "webm": webm}.get(container, False)


def fewest(probed: Probed, targets: Sequence[Target]) -> list[list[Target]]:
    """Part `targets` into the fewest groups that one rendition each can satisfy.

    Exact up to a dozen different sets of rules, first-fit beyond.
    """
    kinds: dict[str, list[Target]] = {}
    for target in targets:
        rules = target.images if probed.kind is Kind.IMAGE else target.video
        kinds.setdefault(rules.model_dump_json(), []).append(target)
    groups = list(kinds.values())
    parts = _exact(probed, groups) if len(groups) <= 12 else _first_fit(probed, groups)
    return [[one for number in part for one in groups[number]] for part in parts]


def _together(probed: Probed, groups: Sequence[Sequence[Target]]) -> bool:
    try:
        _solved(probed, [one for group in groups for one in group])
    except ContentRejected:
        return False
    return True


def _exact(probed: Probed, groups: Sequence[Sequence[Target]]) -> list[list[int]]:
    """Find the smallest partition by dynamic programming over subsets."""

    @cache
    def fits(mask: int) -> bool:
        return _together(probed, [group for n, group in enumerate(groups) if mask >> n & 1])

    @cache
    def best(mask: int) -> tuple[int, ...]:
        if not mask:
            return ()
        lowest = mask & -mask
        rest = mask ^ lowest
        found: tuple[int, ...] | None = None
        part = rest
        while True:
            if fits(part | lowest):
                others = best(rest ^ part)
                if found is None or len(others) + 1 < len(found):
                    found = (part | lowest, *others)
            if not part:
                break
            part = (part - 1) & rest
        assert found is not None
        return found

    masks = best((1 << len(groups)) - 1)
    return [[n for n in range(len(groups)) if mask >> n & 1] for mask in masks]


def _first_fit(probed: Probed, groups: Sequence[Sequence[Target]]) -> list[list[int]]:
    parts: list[list[int]] = []
    for number in range(len(groups)):
        for part in parts:
            if _together(probed, [groups[n] for n in (*part, number)]):
                part.append(number)
                break
        else:
            parts.append([number])
    return parts


def _solved(probed: Probed, targets: Sequence[Target]) -> Profile:
    """Return one profile that satisfies all `targets`; raise ContentRejected where none can."""
    name = targets[0].name if len(targets) == 1 else "several"
    if probed.kind is Kind.IMAGE:
        images = common([one.images for one in targets])
        if images is None:
            raise ContentRejected(name, (Fault("image", "rules in common", "none"),))
        if probed.animated and len({one.images.animated for one in targets}) > 1:
            raise ContentRejected(name, (Fault("image.animated", "the same for all", "both"),))
        return _image(probed, images)
    video = common([one.video for one in targets])
    if video is None:
        raise ContentRejected(name, (Fault("video", "rules in common", "none"),))
    return _video(probed, video)


def _image(probed: Probed, rules: ImageRules) -> Profile:
    if rules.max == 0:
        raise _rejected("image", "none", "an image")
    formats = [one for one in rules.formats if one in ("jpeg", "png", "webp", "gif")]
    if not formats:
        raise _rejected("image.format", "a format that we can write", ", ".join(rules.formats))
    moving = probed.animated and rules.animated and "gif" in formats
    format_ = "gif" if moving else next((one for one in formats if one != "gif"), formats[0])
    canvas, inner = _boxed(probed, rules, rules.edge or 10**9, 10**9)
    return Profile(
        kind=Kind.IMAGE,
        how="encoded",
        format=format_,
        width=canvas[0],
        height=canvas[1],
        inner_width=inner[0],
        inner_height=inner[1],
        bytes=rules.bytes,
        colour=rules.colour,
        animated=moving,
    )


def _video(probed: Probed, rules: VideoRules) -> Profile:
    seconds = probed.duration or 0.0
    _possible(probed, rules)
    fps = _rate(probed.fps or 30.0, rules, seconds)
    canvas, inner = _boxed(probed, rules, LONG_EDGE, SHORT_EDGE, even=True)
    bytes_ = _most_bytes(rules, seconds)
    bitrate = 20_000_000
    if bytes_ is not None:
        bitrate = min(bitrate, int(bytes_ * 8 * 0.93 / seconds) - _AUDIO_BITRATE)
    if bitrate < _LEAST_BITRATE:
        found = f"{seconds:.0f} s, which would leave {max(0, bitrate)} bits a second"
        raise _rejected("video.bytes", f"at most {rules.bytes}", found)
    return Profile(
        kind=Kind.VIDEO,
        how="encoded",
        format="mp4" if "mp4" in rules.containers else "mov",
        width=canvas[0],
        height=canvas[1],
        inner_width=inner[0],
        inner_height=inner[1],
        fps=fps,
        bitrate=bitrate,
        audio_bitrate=min(_AUDIO_BITRATE, rules.audio_bitrate or _AUDIO_BITRATE),
        audio_rate=min(48_000, rules.audio_rate or 48_000),
        bytes=bytes_,
        moov_in_front=True,
        edit_lists=rules.edit_lists,
    )


def _possible(probed: Probed, rules: VideoRules) -> None:
    """Raise ContentRejected for what no encoding mends."""
    if rules.max == 0:
        raise _rejected("video", "none", "a video")
    if faults := tuple(f for f in time_faults(probed, rules.lasts)):
        raise ContentRejected("media", faults)
    if "h264" not in rules.codecs or not {"mp4", "mov"} & set(rules.containers):
        raise _rejected("video.codec", ", ".join(rules.codecs), "H.264 in MP4, which we make")
    if probed.audio is not None and "aac" not in rules.audio:
        raise _rejected("video.audio", ", ".join(rules.audio), "AAC, which we make")


def _most_bytes(rules: VideoRules, seconds: float) -> int | None:
    """Return the bytes that keep both the file's size and its bitrate within the rules."""
    limits = [rules.bytes, rules.bitrate and int(rules.bitrate * seconds / 8 * 0.97)]
    return min((limit for limit in limits if limit), default=None)


def _rate(fps: float, rules: VideoRules, seconds: float) -> float | None:
    """Return the frame rate to make, None where the source's own will do."""
    wanted = fps
    if rules.fps.max is not None:
        wanted = min(wanted, rules.fps.max)
    if rules.frames is not None and seconds:
        wanted = min(wanted, (rules.frames - 1) / seconds)
    if rules.fps.min is not None and wanted < rules.fps.min:
        wanted = 30.0 if rules.fps.max is None or rules.fps.max >= 30 else rules.fps.max
    return None if math.isclose(wanted, fps) else math.floor(wanted * 1000) / 1000


def _rejected(field_: str, limit: str, found: str) -> ContentRejected:
    return ContentRejected("media", (Fault(field_, limit, found),))


Size = tuple[int, int]


def _boxed(
    probed: Probed, rules: ImageRules | VideoRules, long: int, short: int, *, even: bool = False
) -> tuple[Size, Size]:
    """Return the canvas and, in it, the picture: padded to an allowed shape, then scaled down."""
    step = 2 if even else 1
    width, height = float(probed.width), float(probed.height)
    canvas_w, canvas_h = _shaped(width, height, rules.aspect)
    scale = min(
        1.0,
        long / max(canvas_w, canvas_h),
        short / min(canvas_w, canvas_h),
        *(
            limit / side
            for limit, side in ((rules.width.max, canvas_w), (rules.height.max, canvas_h))
            if limit is not None
        ),
    )
    if rules.pixels is not None:
        scale = min(scale, math.sqrt(rules.pixels / (canvas_w * canvas_h)))
    if rules.width.min is not None and canvas_w * scale < rules.width.min:
        scale = rules.width.min / canvas_w
    if rules.height.min is not None and canvas_h * scale < rules.height.min:
        scale = max(scale, rules.height.min / canvas_h)
    canvas = _rounded(canvas_w * scale, step), _rounded(canvas_h * scale, step)
    inner = _rounded(width * scale, step), _rounded(height * scale, step)
    canvas = _nudged(canvas, rules, step)
    return canvas, (min(inner[0], canvas[0]), min(inner[1], canvas[1]))


def _nudged(canvas: Size, rules: ImageRules | VideoRules, step: int) -> Size:
    """Return the canvas in an allowed shape although its sides are whole numbers.

    A side gets smaller, for that breaks no limit but a lowest one.
    """
    width, height = canvas
    least, most = rules.aspect.min, rules.aspect.max
    while most is not None and width / height > most and height < 100_000:
        if width - step >= max(step, rules.width.min or 0):
            width -= step
        else:
            height += step
    while least is not None and width / height < least and width < 100_000:
        if height - step >= max(step, rules.height.min or 0):
            height -= step
        else:
            width += step
    return width, height


def _rounded(side: float, step: int) -> int:
    # Down, never up: a limit of pixels is a limit.
    return max(step, int(side + 1e-6) // step * step)


def _shaped(width: float, height: float, aspect: Within) -> tuple[float, float]:
    """Return the canvas that holds the picture in an allowed shape, nothing cut off."""
    ratio = width / height
    if aspect.min is not None and ratio < aspect.min:
        return height * aspect.min, height
    if aspect.max is not None and ratio > aspect.max:
        return width, width / aspect.max
    return width, height


def described(planned: Iterable[Planned]) -> list[str]:
    """Return each rendition in words."""
    return [one.profile.label for one in planned]
