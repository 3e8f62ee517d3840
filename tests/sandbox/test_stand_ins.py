"""A stand-in is one file: where it says `STAND_IN`, all of the sandbox knows it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import connectors
import sandbox
from sandbox.app import create_app
from sandbox.stand_ins import found

PARROT = '''
"""Answers like Parrot."""
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from sandbox.stand_ins import StandIn

def mounts(state, orders, base):
    def squawk(request):
        account = next(iter(state.accounts["parrot"]))
        state.add_post("parrot", account, "7", text="Polly", handle="studio")
        return JSONResponse({"id": "7", "link": f"{base}/p/parrot/7"})
    return {"/parrot": [Route("/squawks", squawk, methods=["POST"])]}

STAND_IN = StandIn(
    title="Parrot", hues=("#123456", "#abcdef"), seed={"access_token": "t"},
    credentials=lambda name: {"access_token": name}, remote_id=lambda number, made: str(number),
    mounts=mounts, step_of=lambda method, path: "squawk", options=lambda base: {"cage": base},
    limited=lambda: JSONResponse({}, 429), broken=lambda: PlainTextResponse("ill", 503),
    body=lambda post: f"<p>squawk: {post['text']}</p>", notes=lambda post: ["Feathered"],
)
'''


@pytest.fixture
def parrot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fifth file beside the others."""
    (tmp_path / "parrot.py").write_text(PARROT)
    monkeypatch.setattr(sandbox, "__path__", [*sandbox.__path__, str(tmp_path)])
    found.cache_clear()
    yield
    sys.modules.pop("sandbox.parrot", None)
    vars(sandbox).pop("parrot", None)
    found.cache_clear()


def test_every_platform_of_ours_has_a_stand_in() -> None:
    assert set(found()) == set(connectors.names())


@pytest.mark.usefixtures("parrot")
async def test_a_fifth_stand_in_touches_its_own_file_only(tmp_path: Path) -> None:
    transport = httpx.ASGITransport(create_app(tmp_path / "data", "http://sandbox"))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as http:
        accounts = (await http.get("/control/accounts")).json()
        [account] = [one for one in accounts if one["platform"] == "parrot"]
        assert account["credentials"] == {"access_token": "t"}
        assert account["options"] == {"cage": "http://sandbox"}
        said = {"platform": "parrot", "name": "polly"}
        made = (await http.post("/control/accounts", json=said)).json()
        assert made["credentials"] == {"access_token": "polly"}
        await http.post("/control/misbehave", json={"platform": "parrot", "what": "server_error"})
        assert (await http.post("/parrot/squawks")).text == "ill"
        assert (await http.post("/parrot/squawks")).json()["id"] == "7"
        page = (await http.get("/")).text
        assert "squawk: Polly" in page
        assert "Feathered" in page
        assert "--parrot: #123456;" in page
        assert "--parrot: #abcdef;" in page
