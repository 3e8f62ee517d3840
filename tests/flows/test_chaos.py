"""A small storm for every build; the large one is `clickpost bench chaos`."""

from __future__ import annotations

import pytest

from benchmarks import chaos

pytestmark = [pytest.mark.xdist_group("chaos"), pytest.mark.timeout(400)]


def test_nothing_is_doubled_lost_judged_wrongly_or_stuck() -> None:
    rows, clean = chaos.run(chaos.Plan(posts=10, seed=5, outages=1, harsh=1.5, patience=240))
    assert clean, rows
    values = {row["measure"]: row["value"] for row in rows}
    assert int(values["live"].split()[0]) > 30
    assert int(values["workers killed"]) >= 1
    assert values["PostgreSQL killed"] == "1"
