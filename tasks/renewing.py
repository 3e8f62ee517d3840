"""Renews access tokens: before a send that needs one, and ahead of their end by the sweep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio

from clickpost import renewal
from clickpost.contract import Refreshes
from clickpost.errors import ClickPostError, PlatformError, Reauthorize, Transient
from clickpost.logs import logger
from clickpost.policy.shape import PlatformPolicy
from clickpost.renewal import Need
from clickpost.store.database import insisted
from clickpost.store.tables import Connection
from tasks import _wiring
from tasks._wiring import House

log = logger("renewing")

#: For so long, new tokens are written again while the database does not take them.
WRITING = timedelta(minutes=15)


async def due() -> int:
    """Renew what ends soon, also where nothing is sent; return how many connections it touched.

    A grant that is gone pauses its connection, so that its owner hears of it before a post does.
    """
    house = await _wiring.house()
    touched = 0
    for connection in await house.store.connections():
        policy = house.policy(connection)
        if connection.status != "active" or policy.tokens is None:
            continue
        try:
            touched += await renewed(house, connection, policy) is not Need.NONE
        except Reauthorize as error:
            await house.store.set_connection_status(connection.id, "paused", str(error))
        except ClickPostError as error:  # One account's trouble stops no other's sweep.
            log.warning("refresh failed", connection_id=connection.id, error=type(error).__name__)
    return touched


async def renewed(house: House, connection: Connection, policy: PlatformPolicy) -> Need:
    """Renew a token that is about to end, before it costs an attempt; say how urgent it was."""
    needed = renewal.need(
        connection.expires_at, connection.updated_at, policy.tokens, datetime.now(UTC)
    )
    match needed:
        case Need.DUE:
            try:
                await refresh(house, connection, policy)
            except Transient:
                log.warning("refresh put off", connection_id=connection.id)
        case Need.AHEAD:
            await _ahead(house, connection, policy)
        case Need.NONE:
            return needed
    return needed


async def _ahead(house: House, connection: Connection, policy: PlatformPolicy) -> None:
    """Renew a token that still works: where that fails, it goes on being used."""
    try:
        await refresh(house, connection, policy)
    except PlatformError as error:
        log.warning("refresh put off", connection_id=connection.id, error=type(error).__name__)
        reason = f"the token still works and was not renewed: {error}"
        await house.store.note_renewal_failed(connection.id, reason)


async def refresh(house: House, connection: Connection, policy: PlatformPolicy) -> None:
    """Refresh once for all workers: who waited for the lock takes what the first one got."""
    before = connection.updated_at
    async with house.store.refresh_lock(connection.id):
        current = await house.store.connection(connection.id)
        if current.updated_at > before:
            return
        connector = house.connector(await house.store.account(connection.id), policy)
        if not isinstance(connector, Refreshes):
            raise Reauthorize("the token is no longer accepted and cannot be refreshed")
        with anyio.CancelScope(shield=True):  # A cancel may not lose what the platform gave.
            await _kept(house, connector, current)
        log.info("refreshed", connection_id=connection.id)


async def _kept(house: House, connector: Refreshes, current: Connection) -> None:
    """Renew and write it down, also where the database is away meanwhile.

    Many platforms end the former refresh token with the same answer: what is lost here, is lost.
    """
    tokens = await connector.refresh()
    await insisted(
        lambda: house.store.save_tokens(current.id, tokens, since=current.updated_at),
        within=WRITING.total_seconds(),
    )
