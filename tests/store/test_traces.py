"""What Prefect's records say of somebody who is erased goes, and nothing about anybody else."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from prefect.server.database.orm_models import Base
from sqlalchemy import create_engine

from clickpost import ids
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store import history as stored
from clickpost.store.erasures import Erasures
from clickpost.store.history import Connection
from clickpost.store.traces import Traces
from tasks import _wiring, erasing, traces
from tasks._wiring import House
from tasks.erasing import Wanted
from tests.store.test_erasure import add, person, rows

TABLES = ("flow_run", "task_run", "log", "artifact", "artifact_collection", "events")


@pytest_asyncio.fixture
async def prefect(settings: Settings, empty_database_url: str) -> AsyncIterator[Connection]:
    """A database with Prefect's tables, as its server makes them."""
    engine = create_engine(empty_database_url.replace("postgresql://", "postgresql+psycopg://"))
    tables = list(Base.metadata.sorted_tables)
    kept = [(table, set(table.indexes)) for table in tables]
    for table in tables:
        table.indexes.clear()  # Some need an extension that is not everywhere.
    try:
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
    finally:
        engine.dispose()
        for table, indexes in kept:
            table.indexes.update(indexes)
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "prefect.url").write_text(empty_database_url)
    async with stored.opened(empty_database_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def house(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    opened = await _wiring._open(settings)

    async def given() -> House:
        return opened

    monkeypatch.setattr(_wiring, "house", given)
    yield opened
    await opened.client.aclose()
    await opened.store.close()


async def put(db: Connection, table: str, **values: Any) -> str:
    """Write one row, with what else it must have."""
    made = {"id": str(uuid.uuid4()), **values}
    query = (
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s"
        " AND is_nullable = 'NO' AND column_default IS NULL"
    )
    needed = await (await db.execute(query, [table])).fetchall()
    usual: dict[str, Any] = {
        "smallint": 0,
        "bigint": 0,
        "boolean": False,
        "json": "{}",
        "jsonb": "{}",
        "ARRAY": "{}",
        "uuid": str(uuid.uuid4()),
        "integer": 0,
    }
    for one in needed:
        kind = one["data_type"]
        other = "now" if kind.startswith(("timestamp", "interval")) else "x"
        if kind.startswith("interval"):
            other = "0"
        if kind == "double precision":
            other = "0"
        made.setdefault(one["column_name"], usual.get(kind, other))
    names = ", ".join(made)
    marks = ", ".join(["%s"] * len(made))
    given = [json.dumps(one) if isinstance(one, dict) else one for one in made.values()]
    await db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", given)
    return str(made["id"])


async def run(db: Connection, name: str, state: str = "COMPLETED", **parameters: Any) -> str:
    """Write a run with a task run, a line, a page and an event."""
    flow = await put(db, "flow", name=f"flow-{uuid.uuid4()}")
    run_id = await put(
        db, "flow_run", flow_id=flow, name=name, state_type=state, parameters=parameters
    )
    task = await put(db, "task_run", flow_run_id=run_id, name="send", task_key=run_id)
    await put(db, "log", flow_run_id=run_id, task_run_id=task, message="begun")
    await put(db, "artifact", flow_run_id=run_id, task_run_id=task, key="report", data={})
    for resource in (f"prefect.flow-run.{run_id}", f"prefect.task-run.{task}"):
        event = await put(db, "events", resource_id=resource, resource={"prefect.name": "x"})
        await put(db, "event_resources", event_id=event, resource_id=resource)
    return run_id


async def left(db: Connection) -> dict[str, int]:
    found = {}
    for table in TABLES:
        row = await (await db.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()
        assert row is not None
        found[table] = row["n"]
    return found


async def account(store: Store) -> tuple[str, str]:
    """Store an account with one post; return both ids."""
    workspace, post = ids.new("ws"), ids.new("post")
    await rows(
        store, "INSERT INTO workspace (id, name, created_at) VALUES (:id, :id, now())", id=workspace
    )
    moment = (await rows(store, "SELECT now() AS n"))[0].n
    await add(
        store, "post", id=post, workspace_id=workspace, content_hash="h", late="publish",
        draft=False, body={"post": {"text": "x"}}, created_at=moment,
    )  # fmt: skip
    return workspace, post


async def erase(house: House, workspace: str) -> str:
    row, _ = await erasing.plan(house.settings, house.store, Wanted("account", workspace))
    await Erasures(house.store.engine, house.vault).approve(row.id, "engine")
    done = await erasing.carry_out(house, row.id)
    assert done.state == "complete", done.said
    return row.id


async def outcome(house: House, erasure_id: str) -> dict[str, Any]:
    row = await Erasures(house.store.engine, house.vault).erasure(erasure_id)
    [line] = [one for one in row.outcomes if one["location"] == "prefect"]
    return dict(line)


async def test_what_carries_their_ids_goes_and_nothing_of_others(
    store: Store, house: House, prefect: Connection
) -> None:
    workspace, post = await account(store)
    other = ids.new("post")
    await run(prefect, f"publish {post}")
    await run(prefect, "named otherwise", post={"post_id": post})
    await run(prefect, "waits", "SCHEDULED", post={"post_id": post})
    before = await left(prefect)
    kept = await run(prefect, f"publish {other}", post={"post_id": other})
    shared = await run(prefect, "publish-due 09:00")
    mine = await put(
        prefect, "task_run", flow_run_id=shared, name=f"send {post} a/b", task_key="mine"
    )
    await put(prefect, "log", flow_run_id=shared, task_run_id=mine, message="sent")
    await put(prefect, "log", flow_run_id=shared, message=f"moved on post_id={post}")
    page = await put(prefect, "artifact", key=post.replace("_", "-"), data={"what": "a report"})
    await put(prefect, "artifact_collection", key=post.replace("_", "-"), latest_id=page)
    await put(prefect, "events", resource_id=f"clickpost.post.{post}", payload={"state": "live"})
    expected = {name: number - before[name] for name, number in (await left(prefect)).items()}
    erasure_id = await erase(house, workspace)
    found = await left(prefect)
    gone = {"task_run": 1, "log": 2, "artifact": 1, "artifact_collection": 1, "events": 1}
    assert found == {name: number - gone.get(name, 0) for name, number in expected.items()}
    ids_left = {str(one["id"]) for one in await (
        await prefect.execute("SELECT id FROM flow_run")).fetchall()}  # fmt: skip
    assert ids_left == {kept, shared}
    told = await outcome(house, erasure_id)
    assert (told["outcome"], told["rule"]) == ("erased", None)
    assert told["count"] == sum(before.values()) + 5
    for table in TABLES:
        said = await (await prefect.execute(f"SELECT t::text AS said FROM {table} t")).fetchall()
        assert not [one for one in said if post[5:] in one["said"]], table


async def test_a_run_at_work_goes_once_it_has_ended(
    store: Store, house: House, prefect: Connection
) -> None:
    workspace, post = await account(store)
    busy = await run(prefect, "export", "RUNNING", post={"post_id": post})
    erasure_id = await erase(house, workspace)
    assert "once they have ended" in (await outcome(house, erasure_id))["rule"]
    assert await traces.after(house) == 0
    await prefect.execute("UPDATE flow_run SET state_type = 'COMPLETED' WHERE id = %s", [busy])
    assert await traces.after(house) == 1
    assert (await left(prefect))["flow_run"] == 0
    assert await rows(store, "SELECT 1 FROM erasure_trace") == []
    assert list(await Traces(store.engine, store.vault).traced()) == []


async def test_ids_that_are_no_such_are_found_too(
    store: Store, house: House, prefect: Connection
) -> None:
    file = house.settings.media_root / "attachments" / "x.png"
    await person(store, file=str(file))
    await run(prefect, "handle", member={"member_id": "member_ann"})
    await run(prefect, "handle", member={"member_id": "member_anna"})
    row, _ = await erasing.plan(house.settings, store, Wanted("person", "member_ann"))
    await Erasures(house.store.engine, house.vault).approve(row.id, "engine")
    await erasing.carry_out(house, row.id)
    assert (await left(prefect))["flow_run"] == 1


async def test_a_prefect_database_that_is_away_stands_in_the_way(
    store: Store, house: House, prefect: Connection
) -> None:
    workspace, _ = await account(store)
    address = house.settings.home / "prefect.url"
    there = address.read_text()
    address.write_text("postgresql://nobody@127.0.0.1:1/none")
    row, _ = await erasing.plan(house.settings, house.store, Wanted("account", workspace))
    erasures = Erasures(house.store.engine, house.vault)
    await erasures.approve(row.id, "engine")
    done = await erasing.carry_out(house, row.id)
    assert (done.state, done.certificate) == ("waiting", None)
    assert (await outcome(house, row.id))["outcome"] == "unreachable"
    address.write_text(there)
    await erasures.wake(row.id)
    [ended] = await erasing.resume()
    assert ended.state == "complete"


async def test_people_who_are_erased_together_are_looked_for_in_one_look(
    store: Store, house: House, prefect: Connection
) -> None:
    for who in ("ann", "bob"):
        file = house.settings.media_root / "attachments" / f"{who}.png"
        await person(store, who, file=str(file))
        await run(prefect, "handle", member={"member_id": f"member_{who}"})
        row, _ = await erasing.plan(house.settings, store, Wanted("person", f"member_{who}"))
        await Erasures(house.store.engine, house.vault).approve(row.id, "engine")
    ended = await erasing.resume()
    assert [one.state for one in ended] == ["complete"] * 2
    assert (await left(prefect))["flow_run"] == 0
    for one in ended:
        assert "2 that were erased together" in (await outcome(house, one.erasure_id))["rule"]
    assert await rows(store, "SELECT 1 FROM erasure_trace") == []


async def test_a_prefect_of_somebody_else_is_left_alone_and_the_certificate_says_so(
    store: Store, house: House, settings: Settings
) -> None:
    theirs = settings.model_copy(update={"prefect_api_url": "https://prefect.example/api"})
    theirs.__dict__.pop("prefect_api", None)
    workspace, _ = await account(store)
    row, _ = await erasing.plan(theirs, house.store, Wanted("account", workspace))
    erasures = Erasures(house.store.engine, house.vault)
    await erasures.approve(row.id, "engine")
    await erasing.carry_out(replace(house, settings=theirs), row.id)
    document = json.loads((await erasures.certificate(row.id)).document)
    assert any("expire there" in one for one in document["statement"]["remains"])
    assert await rows(store, "SELECT 1 FROM erasure_trace") == []
