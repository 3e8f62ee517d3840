"""The closed shape of erasure policies: whose data goes, what stays anonymized, who approves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clickpost.policy.privacy import DatabaseName
from clickpost.policy.shape import Facts, Words


class Elsewhere(Facts):
    """What an erasure does in one further database, where its data map leaves a choice."""

    names: list[Words] | None = Field(
        None,
        description="As `names`, of its tables; several columns that make one name stand with a"
        " space between: `customer.first_name customer.last_name`; null for those with addresses.",
    )
    ends: dict[Words, Words] = Field(default_factory=dict, description="As `ends`, of its tables.")
    anonymize: list[Words] = Field(
        default_factory=list,
        description="Its tables whose rows stay, anonymized; all others lose theirs.",
    )
    gives_way: list[Words] = Field(
        default_factory=list,
        description="Its retention policies whose legal basis does not hold against a request.",
    )


class Erasure(Facts):
    """What an erasure of one kind of subject does, where the data map leaves a choice."""

    kind: Literal["erasure"] = Field(description="What this file is.")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The file's name.")
    title: Words = Field(description="Whom it is about, for people.")
    of: Words = Field(
        description="The table whose row is the subject: what the data map leads there goes."
    )
    digest: Words | None = Field(
        None,
        description="A column of keyed digests of addresses: rows of any table that have the same"
        " are about the same person.",
    )
    reaches: dict[Words, Words] = Field(
        default_factory=dict,
        description="By table, one more path, as in the data map, by which its rows are about the"
        " subject: `delivery: connection_id.workspace_id`.",
    )
    names: list[Words] = Field(
        default_factory=list,
        description="Columns, as TABLE.COLUMN, whose values are looked for in what others wrote,"
        " and masked there; of values without a space or an @ nobody could say whom they mean.",
    )
    search: Literal["everywhere", "home"] = Field(
        "everywhere",
        description="Where names are looked for: in all free text, or only in that of the"
        " subject's own workspace, whose cost does not grow with the number of workspaces.",
    )
    ends: dict[Words, Words] = Field(
        default_factory=dict,
        description="By table, the column of times that ends what the subject agreed to or took"
        " part in: set to now where it is empty, so that clocks of retention begin.",
    )
    anonymize: list[Words] = Field(
        default_factory=list,
        description="Tables whose rows stay, anonymized as the data map says; all others lose"
        " theirs.",
    )
    gives_way: list[Words] = Field(
        default_factory=list,
        description="Retention policies whose legal basis does not hold against a request; all"
        " other purposes with legal_obligation or legal_claims do.",
    )
    elsewhere: dict[DatabaseName, Elsewhere] = Field(
        default_factory=dict,
        description="By the name of a further database, what is done there otherwise than by"
        " default.",
    )
    approval: bool = Field(
        description="True where somebody has to look at the plan before anything is touched."
    )
    approve_above: Annotated[int, Field(gt=0)] = Field(
        10_000, description="A plan that touches more rows needs approval in any case."
    )
