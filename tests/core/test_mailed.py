"""A mail asks what its subject says, however it is written; machines ask nothing."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import letters, mailed
from clickpost.policy import requesting
from clickpost.requests import Kind
from clickpost.settings import PROJECT

PHRASES = requesting.load(PROJECT / "policies").everywhere.phrases


def mail(subject: str = "Data Deletion Request", text: str = "Please.", **heads: str) -> bytes:
    made = EmailMessage()
    made["From"] = heads.pop("From", "Ann <Ann@Example.org>")
    made["Subject"] = subject
    made["Message-ID"] = "<one@example.org>"
    for name, value in heads.items():
        made[name.replace("_", "-")] = value
    made.set_content(text)
    return made.as_bytes()


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        ("Data Deletion Request", "erasure"),
        ("Re: Data Deletion Request", "erasure"),
        ("AW: WG: Fwd: [EN] data-deletion  REQUEST (Ann)", "erasure"),
        ("[EXTERNAL] RE: [de] Löschung meiner Daten!", "erasure"),
        ("Ｄａｔａ Ｄｅｌｅｔｉｏｎ Ｒｅｑｕｅｓｔ", "erasure"),
        ("=?utf-8?q?Data_Deletion_Request?=", "erasure"),
        ("data access request", "access"),
        ("Under-13 report", "child"),
        ("Data Deletion", None),
        ("Metadata deletion requests", None),
        ("", None),
    ],
)
def test_a_subject_asks_whatever_stands_around_it(subject: str, kind: str | None) -> None:
    raw = mail().replace(b"Subject: Data Deletion Request", b"Subject: " + subject.encode())
    assert mailed.kind_of(mailed.parsed(raw).title, PHRASES) == (kind and Kind(kind))


@pytest.mark.parametrize(
    "heads",
    [
        {"Auto_Submitted": "auto-replied"},
        {"Auto_Submitted": "auto-generated"},
        {"Precedence": "bulk"},
        {"List_Id": "<all.example.org>"},
        {"X_Autoreply": "yes"},
        {"Return_Path": "<>"},
        {"From": "MAILER-DAEMON@example.org"},
        {"From": "no-reply@example.org"},
    ],
)
def test_a_machine_asks_nothing(heads: dict[str, str]) -> None:
    assert mailed.parsed(mail(**heads)).automatic
    assert not mailed.parsed(mail(Auto_Submitted="no")).automatic


def test_of_html_only_the_words_are_read_and_no_attachment() -> None:
    made = EmailMessage()
    made["From"] = "ann@example.org"
    made.set_content(
        "<style>p{}</style><script>alert(1)</script><p>CONFIRM <b>ABCD2345</b></p>"
        '<img src="https://tracker.example/x"><p>thanks</p>',
        subtype="html",
    )
    made.add_attachment(b"MZ canary", maintype="application", subtype="exe", filename="a.exe")
    found = mailed.parsed(made.as_bytes())
    assert found.text.split() == ["CONFIRM", "ABCD2345", "thanks"]
    assert mailed.confirms(found.text) == "ABCD2345"


def test_a_reply_confirms_with_its_first_line_alone() -> None:
    assert mailed.confirms("\n confirm: abcd2345.\n\nOn Tuesday you wrote:\n> …") == "ABCD2345"
    assert mailed.confirms("CONFIRM ABCD2345") == "ABCD2345"
    for said in ("> CONFIRM ABCD2345", "I do not CONFIRM ABCD2345", "Hi\nCONFIRM ABCD2345", ""):
        assert mailed.confirms(said) is None


def test_our_own_letter_sent_back_confirms_nothing() -> None:
    from datetime import UTC, datetime

    moment = datetime(2026, 11, 24, tzinfo=UTC)
    about = letters.About(Kind.ERASURE, "A" * 20, moment, "https://x.example", "")
    letter = letters.challenge(about, "https://x.example/y", "ABCD2345", moment)
    for text in (letter.text, f"> {letter.text}", letter.text.replace("\n\n", "\n")):
        assert mailed.confirms(text) is None
        assert all(mailed.confirms(line) is None for line in text.splitlines())


@given(st.binary(max_size=2000))
def test_no_mail_is_too_broken(raw: bytes) -> None:
    found = mailed.parsed(raw)
    assert found.text.isprintable() or "\n" in found.text or "\t" in found.text
    assert mailed.parsed(raw) == found


@given(st.text(max_size=60), st.text(max_size=200))
def test_heads_and_charsets_of_strangers_are_read_or_not(title: str, text: str) -> None:
    raw = (
        b"From: a@b.example\r\nSubject: " + title.encode("utf-8", "replace")
        + b"\r\nContent-Type: text/plain; charset=klingon\r\n\r\n" + text.encode("utf-8", "replace")
    )  # fmt: skip
    mailed.kind_of(mailed.parsed(raw).title, PHRASES)
