"""Carries erasures out together where all their work is in our own database and media store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from clickpost import elsewhere, exporting
from clickpost.certificate import BLOCKING, Outcome
from clickpost.errors import ClickPostError, GuardTripped, Unavailable
from clickpost.logs import logger
from clickpost.policy.keeping import Keeping, load
from clickpost.store.erasing_together import Together
from clickpost.store.erasures import Found
from clickpost.store.erasures_together import ErasuresTogether
from clickpost.store.processors import Processors
from clickpost.store.signer import Signer
from clickpost.store.tables import Erasure
from clickpost.store.tombstones import Tombstones
from tasks import erasing as alone
from tasks import processors, traces
from tasks._files import remove_files
from tasks._rounds import ROUNDS, outcomes_of
from tasks._wiring import House
from tasks.erasing import Ended

log = logger("erasing")
#: So many erasures under one policy share one statement for each step.
AT_ONCE = 100


def may_go(keeping: Keeping, policy: str) -> bool:
    """Say whether nothing of a policy's work is outside of our database and media store.

    An account leaves its platforms first, and what is in a further database is found by what is
    in ours: such an erasure goes by itself, as do all where a vendor is asked.
    """
    one = keeping.erasure[policy]
    further = any(elsewhere.is_about(one, tables) for tables in keeping.databases.values())
    return one.of == "member" and not further


async def carry_out(house: House, ids_: Sequence[str]) -> tuple[list[Ended], list[str]]:
    """Carry out what may go together; return how each ended, and what has to go by itself.

    Where anything stands in the way of one, its group goes one by one, so that it stops no other.
    """
    rows = await ErasuresTogether(house.store.engine, house.vault).chosen(ids_)
    keeping = load(house.settings.policies)
    groups: dict[tuple[str, str], list[str]] = {}
    vendors = bool(processors.enabled(house.settings))
    asked = await Processors.beside(house.store).asked(ids_)
    for row in rows:
        if may_go(keeping, row.policy) and not vendors and row.id not in asked:
            groups.setdefault((row.policy, row.action), []).append(row.id)
    ended: list[Ended] = []
    for (policy, action), group in groups.items():
        for first in range(0, len(group), AT_ONCE):
            some = group[first : first + AT_ONCE]
            if len(some) > 1:
                ended += await _tried(house, policy, action, some)
    done = {one.erasure_id for one in ended}
    return ended, [one for one in ids_ if one not in done]


async def _tried(house: House, policy: str, action: str, ids_: Sequence[str]) -> list[Ended]:
    """Carry out what no other run works on; whoever is not returned has to go by itself."""
    done: list[tuple[Erasure, Ended]] = []
    erasures = ErasuresTogether(house.store.engine, house.vault)
    async with erasures.erasure_locks(ids_) as taken:
        try:
            await house.store.refuse_restored()
            loaded = await alone.loaded(house.settings, house.store, policy, action)
            erasing = Together(
                loaded.policy, loaded.action, loaded.tables, loaded.retention, loaded.schema
            )
            rows = await erasures.begin_all(taken)
            await traces.note(house, rows, loaded)
            async for one in _certified(house, erasures, rows, erasing):
                done.append(one)
        except ClickPostError as error:
            log.warning("not together", erasures=len(taken), error=type(error).__name__)
    for row, ended in done:
        await alone.answer(house, row, ended)
    return [ended for _, ended in done]


async def _certified(
    house: House, erasures: ErasuresTogether, rows: Sequence[Erasure], erasing: Together
) -> AsyncIterator[tuple[Erasure, Ended]]:
    """Do all there is to do, read back, then certify each; where one is not done, none is."""
    media = house.settings.media_root
    # From here on it is to be done again wherever a backup brings the rows back.
    await house.store.bury_all(rows, erasing.policy.of, Tombstones.of(house.settings, house.vault))
    await asyncio.to_thread(_forget_exports, media, rows)
    found = await _worked_out(erasures, rows, erasing)
    counts = await erasures.counted_all(rows)
    files = await remove_files(erasures, rows, erasing.tables, media)
    signer = Signer.of(house.settings)
    remembered, remains = await traces.remove(house, rows), traces.remains(house.settings)
    if any(one.outcome in BLOCKING for one in remembered):
        raise Unavailable("what Prefect remembers cannot be removed now")
    for row in rows:
        outcomes = [*outcomes_of(erasing, counts[row.id], found[row.id]), *remembered]
        if count := files[row.id]:
            outcomes.append(Outcome("media", "Files of the media store.", "erased", count))
        document = await erasures.certify(row, erasing, outcomes, remains, signer)
        said = document["statement"]
        state = "parked" if any(one.outcome == "held" for one in outcomes) else "complete"
        came_to = f"{row.action} {said['result']}"
        yield row, Ended(row.id, state, came_to, said["certificate"])


def _forget_exports(media: Path, rows: Sequence[Erasure]) -> None:
    for row in rows:
        exporting.forget(media, row.subject, row.digest)


async def _worked_out(
    erasures: ErasuresTogether, rows: Sequence[Erasure], erasing: Together
) -> dict[str, list[Found]]:
    """Go through all steps until a look at every location finds nothing that no rule holds.

    Raises GuardTripped where, after several rounds, something is left of anybody.
    """
    found: dict[str, list[Found]] = {}
    open_ = list(rows)
    for number in range(ROUNDS):
        again = open_ if number else await erasures.through(open_, erasing)
        if again:
            await erasures.next_rounds(again)
        async for _ in erasures.erase_all(open_, erasing):
            pass
        found |= await erasures.read_back_all(open_, erasing)
        open_ = [row for row in open_ if any(one.left for one in found[row.id])]
        if not open_:
            break
    else:
        raise GuardTripped(f"of {len(open_)} subjects rows are left that no rule holds")
    free = [row for row in rows if not any(one.held for one in found[row.id])]
    if free and erasing.loosening:
        async for _ in erasures.loosen_all(free, erasing):
            pass
        found |= await erasures.read_back_all(free, erasing)
    return found
