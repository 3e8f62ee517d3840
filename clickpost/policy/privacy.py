"""The closed shape of data maps and retention policies: what is kept, why, and until when."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clickpost.policy.shape import Facts, LastingSpan, Url, Words
from clickpost.policy.units import Day

Category = Literal[
    "identity",
    "account",
    "billing",
    "content",
    "platform",
    "technical",
    "communications",
    "inferred",
]
Treatment = Literal["keep", "clear", "blank", "empty", "mask", "digest", "month", "network"]

#: What each category means, for people.
CATEGORIES: dict[str, str] = {
    "identity": "contact and identity",
    "account": "account and authentication",
    "billing": "billing and transactions",
    "content": "content and publishing",
    "platform": "platform and integration data",
    "technical": "device, technical and usage",
    "communications": "communications and support",
    "inferred": "inferred data",
}
#: What each treatment leaves of a value, for people.
TREATMENTS: dict[str, str] = {
    "keep": "stays as it is, because without the rest it tells nobody apart",
    "clear": "nothing (NULL)",
    "blank": "an empty text",
    "empty": "an empty list or object",
    "mask": "the text, without addresses, numbers and links in it",
    "digest": "a digest whose key is destroyed",
    "month": "the month",
    "network": "the network: /24 of IPv4, /48 of IPv6",
}


#: By what a further database knows a person, or an account, of ours.
Whose = Literal["address", "member", "workspace"]
DatabaseName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class PathMap(Facts):
    """What stands at one path of a JSON column."""

    not_personal: Words | None = Field(
        None, description="Why nothing here is about a person; then nothing else is said."
    )
    category: Category | None = Field(None, description="Which of the eight; else the table's.")
    purpose: Words | None = Field(None, description="What it is kept for; else the table's.")
    origin: Literal["person", "us", "platform", "processor"] | None = Field(
        None, description="Who told it; else the table's."
    )
    treatment: Treatment | None = Field(None, description="What anonymization leaves of it.")
    refers_to: str | None = Field(
        None, description="The table whose ids stand here: what is referred to stays."
    )

    @model_validator(mode="after")
    def _one_or_the_other(self) -> PathMap:
        said = (self.category, self.purpose, self.origin, self.treatment)
        if self.not_personal is not None and any(one is not None for one in said):
            raise ValueError("is either not_personal, with a reason, or mapped")
        if self.not_personal is None and self.treatment is None and not self.is_by_path:
            raise ValueError("needs a treatment, or not_personal with a reason")
        return self

    @property
    def is_by_path(self) -> bool:
        """Say whether what stands here is mapped path by path."""
        return False


class ColumnMap(PathMap):
    """What stands in one column."""

    paths: dict[Words, PathMap] | None = Field(
        None,
        description="Of a JSON column: what stands at each path, e.g. `media[].alt`; a path stands"
        " for all below it, `*` for all the rest.",
    )
    withheld: Words | None = Field(
        None,
        description="Why an export leaves it out although it is about somebody: it opens something,"
        " or only we can use it. What is sealed (bytes) is left out in any case.",
    )
    file: bool = Field(
        False, description="True where it names a file of the media store, which goes with the row."
    )

    @property
    def is_by_path(self) -> bool:
        """Say whether what stands here is mapped path by path."""
        return self.paths is not None


class TableMap(Facts):
    """What one table holds, and about whom."""

    what: Words = Field(description="What a row is, for people.")
    subject: list[Words] = Field(
        description="Columns that lead to the person or workspace a row is about, through foreign"
        " keys: `ticket_id.member_id`; [] where a row is about nobody."
    )
    found_by: dict[Words, Whose] = Field(
        default_factory=dict,
        description="Of a further database: columns that say by themselves whom a row is about, and"
        " what stands in them: an e-mail `address`, or the id of our `member` or `workspace`.",
    )
    platform: Words | None = Field(
        None,
        description="Columns that lead to the origin platform's name: `connection_id.platform`.",
    )
    category: Category | None = Field(None, description="Of every column that says no other.")
    purpose: Words | None = Field(None, description="Of every column that says no other.")
    origin: Literal["person", "us", "platform", "processor"] = Field(
        "us", description="Who told what stands in it, where a column says nothing else."
    )
    columns: dict[Words, ColumnMap] = Field(description="Every column of the table.")

    @model_validator(mode="after")
    def _is_whole(self) -> TableMap:
        for name, column in self.columns.items():
            for place, one in places_of(name, column).items():
                if one.not_personal is None and not (one.category or self.category):
                    raise ValueError(f"{place} needs a category, its own or the table's")
                if one.not_personal is None and not (one.purpose or self.purpose):
                    raise ValueError(f"{place} needs a purpose, its own or the table's")
        return self


class StoreMap(Facts):
    """A store beside our tables: what in it could be about a person, and what becomes of it."""

    where: Words = Field(description="Where it is.")
    holds: Words = Field(description="What is in it.")
    category: Category | None = Field(None, description="Which of the eight.")
    not_personal: Words | None = Field(None, description="Why nothing in it is about a person.")
    purpose: Words = Field(description="What it is kept for.")
    ends: Words = Field(description="How what is in it ends.")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> StoreMap:
        if (self.category is None) == (self.not_personal is None):
            raise ValueError("needs a category, or not_personal with a reason")
        return self


class DataMap(Facts):
    """Which place holds what about whom."""

    kind: Literal["data_map"] = Field(description="What this file is.")
    name: Words = Field(description="The file's name.")
    database: DatabaseName | None = Field(
        None,
        description="A further PostgreSQL database whose tables these are, by the name under which"
        " its address is set: `billing` is CLICKPOST_DATABASE_BILLING; null for our own.",
    )
    tables: dict[Words, TableMap] = Field(
        default_factory=dict, description="Tables of the database, each with every column."
    )
    stores: dict[Words, StoreMap] = Field(
        default_factory=dict, description="Stores beside it: files, logs, other databases."
    )

    @model_validator(mode="after")
    def _finds_elsewhere(self) -> DataMap:
        for name, table in self.tables.items():
            if table.found_by and self.database is None:
                raise ValueError(f"{name}: found_by is for further databases; ours knows its own")
            if unknown := [one for one in table.found_by if one not in table.columns]:
                raise ValueError(f"{name}: found_by speaks of {unknown[0]}, which is no column")
        return self


def places_of(name: str, column: ColumnMap) -> dict[str, PathMap]:
    """Return what a column's map says, by place: the column itself, or each of its paths."""
    if column.paths is None:
        return {name: column}
    return {f"{name}.{path}": one for path, one in column.paths.items()}


Basis = Literal[
    "consent",
    "contract",
    "legal_obligation",
    "legal_claims",
    "legitimate_interest",
    "platform_terms",
]


class Purpose(Facts):
    """One reason to keep a row, for so long."""

    why: Words = Field(description="What it is kept for, for people.")
    keep_for: LastingSpan = Field(description="How long, e.g. 90 d.")
    clock: list[Words] = Field(
        min_length=1,
        alias="from",
        description="The column at whose moment the time begins; of several, the first that has"
        " one. Where none has, it has not begun, and the row stays.",
    )
    end_of_year: bool = Field(
        False, description="True where the time begins with the end of the clock's calendar year."
    )
    where: dict[Words, list[Words]] = Field(
        default_factory=dict,
        description="Only for rows whose column has one of these values; {} for all.",
    )
    unless: dict[Words, list[Words]] = Field(
        default_factory=dict,
        description="Not for rows whose column has one of these values.",
    )
    basis: Basis = Field(description="On which legal basis.")
    cite: Words = Field(description="The law, the contract or the terms that say so.")
    source: Url | None = Field(None, description="The page that states it.")
    checked: Day = Field(description="The day somebody looked.")
    confirmed: bool = Field(
        True,
        description="False where nobody opened the source itself: an archived copy or a secondary"
        " source supports it.",
    )


class Limit(Facts):
    """The most that one run may touch; a run that would touch more touches nothing."""

    rows: Annotated[int, Field(gt=0)] = Field(description="Most rows of `data`.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="Largest part of all rows of `data`, from 0 to 1."
    )


class Retention(Facts):
    """How long rows are kept, and what becomes of them."""

    kind: Literal["retention"] = Field(description="What this file is.")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The file's name.")
    database: DatabaseName | None = Field(
        None, description="The further database that holds the table; null for our own."
    )
    data: Words = Field(description="The table, as the data map names it.")
    beside: list[Words] = Field(
        default_factory=list,
        alias="with",
        description="Tables whose rows belong to these and go with them.",
    )
    where: dict[Words, list[Words]] = Field(
        default_factory=dict,
        description="Only rows whose column has one of these values; {} for all.",
    )
    platform: Words | None = Field(
        None, description="Only rows of this origin platform: its clock, the shortest, wins."
    )
    columns: list[Words] | None = Field(
        None, description="With `anonymize`: only these columns; null for all that are mapped."
    )
    purposes: list[Purpose] = Field(
        min_length=1, description="Why rows are kept: the longest that applies counts."
    )
    then: Literal["delete", "anonymize", "aggregate"] = Field(
        description="What becomes of them: gone; treated as the map says; counted, then gone."
    )
    by: list[Words] = Field(
        default_factory=list, description="With `aggregate`: columns that make a group."
    )
    person: Words | None = Field(
        None, description="With `aggregate`: the column that tells people apart."
    )
    k: Annotated[int, Field(ge=2)] | None = Field(
        None, description="With `aggregate`: groups of fewer people are not written down."
    )
    limit: Limit = Field(description="The most that one run may touch.")
    mode: Literal["dry_run", "apply"] = Field(
        "dry_run", description="`dry_run` counts and touches nothing, until you write `apply`."
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> Retention:
        whole = all((self.by, self.person, self.k))
        if (self.then == "aggregate") != whole or (self.then != "aggregate" and self.by):
            raise ValueError("`aggregate` needs by, person and k; nothing else takes them")
        if self.then != "anonymize" and self.columns is not None:
            raise ValueError("only `anonymize` takes columns")
        if self.then == "anonymize" and self.beside:
            raise ValueError("`anonymize` is for one table: write a policy for each")
        if all(one.where or one.unless for one in self.purposes):
            raise ValueError("purposes: one must be for all rows, without `where` and `unless`")
        return self
