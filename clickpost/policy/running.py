"""The closed shape of running policies: a work pool, its queues, and what is done how often."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clickpost.policy.shape import Facts, LastingSpan, Words

#: What flows and tasks ask before they begin, and why; a limit of another name limits nothing.
ASKED = {
    "looks": "asked before each look whether a live post is still there",
}
NAME = r"^[a-z][a-z0-9-]{1,48}$"

Name = Annotated[str, Field(pattern=NAME)]
AtOnce = Annotated[int, Field(gt=0)]


class Queue(Facts):
    """One line in which runs wait for a worker of the pool."""

    title: Words = Field(description="What waits here, for operators.")
    priority: Annotated[int, Field(gt=0)] = Field(
        description="Who is first where several wait: 1 before 2."
    )
    at_once: AtOnce | None = Field(
        None, description="Most runs at once, of all workers together; null for no limit."
    )
    flows: list[Words] = Field(default_factory=list, description="Whose runs wait here, by flow.")


class Limit(Facts):
    """How often something is done, over all workers: so many at once, or so many in a time."""

    title: Words = Field(description="What is limited and why, for operators.")
    at_once: AtOnce | None = Field(None, description="So many side by side.")
    calls: AtOnce | None = Field(None, description="So many begin within `per`.")
    per: LastingSpan | None = Field(None, description="Within which `calls` begin, e.g. 1 s.")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Limit:
        if (self.calls is None) != (self.per is None):
            raise ValueError("`calls` and `per` belong together, e.g. {calls: 10, per: 1 s}")
        if (self.at_once is None) == (self.calls is None):
            raise ValueError("needs either at_once, or calls and per")
        return self

    @property
    def slots(self) -> int:
        """Return how many may begin before the first has to wait."""
        return self.at_once or self.calls or 0

    @property
    def decay(self) -> float:
        """Return how many slots a second come free by themselves; 0 where each is given back."""
        return self.calls / self.per.total_seconds() if self.calls and self.per else 0.0


class Running(Facts):
    """One work pool: who waits in which line, and how much runs at once."""

    kind: Literal["running"] = Field(description="What this file is.")
    name: str = Field(pattern=NAME, description="The file's name, and the work pool's.")
    title: Words = Field(description="What the pool is for, for operators.")
    at_once: AtOnce | None = Field(
        None, description="Most runs at once in the whole pool; null for no limit but the workers'."
    )
    queues: dict[Name, Queue] = Field(min_length=1, description="Its lines, by name.")
    others: Words | None = Field(
        None, description="The queue for all flows that no file names; exactly one file says it."
    )
    limits: dict[Name, Limit] = Field(
        default_factory=dict, description="What is done how often, over all pools and workers."
    )
