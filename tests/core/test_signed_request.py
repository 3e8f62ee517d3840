"""Only who holds our app's secret speaks for Meta, and only while it holds."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.signed_request import SignedRequest, read

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SAID = {"algorithm": "HMAC-SHA256", "issued_at": 1291836800, "user_id": "218471"}


def coded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(said: Any, secret: str = "s3cret") -> str:
    payload = coded(json.dumps(said).encode())
    mark = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).digest()
    return f"{coded(mark)}.{payload}"


def test_what_meta_signed_is_read_with_any_of_our_secrets() -> None:
    expected = SignedRequest("218471", datetime(2010, 12, 8, 19, 33, 20, tzinfo=UTC))
    assert read(signed(SAID), ["other", "s3cret"], NOW) == expected
    mixed = {"algorithm": "hmac-sha256", "user_id": 7, "expires": 0}
    assert read(signed(mixed), ["s3cret"], NOW) == SignedRequest("7")


@pytest.mark.parametrize(
    "said",
    [
        SAID | {"algorithm": "none"},
        SAID | {"algorithm": None},
        SAID | {"user_id": ""},
        SAID | {"user_id": None},
        SAID | {"user_id": True},
        SAID | {"user_id": ["218471"]},
        {"algorithm": "HMAC-SHA256"},
        SAID | {"expires": 1291840400},
        ["218471"],
        None,
    ],
)
def test_what_is_ended_or_says_nobody_is_refused(said: Any) -> None:
    assert read(signed(said), ["s3cret"], NOW) is None


def test_what_another_signed_is_refused() -> None:
    genuine = signed(SAID)
    mark, _, payload = genuine.partition(".")
    forged = coded(json.dumps(SAID | {"user_id": "1"}).encode())
    for given_, secrets in (
        (genuine, []),
        (genuine, ["", "other"]),
        (f"{mark}.{forged}", ["s3cret"]),
        (f".{payload}", ["s3cret"]),
        (payload, ["s3cret"]),
        (f"{mark}é.{payload}", ["s3cret"]),
        (genuine + "A" * 5000, ["s3cret"]),
        (signed(SAID, ""), [""]),
    ):
        assert read(given_, secrets, NOW) is None


@given(st.text())
def test_nothing_that_comes_in_breaks_it(text: str) -> None:
    assert read(text, ["s3cret"], NOW) is None


@pytest.mark.parametrize("moment", [-1, 0, 1e300, float("nan"), "1291836800", True])
def test_a_moment_that_is_none_is_left_out(moment: Any) -> None:
    said = read(signed(SAID | {"issued_at": moment}), ["s3cret"], NOW)
    assert said is not None
    assert said.issued_at is None or moment is True
