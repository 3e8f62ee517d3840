"""The closed shape of history policies: how long Prefect remembers what it ran."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from clickpost.policy.folder import Kind
from clickpost.policy.load import Report
from clickpost.policy.privacy import Basis, Limit
from clickpost.policy.shape import Facts, LastingSpan, Url, Words
from clickpost.policy.units import Bytes, Day

#: The one policy that there is: its file's name, and what a purge calls it.
NAME = "prefect_history"


class Keep(Facts):
    """How long each kind of history is kept."""

    runs: LastingSpan = Field(
        description="Flow runs that have ended, with their task runs, states, logs and artifacts."
    )
    logs: LastingSpan = Field(description="Lines of logs, also of runs that are kept longer.")
    artifacts: LastingSpan = Field(description="Reports, also of runs that are kept longer.")
    events: LastingSpan = Field(description="Events; Prefect itself forgets them after 7 d.")

    @property
    def spans(self) -> dict[str, timedelta]:
        """Return them by name, in the order of a purge."""
        return {
            "runs": self.runs,
            "logs": self.logs,
            "artifacts": self.artifacts,
            "events": self.events,
        }


class LogFiles(Facts):
    """How large and how old the files become in which our processes log, on each machine.

    That is no dry run, ever: lines hold ids only, and a full disk stops everything.
    """

    rotate_at: Annotated[Bytes, Field(ge=10_000)] = Field(
        10_000_000, description="A file of this size is packed, and begun anew, e.g. 10 MB."
    )
    rotate_after: LastingSpan = Field(
        timedelta(days=7), description="So is one that was begun so long ago, e.g. 7 d."
    )
    keep_for: LastingSpan = Field(
        timedelta(days=30), description="What was packed so long ago is deleted, e.g. 30 d."
    )


class History(Facts):
    """How long what Prefect remembers is kept, and why."""

    kind: Literal["history"] = Field(description="What this file is.")
    name: Literal["prefect_history"] = Field(description="The file's name.")
    title: Words = Field(description="What it is about, for operators.")
    keep: Keep = Field(description="How long each kind is kept, from when it ended or happened.")
    log_files: LogFiles = Field(
        default_factory=LogFiles,
        description="The log files of worker, Prefect, gateway and database on each machine.",
    )
    why: Words = Field(description="What it is kept for, for people.")
    basis: Basis = Field(description="On which legal basis.")
    cite: Words = Field(description="The law, the contract or the terms that say so.")
    source: Url | None = Field(None, description="The page that states it.")
    checked: Day = Field(description="The day somebody looked.")
    limit: Limit = Field(description="The most of each kind that one run may touch.")
    mode: Literal["dry_run", "apply"] = Field(
        "dry_run", description="`dry_run` counts and touches nothing, until you write `apply`."
    )


KIND = Kind("history", "history", History)


def check(place: Path) -> Report:
    """Look at the history policy under a folder, or at one file."""
    return KIND.check(place, lambda *_: ())


def load(folder: Path) -> History | None:
    """Return the history policy, None where the folder has none on purpose.

    Raises BrokenPolicies with every problem.
    """
    return KIND.load(folder, lambda *_: ()).get(NAME)
