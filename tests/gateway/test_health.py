"""`/healthz` is honest, `/metrics` tells numbers and nobody's name, and only to whom it may."""

from __future__ import annotations

import json
import re
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from clickpost import ids
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewChannel, NewConnection, NewPost, Store
from deployments import gateway, health, metrics
from tests.gateway.conftest import Prefect, serving

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "_FRESH_FOR", 0.0)
    monkeypatch.setattr(metrics, "FRESH_FOR", 0.0)


async def said(http: httpx.AsyncClient) -> tuple[int, dict[str, str]]:
    answer = await http.get("/healthz")
    assert answer.json()["ok"] is (answer.status_code == 200)
    return answer.status_code, {
        name: says for name, says in answer.json()["parts"].items() if says != "ok"
    }


async def test_all_is_well(http: httpx.AsyncClient) -> None:
    assert await said(http) == (200, {})
    assert (await http.get("/livez")).status_code == 200


async def test_a_silent_worker_is_told(http: httpx.AsyncClient, prefect: Prefect) -> None:
    prefect.beat = datetime.now(UTC) - timedelta(seconds=200)
    status, wrong = await said(http)
    assert status == 503
    assert re.fullmatch(r"silent for 20\d s", wrong.pop("worker"))
    assert wrong == {}
    assert (await http.get("/livez")).status_code == 200, "a restart would not help"
    prefect.beat = None
    assert await said(http) == (503, {"worker": "none was heard of yet"})


async def test_prefect_away_is_told(http: httpx.AsyncClient, prefect: Prefect) -> None:
    prefect.fails = httpx.ConnectError("http://secret.internal refused")
    status, wrong = await said(http)
    assert (status, wrong["prefect"]) == (503, "does not answer (ConnectError)")
    assert "internal" not in str(wrong)
    prefect.fails = 401
    assert (await said(http))[1]["prefect"] == "answers 401"


async def test_a_database_away_is_told(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Store) -> None:
        raise OSError("postgresql://user:password@host")

    monkeypatch.setattr(Store, "ping", away)
    assert await said(http) == (503, {"database": "does not answer (OSError)"})
    assert (await http.get("/livez")).status_code == 503
    assert 'clickpost_part_up{part="database"} 0.0' in (await http.get("/metrics")).text


async def test_a_full_disk_is_told(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 12_000_000))
    assert await said(http) == (503, {"disk": "12 MB are free"})


async def delivered(store: Store, name: str, state: State, **values: Any) -> str:
    """Store a post to an account of its own, as it stands in `state`."""
    new = NewConnection("bluesky", name, "https://bsky.social", {"access_jwt": "canary-token"})
    connection = await store.add_connection(new)
    post = PostFile(text="canary words")
    made = await store.create_post(NewPost(post, (), (connection.id,)))
    delivery = (await store.deliveries_of(made.post_id))[0]
    async with store.engine.begin() as db:
        for column, value in {"state": state.value, **values}.items():
            await db.exec_driver_sql(
                f"UPDATE delivery SET {column} = %s WHERE id = %s", (value, delivery.id)
            )
    return delivery.id


async def tried(store: Store, delivery_id: str, verdict: str | None) -> None:
    async with store.engine.begin() as db:
        await db.exec_driver_sql(
            "INSERT INTO attempt (id, delivery_id, number, part, intent, started_at, verdict,"
            " worker) VALUES (%s, %s, 1, 0, '{}', now(), %s, 'w')",
            (ids.new("try"), delivery_id, verdict),
        )


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_numbers_are_those_of_the_house_and_nobody_is_named(
    http: httpx.AsyncClient, store: Store, prefect: Prefect
) -> None:
    now = datetime.now(UTC)
    live = await delivered(
        store,
        "canary-a",
        State.LIVE,
        due_at=now - timedelta(minutes=5),
        sent_at=now - timedelta(minutes=5) + timedelta(seconds=3),
    )
    await tried(store, live, "ok")
    stuck = await delivered(
        store,
        "canary-b",
        State.READY,
        due_at=now - timedelta(minutes=20),
        created_at=now - timedelta(hours=1),
    )
    await tried(store, stuck, None)
    await delivered(store, "canary-c", State.PLANNED, due_at=now + timedelta(hours=1))
    paused = (await store.connections())[0]
    await store.set_connection_status(paused.id, "paused", "canary reason")
    secrets = {"url": "https://canary.example"}
    await store.add_channel(await store.workspace_id(), NewChannel("canary", "webhook", secrets))
    text = (await http.get("/metrics")).text
    assert "canary" not in text
    found = samples(text)
    assert found["clickpost_deliveries", ("bluesky", "live")] == 1
    assert found["clickpost_deliveries", ("bluesky", "planned")] == 1
    assert found["clickpost_attempts_last_hour", ("bluesky", "ok")] == 1
    assert found["clickpost_attempts_last_hour", ("bluesky", "none_yet")] == 1
    assert found["clickpost_connections", ("bluesky", "paused")] == 1
    assert found["clickpost_lateness_seconds_bucket", ("2.0",)] == 0
    assert found["clickpost_lateness_seconds_bucket", ("5.0",)] == 1
    assert found["clickpost_lateness_seconds_bucket", ("+Inf",)] == 1
    assert found["clickpost_due", ()] == 1
    assert 1190 < found["clickpost_oldest_due_seconds", ()] < 1260
    assert found["clickpost_stuck", ("bluesky", "ready")] == 1
    assert found["clickpost_worker_heartbeat_timestamp_seconds", ("warm-host",)] > 1e9
    left = {key: value for key, value in found.items() if key[0] == "clickpost_budget_left"}
    assert len(left) >= 4
    assert all(value > 0 for value in left.values())


async def test_metrics_are_for_whom_they_are_meant(
    settings: Settings, store: Store, prefect: Prefect
) -> None:
    async def status(token: str | None, **update: Any) -> int:
        async with serving(settings.model_copy(update=update)) as http:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return (await http.get("/metrics", headers=headers)).status_code

    from pydantic import SecretStr

    secret = {"metrics_token": SecretStr("right")}
    assert await status(None) == 200
    assert await status(None, host="0.0.0.0") == 404
    assert await status(None, public_url="https://post.example.com") == 404
    assert await status(None, **secret) == 404
    assert await status("wrong", **secret) == 404
    assert await status("right", host="0.0.0.0", **secret) == 200


async def test_a_flood_of_scrapes_is_one_look(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FRESH_FOR", 10.0)
    looks = []
    real = Store.measures

    async def counted(store: Store, moment: datetime) -> Any:
        looks.append(moment)
        return await real(store, moment)

    monkeypatch.setattr(Store, "measures", counted)
    for _ in range(20):
        assert (await http.get("/metrics")).status_code == 200
    assert len(looks) == 1


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads((PROJECT / "deployments" / "grafana" / "clickpost.json").read_text())
    asked = " ".join(
        target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
    )
    source = (PROJECT / "deployments" / "metrics.py").read_text()
    page = (PROJECT / "docs" / "how-to" / "watch.md").read_text()
    named = set(re.findall(r"clickpost_[a-z_]+", asked))
    known = set(re.findall(r'"(clickpost_[a-z_]+)"', source))
    bare = {re.sub(r"_(total|bucket|gcount|gsum)$", "", name) for name in named}
    assert named
    assert bare <= known | {"clickpost_budget"}
    assert {name for name in known if name not in page} == set()
