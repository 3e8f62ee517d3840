"""Goes through the steps of an erasure until a look finds nothing that no rule holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from clickpost.certificate import Outcome
from clickpost.errors import GuardTripped
from clickpost.store.erasing import Erasing
from clickpost.store.erasures import Erasures, Found
from clickpost.store.tables import Erasure

#: So often work begins anew where rows came in meanwhile, before a person has to look.
ROUNDS = 3
#: Called with the rows that are done so far.
Progress = Callable[[int], None]


async def worked_out(
    erasures: Erasures, row: Erasure, erasing: Erasing, size: int, progress: Progress
) -> list[Outcome]:
    """Do what is left in one database; return what became of each of its tables.

    Once nothing is held there, what stays leads to nobody any more. Raises GuardTripped where,
    after several rounds, something is left that no rule holds.
    """
    found = await _done(erasures, row, erasing, size, progress)
    if not any(one.held for one in found):
        async for _ in erasures.loosen(row, erasing, size):
            pass
        found = await erasures.read_back(row, erasing)
    return outcomes_of(erasing, await erasures.counted(row), found)


async def _done(
    erasures: Erasures, row: Erasure, erasing: Erasing, size: int, progress: Progress
) -> list[Found]:
    """Go through all steps until a look at every location finds nothing that no rule holds."""
    rows = 0
    for number in range(ROUNDS):
        if number or await erasures.is_through(row, erasing):
            await erasures.next_round(row)
        async for done in erasures.erase(row, erasing, size):
            rows += sum(done.counts.values())
            progress(rows)
        found = await erasures.read_back(row, erasing)
        if not any(one.left for one in found):
            return found
    left = ", ".join(f"{one.table} {one.left}" for one in found if one.left)
    raise GuardTripped(f"{row.id}: rows are left that no rule holds: {left}; who writes them?")


def outcomes_of(
    erasing: Erasing, counts: Mapping[str, int], found: Sequence[Found]
) -> list[Outcome]:
    """Return what became of each location, in the order of the work."""
    total: Counter[tuple[str, str]] = Counter()
    for key, count in counts.items():
        outcome, _, table = key.partition(" ")
        total[table, "erased" if outcome == "erased" else "anonymized"] += count
    held = {one.table: one.held for one in found}
    tables = [*erasing.order, *sorted({table for table, _ in total} - set(erasing.order))]
    outcomes: list[Outcome] = []
    for table in tables:
        what = erasing.tables[table].what
        if count := total[table, "erased"]:
            outcomes.append(Outcome(table, what, "erased", count))
        if count := total[table, "anonymized"]:
            outcomes.append(Outcome(table, what, "anonymized", count))
        outcomes += held.get(table, ())
    return outcomes
