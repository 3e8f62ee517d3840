"""`clickpost notify` does what its page says, and what people are told to run exists."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from cli import _house
from cli.main import app
from clickpost import telling
from clickpost.settings import PROJECT, Settings
from clickpost.store import Store
from clickpost.telling import EVENTS, Event, Said
from tests.docs.test_docs import _fault_of

SECRET = "whsec_" + base64.b64encode(b"canary" * 5).decode()
NOBODY = "http://127.0.0.1:9/hook?token=canary"
runner = CliRunner(
    env={
        "COLUMNS": "250",
        "KEY": SECRET,
        "SHORT": "whsec_c2hvcnQ=",
        "CHAT": "json://127.0.0.1:9/canary",
        "EMPTY": "",
    }
)


@pytest.fixture(autouse=True)
def own_house(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command meet the test's database, and a mail server that is not there."""
    mailing = settings.model_copy(update={"smtp_host": "127.0.0.1", "smtp_from": "a@example.org"})
    monkeypatch.setattr(_house, "settings", lambda: mailing.model_copy(update={"smtp_port": 9}))


async def called(*words: str, code: int = 0) -> str:
    """Run a command as a shell would, beside the test's own loop."""
    answer = await asyncio.to_thread(runner.invoke, app, ["notify", *words])
    assert answer.exit_code == code, answer.output
    return answer.output


async def test_a_channel_is_added_listed_and_removed_and_its_address_is_not_shown() -> None:
    await called("add", "mail", "--email", "canary@example.com", "--event", "post.failed")
    await called("add", "team", "--apprise-env", "CHAT")
    await called("add", "hook", "--webhook", NOBODY, "--secret-env", "KEY")
    listed = json.loads(await called("list", "--json"))
    assert [(one["name"], one["kind"], one["events"]) for one in listed] == [
        ("hook", "webhook", []),
        ("mail", "email", ["post.failed"]),
        ("team", "chat", []),
    ]
    assert "canary" not in json.dumps(listed) + await called("list")
    await called("remove", "mail")
    assert "mail" not in await called("list")
    await called("remove", "mail", code=2)


async def test_a_key_that_is_made_is_shown_once_and_is_good() -> None:
    made = json.loads(await called("add", "hook", "--webhook", NOBODY, "--json"))["secret"]
    assert len(telling.key_of(made)) == 32
    assert made not in await called("list", "--json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x"], "name one of"),
        (["x", "--email", "a@b.c", "--webhook", NOBODY], "name one of"),
        (["x", "--webhook", "ftp://example.com"], "https://host/path"),
        (["x", "--webhook", NOBODY, "--secret-env", "SHORT"], "24 to 64 bytes"),
        (["x", "--webhook", NOBODY, "--secret-env", "EMPTY"], "EMPTY is empty"),
        (["x", "--apprise-env", "KEY"], "does not know"),
        (["x", "--email", "nobody"], "one address"),
        (["x", "--email", "a@b.c", "--event", "post.fail"], "there is no post.fail"),
    ],
)
async def test_wrong_input_is_refused_with_what_is_wrong(words: list[str], said: str) -> None:
    told = await called("add", *words, "--json", code=2)
    assert said in told
    assert "canary" not in told


@pytest.mark.parametrize(
    "words", [["--webhook", NOBODY], ["--email", "a@b.c"], ["--apprise-env", "CHAT"]]
)
async def test_a_test_that_nobody_takes_fails_and_names_no_address(words: list[str]) -> None:
    await called("add", "it", *words)
    told = await called("test", "it", code=1)
    assert "did not take it" in told
    assert "canary" not in told


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("who", ["an operator", "the account's owner", "the writer"])
def test_what_people_are_told_to_run_exists(event: Event, who: str) -> None:
    facts = {"where": "bluesky/studio", "post_id": "post_1", "who_acts": who}
    for ended in (False, True):
        said = Said("note_1", event, "dlv_1", facts | {"ended": ended}, datetime.now(UTC))
        assert [_fault_of(one) for one in telling.commands(said) if _fault_of(one)] == []


def test_the_page_names_every_event() -> None:
    page = (PROJECT / "docs" / "how-to" / "be-told.md").read_text()
    assert [event for event in EVENTS if f"`{event}`" not in page] == []
