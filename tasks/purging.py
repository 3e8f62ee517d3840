"""Purges what has expired, one policy after another; counts only, no value is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from time import monotonic

from clickpost import retention
from clickpost.datamap import Schema
from clickpost.errors import Conflict, GuardTripped, InvalidInput, PolicyError, Unavailable
from clickpost.logs import logger
from clickpost.people import ENGINE
from clickpost.policy import keeping
from clickpost.policy.history import NAME as PREFECT
from clickpost.policy.keeping import Keeping
from clickpost.policy.load import BrokenPolicies, policy_hash
from clickpost.policy.privacy import Retention
from clickpost.retention import Tally
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.certificates import Certificates
from clickpost.store.elsewhere import Elsewhere, Foreign
from clickpost.store.expiring import Compiled
from clickpost.store.purging import Purging
from clickpost.store.signer import Signer
from tasks import _wiring

log = logger("purging")

#: A file stays so long after its last row, as somebody may be about to name it again.
_SETTLE = timedelta(hours=1)
_FILES_AT_ONCE = 500
#: Called with the rows of the policy's table that are done, and those that were found.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What one policy came to; `counts` by table, of a dry run what would go."""

    policy: str
    data: str
    then: str
    mode: str
    tally: Tally | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    trouble: str | None = None
    resumed: bool = False
    version: str = ""
    """The hash of the policy that was followed."""
    unreachable: bool = False
    """A further database did not answer, or is not what its map says: nothing is known of it."""


@dataclass(frozen=True)
class Retained:
    """The policies in the order of work, over the tables that there are."""

    store: Purging
    keeping: Keeping
    policies: tuple[Compiled, ...]
    media: Path


async def opened(store: Store, settings: Settings) -> Retained:
    """Return what a purge needs; raise BrokenPolicies where map, policies and tables disagree.

    Keys of JSON columns in the newest rows count too: what nobody mapped is not purged around.
    """
    purging = Purging(store.engine, store.vault)
    purging.policies = settings.policies
    found = keeping.load(settings.policies)
    schema = await purging.schema()
    if wrong := keeping.disagreements(found, schema):
        raise BrokenPolicies(tuple(wrong))
    if gaps := await purging.unmapped_json(found.tables.tables):
        named = "; ".join(f"{gap.place} {gap.why}" for gap in gaps)
        raise PolicyError(f"policies/data_map: {named}")
    policies = [Compiled(one, found.tables.tables, schema) for one in found.retention.values()]
    return Retained(purging, found, in_order(policies, schema), settings.media_root)


def in_order(policies: Sequence[Compiled], schema: Schema) -> tuple[Compiled, ...]:
    """Return policies so that rows go before those that they need; treated before deleted."""
    by_name = {one.policy.name: one for one in policies}
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(sorted(by_name), ()))
    for one in policies:
        for other in policies:
            tables = {other.policy.data, *other.policy.beside}
            is_before = bool(tables & set(one.referred())) and other.policy.then != "anonymize"
            same = one.policy.data == other.policy.data and one is not other
            is_before |= same and (one.policy.then, other.policy.then) == ("delete", "anonymize")
            is_before |= same and (one.policy.then, other.policy.then) == ("aggregate", "anonymize")
            if is_before and one is not other:
                sorter.add(one.policy.name, other.policy.name)
    try:
        return tuple(by_name[name] for name in sorter.static_order())
    except CycleError:  # What needs each other waits for the next night.
        return tuple(policies)


async def purge_all(
    retained: Retained,
    *,
    only: str | None = None,
    apply: bool | None = None,
    at: datetime | None = None,
    flow_run_id: str | None = None,
    progress: Progress = lambda *_: None,
    by: str = ENGINE,
) -> AsyncIterator[Outcome]:
    """Work under each policy (or `only` one) and yield what it came to.

    `apply` None: as each policy says; False: count only; True: also where a policy says dry_run.
    Raises NotAllowed where `by` may not erase, and would.
    """
    at = at or datetime.now(UTC)
    await remove_files(retained)
    for one in retained.policies:
        policy = one.policy
        if only is not None and policy.name != only:
            continue
        applies = policy.mode == "apply" if apply is None else apply
        begun = monotonic()
        try:
            if applies:
                outcome = await _purged(retained, one, at, flow_run_id, progress, by)
            else:
                tally = await retained.store.tally(one, at)
                outcome = Outcome(policy.name, policy.data, policy.then, "dry_run", tally)
                retention.guard(policy, tally)
        except (GuardTripped, Conflict) as error:
            log.warning("not purged", policy=policy.name, error=type(error).__name__)
            mode = "apply" if applies else "dry_run"
            tally = await retained.store.tally(one, at)
            outcome = Outcome(
                policy.name, policy.data, policy.then, mode, tally, {}, 0.0, str(error)
            )
            yield replace(outcome, version=policy_hash(policy))
            continue
        seconds = round(monotonic() - begun, 3)
        yield replace(outcome, seconds=seconds, version=policy_hash(policy))
    for policy in retained.keeping.elsewhere.values():
        if only in (None, policy.name):
            applies = policy.mode == "apply" if apply is None else apply
            begun = monotonic()
            work = _Elsewhere(retained, policy, at, flow_run_id, progress, by)
            outcome = await work.done(apply=applies)
            seconds = round(monotonic() - begun, 3)
            yield replace(outcome, seconds=seconds, version=policy_hash(policy))


@dataclass(frozen=True)
class _Elsewhere:
    """The work under one policy about a further database; what cannot be reached is not done."""

    retained: Retained
    policy: Retention
    at: datetime
    flow_run_id: str | None
    progress: Progress
    by: str

    async def done(self, *, apply: bool) -> Outcome:
        """Purge or count, and say what came of it."""
        try:
            async with Elsewhere.opened(str(self.policy.database), self.retained.store) as there:
                one = await self._fitting(there)
                if apply:
                    return await self._purged(there, one)
                tally = await there.tally(one, self.at)
                retention.guard(self.policy, tally)
                return self._outcome("dry_run", tally)
        except (GuardTripped, Conflict) as error:
            log.warning("not purged", policy=self.policy.name, error=type(error).__name__)
            return replace(self._outcome("apply" if apply else "dry_run"), trouble=str(error))
        except (Unavailable, InvalidInput, PolicyError) as error:
            log.warning("not purged", policy=self.policy.name, error=type(error).__name__)
            outcome = self._outcome("apply" if apply else "dry_run")
            return replace(outcome, trouble=str(error), unreachable=True)

    def _outcome(self, mode: str, tally: Tally | None = None) -> Outcome:
        data = f"{self.policy.database}.{self.policy.data}"
        return Outcome(self.policy.name, data, self.policy.then, mode, tally)

    async def _fitting(self, there: Elsewhere) -> Foreign:
        """Return the policy over the tables that there are; raise PolicyError for a gap."""
        tables = self.retained.keeping.databases.get(there.name, {})
        schema = await there.schema()
        if gaps := await there.gaps(tables, schema):
            raise PolicyError("; ".join(gaps))
        return there.compiled(self.policy, tables, schema)

    async def _purged(self, there: Elsewhere, one: Foreign) -> Outcome:
        ours, name, digest = self.retained.store, self.policy.name, policy_hash(self.policy)
        async with ours.purge_lock(name):
            run = await ours.open_purge(name, digest, self.by)
            resumed = run is not None
            tally = await there.tally(one, run.asked_at if run else self.at)
            if run is None:
                retention.guard(self.policy, tally)
                if not tally.found:
                    return self._outcome("apply", tally)
                run = await ours.begin_purge(tally, digest, self.at, self.flow_run_id, self.by)
            done = 0
            async for batch in there.purge(run, one):
                done += batch.counts.get(tally.data, 0)
                self.progress(name, done, tally.found)
            counts = await ours.end_purge(run)
        log.info("purged", policy=name, run_id=run.id, rows=counts[tally.data])
        outcome = self._outcome("apply", tally)
        return replace(outcome, counts=dict(counts), resumed=resumed)


async def _purged(
    retained: Retained,
    one: Compiled,
    at: datetime,
    flow_run_id: str | None,
    progress: Progress,
    by: str,
) -> Outcome:
    """Begin a purge, or resume the one that was killed; the limit is asked before it begins."""
    store, policy = retained.store, one.policy
    digest = policy_hash(policy)
    async with store.purge_lock(policy.name):
        run = await store.open_purge(policy.name, digest, by)
        resumed = run is not None
        tally = await store.tally(one, run.asked_at if run else at)
        if run is None:
            retention.guard(policy, tally)
            if not tally.found:
                return Outcome(policy.name, policy.data, policy.then, "apply", tally)
            run = await store.begin_purge(tally, digest, at, flow_run_id, by)
        done = 0
        async for batch in store.purge(run, one):
            done += batch.counts.get(policy.data, 0)
            progress(policy.name, done, tally.found)
        counts = await store.end_purge(run)
    log.info("purged", policy=policy.name, run_id=run.id, rows=counts[policy.data])
    return Outcome(
        policy.name, policy.data, policy.then, "apply", tally, dict(counts), resumed=resumed
    )


async def remove_files(retained: Retained) -> int:
    """Remove the files whose last row is gone; a kill in between loses nothing."""
    removed, after = 0, ""
    tables = retained.keeping.tables.tables
    root = retained.media.resolve()
    while found := await retained.store.doomed(after, _FILES_AT_ONCE, _SETTLE):
        after, named = found[-1], await retained.store.named(found, tables)
        done = []
        for stored_at in found:
            if stored_at not in named:
                path = Path(stored_at).resolve()
                if not path.is_relative_to(root):
                    log.error("a file outside the media store is not removed")
                    continue
                path.unlink(missing_ok=True)
                removed += 1
            done.append(stored_at)
        await retained.store.forget_files(done)
    return removed


async def run(policy: str | None, *, dry: bool) -> tuple[list[Outcome], list[int]]:
    """Purge as the policies say (or count only), with progress and report in Prefect.

    Returns what each policy came to, and lines of the ledger that look personal.
    """
    # Only a flow run pays for loading Prefect; the command line uses this module without it.
    from prefect import runtime
    from prefect.artifacts import acreate_progress_artifact
    from prefect.artifacts import aupdate_progress_artifact as update_progress

    from tasks import exporting, history  # Which need this module.

    house = await _wiring.house()
    await house.store.fill_digests()
    await exporting.remove_expired(house.settings, house.store)
    retained = await opened(house.store, house.settings)
    known = retained.keeping.retention | retained.keeping.elsewhere
    if policy is not None and policy not in (*known, PREFECT):
        raise InvalidInput(f"there is no retention policy {policy}")
    outcomes: list[Outcome] = []
    bar = await acreate_progress_artifact(0.0, description="policies that are through")
    work = purge_all(
        retained,
        only=policy,
        apply=False if dry else None,
        flow_run_id=str(runtime.flow_run.id) if runtime.flow_run.id else None,
    )
    total = 1 if policy else len(known)
    async for outcome in work:
        outcomes.append(outcome)
        with suppress(Exception):  # A bar that cannot be drawn stops no purge.
            await update_progress(bar, 100.0 * len(outcomes) / total)
    if policy in (None, PREFECT):
        outcomes += await history.purge(house.store, house.settings, apply=False if dry else None)
    await report(outcomes)
    await Certificates(house.store.engine, house.vault).checkpoint(Signer.of(house.settings))
    return outcomes, await retained.store.personal_in_ledger()


async def report(outcomes: Sequence[Outcome]) -> None:
    """Write the table of counts that operators see."""
    from prefect.artifacts import acreate_table_artifact

    # What has expired first: most policies have nothing to do on most days.
    shown = sorted(outcomes, key=lambda one: -(one.tally.found if one.tally else 0))
    await acreate_table_artifact(
        key="retention",
        table=[row_of(one) for one in shown],
        description="What has expired, by policy; a dry run touches nothing.",
    )


def row_of(one: Outcome) -> dict[str, object]:
    """Return one line of the report: counts only."""
    tally = one.tally
    return {
        "policy": one.policy,
        "table": one.data,
        "then": one.then,
        "mode": one.mode,
        "expired": tally.found if tally else "",
        "of": tally.total if tally else "",
        "held": tally.held if tally else "",
        "still needed": tally.referred_to if tally else "",
        "done": ", ".join(f"{name}: {count}" for name, count in sorted(one.counts.items())),
        "seconds": one.seconds,
        "version": one.version[:12],
        "note": one.trouble or ("resumed" if one.resumed else ""),
    }


def summary(outcomes: Sequence[Outcome], personal: Sequence[int]) -> str:
    """Say in one sentence what a purge came to."""
    rows = sum(sum(one.counts.values()) for one in outcomes)
    waiting = sum(one.tally.found for one in outcomes if one.tally and one.mode == "dry_run")
    stopped = sum(1 for one in outcomes if one.trouble)
    parts = [f"{rows} rows purged", f"{waiting} expired under policies that say dry_run"]
    if stopped:
        parts.append(f"{stopped} policies stopped: see the report")
    if personal:
        parts.append(f"the ledger seems to hold personal values in lines {list(personal)}")
    return "; ".join(parts)


def is_well(outcomes: Sequence[Outcome], personal: Sequence[int]) -> bool:
    """Say whether nobody has to act."""
    return not personal and not any(
        one.trouble for one in outcomes if one.mode == "apply" or one.unreachable
    )
