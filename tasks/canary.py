"""Keeps canaries: people made up, created as real ones are, erased, and then found nowhere."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import monotonic

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy.exc import SQLAlchemyError

from clickpost import canary, ids
from clickpost.canary import Looked, Marks, Trace, address_of, name_of
from clickpost.draft import MediaItem, PostFile
from clickpost.errors import ClickPostError, Conflict, GuardTripped
from clickpost.logs import logger
from clickpost.people import ENGINE
from clickpost.requests import CLOSED, Door, Kind, State
from clickpost.store import NewConnection, Store
from clickpost.store.canaries import Cage, flights, look, write_down
from clickpost.store.database import engine_of
from clickpost.store.erasures import Erasures
from clickpost.store.members import NewTicket
from clickpost.store.requests import Challenge
from clickpost.store.tables import Connection, Erasure, Member, SubjectRequest
from clickpost.telling import Event, Happening
from tasks import _wiring, doors, erasing, exporting, history, intake
from tasks._wiring import House
from tasks.doors import Asked
from tasks.erasing import Wanted

log = logger("canary")

#: Seconds for which an erasure of a canary may be another run's work.
PATIENCE = 60.0
#: Clocks of file systems may be this far behind.
_BEFORE = timedelta(minutes=2)
_PLATFORM, _SERVER = "mastodon", "https://canary.invalid"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Canary:
    """One that flies: its marks live in this process alone; `born_at` is before all it left."""

    marks: Marks
    born_at: datetime
    workspace: str
    person: str


async def begin() -> Canary:
    """Create a canary, and find it; raise GuardTripped where a look does not even see that one.

    What an earlier one left, whose run was cut short, is erased before.
    """
    house = await _wiring.house()
    await _clear(house)
    flying = await _planted(house)
    if not (await _look_in_tables(house, *flying.marks.all)).traces:
        raise GuardTripped("the look for canaries finds none that is there: its zero is no proof")
    return flying


async def _clear(house: House) -> None:
    """Erase what canaries left whose runs were cut short; their marks nobody knows any more."""
    planted = [one for one in await flights(house.store.engine) if one.became == "planted"]
    for one in planted:
        store = Cage.at(house.store, str(one.facts["workspace"]))
        if not await store.is_there():
            continue
        await store.let_law_go()
        row, _ = await erasing.plan(house.settings, store, Wanted("account", store.home))
        if row.state == "planned":
            await Erasures(store.engine, store.vault).approve(row.id, ENGINE)
        await _carried_out(house, row.id)
        await store.clear_away()
        await write_down(store, "failed", {"why": "its run was cut short"})


async def _planted(house: House) -> Canary:
    """Create a person and their business, with all that belongs to such; it publishes nothing."""
    marks, born_at = Marks.new(), datetime.now(UTC)
    store = Cage.at(house.store, ids.new("ws"))
    await store.furnish(name_of(marks.account))
    person = await _member(store, marks.person, "publisher")
    owner = await _member(store, marks.account, "owner")
    await _known_of(house, store, person, marks.person)
    await _business(house, store, marks)
    await _mentioned(store, owner, marks)
    return Canary(marks, born_at, store.home, person.id)


async def _member(store: Cage, mark: str, role: str) -> Member:
    return await store.add_member(store.home, address_of(mark), name_of(mark), role, ENGINE)


async def _known_of(house: House, store: Cage, person: Member, mark: str) -> None:
    """Write all that is known of a person: consents, wishes, a ticket with a file, usage."""
    await store.give_consent(person.id, "news", "1", ENGINE)
    await store.prefer(person.id, "*", "email", wanted=False, by=ENGINE)
    asked = NewTicket(store.home, f"{mark} asks", f"I am {mark}", address_of(mark), person.id)
    ticket = await store.open_ticket(asked, ENGINE)
    content = f"a letter of {mark}".encode()
    path = house.settings.media_root / "attachments" / f"{sha256(content).hexdigest()}.txt"
    await asyncio.to_thread(_write, path, content)
    name, digest = f"{mark}.txt", sha256(content).hexdigest()
    await store.attach(ticket.id, name, digest, len(content), str(path))
    await store.use(person.id, mark, "192.0.2.1")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


async def _business(house: House, store: Cage, marks: Marks) -> None:
    """Write a draft with a picture, to an account through which nothing can ever be sent."""
    mark = marks.account
    new = NewConnection(
        _PLATFORM,
        canary.SUBJECT,
        _SERVER,
        {"access_token": mark},
        handle=mark,
        remote_id=mark,
        url=f"{_SERVER}/@{mark}",
    )
    connection = await store.add_connection(new)
    await store.disarm(connection.id)
    await _draft(house, store, connection, mark)


async def _draft(house: House, store: Cage, connection: Connection, mark: str) -> None:
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="canary-"))
    try:
        await asyncio.to_thread(_picture, folder / f"{mark}.png", mark)
        post = PostFile(
            text=f"{mark} sings", media=[MediaItem(file=f"{mark}.png", alt=f"{mark} on a twig")]
        )
        looked = await intake.look(post, folder)
        await intake.take_in(
            store, house.cache, post, looked, [connection], draft=True, again=True, by=ENGINE
        )
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _picture(path: Path, mark: str) -> None:
    """Draw what no other file is, with the mark where cameras write who took it."""
    told = PngInfo()
    told.add_text("Author", mark)
    Image.frombytes("RGB", (16, 16), secrets.token_bytes(16 * 16 * 3)).save(path, pnginfo=told)


async def _mentioned(store: Cage, owner: Member, marks: Marks) -> None:
    """Let somebody else write about the person: their names have to go from there too."""
    said = f"{name_of(marks.person)} <{address_of(marks.person)}> has left us"
    asked = NewTicket(store.home, "A colleague", said, owner.email, owner.id)
    await store.open_ticket(asked, ENGINE)


async def ask(flying: Canary, kind: Kind = Kind.ERASURE, *, account: bool = False) -> str:
    """Bring a request of the person, or of the owner about their account; return its id.

    It comes through the door of the API, and is confirmed by its link, which no letter brings:
    there is nobody to read it.
    """
    house = await _wiring.house()
    mark = flying.marks.account if account else flying.marks.person
    asked = Asked(
        kind,
        Door.API,
        address=address_of(mark),
        details=f"{mark} has a wish",
        account=account,
        workspace_id=flying.workspace,
        once=f"canary:{secrets.token_hex(16)}",
    )
    row, _ = await doors.receive(house.settings, house.store, asked)
    link = secrets.token_urlsafe(32)
    until = datetime.now(UTC) + timedelta(minutes=5)
    await house.store.challenge_request(row.id, Challenge(link, secrets.token_hex(4), until))
    confirmed = await house.store.confirm_by_link(link)
    if confirmed is None:
        raise Conflict(f"{row.id} could not be confirmed by its link")
    return confirmed.id


async def export(flying: Canary, request_id: str) -> None:
    """Give the person what is held about them: an archive that has to go when they are erased.

    Raises GuardTripped where a look into files does not find them in it.
    """
    house = await _wiring.house()
    await exporting.of_request(house, request_id)
    await finish(request_id)
    seen = await asyncio.to_thread(_look_in_files, house, flying)
    if not any("/exports/" in one.place for one in seen.traces):
        raise GuardTripped("the look for canaries does not find one in its archive")


async def approved(request_id: str) -> list[str]:
    """Approve the plans of a canary's request, and return their ids: all in them is made up."""
    house = await _wiring.house()
    erasures = Erasures(house.store.engine, house.vault)
    rows = [one for one in await erasures.of_request(request_id) if one.state == "planned"]
    for row in rows:
        await erasures.approve(row.id, ENGINE)
    return [row.id for row in rows]


async def finish(request_id: str) -> None:
    """Wait for a request's certificate, and close it; raise GuardTripped where none comes.

    No letter tells the end: there is nobody to read it. Address and details are forgotten.
    """
    house = await _wiring.house()
    row = await _certified(house, request_id)
    if row.state not in CLOSED:
        await house.store.answer_request(row.id, "done")
    await house.store.request_told(row.id)


async def _certified(house: House, request_id: str) -> SubjectRequest:
    until = monotonic() + PATIENCE
    while True:
        row = await house.store.request(request_id)
        if row.state in (State.CERTIFIED, *CLOSED):
            return row
        if monotonic() > until:
            raise GuardTripped(f"{request_id} is {row.state}, and was to be erased by now")
        await asyncio.sleep(0.5)


async def _let_law_go(house: House, flying: Canary) -> None:
    """Erase what a law holds of people, too: a canary is none."""
    await Cage.at(house.store, flying.workspace).let_law_go()
    for row in await _parked(house, flying):
        await _carried_out(house, row.id)


async def _parked(house: House, flying: Canary) -> list[Erasure]:
    rows = await Erasures(house.store.engine, house.vault).about(flying.person, flying.workspace)
    return [one for one in rows if one.state == "parked"]


async def _carried_out(house: House, erasure_id: str) -> None:
    """Carry an erasure out; where another run is at it, wait for that."""
    until = monotonic() + PATIENCE
    while True:
        try:
            await erasing.carry_out(house, erasure_id)
        except Conflict:
            if monotonic() > until:
                raise
            await asyncio.sleep(0.5)
        else:
            return


async def look_for_person(flying: Canary) -> Looked:
    """Look in all tables whether their business still says anything of an erased person."""
    return await _look_in_tables(await _wiring.house(), flying.marks.person)


async def _look_in_tables(house: House, *marks: str) -> Looked:
    """Look for marks in every table of our database, and of Prefect's where that is ours."""
    pattern = canary.pattern(marks)
    found = await look(house.store.engine, "clickpost", pattern)
    address = history.address(house.settings)
    if address is None:
        theirs = "Prefect's database, which is another server's"
        return found + Looked(unsearched=(theirs,))
    engine = engine_of(address.replace("postgresql+asyncpg", "postgresql"), size=1)
    try:
        return found + await look(engine, "prefect", pattern)
    except SQLAlchemyError as error:
        log.warning("not searched", error=type(error).__name__)
        return found + Looked(unsearched=("Prefect's database, which did not answer",))
    finally:
        await engine.dispose()


async def look_everywhere(flying: Canary) -> Looked:
    """Look for both marks in all tables, and in all files that were written since.

    What a law keeps of real people goes before.
    """
    house = await _wiring.house()
    await _let_law_go(house, flying)
    found = await _look_in_tables(house, *flying.marks.all)
    files = await asyncio.to_thread(_look_in_files, house, flying)
    looked = await _but_for_what_is_held(house, flying, found + files)
    if not await _parked(house, flying):
        await Cage.at(house.store, flying.workspace).clear_away()
    return looked


async def _but_for_what_is_held(house: House, flying: Canary, looked: Looked) -> Looked:
    """Set aside tables of which a rule of this house keeps rows although asked to erase them."""
    kept = {
        f"clickpost: table public.{one['location']}"
        for row in await _parked(house, flying)
        for one in row.outcomes
        if one["outcome"] == "held"
    }
    traces = tuple(one for one in looked.traces if one.place not in kept)
    held = tuple(f"{one}, of which a rule keeps rows" for one in sorted(kept))
    return replace(looked, traces=traces, unsearched=(*looked.unsearched, *held))


def _look_in_files(house: House, flying: Canary) -> Looked:
    """Look into every file of the house that is younger than the canary: no other can hold it."""
    wanted = re.compile(canary.pattern(flying.marks.all).encode())
    since = (flying.born_at - _BEFORE).timestamp()
    traces, places = [], 0
    for root, path in _files(house):
        try:
            if path.stat().st_mtime < since:
                continue
            places += 1
            is_marked = wanted.search(str(path).encode()) or _holds(path, wanted)
        except FileNotFoundError:  # It went while we looked.
            continue
        if is_marked:
            shown = wanted.sub(b"MARK", str(path.relative_to(root)).encode()).decode()
            traces.append(Trace(f"file {root.name}/{shown}", 1))
    return Looked(tuple(traces), places)


def _files(house: House) -> Iterator[tuple[Path, Path]]:
    """Yield all files of the house, but for those of the database, whose tables are read."""
    given = house.settings
    roots = {one.resolve() for one in (given.home, given.media_root, given.tombstones_root)}
    for root in sorted(roots):
        if any(other != root and root.is_relative_to(other) for other in roots):
            continue
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink() and not _is_database(root, path):
                yield root, path


def _is_database(root: Path, path: Path) -> bool:
    """Say whether a file is one in which the embedded server keeps tables; its log is none."""
    data = root / "postgres"
    if not path.is_relative_to(data):
        return False
    first = path.relative_to(data).parts[0]
    return first in ("base", "global") or first.startswith("pg_")


def _holds(path: Path, wanted: re.Pattern[bytes]) -> bool:
    """Say whether a file holds a mark; an archive, whether what is in it does."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    if canary.stands_in(iter(lambda: member.read(_PIECE), b""), wanted):
                        return True
    with path.open("rb") as file:
        return canary.stands_in(iter(lambda: file.read(_PIECE), b""), wanted)


async def record(looked: Looked) -> None:
    """Write down what a look came to; where the canary was found somebody is told."""
    house = await _wiring.house()
    await write_down(house.store, "searched", looked.as_facts())
    if looked.traces:
        await _tell(house.store, canary.said(looked))


async def record_failure(error: Exception) -> None:
    """Write down that a canary could not be erased, and tell somebody.

    Of errors that are not ours only the kind: nobody knows what their words hold.
    """
    house = await _wiring.house()
    why = type(error).__name__ + (f": {error}" if isinstance(error, ClickPostError) else "")
    await write_down(house.store, "failed", {"why": why})
    await _tell(house.store, f"the canary could not be erased: {why}")


async def _tell(store: Store, reason: str) -> None:
    moment = datetime.now(UTC)
    facts = {"where": "canary-erasure", "reason": reason, "who_acts": "an operator"}
    once = f"canary:{moment.isoformat()}"
    await store.notify(Happening(Event.COMPLIANCE, canary.SUBJECT, once, facts))


async def report(looked: Looked) -> None:
    """Write the page that operators see: places and counts."""
    from prefect.artifacts import acreate_table_artifact

    rows = [{"where": one.place, "rows or files": one.count} for one in looked.traces]
    rows += [{"where": one, "rows or files": "not searched"} for one in looked.unsearched]
    await acreate_table_artifact(
        key="canary",
        table=rows or [{"where": "nowhere", "rows or files": 0}],
        description=f"Where the erased canary was found: {canary.said(looked)}.",
    )
