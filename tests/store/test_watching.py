"""Work that one run at a time does, and whose place comes free with whoever held it."""

from __future__ import annotations

from sqlalchemy import text

from clickpost.settings import Settings
from clickpost.store import Store
from clickpost.store.vault import Vault

_HOLDER = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"


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
            await db.execute(text(f"SELECT pg_terminate_backend(pid) FROM ({_HOLDER}) AS held"))
        async with store.alone("sweep") as third:
            assert third
    await another.close()
