"""Says a retention policy in SQL: which rows have expired, are held, are still referred to."""

# ruff: noqa: S608
# Names come from the schema and are quoted; values are parameters.
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clickpost import retention
from clickpost.datamap import Reference, Schema, follow
from clickpost.policy.privacy import Purpose, Retention, TableMap, places_of
from clickpost.store.treatments import changes, jsonpath_of, literal, quoted

#: Holds that are in force at the moment that is asked about.
_IN_FORCE = "h.ended_at IS NULL AND (h.until IS NULL OR h.until > :at)"


@dataclass
class Compiled:
    """One policy over the tables that there are; the row is `r`, the moment `:at`."""

    policy: Retention
    tables: Mapping[str, TableMap]
    schema: Schema
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> str:
        """The table, as SQL writes it."""
        return quoted(self.policy.data)

    @property
    def below(self) -> list[Reference]:
        """The foreign keys by which other rows go with these, nearest table first."""
        return retention.below(self.policy, self.schema)

    def key(self, table: str) -> str:
        """Return the column by which rows of a table are told apart, as SQL writes it."""
        return quoted(self.schema[table].key)

    def is_row(self) -> str:
        """Return the condition that row `r` is the one with the key `:id`."""
        return "r.id = :id"

    def beyond(self) -> str:
        """Return the condition that row `r` comes after those that are done."""
        return "r.id > :after"

    def reached(self) -> str:
        """Return the last key of a batch."""
        return "(SELECT max(id) FROM picked)"

    def concerned(self) -> str:
        """Return the condition that the policy is about row `r`."""
        parts = [self._among(self.policy.where)] if self.policy.where else []
        if self.policy.platform is not None:
            value = self._led(self.tables[self.policy.data].platform or "")
            parts.append(f"{value} = {self._param(self.policy.platform)}")
        return " AND ".join(parts) or "true"

    def expired(self) -> str:
        """Return the condition that no purpose keeps row `r` any more."""
        return " AND ".join(self._is_over(one) for one in self.policy.purposes)

    def untreated(self) -> str:
        """Return the condition that anonymization would still change row `r`."""
        if self.policy.then != "anonymize":
            return "true"
        return "(" + " OR ".join(one.differs for one in self.changes()) + ")"

    def changes(self) -> Any:
        """Return what anonymization does to each column."""
        table = self.tables[self.policy.data]
        names = retention.treated(table, self.policy.columns)
        return changes(table.columns, names, self.schema[self.policy.data])

    def until(self, purpose: Purpose) -> str:
        """Return the moment at which one purpose ends for row `r`; NULL where it has not begun."""
        return f"{self._begins(purpose)} + {self._span(purpose)}"

    def is_active(self, purpose: Purpose) -> str:
        """Return the condition that one purpose is about row `r` at all."""
        parts = [self._among(purpose.where)] if purpose.where else []
        parts += [f"NOT {self._among({name: values})}" for name, values in purpose.unless.items()]
        return " AND ".join(parts) or "true"

    def _is_over(self, purpose: Purpose) -> str:
        over = f"coalesce({self._begins(purpose)} <= :at - {self._span(purpose)}, false)"
        active = self.is_active(purpose)
        return over if active == "true" else f"(NOT ({active}) OR {over})"

    def _begins(self, purpose: Purpose) -> str:
        clock = ", ".join(f"r.{quoted(one)}" for one in purpose.clock)
        begins = f"coalesce({clock})" if len(purpose.clock) > 1 else clock
        unit = "year" if purpose.end_of_year else "month" if self.policy.by else None
        if unit is None:
            return begins
        return f"(date_trunc('{unit}', {begins}, 'UTC') + interval '1 {unit}')"

    @staticmethod
    def _span(purpose: Purpose) -> str:
        return f"interval '{purpose.keep_for.total_seconds():.3f} seconds'"

    def _among(self, where: Mapping[str, list[str]]) -> str:
        parts = [
            f"coalesce(CAST(r.{quoted(name)} AS text) = ANY({self._param(values)}), false)"
            for name, values in where.items()
        ]
        return "(" + " AND ".join(parts) + ")"

    def _param(self, value: Any) -> str:
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f":{name}"

    def _led(self, path: str) -> str:
        """Return the value to which a path leads from row `r`."""
        found = follow(self.schema, self.policy.data, path)
        assert found is not None, path  # The policy was checked.
        steps, _, last = found
        value = f"r.{quoted(steps[0].column if steps else last)}"
        for number, step in enumerate(steps):
            column = steps[number + 1].column if number + 1 < len(steps) else last
            at = f"x.{self.key(step.to)} = {value}"
            value = f"(SELECT x.{quoted(column)} FROM {quoted(step.to)} x WHERE {at})"
        return value

    def held(self) -> dict[str, str]:
        """Return, by whose holds they are, the conditions that a hold keeps row `r`.

        Each asks for the ids that holds name and walks back from these, so that its cost grows
        with what is held, not with the table.
        """
        found: dict[str, str] = {}
        for scope, condition in self._holds_over(
            self.policy.data, f"r.{self.key(self.policy.data)}"
        ):
            self._add(found, scope, condition)
        for key in self.below:
            table = quoted(key.table)
            for scope, condition in self._holds_over(key.table, f"{table}.{self.key(key.table)}"):
                ids = f"SELECT {table}.{quoted(key.column)} FROM {table} WHERE {condition}"
                self._add(found, scope, self._up(key.to, ids))
        return found

    def _up(self, table: str, ids: str) -> str:
        """Return the condition that row `r` owns the rows `ids` of `table`, a table with it."""
        while table != self.policy.data:
            key = next(one for one in self.below if one.table == table)
            at = f"{self.key(table)} IN ({ids})"
            ids = f"SELECT {quoted(key.column)} FROM {quoted(table)} WHERE {at}"
            table = key.to
        return f"r.{self.key(table)} IN ({ids})"

    def _holds_over(self, table: str, row: str) -> Iterator[tuple[str, str]]:
        """Yield the conditions by which holds keep a row of `table`, each with its scope.

        They stay apart, so that each is a join that begins at what is held.
        """
        yield table, f"{row} IN ({self._ids(table)})"
        seen: set[tuple[tuple[str, str, str], ...]] = set()
        for path in self.tables[table].subject:
            columns = self._columns(table, path)
            for length in range(1, len(columns) + 1):
                way = tuple(columns[:length])
                if way not in seen:
                    seen.add(way)
                    yield way[-1][2], self._through(row.rpartition(".")[0], way)

    def _columns(self, table: str, path: str) -> list[tuple[str, str, str]]:
        """Return a path as columns, each with its table and the one that it refers to."""
        led = follow(self.schema, table, path)
        assert led is not None, path  # The map was checked.
        steps, last_table, last = led
        columns = [(step.table, step.column, step.to) for step in steps]
        to = (one.to for one in self.schema[last_table].references if one.column == last)
        return columns + [(last_table, last, one) for one in to]

    def _through(self, alias: str, columns: Sequence[tuple[str, str, str]]) -> str:
        ids = self._ids(columns[-1][2])
        for table, column, _ in reversed(columns[1:]):
            at = f"{quoted(column)} IN ({ids})"
            ids = f"SELECT {self.key(table)} FROM {quoted(table)} WHERE {at}"
        return f"{alias}.{quoted(columns[0][1])} IN ({ids})"

    def _ids(self, scope: str) -> str:
        return f"SELECT h.target FROM hold h WHERE h.scope = {literal(scope)} AND {_IN_FORCE}"

    def referred(self) -> dict[str, str]:
        """Return, by table, the conditions that rows outside still need row `r`."""
        found: dict[str, str] = {}
        if self.policy.then == "anonymize":
            return found
        inside = {self.policy.data, *self.policy.beside}
        for key in retention.outside(self.policy, self.schema):
            self._add(found, key.table, self._needed(key.to, self._by_key(key), by_row=key))
        for table, said in self.tables.items():
            if table in inside:
                continue
            for column, one in said.columns.items():
                for path, place in places_of("", one).items():
                    if place.refers_to in inside:
                        ids = self._by_document(table, column, path.removeprefix("."))
                        self._add(found, table, self._needed(str(place.refers_to), ids))
        return found

    @staticmethod
    def _add(found: dict[str, str], table: str, condition: str) -> None:
        found[table] = f"{found[table]} OR {condition}" if table in found else condition

    def _needed(self, table: str, ids: str, by_row: Reference | None = None) -> str:
        if table != self.policy.data:
            return self._up(table, ids)
        if by_row is not None:  # One probe of an index, not all ids at once.
            at = f"x.{quoted(by_row.column)} = r.{self.key(table)}"
            return f"EXISTS (SELECT 1 FROM {quoted(by_row.table)} x WHERE {at})"
        return f"r.{self.key(table)} IN ({ids})"

    @staticmethod
    def _by_key(key: Reference) -> str:
        column = quoted(key.column)
        return f"SELECT x.{column} FROM {quoted(key.table)} x WHERE x.{column} IS NOT NULL"

    @staticmethod
    def _by_document(table: str, column: str, path: str) -> str:
        found = f"jsonb_path_query(x.{quoted(column)}, {literal(jsonpath_of(path))})"
        return (
            f"SELECT f #>> '{{}}' FROM {quoted(table)} x, {found} f WHERE f #>> '{{}}' IS NOT NULL"
        )

    def staying(self) -> str:
        """Return the condition that something keeps row `r` although it has expired."""
        parts = [*self.held().values(), *self.referred().values()]
        return f"coalesce({' OR '.join(parts)}, false)"
