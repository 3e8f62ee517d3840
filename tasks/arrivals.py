"""Looks where a trigger waits for something to arrive, and takes each new thing once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from clickpost import arrivals, triggers
from clickpost.arrivals import Arrived, State
from clickpost.draft import MediaItem, PostFile
from clickpost.errors import ContentRejected, InvalidInput, Unavailable
from clickpost.logs import logger
from clickpost.people import ENGINE
from clickpost.policy import triggering
from clickpost.policy.arriving import ByArrival, ByFeed, ByFolder, ByMailbox
from clickpost.policy.triggers import MOST_AN_HOUR, Trigger, trigger_hash
from clickpost.reach import is_loopback
from clickpost.store.tables import Arrival, Connection
from clickpost.triggers import QuietHours
from connectors import _feeds, _newmail
from connectors._imap import Door
from connectors._outward import outward
from tasks import _folder, _runs, _wiring, intake, planning
from tasks import triggers as starting
from tasks._wiring import House
from tasks.repeating import Made

log = logger("arrivals")


@dataclass
class Took:
    """What one look came to."""

    new: int = 0
    taken: int = 0
    posts: int = 0
    refused: list[str] = field(default_factory=list)
    waiting: int = 0
    why_not: str = ""
    """Why nobody looked, where nobody did."""


async def take(name: str, version: str, run_id: str) -> Took:
    """Look for what is new at the trigger's place, and take what is; `run_id` is who looks.

    Raises what the place has against it: Transient and RateLimited, Unavailable, Refused,
    UnexpectedResponse. Nothing is lost by that: the next look sees the same.
    """
    house = await _wiring.house()
    trigger = _trigger(house, name)
    if trigger is None or trigger_hash(trigger) != version:
        return Took(why_not="its file changed since the last `clickpost policy apply`")
    async with house.store.looking_for(name) as alone:
        if not alone:
            return Took(why_not="another run looks just now")
        look = _Look(house, trigger, run_id)
        took = Took(new=await look.at_place())
        await look.taken(took)
        await look.tidied()
    return took


def _trigger(house: House, name: str) -> Trigger | None:
    found = triggering.load(house.settings.policies)
    return next((one for one in found if one.name == name), None)


class _Look:
    """One look of one trigger."""

    def __init__(self, house: House, trigger: Trigger, run_id: str) -> None:
        assert isinstance(trigger.when, ByArrival)
        self.house, self.trigger, self.when, self.run_id = house, trigger, trigger.when, run_id
        self.store, self.place = house.store, arrivals.place_of(trigger.when)

    async def at_place(self) -> int:
        """Note what is there; return how much of it is new."""
        inlet = await self.store.inlet(self.trigger.name)
        now = datetime.now(UTC)
        known = (inlet.place, inlet.looked_at) if inlet else None
        first = arrivals.is_first(known, self.place, now)
        marks: Mapping[str, object] = inlet.marks if inlet and not first else {}
        match self.when:
            case ByFeed():
                async with outward(self.house.settings) as http:
                    feed = await _feeds.read(str(self.when.feed), _words(marks), http)
                if feed is None:
                    assert inlet is not None
                    await self.store.note_unchanged(inlet)
                    return 0
                take = not first or self.when.first == "all"
                return await self._noted(feed.marks, feed.entries, take=take)
            case ByFolder():
                there = await asyncio.to_thread(complete, self.when, now)
                return await self._noted({}, there)
            case ByMailbox():
                return await self._mails(self.when, marks, first=first)

    async def _mails(self, when: ByMailbox, marks: Mapping[str, object], *, first: bool) -> int:
        door = _door(when)
        if first and when.first == "none":
            return await self._noted(await asyncio.to_thread(_newmail.newest, door, when.inbox), ())
        found = await asyncio.to_thread(_newmail.look, door, when.inbox, marks, when.largest)
        return await self._noted(found.marks, found.mails)

    async def _noted(
        self, marks: Mapping[str, object], there: Sequence[Arrived], *, take: bool = True
    ) -> int:
        return await self.store.note_arrivals(
            self.trigger.name, self.place, marks, there, take=take
        )

    async def taken(self, took: Took) -> None:
        """Take what waits, as far as quiet hours and `at_most` let it."""
        rows = await self.store.waiting_arrivals(self.trigger.name)
        if not rows:
            return
        # What the trigger itself says wrongly is no entry's fault: nothing is refused for it.
        template = self.trigger.post
        to = await intake.targets(self.store, template.to) if template else []
        since = datetime.now(UTC) - triggers.HOUR
        before = await self.store.arrivals_taken(self.trigger.name, since)
        for number, row in enumerate(rows):
            now = datetime.now(UTC)
            if self._is_quiet(now):
                if self._waits():
                    took.waiting = len(rows) - number
                    return
                await self.store.pass_arrival(row, "it came in quiet hours")
                continue
            if not triggers.fits(self.trigger.at_most or MOST_AN_HOUR, before, now):
                took.waiting = len(rows) - number
                return
            await self._one(row, to, took)
            before.append(now)

    def _is_quiet(self, now: datetime) -> bool:
        quiet = self.trigger.quiet
        if quiet is None:
            return False
        hours = QuietHours(quiet.from_, quiet.to, ZoneInfo(quiet.zone), quiet.then == "wait")
        return triggers.after(hours, now) != now

    def _waits(self) -> bool:
        return self.trigger.quiet is not None and self.trigger.quiet.then == "wait"

    async def _one(self, row: Arrival, to: Sequence[Connection], took: Took) -> None:
        """Take one thing. Each step may run twice: what it makes is known by the thing's id."""
        try:
            post_id, asset_id = await self._made(row, to)
        except (InvalidInput, ContentRejected) as error:
            await self.store.refuse_arrival(row, str(error), error.who_acts)
            took.refused.append(row.id)
            return
        if post_id is not None:
            await self._begun(post_id)
            took.posts += 1
        if self.trigger.run is not None:
            await self._started(self.trigger.run, row, post_id)
        event = arrivals.event_of(self.when)
        await self.store.take_arrival(row, event, post_id=post_id, asset_id=asset_id)
        took.taken += 1

    async def _made(self, row: Arrival, to: Sequence[Connection]) -> tuple[str | None, str | None]:
        """Make the post, or bring in the file; return the ids of both, where there are any."""
        facts = row.facts or {}
        post: PostFile | None = None
        folder = Path()
        if isinstance(self.when, ByFolder):
            folder = Path(self.when.folder)
            post = await asyncio.to_thread(self._post_of_file, folder, facts, row.id)
        elif self.trigger.post is not None:
            post = arrivals.post_of(self.trigger.post, facts, row.id)
        if post is None:
            return None, None
        looked = await intake.look(post, folder)
        cache, store = self.house.cache, self.store
        if not self.trigger.makes_posts and not post.to:
            new = await intake.brought_in(store, cache, post, looked, [])
            return None, new.media[0].asset_id
        targets = await intake.targets(store, post.to) if post.to else to
        if not targets:
            raise InvalidInput("to: names no target, and neither does the trigger's `post`")
        new = await intake.brought_in(store, cache, post, looked, targets, self.house.policy)
        gate = self.trigger.name if self.trigger.approval else None
        draft = self.trigger.post is not None and self.trigger.post.draft
        made = await store.create_post(replace(new, draft=draft, by=ENGINE, approval=gate))
        return made.post_id, new.media[0].asset_id if new.media else None

    def _post_of_file(self, folder: Path, facts: Mapping[str, str], arrival_id: str) -> PostFile:
        """Return the post of a post file, of a medium beside one, or of a medium alone."""
        assert isinstance(self.when, ByFolder)
        name, beside = facts["name"], facts.get("beside")
        if self.when.of == "media":
            _within(folder, [name], self.when.largest)
        if self.when.of == "media" and beside is None:
            words = {"name": name, "stem": Path(name).stem}
            if self.trigger.post is None:
                return PostFile(media=[MediaItem(file=name)])
            return arrivals.post_of(self.trigger.post, words, arrival_id, name)
        post = _folder.post_in(folder / (beside or name))
        if beside is not None and not post.media:
            post = post.model_copy(update={"media": [MediaItem(file=name)]})
        _within(folder, _folder.media_of(post), self.when.largest)
        return post.model_copy(update={"key": post.key or arrival_id})

    async def _begun(self, post_id: str) -> None:
        """Start the runs that send a post; a draft has none."""
        if self.trigger.post is not None and self.trigger.post.draft:
            return
        lines = await self.store.lines(post_id)
        moments = sorted({line.due_at for line in lines if line.due_at is not None})
        for moment in moments:
            await planning.scheduled(Made(post_id, moment))
        if moments:
            return
        tags = [f"post:{post_id}", f"trigger:{self.trigger.name}"]
        tags.append(f"policy:{trigger_hash(self.trigger)}")
        name, parameters = f"publish {post_id}", {"post": {"post_id": post_id}}
        run_id = await _runs.begin("publish", parameters, key=name, name=name, tags=tags)
        await self.store.set_flow_run(post_id, run_id)

    async def _started(self, flow: str, row: Arrival, post_id: str | None) -> None:
        """Start the run that the trigger asks for; the same arrival is the same run."""
        name, version = self.trigger.name, trigger_hash(self.trigger)
        asked = starting.Asked(name, f"{flow}/{name}", self.trigger.with_, None, None, version)
        resources = [f"clickpost.arrival.{row.id}"]
        resources += [f"clickpost.post.{post_id}"] if post_id else []
        await starting.start(asked, starting.Cause(self.run_id, row.id, resources))

    async def tidied(self) -> None:
        """Move away what is taken or refused, also by a look that was killed before it did."""
        if isinstance(self.when, ByFolder) and self.when.then == "move":
            folder = Path(self.when.folder)
            files = await asyncio.to_thread(_folder.files, folder)
            keys = {arrivals.key_of(one, moves=True): one.name for one in files.values()}
            done = await self.store.done_with(self.trigger.name, self.place, list(keys))
            for key, row in done.items():
                await asyncio.to_thread(_put_away, folder, keys[key], files, row)


def _put_away(folder: Path, name: str, files: Mapping[str, object], row: Arrival) -> None:
    names = [name]
    post_file = name if arrivals.is_post_file(name) else arrivals.beside(name, files)
    if post_file is not None:
        names.append(post_file)
        with suppress(InvalidInput):  # It was refused for that; its media wait for a better one.
            names += _folder.media_of(_folder.post_in(folder / post_file))
    into = _folder.TAKEN if row.state == State.TAKEN else _folder.REFUSED
    _folder.put_away(folder, dict.fromkeys(names), into, row.id, row.reason or "")


def complete(when: ByFolder, now: datetime) -> list[Arrived]:
    """Return what of a folder is complete, with all that belongs to it."""
    folder = Path(when.folder)
    files = _folder.files(folder)
    settled = {name for name, one in files.items() if arrivals.is_settled(one, when.settled, now)}
    found = []
    for name, file in sorted(files.items()):
        if arrivals.is_post_file(name) is not (when.of == "posts") or name not in settled:
            continue
        beside = None if when.of == "posts" else arrivals.beside(name, files)
        post_file = name if when.of == "posts" else beside
        patient = file.written_at > now - arrivals.PATIENCE
        if post_file is not None and patient and not _needs(folder, post_file) <= settled:
            continue
        key = arrivals.key_of(file, moves=when.then == "move")
        facts = {"name": name, **({"beside": beside} if beside else {})}
        found.append(Arrived(key, facts))
    return found


def _needs(folder: Path, post_file: str) -> set[str]:
    """Return the files without which a post file is not complete."""
    try:
        return {post_file, *_folder.media_of(_folder.post_in(folder / post_file))}
    except InvalidInput:  # Why, is said when it is taken.
        return {post_file}


def _within(folder: Path, names: Sequence[str], largest: int) -> None:
    """Raise InvalidInput for a file that is a link, or too large."""
    for name in names:
        path = folder / name
        if path.is_symlink():
            raise InvalidInput(f"media {name}: is a link, and not a file")
        if path.is_file() and path.stat().st_size > largest:
            raise InvalidInput(f"media {name}: is larger than {largest} bytes")


def _words(marks: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in marks.items()}


def _door(when: ByMailbox) -> Door:
    """Return the way into a mailbox; raise Unavailable where its credentials are not set."""
    if when.security == "none" and not is_loopback(when.mailbox):
        raise Unavailable("security: none is for a mail server on this machine only")
    names = [f"CLICKPOST_MAILBOX_{when.login.upper()}_{what}" for what in ("USER", "PASSWORD")]
    user, password = map(_secret, names)
    look_at = f"{' and '.join(names)}, and `inbox` in the trigger's file"
    return Door(when.mailbox, when.port, when.security, user, password, look_at)


def _secret(name: str) -> str:
    """Return one of the credentials, from the environment or the file that it names."""
    if value := os.environ.get(name):
        return value
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text("utf-8").strip()
        except OSError as error:
            raise Unavailable(
                f"the file of {name}_FILE cannot be read ({error.strerror})"
            ) from None
    raise Unavailable(f"neither {name} nor {name}_FILE is set for the worker")
