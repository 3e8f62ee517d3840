"""What a vendor answers is taken for what it is: done is only what a policy calls so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpost import processors
from clickpost.errors import InvalidInput
from clickpost.policy import processors as policies
from clickpost.processors import Ask, Heard, Item
from clickpost.settings import PROJECT

SHIPPED = policies.load(PROJECT / "policies")
STRIPE, ZENDESK = SHIPPED["stripe"], SHIPPED["zendesk"]
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    policy=st.sampled_from(sorted(SHIPPED)),
    status=st.integers(100, 599),
    document=DOCUMENTS,
    data=st.data(),
)
def test_no_answer_is_done_that_the_policy_does_not_name(
    policy: str, status: int, document: object, data: st.DataObject
) -> None:
    one = SHIPPED[policy]
    step = data.draw(st.sampled_from(one.steps))
    item = Item("1", step.name)
    after = processors.judged(one, item, step, Heard(status, document))
    named = {answer.status for answer in step.answers if answer.means in ("done", "gone")}
    if status not in named and not (status >= 500 and step.lost):
        assert after.stands in ("wait", "again", "refused")
        assert not after.is_done
        assert not after.erased


@given(who=st.text(max_size=40), found=st.text(min_size=3, max_size=40))
def test_nothing_that_somebody_is_called_leaves_its_place_in_the_address(
    who: str, found: str
) -> None:
    ask = Ask("ask_1", who, (Item(found, "delete"),))
    call = STRIPE.step("delete").call
    made = processors.request_of(STRIPE, {"key": "k"}, ask, call, ask.items[0], "once")
    assert made.url.startswith("https://api.stripe.com/v1/customers/")
    rest = made.url.removeprefix("https://api.stripe.com/v1/customers/")
    assert not set(rest) & set("/?#\\ \n")


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_no_id_leads_to_another_address(id_: str) -> None:
    ask = Ask("ask_1", "a@example.org", (Item(id_, "delete"),))
    with pytest.raises(InvalidInput, match="another address"):
        processors.request_of(
            STRIPE, {"key": "k"}, ask, STRIPE.step("delete").call, ask.items[0], "once"
        )


@given(status=st.sampled_from([401, 403, 408, 425, 429, 500, 503]))
def test_what_is_not_to_be_had_now_is_asked_again(status: int) -> None:
    after = processors.judged(STRIPE, Item("1", "delete"), STRIPE.step("delete"), Heard(status))
    assert (after.stands, after.step) == ("again", "delete")


@pytest.mark.parametrize("value", ["evil.example/", "a.b", "a@b", "", "-a", "a:1"])
def test_a_setting_makes_no_other_host_of_an_address(value: str) -> None:
    with pytest.raises(InvalidInput, match="CLICKPOST_PROCESSOR_ZENDESK_SUBDOMAIN"):
        processors.base_of(ZENDESK, {"subdomain": value})


def test_a_record_that_is_found_although_it_was_erased_is_waited_for() -> None:
    ask = Ask("ask_1", "a@example.org", (Item("1", None, erased=True),))
    users = {"users": [{"id": 1, "email": "A@example.org", "role": "end-user"}]}
    looked = processors.found(ZENDESK, {}, ask, Heard(200, users))
    assert isinstance(looked, Item)
    assert looked.stands == "wait"


def test_a_search_without_a_list_finds_nothing_but_a_fault() -> None:
    ask = Ask("ask_1", "a@example.org")
    looked = processors.found(ZENDESK, {}, ask, Heard(200, {"user": []}))
    assert isinstance(looked, Item)
    assert looked.stands == "refused"


def test_who_is_asked_about_is_shown_nowhere() -> None:
    ask = Ask("ask_1", "canary@example.org", (Item("cus_canary", "delete"),))
    call = STRIPE.step("delete").call
    made = processors.request_of(STRIPE, {"key": "canary"}, ask, call, ask.items[0], "x")
    said = f"{ask!r} {made!r} {Heard(200, {'email': 'canary'})!r}"
    assert "canary" not in said
    assert processors.ask_of("ask_1", ask.as_text(), is_looked_for=True) == replace(ask)
