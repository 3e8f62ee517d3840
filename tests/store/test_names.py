"""Where a person is named is found by an index, and it finds what reading everything would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickpost.settings import Settings
from clickpost.store import Store
from tests.store.test_erasure import NOW, add, erased, erasing, person, rows

#: Letters whose cases are more than two, or that fold into others; digits, marks, what separates.
LETTERS = "aAbBzZßẞςσΣİIıiſsSKkÅåǅǆǄéÉжЖ字0"
MARKS = "@.-_+%'()[]*?|\\^$/\u0307\u200d"
SPACES = " \t\n\u00a0"
names = st.text(LETTERS + MARKS + SPACES, min_size=1, max_size=14)
#: The same name as somebody else may write it, and what may stand around it.
CASES = st.sampled_from([str, str.upper, str.lower, str.swapcase, str.title])
around = st.text(LETTERS + MARKS + SPACES, max_size=4)

_SAME = """
SELECT %(said)s ~* privacy_pattern(ARRAY[%(name)s]) AS found,
       privacy_pairs(%(said)s) @> privacy_pairs(%(name)s) AS narrowed
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as made:
        yield made


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=names, written=CASES, before=around, after=around, gap=st.sampled_from(SPACES))
def test_whatever_a_pattern_finds_the_index_finds(
    connection: psycopg.Connection[Any], name: str, written: Any, before: str, after: str, gap: str
) -> None:
    said = before + written(name).replace(" ", gap) + after
    row = connection.execute(_SAME, {"said": said, "name": name}).fetchone()
    assert row is not None
    found, narrowed = row
    assert narrowed or not found, (name, said)


def test_of_a_document_every_text_is_searched_and_no_name_goes_over_two(
    connection: psycopg.Connection[Any],
) -> None:
    document = {"a": ["Ann", "Gone"], "b": {"c": 'says "Ann\nGone"', "d": None, "e": 1}}
    row = connection.execute(
        "SELECT privacy_said(%s), privacy_said(%s) ~* privacy_pattern(ARRAY['Ann Gone'])",
        (json.dumps(document), json.dumps({"a": document["a"]})),
    ).fetchone()
    assert row is not None
    assert sorted(row[0].split("\x01")) == ["Ann", "Gone", 'says "Ann\nGone"']
    assert row[1] is False


def test_no_word_is_in_the_index(connection: psycopg.Connection[Any]) -> None:
    """Its keys stay after their rows went, so that they must not say who that was."""
    row = connection.execute("SELECT pg_typeof(privacy_pairs('Ann Gone'))::text").fetchone()
    assert row == ("integer[]",)


async def test_a_name_at_the_beginning_of_a_line_goes_from_documents_too(
    store: Store, settings: Settings
) -> None:
    await person(store)
    await add(
        store, "post", id="post_1", workspace_id="ws_default", content_hash="h", late="publish",
        draft=False, body={"post": {"text": "Hello!\nAnn Gone is here, \"Ann\tGone\""}},
        created_at=NOW,
    )  # fmt: skip
    await erased(store, settings, erasing(), "member_ann")
    [post] = await rows(store, "SELECT body FROM post")
    assert post.body == {"post": {"text": 'Hello!\n[erased] is here, "[erased]"'}}


async def test_who_is_named_is_found_by_the_index(store: Store) -> None:
    await person(store)
    query = f"SELECT r.id FROM post r WHERE {erasing().mentions('post')}"
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql(
            "SELECT set_config('clickpost.names', '[\"Ann Gone\"]', true)"
        )
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        found = await connection.exec_driver_sql(f"EXPLAIN {query}")
        plan = "\n".join(found.scalars())
    assert "ix_post_said" in plan
