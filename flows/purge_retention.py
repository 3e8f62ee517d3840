"""Deletes, anonymizes or counts what has expired, as the retention policies say."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed
from pydantic import BaseModel, Field

from tasks import purging


class Purge(BaseModel):
    """What to purge."""

    # Not `str | None`: the UI would make a switch of it instead of a list to choose from.
    policy: str = Field(
        "",
        title="Policy",
        description="One policy's name; empty for all.",
        json_schema_extra={"x-choices": "retention"},
    )
    dry_run: bool = Field(
        False,
        title="Dry run",
        description="Count only, also under policies that say `mode: apply`.",
    )


@flow(name="purge-retention")
async def purge_retention(purge: Purge | None = None) -> PrefectState[Any]:
    """Purge what has expired; policies that say `dry_run` are counted and nothing is touched.

    First the data map is held against the tables and the keys of JSON columns: what is unmapped
    fails the run, naming it. Limits are asked before anything is touched. A run that was killed
    is resumed by the next: nothing happens twice, nothing is skipped.
    """
    wanted = purge or Purge()
    outcomes, personal = await purging.run(wanted.policy or None, dry=wanted.dry_run)
    said = purging.summary(outcomes, personal)
    if purging.is_well(outcomes, personal):
        return Completed(message=said)
    return Failed(message=said)
