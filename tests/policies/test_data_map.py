"""The data map names every column there is; one that is missing, or too many, is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from clickpost import datamap, erasure
from clickpost.draft import PostFile
from clickpost.policy import keeping, privacy
from clickpost.policy.privacy import CATEGORIES, places_of
from clickpost.settings import PROJECT
from clickpost.store import Store
from clickpost.store.database import url_of
from clickpost.store.schema import in_code, in_database, json_keys

POLICIES = PROJECT / "policies"
KEEPING = keeping.load(POLICIES)


def said(report: object) -> list[str]:
    return [f"{one.key}: {one.message}" for one in report.problems]  # type: ignore[attr-defined]


def test_every_column_of_the_code_is_mapped() -> None:
    """Whoever adds a column maps it: what it is about, why it is kept, what remains of it."""
    assert [str(one) for one in keeping.check(POLICIES, in_code()).problems] == []


def test_every_column_of_the_database_is_mapped(database_url: str) -> None:
    engine = create_engine(url_of(database_url))
    with engine.connect() as connection:
        found = in_database(connection)
    engine.dispose()
    assert set(found) == set(in_code())
    assert [str(one) for one in keeping.check(POLICIES, found).problems] == []


@pytest.mark.parametrize("change", ["new column", "new table", "vanished"])
def test_what_the_map_does_not_know_is_named(change: str) -> None:
    schema = dict(in_code())
    match change:
        case "new column":
            kinds = {**schema["member"].kinds, "phone": "text"}
            schema["member"] = replace(schema["member"], kinds=kinds)
            expected = "member.phone: is not in the data map"
        case "new table":
            schema["diary"] = datamap.Columns({"page": "text"})
            expected = "diary.page: is not in the data map"
        case _:
            kinds = {k: v for k, v in schema["member"].kinds.items() if k != "role"}
            schema["member"] = replace(schema["member"], kinds=kinds)
            expected = "member.role: is in the data map, and no column any more"
    report = keeping.check(POLICIES, schema)
    assert said(report) == [expected]
    if change == "vanished":
        assert report.problems[0].file.endswith("data_map/workspace.yaml")
        assert report.problems[0].line > 1


def test_what_leads_to_people_without_an_index_is_a_warning() -> None:
    schema = dict(in_code())
    there = schema["ticket_message"]
    schema["ticket_message"] = replace(there, indexed=there.indexed - {"ticket_id"})
    report = keeping.check(POLICIES, schema)
    assert report.problems == []
    [warning] = report.warnings
    assert warning.file.endswith("data_map/support.yaml")
    expected = "ticket_message.ticket_id: no index begins with it"
    assert warning.said.startswith(expected)


def test_every_way_to_people_and_files_begins_an_index(database_url: str) -> None:
    engine = create_engine(url_of(database_url))
    with engine.connect() as connection:
        found = in_database(connection)
    engine.dispose()
    assert keeping.check(POLICIES, found).warnings == []
    for name, table in KEEPING.tables.tables.items():
        assert found[name].indexed == in_code()[name].indexed
        files = {column for column, one in table.columns.items() if one.file}
        assert files <= found[name].indexed, name


def test_all_that_people_write_is_searched_by_an_index(database_url: str) -> None:
    """A new column of that kind belongs into `tables.SEARCHED`, and the index is made anew."""
    engine = create_engine(url_of(database_url))
    with engine.connect() as connection:
        found = in_database(connection)
    engine.dispose()
    written = erasure.written(KEEPING.tables.tables, found)
    assert {name: set(found[name].searched) for name in written} == {
        name: set(columns) for name, columns in written.items()
    }
    assert {name: one.searched for name, one in found.items()} == {
        name: one.searched for name, one in in_code().items()
    }


def test_all_eight_categories_are_in_use() -> None:
    assert {line.category for line in datamap.lines(KEEPING.tables)} - {""} == set(CATEGORIES)


def test_every_field_of_a_post_file_is_mapped() -> None:
    for table in ("post", "series"):
        paths = KEEPING.tables.tables[table].columns["body"].paths or {}
        mapped = {path.split(".")[1] for path in paths if path.startswith("post.")}
        assert mapped == set(PostFile.model_fields)


def test_what_is_personal_has_category_purpose_and_treatment() -> None:
    for line in datamap.lines(KEEPING.tables):
        assert line.purpose, line
        assert bool(line.category) == bool(line.treatment), line


def test_a_key_in_rows_that_the_map_does_not_know_is_named() -> None:
    table = KEEPING.tables.tables["post"]
    keys = {"post.text": 1, "post.variants.x.text": 1, "post.author": 2, "media[].alt": 1}
    found = datamap.unmapped_keys(table, "body", keys)
    assert [one.place for one in found] == ["body.post.author"]


async def test_keys_are_read_from_rows_without_their_values(store: Store) -> None:
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO post (id, workspace_id, body, content_hash, draft, late, created_at)"
            " VALUES ('post_1', 'ws_default', %s, 'c', false, 'publish', now())",
            ('{"post": {"text": "x", "tags": ["a"]}, "media": [{"alt": "y"}]}',),
        )
    found = await json_keys(store.engine, "post", "body")
    assert found == {"post.text": 1, "post.tags[]": 1, "media[].alt": 1}


BROKEN = """\
kind: data_map
name: parrot
tables:
  parrot:
    what: A bird.
    subject: []
    columns:
      id: {not_personal: an id}
      name: {treatment: blank}
      song: {not_personal: a song, treatment: clear}
      colour: {tretment: keep}
"""


def test_a_map_says_where_it_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data_map").mkdir()
    (tmp_path / "data_map" / "parrot.yaml").write_text(BROKEN)
    report = keeping.check(tmp_path, None)
    assert [(one.line, one.key) for one in report.problems] == [
        (10, "tables.parrot.columns.song"),
        (11, "tables.parrot.columns.colour.tretment"),
    ]
    assert report.problems[1].hint == "treatment"


def test_every_table_is_mapped_once(tmp_path: Path) -> None:
    (tmp_path / "data_map").mkdir()
    sound = BROKEN[: BROKEN.index("      name")]
    for name in ("parrot", "raven"):
        text = sound.replace("name: parrot", f"name: {name}", 1)
        (tmp_path / "data_map" / f"{name}.yaml").write_text(text)
    [problem] = keeping.check(tmp_path, None).problems
    assert "is mapped already" in problem.message


def test_places_are_columns_or_their_paths() -> None:
    column = KEEPING.tables.tables["series"].columns["connection_ids"]
    assert list(places_of("connection_ids", column)) == ["connection_ids.*"]


def test_the_reference_explains_every_key_in_the_words_of_the_code() -> None:
    page = (PROJECT / "docs" / "reference" / "retention.md").read_text(encoding="utf-8")
    models = (privacy.DataMap, privacy.TableMap, privacy.ColumnMap, privacy.StoreMap)
    for model in (*models, privacy.Retention, privacy.Purpose, privacy.Limit):
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}`" in page, name
            assert str(field.description) in page, name
    for word in (*CATEGORIES, *privacy.TREATMENTS):
        assert f"`{word}`" in page
