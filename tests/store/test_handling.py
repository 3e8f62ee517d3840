"""A request goes its way by itself: asked, carried out, told; and nobody learns who is known."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
import pytest_asyncio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import text

from clickpost.errors import Conflict, InvalidInput, Transient
from clickpost.media import Cache
from clickpost.policy import requesting
from clickpost.requests import Door, Kind, State, Step, next_step
from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.tables import SubjectRequest
from connectors._api import client
from tasks import _wiring, doors, requests
from tasks._wiring import House
from tasks.doors import Asked
from tests.flows.conftest import free_ports
from tests.store.test_requests import ADDRESS, everything, member


@dataclass
class Post:
    """A real mail server that keeps what it got."""

    letters: list[EmailMessage] = field(default_factory=list)
    refuses: int = 0
    port: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuses:
            self.refuses -= 1
            return "451 come again"
        content = envelope.content
        assert isinstance(content, bytes)
        made = message_from_bytes(content, policy=policy.default)
        assert isinstance(made, EmailMessage)
        self.letters.append(made)
        return "250 OK"

    def texts(self) -> list[str]:
        return [str(one.get_content()) for one in self.letters]

    def link(self) -> str:
        """Return the word of the last link that was sent."""
        return re.findall(r"/requests/confirm/(\S+)", self.texts()[-1])[-1]


@pytest.fixture
def post() -> Iterator[Post]:
    made = Post(port=free_ports(1)[0])
    controller = Controller(made, hostname="127.0.0.1", port=made.port)
    controller.start()
    yield made
    controller.stop()


@pytest_asyncio.fixture
async def house(
    store: Store, settings: Settings, post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    mailing = settings.model_copy(
        update={
            "smtp_host": "127.0.0.1",
            "smtp_port": post.port,
            "smtp_security": "none",
            "smtp_from": "ClickPost <privacy@example.com>",
            "public_url": "https://post.example.com",
        }
    )
    made = House(mailing, store, store.vault, client(), Cache(tmp_path), "test")

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    await store.workspace_id()
    yield made
    await made.client.aclose()


async def asked(house: House, kind: Kind = Kind.ERASURE, **more: object) -> SubjectRequest:
    given = {"door": Door.API, "address": ADDRESS, "jurisdiction": "gdpr"} | more
    return (await doors.receive(house.settings, house.store, Asked(kind, **given)))[0]  # type: ignore[arg-type]


async def aged(store: Store, request_id: str, **columns: str) -> None:
    """Move times of a request by intervals, as if they had passed."""
    sets = ", ".join(f"{name} = {name} + interval '{by}'" for name, by in columns.items())
    async with store.engine.begin() as connection:
        await connection.execute(
            text(f"UPDATE subject_request SET {sets} WHERE id = :id"), {"id": request_id}
        )


async def notices(store: Store) -> list[tuple[str, str]]:
    async with store.engine.connect() as connection:
        query = "SELECT event, facts->>'reason' FROM notice ORDER BY created_at"
        return [(row[0], row[1]) for row in await connection.execute(text(query))]


async def test_an_address_of_which_nothing_is_held_is_asked_then_told_so(
    house: House, post: Post
) -> None:
    row = await asked(house)
    assert (await requests.handle(row.id)).step is Step.CHALLENGE
    assert (await requests.handle(row.id)).step is Step.WAIT
    assert len(post.letters) == 1
    assert post.letters[0]["To"] == ADDRESS
    assert post.letters[0]["Auto-Submitted"] == "auto-replied"
    assert await house.store.confirm_by_link(post.link()) is not None
    await requests.handle(row.id)
    done = await house.store.request(row.id)
    assert (done.state, done.outcome) == ("answered", "nothing_held")
    assert "We hold nothing about you" in post.texts()[-1]
    assert house.store.request_secrets(done) == {}
    assert "canary" not in (await everything(house.store)).casefold()
    await requests.handle(row.id)
    assert len(post.letters) == 2, "running it again tells nothing twice"


async def test_the_known_and_the_unknown_get_the_same_letter(house: House, post: Post) -> None:
    await member(house.store, ADDRESS)
    for address in (ADDRESS, "nobody.at.all@example.org"):
        await requests.handle((await asked(house, address=address)).id)
    known, unknown = (
        re.sub(r"[\w-]{43}|[A-Z2-9]{20}|([A-Z2-9]{4}-){4}[A-Z2-9]{4}", "…", one)
        for one in post.texts()
    )
    assert known == unknown


async def test_a_letter_that_was_not_taken_is_sent_anew_and_counts_for_nothing(
    house: House, post: Post
) -> None:
    row = await asked(house)
    post.refuses = 1
    with pytest.raises(Transient) as told:
        await requests.handle(row.id)
    assert "canary" not in str(told.value).casefold()
    assert (await house.store.request(row.id)).acknowledged_at is None
    assert row.id in await house.store.requests_to_handle()
    await requests.handle(row.id)
    assert await house.store.confirm_by_link(post.link()) is not None


async def test_an_address_gets_so_many_letters_a_day(house: House, post: Post) -> None:
    for _ in range(5):
        await requests.handle((await asked(house)).id)
    assert len(post.letters) == 3
    waiting = await house.store.requests_to_handle()
    assert len(waiting) == 2, "they are asked tomorrow"
    for row in await house.store.subject_requests():
        await aged(house.store, row.id, challenge_at="-25 hours")
    await requests.handle(waiting[0])
    assert len(post.letters) == 4


async def test_what_is_done_by_hand_waits_for_an_operator_and_is_told_once(
    house: House, post: Post
) -> None:
    await member(house.store, ADDRESS)
    row = await asked(house, Kind.RECTIFICATION, details="Canary with one n")
    await requests.handle(row.id)
    await house.store.confirm_by_link(post.link())
    for _ in range(2):
        assert (await requests.handle(row.id)).step is Step.ASK
    assert [event for event, _ in await notices(house.store)] == ["request.waiting"]
    await house.store.answer_request(row.id, "by_hand", note="We wrote your name with two n.")
    await requests.handle(row.id)
    assert "two n" in post.texts()[-1]


async def test_a_business_account_needs_its_owner_or_somebody_who_looks(
    house: House, post: Post
) -> None:
    _, workspace_id = await member(house.store, ADDRESS)
    row = await asked(house, account=True, workspace_id=workspace_id)
    await requests.handle(row.id)
    await house.store.confirm_by_link(post.link())
    done = await requests.handle(row.id)
    assert done.step is Step.ASK
    assert "not from its owner" in done.why
    found = await requests.confirm_by_operator(
        house.store, row.id, "operator:ann", "managing director, register of companies"
    )
    assert found.authority is not None
    rules = requesting.load(house.settings.policies)
    standing = await requests.standing_of(house.settings, house.store, rules, found)
    assert next_step(standing) is Step.CARRY_OUT


async def test_a_refusal_says_why_and_where_to_complain(house: House, post: Post) -> None:
    row = await asked(house, Kind.ACCESS)
    with pytest.raises(InvalidInput, match="no ground 'legal_claims' for access"):
        await requests.refuse(
            house.settings, house.store, row.id, "legal_claims", None, "operator:ann"
        )
    await requests.refuse(
        house.settings, house.store, row.id, "excessive", "The fifth this week.", "operator:ann"
    )
    await requests.handle(row.id)
    said = post.texts()[-1]
    assert "GDPR art. 12(5)(b)" in said
    assert "The fifth this week." in said
    assert "supervisory authority" in said
    assert house.store.request_secrets(await house.store.request(row.id)) == {}


async def test_more_time_is_taken_only_where_the_person_was_told(house: House, post: Post) -> None:
    row = await asked(house)
    post.refuses = 1
    with pytest.raises(Transient):
        await requests.extend(house.settings, house.store, row.id, "many at once", "operator:ann")
    assert (await house.store.request(row.id)).due_at == row.due_at
    later = await requests.extend(
        house.settings, house.store, row.id, "many at once", "operator:ann"
    )
    assert later.due_at > row.due_at + timedelta(days=58)
    assert "many at once" in post.texts()[-1]
    with pytest.raises(InvalidInput, match="once"):
        await requests.extend(house.settings, house.store, row.id, "again", "operator:ann")


async def test_a_clock_is_stopped_only_by_a_law_that_says_so(house: House) -> None:
    row = await asked(house)
    with pytest.raises(InvalidInput, match="never stands still"):
        await requests.pause(house.settings, house.store, row.id, "operator:ann")
    row = await asked(house, jurisdiction="uk")
    assert (
        await requests.pause(house.settings, house.store, row.id, "operator:ann")
    ).paused_at is not None


async def test_an_alarm_is_raised_before_a_request_is_overdue_and_once(
    house: House, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asleep(request_id: str) -> bool:
        return False

    monkeypatch.setattr(requests, "wake", asleep)
    await member(house.store, ADDRESS)
    row = await asked(house)
    await requests.handle(row.id)
    swept = await requests.sweep()
    assert (swept.soon, swept.overdue) == (0, 0)
    await house.store.confirm_by_link(post.link())
    await aged(house.store, row.id, due_at="-26 days", received_at="-26 days")
    for _ in range(2):
        assert (await requests.sweep()).soon == 1
    await aged(house.store, row.id, due_at="-26 days")
    swept = await requests.sweep()
    assert swept.overdue == 1
    assert "canary" not in str(swept.rows).casefold()
    said = await notices(house.store)
    assert [event for event, _ in said] == ["request.due_soon"] * 2
    assert "due soon" in said[0][1]
    assert "overdue" in said[1][1]


async def test_what_nobody_confirms_lapses_and_raises_no_alarm(
    house: House, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asleep(request_id: str) -> bool:
        return False

    monkeypatch.setattr(requests, "wake", asleep)
    row = await asked(house)
    await requests.handle(row.id)
    await aged(house.store, row.id, due_at="-29 days", received_at="-29 days")
    assert (await requests.sweep()).soon == 0
    await aged(house.store, row.id, due_at="-2 days", received_at="-2 days")
    await requests.sweep()
    found = await house.store.request(row.id)
    assert (found.state, found.ground) == ("refused", "unverified")
    assert await notices(house.store) == []


@pytest.mark.parametrize(
    "address",
    [
        "nobody",
        "a@b",
        "a@example.org, b@example.org",
        "a@example.org\nBcc: c@d.e",
        "A <a@b.example>",
    ],
)
async def test_what_is_no_address_is_refused(house: House, address: str) -> None:
    with pytest.raises(InvalidInput):
        await asked(house, address=address)


async def test_an_operator_cannot_verify_what_waits_for_no_proof(house: House, post: Post) -> None:
    row = await asked(house)
    await requests.confirm_by_operator(house.store, row.id, "operator:ann", None)
    with pytest.raises(Conflict):
        await requests.confirm_by_operator(house.store, row.id, "operator:ann", None)
    assert (await house.store.request(row.id)).state == State.VERIFIED
