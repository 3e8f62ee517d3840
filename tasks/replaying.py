"""Erases again in a restored database what was erased since its backup, before it may serve."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from clickpost import exporting
from clickpost.logs import logger
from clickpost.people import ENGINE
from clickpost.store.erasures import Erasures
from clickpost.store.tables import Erasure
from clickpost.store.tombstones import Head, Replayed, Tombstone, Tombstones
from tasks import erasing
from tasks._wiring import House
from tasks.erasing import Wanted

log = logger("replaying")


@dataclass(frozen=True)
class Replay:
    """What a replay came to: how many tombstones, erasures done again, deliveries set aside."""

    tombstones: int = 0
    erased: int = 0
    set_aside: int = 0
    was_restored: bool = True


async def replay(house: House) -> Replay:
    """Do again what the restored database has forgotten; a second run, or one after a kill, too.

    Where nothing was restored nothing is touched. Raises Conflict where another run is at it,
    Unavailable where the tombstones cannot be trusted.
    """
    store = house.store
    kept = store.tombstones or Tombstones.of(house.settings, house.vault)
    erasures = Erasures(store.engine, house.vault)
    async with erasures.erasure_lock("replay"):
        if not await _is_restored(house, kept):
            return Replay(was_restored=False)
        due = await _forgotten(house, kept)
        erased = 0
        for row in await _planned(house, kept, due):
            await _erased_again(house, erasures, row)
            erased += 1
        done = Replay(len(due), erased, await store.doubt_unsent())
        facts = {name: number for name, number in asdict(done).items() if name != "was_restored"}
        await store.settle_restored(kept, facts)
    log.info("replayed", **facts)
    return done


async def _is_restored(house: House, kept: Tombstones) -> bool:
    known = [await house.store.knows(head) for head in kept.heads() if head.seq]
    return not all(known)


async def _forgotten(house: House, kept: Tombstones) -> list[Tombstone]:
    """Return the tombstones of which this history knows nothing.

    Who was erased before the backup, and came again of their own will, stays.
    """
    due: list[Tombstone] = []
    for line in kept.lines():
        is_known = await house.store.knows(Head(line.seq, line.hash))
        match line:
            case Replayed() if is_known:
                due.clear()
            case Tombstone() if not is_known:
                due.append(line)
            case _:
                continue
    return due


async def _planned(house: House, kept: Tombstones, due: list[Tombstone]) -> list[Erasure]:
    """Plan the erasures of all that are found by id or by address, in the order of the file."""
    found: list[Erasure] = []
    for policy, action in dict.fromkeys((one.policy, one.action) for one in due):
        some = [one for one in due if (one.policy, one.action) == (policy, action)]
        loaded = await erasing.loaded(house.settings, house.store, policy, action)
        of, digest = loaded.policy.of, loaded.policy.digest
        subjects = await house.store.subjects_of(of, [one.subject for one in some], kept)
        addresses: dict[str, str] = {}
        wanted = [one.address for one in some if one.address]
        for table in loaded.order if digest and wanted else ():
            if digest and digest in loaded.schema[table].kinds:
                addresses |= await house.store.addresses_of(table, digest, wanted, kept)
        for one in some:
            subject, address = subjects.get(one.subject), addresses.get(one.address or "")
            if subject or address:
                # Without a row of their own, the erasure's id stands for who has that address.
                asked = Wanted(policy, subject or one.erasure, action, digest=address)
                found.append((await erasing.plan(house.settings, house.store, asked))[0])
    return found


async def _erased_again(house: House, erasures: Erasures, row: Erasure) -> None:
    """Erase once more; platforms were left the first time, before the tombstone was written."""
    async with erasures.erasure_lock(row.id):
        if row.state == "planned":
            await erasures.approve(row.id, ENGINE)
        row = await erasures.begin(row.id)
        loaded = await erasing.loaded(house.settings, house.store, row.policy, row.action)
        if row.action == "erasure" and loaded.policy.of == "workspace":
            await erasures.stop_unsent(row.subject)
        if row.action == "erasure" and loaded.policy.of == "connection":
            await erasures.stop_unsent(row.subject, "connection")
        # Media may be as old as the backup. A further database that is away is tried again later.
        exporting.forget(house.settings.media_root, row.subject, row.digest)
        await erasing.everywhere(house.settings, erasures, row, loaded)
