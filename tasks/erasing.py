"""Carries an erasure out: platforms first, then the database, then files; then it looks again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clickpost import exporting
from clickpost.certificate import BLOCKING, Outcome
from clickpost.datamap import Schema
from clickpost.erasure import Action, State
from clickpost.errors import ClickPostError, Conflict, InvalidInput
from clickpost.logs import logger
from clickpost.people import ENGINE
from clickpost.policy import keeping
from clickpost.policy.erasing import Erasure as ErasurePolicy
from clickpost.policy.load import BrokenPolicies, policy_hash
from clickpost.requests import State as RequestState
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.erasing import Erasing
from clickpost.store.erasures import Erasures
from clickpost.store.processors import Processors
from clickpost.store.purging import BATCH, Purging
from clickpost.store.signer import Signer
from clickpost.store.tables import Erasure
from clickpost.store.tombstones import Tombstones
from tasks import _wiring, elsewhere, processors, traces
from tasks._files import remove_files
from tasks._rounds import Progress, worked_out
from tasks._wiring import House

log = logger("erasing")

#: A vendor that is away, or Prefect's database, is tried again after it, unless it is due earlier.
TRY_AGAIN = timedelta(minutes=15)
#: By policy and action, what was said in SQL, of which policies and tables: said once for all.
_SAID: dict[tuple[str, Action], tuple[keeping.Keeping, Schema, Erasing]] = {}


@dataclass(frozen=True)
class Ended:
    """What one run came to: `certificate` its id, where there is one."""

    erasure_id: str
    state: str
    said: str
    certificate: str | None = None

    @property
    def is_well(self) -> bool:
        """Say whether nobody has to act."""
        return self.state in ("complete", "parked", "waiting", "planned")


def load(settings: Settings, schema: Schema, policy: str, action: Action) -> Erasing:
    """Return an erasure policy over the tables; raise BrokenPolicies, or InvalidInput for none."""
    found = keeping.load(settings.policies)
    before = _SAID.get((policy, action))
    if before is not None and before[0] is found and before[1] is schema:
        return before[2]
    if wrong := keeping.disagreements(found, schema):
        raise BrokenPolicies(tuple(wrong))
    if policy not in found.erasure:
        known = ", ".join(sorted(found.erasure))
        raise InvalidInput(f"unknown erasure policy {policy!r} (known: {known})")
    made = Erasing(found.erasure[policy], action, found.tables.tables, found.retention, schema)
    _SAID[policy, action] = (found, schema, made)
    return made


async def plan(
    settings: Settings, store: Store, wanted: Wanted, actor: str = ENGINE
) -> tuple[Erasure, str | None]:
    """Write what an erasure would do, and touch nothing; return it, and why it needs approval."""
    erasures = Erasures.beside(store)
    erasing = await loaded(settings, store, wanted.policy, wanted.action)
    row = await erasures.plan(
        erasing,
        wanted.subject,
        policy_hash(erasing.policy),
        request=wanted.request,
        takedown=wanted.takedown,
        digest=wanted.digest,
        actor=actor,
    )
    if row.state == "planned":
        lines = await elsewhere.plan(elsewhere.reach(settings, erasures, row, erasing))
        beside = Processors.beside(store)
        lines += await processors.plan_lines(settings, beside, row, erasing)
        row = await erasures.add_to_plan(row, lines) if lines else row
    return row, why_approve(erasing.policy, row)


async def loaded(settings: Settings, store: Store, policy: str, action: str) -> Erasing:
    """Return an erasure policy over the tables that the database has; raise as `load` does."""
    schema = await Purging(store.engine, store.vault).schema()
    return load(settings, schema, policy, "erasure" if action == "erasure" else "anonymization")


@dataclass(frozen=True)
class Wanted:
    """What somebody wants erased: `policy` says of which table `subject` is the id."""

    policy: str
    subject: str
    action: Action = "erasure"
    request: str | None = None
    takedown: bool = False
    digest: str | None = None
    """Of the address of somebody of whom no row is known; then `subject` is the request's id."""


def why_approve(policy: ErasurePolicy, row: Erasure) -> str | None:
    """Say why somebody has to look at a plan before it is carried out, None where nobody has to."""
    if row.state != "planned":
        return None
    if policy.approval:
        return f"policies/erasure/{policy.name}.yaml asks for approval"
    touched = sum(one["count"] for one in row.plan if one["then"] != "held")
    if touched > policy.approve_above:
        return f"it touches {touched} rows, and above {policy.approve_above} somebody has to look"
    return None


async def of_request(house: House, request_id: str) -> tuple[Erasure, str | None]:
    """Plan what a verified request asks for; return it, and why it needs approval.

    Raises InvalidInput for a request that names neither a person nor an account of ours.
    """
    asked = await house.store.request(request_id)
    if asked.about == "account":
        wanted = Wanted("account", asked.workspace_id or "", takedown=asked.takedown)
    else:
        subject, digest = asked.member_id or asked.id, asked.address_digest
        if asked.member_id is None and digest is None:
            raise InvalidInput(f"{request_id} names no member and no address: do it by hand")
        wanted = Wanted("person", subject, digest=digest)
    row, why = await plan(house.settings, house.store, replace(wanted, request=request_id))
    if asked.state == RequestState.VERIFIED:
        await house.store.request_planned(request_id)
    if row.state == "planned" and why is None:
        await Erasures(house.store.engine, house.vault).approve(row.id, ENGINE)
    return row, why


async def answer(house: House, row: Erasure, done: Ended) -> None:
    """Say in the request, where there is one, that it is carried out, read back and certified."""
    if row.request is None or not row.request.startswith("req_") or done.certificate is None:
        return
    asked = await house.store.request(row.request)
    others = await Erasures(house.store.engine, house.vault).of_request(row.request)
    if any(one.state not in ("parked", "complete") for one in others):
        return  # It names several accounts, and not all are done.
    if asked.state not in (RequestState.PLANNED, RequestState.APPROVED, RequestState.EXECUTED):
        return
    if asked.state != RequestState.EXECUTED:
        await house.store.request_executed(row.request)
    await house.store.request_read_back(row.request)
    await house.store.request_certified(row.request, done.certificate)


async def carry_out(house: House, erasure_id: str, progress: Progress = lambda _: None) -> Ended:
    """Do what is left of an approved erasure, or say what it waits for.

    Platforms come first, for the rows say what is where; then the database, in batches; then
    files; then the look, and the certificate. A run that was killed is resumed by the next.
    Raises Conflict where another run works on it, Restored in a database that was restored.
    """
    erasures = Erasures(house.store.engine, house.vault)
    async with erasures.erasure_lock(erasure_id):
        await house.store.refuse_restored()
        row = await erasures.begin(erasure_id)
        erasing = await loaded(house.settings, house.store, row.policy, row.action)
        beside: list[Outcome] = []
        remains: list[str] = []
        if row.action == "erasure" and erasing.policy.of in ("workspace", "connection"):
            from tasks import leaving  # Loads Prefect, which few commands should.

            leave = leaving.leave if erasing.policy.of == "workspace" else leaving.leave_account
            left = await leave(house, erasures, row)
            beside, remains = left.outcomes, left.remains
            if left.open is not None:
                state: State = "waiting" if left.again_at else "blocked"
                await erasures.stop(row, state, left.open, left.again_at)
                return Ended(row.id, state, left.open)
        # From here on it is to be done again wherever a backup brings the rows back.
        kept = Tombstones.of(house.settings, house.vault)
        await house.store.bury(row, erasing.policy.of, kept)
        exporting.forget(house.settings.media_root, row.subject, row.digest)
        # While the rows are there: they say by what vendors and Prefect know the subject.
        asked = await processors.ask(house, row, erasing)
        await traces.note(house, [row], erasing)
        done = await everywhere(
            house.settings,
            erasures,
            row,
            erasing,
            [*beside, *asked.outcomes],
            [*remains, *asked.remains, *traces.remains(house.settings)],
            progress,
            after=lambda: traces.remove(house, [row]),
        )
    await answer(house, row, done)
    return done


async def everywhere(
    settings: Settings,
    erasures: Erasures,
    row: Erasure,
    erasing: Erasing,
    beside: Sequence[Outcome] = (),
    remains: Sequence[str] = (),
    progress: Progress = lambda _: None,
    after: Callable[[], Awaitable[Sequence[Outcome]]] | None = None,
) -> Ended:
    """Do what is left here and in all further databases; certify it, or say what it waits for.

    `beside` is what became of it elsewhere; `after` is done once the rows are gone.

    What is unreachable or unsupported anywhere is never certified; all else is done all the same.
    """
    reached = elsewhere.reach(settings, erasures, row, erasing)
    await elsewhere.remember_all(reached)
    ours = await in_ours(erasures, row, erasing, settings.media_root, BATCH, progress)
    left = await elsewhere.carry_out(reached, BATCH, progress)
    beside = [*beside, *(await after() if after is not None else ())]
    outcomes = [*ours, *beside, *left.outcomes]
    stuck = [one for one in beside if one.outcome in BLOCKING]
    if left.open is not None or stuck:
        said = [f"{one.location}: {one.rule or one.outcome}" for one in stuck]
        why = "; ".join([left.open, *said] if left.open is not None else said)
        again_at = left.again_at if left.open is not None else None
        if any(one.outcome == "unreachable" for one in stuck):
            again_at = datetime.now(UTC) + TRY_AGAIN
        state: State = "waiting" if again_at is not None else "blocked"
        await erasures.stop(row, state, why, again_at, outcomes)
        return Ended(row.id, state, why)
    signer = Signer.of(settings)
    document = await erasures.certify(row, erasing, outcomes, remains, signer)
    now_is = (await erasures.erasure(row.id)).state
    said = document["statement"]
    return Ended(row.id, now_is, f"{row.action} {said['result']}", said["certificate"])


async def in_database(
    erasures: Erasures,
    row: Erasure,
    erasing: Erasing,
    signer: Signer,
    *,
    media: Path | None = None,
    beside: Sequence[Outcome] = (),
    remains: Sequence[str] = (),
    size: int = BATCH,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Do what is left in the database and the media store, read back, return the certificate.

    `beside` are the outcomes elsewhere. Raises GuardTripped where, after several rounds, something
    is left that no rule holds: somebody goes on writing about the subject.
    """
    outcomes = await in_ours(erasures, row, erasing, media, size, progress)
    return await erasures.certify(row, erasing, [*outcomes, *beside], remains, signer)


async def in_ours(
    erasures: Erasures,
    row: Erasure,
    erasing: Erasing,
    media: Path | None,
    size: int = BATCH,
    progress: Progress = lambda _: None,
) -> list[Outcome]:
    """Do what is left in our database and the media store; return what became of each location."""
    outcomes = await worked_out(erasures, row, erasing, size, progress)
    files = await remove_files(erasures, [row], erasing.tables, media) if media else Counter()
    if count := files[row.id]:
        outcomes.append(Outcome("media", "Files of the media store.", "erased", count))
    return outcomes


async def run(erasure_id: str) -> Ended:
    """Carry an erasure out, or say why not yet; plan and outcomes become an artifact."""
    house = await _wiring.house()
    erasures = Erasures(house.store.engine, house.vault)
    row = await erasures.erasure(erasure_id)
    if row.state == "planned":
        done = Ended(row.id, row.state, "planned: look at it, then `clickpost privacy approve`")
    elif row.state == "complete":
        done = Ended(row.id, row.state, "it is complete already")
    else:
        done = await carry_out(house, erasure_id)
    await report(await erasures.erasure(erasure_id))
    return done


async def run_request(request_id: str) -> Ended:
    """Plan what a request asks for, and carry it out where nobody has to look at it first."""
    house = await _wiring.house()
    asked = await house.store.request(request_id)
    from tasks import platform_users  # It carries out with what is here.

    if platform_users.is_one(asked):
        return await platform_users.erase(house, asked)
    row, why = await of_request(house, request_id)
    if why is not None:
        await report(row)
        said = f"{row.id} waits for approval: {why}; `clickpost privacy approve {row.id}`"
        return Ended(row.id, "planned", said)
    return await run(row.id)


async def resume() -> list[Ended]:
    """Carry on what was left by its run, or is parked until now; one that fails stops no other."""
    house = await _wiring.house()
    await processors.look_again(house)
    due = await Erasures(house.store.engine, house.vault).due(datetime.now(UTC))
    from tasks import together  # It works with what is here.

    ended, others = await together.carry_out(house, due)
    for erasure_id in others:
        try:
            ended.append(await carry_out(house, erasure_id))
        except Conflict:  # Its own run is at work.
            continue
        except ClickPostError as error:
            log.warning("not carried on", erasure_id=erasure_id, error=type(error).__name__)
            ended.append(Ended(erasure_id, "failed", str(error)))
    await traces.after(house)
    return ended


async def report(row: Erasure) -> None:
    """Write the page that operators see: ids, tables, counts and rules."""
    from prefect.artifacts import acreate_table_artifact

    await acreate_table_artifact(
        key=row.id.replace("_", "-"),
        table=rows_of(row),
        description=f"{row.action} under the policy {row.policy}: {row.state}."
        + (f" {row.reason}." if row.reason else ""),
    )


def rows_of(row: Erasure) -> list[dict[str, object]]:
    """Return the lines of a plan, and of what came of it, for people."""
    lines = [("plan", one, one["then"]) for one in row.plan]
    lines += [("outcome", one, one["outcome"]) for one in row.outcomes]
    return [
        {
            "stage": stage,
            "where": one["location"],
            "what": one["what"],
            "then": then,
            "count": one["count"],
            "rule": one["rule"] or "",
            "until": one["until"] or "",
        }
        for stage, one, then in lines
    ]
