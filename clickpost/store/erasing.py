"""Says an erasure in SQL: which rows are about the subject, what keeps them, what is done."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import TextClause, text

from clickpost import erasure, retention
from clickpost.datamap import Schema
from clickpost.erasure import Action, Step
from clickpost.policy.erasing import Erasure
from clickpost.policy.privacy import Limit, Purpose, Retention, TableMap
from clickpost.store import said
from clickpost.store.expiring import Compiled
from clickpost.store.treatments import Change, changes, quoted

#: By what names are found: set for a transaction, so that no name leaves the database.
PATTERN = "nullif(current_setting('clickpost.pattern', true), '')"
#: The same names, one by one, as JSON.
NAMES = "clickpost.names"


@dataclass(frozen=True)
class Law:
    """A purpose that keeps row `r`: its condition, and the moment at which it ends."""

    policy: Retention
    purpose: Purpose
    condition: str
    until: str

    @property
    def rule(self) -> str:
        """What a certificate says of it."""
        return f"{self.policy.name}: {self.purpose.cite}"


@dataclass
class Erasing:
    """One policy over the tables that there are; the subject is `:subject`, the row is `r`."""

    policy: Erasure
    action: Action
    tables: Mapping[str, TableMap]
    retention: Mapping[str, Retention]
    schema: Schema
    params: dict[str, Any] = field(default_factory=dict)
    _kept: dict[str, list[Law]] = field(default_factory=dict)
    _ours: dict[str, Compiled] = field(default_factory=dict)
    _prepared: dict[Step, TextClause | None] = field(default_factory=dict)
    _looks: dict[str, TextClause] = field(default_factory=dict)
    _naming: dict[str, TextClause] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = erasure.reaching(self.policy, self.tables)

    @cached_property
    def order(self) -> list[str]:
        """The tables with rows about the subject, children first."""
        return erasure.about(self.policy, self.tables, self.schema)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All work but the last."""
        return erasure.steps(self.policy, self.action, self.tables, self.schema)

    @cached_property
    def loosening(self) -> tuple[Step, ...]:
        """The last work, for when nothing is held."""
        return erasure.loosening(self.policy, self.action, self.tables, self.schema)

    @cached_property
    def written(self) -> dict[str, list[str]]:
        """By table, the columns in which people write freely."""
        return erasure.written(self.tables, self.schema)

    def prepared(self, step: Step) -> TextClause | None:
        """Return a step's statement, said once for all batches and subjects."""
        if step not in self._prepared:
            said = self.statement(step)
            self._prepared[step] = None if said is None else text(said)
        return self._prepared[step]

    def look(self, table: str) -> TextClause:
        """Return a query that counts what is there, left (`left_`) and held, by law and by hold.

        `n0`, `n1`, … are rows that a law keeps, until `u0`, `u1`, …; `h0`, `h1`, … by holds.
        """
        if table not in self._looks:
            self._looks[table] = text(self._look(table))
        return self._looks[table]

    def _look(self, table: str) -> str:
        any_hold = self.any_hold(table)
        wanted = ["count(*) AS total", f"count(*) FILTER (WHERE {self.left(table)}) AS left_"]
        for number, law in enumerate(self.laws(table)):
            only = f"FILTER (WHERE {law.condition} AND NOT {any_hold})"
            wanted += [
                f"count(*) {only} AS n{number}",
                f"CASE WHEN bool_or({law.until} IS NULL) {only} THEN NULL"
                f" ELSE max({law.until}) {only} END AS u{number}",
            ]
        for number, condition in enumerate(self.held(table).values()):
            wanted.append(f"count(*) FILTER (WHERE coalesce({condition}, false)) AS h{number}")
        return f"SELECT {', '.join(wanted)} FROM {quoted(table)} r WHERE {self.about(table)}"

    def key(self, table: str) -> str:
        """Return the column by which rows of a table are told apart, as SQL writes it."""
        return quoted(self.schema[table].key)

    def beyond(self, table: str) -> str:
        """Return the condition that row `r` comes after those that are done."""
        return f"r.{self.key(table)} > :after"

    def reached(self) -> str:
        """Return the last key of a batch."""
        return "(SELECT max(id) FROM picked)"

    def deletes(self, table: str) -> bool:
        """Say whether rows of a table go, rather than stay anonymized."""
        return self.action == "erasure" and table not in self.policy.anonymize

    def about(self, table: str, row: str = "r") -> str:
        """Return the condition that a row is about the subject."""
        digest = self.policy.digest
        parts = []
        if table == self.policy.of:
            parts.append(f"{row}.id = :subject")
        if digest is not None and digest in self.schema[table].kinds:
            parts.append(f"{row}.{quoted(digest)} = :digest")
        for way in erasure.ways(table, self.tables, self.schema):
            if way.to in self.order:
                inner = f"{row}x"
                ids = f"SELECT {inner}.id FROM {quoted(way.to)} {inner}"
                condition = self.about(way.to, inner)
                # As an array, for beside another condition a subquery would read the whole table.
                parts.append(f"{row}.{quoted(way.column)} = ANY(ARRAY({ids} WHERE {condition}))")
        return "(" + " OR ".join(parts) + ")"

    def _at_home(self, table: str, row: str = "r") -> str | None:
        """Return the condition that a row belongs to a workspace of the subject; None: to none."""
        parts = []
        for way in erasure.ways(table, self.tables, self.schema):
            if way.to == "workspace":
                parts.append(f"{row}.{quoted(way.column)} = ANY(:homes)")
            elif (inner := self._at_home(way.to, f"{row}x")) is not None:
                ids = f"SELECT {row}x.id FROM {quoted(way.to)} {row}x WHERE {inner}"
                parts.append(f"{row}.{quoted(way.column)} = ANY(ARRAY({ids}))")
        return "(" + " OR ".join(parts) + ")" if parts else None

    def homes(self) -> str:
        """Return a query for the workspaces that the subject belongs to, or is."""
        of = self.policy.of
        if of == "workspace":
            return "SELECT CAST(:subject AS text)"
        return f"SELECT DISTINCT r.workspace_id FROM {quoted(of)} r WHERE {self.about(of)}"

    def names(self) -> str:
        """Return a query for the names that are looked for."""
        parts = []
        for place in self.policy.names:
            table, _, column = place.partition(".")
            value = f"btrim(r.{quoted(column)})"
            parts.append(
                f"SELECT {value} AS v FROM {quoted(table)} r WHERE {self.about(table)}"
                f" AND length({value}) >= 5 AND {value} ~ '[@[\\:space\\:]]'"
            )
        return " UNION ALL ".join(parts)

    def pattern(self) -> str:
        """Return a query that sets what names are looked for by, and says whether there is any."""
        return (
            "SELECT set_config('clickpost.pattern', coalesce(privacy_pattern(names), ''), true)"
            f" || set_config('{NAMES}', coalesce(CAST(to_jsonb(names) AS text), ''), true) <> ''"
            f" FROM (SELECT array_agg(DISTINCT v) FROM ({self.names()}) n) AS found (names)"
        )

    def held(self, table: str) -> dict[str, str]:
        """Return, by whose holds they are, the conditions that a hold keeps row `r`."""
        return self._compiled(table).held()

    def laws(self, table: str) -> list[Law]:
        """Return the purposes that keep rows of a table whatever is asked."""
        if table not in self._kept:
            self._kept[table] = [
                self._law(policy, purpose)
                for policy, purpose in erasure.legal(self.policy, table, self.retention)
            ]
        return self._kept[table]

    def _law(self, policy: Retention, purpose: Purpose) -> Law:
        said = self._compile(policy)
        until = said.until(purpose)
        # A clock that has not begun keeps a row as long as nobody starts it.
        goes_on = f"coalesce({until} > :at, true)"
        condition = f"({said.concerned()} AND {said.is_active(purpose)} AND {goes_on})"
        return Law(policy, purpose, condition, until)

    def _compiled(self, table: str) -> Compiled:
        if table not in self._ours:
            bare = Retention.model_construct(
                kind="retention", name="erasure", data=table, beside=[], where={}, platform=None,
                columns=None, purposes=[], then="delete", by=[], person=None, k=None,
                limit=Limit(rows=1, share=1.0),
            )  # fmt: skip
            self._ours[table] = self._compile(bare)
        return self._ours[table]

    def _compile(self, policy: Retention) -> Compiled:
        return Compiled(policy, self.tables, self.schema, self.params)

    def any_hold(self, table: str) -> str:
        """Return the condition that any hold keeps row `r`."""
        return f"coalesce({' OR '.join(self.held(table).values()) or 'false'}, false)"

    def any_law(self, table: str) -> str:
        """Return the condition that any law keeps row `r`."""
        return f"({' OR '.join(one.condition for one in self.laws(table)) or 'false'})"

    def needed(self, table: str) -> str:
        """Return the condition that something that is still there refers to row `r`."""
        found = " OR ".join(self._compiled(table).referred().values())
        return f"coalesce({found or 'false'}, false)"

    def changes(self, table: str) -> list[Change]:
        """Return what anonymization does to a row, but for the ids by which it is found."""
        stay = erasure.paths(self.policy, table, self.tables, self.schema)
        return self._changes(table, [one for one in self._treated(table) if one not in stay])

    def _treated(self, table: str) -> list[str]:
        return retention.treated(self.tables[table], None)

    def _changes(self, table: str, names: list[str]) -> list[Change]:
        return changes(self.tables[table].columns, names, self.schema[table])

    def differs(self, table: str) -> str:
        """Return the condition that anonymization would still change row `r`."""
        return f"({' OR '.join(one.differs for one in self.changes(table)) or 'false'})"

    def left(self, table: str) -> str:
        """Return the condition that row `r` is left although nothing keeps it."""
        is_bare = f"NOT {self.differs(table)}"
        fine = f"{self.needed(table)} AND {is_bare}" if self.deletes(table) else is_bare
        kept = f"{self.any_hold(table)} OR {self.any_law(table)}"
        return f"NOT ({kept} OR ({fine}))"

    def statement(self, step: Step) -> str | None:
        """Return the one statement of a batch, None where a step has nothing to do.

        It picks at most `:size` rows behind `:after`, and returns the last key and their number.
        """
        match step.kind:
            case "delete":
                kept = f"{self.any_hold(step.table)} OR {self.any_law(step.table)}"
                return self._deleting(step.table, f"NOT ({kept} OR {self.needed(step.table)})")
            case "rest":
                kept = f"{self.any_hold(step.table)} OR {self.any_law(step.table)}"
                return self._updating(step.table, self.changes(step.table), f"NOT ({kept})")
            case "thin":
                return self._thinning(step.table)
            case "loosen":
                stay = erasure.paths(self.policy, step.table, self.tables, self.schema)
                names = [one for one in self._treated(step.table) if one in stay]
                return self._updating(step.table, self._changes(step.table, names), "true")
            case "ends":
                column = self.policy.ends[step.table]
                change = Change(column, ":at", f"r.{quoted(column)} IS NULL")
                return self._updating(step.table, [change], "true")
            case "names":
                return self._masking(step.table)

    def _thinning(self, table: str) -> str | None:
        columns = erasure.thinned(table, self.retention)
        if not columns or not self.laws(table):
            return None
        when = f"{self.any_law(table)} AND NOT {self.any_hold(table)}"
        return self._updating(table, self._changes(table, columns), when)

    def _updating(self, table: str, made: list[Change], when: str) -> str | None:
        if not made:
            return None
        differs = " OR ".join(one.differs for one in made)
        where = f"{self.about(table)} AND {when} AND ({differs})"
        sets = ", ".join(f"{quoted(one.column)} = {one.value}" for one in made)
        return self._walked(table, where, f"UPDATE {quoted(table)} r SET {sets} FROM picked")

    def _deleting(self, table: str, when: str) -> str:
        where = f"{self.about(table)} AND {when}"
        named = [name for name, said in self.tables[table].columns.items() if said.file]
        if not named:
            return self._walked(table, where, f"DELETE FROM {quoted(table)} r USING picked")
        kept = ", ".join(f"r.{quoted(one)} AS {quoted(one)}" for one in named)
        union = " UNION ALL ".join(f"SELECT {quoted(one)} AS f FROM done" for one in named)
        files = (
            "files AS (INSERT INTO doomed_file (stored_at, doomed_at, erasure_id)"
            f" SELECT DISTINCT f, now(), :erasure FROM ({union}) AS all_files WHERE f IS NOT NULL"
            " ON CONFLICT (stored_at) DO UPDATE SET erasure_id = excluded.erasure_id)"
        )
        delete = f"DELETE FROM {quoted(table)} r USING picked"
        return self._walked(table, where, delete, kept, files)

    def naming(self, table: str) -> TextClause:
        """Return a query that counts the rows that name the subject and do not go."""
        if table not in self._naming:
            where = self.mentions(table)
            self._naming[table] = text(f"SELECT count(*) FROM {quoted(table)} r WHERE {where}")
        return self._naming[table]

    def mentions(self, table: str) -> str:
        """Return the condition that row `r`, which does not go, names the subject."""
        return " AND ".join([self._names_them(table), *self._not_its_own(table)])

    def _not_its_own(self, table: str) -> list[str]:
        """Return the conditions that row `r` does not go, and is where names are looked for."""
        parts = []
        if table in self.order and self.deletes(table):
            parts.append(f"NOT coalesce({self.about(table)}, false)")
        if self.policy.search == "home" and (home := self._at_home(table)) is not None:
            parts.append(home)
        return parts

    def _names_them(self, table: str) -> str:
        """Return the condition that what is written in row `r` has a name of the subject."""
        if not self.schema[table].searched:
            columns = self.written[table]
            found = " OR ".join(f"CAST(r.{quoted(one)} AS text) ~* {PATTERN}" for one in columns)
            return f"({found})"
        setting = f"CAST(nullif(current_setting('{NAMES}', true), '') AS jsonb)"
        # OFFSET 0: name by name, each by the index, and not row by row.
        return f"""r.id = ANY(ARRAY(
            SELECT f.id FROM jsonb_array_elements_text({setting}) AS n (name)
            CROSS JOIN LATERAL (
                SELECT x.id FROM {quoted(table)} x
                WHERE {self.found(table, "x", "n.name")} OFFSET 0
            ) f
        ))"""

    def found(self, table: str, row: str, name: str) -> str:
        """Return the condition that what is written in a row has a name, which SQL calls `name`.

        By the index it is narrowed down to rows with all pairs of the name's words; the pattern
        alone decides.
        """
        kinds, by_index = self.schema[table].kinds, self.schema[table].searched
        has = {
            one: f"{said.text_of(one, kinds[one], f'{row}.')} ~* privacy_pattern(ARRAY[{name}])"
            for one in self.written[table]
        }
        indexed = " OR ".join(has[one] for one in has if one in by_index) or "false"
        others = [has[one] for one in has if one not in by_index]
        if not by_index:
            return f"({' OR '.join(others)})"
        narrow = f"{said.pairs_of(by_index, kinds, f'{row}.')} @> privacy_pairs({name})"
        return f"({' OR '.join([f'({narrow} AND ({indexed}))', *others])})"

    def _masking(self, table: str) -> str:
        columns = self.written[table]
        sets = ", ".join(f"{quoted(one)} = {self._masked(table, one)}" for one in columns)
        where = f"{self.mentions(table)} AND NOT {self.any_hold(table)}"
        return self._walked(table, where, f"UPDATE {quoted(table)} r SET {sets} FROM picked")

    def _masked(self, table: str, column: str) -> str:
        return self._unnamed(table, column, PATTERN)

    def _unnamed(self, table: str, column: str, pattern: str) -> str:
        how = "privacy_unname_json" if self.schema[table].kinds[column] == "json" else None
        return f"{how or 'privacy_unname'}(r.{quoted(column)}, {pattern})"

    def _walked(
        self, table: str, where: str, work: str, kept: str = "1 AS one", more: str = ""
    ) -> str:
        key = f"r.{self.key(table)}"
        return f"""
            WITH picked AS MATERIALIZED (
                SELECT {key} AS id FROM {quoted(table)} r WHERE {self.beyond(table)} AND {where}
                ORDER BY {key} LIMIT :size FOR UPDATE OF r
            ),
            done AS ({work} WHERE {key} = picked.id RETURNING {kept}){"," if more else ""}
            {more}
            SELECT {self.reached()} AS after, (SELECT count(*) FROM done) AS rows
        """
