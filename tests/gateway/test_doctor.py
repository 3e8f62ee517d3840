"""`clickpost doctor` finds each fault by itself, and says what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from cli.main import app
from clickpost.settings import Settings
from clickpost.store import NewChannel, NewConnection, Store
from clickpost.telling import Event, Happening
from deployments import checkup, health
from deployments.health import Part
from tests.gateway.conftest import Prefect
from tests.mailserver import MailServer


@pytest.fixture(autouse=True)
def gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that answers here."""

    async def well(name: str, base: str, do: str) -> Part:
        return Part(name, True)

    monkeypatch.setattr(checkup, "_answers", well)


async def wrong(settings: Settings) -> dict[str, tuple[str, str]]:
    parts = await checkup.look(settings)
    assert len({one.name for one in parts}) == len(parts) >= 11
    assert all(one.do for one in parts if not one.well)
    return {one.name: (one.says, one.do) for one in parts if not one.well}


async def test_all_is_well(settings: Settings, store: Store, prefect: Prefect) -> None:
    assert await wrong(settings) == {}


async def test_each_fault_is_found(
    settings: Settings, store: Store, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"access_token": "canary"}
    ends = datetime.now(UTC) + timedelta(days=1)
    new = NewConnection("youtube", "studio", "https://example.com", secrets, expires_at=ends)
    await store.add_connection(new)
    await store.add_channel(
        await store.workspace_id(), NewChannel("ops", "webhook", {"url": "https://canary.example"})
    )
    await store.notify(Happening(Event.GUARD, "sweep", "guard:1", {}))
    now = datetime.now(UTC)
    [channel] = await store.channels()
    due = await store.claim_tellings(channel.id, 1, now, timedelta(minutes=1))
    await store.not_told(due, "answered 500", now)
    (settings.home / "master.key").chmod(0o600)
    prefect.beat = now - timedelta(minutes=10)
    prefect.ahead = timedelta(minutes=-3)
    broken = settings.model_copy(update={"policies": settings.home / "none"})
    monkeypatch.setattr(checkup.imageio_ffmpeg, "get_ffmpeg_exe", lambda: "/nonexistent/ffmpeg")
    found = await wrong(settings)
    assert found.keys() == {"accounts", "channels", "worker", "clock of Prefect", "ffmpeg"}
    assert "youtube/studio ends" in found["accounts"][0].replace("the token of ", "")
    assert found["clock of Prefect"][0].startswith("-1")
    assert found["channels"][1] == "clickpost notify test ops"
    assert "canary" not in str(found)
    assert (await wrong_names(broken))["policies"][1] == "clickpost policy check"


async def test_a_mailbox_that_does_not_let_us_in_is_told(
    settings: Settings, store: Store, prefect: Prefect
) -> None:
    async with MailServer().running() as server:
        named = settings.model_copy(
            update={
                "imap_host": "127.0.0.1",
                "imap_port": server.port,
                "imap_security": "none",
                "imap_user": server.user,
                "imap_password": SecretStr(server.password),
            }
        )
        assert await wrong(named) == {}
        other = named.model_copy(update={"imap_password": SecretStr("canary")})
        found = await wrong(other)
    assert found.keys() == {"mailbox"}
    assert "CLICKPOST_IMAP_" in found["mailbox"][1]
    assert "canary" not in str(found)
    assert (await wrong(named)).keys() == {"mailbox"}  # The server is away.


async def test_logs_that_nobody_packs_are_told(
    settings: Settings, store: Store, prefect: Prefect
) -> None:
    (settings.home / "logs").mkdir()
    with (settings.home / "logs" / "worker.log").open("wb") as file:
        file.truncate(31_000_000)
    [(says, do)] = (await wrong(settings)).values()
    assert says == "31.0 MB in 1 files, one of 31 MB"
    assert "clickpost up" in do


async def test_a_key_that_others_read_is_told(
    settings: Settings, store: Store, prefect: Prefect
) -> None:
    (settings.home / "master.key").chmod(0o644)
    found = await wrong_names(settings)
    assert found["master key"][1].startswith("chmod 600")
    assert "may be read by others" in found["database"][0]


async def wrong_names(settings: Settings) -> dict[str, tuple[str, str]]:
    return {one.name: (one.says, one.do) for one in await checkup.look(settings) if not one.well}


async def test_tables_of_another_version_are_told(
    empty_database_url: str, settings: Settings, prefect: Prefect
) -> None:
    old = settings.model_copy(update={"database_url": SecretStr(empty_database_url)})
    found = await wrong_names(old)
    assert found["tables"][1].startswith("clickpost up")


async def test_prefect_and_database_away_hide_nothing_else(
    settings: Settings, prefect: Prefect
) -> None:
    prefect.fails = httpx.ConnectError("down")
    away = SecretStr("postgresql://127.0.0.1:9/x")
    found = await wrong_names(settings.model_copy(update={"database_url": away}))
    assert {"database", "prefect", "worker"} <= found.keys()
    assert "policies" not in found


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_the_command_ends_with_what_it_found(
    well: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(_: Settings) -> list[Part]:
        return [Part("disk", well, "12 MB are free", "free some room")]

    monkeypatch.setattr(checkup, "look", look)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == code
    assert json.loads(done.stdout)["parts"][0]["do"] == "free some room"
    assert ("free some room" in CliRunner().invoke(app, ["doctor"]).stdout) is True


@pytest.mark.parametrize(("seconds", "well"), [(0.4, True), (-1.9, True), (2.5, False)])
def test_clocks_may_be_two_seconds_apart(seconds: float, well: bool) -> None:
    assert checkup.clock("x", timedelta(seconds=seconds)).well is well
    assert timedelta(seconds=2) == health.MOST_SKEW
