"""Publishing through the real stack: Prefect server, warm worker, gateway, sandbox platforms."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import imageio_ffmpeg
import psutil
import psycopg
import pytest
from PIL import Image

from cli.posts import _again
from clickpost.delivery import State
from deployments import runs
from deployments.postgres import Postgres
from deployments.stack import Stack
from tests.flows.conftest import House

pytestmark = [pytest.mark.xdist_group("sending"), pytest.mark.timeout(150)]

ALL = ("bluesky/studio", "mastodon/studio", "instagram/studio", "youtube/studio")
TEXTS = ("bluesky/studio", "mastodon/studio")


def fresh(words: str = "hello") -> str:
    """Return a text that no other test has."""
    return f"{words} {uuid.uuid4().hex}"


async def test_one_post_reaches_four_platforms_once(house: House, clip: Path) -> None:
    text = fresh()
    post_id = await house.post(text, *ALL, media=(clip,), title="A title")
    run = await house.ended(house.run("publish", post_id))
    lines = await house.settled(post_id)
    assert {line.state for line in lines.values()} == {State.LIVE}
    assert run["state_name"] == "Completed"
    assert run["state"]["message"] == "4 live"
    there = house.there(text)
    assert sorted(row["platform"] for row in there) == sorted(ref.split("/")[0] for ref in ALL)
    assert not any(one["has_location"] for row in there for one in row["media"])


async def test_a_photo_is_pulled_from_a_signed_address(house: House, tmp_path: Path) -> None:
    Image.new("RGB", (800, 800), "teal").save(tmp_path / "photo.jpg")
    text = fresh()
    post_id = await house.post(text, "instagram/studio", media=(tmp_path / "photo.jpg",))
    house.run("publish", post_id)
    assert (await house.settled(post_id))["instagram/studio"].state is State.LIVE
    assert house.there(text)[0]["media"][0]["alt"] == "what it shows"


async def test_a_failing_target_stops_no_other_and_the_run_says_so(house: House) -> None:
    text = fresh("x" * 400)
    post_id = await house.post(text, *TEXTS)
    run = await house.ended(house.run("publish", post_id))
    lines = await house.settled(post_id)
    assert lines["mastodon/studio"].state is State.LIVE
    assert lines["bluesky/studio"].state is State.FAILED
    assert lines["bluesky/studio"].who_acts == "the writer"
    assert "allowed 300 graphemes, found 433 graphemes" in str(lines["bluesky/studio"].reason)
    assert (run["state_name"], run["state"]["message"]) == ("Failed", "1 live, 1 failed")


async def test_a_lost_answer_is_looked_for_and_nothing_goes_twice(house: House) -> None:
    text = fresh()
    house.order("bluesky", "drop_after", "put_record")
    house.order("mastodon", "error_after", "status")
    post_id = await house.post(text, *TEXTS)
    house.run("publish", post_id)
    lines = await house.settled(post_id)
    assert {line.state for line in lines.values()} == {State.LIVE}
    assert len(house.there(text)) == 2


async def test_a_call_that_was_lost_before_is_sent_again_after_a_look(house: House) -> None:
    text = fresh()
    house.order("bluesky", "drop_before", "put_record")
    post_id = await house.post(text, "bluesky/studio")
    house.run("publish", post_id)
    line = (await house.settled(post_id))["bluesky/studio"]
    assert (line.state, line.attempts) == (State.LIVE, 2)
    assert len(house.there(text)) == 1


async def test_a_send_that_is_lost_again_and_again_ends_with_an_operator(house: House) -> None:
    text = fresh()
    house.order("bluesky", "drop_before", "put_record", times=20)
    post_id = await house.post(text, "bluesky/studio")
    house.run("publish", post_id)
    line = (await house.settled(post_id, within=120))["bluesky/studio"]
    house.http.delete(f"{house.sandbox}/control/misbehave")
    assert (line.state, line.attempts, line.who_acts) == (State.FAILED, 6, "an operator")
    assert house.there(text) == []


async def test_a_rate_limit_is_waited_out_and_an_ended_token_renewed(house: House) -> None:
    text = fresh()
    house.order("mastodon", "rate_limit", "status")
    house.order("bluesky", "expire_token", "put_record")
    post_id = await house.post(text, *TEXTS)
    house.run("publish", post_id)
    lines = await house.settled(post_id)
    assert {(line.state, line.attempts) for line in lines.values()} == {(State.LIVE, 2)}
    assert len(house.there(text)) == 2


async def test_a_revoked_grant_holds_the_delivery_and_names_the_owner(house: House) -> None:
    text = fresh()
    house.order("mastodon", "revoke_token", "status")
    post_id = await house.post(text, "mastodon/studio")
    house.run("publish", post_id)
    line = (await house.settled(post_id))["mastodon/studio"]
    assert (line.state, line.who_acts) == (State.HELD, "the account's owner")
    assert (await house.store.connection("mastodon/studio")).status == "paused"
    assert house.there(text) == []


async def test_posts_of_one_moment_share_one_run_and_go_on_time(house: House) -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=9)).replace(microsecond=0)
    texts = [fresh() for _ in range(3)]
    posts, due = [], set()
    for text in texts:
        post_id = await house.post(text, *TEXTS, at=moment)
        posts.append(post_id)
        house.run("prepare", post_id)
        at = moment.isoformat()
        due.add(
            runs.start(
                house.settings, "publish-due", {"moment": {"at": at}}, at=moment, key=f"due {at}"
            )
        )
    assert len(due) == 1
    planned = house.api("GET", f"/flow_runs/{next(iter(due))}")
    assert planned["state_type"] in ("SCHEDULED", "PENDING")  # A worker claims it 10 s ahead.
    assert all(house.there(text) == [] for text in texts)
    run = await house.ended(next(iter(due)))
    assert run["state"]["message"] == "6 live"
    for text in texts:
        rows = house.there(text)
        assert len(rows) == 2
        assert all(0 <= row["received_at"] - moment.timestamp() < 5 for row in rows)


@pytest.mark.parametrize(("late", "state"), [("skip", State.MISSED), ("ask", State.HELD)])
async def test_what_became_late_is_handled_by_its_policy(
    house: House, late: str, state: State
) -> None:
    text = fresh()
    moment = datetime.now(UTC) - timedelta(minutes=20)
    post_id = await house.post(text, "bluesky/studio", at=moment, late=late)
    await house.ended(house.run("publish", post_id))
    assert (await house.settled(post_id))["bluesky/studio"].state is state
    assert house.there(text) == []


async def test_a_takedown_deletes_and_says_where_it_cannot(house: House, clip: Path) -> None:
    text = fresh()
    post_id = await house.post(text, *ALL, media=(clip,), title="A title")
    await house.ended(house.run("publish", post_id))
    run = await house.ended(house.run("takedown", post_id))
    lines = {line.ref: line for line in await house.store.lines(post_id)}
    assert run["state"]["message"] == "3 of 4 taken down"
    assert lines["instagram/studio"].state is State.LIVE
    assert "not taken down" in str(lines["instagram/studio"].reason)
    gone = {row["platform"] for row in house.there(text) if row["deleted"]}
    assert gone == {"bluesky", "mastodon", "youtube"}


async def test_running_a_finished_post_again_sends_nothing(house: House) -> None:
    text = fresh()
    post_id = await house.post(text, *TEXTS)
    run_id = house.run("publish", post_id)
    await house.ended(run_id)
    await house.ended(house.run("publish", post_id))
    state = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
    house.api("POST", f"/flow_runs/{run_id}/set_state", json=state)  # "Retry" in the UI.
    await asyncio.sleep(1)
    assert (await house.ended(run_id))["run_count"] == 2
    assert len(house.there(text)) == 2


async def test_a_run_is_cancelled_from_the_ui(house: House) -> None:
    house.order("mastodon", "rate_limit", "status", times=20)
    post_id = await house.post(fresh(), "mastodon/studio")
    run_id = house.run("publish", post_id)
    await house.until(lambda: house.api("GET", f"/flow_runs/{run_id}")["state_type"] == "RUNNING")
    await asyncio.sleep(1)
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
    house.api("POST", f"/flow_runs/{run_id}/set_state", json=state)
    assert (await house.ended(run_id))["state_type"] == "CANCELLED"


async def test_a_killed_worker_loses_nothing_and_sends_nothing_twice(
    house: House, stack: Stack
) -> None:
    text = fresh()
    house.order("bluesky", "slow", "put_record", seconds=4)
    post_id = await house.post(text, *TEXTS)
    run_id = house.run("publish", post_id)

    def sending() -> bool:
        asked = house.http.get(f"{house.sandbox}/control/posts").json()
        return any(row["text"] == text and row["platform"] == "mastodon" for row in asked)

    await house.until(sending)
    worker = stack.processes.running("worker")
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    await asyncio.sleep(5)  # The slow answer arrives, and nobody is there to hear it.
    stack.up(sandbox=True)
    lines = await house.settled(post_id, within=60)
    assert {line.state for line in lines.values()} == {State.LIVE}
    assert len(house.there(text)) == 2
    run = await house.ended(run_id)
    history = house.api("GET", f"/flow_run_states/?flow_run_id={run_id}")
    names = [state["name"] for state in history]
    assert "Crashed" in names
    assert run["run_count"] == 2


async def test_a_worker_killed_while_it_makes_renditions_is_replaced(
    house: House, stack: Stack, long_clip: Path
) -> None:
    text = fresh()
    post_id = await house.post(text, *TEXTS, media=(long_clip,))
    run_id = house.run("publish", post_id)
    worker = stack.processes.running("worker")
    assert worker is not None
    encoder = await _encoder(house, worker)
    assert {line.state for line in await house.store.lines(post_id)} == {State.PREPARING}
    os.kill(worker.pid, signal.SIGKILL)
    stack.up(sandbox=True)
    assert not encoder.is_running()
    lines = await house.settled(post_id, within=120)
    assert [(line.state, line.reason) for line in lines.values()] == [(State.LIVE, None)] * 2
    assert len(house.there(text)) == 2
    assert (await house.ended(run_id))["run_count"] == 2


async def test_two_runs_of_a_post_that_is_being_encoded_send_it_once(
    house: House, stack: Stack, long_clip: Path
) -> None:
    text = fresh()
    post_id = await house.post(text, *TEXTS, media=(long_clip,))
    house.run("publish", post_id)
    worker = stack.processes.running("worker")
    assert worker is not None
    await _encoder(house, worker)
    second = house.run("publish", post_id)
    lines = await house.settled(post_id, within=120)
    assert [(line.state, line.reason) for line in lines.values()] == [(State.LIVE, None)] * 2
    assert len(house.there(text)) == 2
    message = (await house.ended(second))["state"]["message"]
    assert "failed" not in message  # It may end while the first one sends: that says it, too.


async def test_many_runs_of_a_post_at_once_send_it_once(house: House) -> None:
    text = fresh()
    post_id = await house.post(text, *TEXTS)
    for run_id in [house.run("publish", post_id) for _ in range(8)]:
        await house.ended(run_id)
    assert len(house.there(text)) == 2
    for line in await house.store.lines(post_id):
        assert (line.state, line.attempts) == (State.LIVE, 1)


async def _encoder(house: House, worker: psutil.Process) -> psutil.Process:
    """Wait for the ffmpeg of a worker."""
    await house.until(lambda: bool(worker.children(recursive=True)))
    return worker.children(recursive=True)[0]


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    """A clip that takes some seconds to encode, and is like no other."""
    path = tmp_path / "long.mp4"
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i"),
        *("testsrc2=size=1080x1920:rate=60:duration=15", "-c:v", "mpeg4", "-q:v", "5"),
        *("-metadata", f"comment={uuid.uuid4().hex}", str(path)),
    ]
    subprocess.run(command, check=True)
    return path


async def test_nothing_of_content_or_token_reaches_prefect(house: House, clip: Path) -> None:
    canary = f"canary{uuid.uuid4().hex}"
    house.order("bluesky", "garbage", "put_record")
    house.order("mastodon", "server_error", "status")
    house.order("youtube", "fail_processing", "bytes")
    more = {"title": f"{canary} title", "tags": [f"{canary}tag"]}
    posts = [
        await house.post(f"{canary} text", *ALL, media=(clip,), **more),
        await house.post(f"{canary} text " * 200, *TEXTS),
        await house.post(f"{canary} <bad>", "youtube/studio", media=(clip,)),
    ]
    for run_id in [house.run("publish", post_id) for post_id in posts]:
        await house.ended(run_id)
    secrets = [canary, "what it shows"]
    for row in house.http.get(f"{house.sandbox}/control/accounts").json():
        shown = {"identifier", "user_id", "client_id"}
        secrets += [value for key, value in row["credentials"].items() if key not in shown]
    await asyncio.sleep(3)  # Logs are sent in batches.
    server = Postgres(house.settings.home)
    with psycopg.connect(server.url("prefect")) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        assert len(tables) > 20
        seen = 0
        for (table,) in tables:
            for (line,) in connection.execute(f'SELECT t::text FROM "{table}" t'):  # type: ignore[arg-type]
                seen += 1
                found = [secret[:6] for secret in secrets if secret in line]
                assert not found, (table, found)
        assert seen > 100


async def test_the_report_is_one_artifact_with_a_history(house: House) -> None:
    post_id = await house.post(fresh(), "bluesky/studio")
    await house.ended(house.run("publish", post_id))
    await house.ended(house.run("takedown", post_id))
    key = post_id.replace("_", "-")
    asked = {"artifacts": {"key": {"any_": [key]}}}
    found = house.api("POST", "/artifacts/filter", json=asked)
    assert len(found) == 2
    newest = house.api("GET", f"/artifacts/{key}/latest")
    assert "removed" in newest["data"]


async def test_a_sweep_comes_by_itself(house: House) -> None:
    asked = {
        "flows": {"name": {"any_": ["sweep-deliveries"]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    await house.until(lambda: house.api("POST", "/flow_runs/count", json=asked) > 0, within=130)


async def test_what_the_writer_mended_is_sent_by_a_retry(house: House) -> None:
    text = fresh()
    house.order("mastodon", "revoke_token", "status")
    post_id = await house.post(text, "mastodon/studio")
    house.run("publish", post_id)
    assert (await house.settled(post_id))["mastodon/studio"].state is State.HELD
    house.http.delete(f"{house.sandbox}/control/misbehave")
    await house.connect()
    code, report = await _again(
        house.settings, post_id, (State.FAILED, State.HELD), "test", wait=True, quiet=True
    )
    assert (code, report["deliveries"][0]["state"]) == (0, "live")
    assert len(house.there(text)) == 1
