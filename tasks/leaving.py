"""Leaves the platforms before an account's rows go: what is unsent, what is up, the grants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic

from clickpost.certificate import Outcome
from clickpost.contract import Revokes
from clickpost.errors import NotFound, PlatformError, Reauthorize, TokenExpired
from clickpost.logs import logger
from clickpost.policy.load import load_platforms
from clickpost.store.erasures import Erasures
from clickpost.store.tables import Connection, Erasure
from tasks import taking_down
from tasks._wiring import House

log = logger("leaving")

#: Seconds that one run waits for takedowns; later runs go on.
PATIENCE = 120.0
#: Until the next try where a platform did not answer, or something is just being sent.
AGAIN = timedelta(minutes=10)


@dataclass
class Left:
    """What came of it: outcomes, what the owner has to do there, and what stands in the way."""

    outcomes: list[Outcome] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    open: str | None = None
    """Why the rest has to wait; then again at `again_at`, or, without, once somebody acted."""
    again_at: datetime | None = None


async def leave(house: House, erasures: Erasures, row: Erasure) -> Left:
    """Cancel what is unsent, take down what is asked for, revoke the grants; may run twice.

    While something is on its way, or still to be taken down, no row goes: it says what is where.
    """
    left = Left()
    await erasures.stop_unsent(row.subject)
    if row.takedown:
        await _take_down(house, erasures, row, left)
    elif up := await erasures.visible(row.subject):
        for platform, count in sorted(up.items()):
            left.remains.append(
                f"{count} posts stay visible on {_title(house, platform)}: delete them there."
            )
    if left.open is None and (busy := await erasures.on_the_way(row.subject)):
        left.open = f"{busy} deliveries are on their way, or of unknown outcome"
        left.again_at = datetime.now(UTC) + AGAIN
    if left.open is None:
        await _revoke_all(house, await erasures.connections_of(row.subject), left)
    return left


async def leave_account(house: House, erasures: Erasures, row: Erasure) -> Left:
    """Cancel what is unsent to one connected account, and revoke its grant; may run twice.

    Its tokens may be gone already, because its owner took the grant back: then nobody can look
    any more what became of what was on its way.
    """
    left = Left()
    connection = await erasures.connected(row.subject)
    await erasures.stop_unsent(row.subject, "connection")
    await _revoke_all(house, [connection] if connection else [], left)
    await erasures.give_up_looking(row.subject)
    if busy := await erasures.on_the_way(row.subject, "connection"):
        left.open, left.again_at = f"{busy} deliveries are being sent", datetime.now(UTC) + AGAIN
    for platform, count in sorted((await erasures.visible(row.subject, "connection")).items()):
        left.remains.append(
            f"{count} posts stay visible on {_title(house, platform)}: delete them there."
        )
    return left


def _title(house: House, platform: str) -> str:
    return load_platforms(house.settings.policies)[platform].title


async def _take_down(house: House, erasures: Erasures, row: Erasure, left: Left) -> None:
    """Delete what is visible; what a platform cannot, or not now, stands in the way."""
    until = monotonic() + PATIENCE
    await erasures.want_all_down(row.subject)
    while wanted := await erasures.wanted_down(row.subject):
        steps = [await taking_down.take_down(delivery_id) for delivery_id in wanted]
        waits = [step.wait for step in steps if step.wait and not step.parked]
        if not waits or monotonic() + min(waits) > until:
            break
        await asyncio.sleep(min(waits))
    if count := len(await erasures.wanted_down(row.subject)):
        left.open = f"{count} posts are not down yet: `clickpost posts list` says why"
        left.again_at = datetime.now(UTC) + AGAIN
    elif up := await erasures.visible(row.subject):
        told = ", ".join(f"{platform} {count}" for platform, count in sorted(up.items()))
        left.open = (
            f"these platforms delete nothing for us: {told}; have the owner do it there, then"
            " `clickpost privacy erase --leave-up`"
        )
    if down := await erasures.taken_down(row.subject):
        left.outcomes.append(Outcome("platforms", "Published posts.", "erased", down))


async def _revoke_all(house: House, connections: Sequence[Connection], left: Left) -> None:
    """End each grant where the connector can; elsewhere the owner is told to."""
    revoked = 0
    for connection in connections:
        if not connection.data_key or connection.status == "revoked":
            continue
        title = _title(house, connection.platform)
        try:
            if await _revoke(house, connection):
                revoked += 1
            else:
                left.remains.append(f"Withdraw our access in your settings on {title}.")
        except PlatformError as error:
            log.info("not revoked", connection_id=connection.id, error=type(error).__name__)
            left.open = f"{title} did not take back its grant of {connection.id}: {error}"
            left.again_at = datetime.now(UTC) + AGAIN
    if revoked:
        left.outcomes.append(
            Outcome("platforms", "Grants of connected accounts.", "erased", revoked)
        )


async def _revoke(house: House, connection: Connection) -> bool:
    """Revoke one grant; False where the connector cannot. One that is dead already is gone."""
    connector = house.connector(house.store.opened(connection), house.policy(connection))
    if not isinstance(connector, Revokes):
        return False
    with suppress(Reauthorize, TokenExpired, NotFound):
        await connector.revoke()
    await house.store.set_connection_status(connection.id, "revoked", "its account is erased")
    return True
