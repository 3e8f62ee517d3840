"""Purges what Prefect remembers, as `policies/history` says: counts only, no value is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic

import psycopg

from clickpost.errors import GuardTripped
from clickpost.logs import logger
from clickpost.people import ENGINE, Right
from clickpost.policy import history as policies
from clickpost.policy.history import NAME, History
from clickpost.policy.load import policy_hash
from clickpost.reach import from_here
from clickpost.retention import Tally
from clickpost.settings import Settings
from clickpost.store import Store, history
from tasks.purging import Outcome

log = logger("history")


async def purge(
    store: Store,
    settings: Settings,
    *,
    apply: bool | None = None,
    at: datetime | None = None,
    by: str = ENGINE,
) -> list[Outcome]:
    """Count what Prefect remembers for too long, or delete it; return what each kind came to.

    `apply` None: as the policy says. Raises NotAllowed where `by` may not erase, and would.
    """
    policy = policies.load(settings.policies)
    if policy is None:
        return []
    applies = policy.mode == "apply" if apply is None else apply
    at = at or datetime.now(UTC)
    there = address(settings)
    if there is None:
        # Nobody has to act: the Prefect server of somebody else keeps its history itself.
        theirs = Outcome(NAME, "prefect", "kept by its own server", "elsewhere")
        return [replace(theirs, version=policy_hash(policy))]
    if applies:
        await store.require(by, Right.ERASE)
    try:
        async with history.opened(there) as connection:
            outcomes = [
                await _one(connection, policy, kind, at, applies=applies)
                for kind in policy.keep.spans
            ]
    except psycopg.Error as error:
        log.warning("history not purged", error=type(error).__name__)
        why = f"Prefect's database refused: {type(error).__name__}"
        mode = "apply" if applies else "dry_run"
        broken = Outcome(NAME, "prefect", "delete", mode, trouble=why)
        return [replace(broken, version=policy_hash(policy))]
    done = sum((Counter(one.counts) for one in outcomes), Counter[str]())
    if applies and done:
        await history.write_down(store, NAME, policy_hash(policy), done, by)
    return outcomes


def address(settings: Settings) -> str | None:
    """Return where Prefect's database is, None where its server is somebody else's."""
    # A worker is told the address of our own server, too.
    ours = f"http://{from_here(settings.host)}:{settings.prefect_port}/"
    file = settings.home / "prefect.url"
    if not settings.prefect_api.startswith(ours) or not file.is_file():
        return None
    return file.read_text().strip()


async def _one(
    connection: history.Connection, policy: History, kind: str, at: datetime, *, applies: bool
) -> Outcome:
    begun, before = monotonic(), at - policy.keep.spans[kind]
    found, total = await history.tally(connection, kind, before)
    tally = Tally(NAME, f"prefect {kind}", found, total, 0, 0)
    counts: Counter[str] = Counter()
    trouble = None
    try:
        _guard(policy, kind, tally)
        if applies and found:
            async for batch in history.purge(connection, kind, before):
                counts += batch
    except GuardTripped as error:
        trouble = str(error)
    return Outcome(
        policy=NAME,
        data=tally.data,
        then="delete",
        mode="apply" if applies else "dry_run",
        tally=tally,
        counts=dict(counts),
        seconds=round(monotonic() - begun, 3),
        trouble=trouble,
        version=policy_hash(policy),
    )


def _guard(policy: History, kind: str, tally: Tally) -> None:
    most, share = policy.limit.rows, policy.limit.share
    if tally.found > most or tally.found > share * tally.total:
        raise GuardTripped(
            f"{NAME}: {tally.found} of {tally.total} {kind} have expired, and one run may touch"
            f" {most} and {share:.0%}; raise its limit once you have looked"
        )
