"""The policies that we ship: sound, sourced, looked at, and what editors are told of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

import connectors
from clickpost.policy.load import check, load_platforms, read_file
from clickpost.policy.schema import SHAPES, schema_of, write_schemas
from clickpost.policy.shape import Closed, PlatformPolicy, Sourced
from clickpost.policy.source import Source
from clickpost.settings import PROJECT
from tests.policies.conftest import SHIPPED

POLICIES = PROJECT / "policies"
by_file = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)


def raw(path: Path) -> dict[str, Any]:
    source = read_file(path)
    assert isinstance(source, Source)
    return source.data


def sections(model: BaseModel, path: str = "") -> Iterator[tuple[str, BaseModel]]:
    """Yield every section of a policy, with its place."""
    for name, value in model:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                yield f"{path}{name}", one
                yield from sections(one, f"{path}{name}.")


def test_they_are_sound_and_agree_with_the_connectors() -> None:
    report = check(POLICIES, code=connectors.capabilities())
    assert report.problems == []
    assert set(load_platforms(POLICIES)) == set(connectors.names())


@by_file
def test_every_fact_has_its_source_and_the_day_somebody_looked(path: Path) -> None:
    policy = load_platforms(POLICIES)[path.stem]
    top = {place: one for place, one in sections(policy) if "." not in place}
    del top["burst"]  # No fact about the platform but our own choice: nobody states it.
    assert len(top) >= 12
    for place, one in top.items():
        assert isinstance(one, Sourced), f"{place} has no source"
        assert str(one.source).startswith("https://"), place
        today = datetime.now(UTC).date()
        assert date(2025, 1, 1) <= one.checked <= today + timedelta(days=1), place


def test_every_section_of_a_policy_can_carry_its_source() -> None:
    loose = {
        name
        for name, field in PlatformPolicy.model_fields.items()
        for part in [field.annotation, *getattr(field.annotation, "__args__", ())]
        if isinstance(part, type) and issubclass(part, Closed) and not issubclass(part, Sourced)
    }
    assert loose == {"credentials", "burst"}  # Words and a choice of ours, no facts.


@by_file
def test_an_editor_is_pointed_to_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../schemas/platform.schema.json"
    assert (path.parent / first.partition("=")[2]).is_file()


@by_file
def test_the_schema_for_editors_accepts_it(path: Path) -> None:
    schema = json.loads(schema_of("platform"))
    written = json.loads(json.dumps(raw(path), default=str))  # Days become texts.
    jsonschema.Draft202012Validator(schema).validate(written)


@by_file
def test_the_schema_for_editors_refuses_what_we_refuse(path: Path) -> None:
    schema = jsonschema.Draft202012Validator(json.loads(schema_of("platform")))
    for change in ({"txet": {}}, {"text": None}, {"images": {"bytes": 5}}, {"kind": "post"}):
        written = json.loads(json.dumps(raw(path) | change, default=str))
        assert not schema.is_valid(written), change


@pytest.mark.parametrize("name", SHAPES)
def test_every_key_has_a_meaning_for_the_editor(name: str) -> None:
    schema = json.loads(schema_of(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    parts = schema.get("$defs", {})
    shapes = [schema, *parts.values()]
    for shape in (one for one in shapes if "properties" in one):
        assert shape["additionalProperties"] is False, shape["title"]
        for key, field in shape["properties"].items():
            told = parts.get(field.get("$ref", "").rpartition("/")[2], {}) | field
            assert told.get("description", "").endswith("."), f"{shape['title']}.{key}"


@pytest.mark.parametrize("name", SHAPES)
def test_the_schemas_that_we_ship_are_those_of_the_code(name: str) -> None:
    path = POLICIES / "schemas" / f"{name}.schema.json"
    assert path.read_text(encoding="utf-8") == schema_of(name), "run: clickpost policy schema"


def test_schemas_are_written_once(tmp_path: Path) -> None:
    first = {path: path.stat().st_mtime_ns for path in write_schemas(tmp_path / "schemas")}
    again = {path: path.stat().st_mtime_ns for path in write_schemas(tmp_path / "schemas")}
    assert first == again
    assert len(first) == len(SHAPES)
