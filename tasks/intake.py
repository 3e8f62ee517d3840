"""Takes a post in: checks what was written, brings its files into the house, stores it once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clickpost import repeats
from clickpost.draft import Enclosed, PostFile, strangers, wish_of
from clickpost.errors import ContentRejected, InvalidInput
from clickpost.media import Cache, Probed, probe
from clickpost.policy.shape import PlatformPolicy
from clickpost.recurrence import exists, instant_of, zone_of
from clickpost.store import Created, FileFacts, NewPost, Store
from clickpost.store.tables import Connection


@dataclass(frozen=True)
class Looked:
    """One file of the post, probed and still where its author keeps it."""

    file: str
    path: Path
    alt: str
    probed: Probed


async def look(post: PostFile, folder: Path) -> list[Looked]:
    """Probe every file of the post; raise with the faults of all that cannot be used."""
    if unknown := strangers(post):
        raise InvalidInput("not among the post's media: " + "; ".join(unknown))
    found = await asyncio.gather(
        *(asyncio.to_thread(_look_at, folder, item.file, item.alt) for item in post.media),
        return_exceptions=True,
    )
    good = [one for one in found if isinstance(one, Looked)]
    bad = [one for one in found if isinstance(one, BaseException)]
    for error in bad:
        if not isinstance(error, ContentRejected | InvalidInput):
            raise error
    if bad:
        raise InvalidInput("\n".join(str(error) for error in bad))
    return good


def _look_at(folder: Path, file: str, alt: str) -> Looked:
    path = (folder / file).expanduser()
    if not path.is_file():
        raise InvalidInput(f"media {file}: there is no such file")
    try:
        return Looked(file=file, path=path, alt=alt, probed=probe(path))
    except ContentRejected as error:
        raise InvalidInput(f"media {file}: {error}") from None
    except PermissionError:
        raise InvalidInput(f"media {file}: may not be read") from None


def moment(post: PostFile) -> datetime | None:
    """Return when the post is due, aware; None for at once, and for the next slot.

    Raises InvalidInput for a time without a zone, or one that the zone's clocks leave out.
    """
    if post.at is None or isinstance(post.at, str):
        return None
    if post.at.tzinfo is not None:
        return post.at.astimezone(UTC)
    name = post.zone or (post.repeat.zone if post.repeat else None)
    if name is None:
        raise InvalidInput("at: needs an offset (2026-12-01T09:00+01:00) or a `zone`")
    zone = zone_of(name)
    if not exists(post.at, zone):
        raise InvalidInput(f"at: {post.at} does not exist in {name} (clocks go forward)")
    return instant_of(post.at, zone)


async def targets(store: Store, names: Sequence[str]) -> list[Connection]:
    """Return the connections that `names` (PLATFORM/NAME, or PLATFORM where it has one) mean."""
    if not names:
        raise InvalidInput("to: name at least one target, e.g. bluesky/studio")
    known = await store.connections()
    found: dict[str, Connection] = {}
    for name in names:
        same = [row for row in known if name in (row.platform, f"{row.platform}/{row.name}")]
        if "/" not in name and len(same) > 1:
            choices = ", ".join(f"{row.platform}/{row.name}" for row in same)
            raise InvalidInput(f"to: {name} has several accounts; choose one of {choices}")
        row = same[0] if same else await store.connection(name)
        found[row.id] = row
    return list(found.values())


async def take_in(
    store: Store,
    cache: Cache,
    post: PostFile,
    looked: Sequence[Looked],
    to: Sequence[Connection],
    policy_of: Callable[[Connection], PlatformPolicy] | None = None,
    *,
    draft: bool = False,
    again: bool = False,
    by: str = "operator",
) -> Created:
    """Store the post, its files and its deliveries in one go; the same client key is one post.

    With `policy_of` it is noticed where an account got the same lately, unless `again` says so.
    Raises NotAllowed where `by` may not publish.
    """
    new = await brought_in(store, cache, post, looked, to, policy_of)
    return await store.create_post(replace(new, draft=draft, again=again, by=by))


async def brought_in(
    store: Store,
    cache: Cache,
    post: PostFile,
    looked: Sequence[Looked],
    to: Sequence[Connection],
    policy_of: Callable[[Connection], PlatformPolicy] | None = None,
) -> NewPost:
    """Bring the post's files into the house, and return the post as it can be stored."""
    media = []
    for one in looked:
        stored = await asyncio.to_thread(cache.keep, one.path, one.probed.sha256)
        asset = await store.add_asset(_facts(one.probed, stored))
        media.append(
            Enclosed(asset_id=asset.id, kind=one.probed.kind.value, file=one.file, alt=one.alt)
        )
    return NewPost(
        post=post,
        media=tuple(media),
        connection_ids=tuple(row.id for row in to),
        due_at=moment(post),
        next_slot=post.at == "next-slot",
        guards=_guards(store, post, tuple(media), to, policy_of) if policy_of else {},
    )


def _guards(
    store: Store,
    post: PostFile,
    media: tuple[Enclosed, ...],
    to: Sequence[Connection],
    policy_of: Callable[[Connection], PlatformPolicy],
) -> dict[str, repeats.Guard]:
    """Return by connection how a repetition is noticed, and what its policy says to it."""
    secret = store.vault.derived("fingerprints")
    found = {}
    for row in to:
        digest = repeats.fingerprint(wish_of(post, media, row.platform, row.ref), secret)
        if digest is not None:
            found[row.id] = repeats.guard(digest, policy_of(row).repeat_guard)
    return found


def _facts(probed: Probed, stored: Path) -> FileFacts:
    return FileFacts(
        sha256=probed.sha256,
        kind=probed.kind.value,
        mime=probed.mime,
        bytes=probed.bytes,
        width=probed.width,
        height=probed.height,
        duration=probed.duration,
        stored_at=str(stored),
    )
