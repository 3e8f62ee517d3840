"""`clickpost privacy request` and its kin: what operators type, and what they are told."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost.settings import Settings
from clickpost.store import Store
from tasks._wiring import House
from tests.store.test_handling import Post, house, post
from tests.store.test_requests import ADDRESS, everything

__all__ = ["house", "post"]
runner = CliRunner(env={"COLUMNS": "250"})


@pytest.fixture(autouse=True)
def own_house(house: House, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Let the command meet the test's database and mail server, and a Prefect that is away."""
    logging.getLogger("clickpost").handlers.clear()  # Of commands whose terminal is gone.
    made = house.settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    monkeypatch.setattr(_house, "settings", lambda: made)
    return made


async def called(*words: str, code: int = 0) -> str:
    answer = await asyncio.to_thread(runner.invoke, app, ["privacy", *words])
    assert answer.exit_code == code, answer.output
    return answer.output


async def shown(*words: str) -> Any:
    answer = await asyncio.to_thread(runner.invoke, app, ["privacy", *words, "--json"])
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


async def test_a_request_is_taken_listed_and_shown_without_who_asks(store: Store) -> None:
    made = await shown("request", "access", "--address", ADDRESS, "--law", "US-CA")
    assert (made["law"], made["state"], made["door"]) == ("ccpa", "received", "cli")
    assert made["status page"].endswith(made["code"])
    [line] = await shown("requests")
    assert line["request"] == made["request"]
    for words in (["requests"], ["requests", "--id", made["code"]]):
        said = await called(*words)
        assert made["request"] in said
        assert "canary" not in said.casefold()
    who = await shown("who", made["request"])
    assert who["address"] == ADDRESS
    assert "request.seen" in await everything(store)


async def test_it_is_extended_refused_and_answered_as_its_law_says(
    store: Store, post: Post
) -> None:
    made = await shown("request", "objection", "--address", ADDRESS, "--law", "gdpr")
    request_id = made["request"]
    later = await shown("extend", request_id, "--why", "many requests")
    assert later["due_at"] > made["due_at"]
    assert "many requests" in post.texts()[-1]
    assert "once is all" in await called("extend", request_id, "--why", "again", code=2)
    assert "never stands still" in await called("pause", request_id, code=2)
    said = await called("refuse", request_id, "--ground", "legal_claim", code=2)
    assert "did you mean legal_claims" in said
    await called("confirm", request_id)
    done = await shown("answer", request_id, "--note", "We stopped.")
    assert (done["state"], done["outcome"]) == ("answered", "by_hand")
    assert "cannot be" in await called("refuse", request_id, "--ground", "excessive", code=1)


async def test_an_erasure_answers_itself() -> None:
    made = await shown("request", "erasure", "--address", ADDRESS)
    await called("confirm", made["request"])
    said = await called("answer", made["request"], "--note", "Done.", code=2)
    assert "answers itself" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["request", "erase", "--address", ADDRESS], "did you mean erasure"),
        (["request", "erasure", "--address", "nobody"], "one e-mail address"),
        (["request", "erasure", "--address", ADDRESS, "--law", "gpdr"], "did you mean gdpr"),
        (["request", "erasure", "--address", ADDRESS, "--workspace", "ws_0"], "no workspace"),
        (["request", "erasure", "--address", ADDRESS, "--reference", "x"], "WHERE=ID"),
        (["requests", "--id", "req_nobody"], "no such request"),
    ],
)
async def test_what_is_typed_wrong_is_said(words: list[str], said: str) -> None:
    assert said in await called(*words, code=2)
