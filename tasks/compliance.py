"""Sweeps over the privacy promises: looks, says what it found, keeps it, tells what is red."""

from __future__ import annotations

from datetime import UTC, datetime

from clickpost import compliance
from clickpost.compliance import Finding, Light
from clickpost.errors import ClickPostError
from clickpost.logs import logger
from clickpost.policy import keeping, load
from clickpost.policy.keeping import Keeping
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.canaries import flights
from clickpost.store.certificates import Certificates
from clickpost.store.compliance import Compliance, past_of
from clickpost.store.elsewhere import Elsewhere
from clickpost.store.expiring import Compiled
from clickpost.store.processors import Processors
from clickpost.store.purging import Purging
from clickpost.store.signer import Signer
from clickpost.telling import Event, Happening
from tasks import _wiring, erasing_again
from tasks.elsewhere import faults

log = logger("compliance")
#: So many sweeps stand in the report.
HISTORY = 30


async def look(store: Store, settings: Settings, now: datetime) -> list[Finding]:
    """Return what every check found; what cannot be checked is red, and stops no other check."""
    found: list[Finding] = []
    swept = Compliance(store.engine, store.vault)
    found += compliance.requests(await swept.open_requests(), now)
    found += await _kept(store, settings, now)
    found += compliance.tokens(await swept.grants(), now)
    found += compliance.erasures(await swept.open_erasures(), now)
    found += compliance.canaries(await flights(store.engine), now)
    found += await _asked(store, now)
    found += await _proven(store, swept, settings)
    return found


async def _asked(store: Store, now: datetime) -> list[Finding]:
    """Check what vendors were asked to erase."""
    asks = Processors.beside(store)
    late = [f"{one.erasure_id} at {one.processor}" for one in await asks.overdue(now)]
    refused = [f"{one.erasure_id} at {one.processor}" for one in await asks.refused()]
    return compliance.vendors(late, refused)


async def _kept(store: Store, settings: Settings, now: datetime) -> list[Finding]:
    """Check map, purges and sources; with a map that does not fit nothing can be counted."""
    checked = keeping.check(settings.policies, None)
    platforms = load.check(settings.policies)
    problems = [str(one) for one in (*checked.problems, *platforms.problems)]
    warnings = [f"{one.place} {one.message}" for one in (*checked.warnings, *platforms.warnings)]
    if problems:
        return compliance.citations((), warnings, problems)
    known = keeping.load(settings.policies)
    sources = compliance.citations(known.retention.values(), warnings, ())
    purging = Purging(store.engine, store.vault)
    schema = await purging.schema()
    wrong = [f"{one.key} {one.message}" for one in keeping.disagreements(known, schema)]
    if not wrong:
        gaps = await purging.unmapped_json(known.tables.tables)
        wrong = [f"{gap.place} {gap.why}" for gap in gaps]
    mapped = compliance.data_map(wrong)
    further = await _further(store, settings, known, now)
    if wrong:
        return [mapped, *further, *sources]
    return [mapped, *await _behind(purging, known, now), *further, *sources]


async def _further(
    store: Store, settings: Settings, known: Keeping, now: datetime
) -> list[Finding]:
    """Check every further database: that it answers, that its map fits, that nothing is behind.

    And that nobody who was erased is there again.
    """
    found, purging = [], Purging(store.engine, store.vault)
    for name, tables in sorted(known.databases.items()):
        try:
            async with Elsewhere.opened(name, purging) as there:
                schema = await there.schema()
                wrong = await there.gaps(tables, schema)
                tallies = []
                back = 0 if wrong else len(await erasing_again.found(settings, store, there, known))
                for policy in () if wrong else known.elsewhere.values():
                    if policy.database == name:
                        one = there.compiled(policy, tables, schema)
                        tallies.append((policy, await there.tally(one, now - compliance.BEHIND)))
        except ClickPostError as error:
            found.append(compliance.data_map([str(error)]))
            continue
        if wrong:
            found.append(compliance.data_map(wrong))
            continue
        found += [*compliance.purges(tallies), *compliance.erasable(faults(known, name, schema))]
        found += compliance.came_back(name, back)
    return found


async def _behind(purging: Purging, known: Keeping, now: datetime) -> list[Finding]:
    schema = await purging.schema()
    tallies = []
    for policy in known.retention.values():
        one = Compiled(policy, known.tables.tables, schema)
        tallies.append((policy, await purging.tally(one, now - compliance.BEHIND)))
    return compliance.purges(tallies)


async def _proven(store: Store, swept: Compliance, settings: Settings) -> list[Finding]:
    try:
        key = Signer.of(settings).public
    except ClickPostError as error:
        return [Finding("proof", Light.RED, str(error), "bring back the signing key")]
    walked = await store.verify()
    broken = walked.broken
    if broken is None:
        broken = await Certificates(store.engine, store.vault).wrong_checkpoint(key)
    said = f"line {broken.seq}: {broken.why}" if broken else None
    count, wrong = await swept.wrong_certificate(key)
    return [
        compliance.proof("ledger", walked.lines, said),
        compliance.proof("certificates", count, wrong),
    ]


async def sweep(store: Store, settings: Settings, flow_run_id: str | None = None) -> list[Finding]:
    """Look, keep what was found, and write a notice where something is red."""
    now = datetime.now(UTC)
    found = await look(store, settings, now)
    sweep_id = await Compliance(store.engine, store.vault).record(found, now, flow_run_id)
    light = compliance.worst(found)
    log.info("swept", sweep_id=sweep_id, light=light.value)
    if light is Light.RED:
        facts = {
            "reason": compliance.summary(found),
            "who_acts": "an operator",
            "run_id": flow_run_id,
        }
        await store.notify(Happening(Event.COMPLIANCE, sweep_id, f"compliance:{sweep_id}", facts))
    return found


async def run() -> list[Finding]:
    """Sweep in a flow run, with its report as an artifact."""
    # Only a flow run pays for loading Prefect; the command line uses this module without it.
    from prefect import runtime
    from prefect.artifacts import acreate_markdown_artifact

    house = await _wiring.house()
    run_id = str(runtime.flow_run.id) if runtime.flow_run.id else None
    found = await sweep(house.store, house.settings, run_id)
    await acreate_markdown_artifact(
        key="compliance",
        markdown=await report(house.store, found),
        description=f"How the privacy promises stand: {compliance.summary(found)}",
    )
    return found


async def report(store: Store, found: list[Finding]) -> str:
    """Return the report as a page, with the sweeps before."""
    rows = await Compliance(store.engine, store.vault).sweeps(HISTORY)
    return compliance.as_markdown(found, [past_of(row) for row in rows], datetime.now(UTC))
