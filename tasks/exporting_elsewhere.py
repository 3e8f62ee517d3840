"""Adds to an archive what further databases hold about its person, or account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from clickpost import elsewhere, exporting
from clickpost.elsewhere import Roots
from clickpost.exporting import Archive
from clickpost.policy import keeping
from clickpost.policy.privacy import TableMap
from clickpost.settings import Settings
from clickpost.store.elsewhere import Elsewhere
from clickpost.store.erasing_elsewhere import ErasingElsewhere
from clickpost.store.erasures_elsewhere import ours_of, sought
from clickpost.store.exporting import Exporting, Exports, Subject
from clickpost.store.exporting_elsewhere import ExportingElsewhere
from clickpost.store.purging import Purging
from clickpost.store.subjects import Subjects
from tasks.elsewhere import reading


@dataclass
class Added:
    """What was added: rows by location, what each location is, and what had to stay out."""

    rows: dict[str, int] = field(default_factory=dict)
    whats: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


async def add(
    settings: Settings, exports: Exports, made: Exporting, about: Subject, archive: Archive
) -> Added:
    """Add the rows of every further database; whose are nobody's to tell, the archive says.

    Raises Unavailable where one does not answer, PolicyError where its map does not fit: an
    archive that says it is all is not made without them.
    """
    known = keeping.load(settings.policies)
    added = Added()
    for name, tables in sorted(known.databases.items()):
        if not elsewhere.is_about(made.erasing.policy, tables):
            continue
        async with Elsewhere.opened(name, Purging(exports.engine, exports.vault)) as there:
            found = await reading(there, known, made.erasing.policy, _roots(made, tables))
            unled = elsewhere.unled(tables, found.order)
            if made.people is None and unled:
                named = ", ".join(f"{name}.{one}" for one in unled)
                added.left_out.append(f"Rows that nothing leads to a person from: {named}.")
            await _add(exports, made, about, archive, there, found, added)
    return added


def _roots(made: Exporting, tables: Mapping[str, TableMap]) -> Roots:
    """Return by what rows are found; an account's are those that name the account itself."""
    policy = made.erasing.policy
    found = elsewhere.roots(policy, tables)
    return found if made.people is None else elsewhere.only(found, policy.of)


async def _add(
    exports: Exports,
    made: Exporting,
    about: Subject,
    archive: Archive,
    there: Elsewhere,
    erasing: ErasingElsewhere,
    added: Added,
) -> None:
    ours = await ours_of(exports, made.erasing, about.id, about.digest)
    key = await Subjects(exports.engine, exports.vault).subject_key()
    subjects = await sought(there, erasing, ours, key, about.digest)
    found = ExportingElsewhere(
        there, erasing, {table: sorted(keys) for table, keys in subjects.items()}
    )
    async with found.snapshot() as connection:
        for table in found.tables:
            said, location = erasing.tables[table], f"{there.name}.{table}"
            section = exporting.section(table, said, found.columns(table), erasing.retention)
            archive.begin(replace(section, table=location))
            async for batch in found.rows(connection, table):
                await asyncio.to_thread(archive.write, batch)
            archive.end()
            added.rows[location] = await found.count(connection, table)
            added.whats[location] = said.what
