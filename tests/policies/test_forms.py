"""Forms offer what there is, and take any name where nobody knows what there is."""

from __future__ import annotations

import json

from prefect.utilities.callables import parameter_schema

from clickpost.settings import Settings
from clickpost.store import NewConnection, Store
from deployments import forms, queues
from deployments.registry import DEPLOYMENTS
from deployments.triggers import own_of

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


def test_every_field_of_every_form_is_typed_and_explained() -> None:
    for one in own_of(queues.places_of(queues.load(Settings().policies))):
        for name, model in one.form.get("definitions", {}).items():
            for field, said in model.get("properties", {}).items():
                where = f"{one.full_name}: {name}.{field}"
                assert said.get("description", "").endswith("."), where
                assert {"type", "$ref", "anyOf", "allOf", "enum", "const"} & set(said), where
