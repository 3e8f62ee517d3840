"""Makes what a plan asks for, in a thread, and looks at every rendition before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clickpost.contract import Kind
from clickpost.errors import ContentRejected, UnexpectedResponse
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
    """Return for each target its rendition, or why it is refused; the loop is never blocked."""
    loop = asyncio.get_running_loop()

    def told(share: float) -> None:
        if on_progress is not None:
            loop.call_soon_threadsafe(on_progress, share)

    return await asyncio.to_thread(_made, source, targets, cache, told)


def _made(source: Path, targets: Sequence[Target], cache: Cache, told: Progress) -> Outcome:
    probed = probe(source)
    planned = plan(probed, targets)
    made: Outcome = dict(planned.refusals)
    missing = [
        one
        for one in planned.renditions
        if not cache.rendition(probed.sha256, one.profile).exists()
    ]
    refused = _make(planned, missing, cache, told)
    by_name = {target.name: target for target in targets}
    for one in planned.renditions:
        for name in one.targets:
            error = refused.get(one)
            made[name] = error or _looked_at(planned, one, by_name[name], cache)
    return made


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
    planned: Plan, one: Planned, target: Target, cache: Cache
) -> Rendition | ContentRejected:
    """Probe the rendition: what the policy says is what the file has, and nothing leaks."""
    path = cache.rendition(planned.source.sha256, one.profile)
    probed = probe(path)
    faults = faults_of(probed, target.images, target.video)
    if faults:
        return ContentRejected("rendition", faults)
    if probed.has_location or probed.has_device:
        path.unlink()
        raise UnexpectedResponse("a rendition still carried location or device metadata")
    return _rendition(planned.source, one, probed)


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
