"""Reads what a further database holds about somebody, as an erasure would find it there."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clickpost.store.elsewhere import Elsewhere
from clickpost.store.erasing_elsewhere import ErasingElsewhere
from clickpost.store.exporting import BATCH, Row
from clickpost.store.treatments import quoted


@dataclass(frozen=True)
class ExportingElsewhere:
    """One person, or account, in one further database; `subjects` are the keys by root."""

    there: Elsewhere
    erasing: ErasingElsewhere
    subjects: Mapping[str, Sequence[str]]

    @property
    def tables(self) -> list[str]:
        """The tables with something to hand out, the subject itself first."""
        return list(reversed(self.erasing.order))

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns that are handed out; nothing there is sealed by us, so bytes too."""
        return tuple(
            name
            for name, said in self.erasing.tables[table].columns.items()
            if said.not_personal is None and said.withheld is None
        )

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection to which that database stands still, and that changes nothing."""
        alike = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        async with self.there.engine.connect() as connection:
            await connection.execution_options(**alike)
            yield connection

    async def rows(self, connection: AsyncConnection, table: str) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows of a table, by the batch, from a cursor of the server's."""
        names = ", ".join(f"r.{quoted(one)}" for one in self.columns(table))
        # By way of jsonb, for a document may have lines of its own.
        said = f"(SELECT CAST(CAST(row_to_json(s) AS jsonb) AS text) FROM (SELECT {names}) s)"
        key = f"r.{self.erasing.key(table)}"
        query = text(
            f"SELECT CAST({key} AS text) AS id, {said} AS said FROM {quoted(table)} r"
            f" WHERE {self.erasing.about(table)} ORDER BY {key}"
        )
        async with connection.stream(query, self._given()) as found:
            async for batch in found.partitions(BATCH):
                yield [(row.id, row.said, {}) for row in batch]

    async def count(self, connection: AsyncConnection, table: str) -> int:
        """Return how many rows of a table there are to hand out."""
        where = self.erasing.about(table)
        query = text(f"SELECT count(*) FROM {quoted(table)} r WHERE {where}")
        return int(await connection.scalar(query, self._given()) or 0)

    def _given(self) -> dict[str, list[str]]:
        return {
            parameter: sorted(self.subjects.get(table, ()))
            for table, parameter in self.erasing.keys.items()
        }
