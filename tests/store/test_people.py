"""Who may do what: nobody declared, everybody may; else the right has to be proven and held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from clickpost import people
from clickpost.asking import Answer
from clickpost.delivery import State
from clickpost.draft import PostFile
from clickpost.errors import InvalidInput, NotAllowed
from clickpost.people import ENGINE, Right, actor_of
from clickpost.recurrence import occurrences, recurrence
from clickpost.store import NewConnection, NewPost, Store
from clickpost.store.holds import Holds, NewHold
from tasks import answering, signing_off

OPERATOR = "operator:kim"
ROLES = ("publisher", "approver", "operator", "compliance", "support", "keeper", "admin")


async def declared(store: Store, *roles: str) -> str:
    """Declare a person with these roles (and an administrator first); return who they are."""
    if not await store.anybody():
        await store.add_person("boss", ["admin"], OPERATOR)
    boss = next(one for one in await store.people() if one.name == "boss")
    if roles == ("admin",):
        return actor_of(boss.id)
    made = await store.add_person("-".join(roles), list(roles), actor_of(boss.id))
    return actor_of(made.person_id)


async def connected(store: Store) -> str:
    if known := await store.connections():
        return known[0].id
    new = NewConnection("bluesky", "studio", "http://127.0.0.1:1", {"access_jwt": "x"})
    return (await store.add_connection(new)).id


async def posted(store: Store, by: str = ENGINE) -> str:
    """Store a post; `by` ENGINE stands for one from before anybody was declared."""
    new = NewPost(PostFile(text="hello"), (), (await connected(store),), by=by)
    made = await store.create_post(new)
    return made.post_id


async def waiting(store: Store, by: str = ENGINE) -> str:
    """Store a post that waits for its approval; return its delivery."""
    post_id = await posted(store, by)
    await store.require_approval(None, on=True, actor=ENGINE)
    (row,) = await store.deliveries_of(post_id)
    await store.move(row.id, State.PLANNED, State.PREPARING, lease_owner="w")
    await store.save_message(
        row.id,
        message=[{"text": "hello", "media": []}],
        content_hash="c" * 64,
        policy_hash="p",
        notes=[],
        holder="w",
    )
    await store.save_prepared(row.id, [{"state": {}, "ready": True}])
    await store.made_ready(row.id, "c" * 64)
    return row.id


async def doubtful(store: Store) -> str:
    """Store a post whose outcome nobody knows; return its delivery."""
    (row,) = await store.deliveries_of(await posted(store))
    change = text("UPDATE delivery SET state = 'unknown', who_acts = 'an operator' WHERE id = :id")
    async with store.engine.begin() as connection:
        await connection.execute(change, {"id": row.id})
    return row.id


async def publish(store: Store, by: str) -> None:
    await posted(store, by)


async def reschedule(store: Store, by: str) -> None:
    post_id = await posted(store)
    await store.reschedule(post_id, datetime.now(UTC) + timedelta(days=1), actor=by)


async def edit(store: Store, by: str) -> None:
    post_id = await posted(store)
    (connection,) = await store.connections()
    new = NewPost(PostFile(text="other"), (), (connection.id,))
    await store.edit_post(post_id, new, actor=by)


async def begin_series(store: Store, by: str) -> None:
    connection = await connected(store)
    file = PostFile.model_validate(
        {"text": "x", "repeat": {"rule": "FREQ=DAILY;BYHOUR=9", "zone": "Europe/Berlin"}}
    )
    assert file.repeat is not None
    now = datetime.now(UTC)
    rule = recurrence(file.repeat, None, None, now)
    new = NewPost(file, (), (connection,), by=by)
    await store.create_series(new, rule, next(occurrences(rule, now)))


async def end_series(store: Store, by: str) -> None:
    await begin_series(store, ENGINE)
    series = (await store.all_series())[0]
    await store.cancel_series(series.id, actor=by)


async def approve(store: Store, by: str) -> None:
    delivery_id = await waiting(store)
    waits = await store.open_approvals()
    (asked,) = [one for one in waits if one.delivery_id == delivery_id]
    await store.decide(asked, approve=True, by=by)


async def settle(store: Store, by: str) -> None:
    seen = await store.delivery(await doubtful(store))
    await answering.settle(store, seen, Answer.GIVE_UP, None, actor=by)


async def take_down(store: Store, by: str) -> None:
    await store.want_down(await posted(store), by)


async def hold(store: Store, by: str) -> None:
    holds = Holds(store.engine, store.vault)
    await holds.place_hold(NewHold("legal", "post", await posted(store), "case 1"), by)


async def erase(store: Store, by: str) -> None:
    await store.require(by, Right.ERASE)


async def see(store: Store, by: str) -> None:
    await store.require(by, Right.SEE)


async def connect(store: Store, by: str) -> None:
    secrets = {"access_jwt": "y"}
    new = NewConnection("bluesky", f"for {by}", "http://127.0.0.1:1", secrets)
    await store.add_connection(new, actor=by)


async def raise_burst(store: Store, by: str) -> None:
    await store.set_burst(await connected(store), 9, actor=by)


async def serve(store: Store, by: str) -> None:
    await store.subscribe(await store.workspace_id(), "studio", None, by)


async def maintain(store: Store, by: str) -> None:
    await store.require(by, Right.MAINTAIN)


async def switch_approval_off(store: Store, by: str) -> None:
    await store.require_approval(None, on=False, actor=by)


async def declare(store: Store, by: str) -> None:
    await store.add_person(f"friend of {by}", ["publisher"], by)


Act = Callable[[Store, str], Awaitable[None]]
ACTS: dict[Act, set[str]] = {
    publish: {"publisher"},
    reschedule: {"publisher"},
    edit: {"publisher"},
    begin_series: {"publisher"},
    end_series: {"publisher", "operator"},
    approve: {"approver"},
    settle: {"operator"},
    take_down: {"operator", "compliance"},
    hold: {"compliance"},
    erase: {"compliance"},
    see: {"compliance", "support"},
    serve: {"compliance", "support"},
    connect: {"operator", "keeper"},
    raise_burst: {"operator", "keeper"},
    maintain: {"keeper"},
    switch_approval_off: {"admin"},
    declare: {"admin"},
}
every_act = pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)


@every_act
async def test_a_role_may_what_the_policy_says_and_nothing_else(store: Store, act: Act) -> None:
    allowed = set()
    for role in ROLES:
        who = await declared(store, role)
        try:
            await act(store, who)
        except NotAllowed as error:
            assert "that takes the role" in str(error)
        else:
            allowed.add(role)
    assert allowed == ACTS[act]


@every_act
async def test_while_nobody_is_declared_everybody_may(store: Store, act: Act) -> None:
    if act is declare:
        await store.add_person("somebody", ["admin"], OPERATOR)  # The first administers.
    else:
        await act(store, OPERATOR)


@every_act
async def test_once_somebody_is_declared_nobody_may_without_a_proof(store: Store, act: Act) -> None:
    await declared(store, "admin")
    for who in (OPERATOR, "operator", "person:", "person:psn_nobody", "engine:x"):
        with pytest.raises(NotAllowed):
            await act(store, who)


async def test_who_left_may_nothing_from_that_moment(store: Store) -> None:
    boss = await declared(store, "admin")
    made = await store.add_person("pat", ["publisher"], boss)
    await store.remove_person("pat", boss)
    with pytest.raises(NotAllowed, match="not declared any more"):
        await posted(store, actor_of(made.person_id))
    with pytest.raises(NotAllowed):
        await store.prove(made.secret)


async def test_other_roles_count_at_once_and_add_up(store: Store) -> None:
    who = await declared(store, "publisher", "operator")
    await publish(store, who)
    await settle(store, who)
    await store.set_roles("publisher-operator", ["approver"], await declared(store, "admin"))
    with pytest.raises(NotAllowed):
        await publish(store, who)


async def test_the_house_is_never_without_an_administrator(store: Store) -> None:
    with pytest.raises(InvalidInput, match="has to be admin"):
        await store.add_person("pat", ["publisher"], OPERATOR)
    assert not await store.anybody()
    who = await declared(store, "admin")
    await store.add_person("pat", ["publisher"], who)
    with pytest.raises(InvalidInput, match="has to be admin"):
        await store.remove_person("boss", who)
    with pytest.raises(InvalidInput, match="has to be admin"):
        await store.set_roles("boss", ["publisher"], who)
    await store.remove_person("pat", who)
    await store.remove_person("boss", who)  # The last one locks up: one person again.
    assert not await store.anybody()


async def test_two_first_people_at_once_leave_an_administrator(store: Store) -> None:
    tries = [store.add_person(f"p{n}", ["admin"], OPERATOR) for n in range(4)]
    made = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in made) == 1
    assert all(isinstance(one, NotAllowed) for one in made if isinstance(one, BaseException))


async def test_roles_that_nobody_knows_are_named_with_those_there_are(store: Store) -> None:
    with pytest.raises(InvalidInput, match=r"'boss' \(known: admin, approver, "):
        await store.add_person("pat", ["boss"], OPERATOR)


async def test_a_secret_proves_its_owner_and_is_not_kept(store: Store) -> None:
    made = await store.add_person("pat", ["admin"], OPERATOR)
    assert (await store.prove(f" {made.secret}\n")).id == made.person_id
    async with store.engine.connect() as connection:
        (kept,) = (await connection.execute(text("SELECT secret FROM person"))).one()
    assert kept.startswith("$argon2id$")
    assert made.secret.partition("-")[2] not in kept


@pytest.mark.parametrize("bad", ["", "x", "psn_nobody-abc", "{id}-", "{id}-abc", "{id}"])
async def test_another_secret_proves_nothing(store: Store, bad: str) -> None:
    made = await store.add_person("pat", ["admin"], OPERATOR)
    with pytest.raises(NotAllowed):
        await store.prove(bad.format(id=made.person_id))


async def test_a_new_secret_makes_the_former_worthless(store: Store) -> None:
    made = await store.add_person("pat", ["admin"], OPERATOR)
    fresh = await store.new_secret("pat", actor_of(made.person_id))
    with pytest.raises(NotAllowed):
        await store.prove(made.secret)
    assert (await store.prove(fresh.secret)).id == made.person_id


async def test_everybody_renews_their_own_secret_and_nobody_elses(store: Store) -> None:
    who = await declared(store, "publisher")
    await store.new_secret("publisher", who)
    with pytest.raises(NotAllowed):
        await store.new_secret("boss", who)


async def test_after_some_wrong_secrets_the_right_one_waits(store: Store) -> None:
    made = await store.add_person("pat", ["admin"], OPERATOR)
    other = await store.add_person("kim", ["publisher"], actor_of(made.person_id))
    guesses = (store.prove(f"{made.person_id}-{n}") for n in range(people.TRIES + 3))
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert all(isinstance(one, NotAllowed) for one in answers)
    with pytest.raises(NotAllowed, match="wait 15 minutes"):
        await store.prove(made.secret)
    assert (await store.prove(other.secret)).id == other.person_id  # Others go on.
    await _hours_pass(store)
    assert (await store.prove(made.secret)).id == made.person_id


async def _hours_pass(store: Store) -> None:
    """Age what was refused: the ledger itself lets nobody change it."""
    async with store.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE ledger DISABLE TRIGGER USER"))
        await connection.execute(text("UPDATE ledger SET at = at - interval '1 hour'"))


async def test_the_author_does_not_approve_their_own_post(store: Store) -> None:
    both = await declared(store, "publisher", "approver")
    await waiting(store, both)
    (asked,) = await store.open_approvals()
    with pytest.raises(NotAllowed, match="somebody else has to approve"):
        await store.decide(asked, approve=True, by=both)
    other = await declared(store, "approver")
    assert await store.decide(asked, approve=True, by=other) is State.READY


async def test_who_edited_a_post_last_is_its_author(store: Store) -> None:
    both = await declared(store, "publisher", "approver")
    post_id = await posted(store, await declared(store, "publisher"))
    (connection,) = await store.connections()
    new = NewPost(PostFile(text="other"), (), (connection.id,))
    await store.edit_post(post_id, new, actor=both)
    assert actor_of((await store.post(post_id)).author or "") == both


async def test_posts_of_a_series_have_its_author(store: Store) -> None:
    from clickpost.store.series import post_of, rule_of

    who = await declared(store, "publisher")
    await begin_series(store, who)
    (series,) = await store.all_series()
    occurrence = next(occurrences(rule_of(series), datetime.now(UTC)))
    made = await store.create_post(post_of(series, occurrence))
    assert actor_of((await store.post(made.post_id)).author or "") == who


async def test_where_the_policy_needs_no_two_people_one_is_enough(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = replace(store.rules, two_people=frozenset())
    monkeypatch.setattr(Store, "rules", alone)
    both = await declared(store, "publisher", "approver")
    await waiting(store, both)
    (asked,) = await store.open_approvals()
    assert await store.decide(asked, approve=True, by=both) is State.READY


async def test_the_ledger_knows_people_by_id_and_says_who_did_it(store: Store) -> None:
    who = await declared(store, "publisher")
    post_id = await posted(store, who)
    query = text("SELECT actor FROM ledger WHERE subject = :id")
    async with store.engine.connect() as connection:
        assert (await connection.scalar(query, {"id": post_id})) == who
        lines = (await connection.execute(text("SELECT actor, subject, facts FROM ledger"))).all()
    assert "boss" not in str(lines)
    assert (await store.names())[who] == "publisher"


async def test_a_code_signs_off_its_decision_once(store: Store) -> None:
    who = await declared(store, "approver")
    delivery_id = await waiting(store)
    made = await signing_off.code(store, who, delivery_id)
    (asked,) = await store.open_approvals()
    about = signing_off.approval_key(asked)
    typed = made.code.replace("-", " ").upper()
    assert await store.sign_off(typed, Right.APPROVE, about, "run-1") == who
    # The same run again, as after its worker was killed.
    assert await store.sign_off(made.code, Right.APPROVE, about, "run-1") == who
    with pytest.raises(NotAllowed, match="used"):
        await store.sign_off(made.code, Right.APPROVE, about, "run-2")
    assert await store.refusals(about) == 1


async def test_of_many_runs_with_one_code_one_has_it(store: Store) -> None:
    who = await declared(store, "operator")
    code = (await signing_off.code(store, who, await posted(store), takedown=True)).code
    (post,) = await store.posts()
    about = signing_off.takedown_key(post.id)
    tries = (store.sign_off(code, Right.TAKEDOWN, about, f"run-{n}") for n in range(4))
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [one for one in answers if not isinstance(one, BaseException)] == [who]


async def test_a_code_is_for_nothing_else(store: Store) -> None:
    who = await declared(store, "operator")
    one, two = await posted(store), await posted(store)
    code = (await signing_off.code(store, who, one, takedown=True)).code
    for right, about in (
        (Right.TAKEDOWN, signing_off.takedown_key(two)),
        (Right.SETTLE, signing_off.takedown_key(one)),
    ):
        with pytest.raises(NotAllowed):
            await store.sign_off(code, right, about, "run")


async def test_a_code_ends_with_its_time_and_with_a_new_secret(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await declared(store, "operator")
    post_id = await posted(store)
    about = signing_off.takedown_key(post_id)
    code = (await signing_off.code(store, who, post_id, takedown=True)).code
    await store.new_secret("operator", who)
    with pytest.raises(NotAllowed):
        await store.sign_off(code, Right.TAKEDOWN, about, "run")
    past = replace(store.rules, codes_last=timedelta(0))
    monkeypatch.setattr(Store, "rules", past)
    code = (await signing_off.code(store, who, post_id, takedown=True)).code
    with pytest.raises(NotAllowed):
        await store.sign_off(code, Right.TAKEDOWN, about, "run")


async def test_after_some_wrong_codes_the_right_one_waits(store: Store) -> None:
    who = await declared(store, "operator")
    post_id = await posted(store)
    about = signing_off.takedown_key(post_id)
    code = (await signing_off.code(store, who, post_id, takedown=True)).code
    for _ in range(people.TRIES):
        with pytest.raises(NotAllowed, match="wrong, used"):
            await store.sign_off("aaaaa-aaaaa", Right.TAKEDOWN, about, "run")
    for tries in (1, 2):  # Refusals count on, so that each form is a new one.
        with pytest.raises(NotAllowed, match="too many"):
            await store.sign_off(code, Right.TAKEDOWN, about, "run")
        assert await store.refusals(about) == people.TRIES + tries


async def test_codes_are_for_who_may_decide_and_for_what_waits(store: Store) -> None:
    both = await declared(store, "publisher", "approver")
    delivery_id = await waiting(store, both)
    with pytest.raises(NotAllowed, match="that takes the role approver"):
        await signing_off.code(store, await declared(store, "operator"), delivery_id)
    with pytest.raises(NotAllowed, match="somebody else"):
        await signing_off.code(store, both, delivery_id)
    (row,) = await store.deliveries_of(await posted(store))
    with pytest.raises(InvalidInput, match="nothing of it waits"):
        await signing_off.code(store, both, row.id)


async def test_where_nobody_is_declared_there_are_no_codes(store: Store) -> None:
    with pytest.raises(InvalidInput, match="asks for no code"):
        await signing_off.code(store, OPERATOR, await waiting(store))
