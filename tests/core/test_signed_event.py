"""Only who holds our app's secret speaks for TikTok, lately, and about somebody."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.signed_event import AHEAD, OLDEST, REMOVED, Reason, SignedEvent, read

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SAID = {
    "client_key": "bwo2m45353a6k85",
    "event": "authorization.removed",
    "create_time": 1615338610,
    "user_openid": "act.example12345",
    "content": '{"reason":1}',
}


def body_of(said: Any) -> bytes:
    return json.dumps(said).encode()


def signed(body: bytes, at: datetime = NOW, secret: str = "s3cret") -> str:
    stamp = str(int(at.timestamp()))
    mark = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},s={mark}"


def test_the_documents_own_example_is_read_with_any_of_our_secrets() -> None:
    body = body_of(SAID)
    at = datetime(2021, 3, 10, 1, 10, 10, tzinfo=UTC)
    expected = SignedEvent(REMOVED, "act.example12345", at, Reason.DISCONNECTED)
    assert read(signed(body), body, ["other", "s3cret"], NOW) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"reason":2}', Reason.ACCOUNT_DELETED),
        ('{"reason":5}', Reason.BY_US),
        ('{"reason":99}', Reason.UNKNOWN),
        ("no json", Reason.UNKNOWN),
        (None, Reason.UNKNOWN),
        ({"reason": 2}, Reason.UNKNOWN),
    ],
)
def test_a_reason_that_is_not_known_ends_the_grant_all_the_same(
    content: Any, reason: Reason
) -> None:
    body = body_of(SAID | {"content": content})
    said = read(signed(body), body, ["s3cret"], NOW)
    assert said is not None
    assert (said.event, said.reason) == (REMOVED, reason)


def test_a_retry_of_three_days_is_heard_and_an_older_one_is_a_replay() -> None:
    body = body_of(SAID)
    for at, is_heard in [
        (NOW - OLDEST + timedelta(minutes=1), True),
        (NOW - OLDEST - timedelta(minutes=1), False),
        (NOW + AHEAD, True),
        (NOW + AHEAD + timedelta(seconds=1), False),
    ]:
        assert (read(signed(body, at), body, ["s3cret"], NOW) is not None) is is_heard


@pytest.mark.parametrize(
    "said",
    [[], None, {}, SAID | {"user_openid": ""}, SAID | {"user_openid": 7}, SAID | {"event": 1}],
)
def test_what_says_nobody_is_nothing(said: Any) -> None:
    body = body_of(said)
    assert read(signed(body), body, ["s3cret"], NOW) is None


def test_another_secret_body_or_time_is_refused() -> None:
    body = body_of(SAID)
    header = signed(body)
    assert read(header, body, ["other", ""], NOW) is None
    assert read(header, body, [], NOW) is None
    assert read(header, body + b" ", ["s3cret"], NOW) is None
    later = header.replace("t=17", "t=18", 1)
    assert later != header
    assert read(later, body, ["s3cret"], NOW) is None


@given(st.text(max_size=200), st.binary(max_size=200))
def test_noise_is_refused_and_never_breaks(header: str, body: bytes) -> None:
    assert read(header, body, ["s3cret"], NOW) is None
