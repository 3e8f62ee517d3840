"""A question shows no content, takes only its own answers, and none leads to a second send."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.asking import (
    ANSWERS,
    Answer,
    Question,
    Sent,
    Shown,
    Standing,
    checked,
    decided,
    question_of,
    worded,
)
from clickpost.delivery import State, may_move
from clickpost.errors import InvalidInput
from clickpost.publishing import ASK, TooLate, timing

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
UNKNOWN = Standing(State.UNKNOWN, "cannot tell", 0, 1)
LATE = Standing(State.HELD, f"20 min late; {ASK}", 0, 1)
REST = Standing(State.FAILED, "no", 1, 3)
ASKED = {Question.OUTCOME: UNKNOWN, Question.LATE: LATE, Question.REST: REST}
ANY = st.builds(
    Standing,
    st.sampled_from(State),
    st.sampled_from([None, "no", f"6 min late; {ASK}"]),
    st.integers(0, 4),
    st.integers(1, 4),
)


@given(ANY, st.sampled_from(Answer))
def test_every_answer_goes_a_way_that_leads_there(standing: Standing, answer: Answer) -> None:
    question = question_of(standing)
    if question is None or answer not in ANSWERS[question]:
        return
    decision = decided(question, answer, standing, None, NOW)
    assert may_move(standing.state, decision.state)


@given(ANY)
def test_what_is_live_or_being_sent_is_never_asked_about(standing: Standing) -> None:
    if standing.state not in (State.UNKNOWN, State.HELD, State.FAILED):
        assert question_of(standing) is None


def test_what_is_held_for_its_owner_and_what_failed_whole_is_no_question() -> None:
    assert question_of(Standing(State.HELD, "the grant is gone", 0, 1)) is None
    assert question_of(Standing(State.FAILED, "no", 0, 1)) is None
    assert question_of(Standing(State.FAILED, "no", 1, 1)) is None


def test_the_late_policy_ask_leads_to_the_question() -> None:
    late = timing(NOW.replace(hour=9), None, "ask", NOW)
    assert isinstance(late, TooLate)
    assert question_of(Standing(late.state, late.reason, 0, 1)) is Question.LATE


@pytest.mark.parametrize("question", list(Question))
def test_an_answer_to_another_question_is_refused_and_the_right_ones_named(
    question: Question,
) -> None:
    for answer in set(Answer) - set(ANSWERS[question]):
        with pytest.raises(InvalidInput, match=f"takes: {ANSWERS[question][0]}"):
            decided(question, answer, ASKED[question], None, NOW)


def test_what_an_operator_saw_is_live_with_its_permalink() -> None:
    url = "https://example.org/1"
    decision = decided(Question.OUTCOME, Answer.THERE, UNKNOWN, url, NOW)
    assert (decision.state, dict(decision.columns)) == (State.LIVE, {"live_at": NOW, "url": url})
    assert not decision.sends


def test_a_part_that_is_there_without_its_id_ends_the_thread_and_is_not_sent_again() -> None:
    decision = decided(Question.OUTCOME, Answer.THERE, Standing(State.UNKNOWN, "", 1, 3), None, NOW)
    assert decision.state is State.CANCELLED
    assert "part 2 of 3 is there" in str(decision.reason)


def test_what_was_given_up_can_never_be_sent_again() -> None:
    for question in (Question.OUTCOME, Question.REST):
        decision = decided(question, Answer.GIVE_UP, ASKED[question], None, NOW)
        reached, fresh = set(), {decision.state}
        while fresh:
            reached |= fresh
            fresh = {after for one in fresh for after in State if may_move(one, after)} - reached
        assert State.SENDING not in reached


@pytest.mark.parametrize("wrong", ["there", "javascript:alert(1)", "https://", "ftp://a.example/x"])
def test_a_permalink_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="permalink"):
        checked(wrong)
    assert checked("  ") is None


def test_a_permalink_goes_with_there_only() -> None:
    with pytest.raises(InvalidInput, match="there only"):
        decided(Question.OUTCOME, Answer.AGAIN, UNKNOWN, "https://example.org/1", NOW)


@pytest.mark.parametrize("question", list(Question))
def test_a_question_says_what_was_sent_when_where_to_look_and_how_to_answer(
    question: Question,
) -> None:
    shown = Shown(
        platform="Parrot",
        ref="parrot/studio",
        post_id="post_1",
        delivery_id="dlv_1",
        characters=(120, 80),
        media=1,
        due_at=NOW,
        sent=(Sent(NOW, 0, "live"), Sent(NOW, 1, None)),
        account_url="https://parrot.example/@studio",
    )
    said = worded(question, ASKED[question], shown)
    for piece in (
        "parrot/studio",
        "2026-11-24 12:00:00 UTC",
        "120 + 80 characters, 1 file",
        "(https://parrot.example/@studio)",
        f"posts settle post_1 --to parrot/studio --answer {'|'.join(ANSWERS[question])}",
    ):
        assert piece in said
