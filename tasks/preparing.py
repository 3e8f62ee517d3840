"""Makes what each target gets: chooses media, words the text, makes renditions, uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from clickpost import publishing, signing
from clickpost.contract import Kind, MediaFile, Message, Outline, Prepared, Prepares
from clickpost.delivery import State
from clickpost.draft import Enclosed, PostFile, Wish, wish_of
from clickpost.errors import ClickPostError, Conflict, ContentRejected, Unavailable
from clickpost.logs import logger
from clickpost.media import Rendition, Target
from clickpost.media import renditions as make_renditions
from clickpost.policy.load import policy_hash
from clickpost.policy.shape import PlatformPolicy
from clickpost.store import FileFacts
from clickpost.store.tables import Asset, Connection, Delivery
from clickpost.wording import Wording, fit
from tasks import _wiring
from tasks._wiring import House

log = logger("preparing")

#: How long one worker may upload before another may take over.
LEASE = timedelta(minutes=30)


@dataclass
class Job:
    """One delivery on its way from planned to a stored message."""

    delivery: Delivery
    connection: Connection
    policy: PlatformPolicy
    wish: Wish
    holder: str
    media: tuple[Enclosed, ...] = ()
    wording: Wording | None = None
    notes: list[str] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    """Rendition id by asset id."""


async def has_media(post_id: str) -> bool:
    """Say whether there are renditions to be made."""
    house = await _wiring.house()
    return bool((await house.store.post(post_id)).body["media"])


async def compose(post_id: str, on_progress: Any = None) -> list[str]:
    """Decide what each planned delivery of the post gets, and make its renditions.

    Each ends with its message stored, or `failed` with the reason; one failing target never
    stops the others. Return the ids of those that may go on.
    """
    house = await _wiring.house()
    jobs = await _jobs(house, post_id)
    try:
        async with _kept_up(house, jobs):
            worded = [job for job in jobs if await _worded(house, job)]
            await _render(house, worded, on_progress)
            return [job.delivery.id for job in worded if await _stored(house, job)]
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await _given_back(house, jobs, error)
        raise


@asynccontextmanager
async def _kept_up(house: House, jobs: list[Job]) -> AsyncIterator[None]:
    """Renew the leases while renditions are made, however long that takes."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            for job in jobs:
                await house.store.lease(job.delivery.id, job.holder, LEASE)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()


async def _given_back(house: House, jobs: list[Job], error: BaseException) -> None:
    """Leave nothing half prepared: it is planned again, or failed after too many tries.

    A cancel counts as no try.
    """
    ours = isinstance(error, Exception)
    for job in jobs:
        current = await house.store.delivery(job.delivery.id)
        if current.state is not State.PREPARING or current.lease_owner != job.holder:
            continue
        tries = current.attempts + int(ours)
        spent = tries >= publishing.MOST_ATTEMPTS
        await house.store.move(
            current.id,
            State.PREPARING,
            State.FAILED if spent else State.PLANNED,
            reason=_why(error) if ours else None,
            who_acts="an operator" if spent else "nobody",
            attempts=tries,
            lease_owner=None,
            lease_until=None,
        )


def _why(error: BaseException) -> str:
    """Say why nothing could be prepared: our own errors in their words, which name no person."""
    told = str(error) if isinstance(error, ClickPostError) else type(error).__name__
    return f"could not be prepared: {told}"


async def _jobs(house: House, post_id: str) -> list[Job]:
    post = await house.store.post(post_id)
    file = PostFile.model_validate(post.body["post"])
    media = tuple(Enclosed.model_validate(item) for item in post.body["media"])
    jobs = []
    for delivery in await house.store.deliveries_of(post_id):
        if delivery.state is not State.PLANNED:
            continue
        connection = await house.store.connection(delivery.connection_id)
        holder = house.holder()
        try:
            moved = await house.store.move(
                delivery.id,
                State.PLANNED,
                State.PREPARING,
                message=None,
                lease_owner=holder,
                lease_until=datetime.now(UTC) + LEASE,
            )
        except Conflict:
            continue
        ref = f"{connection.platform}/{connection.name}"
        jobs.append(
            Job(
                delivery=moved,
                connection=connection,
                policy=house.policy(connection),
                wish=wish_of(file, media, connection.platform, ref),
                holder=holder,
            )
        )
    log.info("composing", post_id=post_id, deliveries=len(jobs))
    return jobs


async def _worded(house: House, job: Job) -> bool:
    try:
        media, notes = publishing.choose_media(job.wish, job.policy)
        job.media, job.notes = media, notes
        job.wording = worded(job.wish, media, job.policy)
    except ContentRejected as error:
        await _refuse(house, job, error)
        return False
    job.notes.extend(job.wording.notes)
    return True


def worded(wish: Wish, media: Sequence[Enclosed], policy: PlatformPolicy) -> Wording:
    """Return the wish in the platform's wording; raise ContentRejected with every fault."""
    return fit(
        wish.text,
        policy=policy,
        how=wish.fit,
        title=wish.title,
        spoiler=wish.spoiler,
        tags=wish.tags,
        media=len(media),
        alts=tuple(item.alt for item in media),
        kinds=tuple(item.kind for item in media),
    )


async def _refuse(house: House, job: Job, error: ContentRejected) -> None:
    await house.store.move(
        job.delivery.id,
        State.PREPARING,
        State.FAILED,
        reason=str(error),
        who_acts=error.who_acts,
        notes=job.notes,
        lease_owner=None,
        lease_until=None,
    )
    log.info("refused", delivery_id=job.delivery.id, faults=[f.field for f in error.faults])


async def _render(house: House, jobs: list[Job], on_progress: Any) -> None:
    """Make the renditions of every asset, all targets of one asset in one go."""
    wanted: dict[str, list[Job]] = {}
    for job in jobs:
        for item in job.media:
            wanted.setdefault(item.asset_id, []).append(job)
    for asset_id, sharing in wanted.items():
        asset = await house.store.asset(asset_id)
        await _render_one(house, asset, sharing, on_progress)


async def _render_one(house: House, asset: Asset, jobs: list[Job], on_progress: Any) -> None:
    targets = [target_of(job.delivery.id, job.policy, len(job.media)) for job in jobs]
    try:
        done = await make_renditions(Path(asset.stored_at), targets, house.cache, on_progress)
    except ContentRejected as error:
        done = {target.name: error for target in targets}
    for job in jobs:
        outcome = done[job.delivery.id]
        if isinstance(outcome, ContentRejected):
            job.wording = None
            await _refuse(house, job, ContentRejected(job.policy.title, outcome.faults))
            continue
        job.made[asset.id] = await _kept(house, asset, outcome)
        job.notes.extend(outcome.notes)


def target_of(name: str, policy: PlatformPolicy, items: int) -> Target:
    """Return what the planner needs to know of one target whose post carries `items` media."""
    return Target(name=name, images=policy.images, video=policy.video_rules(items))


async def _kept(house: House, asset: Asset, rendition: Rendition) -> str:
    facts = FileFacts(
        sha256=rendition.sha256,
        kind=rendition.kind.value,
        mime=rendition.mime,
        bytes=rendition.bytes,
        width=rendition.width,
        height=rendition.height,
        duration=rendition.duration,
        stored_at=str(rendition.path),
    )
    row = await house.store.add_rendition(asset.id, rendition.profile_hash, rendition.label, facts)
    return row.id


async def _stored(house: House, job: Job) -> bool:
    if job.wording is None:
        return False
    parts = [_part(job, number, text) for number, text in enumerate(job.wording.parts)]
    with suppress(Conflict):  # Another worker took it over, and goes on with it.
        await house.store.save_message(
            job.delivery.id,
            message=parts,
            content_hash=publishing.content_hash(parts),
            policy_hash=policy_hash(job.policy),
            notes=job.notes,
            holder=job.holder,
        )
        return True
    return False


def _part(job: Job, number: int, text: str) -> dict[str, Any]:
    """Return one part as it is stored; the first carries title, tags and media."""
    assert job.wording is not None
    first = number == 0
    wish = job.wish
    alts = job.wording.alts
    return {
        "text": text,
        "title": job.wording.title if first else "",
        "tags": list(job.wording.tags) if first else [],
        "language": wish.language,
        "visibility": wish.visibility,
        "sensitive": wish.sensitive and first,
        "spoiler": wish.spoiler,
        "options": wish.options,
        "media": [
            {"rendition_id": job.made[item.asset_id], "alt": alt}
            for item, alt in zip(job.media, alts, strict=True)
        ]
        if first
        else [],
    }


async def message_of(house: House, part: dict[str, Any], policy: PlatformPolicy) -> Message:
    """Return the stored part with its files where a connector can read (or point to) them."""
    files = []
    for item in part["media"]:
        row = await house.store.rendition(item["rendition_id"])
        if row is None or not Path(row.stored_at).is_file():
            raise Unavailable(f"the file of {item['rendition_id']} is gone; retry the post")
        path = Path(row.stored_at)
        link = signing.media_link(
            house.settings.gateway_url,
            house.vault.derived("media-links"),
            row.id,
            path.suffix,
            datetime.now(UTC),
        )
        files.append(
            MediaFile(
                kind=Kind(row.kind),
                path=path,
                mime=row.mime,
                bytes=row.bytes,
                width=row.width,
                height=row.height,
                sha256=row.sha256,
                duration=row.duration,
                alt=item["alt"],
                url=link if policy.media.pulled else None,
            )
        )
    plain = {key: value for key, value in part.items() if key not in {"media", "tags"}}
    return Message(
        **plain, media=tuple(files), tags=tuple(part["tags"]), written_at=datetime.now(UTC)
    )


async def outlines_of(house: House, part: dict[str, Any]) -> tuple[Outline, ...] | None:
    """Return what the files of a stored part look like; None where one is no longer known."""
    rows = [await house.store.rendition(item["rendition_id"]) for item in part["media"]]
    known = [Outline(Kind(row.kind), row.width, row.height) for row in rows if row is not None]
    return tuple(known) if len(known) == len(rows) else None


def fresh(delivery: Delivery, policy: PlatformPolicy, now: datetime) -> bool:
    """Say whether what was prepared is complete and still lives at the platform."""
    parts = delivery.prepared or []
    if len(parts) != len(delivery.message or []) or not all(part["ready"] for part in parts):
        return False
    return (
        delivery.prepared_at is not None
        and now - delivery.prepared_at < policy.prepared.lives * 0.9
    )


@dataclass(frozen=True)
class Uploaded:
    """The delivery after an upload; `wait`: seconds until the next look, None when that is all."""

    delivery: Delivery
    wait: float | None = None


async def upload(delivery_id: str, connection: Connection) -> Uploaded:
    """Upload and reserve what the delivery needs; it becomes `ready`. May run twice.

    There is to wait while the platform still works on it, or another worker does.
    """
    house = await _wiring.house()
    holder = house.holder()
    delivery = await house.store.lease(delivery_id, holder, LEASE)
    if delivery is None:
        delivery = await house.store.delivery(delivery_id)
        open_ = delivery.state in (State.PREPARING, State.READY)
        return Uploaded(delivery, 3.0 if open_ else None)
    done = None
    try:
        done = await _uploaded(house, delivery, connection)
        return done
    finally:
        if done is None or done.delivery.lease_owner is not None:
            with anyio.CancelScope(shield=True):
                await house.store.release(delivery_id, holder)


async def _uploaded(house: House, delivery: Delivery, connection: Connection) -> Uploaded:
    if delivery.message is None:
        raise Conflict(f"{delivery.id} has no message yet")
    policy = house.policy(connection)
    if fresh(delivery, policy, datetime.now(UTC)):
        return await _ready(house, delivery)
    connector = house.connector(house.store.opened(connection), policy)
    known = list(delivery.prepared or [])
    if known and _stale(delivery, policy):
        known = []
    for number, part in enumerate(delivery.message):
        so_far = (
            Prepared(known[number]["state"], known[number]["ready"])
            if number < len(known)
            else None
        )
        if so_far is not None and so_far.ready:
            continue
        prepared = Prepared({}, ready=True)
        if isinstance(connector, Prepares):
            message = await message_of(house, part, policy)
            prepared = await connector.prepare(message, part_key(delivery, number), so_far)
        known[number:] = [{"state": prepared.state, "ready": prepared.ready}]
        content = delivery.content_hash
        if prepared.ready and _is_whole(delivery, known):
            return Uploaded(await house.store.made_ready(delivery.id, content, known))
        delivery = await house.store.save_prepared(delivery.id, known, content=content)
        if not prepared.ready:
            return Uploaded(delivery, prepared.again_in)
    return await _ready(house, delivery)


def _is_whole(delivery: Delivery, known: Sequence[dict[str, Any]]) -> bool:
    """Say whether these are all of its parts, so that it only has to become `ready`."""
    return delivery.state is State.PREPARING and len(known) == len(delivery.message or [])


def _stale(delivery: Delivery, policy: PlatformPolicy) -> bool:
    made = delivery.prepared_at
    return made is None or datetime.now(UTC) - made >= policy.prepared.lives * 0.9


async def _ready(house: House, delivery: Delivery) -> Uploaded:
    """Move what is prepared to `ready` (or to its approval), giving the lease back with it."""
    if delivery.state is State.READY:
        return Uploaded(delivery)
    return Uploaded(await house.store.made_ready(delivery.id, delivery.content_hash))


def part_key(delivery: Delivery, number: int) -> str:
    """Return the idempotency key of one part: the delivery's own for a single post."""
    return delivery.key if number == 0 else f"{delivery.key}-{number}"
