"""The store keeps its promises: guarded moves, one winner, secrets sealed, a chain that tells."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlmodel import SQLModel

from clickpost.contract import Receipt, Tokens
from clickpost.delivery import WAYS, State
from clickpost.draft import PostFile
from clickpost.errors import Conflict, InvalidInput, OutcomeUnknown, Transient, Unavailable
from clickpost.publishing import Verdict, verdict_of
from clickpost.settings import Settings
from clickpost.store import NewConnection, NewPost, Store
from clickpost.store.database import is_behind, migrate, refuse_other, url_of
from clickpost.store.vault import Vault, add_key, forget_former

CANARY = "canary-token-7f3a"
LEASE = timedelta(minutes=5)


async def _connected(store: Store, name: str = "studio") -> str:
    new = NewConnection("bluesky", name, "http://127.0.0.1:1", {"access_jwt": CANARY})
    return (await store.add_connection(new)).id


async def _posted(store: Store, key: str | None = None) -> str:
    """Store a post with one delivery and return the delivery's id."""
    connection_id = await _connected(store)
    new = NewPost(PostFile(text="hello", key=key), (), (connection_id,))
    post_id = (await store.create_post(new)).post_id
    return (await store.deliveries_of(post_id))[0].id


async def _ready(store: Store) -> str:
    delivery_id = await _posted(store)
    await store.move(delivery_id, State.PLANNED, State.PREPARING, lease_owner="w")
    part = {"text": "hello", "media": []}
    await store.save_message(
        delivery_id, message=[part], content_hash="c", policy_hash="p", notes=[], holder="w"
    )
    await store.save_prepared(delivery_id, [{"state": {"rkey": "a"}, "ready": True}])
    await store.move(delivery_id, State.PREPARING, State.READY)
    return delivery_id


async def _begin(store: Store, delivery_id: str, worker: str = "w"):
    return await store.begin_attempt(
        delivery_id, worker=worker, part=0, intent={"content": "c"}, lease=LEASE, run_id=None
    )


async def _forced(store: Store, delivery_id: str, state: State) -> None:
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE delivery SET state = %s WHERE id = %s", (state.value, delivery_id)
        )


async def test_a_delivery_moves_only_along_the_ways(store: Store) -> None:
    delivery_id = await _posted(store)
    for before, after in itertools.product(State, State):
        await _forced(store, delivery_id, before)
        if after in WAYS[before]:
            assert (await store.move(delivery_id, before, after)).state is after
        else:
            with pytest.raises(Conflict):
                await store.move(delivery_id, before, after)
            assert (await store.delivery(delivery_id)).state is before


async def test_a_move_from_another_state_than_the_row_has_is_refused(store: Store) -> None:
    delivery_id = await _posted(store)
    with pytest.raises(Conflict):
        await store.move(delivery_id, State.READY, State.SENDING)
    assert (await store.verify()).broken is None


async def test_of_many_senders_one_wins(store: Store) -> None:
    delivery_id = await _ready(store)
    tries = (_begin(store, delivery_id, f"w{n}") for n in range(30))
    done = await asyncio.gather(*tries, return_exceptions=True)
    won = [one for one in done if not isinstance(one, BaseException)]
    assert len(won) == 1
    assert all(isinstance(one, Conflict) for one in done if isinstance(one, BaseException))
    assert len(await store.attempts_of(delivery_id)) == 1


async def test_a_sender_with_an_old_view_of_the_row_does_not_send(store: Store) -> None:
    """Meanwhile another sent this part, and the row is ready for the next."""
    delivery_id = await _ready(store)
    started = await _begin(store, delivery_id)
    receipt = Receipt("r1", "https://example.org/r1", {})
    await store.settle(started, verdict_of(receipt, 1), receipt, last=False, seconds=0.1)
    await store.move(delivery_id, State.SENDING, State.READY, lease_owner=None, lease_until=None)
    with pytest.raises(Conflict):
        await _begin(store, delivery_id)


@pytest.mark.parametrize("column", ["due_at", "not_before"])
async def test_what_was_put_off_meanwhile_is_not_sent(store: Store, column: str) -> None:
    delivery_id = await _ready(store)
    later = datetime.now(UTC) + timedelta(minutes=1)
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql(
            f"UPDATE delivery SET {column} = %s WHERE id = %s", (later, delivery_id)
        )
    with pytest.raises(Conflict):
        await _begin(store, delivery_id)


async def test_what_was_spotted_as_lost_is_not_taken_from_who_sends_it_by_now(store: Store) -> None:
    delivery_id = await _ready(store)
    await _begin(store, delivery_id, "first")
    spotted = await store.delivery(delivery_id)
    await store.take_back(spotted, State.UNKNOWN)
    seen = await store.delivery(delivery_id)
    await store.clear_unknown(seen, State.READY, reason="looked: it is not there")
    await _begin(store, delivery_id, "second")
    with pytest.raises(Conflict):
        await store.take_back(spotted, State.UNKNOWN)
    with pytest.raises(Conflict):
        await store.clear_unknown(seen, State.READY, reason="looked: it is not there")
    row = await store.delivery(delivery_id)
    assert (row.state, row.lease_owner) == (State.SENDING, "second")


async def test_a_late_verdict_moves_nothing_once_another_sends_and_is_kept_with_its_attempt(
    store: Store,
) -> None:
    delivery_id = await _ready(store)
    late = await _begin(store, delivery_id, "first")
    await store.take_back(await store.delivery(delivery_id), State.UNKNOWN)
    await store.clear_unknown(await store.delivery(delivery_id), State.READY, reason="looked")
    await _begin(store, delivery_id, "second")
    receipt = Receipt("r1", "https://example.org/r1", {})
    with pytest.raises(Conflict, match="taken for lost"):
        await store.settle(late, verdict_of(receipt, 1), receipt, last=True, seconds=0.1)
    assert (await store.delivery(delivery_id)).state is State.SENDING
    assert [one.verdict for one in await store.attempts_of(delivery_id)] == ["live", None]


@pytest.mark.parametrize(
    "outcome", [Receipt("r1", "https://example.org/r1", {}), Transient("never left")]
)
async def test_a_late_verdict_says_nothing_of_a_later_send_whose_own_outcome_is_unknown(
    store: Store, outcome: Receipt | Transient
) -> None:
    """Both sends left the row `unknown`, at the same part: only the moment tells them apart."""
    delivery_id = await _ready(store)
    late = await _begin(store, delivery_id, "first")
    await store.take_back(await store.delivery(delivery_id), State.UNKNOWN)
    await store.clear_unknown(await store.delivery(delivery_id), State.READY, reason="looked")
    second, lost = await _begin(store, delivery_id, "second"), OutcomeUnknown("lost")
    await store.settle(second, verdict_of(lost, 2), lost, last=True, seconds=0.1)
    with pytest.raises(Conflict, match="taken for lost"):
        await store.settle(late, verdict_of(outcome, 1), outcome, last=True, seconds=0.1)
    row = await store.delivery(delivery_id)
    assert (row.state, row.receipts or [], row.sent_at) == (State.UNKNOWN, [], second.at)
    expected = [verdict_of(outcome, 1).name, "unknown"]
    assert [one.verdict for one in await store.attempts_of(delivery_id)] == expected


async def test_a_verdict_may_be_written_twice_and_the_first_one_counts(store: Store) -> None:
    delivery_id = await _ready(store)
    started = await _begin(store, delivery_id)
    receipt = Receipt("r1", "https://example.org/r1", {})
    for _ in range(2):
        await store.settle(started, verdict_of(receipt, 1), receipt, last=True, seconds=0.1)
    row = await store.delivery(delivery_id)
    assert (row.state, len(row.receipts)) == (State.LIVE, 1)


async def test_only_its_holder_says_what_a_target_gets(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.move(delivery_id, State.PLANNED, State.PREPARING, lease_owner="w")
    with pytest.raises(Conflict):
        await store.save_message(
            delivery_id, message=[], content_hash="c", policy_hash="p", notes=[], holder="v"
        )


async def test_what_is_being_sent_cannot_be_prepared_anew(store: Store) -> None:
    delivery_id = await _ready(store)
    started = await _begin(store, delivery_id)
    with pytest.raises(Conflict):
        await store.save_prepared(delivery_id, [{"state": {"rkey": "b"}, "ready": True}])
    assert started.prepared == [{"state": {"rkey": "a"}, "ready": True}]


async def test_a_verdict_is_written_with_the_receipt(store: Store) -> None:
    delivery_id = await _ready(store)
    started = await _begin(store, delivery_id)
    receipt = Receipt("r1", "https://example.org/r1", {"cid": "x"})
    await store.settle(started, verdict_of(receipt, 1), receipt, last=True, seconds=0.1)
    row = await store.delivery(delivery_id)
    assert (row.state, row.remote_id, row.url) == (State.LIVE, "r1", "https://example.org/r1")
    assert row.receipts == [{"remote_id": "r1", "url": receipt.url, "extra": {"cid": "x"}}]
    assert row.lease_owner is None
    assert (await store.attempts_of(delivery_id))[0].verdict == "live"


async def test_an_attempt_without_verdict_is_found_with_its_lease(store: Store) -> None:
    delivery_id = await _ready(store)
    await store.begin_attempt(
        delivery_id,
        worker="dead",
        part=0,
        intent={"content": "c"},
        lease=timedelta(seconds=-1),
        run_id=None,
    )
    (row,) = await store.leased()
    assert (row.id, row.state, row.lease_owner) == (delivery_id, State.SENDING, "dead")


async def test_the_same_client_key_is_the_same_post(store: Store) -> None:
    connection_id = await _connected(store)
    new = NewPost(PostFile(text="hello", key="k1"), (), (connection_id,))
    made = await asyncio.gather(*(store.create_post(new) for _ in range(10)))
    assert len({one.post_id for one in made}) == 1
    assert sum(not one.existing for one in made) == 1


async def test_tokens_are_nowhere_in_clear(store: Store, database_url: str) -> None:
    await _connected(store)
    account = await store.account("bluesky/studio")
    assert account.secrets["access_jwt"] == CANARY
    assert CANARY not in repr(account)
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        for (table,) in tables:
            for row in connection.execute(f"SELECT t::text FROM {table} t").fetchall():
                assert CANARY not in row[0]
                assert CANARY.encode().hex() not in row[0]


async def test_an_empty_token_never_overwrites_a_good_one(store: Store) -> None:
    connection_id = await _connected(store)
    await store.save_tokens(connection_id, Tokens({"access_jwt": "", "refresh_jwt": "new"}))
    secrets = (await store.account(connection_id)).secrets
    assert secrets == {"access_jwt": CANARY, "refresh_jwt": "new"}


async def test_new_tokens_wake_what_was_paused_for_the_ones_before(store: Store) -> None:
    """Another worker met the former token at the platform while the new one was under way."""
    delivery_id = await _posted(store)
    connection = await store.connection((await store.delivery(delivery_id)).connection_id)
    await store.set_connection_status(connection.id, "paused", "refused")
    await store.move(
        delivery_id, State.PLANNED, State.HELD, reason="r", who_acts="the account's owner"
    )
    paused = await store.connection(connection.id)
    tokens = Tokens({"access_jwt": "new"})
    await store.save_tokens(connection.id, tokens, since=paused.updated_at)
    assert (await store.connection(connection.id)).status == "paused"
    await store.save_tokens(connection.id, tokens, since=connection.updated_at)
    row = await store.connection(connection.id)
    assert (row.status, row.status_reason) == ("active", None)
    assert (await store.delivery(delivery_id)).state is State.PLANNED
    assert (await store.verify()).broken is None


async def test_reconnecting_releases_what_was_held_for_the_owner(store: Store) -> None:
    delivery_id = await _posted(store)
    await store.move(delivery_id, State.PLANNED, State.HELD, who_acts="the account's owner")
    await _connected(store)
    assert (await store.delivery(delivery_id)).state is State.PLANNED


async def test_an_unknown_connection_is_answered_with_the_nearest(store: Store) -> None:
    await _connected(store)
    with pytest.raises(InvalidInput, match="did you mean bluesky/studio"):
        await store.connection("bluesky/studoi")


async def test_the_ledger_names_the_first_changed_line(store: Store, database_url: str) -> None:
    for number in range(5):
        await _connected(store, f"n{number}")
    assert (await store.verify()).lines == 5
    with psycopg.connect(database_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            connection.execute("UPDATE ledger SET actor = 'mallory' WHERE seq = 3")
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            connection.execute("TRUNCATE ledger")
        connection.execute("ALTER TABLE ledger DISABLE TRIGGER ledger_append_only")
        connection.execute("UPDATE ledger SET actor = 'mallory' WHERE seq = 3")
    broken = (await store.verify()).broken
    assert broken is not None
    assert (broken.seq, broken.why) == (3, "its content is not what was written")


@pytest.mark.parametrize(
    ("removed", "named"), [(2, 2), (5, 5)], ids=["a line in the middle", "the last line"]
)
async def test_a_missing_line_is_named(
    store: Store, database_url: str, removed: int, named: int
) -> None:
    for number in range(5):
        await _connected(store, f"n{number}")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger DISABLE TRIGGER ledger_append_only")
        connection.execute("DELETE FROM ledger WHERE seq = %s", (removed,))
    broken = (await store.verify()).broken
    assert broken is not None
    assert broken.seq == named
    assert "missing" in broken.why


async def test_the_chain_holds_under_concurrent_writers(store: Store) -> None:
    await asyncio.gather(*(_connected(store, f"n{number}") for number in range(40)))
    walked = await store.verify()
    assert (walked.lines, walked.broken) == (40, None)


def test_migrating_twice_and_from_two_processes_is_safe(empty_database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        versions = pool.map(migrate, [empty_database_url] * 2)
    assert len({*versions, migrate(empty_database_url)}) == 1


def test_a_database_from_the_future_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for refuse in (migrate, is_behind, refuse_other):
        with pytest.raises(Unavailable, match="newer ClickPost"):
            refuse(database_url)


def test_code_that_is_newer_than_the_database_waits_for_up(
    database_url: str, empty_database_url: str
) -> None:
    assert not is_behind(database_url)
    assert refuse_other(database_url) == migrate(database_url)
    assert not is_behind(empty_database_url)  # Nobody works with tables that there are not.
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    assert is_behind(database_url)
    for url in (database_url, empty_database_url):
        with pytest.raises(Unavailable, match="Run: clickpost up"):
            refuse_other(url)


async def test_rotating_keys_seals_anew_and_survives_a_kill_halfway(
    settings: Settings, store: Store, database_url: str
) -> None:
    first, second = await _connected(store, "a"), await _connected(store, "b")
    path = settings.home / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    elsewhere = settings.model_copy(update={"home": settings.home / "elsewhere"})
    elsewhere.home.mkdir()
    shutil.copy2(path, elsewhere.home / "master.key")
    add_key(path)
    halfway = await Store.open(database_url, Vault.of(settings))
    await halfway.add_connection(NewConnection("bluesky", "a", "http://x", {"access_jwt": "n"}))
    again = await Store.open(database_url, Vault.of(settings))  # as after a kill
    assert (await again.account(first)).secrets["access_jwt"] == "n"
    assert (await again.account(second)).secrets["access_jwt"] == CANARY
    assert await again.seal_anew() == 2
    forget_former(path)
    after = await Store.open(database_url, Vault.of(settings))
    assert (await after.account(second)).secrets["access_jwt"] == CANARY
    with_the_old_file = await Store.open(database_url, Vault.of(elsewhere))
    with pytest.raises(Unavailable, match="another master key"):
        await with_the_old_file.account(second)
    for one in (halfway, again, after, with_the_old_file):
        await one.close()


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    Vault.of(settings)
    (tmp_path / "master.key").chmod(0o644)
    with pytest.raises(Unavailable, match="chmod 600"):
        Vault.of(settings)


def test_verdicts_leave_the_outcome_unknown_when_in_doubt() -> None:
    assert verdict_of(ValueError("x"), 1).state is State.UNKNOWN
    assert verdict_of(asyncio.CancelledError(), 1) == Verdict(
        "unknown", State.UNKNOWN, "CancelledError", "nobody yet"
    )


async def test_who_runs_during_a_rotation_goes_on_with_the_new_key(
    store: Store, settings: Settings, database_url: str
) -> None:
    connection_id = await _connected(store)
    before = (await store.account(connection_id)).secrets
    add_key(settings.home / "master.key")
    rotating = await Store.open(database_url, Vault.of(settings))
    assert await rotating.seal_anew() == 1
    forget_former(settings.home / "master.key")
    await rotating.close()
    assert (await store.account(connection_id)).secrets == before
    await store.save_tokens(connection_id, Tokens({"access_token": "renewed"}))
    restarted = await Store.open(database_url, Vault.of(settings))
    assert (await restarted.account(connection_id)).secrets["access_token"] == "renewed"
    await restarted.close()


async def test_a_retry_starts_its_tries_anew_and_keeps_the_numbers_of_attempts(
    store: Store,
) -> None:
    delivery_id = await _ready(store)
    started = await _begin(store, delivery_id)
    failed = Verdict("rejected", State.FAILED, "no", "the writer")
    await store.settle(started, failed, Unavailable("no"), last=True, seconds=0.1)
    await store.move(delivery_id, State.FAILED, State.PLANNED, attempts=0)
    await store.move(delivery_id, State.PLANNED, State.PREPARING)
    await store.move(delivery_id, State.PREPARING, State.READY)
    again = await _begin(store, delivery_id)
    assert (again.number, again.tries) == (2, 1)
    assert [one.number for one in await store.attempts_of(delivery_id)] == [1, 2]


async def test_the_tables_are_what_the_migrations_make(database_url: str) -> None:
    engine = create_engine(url_of(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


async def _unknown(store: Store) -> str:
    delivery_id = await _ready(store)
    lost = OutcomeUnknown("POST statuses got no answer")
    started = await _begin(store, delivery_id)
    await store.settle(started, verdict_of(lost, 1), lost, last=True, seconds=0.1)
    return delivery_id


async def test_two_looks_do_not_take_one_post_for_two_deliveries(store: Store) -> None:
    seen = [await store.delivery(await _unknown(store)) for _ in range(4)]
    assert len({one.connection_id for one in seen}) == 1
    found = Receipt("r1", "https://example.org/r1", {})
    looks = [store.adopt_found(one, found, last=True) for one in seen]
    done = await asyncio.gather(*looks, return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["Conflict"] * 3 + ["State"]
    for one in seen:
        current = await store.delivery(one.id)
        mine = current.state is State.LIVE
        assert (await store.remote_ids(one) == frozenset()) is mine


@pytest.mark.parametrize("after", [State.HELD, State.FAILED, State.PLANNED, State.CANCELLED])
async def test_what_nobody_works_on_any_more_is_nobodys(store: Store, after: State) -> None:
    """Else a reconnected account's posts would wait for a lease of half an hour."""
    delivery_id = await _posted(store)
    until = datetime.now(UTC) + LEASE
    await store.move(
        delivery_id, State.PLANNED, State.PREPARING, lease_owner="w", lease_until=until
    )
    row = await store.move(delivery_id, State.PREPARING, after, who_acts="the account's owner")
    assert (row.lease_owner, row.lease_until) == (None, None)
