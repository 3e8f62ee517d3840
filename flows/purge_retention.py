"""Deletes, anonymizes or counts what has expired, as the retention policies say."""

from __future__ import annotations

from typing import Any

from prefect import State as PrefectState
from prefect import flow
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from flows import _naming
from flows._choice import in_order
from tasks import purging


class Purge(BaseModel):
    """What to purge."""

    model_config = ConfigDict(frozen=True, json_schema_extra=in_order)

    # Neither of these is `… | None`: the UI would show a choice of types, and no field.
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


_AS_THE_POLICIES_SAY = Purge()


def _name() -> str:
    purge = _naming.parameter("purge") or _AS_THE_POLICIES_SAY
    what = f"{_naming.by_minute()} {purge.policy or 'all'}"
    return f"{what}, dry run" if purge.dry_run else what


@flow(name="purge-retention", flow_run_name=_name)
async def purge_retention(purge: Purge = _AS_THE_POLICIES_SAY) -> PrefectState[Any]:
    """Purge what has expired; policies that say `dry_run` are counted and nothing is touched.

    First the data map is held against the tables and the keys of JSON columns: what is unmapped
    fails the run, naming it. Limits are asked before anything is touched. A run that was killed
    is resumed by the next: nothing happens twice, nothing is skipped.
    """
    outcomes, personal = await purging.run(purge.policy or None, dry=purge.dry_run)
    said = purging.summary(outcomes, personal)
    if purging.is_well(outcomes, personal):
        return Completed(message=said)
    return Failed(message=said)
