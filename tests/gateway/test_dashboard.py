"""The dashboard shows all that `/metrics` tells, under the names and labels that it has."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from clickpost.delivery import State
from clickpost.settings import PROJECT
from clickpost.store import Store
from tests.gateway.test_health import delivered, tried

BOARD = json.loads((PROJECT / "deployments" / "grafana" / "clickpost.json").read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
ASKED = [(one["title"], target) for one in PANELS for target in one["targets"]]
#: What PromQL itself puts on a sample of a histogram.
_OWN = {"le"}


async def told(http: httpx.AsyncClient, store: Store) -> dict[str, set[str]]:
    """Return the labels of every sample of a house in which there is something of everything."""
    due = datetime.now(UTC) - timedelta(minutes=20)
    late = await delivered(store, "a", State.LIVE, due_at=due, sent_at=due + timedelta(seconds=3))
    await tried(store, late, "ok")
    await delivered(store, "b", State.READY, due_at=due, created_at=due)
    await http.get("/connect/mastodon/callback")
    await http.post("/hooks/nobody")
    text = (await http.get("/metrics")).text
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    } | {
        family.name: set()
        for family in text_string_to_metric_families(text)
        if not family.samples and family.name != "clickpost_notices_untold"
    }


def names_in(query: str) -> set[str]:
    return set(re.findall(r"clickpost_[a-z_]+", query))


def labels_in(query: str) -> set[str]:
    """Return the labels that a query groups by or chooses by."""
    groups = " ".join(re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", query))
    chosen = " ".join(re.findall(r"\{([^}]*)\}", query))
    return set(re.findall(r"[a-z_]+", groups)) | set(re.findall(r"([a-z_]+)\s*[!=]", chosen))


async def test_every_number_has_its_place_and_every_place_its_number(
    http: httpx.AsyncClient, store: Store
) -> None:
    known = await told(http, store)
    asked = set().union(*(names_in(target["expr"]) for _, target in ASKED))
    # A scrape has no sample of what there is none of: no notice waits here.
    assert asked - known.keys() <= {"clickpost_notices_untold"}
    shown = {re.sub(r"_(bucket|sum|count|gsum|gcount|total|created)$", "", one) for one in asked}
    told_of = {re.sub(r"_(bucket|sum|count|gsum|gcount|total|created)$", "", one) for one in known}
    assert told_of - shown == set(), "told, and nobody sees it"


async def test_every_label_that_is_asked_for_is_there(
    http: httpx.AsyncClient, store: Store
) -> None:
    known = await told(http, store)
    for title, target in ASKED:
        query, legend = target["expr"], target.get("legendFormat", "")
        there = set().union(*(known.get(name, {"state"}) for name in names_in(query))) - _OWN
        assert labels_in(query) <= there, title
        legends = set(re.findall(r"\{\{\s*([a-z_]+)\s*\}\}", legend))
        groups = re.findall(r"\bby\s*\(([^)]*)\)", query)
        left = set(re.findall(r"[a-z_]+", " ".join(groups))) if groups else there
        assert legends <= left, title


def test_panels_have_their_own_place_and_ask_the_chosen_prometheus() -> None:
    assert len({one["id"] for one in PANELS}) == len(PANELS)
    assert {one["datasource"]["uid"] for one in PANELS} == {"${source}"}
    assert [one["name"] for one in BOARD["templating"]["list"]] == ["source"]
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


@pytest.mark.parametrize(("title", "target"), ASKED, ids=[title for title, _ in ASKED])
def test_counters_are_asked_for_a_rate_and_gauges_are_not(
    title: str, target: dict[str, str]
) -> None:
    """What is of the last hour already, and a gauge, would lie under `rate`."""
    rated = re.findall(r"(?:rate|increase)\((clickpost_[a-z_]+)", target["expr"])
    counters = {one for one in names_in(target["expr"]) if one.endswith("_total")}
    assert set(rated) == counters - {"clickpost_budget_total"}
