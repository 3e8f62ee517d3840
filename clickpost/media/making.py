"""Makes what a plan asks for, in a thread, and looks at every rendition before it is used."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clickpost.contract import Kind
from clickpost.errors import ContentRejected, Fault, UnexpectedResponse
from clickpost.media import image, video
from clickpost.media.cache import Cache
from clickpost.media.plan import Plan, Planned, Target, plan
from clickpost.media.probe import Probed, probe
from clickpost.media.rules import faults_of


@dataclass(frozen=True)
class Rendition:
    """A file that is what its targets' rules say, looked at after it was made."""

    path: Path
    profile_hash: str
    label: str
    kind: Kind
    mime: str
    bytes: int
    width: int
    height: int
    duration: float | None
    sha256: str
    notes: tuple[str, ...] = ()


Progress = Callable[[float], None]
Outcome = dict[str, Rendition | ContentRejected]


async def renditions(
    source: Path, targets: Sequence[Target], cache: Cache, on_progress: Progress | None = None
) -> Outcome:
    """Return for each target its rendition, or why it is refused; the loop is never blocked.

    When it is cancelled it ends ffmpeg and leaves nothing behind.
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def told(share: float) -> None:
        if stop.is_set():
            raise _Stopped
        if on_progress is not None:
            loop.call_soon_threadsafe(on_progress, share)

    work = asyncio.ensure_future(asyncio.to_thread(_made, source, targets, cache, told))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise


class _Stopped(Exception):
    """Nobody waits for the rendition any more."""


def _made(source: Path, targets: Sequence[Target], cache: Cache, told: Progress) -> Outcome:
    planned = plan(probe(source), targets)
    seen = {one: _found(_place(planned, one, cache)) for one in planned.renditions}
    missing = [one for one, probed in seen.items() if probed is None]
    refused = _make(planned, missing, cache, told)
    made: Outcome = dict(planned.refusals)
    by_name = {target.name: target for target in targets}
    for one, probed in seen.items():
        for name in one.targets:
            if one in refused:
                made[name] = ContentRejected(name, refused[one].faults)
                continue
            probed = probed or probe(_place(planned, one, cache))
            made[name] = _looked_at(planned.source, one, by_name[name], probed)
    return made


def _place(planned: Plan, one: Planned, cache: Cache) -> Path:
    return cache.rendition(planned.source.sha256, one.profile)


def _found(path: Path) -> Probed | None:
    """Return what the cache holds; what was damaged there is thrown away."""
    if not path.exists():
        return None
    try:
        return probe(path)
    except ContentRejected:
        path.unlink(missing_ok=True)
        return None


def _make(
    planned: Plan, missing: list[Planned], cache: Cache, told: Progress
) -> dict[Planned, ContentRejected]:
    """Make what is not there yet; where one of several fails, the others are made alone."""
    if not missing:
        return {}
    try:
        _written(planned.source, missing, cache, told)
    except ContentRejected as error:
        if len(missing) == 1:
            return {missing[0]: error}
        refused: dict[Planned, ContentRejected] = {}
        for one in missing:
            refused |= _make(planned, [one], cache, told)
        return refused
    return {}


def _written(source: Probed, missing: list[Planned], cache: Cache, told: Progress) -> None:
    places = [cache.rendition(source.sha256, one.profile) for one in missing]
    with cache.fresh(places) as parts:
        outs = {one.profile: part for one, part in zip(missing, parts, strict=True)}
        if source.kind is Kind.VIDEO:
            video.make(source, outs, told)
            return
        for number, (profile, part) in enumerate(outs.items(), 1):
            image.make(source, profile, part)
            told(number / len(outs))


def _looked_at(
    source: Probed, one: Planned, target: Target, probed: Probed
) -> Rendition | ContentRejected:
    """Say whether the rendition is what the policy asks for; raise where something leaks."""
    faults = (*faults_of(probed, target.images, target.video), *_lost(source, probed))
    if faults:
        return ContentRejected(target.name, faults)
    if one.profile.how != "as it is" and (
        probed.metadata or probed.has_location or probed.has_device
    ):
        probed.path.unlink(missing_ok=True)
        raise UnexpectedResponse("a rendition still carried location or device metadata")
    return _rendition(source, one, probed)


def _lost(source: Probed, probed: Probed) -> tuple[Fault, ...]:
    """Return a fault where pictures or sound went missing on the way."""
    before, after = source.duration or 0.0, probed.duration or 0.0
    if abs(before - after) > max(0.5, before / 50):
        return (Fault("video.duration", f"{before:.1f} s as the source", f"{after:.1f} s"),)
    if (source.audio is None) != (probed.audio is None):
        return (Fault("video.audio", "as the source", "changed"),)
    return ()


def _rendition(source: Probed, one: Planned, probed: Probed) -> Rendition:
    notes = source.notes
    if source.animated and not probed.animated:
        notes = (*notes, "its first picture is used: the platform takes no animated images")
    return Rendition(
        path=probed.path,
        profile_hash=one.profile.hash,
        label=replace(one.profile, width=probed.width, height=probed.height).label,
        kind=probed.kind,
        mime=probed.mime,
        bytes=probed.bytes,
        width=probed.width,
        height=probed.height,
        duration=probed.duration,
        sha256=probed.sha256,
        notes=notes,
    )
