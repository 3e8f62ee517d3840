"""Every outcome has a verdict, every file a place or a reason, every moment an answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import errors, publishing
from clickpost.contract import Pending, Receipt
from clickpost.delivery import STOPPABLE, State, may_move
from clickpost.draft import Enclosed, Late, Wish
from clickpost.errors import ClickPostError, ContentRejected, Fault, PlatformError
from clickpost.policy.load import load_platforms
from clickpost.settings import PROJECT

POLICIES = load_platforms(PROJECT / "policies")
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
EXPECTED = {
    "Transient": ("transient", State.READY),
    "RateLimited": ("rate_limited", State.READY),
    "TokenExpired": ("expired", State.READY),
    "PrepareAgain": ("prepare_again", State.READY),
    "NotReady": ("not_ready", State.READY),
    "OutcomeUnknown": ("unknown", State.UNKNOWN),
    "Reauthorize": ("reauthorize", State.HELD),
    "PlatformRejected": ("rejected", State.FAILED),
    "PlatformError": ("unexpected", State.FAILED),
    "NotFound": ("unexpected", State.FAILED),
    "UnexpectedResponse": ("unexpected", State.FAILED),
}
CLASSES = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, ClickPostError)
]


def made(kind: type[ClickPostError]) -> ClickPostError:
    if kind is errors.RateLimited:
        return errors.RateLimited("POST /x: 429", retry_after=7.0)
    if issubclass(kind, PlatformError):
        return kind("POST /x: 400", detail="because", field="text")
    if kind is ContentRejected:
        return ContentRejected("parrot", (Fault("text", "1", "2"),))
    if kind is errors.Restored:
        return errors.Restored()
    if kind is errors.AnotherAccount:
        return errors.AnotherAccount("parrot/a", "polly", "jack")
    return kind("no")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("spent_for", [timedelta(0), timedelta(days=4)])
def test_every_error_has_a_verdict_that_the_state_machine_knows(
    kind: type[ClickPostError], spent_for: timedelta
) -> None:
    tries = [publishing.Try(NOW - spent_for, "transient")]
    verdict = publishing.verdict_of(made(kind), 2, tries=tries, now=NOW)
    name, state = EXPECTED.get(kind.__name__, ("refused", State.FAILED))
    spent = state is State.READY and bool(spent_for)
    assert (verdict.name, verdict.state) == (name, State.FAILED if spent else state)
    assert may_move(State.SENDING, verdict.state)
    assert verdict.again == (verdict.state is State.READY)
    assert verdict.reason
    if verdict.state in (State.FAILED, State.HELD):
        assert verdict.who_acts
        assert not verdict.who_acts.startswith("nobody")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), ValueError("x")])
def test_an_error_that_nobody_knows_leaves_the_outcome_unknown(error: BaseException) -> None:
    verdict = publishing.verdict_of(error, 1)
    assert (verdict.state, verdict.again) == (State.UNKNOWN, False)


def test_a_yes_that_cannot_be_read_leaves_the_outcome_unknown() -> None:
    error = errors.UnexpectedResponse("POST /x answered no JSON object", status=200)
    assert publishing.verdict_of(error, 1).state is State.UNKNOWN


def test_answers_are_live_or_processing() -> None:
    assert publishing.verdict_of(Receipt("1"), 1).state is State.LIVE
    verdict = publishing.verdict_of(Pending({}, 3.0), 1)
    assert (verdict.state, verdict.wait) == (State.PROCESSING, 3.0)


def test_a_rate_limit_waits_as_long_as_it_says() -> None:
    assert publishing.verdict_of(made(errors.RateLimited), 1).wait == 7.0


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_waits_grow_to_five_minutes_and_chance_spreads_all_of_it(
    attempts: int, chance: float
) -> None:
    longest = publishing.backoff(attempts)
    assert 1 <= longest <= publishing.backoff(attempts + 1) <= 300
    assert publishing.backoff(attempts, chance) == pytest.approx(chance * longest)
    assert publishing.verdict_of(made(errors.Transient), attempts, chance=0.5).wait == longest / 2


def test_a_new_token_is_used_at_once_and_a_second_one_that_ends_waits() -> None:
    assert publishing.verdict_of(made(errors.TokenExpired), 1).wait == 0
    assert publishing.verdict_of(made(errors.TokenExpired), 5).wait > 0


def ago(minutes: float, verdict: str) -> publishing.Try:
    return publishing.Try(NOW - timedelta(minutes=minutes), verdict)


def test_what_fails_is_given_up_after_its_deadline_however_often_it_was_tried() -> None:
    young = [ago(59, "transient")] * 50
    assert publishing.verdict_of(made(errors.Transient), 51, tries=young, now=NOW).again
    old = [ago(61, "transient"), ago(1, "not_ready")]
    verdict = publishing.verdict_of(made(errors.Transient), 3, tries=old, now=NOW)
    assert (verdict.state, verdict.who_acts) == (State.FAILED, "an operator")
    assert str(verdict.reason).endswith("(tried for more than 1 h)")


def test_neither_a_part_that_went_out_nor_a_limit_is_held_against_a_delivery() -> None:
    for name in ("live", "rate_limited"):
        tries = [ago(500, "transient"), ago(61, name)]
        assert publishing.verdict_of(made(errors.Transient), 3, tries=tries, now=NOW).again
    limited = [ago(60 * 24 * 2, "rate_limited")] * 9
    assert publishing.verdict_of(made(errors.RateLimited), 10, tries=limited, now=NOW).again


@pytest.mark.parametrize(
    ("late", "state"), [("publish", None), ("skip", State.MISSED), ("ask", State.HELD)]
)
def test_what_came_late_follows_its_policy(late: Late, state: State | None) -> None:
    due = NOW - publishing.GRACE - timedelta(seconds=1)
    found = publishing.timing(due, None, late, NOW)
    assert isinstance(found, publishing.Go if state is None else publishing.TooLate)
    assert getattr(found, "state", None) is state
    assert publishing.timing(NOW - publishing.GRACE, None, late, NOW) == publishing.Go()
    assert publishing.timing(NOW, NOW + timedelta(1), late, NOW) == publishing.Wait(
        NOW + timedelta(1)
    )


Kind = Literal["image", "video"]
KINDS = st.lists(st.sampled_from(("image", "video")), max_size=14)


def wish(kinds: list[Kind], **said: Any) -> Wish:
    media = [Enclosed(asset_id=str(n), kind=kind, file=f"{n}") for n, kind in enumerate(kinds)]
    return Wish(media=tuple(media), **said)


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(kinds=KINDS)
def test_chosen_media_are_what_the_platform_takes_in_their_order(
    name: str, kinds: list[Kind]
) -> None:
    policy = POLICIES[name]
    try:
        kept, notes = publishing.choose_media(wish(kinds), policy)
    except ContentRejected:
        assert policy.media.required != "none"
        return
    assert [one.asset_id for one in kept] == sorted((o.asset_id for o in kept), key=int)
    assert len(kept) + len(notes) == len(kinds)
    images = sum(one.kind == "image" for one in kept)
    assert images <= policy.images.max
    assert len(kept) - images <= policy.video.max
    if not (policy.album and policy.album.mixed):
        assert images in (0, len(kept))


@pytest.mark.parametrize("name", ["bluesky", "mastodon"])
def test_who_wants_all_media_or_none_is_told_what_does_not_go(name: str) -> None:
    with pytest.raises(ContentRejected, match="at most 4 images"):
        publishing.choose_media(wish(["image"] * 5, media_fit="refuse"), POLICIES[name])


@pytest.mark.parametrize(("name", "kinds"), [("instagram", []), ("youtube", ["image"])])
def test_media_that_are_required_are_missed(name: str, kinds: list[Kind]) -> None:
    with pytest.raises(ContentRejected, match="media"):
        publishing.choose_media(wish(kinds), POLICIES[name])


def test_the_same_content_has_the_same_hash_whatever_the_order_of_its_keys() -> None:
    one, other = [{"a": 1, "b": "é"}], [{"b": "é", "a": 1}]
    assert publishing.content_hash(one) == publishing.content_hash(other)
    assert publishing.content_hash(one) != publishing.content_hash([{"a": 1, "b": "e\u0301"}])


def test_a_delivery_whose_run_was_cancelled_ends_and_says_what_of_it_is_there() -> None:
    assert publishing.called_off(0).state is State.CANCELLED
    partly = publishing.called_off(2)
    assert (partly.state, partly.who_acts) == (State.FAILED, "an operator")
    assert "after 2 parts of its thread had been sent" in partly.reason
    assert all(may_move(state, State.CANCELLED) for state in STOPPABLE)


def test_a_platforms_own_sentence_is_said_once() -> None:
    detail = "The access token was revoked"
    for said in ("POST /statuses answered 401", f"POST /statuses answered 401 {detail}"):
        verdict = publishing.verdict_of(errors.Reauthorize(said, detail=detail), 1)
        assert str(verdict.reason).count(detail) == 1


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.OutcomeUnknown("POST media got no answer"), True),
        (errors.UnexpectedResponse("POST media answered no JSON object", status=200), True),
        (errors.UnexpectedResponse("POST media answered 418", status=418), False),
        (errors.UnexpectedResponse("POST media cannot be sent"), False),
        (errors.Reauthorize("POST media answered 401", status=401), False),
    ],
)
def test_what_nobody_sees_yet_may_run_again(error: ClickPostError, again: bool) -> None:
    verdict = publishing.verdict_of(publishing.unsent(error), 1)
    assert verdict.again is again
    assert verdict.state is not State.UNKNOWN
