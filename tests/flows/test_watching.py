"""What is stuck is shown with its age and who acts, and told once; what goes well is not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from cli import _watching, stack
from cli.main import app
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.media import Cache
from clickpost.settings import Settings
from clickpost.store import NewChannel, NewConnection, NewPost, Store
from clickpost.store.tables import Connection, Notice
from clickpost.stuck import Going, Stuck
from connectors._api import client
from deployments.stack import PartStatus
from tasks import _wiring, watching
from tasks._wiring import House


@pytest.fixture
def house(store: Store, settings: Settings, tmp_path: Any, monkeypatch: Any) -> House:
    # Nobody answers there: as if Prefect were away.
    away = settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    made = House(away, store, store.vault, client(), Cache(tmp_path), "test")

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    return made


async def standing(store: Store, state: State, minutes: int) -> str:
    """Store a delivery that has stood in `state` for so long; return its id."""
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "secret"})
    connection = await store.add_connection(new)
    made = await store.create_post(NewPost(PostFile(text="canary words"), (), (connection.id,)))
    delivery_id = (await store.deliveries_of(made.post_id))[0].id
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    async with store.engine.begin() as db:
        await db.exec_driver_sql(
            "UPDATE delivery SET state = %s, sent_at = %s, created_at = %s, updated_at = now()"
            " WHERE id = %s",
            (state.value, since, since, delivery_id),
        )
    return delivery_id


async def notices(store: Store) -> list[Notice]:
    async with store.session() as session:
        return list((await session.scalars(select(Notice).order_by(Notice.id))).all())


@pytest.mark.parametrize(
    "state", [State.PLANNED, State.READY, State.SENDING, State.UNKNOWN, State.PROCESSING]
)
async def test_what_hangs_is_told_once_though_it_is_tried_each_minute(
    house: House, state: State
) -> None:
    delivery_id = await standing(house.store, state, minutes=60 * 24)
    assert await watching.tell_stuck() == 1
    async with house.store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE delivery SET updated_at = now()")
    assert await watching.tell_stuck() == 0
    found = await notices(house.store)
    assert [(one.event, one.subject) for one in found] == [("delivery.stuck", delivery_id)]
    assert found[0].facts["who_acts"] == "an operator"
    assert found[0].facts["next"]


@pytest.mark.parametrize("state", [State.PLANNED, State.SENDING, State.UNKNOWN, State.LIVE])
async def test_what_goes_its_way_is_not_told(house: House, state: State) -> None:
    await standing(house.store, state, minutes=1)
    assert await watching.tell_stuck() == 0


async def test_the_status_says_what_is_stuck_since_when_and_who_acts(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery_id = await standing(house.store, State.SENDING, minutes=65)
    await standing(house.store, State.LIVE, minutes=65)
    connection = (await house.store.connections())[0]
    await house.store.set_connection_status(connection.id, "paused", "the grant is gone")
    seen = await _watching.look(house.settings)
    told = _watching.as_json(seen)
    json.dumps(told)
    assert told["worker_silent"]
    assert [one["delivery_id"] for one in told["stuck"]] == [delivery_id]
    assert 65 * 60 <= told["stuck"][0]["age_seconds"] < 66 * 60
    assert told["connections"][0]["command"] == "clickpost connect bluesky --name studio"
    _watching.show(seen)
    text = capsys.readouterr().out
    assert "1 stuck" in text
    assert "1 h" in text
    assert "bluesky/studio is paused" in text
    assert "no worker was heard of" in text
    assert "canary" not in text


async def test_the_status_says_what_no_channel_took(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = await house.store.workspace_id()
    new = NewChannel("hook", "webhook", {"url": "https://canary.example"})
    channel = await house.store.add_channel(workspace, new)
    await standing(house.store, State.SENDING, minutes=65)
    await watching.tell_stuck()
    now = datetime.now(UTC)
    due = await house.store.claim_tellings(channel.id, 10, now, timedelta(minutes=1))
    await house.store.not_told(due, "the receiver answered 500", now + timedelta(days=2))
    seen = await _watching.look(house.settings)
    assert [one["state"] for one in _watching.as_json(seen)["untold"]] == ["given_up"]
    _watching.show(seen)
    text = capsys.readouterr().out
    assert "hook was not told delivery.stuck" in text
    assert "given up" in text
    assert "canary" not in text


@pytest.mark.parametrize("runs_well", [True, False])
@pytest.mark.parametrize("trouble", ["none", "stuck", "paused", "silent", "failed", "unknowable"])
def test_a_check_ends_with_one_where_somebody_has_to_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str, runs_well: bool
) -> None:
    monkeypatch.setenv("CLICKPOST_HOME", str(tmp_path))
    now = datetime.now(UTC)
    quiet = _watching.Watched(now, {"failed": 3}, [], [], [], [], now)
    connection = Connection(platform="bluesky", name="studio", status="paused", updated_at=now)
    known: dict[str, Any] = dict.fromkeys(Going.__dataclass_fields__)
    going = Going(**known | {"state": State.SENDING})
    seen = {
        "stuck": replace(quiet, stuck=[Stuck(going, now, "it is looked for", "an operator")]),
        "paused": replace(quiet, unusable=[connection]),
        "silent": replace(quiet, heard_at=None),
        "unknowable": None,
    }.get(trouble, quiet)
    state = "running" if runs_well else "stopped"
    parts = [PartStatus(name="postgres", state="running"), PartStatus(name="worker", state=state)]
    monkeypatch.setattr(stack, "_watched", lambda _: seen)
    monkeypatch.setattr(stack.Stack, "status", lambda _: parts)
    calm = trouble in ("none", "failed")
    for arguments, ends in (([], not runs_well), (["--check"], not (runs_well and calm))):
        done = CliRunner().invoke(app, ["status", *arguments, "--json"])
        assert done.exit_code == int(ends)
        assert json.loads(done.stdout)["calm"] is calm


async def test_a_quiet_house_says_so(house: House) -> None:
    told = _watching.as_json(await _watching.look(house.settings))
    assert (told["stuck"], told["connections"], told["untold"]) == ([], [], [])
