"""What an operator sees and is told: logs, reports, forms, tags, and a command that ends."""

from __future__ import annotations

import io
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import _demo, connections
from cli import sandbox as sandbox_command
from cli._publishing import Follow, started
from cli.main import app
from cli.posts import _taken
from clickpost.delivery import State
from clickpost.draft import MediaItem, PostFile
from clickpost.errors import InvalidInput, Unavailable
from clickpost.people import ENGINE
from clickpost.settings import Settings
from sandbox import misbehaviour
from tasks import connecting
from tests.flows.conftest import House, free_ports

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(150)]


async def _held(house: House, text: str) -> str:
    """Return a post whose Mastodon delivery waits for the account's owner."""
    house.order("mastodon", "revoke_token", "status")
    post_id = await house.post(text, "mastodon/studio", "bluesky/studio")
    await started(house.settings, house.store, post_id, None)
    lines = await house.settled(post_id)
    assert lines["mastodon/studio"].state is State.HELD
    return post_id


def _wish(house: House, platform: str) -> connecting.Wish:
    rows = house.http.get(f"{house.sandbox}/control/accounts").json()
    row = next(one for one in rows if (one["platform"], one["name"]) == (platform, "studio"))
    return connecting.Wish(platform, "studio", row["credentials"], row["api_base"], row["options"])


async def test_a_failed_run_says_so_in_its_log_and_its_report_shows_the_reason_first(
    house: House,
) -> None:
    post_id = await _held(house, uuid.uuid4().hex)
    run_id = str((await house.store.post(post_id)).flow_run_id)
    assert (await house.ended(run_id))["state"]["message"] == "1 live, 1 held"
    asked: dict[str, Any] = {"logs": {"flow_run_id": {"any_": [run_id]}, "level": {"ge_": 30}}}

    def told() -> list[str]:
        return [row["message"] for row in house.api("POST", "/logs/filter", json=asked)]

    await house.until(lambda: any("1 live, 1 held" in line for line in told()))
    assert any(f"{post_id} mastodon/studio is held" in line for line in told())
    data = json.loads(house.api("GET", f"/artifacts/{post_id.replace('_', '-')}/latest")["data"])
    assert list(data[0])[:4] == ["connection", "state", "who acts next", "reason"]


async def test_the_form_of_a_run_shows_an_example(house: House) -> None:
    for flow in ("publish", "prepare", "takedown"):
        schema = house.api("GET", f"/deployments/name/{flow}/{flow}")["parameter_openapi_schema"]
        fields = [one["properties"] for one in schema["definitions"].values()]
        (field,) = [one["post_id"] for one in fields if "post_id" in one]
        assert "for example `post_" in field["description"]


async def test_runs_about_a_post_are_found_by_workspace_and_platform(house: House) -> None:
    post_id = await house.post(uuid.uuid4().hex, "mastodon/studio")
    await started(house.settings, house.store, post_id, None)
    await house.settled(post_id)
    await _taken(house.settings, post_id, "test", quiet=True)
    asked = {"flow_runs": {"tags": {"all_": [f"post:{post_id}"]}}}
    found = house.api("POST", "/flow_runs/filter", json=asked)
    assert sorted(run["name"].split()[0] for run in found) == ["publish", "takedown"]
    for run in found:
        assert {"platform:mastodon", f"post:{post_id}"} <= set(run["tags"])
        assert any(tag.startswith("workspace:") for tag in run["tags"])


def test_the_demos_json_is_nothing_but_json(
    house: House, monkeypatch: pytest.MonkeyPatch, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    post = PostFile(text=uuid.uuid4().hex, title="A title", media=[MediaItem(file=str(clip))])
    monkeypatch.setattr(_demo, "sample", lambda _: post)
    assert _demo.run(house.settings, as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in said["deliveries"]} == {"live"}
    run = house.api("GET", f"/flow_runs/{said['run'].rpartition('/')[2]}")
    assert {"platform:bluesky", "platform:youtube"} <= set(run["tags"])
    assert any(tag.startswith("workspace:") for tag in run["tags"])


async def test_a_reconnect_says_what_it_released_and_sends_it_at_once(house: House) -> None:
    text = uuid.uuid4().hex
    post_id = await _held(house, text)
    house.http.delete(f"{house.sandbox}/control/misbehave")
    _, released = await connections._connect(house.settings, _wish(house, "mastodon"), ENGINE)
    assert post_id in released.started
    assert "held deliver" in released.said()
    assert "a run was started for" in released.said()
    line = (await house.settled(post_id, within=20))["mastodon/studio"]
    assert line.state is State.LIVE
    assert len(house.there(text)) == 2
    _, again = await connections._connect(house.settings, _wish(house, "mastodon"), ENGINE)
    assert again.deliveries == 0


@pytest.mark.parametrize(("end", "hint"), [("CRASHED", "Retry"), ("CANCELLED", "called off")])
async def test_a_command_that_waits_notices_that_its_run_has_ended(
    house: House, end: str, hint: str
) -> None:
    house.order("mastodon", "rate_limit", "status", times=50)
    post_id = await house.post(uuid.uuid4().hex, "mastodon/studio")
    run_id = house.api(
        "POST",
        "/flow_runs/",
        json={
            "flow_id": house.api("GET", "/flows/name/publish")["id"],
            "state": {"type": end, "name": end.title()},
        },
    )["id"]
    await house.store.set_flow_run(post_id, run_id)
    began = time.monotonic()
    code, report = await Follow(house.store, post_id, house.settings).to_the_end()
    assert time.monotonic() - began < 15
    assert code == 1
    assert f"the run has ended as {end.title()}" in report["unsettled"]
    assert hint in report["unsettled"]
    assert f"clickpost posts show {post_id}" in report["unsettled"]


def test_the_help_of_misbehave_names_every_way() -> None:
    assert sandbox_command.KINDS == misbehaviour.KINDS
    shown = CliRunner().invoke(app, ["sandbox", "misbehave", "--help"]).output
    assert all(kind in shown for kind in misbehaviour.KINDS)


def test_a_piped_credential_is_read_quietly_and_a_missing_one_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n"))
    assert connections._asked("access_token", "a token", secret=True) == "one"
    with pytest.raises(InvalidInput, match="--access-token-env VARIABLE"):
        connections._asked("access_token", "a token", secret=True)
    assert not recwarn.list


async def test_a_post_that_prefect_did_not_hear_of_is_named_as_kept(house: House) -> None:
    post_id = await house.post("Prefect is away", "mastodon/studio")
    away = Settings(home=house.settings.home, prefect_port=free_ports(1)[0])
    with pytest.raises(Unavailable, match=f"{post_id} is kept: the sweep sends it"):
        await started(away, house.store, post_id, None)
