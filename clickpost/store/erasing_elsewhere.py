"""Says an erasure in the SQL of a further database, whose keys and types are of any kind."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from clickpost import elsewhere, erasure
from clickpost.datamap import Schema
from clickpost.elsewhere import Roots
from clickpost.erasure import Action, Step
from clickpost.errors import PolicyError
from clickpost.policy.erasing import Erasure
from clickpost.policy.privacy import Retention, TableMap
from clickpost.store.elsewhere import REACHED, Foreign, beyond, key_type, there
from clickpost.store.erasing import PATTERN, Erasing
from clickpost.store.expiring import Compiled
from clickpost.store.treatments import Change, changes, fitting, is_plain_json, quoted, room

#: The scope of holds on the member, or the workspace, of ours that an erasure is about.
OURS = "ours"


@dataclass
class ErasingElsewhere(Erasing):
    """One policy over the tables of a further database.

    Whom it is about was looked for there before: `:of_0`, `:of_1`, … are the keys of these rows,
    one list for each root. `:held_0`, … are the keys that holds name.
    """

    database: str = ""
    roots: Roots = field(default_factory=dict)
    scopes: dict[str, str] = field(default_factory=dict)

    @cached_property
    def order(self) -> list[str]:
        """The tables with rows about the subject, children first."""
        return erasure.led_to(self.roots, self.tables, self.schema)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All work but the last."""
        return erasure.steps(self.policy, self.action, self.tables, self.schema, self.order)

    @cached_property
    def loosening(self) -> tuple[Step, ...]:
        """The last work, for when nothing is held."""
        return erasure.loosening(self.policy, self.action, self.tables, self.schema, self.order)

    @cached_property
    def keys(self) -> dict[str, str]:
        """By root, the parameter that brings the keys of rows about the subject."""
        return {table: f"of_{number}" for number, table in enumerate(sorted(self.roots))}

    @cached_property
    def held_by(self) -> dict[str, str]:
        """By parameter, the tables whose rows holds may name."""
        for table in self.tables:
            self.held(table)
        return self.scopes

    def beyond(self, table: str) -> str:
        """Return the condition that row `r` comes after those that are done."""
        return beyond(self.schema, table)

    def reached(self) -> str:
        """Return the last key of a batch, as text."""
        return REACHED

    def about(self, table: str, row: str = "r", through: tuple[str, ...] = ()) -> str:
        """Return the condition that a row is about the subject.

        Tables that refer to each other, or to themselves, are gone through once.
        """
        parts = []
        if table in self.roots:
            keys = f"CAST(:{self.keys[table]} AS text[])"
            of = f"CAST({keys} AS {key_type(self.schema, table)}[])"
            parts.append(f"{row}.{self.key(table)} = ANY({of})")
        for way in erasure.ways(table, self.tables, self.schema):
            if way.to not in self.order or way.to in (table, *through):
                continue
            inner = f"{row}x"
            ids = f"SELECT {inner}.{self.key(way.to)} FROM {quoted(way.to)} {inner}"
            condition = self.about(way.to, inner, (table, *through))
            parts.append(f"{row}.{quoted(way.column)} = ANY(ARRAY({ids} WHERE {condition}))")
        return f"({' OR '.join(parts) or 'false'})"

    def pattern(self) -> str:
        """Return a query that sets what names are looked for by, and says whether there is any."""
        parts = []
        for said in self.policy.names:
            places = [place.rpartition(".") for place in said.split()]
            table = places[0][0]
            columns = ", ".join(f"r.{quoted(column)}" for _, _, column in places)
            value = f"btrim(concat_ws(' ', {columns}))"
            parts.append(
                f"SELECT {value} AS v FROM {quoted(table)} r WHERE {self.about(table)}"
                f" AND length({value}) >= 5 AND {value} ~ '[@[\\:space\\:]]'"
            )
        names = f"SELECT array_agg(DISTINCT v) FROM ({' UNION ALL '.join(parts)}) n"
        made = there(f"privacy_pattern(({names}))")
        return f"SELECT set_config('clickpost.pattern', coalesce({made}, ''), true) <> ''"

    def held(self, table: str) -> dict[str, str]:
        """Return, by whose holds they are, the conditions that a hold keeps row `r`.

        What is held of ours is held there too.
        """
        return {**super().held(table), OURS: "CAST(:held_of_ours AS boolean)"}

    def needed(self, table: str) -> str:
        """Return the condition that something that is still there refers to row `r`.

        That may be a row of the same table, which may be somebody else's.
        """
        key = self.key(table)
        itself = [
            f"EXISTS (SELECT 1 FROM {quoted(table)} x WHERE x.{quoted(one.column)} = r.{key}"
            f" AND x.{key} <> r.{key})"
            for one in self.schema[table].references
            if one.to == table
        ]
        return f"({' OR '.join([super().needed(table), *itself])})"

    def _walked(
        self, table: str, where: str, work: str, kept: str = "1 AS one", more: str = ""
    ) -> str:
        """Return one batch; where rows have no key, they are walked by their part and place."""
        if "tableoid" not in self.schema[table].types:
            return super()._walked(table, where, work, kept, more)
        part, place = (f"split_part(CAST(:after AS text), ' ', {number})" for number in (1, 2))
        beyond = (
            f"(CAST(:after AS text) = '' OR (r.tableoid, r.ctid) >"
            f" (CAST(nullif({part}, '') AS oid), CAST(nullif({place}, '') AS tid)))"
        )
        return f"""
            WITH picked AS MATERIALIZED (
                SELECT r.tableoid AS part, r.ctid AS id FROM {quoted(table)} r
                WHERE {beyond} AND {where}
                ORDER BY r.tableoid, r.ctid LIMIT :size FOR UPDATE OF r
            ),
            done AS ({work} WHERE r.tableoid = picked.part AND r.ctid = picked.id RETURNING {kept})
            SELECT (SELECT part || ' ' || id FROM picked ORDER BY part DESC, id DESC LIMIT 1)
                       AS after, (SELECT count(*) FROM done) AS rows
        """

    def _compile(self, policy: Retention) -> Compiled:
        return Foreign(
            policy,
            self.tables,
            self.schema,
            self.params,
            database=self.database,
            scopes=self.scopes,
        )

    def _changes(self, table: str, names: list[str]) -> list[Change]:
        made = changes(self.tables[table].columns, names, self.schema[table])
        return [Change(one.column, there(one.value), there(one.differs)) for one in made]

    def _masked(self, table: str, column: str) -> str:
        known, place = self.schema[table], f"r.{quoted(column)}"
        if known.kinds[column] != "json":
            masked = there(f"privacy_unname(CAST({place} AS text), {PATTERN})")
            return fitting(masked, room(known, column))
        masked = there(f"privacy_unname_json(CAST({place} AS jsonb), {PATTERN})")
        return f"CAST({masked} AS json)" if is_plain_json(known, column) else masked


def erasing_of(
    policy: Erasure,
    action: Action,
    database: str,
    tables: Mapping[str, TableMap],
    retention: Mapping[str, Retention],
    schema: Schema,
) -> ErasingElsewhere:
    """Return a policy as it is followed in a further database.

    `retention` are the policies about it. Raises PolicyError, with every reason, where an erasure
    cannot be done there, so that nothing is taken for done.
    """
    if wrong := list(elsewhere.faults(policy, database, tables, schema)):
        raise PolicyError(f"{database}: {'; '.join(wrong)}")
    roots = elsewhere.roots(policy, tables)
    derived = elsewhere.derived(policy, database, roots)
    return ErasingElsewhere(
        derived, action, tables, retention, schema, database=database, roots=roots
    )
