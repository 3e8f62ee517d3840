"""Triggers of every kind on a real server: applied, killed, applied; and what arrives starts runs.

An entry is published in a feed that a server of HTTP serves, a picture is written into a folder, a
mail is put into the mailbox of an IMAP server.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks import _places
from benchmarks._places import Blog
from clickpost.settings import PROJECT
from deployments import agreeing, runs
from tests.flows.conftest import House, free_ports

pytestmark = pytest.mark.xdist_group("stack")

WHENS = {
    "by-cron": "cron: '0 3 * * *', zone: Europe/Berlin",
    "by-interval": "every: 1 d",
    "by-rule": "rrule: FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9, zone: Asia/Tokyo",
    "on-event": "event: post.gone, match: {platform: mastodon}",
    "on-absence": "no: post.live, for: 20 d",
    "on-webhook": "webhook: cms",
}
APPLY = ("policy", "apply")


class Desk:
    """The triggers of the running stack, written as an operator writes them."""

    def __init__(self, house: House) -> None:
        self.house, self.folder = house, house.settings.policies / "triggers"
        self.shipped = set(self.folder.iterdir())

    def write(self, name: str, when: str, more: str = "") -> None:
        text = f"kind: trigger\nname: {name}\ntitle: A test's.\nwhen: {{{when}}}\nrun: tell\n{more}"
        self.folder.joinpath(f"{name}.yaml").write_text(text)

    def command(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        """Start `clickpost …` for this stack."""
        given = self.house.settings
        said = {
            "CLICKPOST_HOME": given.home,
            "CLICKPOST_POLICIES": given.policies,
            "CLICKPOST_PREFECT_PORT": given.prefect_port,
            "CLICKPOST_GATEWAY_PORT": given.gateway_port,
            "PYTHONUNBUFFERED": 1,
        }
        environment = {name: str(value) for name, value in said.items()}
        return subprocess.Popen(
            [sys.executable, "-c", "from cli.entry import run; run()", *words],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            **how,
        )

    def made(self) -> int:
        """Return how many deployments Prefect has by now."""
        return int(self.house.api("POST", "/deployments/count", json={}))

    async def plan(self) -> list[str]:
        policies = agreeing.policies_of(self.house.settings)
        return [one.name for one in (await agreeing.plan(policies)).changes]

    async def apply(self) -> list[str]:
        policies = agreeing.policies_of(self.house.settings)
        return [one.name for one in (await agreeing.apply(policies)).changes]

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Return its runs that have ended."""
        found = self.house.api("GET", f"/deployments/name/{deployment}")
        asked = {"deployments": {"id": {"any_": [found["id"]]}}}
        every = self.house.api("POST", "/flow_runs/filter", json=asked)
        return [one for one in every if one["state_type"] in ("COMPLETED", "FAILED")]

    def look_now(self, trigger: str) -> None:
        """Press Quick run in the UI."""
        found = self.house.api("GET", f"/deployments/name/take-arrivals/{trigger}")
        self.house.api("POST", f"/deployments/{found['id']}/create_flow_run", json={})


@pytest_asyncio.fixture
async def desk(house: House) -> AsyncIterator[Desk]:
    made = Desk(house)
    with temporary_settings({PREFECT_API_URL: runs.api_url(house.settings)}):
        yield made
        for path in set(made.folder.iterdir()) - made.shipped:
            path.unlink()
        await made.apply()


@pytest.fixture
def blog() -> Iterator[Blog]:
    with _places.blog() as made:
        yield made


@contextmanager
def watching(desk: Desk) -> Iterator[subprocess.Popen[str]]:
    """Run `clickpost policy apply --watch`, until it is killed."""
    watch = desk.command(*APPLY, "--watch", stderr=subprocess.STDOUT)
    patience = threading.Timer(60, watch.kill)
    patience.start()
    try:
        yield watch
    finally:
        patience.cancel()
        watch.kill()
        watch.communicate(timeout=10)


def heard(watch: subprocess.Popen[str], *words: str) -> str:
    """Return the next line that holds any of the words, of what it says within a minute."""
    assert watch.stdout is not None
    for line in watch.stdout:
        if any(one in line for one in words):
            return line
    raise AssertionError(f"it ended without {words}")


async def test_every_kind_is_applied_also_after_a_kill_and_what_arrives_starts_its_run(
    desk: Desk, blog: Blog, tmp_path: Path
) -> None:
    (outbox := tmp_path / "outbox").mkdir()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}/feed.xml"
    with _places.imap_server(tmp_path) as port:
        mailbox = f"mailbox: 127.0.0.1, port: {port}, login: stack, security: none"
        arrive = {
            "in-feed": f"feed: '{blog.url}', every: 1 h, first: all",
            "in-folder": f"folder: '{outbox}', every: 10 s, settled: 1 s",
            "in-mailbox": f"{mailbox}, every: 10 s, first: all",
            "in-nothing": f"feed: '{nobody}', every: 1 h",
        }
        before = desk.made()
        await asyncio.to_thread(killed_while_it_applied, desk, arrive, before)
        left = await desk.plan()
        assert "trigger on-event" in left, "automations come last"
        again = await asyncio.to_thread(desk.command(*APPLY).communicate, timeout=60)
        assert f"{len(left)} added" in again[0]
        assert await desk.apply() == []

        blog.entries.append("canary-entry")
        Image.new("RGB", (320, 240), "teal").save(outbox / "canary-file.png")
        await asyncio.to_thread(_places.put_mail, port, "canary-mail@example.org")
        desk.look_now("in-feed")
        desk.look_now("in-nothing")
        for name in ("in-feed", "in-folder", "in-mailbox", "in-nothing-failed"):
            await desk.house.until(lambda name=name: bool(desk.runs(f"tell/{name}")), within=40)
    found = {name: desk.runs(f"tell/{name}") for name in arrive}
    assert [len(one) for one in found.values()] == [1, 1, 1, 0]
    for name, [run] in list(found.items())[:3]:
        assert f"trigger:{name}" in run["tags"]
        assert any(tag.startswith("policy:") for tag in run["tags"])
    assert "canary" not in str(found)
    [failed] = desk.runs("take-arrivals/in-nothing")
    assert failed["state"]["message"].startswith("not looked: ")
    assert (outbox / "taken" / "canary-file.png").exists()


def killed_while_it_applied(desk: Desk, arrive: dict[str, str], before: int) -> None:
    """Let a watch see a wrong file, then right ones of each kind; kill it in the midst of these."""
    with watching(desk) as watch:
        heard(watch, "nothing to do", " changed")  # What forms offer may have changed.
        desk.write("on-event", "evnt: post.gone")
        assert "on-event.yaml:4:8: when.evnt: unknown key" in heard(watch, "unknown key")
        assert desk.made() == before
        for name, when in (WHENS | arrive).items():
            desk.write(name, when, "on_failure: {run: tell}\n" if name == "in-nothing" else "")
        end = time.monotonic() + 20
        while desk.made() == before:
            assert time.monotonic() < end, "it saw no change"
