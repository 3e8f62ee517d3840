"""No way through the states sends twice without a proof in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost.delivery import CANCELLABLE, SETTLED, WAYS, State, may_move

#: What proves that nothing is there: a look's verdict after `unknown`, an answer after `sending`.
PROOFS = {State.READY, State.FAILED, State.HELD, State.DRAFTED}
MAYBE_THERE = {State.SENDING, State.PROCESSING, State.UNKNOWN, State.LIVE}


def reachable(start: State, without: frozenset[State] = frozenset()) -> set[State]:
    found: set[State] = set()
    ahead = set(WAYS[start]) - without
    while ahead:
        state = ahead.pop()
        found.add(state)
        ahead |= WAYS[state] - without - found
    return found


@pytest.mark.parametrize("state", list(State))
def test_every_state_says_where_it_leads(state: State) -> None:
    assert all(may_move(state, after) == (after in WAYS[state]) for after in State)
    assert state not in WAYS[state]
    assert WAYS[state] or state in SETTLED


def test_every_state_is_reached_from_planned() -> None:
    assert reachable(State.PLANNED) == set(State)


def test_only_ready_leads_to_sending() -> None:
    assert [state for state in State if State.SENDING in WAYS[state]] == [State.READY]


def test_nothing_leads_from_unknown_to_sending_without_a_look() -> None:
    assert not may_move(State.UNKNOWN, State.SENDING)
    looks = frozenset({State.READY, State.FAILED})
    assert State.SENDING not in reachable(State.UNKNOWN, looks)


@pytest.mark.parametrize("state", [State.LIVE, State.REMOVED, State.GONE, State.CANCELLED])
def test_what_is_or_was_there_is_never_sent_again(state: State) -> None:
    assert State.SENDING not in reachable(state)


def test_between_two_sends_lies_a_proof_that_nothing_is_there() -> None:
    assert State.SENDING not in reachable(State.SENDING, frozenset(PROOFS))


@given(st.data())
def test_no_walk_sends_while_something_may_be_there(data: st.DataObject) -> None:
    state, maybe_there = State.PLANNED, False
    for _ in range(40):
        if not WAYS[state]:
            return
        state = data.draw(st.sampled_from(sorted(WAYS[state])))
        assert not (state is State.SENDING and maybe_there)
        if state in MAYBE_THERE:
            maybe_there = True
        elif state in PROOFS:
            maybe_there = False


def test_what_can_be_cancelled_has_a_way_there_and_is_not_being_sent() -> None:
    assert all(may_move(state, State.CANCELLED) for state in CANCELLABLE)
    assert not CANCELLABLE & MAYBE_THERE
