"""Says in SQL the erasure of many subjects at once: one statement for each step, for all."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

import re

from clickpost.store.erasing import NAMES, Erasing
from clickpost.store.treatments import Change, quoted

#: The subjects, by erasure: `after` is the last key that each has reached in this step.
_WHOM = """
    whom AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:whom AS jsonb)) AS w (
            erasure text, subject text, digest text, homes text[], pad_inner bytea,
            pad_outer bytea, after text
        )
    )"""
_OF_ONE = re.compile(r"(?<![:\\]):(subject|digest|homes|after)\b")
_PADS = re.compile(r"(?<![:\\]):(inner|outer)\b")


def _each(said: str) -> str:
    """Return what is said of the one subject of parameters as said of subject `w`."""
    return _PADS.sub(r"w.pad_\1", _OF_ONE.sub(r"w.\1", said))


class Together(Erasing):
    """One policy for all subjects of `:whom`.

    Each is looked for by itself, by index, as if it were the only one: what one costs depends
    neither on the others nor on how many rows there are.
    """

    def _look(self, table: str) -> str:
        found = _each(super()._look(table))
        return f"WITH {_WHOM} SELECT w.erasure, f.* FROM whom w CROSS JOIN LATERAL ({found}) f"

    def homes(self) -> str:
        """Return a query for the workspaces (`home`) that each subject belongs to, or is."""
        found = _each(super().homes())
        return (
            f"WITH {_WHOM} SELECT w.erasure, f.home"
            f" FROM whom w CROSS JOIN LATERAL ({found}) f (home)"
        )

    def pattern(self) -> str:
        """Return a query that sets what names are looked for, and says whether there are any."""
        names = _each(self.names())
        each = (
            f"SELECT DISTINCT w.erasure, n.v AS name FROM whom w CROSS JOIN LATERAL ({names}) n (v)"
        )
        made = f"SELECT CAST(jsonb_agg(to_jsonb(each)) AS text) FROM ({each}) each"
        return f"WITH {_WHOM} SELECT set_config('{NAMES}', coalesce(({made}), ''), true) <> ''"

    def _updating(self, table: str, made: list[Change], when: str) -> str | None:
        if not made:
            return None
        differs = " OR ".join(one.differs for one in made)
        where = f"{self.about(table)} AND {when} AND ({differs})"
        sets = ", ".join(f"{quoted(one.column)} = {_each(one.value)}" for one in made)
        return _walked(table, where, f"UPDATE {quoted(table)} r SET {sets} FROM picked w")

    def _deleting(self, table: str, when: str) -> str:
        where = f"{self.about(table)} AND {when}"
        delete = f"DELETE FROM {quoted(table)} r USING picked w"
        named = [name for name, said in self.tables[table].columns.items() if said.file]
        if not named:
            return _walked(table, where, delete)
        kept = "".join(f", r.{quoted(one)} AS {quoted(one)}" for one in named)
        union = " UNION ALL ".join(f"SELECT erasure, {quoted(one)} AS f FROM done" for one in named)
        files = (
            "files AS (INSERT INTO doomed_file (stored_at, doomed_at, erasure_id)"
            " SELECT DISTINCT ON (f) f, now(), erasure"
            f" FROM ({union}) AS all_files WHERE f IS NOT NULL"
            " ON CONFLICT (stored_at) DO UPDATE SET erasure_id = excluded.erasure_id)"
        )
        return _walked(table, where, delete, kept, files)

    def _hits(self, table: str) -> str:
        """Return the rows behind the last key that name a subject, do not go and are not held."""
        parts = [f"({self.found(table, 'r', 'w.name')})", "r.id > w.after"]
        parts += [*self._not_its_own(table), f"NOT {self.any_hold(table)}"]
        # OFFSET 0: name by name, each by the index, and not row by row.
        return f"""
            needles AS MATERIALIZED (
                SELECT w.*, n.name FROM whom w JOIN jsonb_to_recordset(
                    CAST(nullif(current_setting('{NAMES}', true), '') AS jsonb)
                ) AS n (erasure text, name text) ON n.erasure = w.erasure
            ),
            hits AS MATERIALIZED (
                SELECT w.erasure, w.name, f.id FROM needles w CROSS JOIN LATERAL (
                    SELECT r.id FROM {quoted(table)} r
                    WHERE {_each(" AND ".join(parts))} OFFSET 0
                ) f
            )"""

    def _masking(self, table: str) -> str:
        columns = self.written[table]
        sets = ", ".join(
            f"{quoted(one)} = {self._unnamed(table, one, 'n.pattern')}" for one in columns
        )
        # Of two people who are named in one row both names go at once.
        return f"""
            WITH {_WHOM}, {self._hits(table)},
            picked AS MATERIALIZED (
                SELECT erasure, id FROM (
                    SELECT erasure, id, row_number() OVER (PARTITION BY erasure ORDER BY id) AS n
                    FROM (SELECT DISTINCT erasure, id FROM hits) AS each
                ) AS numbered WHERE n <= :size
            ),
            named AS MATERIALIZED (
                SELECT id, privacy_pattern(array_agg(DISTINCT name)) AS pattern
                FROM hits WHERE id IN (SELECT id FROM picked) GROUP BY id
            ),
            done AS (
                UPDATE {quoted(table)} r SET {sets} FROM named n WHERE r.id = n.id RETURNING r.id
            )
            SELECT erasure, max(id) AS after, count(*) AS picked,
                   count(*) FILTER (WHERE id IN (SELECT id FROM done)) AS rows
            FROM picked GROUP BY erasure
        """


def _walked(table: str, where: str, work: str, kept: str = "", more: str = "") -> str:
    """Return a statement that picks at most `:size` rows of each subject behind its last key.

    For each erasure that has any it returns the new last key (`after`), how many it picked, and
    how many it touched (`rows`). A row that is about two subjects counts for one.
    """
    return f"""
        WITH {_WHOM},
        picked AS MATERIALIZED (
            SELECT w.*, f.id FROM whom w CROSS JOIN LATERAL (
                SELECT r.id FROM {quoted(table)} r WHERE r.id > w.after AND {_each(where)}
                ORDER BY r.id LIMIT :size FOR UPDATE OF r
            ) f
        ),
        done AS ({work} WHERE r.id = w.id RETURNING w.erasure{kept}){"," if more else ""}
        {more}
        SELECT p.erasure, p.after, p.picked, coalesce(d.rows, 0) AS rows FROM (
            SELECT erasure, max(id) AS after, count(*) AS picked FROM picked GROUP BY erasure
        ) p LEFT JOIN (SELECT erasure, count(*) AS rows FROM done GROUP BY erasure) d
            ON d.erasure = p.erasure
    """
