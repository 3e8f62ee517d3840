"""A way back counts once, in its browser and its time; what goes wrong is said in plain words."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import invitation
from clickpost.errors import (
    AnotherAccount,
    ClickPostError,
    InvalidInput,
    OutcomeUnknown,
    PlatformRejected,
    RateLimited,
    Reauthorize,
    Transient,
)
from clickpost.invitation import Started, Verdict, judge, lacking, trouble
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLATFORMS = load_platforms(PROJECT / "policies")


def started(**more: object) -> Started:
    values = {"until": NOW + timedelta(minutes=5), "used_at": None, **more}
    return Started("mastodon", invitation.digest_of("me"), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "platform", "browser", "verdict"),
    [
        (started(), "mastodon", "me", Verdict.GOOD),
        (None, "mastodon", "me", Verdict.UNKNOWN),
        (started(), "youtube", "me", Verdict.UNKNOWN),
        (started(), "mastodon", "you", Verdict.ELSEWHERE),
        (started(), "mastodon", None, Verdict.ELSEWHERE),
        (started(used_at=NOW), "mastodon", "you", Verdict.ELSEWHERE),
        (started(used_at=NOW), "mastodon", "me", Verdict.USED),
        (started(until=NOW), "mastodon", "me", Verdict.EXPIRED),
    ],
)
def test_a_state_is_worth_something_once(
    known: Started | None, platform: str, browser: str | None, verdict: Verdict
) -> None:
    assert judge(known, platform, browser, NOW) is verdict


def test_a_whole_permission_holds_its_parts() -> None:
    asked = ["write:statuses", "write:media", "read:accounts"]
    assert lacking(["write", "read"], asked) == []
    assert lacking(["write:statuses", "read"], asked) == ["write:media"]
    assert lacking([], asked) == asked
    assert lacking(None, asked) == [], "an answer that names none granted all (RFC 6749, 5.1)"
    google = "https://www.googleapis.com/auth/"
    assert lacking([f"{google}youtube"], [f"{google}youtube.upload"]) != []


def test_words_of_chance_are_long_and_their_challenge_is_that_of_the_rfc() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B
    assert invitation.challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    words = {invitation.new_word() for _ in range(100)}
    assert len(words) == 100
    assert all(len(base64.urlsafe_b64decode(one + "=")) == 32 for one in words)
    assert invitation.digest_of("a") == hashlib.sha256(b"a").hexdigest()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Transient("POST never left"), "The line to Parrot broke"),
        (OutcomeUnknown("POST got no answer"), "The line to Parrot broke"),
        (TimeoutError(), "The line to Parrot broke"),
        (RateLimited("POST answered 429", retry_after=90), "Try again in 2 min"),
        (RateLimited("POST answered 429", retry_after=1), "Try again in 1 min"),
        (PlatformRejected("POST answered 401", status=401, code="invalid_client"), "our app"),
        (PlatformRejected("POST answered 400", status=400, code="invalid_grant"), "not accept"),
        (Reauthorize("a personal account cannot publish"), "A personal account cannot publish."),
        (Reauthorize("GET /me answered 401", status=401), "did not accept"),
        (AnotherAccount("parrot/main", "@polly", "@jack"), "@polly, and you signed in as @jack"),
        (InvalidInput("This is wrong."), "This is wrong."),
    ],
)  # fmt: skip
def test_trouble_is_told_in_plain_words(error: ClickPostError | TimeoutError, says: str) -> None:
    said = trouble(error, "Parrot")
    assert says in said
    assert "answered" not in said


@given(st.text())
def test_no_word_of_a_platform_is_repeated(error: str) -> None:
    known = {"access_denied", "temporarily_unavailable", "server_error", "invalid_scope"}
    if error not in known:
        expected = "Parrot ended the sign-in without letting ClickPost in."
        assert invitation.denied(error, "Parrot") == expected


@pytest.mark.parametrize(
    ("platform", "gateway", "base", "fault"),
    [
        ("instagram", "http://127.0.0.1:4280", "https://graph.instagram.com", "https addresses"),
        ("instagram", "https://post.example", "https://graph.instagram.com", None),
        ("instagram", "http://127.0.0.1:4280", "http://127.0.0.1:4290/instagram", None),
        ("youtube", "http://127.0.0.1:4280", "https://www.googleapis.com", None),
        ("youtube", "http://post.example", "https://www.googleapis.com", "in clear"),
        ("mastodon", "http://10.0.0.5:4280", "https://mastodon.example", "in clear"),
    ],
)
def test_nobody_is_sent_where_they_cannot_come_back_from(
    platform: str, gateway: str, base: str, fault: str | None
) -> None:
    policy = PLATFORMS[platform]
    if fault is None:
        invitation.reachable(policy, gateway, base)
        return
    with pytest.raises(InvalidInput, match=fault):
        invitation.reachable(policy, gateway, base)


def test_a_platform_without_a_way_in_says_what_to_give_instead() -> None:
    with pytest.raises(InvalidInput, match="leave --browser out, and give identifier"):
        invitation.rules_of(PLATFORMS["bluesky"])
