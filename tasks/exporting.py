"""Hands a person what is held about them: reads it, looks at it again, certifies, hands it out.

Only a flow run pays for loading Prefect: the command line uses this module too.
"""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clickpost import exporting, ids
from clickpost.certificate import Outcome, Statement
from clickpost.errors import ClickPostError, Conflict, GuardTripped, InvalidInput
from clickpost.exporting import Head, Parcel
from clickpost.logs import logger
from clickpost.people import ENGINE, Right
from clickpost.policy import keeping, requesting
from clickpost.policy.load import policy_hash
from clickpost.requests import Kind
from clickpost.requests import State as RequestState
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.exporting import Exporting, Exports, Subject
from clickpost.store.purging import Purging
from clickpost.store.signer import Signer
from clickpost.store.tables import SubjectRequest
from tasks import _wiring, erasing, exporting_elsewhere
from tasks._wiring import House

log = logger("exporting")

#: The flow that policies name for what is done here; another one's requests are its own.
FLOW = "export-subject"
#: A request is carried out in these; in later ones it is done.
_OPEN = (
    RequestState.VERIFIED,
    RequestState.PLANNED,
    RequestState.APPROVED,
    RequestState.EXECUTED,
    RequestState.READ_BACK,
)


@dataclass(frozen=True)
class Exported:
    """What an export came to; `rows` by table."""

    export_id: str
    rows: Mapping[str, int]
    files: int
    missing: int
    parcel: Parcel
    begun_at: datetime
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """By location in a further database, what it holds."""

    @property
    def said(self) -> str:
        """Return it in a sentence of counts."""
        held = sum(1 for count in self.rows.values() if count)
        missing = f", {self.missing} files missing" if self.missing else ""
        rows = sum(self.rows.values())
        return f"{self.export_id}: {rows} rows of {held} tables, {self.files} files{missing}"


async def load(settings: Settings, store: Store, policy: str) -> Exporting:
    """Return what an export under an erasure policy reads; raise BrokenPolicies, InvalidInput."""
    schema = await Purging(store.engine, store.vault).schema()
    known = keeping.load(settings.policies).erasure
    found = erasing.load(settings, schema, policy, "erasure")
    people = next((one for one in known.values() if one.digest is not None), None)
    return Exporting(found, people if found.policy.digest is None else None)


async def of_subject(
    settings: Settings,
    store: Store,
    subject: str,
    policy: str = "person",
    *,
    target: Path | None = None,
    actor: str = ENGINE,
) -> Exported:
    """Export what is held about a member or a workspace, to `target` or to wait for its link.

    Raises NotAllowed for who may not see personal data, InvalidInput for nobody, Restored in a
    database that was restored: the erased are in it again.
    """
    await store.require(actor, Right.SEE)
    await store.refuse_restored()
    made = await load(settings, store, policy)
    exports = Exports(store.engine, store.vault)
    about = await exports.subject(made, subject)
    export_id = ids.new("export")
    parcel = place(settings, export_id, about)
    if target is not None:
        parcel = Parcel(target, export_id, parcel.who, parcel.expires)
    done = await written(settings, exports, made, about, parcel)
    await noted(exports, done, policy, subject, actor)
    return done


def place(settings: Settings, export_id: str, about: Subject) -> Parcel:
    """Return where an archive is to stand, and until when."""
    lives: timedelta = requesting.load(settings.policies).everywhere.export_lives
    who = exporting.who(about.id, about.digest)
    return exporting.place(settings.media_root, export_id, who, datetime.now(UTC) + lives)


async def written(
    settings: Settings, exports: Exports, made: Exporting, about: Subject, parcel: Parcel
) -> Exported:
    """Write an archive and read it back: it has as many rows as the database counts.

    Raises GuardTripped where it has not; then there is no archive.
    """
    begun_at = datetime.now(UTC)
    is_account = made.people is not None
    head = Head(
        parcel.export_id,
        "What is held about the account" if is_account else "What is held about you",
        f"{begun_at:%d %B %Y, %H:%M} UTC".lstrip("0"),
        exporting.LEFT_OUT + (exporting.LEFT_OUT_OF_ACCOUNTS if is_account else ()),
    )
    counted: dict[str, int] = {}
    with exporting.archive(parcel.path, head, settings.media_root) as archive:
        async with exports.snapshot() as connection:
            for table in made.tables:
                said = made.erasing.tables[table]
                handed = made.columns(table)
                archive.begin(exporting.section(table, said, handed, made.erasing.retention))
                async for batch in exports.rows(connection, made, table, about):
                    await asyncio.to_thread(archive.write, batch)
                archive.end()
                counted[table] = await exports.count(connection, made, table, about)
        added = await exporting_elsewhere.add(settings, exports, made, about, archive)
        counted |= added.rows
        archive.head = replace(head, left_out=(*head.left_out, *added.left_out))
        await asyncio.to_thread(archive.finish)
    await _looked_at(parcel, counted)
    files, missing = archive.files, archive.missing
    return Exported(parcel.export_id, counted, files, missing, parcel, begun_at, added.whats)


async def _looked_at(parcel: Parcel, counted: Mapping[str, int]) -> None:
    try:
        found = await asyncio.to_thread(exporting.read_back, parcel.path)
    except (ValueError, OSError, zipfile.BadZipFile):
        found = {}
    if found != counted:
        parcel.path.unlink(missing_ok=True)
        raise GuardTripped(f"{parcel.export_id}: the archive is not what the database counted")


async def noted(
    exports: Exports, done: Exported, policy: str, subject: str, actor: str = ENGINE
) -> None:
    """Write down that data was handed out: about whom by id, and how much."""
    facts = {
        "policy": policy,
        "about": subject,
        "rows": sum(done.rows.values()),
        "files": done.files,
    }
    await exports.note("export.made", done.export_id, facts, actor)


async def of_request(house: House, request_id: str) -> Exported | None:
    """Carry a verified request for access or portability out; None where that is done already.

    A run that was killed is made anew by the next: what is not whole is never handed out.
    Raises InvalidInput for a request that is none of these, or that names nobody, Restored in a
    database that was restored.
    """
    exports = Exports(house.store.engine, house.vault)
    await house.store.refuse_restored()
    async with exports.export_lock(request_id):
        asked = await house.store.request(request_id)
        state = RequestState(asked.state)
        if asked.kind not in (Kind.ACCESS, Kind.PORTABILITY):
            raise InvalidInput(f"{request_id} asks for {asked.kind}: there is nothing to hand out")
        if state in (RequestState.CERTIFIED, RequestState.ANSWERED):
            return None
        if state not in _OPEN:
            raise InvalidInput(f"{request_id} is {state}: nothing is handed out")
        policy, about = await _about(house, exports, asked)
        made = await load(house.settings, house.store, policy)
        if state == RequestState.VERIFIED:
            await house.store.request_planned(request_id)
        parcel = place(house.settings, request_id, about)
        done = await written(house.settings, exports, made, about, parcel)
        exporting.remove_others(parcel, house.settings.media_root)
        await house.store.request_executed(request_id)
        await house.store.request_read_back(request_id)
        await noted(exports, done, policy, about.id)
        statement = _statement(made, asked, done)
        await exports.certify(statement, Signer.of(house.settings))
        await house.store.request_certified(request_id, statement.certificate)
    return done


async def _about(house: House, exports: Exports, asked: SubjectRequest) -> tuple[str, Subject]:
    """Return the policy, and about whom a request is; raise InvalidInput where it names nobody."""
    if asked.about == "account":
        if asked.authority is None or asked.workspace_id is None:
            raise InvalidInput(f"{asked.id} is about an account: look whether they may ask")
        return "account", Subject(asked.workspace_id)
    if asked.member_id is None and asked.address_digest is None:
        raise InvalidInput(f"{asked.id} names no member and no address: do it by hand")
    return "person", Subject(asked.member_id or asked.id, asked.address_digest)


def _statement(made: Exporting, asked: SubjectRequest, done: Exported) -> Statement:
    outcomes = [
        Outcome(
            table,
            done.elsewhere.get(table) or made.erasing.tables[table].what,
            "exported",
            count,
        )
        for table, count in done.rows.items()
        if count
    ]
    if done.files:
        outcomes.append(Outcome("media", "Files of the media store.", "exported", done.files))
    moment = datetime.now(UTC)
    return Statement(
        certificate=ids.new("cert"),
        action="export",
        request=asked.id,
        outcomes=tuple(outcomes),
        policy=made.erasing.policy.name,
        policy_sha256=policy_hash(made.erasing.policy),
        asked_at=asked.received_at,
        begun_at=done.begun_at,
        read_back_at=moment,
        certified_at=moment,
    )


def link_of(settings: Settings, store: Store, parcel: Parcel) -> str:
    """Return the link that gives an archive until it expires."""
    return exporting.link(settings.gateway_url, store.vault.derived("export-links"), parcel)


async def run_request(request_id: str) -> str:
    """Carry a request out, and tell its person; return what came of it, in counts."""
    house = await _wiring.house()
    done = await of_request(house, request_id)
    from tasks import requests  # Which needs this module.

    await requests.wake(request_id)
    return done.said if done else f"{request_id}: it is done already"


async def resume() -> list[str]:
    """Carry on the exports whose run was cut short; return those that failed, and why."""
    house = await _wiring.house()
    failed: list[str] = []
    flows = requesting.load(house.settings.policies).everywhere.flows
    kinds = [kind for kind, flow in flows.items() if flow == FLOW]
    for request_id in await Exports(house.store.engine, house.vault).cut_short(kinds):
        try:
            await of_request(house, request_id)
        except Conflict:  # Its own run is at work.
            continue
        except ClickPostError as error:
            log.warning("not exported", request_id=request_id, error=type(error).__name__)
            failed.append(f"{request_id}: {error}")
    return failed


async def remove_expired(settings: Settings, store: Store) -> int:
    """Remove the archives whose time is over, each with its line; return how many."""
    exports = Exports(store.engine, store.vault)
    over = exporting.expired(settings.media_root, datetime.now(UTC))
    for one in over:
        one.path.unlink(missing_ok=True)
        await exports.note("export.expired", one.export_id, {}, ENGINE)
    return len(over)
