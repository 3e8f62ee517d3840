"""Work that one run at a time does, and whose place comes free with whoever held it."""

from __future__ import annotations

from sqlalchemy import text

from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.vault import Vault

#: Of this test's database: the server is shared. It waits until they are gone, milliseconds long.
_KILL = text("""
    SELECT pg_terminate_backend(pid, 5000)
    FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND granted AND datname = current_database()
""")


async def test_only_one_is_at_it_until_it_ends_or_is_killed(
    store: Store, settings: Settings
) -> None:
    another = await Store.open(str(settings.database_url.get_secret_value()), Vault.of(settings))
    async with (
        store.alone("sweep") as first,
        another.alone("sweep") as second,
        another.alone("else") as other,
    ):
        assert (first, second, other) == (True, False, True)
    async with another.alone("sweep") as second:
        assert second
        async with store.engine.begin() as db:  # As a kill does.
            await db.execute(_KILL)
        async with store.alone("sweep") as third:
            assert third
    await another.close()
