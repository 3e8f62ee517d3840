"""What the parts of the store that change deliveries share: one guarded UPDATE, one line."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import cast, func, literal, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select

from clickpost.contract import Pending, Receipt
from clickpost.delivery import State
from clickpost.errors import Conflict
from clickpost.publishing import Verdict
from clickpost.store import notices
from clickpost.store._base import now
from clickpost.store.tables import Connection, Delivery, Post

#: States in which a worker may hold a delivery.
_AT_WORK = (State.PREPARING, State.READY, State.SENDING)

#: The run of its own moment, else that of its post.
RUN: Any = func.coalesce(col(Delivery.flow_run_id), col(Post.flow_run_id))

LINE: Any = (
    select(Delivery, col(Connection.platform), col(Connection.name), RUN)
    .join(Connection, col(Connection.id) == col(Delivery.connection_id))
    .join(Post, col(Post.id) == col(Delivery.post_id))
    .order_by(col(Connection.platform), col(Connection.name))
)


async def changed(
    session: Any, delivery_id: str, states: tuple[State, ...], *more: Any, **values: Any
) -> Delivery:
    """Write `values` where the row is in one of `states` and `more` holds; raise Conflict else.

    A change of its state leaves no lease with nobody, and makes the notices that it asks for.
    """
    if "state" in values and values["state"] not in _AT_WORK:  # Nobody works on it any more.
        values |= {"lease_owner": None, "lease_until": None}
    change = (
        update(Delivery)
        .where(col(Delivery.id) == delivery_id, col(Delivery.state).in_(states), *more)
        .values(updated_at=now(), **values)
        .returning(Delivery)
        # A row that the session has read before is told of as it is now, not as it was then.
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    row: Delivery | None = await session.scalar(change)
    if row is None:
        raise Conflict(f"{delivery_id} is no longer {' or '.join(states)}")
    if "state" in values:
        await notices.about_delivery(session, row)
    return row


def later(verdict: Verdict, moment: datetime) -> datetime | None:
    """Return when a delivery may be tried again; None where it need not wait, or is not tried."""
    return moment + timedelta(seconds=verdict.wait) if verdict.again and verdict.wait else None


def appended(receipt: Receipt) -> Any:
    """Return the receipts of the parts that are there, and this one."""
    given = [{"remote_id": receipt.remote_id, "url": receipt.url, "extra": receipt.extra}]
    return func.coalesce(Delivery.receipts, text("'[]'::jsonb")).op("||")(_jsonb(given))


def _jsonb(value: Any) -> Any:
    return cast(literal(value, JSONB), JSONB)


def outcome_columns(
    outcome: object, verdict: Verdict, moment: datetime, *, last: bool, replace: bool = False
) -> dict[str, Any]:
    """Return what an outcome writes beside the state."""
    receipt = outcome if isinstance(outcome, Receipt) else getattr(outcome, "receipt", None)
    columns: dict[str, Any] = {}
    if isinstance(outcome, Pending):
        columns["ticket"] = outcome.ticket
    if isinstance(receipt, Receipt):
        columns["receipts"] = (
            _jsonb([{"remote_id": receipt.remote_id, "url": receipt.url, "extra": receipt.extra}])
            if replace
            else appended(receipt)
        )
        columns["remote_id"] = func.coalesce(Delivery.remote_id, receipt.remote_id)
        columns["url"] = receipt.url if replace else func.coalesce(Delivery.url, receipt.url)
    if verdict.state is State.LIVE and last:
        columns["live_at"] = moment
    if not isinstance(outcome, Receipt | Pending):
        columns["not_before"] = later(verdict, moment)
    return columns
