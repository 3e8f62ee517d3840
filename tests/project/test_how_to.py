"""The example in the how-to is sound: it is loaded, run, and compared with itself."""

from __future__ import annotations

import re
import sys
import types
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

import connectors
from clickpost.contract import Absence, Account, Message, Prepared, Receipt, Sought
from clickpost.errors import OutcomeUnknown
from clickpost.policy.load import check, load_platforms
from clickpost.settings import PROJECT
from connectors._api import Api, client
from tests.contract.cases import Case

PAGE = PROJECT / "docs" / "how-to" / "add-a-platform.md"


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def ran(code: str) -> dict[str, Any]:
    module = types.ModuleType("parrot")
    sys.modules["parrot"] = module  # Dataclasses look there.
    exec(compile(code, "parrot.py", "exec"), vars(module))
    del sys.modules["parrot"]
    return vars(module)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The policy of the how-to, as a reader would save it."""
    folder = tmp_path / "policies"
    (folder / "platforms").mkdir(parents=True)
    [policy] = blocks("yaml")
    (folder / "platforms" / "parrot.yaml").write_text(policy)
    return folder


def test_the_policy_is_sound_and_the_connector_can_what_it_says(policies: Path) -> None:
    kind = ran(blocks("python")[0])["Connector"]
    code = {"parrot": connectors.capabilities_of(kind)}
    report = check(policies, date(2026, 11, 24), code)
    assert (report.problems, report.warnings) == ([], [])


async def test_the_connector_publishes_and_finds(policies: Path) -> None:
    squawks: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            squawks.append(request.read())
            return httpx.Response(201, json={"id": 7, "link": "https://parrot.example/7"})
        return httpx.Response(200, json={"squawks": [{"id": 7}] if squawks else []})

    account = Account("c", "parrot", "https://parrot.example", secrets={"access_token": "t"})
    now = date(2026, 11, 24)
    async with client(transport=httpx.MockTransport(handle)) as http:
        policy = load_platforms(policies)["parrot"]
        made = ran(blocks("python")[0])["Connector"](Api(http, policy), account)
        sought = Sought("k", Prepared({}), "hi", now, now)  # type: ignore[arg-type]
        assert await made.find(sought) is Absence.NOT_THERE
        ready = await made.prepare(Message("hi"), "k")
        assert await made.publish(ready, "k") == Receipt("7", "https://parrot.example/7")
        assert await made.find(sought) == Receipt("7")
        http._transport = httpx.MockTransport(lambda _: httpx.Response(502))
        with pytest.raises(OutcomeUnknown):
            await made.publish(ready, "k")


def test_the_case_is_one() -> None:
    assert isinstance(ran(blocks("python")[1])["CASE"], Case)


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|yaml))`", PAGE.read_text(encoding="utf-8")))
    named = {name for name in named if "parrot" not in name}
    assert len(named) >= 5
    assert [name for name in sorted(named) if not (PROJECT / name).is_file()] == []
