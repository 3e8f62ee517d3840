"""Feeds, folders and mailboxes by real means: each thing is taken once, whatever stops when."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from sqlmodel import select

from benchmarks import _places
from benchmarks._places import Blog
from clickpost.delivery import State
from clickpost.errors import Refused, Unavailable
from clickpost.media import Cache
from clickpost.policy import triggering
from clickpost.policy.triggers import ARRIVALS, trigger_hash
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewConnection, Store
from clickpost.store.tables import Arrival, Delivery, Notice, Post
from connectors._api import client
from deployments.triggers import faults
from tasks import _runs, _wiring, arrivals
from tasks import triggers as starting
from tasks._wiring import House
from tests.mailserver import MailServer

POST = "post: {to: [bluesky/studio], text: '{title} {link}'}\n"


@dataclass
class Desk:
    """A house whose policies are a test's, and whose Prefect only notes what it is asked for."""

    house: House
    began: list[str] = field(default_factory=list)
    started: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.house.store

    def write(self, text: str) -> None:
        path = self.house.settings.policies / "triggers" / "parrot.yaml"
        path.write_text(f"kind: trigger\nname: parrot\ntitle: Squawks.\n{text}")

    async def take(self) -> arrivals.Took:
        [found] = triggering.load(self.house.settings.policies, faults)
        return await arrivals.take("parrot", trigger_hash(found), "run")

    async def all(self, table: Any) -> list[Any]:
        async with self.store.session() as session:
            return list((await session.scalars(select(table).order_by(table.id))).all())

    async def texts(self) -> list[str]:
        return [row.body["post"]["text"] for row in await self.all(Post)]


@pytest_asyncio.fixture
async def desk(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    policies = tmp_path / "policies"
    shutil.copytree(PROJECT / "policies" / "platforms", policies / "platforms")
    (policies / "triggers").mkdir()
    given = settings.model_copy(update={"policies": policies, "receivers": "127.0.0.1"})
    made = Desk(House(given, store, store.vault, client(), Cache(tmp_path / "media"), "test"))

    async def here() -> House:
        return made.house

    async def begin(flow: str, parameters: Any, *, key: str, **more: Any) -> str:
        made.began.append(key)
        return "run"

    async def start(asked: starting.Asked, cause: starting.Cause) -> None:
        made.started.append((asked.deployment, list(cause.resources)))

    monkeypatch.setattr(_wiring, "house", here)
    monkeypatch.setattr(_runs, "begin", begin)
    monkeypatch.setattr(starting, "start", start)
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "x"})
    await store.add_connection(new)
    yield made
    await made.house.client.aclose()


@pytest.fixture
def blog() -> Iterator[Blog]:
    with _places.blog() as made:
        yield made


async def test_each_new_entry_of_a_feed_becomes_one_post_and_old_ones_none(
    desk: Desk, blog: Blog
) -> None:
    desk.write(f"when: {{feed: '{blog.url}', every: 5 min}}\n{POST}approval: required\n")
    blog.entries = ["old"]
    assert (await desk.take()).new == 0
    blog.entries += ["one", "two"]
    took = await desk.take()
    assert (took.new, took.posts, took.refused) == (2, 2, [])
    assert (await desk.take()).taken == 0
    assert blog.answers == [200, 200, 304]
    assert sorted(await desk.texts()) == ["one https://a.example/one", "two https://a.example/two"]
    assert len(desk.began) == 2
    posts = await desk.all(Post)
    assert {post.approval for post in posts} == {"parrot"}
    assert all(row.facts is None for row in await desk.all(Arrival))
    told = [row for row in await desk.all(Notice) if row.event == "feed.entry"]
    assert {row.facts["post_id"] for row in told} == {post.id for post in posts}


@pytest.mark.parametrize("step", ["_begun", "take_arrival"])
async def test_what_is_killed_while_it_takes_an_entry_takes_it_once(
    desk: Desk, blog: Blog, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    desk.write(f"when: {{feed: '{blog.url}', every: 5 min, first: all}}\n{POST}")
    blog.entries = ["one"]
    victim = arrivals._Look if step == "_begun" else Store
    with monkeypatch.context() as patched:

        async def killed(*given: Any, **more: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(victim, step, killed)
        with pytest.raises(KeyboardInterrupt):
            await desk.take()
    blog.entries = []  # Nor does it need the entry to be there still.
    assert (await desk.take()).posts == 1
    assert await desk.texts() == ["one https://a.example/one"]


async def test_two_looks_at_once_are_one(desk: Desk, blog: Blog) -> None:
    desk.write(f"when: {{feed: '{blog.url}', every: 5 min, first: all}}\n{POST}")
    blog.entries = ["one", "two"]
    await asyncio.gather(*(desk.take() for _ in range(4)))
    assert len(await desk.texts()) == 2


async def test_a_feed_that_would_flood_us_waits_and_what_drafts_stays_a_draft(
    desk: Desk, blog: Blog
) -> None:
    post = "post: {to: [bluesky/studio], text: '{title}', draft: true}\n"
    when = f"when: {{feed: '{blog.url}', every: 5 min, first: all}}\n"
    desk.write(f"{when}{post}at_most: 2 an hour\nrun: alert\n")
    blog.entries = [f"e{number}" for number in range(5)]
    took = await desk.take()
    assert (took.taken, took.waiting) == (2, 3)
    assert (await desk.take()).taken == 0
    assert {row.state for row in await desk.all(Delivery)} == {State.DRAFTED}
    assert desk.began == []
    assert [name for name, _ in desk.started] == ["alert/parrot"] * 2


@asynccontextmanager
async def three_things(desk: Desk, kind: str, box: Path) -> AsyncIterator[str]:
    """Let three things have arrived where a trigger of this kind looks; yield its `when`."""
    match kind:
        case "feed":
            with _places.blog() as blog:
                blog.entries = ["one", "two", "three"]
                yield f"{{feed: '{blog.url}', every: 5 min, first: all}}"
        case "folder":
            for name in ("one", "two", "three"):
                Image.new("RGB", (320, 240), (len(name), len(name[1:]), 9)).save(
                    box / f"{name}.png"
                )
            await asyncio.sleep(0.01)
            yield f"{{folder: '{box}', every: 10 s, settled: 1 ms}}"
        case _:
            async with MailServer().running() as server:
                for number in range(3):
                    server.add(f"From: ann@example.org\nMessage-ID: <{number}@x>")
                yield (
                    f"{{mailbox: 127.0.0.1, port: {server.port}, login: desk, security: none,"
                    " every: 1 min, first: all}"
                )


@pytest.mark.parametrize("kind", ARRIVALS)
async def test_what_arrives_of_any_kind_waits_for_its_hours_and_its_number_or_is_passed_over(
    desk: Desk, kind: str, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKPOST_MAILBOX_DESK_USER", MailServer.user)
    monkeypatch.setenv("CLICKPOST_MAILBOX_DESK_PASSWORD", MailServer.password)
    hour, now = timedelta(hours=1), datetime.now(UTC)
    quiet = f"quiet: {{from: '{now - hour:%H:%M}', to: '{now + hour:%H:%M}', zone: UTC"
    async with three_things(desk, kind, box) as when:
        rule = f"when: {when}\nrun: alert\n"
        desk.write(f"{rule}{quiet}, then: wait}}\n")
        took = await desk.take()
        assert (took.new, took.taken, took.waiting) == (3, 0, 3)
        desk.write(f"{rule}at_most: 2 an hour\n")
        took = await desk.take()
        assert (took.new, took.taken, took.waiting) == (0, 2, 1)
        assert (await desk.take()).waiting == 1
        desk.write(f"{rule}{quiet}, then: skip}}\n")
        took = await desk.take()
        assert (took.taken, took.waiting) == (0, 0)
        desk.write(rule)
        assert (await desk.take()).taken == 0, "what was passed over does not come back"
    assert [name for name, _ in desk.started] == ["alert/parrot"] * 2


async def test_a_feed_inside_our_network_is_not_asked_for(desk: Desk, blog: Blog) -> None:
    desk.write(f"when: {{feed: '{blog.url}', every: 5 min}}\n{POST}")
    given = desk.house.settings.model_copy(update={"receivers": ""})
    desk.house = House(**{**vars(desk.house), "settings": given})
    with pytest.raises(Refused):
        await desk.take()
    assert blog.answers == []


async def test_a_trigger_whose_file_is_newer_than_the_last_apply_does_nothing(
    desk: Desk, blog: Blog
) -> None:
    desk.write(f"when: {{feed: '{blog.url}', every: 5 min}}\n{POST}")
    assert "policy apply" in (await arrivals.take("parrot", "0" * 12, "run")).why_not
    assert blog.answers == []


def _picture(path: Path) -> Path:
    Image.new("RGB", (320, 240), "teal").save(path)
    return path


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


def _watches(box: Path, more: str = "", settled: str = "1 ms") -> str:
    return f"when: {{folder: '{box}', every: 10 s, settled: {settled}{more}}}\n"


async def test_a_file_is_taken_once_it_is_complete_and_then_moved(desk: Desk, box: Path) -> None:
    post = "post: {to: [bluesky/studio], text: '{stem}', alt: '{name}'}\n"
    _picture(box / "sea.jpg")
    (box / "lake.jpg.part").write_bytes(b"half")
    desk.write(_watches(box, settled="1 h") + post)
    assert (await desk.take()).new == 0
    desk.write(_watches(box) + post)
    assert (await desk.take()).posts == 1
    assert await desk.texts() == ["sea"]
    assert sorted(one.name for one in box.iterdir()) == ["lake.jpg.part", "taken"]
    assert [one.name for one in (box / "taken").iterdir()] == ["sea.jpg"]
    _picture(box / "sea.jpg")
    await asyncio.sleep(0.01)
    assert (await desk.take()).posts == 1
    assert len(list((box / "taken").iterdir())) == 2


async def test_a_file_without_a_post_is_an_event_with_ids_alone(desk: Desk, box: Path) -> None:
    _picture(box / "canary-name.jpg")
    await asyncio.sleep(0.01)
    desk.write(_watches(box, ", then: keep") + "run: alert\n")
    assert (await desk.take()).taken == 1
    assert (await desk.take()).new == 0
    [row] = await desk.all(Arrival)
    assert row.asset_id is not None
    [told] = [one for one in await desk.all(Notice) if one.event == "media.added"]
    assert "canary" not in str(told.facts)
    assert desk.started == [("alert/parrot", [f"clickpost.arrival.{row.id}"])]


async def test_a_post_file_waits_for_its_media_and_says_what_is_published(
    desk: Desk, box: Path
) -> None:
    text = "kind: post\ntext: hello\nto: [bluesky/studio]\nmedia: [{file: sea.jpg, alt: sea}]\n"
    (box / "news.yaml").write_text(text)
    await asyncio.sleep(0.01)
    desk.write(_watches(box, ", of: posts"))
    assert (await desk.take()).new == 0
    _picture(box / "sea.jpg")
    await asyncio.sleep(0.01)
    assert (await desk.take()).posts == 1
    assert await desk.texts() == ["hello"]
    assert [one.name for one in box.iterdir()] == ["taken"]


async def test_what_a_file_may_not_say_is_refused_beside_its_reason_and_told(
    desk: Desk, box: Path, tmp_path: Path
) -> None:
    secret = _picture(tmp_path / "secret.jpg")
    (box / "link.jpg").symlink_to(secret)
    head = "kind: post\ntext: x\nto: [bluesky/studio]\n"
    (box / "escapes.yaml").write_text(head + "media: [{file: ../secret.jpg}]\n")
    (box / "linked.yaml").write_text(head + "media: [{file: ./link.jpg}]\n")
    (box / "wrong.yaml").write_text(head + "txet: y\n")
    await asyncio.sleep(0.01)
    desk.write(_watches(box, ", of: posts"))
    took = await desk.take()
    assert (took.posts, len(took.refused)) == (0, 3)
    assert await desk.all(Post) == []
    why = (box / "refused" / "escapes.yaml.why.txt").read_text()
    assert "same folder" in why
    told = [one for one in await desk.all(Notice) if one.event == "trigger.alert"]
    assert len(told) == 3
    assert (await desk.take()).refused == []


async def test_what_was_killed_before_it_moved_a_file_moves_it_and_takes_it_no_more(
    desk: Desk, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _picture(box / "sea.jpg")
    await asyncio.sleep(0.01)
    desk.write(_watches(box) + "post: {to: [bluesky/studio], text: sea}\n")
    with monkeypatch.context() as patched:

        async def killed(look: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(arrivals._Look, "tidied", killed)
        with pytest.raises(KeyboardInterrupt):
            await desk.take()
    assert (box / "sea.jpg").exists()
    assert (await desk.take()).taken == 0
    assert [one.name for one in box.iterdir()] == ["taken"]
    assert await desk.texts() == ["sea"]


async def test_each_mail_that_a_person_wrote_is_one_event_without_a_word_of_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with MailServer().running() as server:
        at = f"mailbox: 127.0.0.1, port: {server.port}, login: desk, security: none, every: 1 min"
        desk.write(f"when: {{{at}}}\nrun: alert\n")
        with pytest.raises(Unavailable, match="CLICKPOST_MAILBOX_DESK_USER"):
            await desk.take()
        (tmp_path / "password").write_text(server.password + "\n")
        monkeypatch.setenv("CLICKPOST_MAILBOX_DESK_USER", server.user)
        monkeypatch.setenv("CLICKPOST_MAILBOX_DESK_PASSWORD_FILE", str(tmp_path / "password"))
        server.add("From: old@example.org\nMessage-ID: <0@x>")
        assert (await desk.take()).new == 0
        server.add("From: Ann <canary@example.org>\nSubject: canary\nMessage-ID: <1@x>")
        server.add("From: bot@example.org\nMessage-ID: <2@x>\nAuto-Submitted: auto-replied")
        server.add("From: Ann <canary@example.org>\nMessage-ID: <1@x>")
        took = await desk.take()
        assert (took.new, took.taken) == (1, 1)
        assert (await desk.take()).new == 0
        assert not any("BODY[" in one or "STORE" in one for one in server.seen)
        server.validity = 8  # The mailbox was made anew: its numbers mean other mails.
        assert (await desk.take()).new == 0
    told = [one for one in await desk.all(Notice) if one.event == "mail.received"]
    assert len(told) == len(desk.started) == 1
    kept = [row.model_dump() for row in [*told, *await desk.all(Arrival)]]
    assert "canary" not in str(kept)


async def test_a_mail_server_that_refuses_the_password_is_for_an_operator(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKPOST_MAILBOX_DESK_USER", "desk")
    monkeypatch.setenv("CLICKPOST_MAILBOX_DESK_PASSWORD", "canary-wrong")
    async with MailServer().running() as server:
        at = f"mailbox: 127.0.0.1, port: {server.port}, login: desk, security: none, every: 1 min"
        desk.write(f"when: {{{at}}}\nrun: alert\n")
        with pytest.raises(Unavailable, match="sign-in") as refused:
            await desk.take()
    assert "canary" not in str(refused.value)
