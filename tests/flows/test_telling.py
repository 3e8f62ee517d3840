"""What happened arrives: by mail, by signed webhook, as an event, also when workers are killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from prefect.settings import PREFECT_API_URL, temporary_settings

from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import InvalidInput
from clickpost.media import Cache
from clickpost.settings import PROJECT, Settings
from clickpost.store import NewChannel, NewConnection, NewPost, Store
from connectors import _channels
from connectors._api import client
from tasks import _wiring, telling
from tasks._wiring import House
from tests.flows.conftest import House as Running
from tests.flows.conftest import free_ports

KEY = "whsec_" + "QUJD" * 11


@dataclass
class Receiver:
    """A real HTTP server that keeps what it got, and answers as told."""

    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)
    """Processes to kill at the next webhook, before its answer."""
    url: str = ""

    @property
    def hooks(self) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for path, headers, body in self.got if path == "/hook"]

    @property
    def events(self) -> list[dict[str, Any]]:
        bodies = [json.loads(body) for path, _, body in self.got if path.endswith("/events")]
        return [event for body in bodies for event in body]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            made.got.append((self.path, headers, body))
            if self.path == "/hook":
                for pid in made.kills:
                    os.kill(pid, signal.SIGKILL)
                made.kills.clear()
            status = made.answers.pop(0) if self.path == "/hook" and made.answers else 204
            self.send_response(status)
            self.send_header("retry-after", "3000")
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_error(404)  # A Prefect server without CSRF tokens.

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    with temporary_settings({PREFECT_API_URL: f"{made.url}/api"}):
        yield made
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Mailbox:
    """What a real mail server took."""

    messages: list[Message] = field(default_factory=list)
    refuses: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuses:
            self.refuses -= 1
            return "451 ops@example.com is over quota, try later"
        assert isinstance(envelope.content, bytes)
        self.messages.append(message_from_bytes(envelope.content))
        return "250 OK"


@pytest.fixture
def mail() -> Iterator[tuple[Mailbox, int]]:
    box, port = Mailbox(), free_ports(1)[0]
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    yield box, port
    server.stop()


@pytest_asyncio.fixture
async def house(
    store: Store,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mail: tuple[Mailbox, int],
) -> AsyncIterator[House]:
    posting = settings.model_copy(
        update={
            "smtp_host": "127.0.0.1",
            "smtp_port": mail[1],
            "smtp_security": "none",
            "smtp_from": "clickpost@example.org",
            "receivers": "127.0.0.1",
        }
    )
    made = House(posting, store, store.vault, client(), Cache(tmp_path), "test")

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    yield made
    await made.client.aclose()


async def failed(store: Store) -> str:
    """Let a delivery fail; return its id."""
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "secret"})
    connection = await store.add_connection(new)
    made = await store.create_post(NewPost(PostFile(text="canary words"), (), (connection.id,)))
    delivery_id = (await store.deliveries_of(made.post_id))[0].id
    await store.move(
        delivery_id,
        State.PLANNED,
        State.FAILED,
        reason="POST /xrpc answered 400: too long",
        who_acts="the writer",
    )
    return delivery_id


async def hooked(store: Store, receiver: Receiver) -> None:
    secrets = _channels.checked_webhook(f"{receiver.url}/hook", KEY)
    await store.add_channel(await store.workspace_id(), NewChannel("hook", "webhook", secrets))


async def mailed(house: House) -> None:
    secrets = _channels.checked_email("ops@example.com", house.settings)
    new = NewChannel("mail", "email", secrets)
    await house.store.add_channel(await house.store.workspace_id(), new)


async def time_passes(store: Store) -> None:
    """Let every wait and lease be over."""
    async with store.engine.begin() as db:
        await db.exec_driver_sql("UPDATE telling SET not_before = NULL WHERE state = 'waiting'")


def documented() -> Any:
    """Return the function that the documents give to receivers."""
    page = (PROJECT / "docs" / "how-to" / "be-told.md").read_text()
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names["is_genuine"]


async def test_a_failure_arrives_by_mail_webhook_and_event_once_and_without_content(
    house: House, receiver: Receiver, mail: tuple[Mailbox, int]
) -> None:
    await hooked(house.store, receiver)
    await mailed(house)
    delivery_id = await failed(house.store)
    for _ in range(3):
        await telling.work()
        await time_passes(house.store)
    assert len(receiver.hooks) == len(mail[0].messages) == len(receiver.events) == 1
    message, (headers, body) = mail[0].messages[0], receiver.hooks[0]
    assert message["To"] == "ops@example.com"
    assert message["Subject"].strip().startswith("[ClickPost] bluesky/studio: post_")
    text = message.get_payload(decode=True).decode()
    assert "Who acts next: the writer" in text
    assert "clickpost posts retry post_" in text
    said = json.loads(body)
    assert (said["type"], said["data"]["subject"]) == ("post.failed", delivery_id)
    event = receiver.events[0]
    assert event["event"] == "post.failed"
    assert event["resource"]["prefect.resource.id"] == f"clickpost.delivery.{delivery_id}"
    assert "studio" not in json.dumps(event), "a name in Prefect"
    assert "answered" not in json.dumps(event), "a reason in Prefect"
    for whole in (text, body.decode(), str(headers), json.dumps(event)):
        assert "canary" not in whole


async def test_a_receiver_can_tell_ours_from_forged_and_from_replayed(
    house: House, receiver: Receiver
) -> None:
    await hooked(house.store, receiver)
    await failed(house.store)
    await telling.work()
    headers, body = receiver.hooks[0]
    is_genuine = documented()
    assert is_genuine(headers, body, KEY)
    assert not is_genuine(headers, body + b" ", KEY)
    assert not is_genuine(headers, body, "whsec_" + "QUJE" * 11)
    assert not is_genuine(headers | {"webhook-id": "note_other"}, body, KEY)
    old = str(int(headers["webhook-timestamp"]) - 400)
    assert not is_genuine(headers | {"webhook-timestamp": old}, body, KEY)


async def test_a_receiver_that_is_down_gets_it_later_with_the_same_id(
    house: House, receiver: Receiver
) -> None:
    await hooked(house.store, receiver)
    await failed(house.store)
    receiver.answers = [500, 429]
    await telling.work()
    waits = (await house.store.untold(datetime.now(UTC)))[0]
    assert waits.reason == "the receiver answered 500"
    await telling.work()  # Not before its time.
    assert len(receiver.hooks) == 1
    await time_passes(house.store)
    await telling.work()
    waits = (await house.store.untold(datetime.now(UTC)))[0]
    assert waits.again_at is not None
    assert waits.again_at - datetime.now(UTC) > timedelta(minutes=45), "Retry-After is not kept to"
    await time_passes(house.store)
    await telling.work()
    assert len({headers["webhook-id"] for headers, _ in receiver.hooks}) == 1
    assert len(receiver.hooks) == 3
    assert await house.store.untold(datetime.now(UTC)) == []


async def test_one_channels_trouble_holds_up_no_other_and_names_no_address(
    house: House, receiver: Receiver, mail: tuple[Mailbox, int]
) -> None:
    await hooked(house.store, receiver)
    await mailed(house)
    mail[0].refuses = 1
    await failed(house.store)
    await telling.work()
    assert len(receiver.hooks) == 1
    waits = (await house.store.untold(datetime.now(UTC)))[0]
    assert (waits.channel, waits.reason) == ("mail", "the mail server did not take it (451)")
    await time_passes(house.store)
    await telling.work()
    assert (len(mail[0].messages), len(receiver.hooks)) == (1, 1)


async def test_chat_gets_one_message_once(house: House, receiver: Receiver) -> None:
    secrets = _channels.checked_chat(f"{receiver.url.replace('http', 'json', 1)}/chat")
    new = NewChannel("team", "chat", secrets)
    await house.store.add_channel(await house.store.workspace_id(), new)
    for _ in range(3):
        await failed(house.store)
    for _ in range(2):
        await telling.work()
        await time_passes(house.store)
    told = [json.loads(body) for path, _, body in receiver.got if path.startswith("/chat")]
    assert len(told) == 1
    assert told[0]["title"].endswith("(and 2 more)")
    assert told[0]["message"].count("Who acts next: the writer") == 3


async def test_many_at_once_are_one_mail(house: House, mail: tuple[Mailbox, int]) -> None:
    await mailed(house)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        for _ in range(7):
            await failed(house.store)
        await asyncio.gather(telling.work(), telling.work(), return_exceptions=True)
    assert [one["Subject"][-12:] for one in mail[0].messages] == ["(and 6 more)"]


CHILD = """
import asyncio, os, signal, sys
from clickpost.delivery import State
from clickpost.settings import Settings
from clickpost.store import Store
from tasks import telling

async def moved():
    store = await Store.of(Settings())
    await store.move(sys.argv[2], State.PLANNED, State.MISSED, who_acts="an operator")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(moved() if sys.argv[1] == "move" else telling.work())
"""


def child(house: House, receiver: Receiver, *words: str) -> subprocess.Popen[bytes]:
    """Start another worker's process."""
    url = house.settings.database_url
    assert url is not None
    env = {
        **os.environ,
        "CLICKPOST_DATABASE_URL": url.get_secret_value(),
        "CLICKPOST_HOME": str(house.settings.home),
        "CLICKPOST_RECEIVERS": "127.0.0.1",
        "PREFECT_API_URL": f"{receiver.url}/api",
    }
    return subprocess.Popen([sys.executable, "-c", CHILD, *words], env=env, cwd=PROJECT)


async def test_a_worker_killed_right_after_the_change_leaves_nothing_untold(
    house: House, receiver: Receiver
) -> None:
    await hooked(house.store, receiver)
    delivery_id = await failed(house.store)
    await house.store.move(delivery_id, State.FAILED, State.PLANNED)
    process = child(house, receiver, "move", delivery_id)
    assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL
    await telling.work()
    assert [json.loads(body)["type"] for _, body in receiver.hooks] == [
        "post.failed",
        "post.missed",
    ]


async def test_a_worker_killed_while_it_tells_is_followed_by_one_that_tells_under_the_same_id(
    house: House, receiver: Receiver
) -> None:
    await hooked(house.store, receiver)
    await failed(house.store)
    process = child(house, receiver, "tell")
    receiver.kills = [process.pid]
    assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL
    await telling.work()  # Its lease still holds.
    assert len(receiver.hooks) == 1
    await time_passes(house.store)
    await telling.work()
    await time_passes(house.store)
    await telling.work()
    ids = [headers["webhook-id"] for headers, _ in receiver.hooks]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert len(receiver.events) == 1


@pytest.mark.parametrize("url", ["ftp://example.com", "file:///etc/passwd", "example.com", ""])
def test_a_webhook_goes_by_http_or_not_at_all(url: str) -> None:
    with pytest.raises(InvalidInput, match="https://"):
        _channels.checked_webhook(url, KEY)


def test_mail_needs_a_server_and_one_address(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="CLICKPOST_SMTP_HOST"):
        _channels.checked_email("ops@example.com", settings)
    for address in ("nobody", "a@b.c, d@e.f", "a@b.c\r\nBcc: d@e.f"):
        with pytest.raises(InvalidInput, match="one address"):
            _channels.checked_email(address, settings)


def test_a_chat_address_that_apprise_does_not_know_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        _channels.checked_chat("canary://token")
    assert "canary" not in str(caught.value)


@pytest.mark.xdist_group("stack")
async def test_prefect_hears_of_a_failure_and_the_channel_is_told_on_the_stack(
    stack: Any, receiver: Receiver
) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        store = await Store.of(stack.settings)
        try:
            await hooked(store, receiver)
            running = Running(stack.settings, store)
            delivery_id = await failed(store)
            await running.until(lambda: bool(receiver.hooks), within=90)
            asked = {"filter": {"event": {"name": ["post.failed"]}}}
            resource = f"clickpost.delivery.{delivery_id}"
            await running.until(
                lambda: resource in str(running.api("POST", "/events/filter", json=asked)), 20
            )
        finally:
            await store.remove_channel("hook")
            await store.close()
