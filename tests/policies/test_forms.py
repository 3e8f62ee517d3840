"""Forms offer what there is, and take any name where nobody knows what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from prefect._internal.engine import resolve_custom_flow_run_name
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.utilities.callables import parameter_schema

from clickpost.settings import Settings
from clickpost.store import NewConnection, Store
from deployments import forms, queues
from deployments.registry import DEPLOYMENTS
from deployments.triggers import Deployed, own_of

GIVEN = {"platforms": ["bluesky", "mastodon"], "retention": ["", "tickets"]}


def _schema(flow: str) -> object:
    [spec] = [one for one in DEPLOYMENTS if one.flow.name == flow]
    return parameter_schema(spec.flow).model_dump(exclude_unset=True)


def test_the_flows_whose_forms_have_choices_are_those_of_the_code() -> None:
    flows = [one.flow.name for one in DEPLOYMENTS]
    assert {one for one in flows if forms.KEY in json.dumps(_schema(one))} == set(forms.FLOWS)


def test_a_form_offers_what_there_is_and_forgets_what_is_gone() -> None:
    schema = _schema("pause-platform")
    assert forms.offered([schema]) == {}
    full = forms.filled(schema, GIVEN)
    assert forms.offered([schema, full]) == {"platforms": ["bluesky", "mastodon"]}
    assert forms.filled(full, {"platforms": ["x"]}) == forms.filled(schema, {"platforms": ["x"]})
    assert forms.filled(full, {}) == forms.filled(full, None) == schema
    assert forms.offered([forms.filled(_schema("purge-retention"), GIVEN)]) == {
        "retention": ["", "tickets"]
    }


async def test_the_choices_are_what_is_connected_and_the_policies_there_are(
    settings: Settings, store: Store
) -> None:
    new = NewConnection("mastodon", "studio", "https://m.example", {"access_token": "secret"})
    await store.add_connection(new)
    given = await forms.choices(settings)
    assert given is not None
    assert given["platforms"] == ["mastodon"]
    assert {"", "tickets", "prefect_history"} <= set(given["retention"])
    away = settings.model_copy(update={"database_url": None})
    assert await forms.choices(away) is None


OWN = own_of(queues.places_of(queues.load(Settings().policies)))
every_form = pytest.mark.parametrize("one", OWN, ids=lambda one: one.spec.flow.name)


def models(one: Deployed) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the parts of a form that have fields, by name."""
    for name, model in one.form.get("definitions", {}).items():
        if "properties" in model:
            yield name, model
    if any(said.get("type") == "string" for said in one.form["properties"].values()):
        yield "parameters", one.form


@every_form
def test_every_field_is_typed_explained_and_numbered(one: Deployed) -> None:
    for name, model in models(one):
        fields = model["properties"]
        assert [said.get("position") for said in fields.values()] == [*range(len(fields))], name
        for field, said in fields.items():
            where = f"{name}.{field}"
            assert said.get("description", "").endswith("."), where
            assert {"type", "$ref", "anyOf", "allOf", "enum", "const"} & set(said), where


@every_form
def test_an_operator_reads_what_a_deployment_is_for_and_what_may_happen(one: Deployed) -> None:
    first = one.spec.description.partition("**")[2].partition("**")[0]
    assert one.spec.description.startswith("**")
    assert 15 < len(first) < 90
    assert one.spec.description.rstrip().endswith(".")
    assert "::" not in one.spec.description
    assert one.spec.tags


#: What is given to a form that asks for something.
FILLED: dict[str, dict[str, Any]] = {
    "post": {"post_id": "post_01abc"},
    "delivery": {"delivery_id": "dlv_01abc"},
    "platform": {"platform": "mastodon"},
    "moment": {"at": "2026-11-24T09:00:00Z"},
    "rule": {"trigger": "nightly", "deployment": "tell/tell"},
    "inlet": {"trigger": "news", "version": "0123456789ab"},
    "request": {"request_id": "req_01abc"},
    "purge": {"policy": "usage", "dry_run": True},
}
IDS = {"request_id": "req_01abc", "erasure_id": "erasure_01abc"}


@pytest.mark.parametrize("given", [True, False], ids=["given", "bare"])
@every_form
def test_every_run_has_a_name_that_tells_it_from_others(one: Deployed, given: bool) -> None:
    flow = one.spec.flow
    needed = one.form.get("required", [])
    asked = one.form["properties"] if given else dict.fromkeys(needed, ...)
    known = {name: FILLED.get(name) or IDS.get(name) for name in asked}
    wanted = {name: value for name, value in known.items() if value is not None}
    assert set(needed) <= set(wanted), "say in FILLED what this form is given"
    run = FlowRun(
        flow_id=uuid4(),
        expected_start_time=datetime(2026, 11, 24, 9, tzinfo=UTC),
        tags=["trigger:x"],
    )
    made = flow.validate_parameters(wanted)
    with FlowRunContext.model_construct(flow=flow, flow_run=run, parameters=made):
        name = resolve_custom_flow_run_name(flow, made)
    verb, _, about = name.partition(" ")
    assert flow.name.startswith(verb)
    assert about
    assert "None" not in name
    assert len(name) < 80


def test_long_work_waits_where_it_holds_up_no_post() -> None:
    quick = {"handle-request", "check-requests"}
    for one in OWN:
        long = "privacy" in one.spec.tags and one.spec.flow.name not in quick
        assert (one.place[1] == "heavy") == long, one.full_name
