"""Requests by mail: asked back always, once each, and nothing else in the mailbox is touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr
from sqlalchemy import text

from clickpost.errors import Transient, Unavailable
from connectors import _mailbox
from tasks import _wiring, requests
from tasks import mailbox as reading
from tasks._wiring import House
from tests.core.test_mailed import mail
from tests.store.imap import Mailbox, mailbox
from tests.store.test_handling import Post, house, post
from tests.store.test_requests import everything

__all__ = ["house", "post"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    with mailbox(tmp_path_factory.mktemp("imap")) as made:
        yield made


@pytest.fixture
def box(server: Mailbox) -> Mailbox:
    with server.opened() as opened:
        opened.delete([one.uid for one in opened.fetch(mark_seen=False) if one.uid])
    return server


@pytest.fixture
def mailing(house: House, box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> House:
    """The house, whose mailbox it is."""
    made = replace(house, settings=box.settings(house.settings))

    async def here() -> House:
        return made

    monkeypatch.setattr(_wiring, "house", here)
    return made


async def handled(mailing: House) -> None:
    for request_id in await mailing.store.requests_to_handle():
        await requests.handle(request_id)


async def test_a_mail_is_asked_back_confirmed_by_a_reply_and_answered(
    mailing: House, box: Mailbox, post: Post
) -> None:
    box.put(mail("Lunch?"), mail("AW: [DE] Data Deletion Request", "I am Canary."))
    done = await reading.read()
    assert (done.received, done.confirmed) == (1, 0)
    assert box.titles() == ["Lunch?"], "what is not for us stays as it is"
    await handled(mailing)
    letter = post.letters[-1]
    assert letter["To"] == "ann@example.org"
    assert letter["Reply-To"] == "privacy@example.com"
    code = re.search(r"this code: ([A-Z2-9]{8})", post.texts()[-1])
    assert code is not None
    quoted = "".join(f"> {line}\n" for line in post.texts()[-1].splitlines())
    title = f"Re: {letter['Subject']}"
    box.put(mail(title, f"CONFIRM {code[1]}\n\nYou wrote:\n{quoted}"))
    done = await reading.read()
    assert done.confirmed == 1
    row = await mailing.store.request(done.request_ids[0])
    assert (row.verified_by, row.door, row.dkim) == ("reply", "mail", "none")
    await handled(mailing)
    assert "We hold nothing" in post.texts()[-1]
    assert box.titles() == ["Lunch?"]
    said = (await everything(mailing.store)).casefold()
    assert "canary" not in said
    assert "ann@example.org" not in said


async def test_a_from_line_proves_nothing(mailing: House, box: Mailbox, post: Post) -> None:
    box.put(mail(), mail("Re: [X]", "CONFIRM ABCD2345"))
    await reading.read()
    await handled(mailing)
    await reading.read()
    [row] = await mailing.store.subject_requests()
    assert row.state == "received"
    assert len(post.letters) == 1


async def test_loops_and_machines_come_to_nothing(mailing: House, box: Mailbox, post: Post) -> None:
    box.put(
        mail(Auto_Submitted="auto-replied"),
        mail(Precedence="list"),
        mail(From="privacy@example.com"),
        mail(From="ClickPost <Privacy@Example.com>"),
        mail(From="mailer-daemon@example.org"),
        mail(From="undisclosed"),
    )
    done = await reading.read()
    assert (done.received, done.passed) == (0, 6)
    assert await mailing.store.subject_requests() == []
    assert post.letters == []


async def test_the_same_asked_again_gets_one_letter(
    mailing: House, box: Mailbox, post: Post
) -> None:
    box.put(*(mail().replace(b"<one@", f"<{n}@".encode()) for n in range(4)))
    await reading.read()
    await handled(mailing)
    box.put(mail())
    await reading.read()
    await handled(mailing)
    assert len(await mailing.store.subject_requests()) == 1
    assert len(post.letters) == 1


async def test_a_mail_that_is_kept_is_taken_once(
    mailing: House, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = replace(mailing, settings=mailing.settings.model_copy(update={"imap_keep": True}))

    async def here() -> House:
        return kept

    monkeypatch.setattr(_wiring, "house", here)
    box.put(mail())
    assert (await reading.read()).received == 1
    async with mailing.store.engine.begin() as connection:
        await connection.execute(text("UPDATE subject_request SET state = 'answered'"))
    assert (await reading.read()).received == 0
    assert box.titles() == ["Data Deletion Request"]


async def test_a_mailbox_that_is_away_or_refuses_is_told_without_whose_it_is(
    mailing: House, monkeypatch: pytest.MonkeyPatch, box: Mailbox
) -> None:
    wrong = SecretStr("wrong canary")
    for changed, error in (
        ({"imap_port": 9}, Transient),
        ({"imap_password": wrong}, Unavailable),
        ({"imap_folder": "Nowhere"}, Unavailable),
    ):
        settings = mailing.settings.model_copy(update=changed)
        with pytest.raises(error) as told:
            _mailbox.fetch(settings, lambda head: True)
        assert "canary" not in str(told.value)


def signing() -> tuple[bytes, bytes]:
    """Return a private key in PEM, and what DNS says of it."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    import base64

    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def test_a_signature_is_noted_for_what_it_is_worth(tmp_path: Path) -> None:
    pem, record = signing()

    def dns(name: bytes, timeout: int = 5) -> bytes:
        return record

    def away(name: bytes, timeout: int = 5) -> bytes:
        raise TimeoutError

    raw = mail()
    by_them = dkim.sign(raw, b"s", b"example.org", pem) + raw
    by_other = dkim.sign(raw, b"s", b"bulk.example", pem) + raw
    said = [
        _mailbox.signature(raw, "ann@example.org", dns),
        _mailbox.signature(by_them, "ann@example.org", dns),
        _mailbox.signature(by_other, "ann@example.org", dns),
        _mailbox.signature(by_them.replace(b"Please.", b"Please!"), "ann@example.org", dns),
        _mailbox.signature(by_them, "ann@example.org", away),
    ]
    assert said == ["none", "pass", "other", "fail", "unknown"]
