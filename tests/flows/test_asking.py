"""The operator's question in the Prefect UI: it waits, takes the first answer, and ends."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from sqlalchemy import text as sql
from typer.testing import CliRunner

from cli import _settling
from cli.main import app
from clickpost.asking import Answer
from clickpost.delivery import State
from clickpost.errors import Conflict
from deployments import runs
from tests.flows.conftest import House

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(150)]


async def doubted(house: House, text: str, *, sent: bool) -> str:
    """Return a post of which nobody knows whether it is there, and about which nobody asked yet."""
    post_id = await house.post(text, "mastodon/studio")
    await house.ended(house.run("prepare", post_id))
    if sent:
        await house.ended(house.run("publish", post_id))
    doubt = (
        "UPDATE delivery SET state = 'unknown', who_acts = 'an operator', reason = 'cannot tell',"
        " sent_at = now() - interval '2 hours', updated_at = now(), receipts = NULL, url = NULL"
        " WHERE post_id = :id"
    )
    async with house.store.transaction() as session:
        await session.execute(sql(doubt), {"id": post_id})
    return post_id


async def asked(house: House, post_id: str) -> dict[str, Any]:
    """Let the question be put, and return its run once it waits."""
    runs.start(house.settings, "reconcile-deliveries", {})
    delivery_id = (await house.store.lines(post_id))[0].id
    run: dict[str, Any] = {}

    def waits() -> bool:
        sought = {"flow_runs": {"name": {"any_": [f"ask-operator {delivery_id}"]}}}
        found = house.api("POST", "/flow_runs/filter", json=sought)
        run.update(found[0] if found else {})
        return len(found) == 1 and found[0]["state_name"] == "Suspended"

    await house.until(waits)
    await house.until(lambda: bool(form(house, run, "description")))
    return run


def form(house: House, run: dict[str, Any], what: str) -> Any:
    """Return what the run shows to the operator who presses Resume."""
    key = run["state"]["state_details"]["run_input_keyset"][what]
    url = f"{runs.api_url(house.settings)}/flow_runs/{run['id']}/input/{key}"
    answer = house.http.get(url)
    return answer.json() if answer.is_success else None


async def test_an_operator_answers_in_the_ui_and_what_is_not_there_is_sent_once_more(
    house: House,
) -> None:
    text = uuid.uuid4().hex
    post_id = await doubted(house, text, sent=False)
    run = await asked(house, post_id)
    words = str(form(house, run, "description"))
    assert "mastodon/studio" in words
    assert post_id in words
    assert text not in words
    answers = form(house, run, "schema")["properties"]["answer"]["enum"]
    assert answers == ["it is there", "send again", "give up"]
    await house.ended(runs.start(house.settings, "reconcile-deliveries", {}))
    assert (await asked(house, post_id))["id"] == run["id"]  # Asked once.
    given = {"run_input": {"answer": "send again"}}
    house.api("POST", f"/flow_runs/{run['id']}/resume", json=given)
    line = (await house.settled(post_id))["mastodon/studio"]
    assert line.state is State.LIVE
    assert len(house.there(text)) == 1
    ended = await house.ended(run["id"])
    assert ended["state"]["message"] == "send again: 1 live"


async def test_an_answer_on_the_command_line_ends_the_question_in_the_ui(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = uuid.uuid4().hex
    post_id = await doubted(house, text, sent=True)
    run = await asked(house, post_id)
    monkeypatch.setattr(_settling._house, "settings", lambda: house.settings)
    command = ["posts", "settle", post_id, "--to", "mastodon/studio", "--answer"]
    url = "https://mastodon.example/@studio/1"
    report = await _settling.settled(
        house.settings, post_id, "mastodon/studio", Answer.THERE, url, quiet=True
    )
    assert (report["deliveries"][0]["state"], report["deliveries"][0]["url"]) == ("live", url)
    ended = await house.ended(run["id"])
    assert ended["state_type"] == "COMPLETED"
    assert ended["state"]["message"] == "answered on the command line: there"
    with pytest.raises(Conflict, match="live already"):
        await _settling.settled(
            house.settings, post_id, "mastodon/studio", Answer.AGAIN, None, quiet=True
        )
    assert len(house.there(text)) == 1
    said = CliRunner().invoke(app, [*command, "perhaps"])
    assert said.exit_code == 2


async def test_a_question_that_a_look_settles_ends_by_itself(house: House) -> None:
    text = uuid.uuid4().hex
    post_id = await doubted(house, text, sent=True)
    run = await asked(house, post_id)
    long_ago = "UPDATE delivery SET updated_at = now() - interval '1 hour',"
    long_ago += " sent_at = now() - interval '1 minute' WHERE post_id = :id"
    async with house.store.transaction() as session:
        await session.execute(sql(long_ago), {"id": post_id})
    await house.ended(runs.start(house.settings, "reconcile-deliveries", {}))
    line = (await house.settled(post_id))["mastodon/studio"]
    assert line.state is State.LIVE
    assert line.url
    ended = await house.ended(run["id"])
    assert ended["state"]["message"] == "settled without an answer"
    assert json.dumps(ended).find(text) == -1
