"""Finds in further databases who was erased and is there all the same, and erases them again.

A backup that was brought back there does that; so does somebody who came again of their own will,
whom nobody but a person can tell from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from clickpost import elsewhere, subjects
from clickpost.errors import InvalidInput
from clickpost.people import ENGINE, Right
from clickpost.policy import keeping
from clickpost.policy.keeping import Keeping
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.elsewhere import Elsewhere
from clickpost.store.erasures import Erasures
from clickpost.store.erasures_elsewhere import addresses
from clickpost.store.purging import Purging
from clickpost.store.subjects import Subjects
from clickpost.store.tombstones import Tombstone, Tombstones
from tasks import erasing
from tasks._wiring import House
from tasks.elsewhere import reading
from tasks.erasing import Ended, Wanted


async def found(
    settings: Settings, store: Store, there: Elsewhere, known: Keeping
) -> dict[str, Tombstone]:
    """Return who was erased and is there, by the digest of their address."""
    kept = Tombstones.of(settings, store.vault)
    by_address = await asyncio.to_thread(kept.addressed)
    if not by_address:
        return {}
    key = await Subjects(store.engine, store.vault).subject_key()
    again: dict[str, Tombstone] = {}
    for policy in (one for one in known.erasure.values() if one.digest is not None):
        roots = elsewhere.roots(policy, known.databases[there.name])
        one = await reading(there, known, policy, elsewhere.only(roots, "address"))
        async for some in addresses(there, one):
            again |= await asyncio.to_thread(_among, some, key, kept, by_address)
    return again


def _among(
    some: Sequence[str], key: bytes, kept: Tombstones, by_address: Mapping[str, Tombstone]
) -> dict[str, Tombstone]:
    digests = {subjects.digest(key, one) for one in some}
    marks = {one: kept.of_address(one) for one in digests}
    return {one: by_address[mark] for one, mark in marks.items() if mark in by_address}


async def again(house: House, name: str, by: str = ENGINE) -> list[Ended]:
    """Erase again who was erased and is in a further database; return what came of each.

    Raises InvalidInput for an unknown database, Unavailable for one that is away, NotAllowed for
    who may not erase, Restored where our own database was restored: `clickpost replay` is first.
    """
    store = house.store
    await store.require(by, Right.ERASE)
    await store.refuse_restored()
    known = keeping.load(house.settings.policies)
    if name not in known.databases:
        raise InvalidInput(f"unknown database {name!r} (known: {', '.join(known.databases)})")
    async with Elsewhere.opened(name, Purging(store.engine, store.vault)) as there:
        due = await found(house.settings, store, there, known)
    erasures = Erasures(store.engine, store.vault)
    ended: list[Ended] = []
    for digest, line in due.items():
        wanted = Wanted(line.policy, line.erasure, line.action, digest=digest)
        row, _ = await erasing.plan(house.settings, store, wanted, by)
        if row.state == "planned":
            await erasures.approve(row.id, by)
        ended.append(await erasing.carry_out(house, row.id))
    return ended
