"""What workspaces pay for: while a subscription is suspended, nothing of its workspace is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, update
from sqlmodel import col, select

from clickpost import ids
from clickpost.delivery import State
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.store import notices
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.tables import Connection, Delivery, Subscription, Workspace
from clickpost.telling import PAYER, Event, Happening

#: What a delivery that waits for a subscription says.
SUSPENDED = "the workspace's subscription is suspended"
_ACTIVE, _SUSPENDED, _ENDED = "active", "suspended", "ended"
_WAITING = (State.PLANNED, State.PREPARING, State.READY, State.AWAITING_APPROVAL)


def is_paid_for() -> ColumnElement[bool]:
    """Return the condition that no subscription of the delivery's workspace is suspended.

    It stands in the guarded UPDATE that begins an attempt: no way to a send goes around it. A
    thread that is going out ends first.
    """
    suspended = (
        exists()
        .where(
            col(Connection.id) == col(Delivery.connection_id),
            col(Subscription.workspace_id) == col(Connection.workspace_id),
            *_in_force(),
        )
        .correlate(Delivery)
    )
    return or_(~suspended, col(Delivery.state) == State.SENDING)


def _in_force() -> tuple[Any, ...]:
    return (col(Subscription.status) == _SUSPENDED, col(Subscription.ended_at).is_(None))


@dataclass(frozen=True)
class Turned:
    """What a change of a subscription held or released: deliveries, and their posts."""

    subscription_id: str
    status: str
    deliveries: int = 0
    post_ids: tuple[str, ...] = ()


class Subscriptions(Base):
    """Subscriptions, and the deliveries that they hold; NotAllowed for who may not serve."""

    async def workspaces(self) -> list[Workspace]:
        """Return all workspaces, oldest first."""
        async with self.session() as session:
            query = select(Workspace).order_by(col(Workspace.created_at), col(Workspace.id))
            return list((await session.scalars(query)).all())

    async def subscriptions(self, workspace_id: str) -> list[Subscription]:
        """Return a workspace's subscriptions, oldest first."""
        async with self.session() as session:
            query = select(Subscription).where(col(Subscription.workspace_id) == workspace_id)
            return list((await session.scalars(query.order_by(col(Subscription.id)))).all())

    async def subscribe(
        self, workspace_id: str, plan: str, remote_id: str | None, by: str
    ) -> Subscription:
        """Record a subscription; `remote_id` is the payment processor's name of it."""
        moment = now()
        row = Subscription(
            id=ids.new("sub"),
            workspace_id=workspace_id,
            plan=plan,
            status=_ACTIVE,
            remote_id=remote_id,
            started_at=moment,
            updated_at=moment,
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            session.add(row)
            await session.flush()
            await append(session, "subscription.started", row.id, {"workspace": workspace_id}, by)
        return row

    async def suspend(self, subscription_id: str, by: str) -> Turned:
        """Suspend a subscription and hold what its workspace has not sent; tell it once.

        Raises InvalidInput for one that is not there, or not active.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            row = await _turned(session, subscription_id, (_ACTIVE,), _SUSPENDED)
            held = await _of_workspace(
                session,
                row.workspace_id,
                col(Delivery.state).in_(_WAITING),
                state=State.HELD,
                reason=SUSPENDED,
                who_acts=PAYER,
                lease_owner=None,
                lease_until=None,
            )
            facts = {
                "workspace_id": row.workspace_id,
                "held": len(held),
                "reason": f"{len(held)} deliveries are held until it is active again",
                "who_acts": PAYER,
            }
            once = f"{Event.SUSPENDED}:{row.id}:{row.updated_at.isoformat()}"
            await notices.write(
                session, row.workspace_id, Happening(Event.SUSPENDED, row.id, once, facts)
            )
            await _noted(session, held, State.HELD, by)
            await append(session, Event.SUSPENDED.value, row.id, {"held": len(held)}, by)
        return _told(row, held)

    async def reactivate(self, subscription_id: str, by: str) -> Turned:
        """Make a suspended subscription active again; release what waited for it.

        What another suspended subscription of the workspace holds stays. Whether what is late by
        now is still sent, its post's `late` says. Raises InvalidInput for one not suspended.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            row = await _turned(session, subscription_id, (_SUSPENDED,), _ACTIVE)
            free = await _freed(session, row, State.PLANNED, None)
            await _noted(session, free, State.PLANNED, by)
            await append(session, "subscription.reactivated", row.id, {"released": len(free)}, by)
        return _told(row, free)

    async def end_subscription(self, subscription_id: str, by: str) -> Turned:
        """End a subscription; what it held while it was suspended is cancelled.

        Raises InvalidInput for one that is not there, or over.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            row = await _turned(
                session, subscription_id, (_ACTIVE, _SUSPENDED), _ENDED, ended_at=now()
            )
            gone = await _freed(session, row, State.CANCELLED, "the subscription has ended")
            await _noted(session, gone, State.CANCELLED, by)
            await append(session, "subscription.ended", row.id, {"cancelled": len(gone)}, by)
        return _told(row, gone)

    async def held_unpaid(self, workspace_id: str) -> int:
        """Return how many deliveries of a workspace wait for its subscription."""
        query = (
            select(func.count())
            .select_from(Delivery)
            .join(Connection, col(Connection.id) == col(Delivery.connection_id))
            .where(
                col(Connection.workspace_id) == workspace_id,
                col(Delivery.state) == State.HELD,
                col(Delivery.reason) == SUSPENDED,
            )
        )
        async with self.session() as session:
            return int(await session.scalar(query) or 0)

    async def hold_unpaid(self, delivery_id: str) -> bool:
        """Hold one delivery where its workspace's subscription is suspended; say whether it is."""
        change = (
            update(Delivery)
            .where(
                col(Delivery.id) == delivery_id, col(Delivery.state).in_(_WAITING), ~is_paid_for()
            )
            .values(
                state=State.HELD,
                reason=SUSPENDED,
                who_acts=PAYER,
                updated_at=now(),
                lease_owner=None,
                lease_until=None,
            )
            .returning(Delivery)
            .execution_options(synchronize_session=False)
        )
        async with self.transaction() as session:
            row: Delivery | None = await session.scalar(change)
            if row is None:
                return False
            await notices.about_delivery(session, row)
            await _noted(session, [row], State.HELD, "engine")
        return True


async def _turned(
    session: Any, subscription_id: str, before: tuple[str, ...], after: str, **more: Any
) -> Subscription:
    """Change a subscription's status; of two at once in a workspace, the second waits."""
    query = select(Subscription).where(col(Subscription.id) == subscription_id)
    row: Subscription | None = await session.scalar(query)
    if row is None:
        raise InvalidInput(f"there is no subscription {subscription_id}; see: clickpost workspaces")
    workspace = select(Workspace.id).where(col(Workspace.id) == row.workspace_id)
    await session.execute(workspace.with_for_update())
    change = (
        update(Subscription)
        .where(col(Subscription.id) == subscription_id, col(Subscription.status).in_(before))
        .values(status=after, updated_at=now(), **more)
        .returning(Subscription)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    changed: Subscription | None = await session.scalar(change)
    if changed is None:
        raise InvalidInput(f"{subscription_id} is {row.status}")
    return changed


async def _freed(session: Any, row: Subscription, to: State, reason: str | None) -> list[Delivery]:
    """Move what waits for the workspace's subscriptions, unless another one is suspended."""
    if await _is_suspended(session, row.workspace_id):
        return []
    held = (col(Delivery.state) == State.HELD, col(Delivery.reason) == SUSPENDED)
    return await _of_workspace(
        session, row.workspace_id, *held, state=to, reason=reason, who_acts=None
    )


async def _is_suspended(session: Any, workspace_id: str) -> bool:
    query = select(Subscription.id).where(
        col(Subscription.workspace_id) == workspace_id, *_in_force()
    )
    return await session.scalar(query.limit(1)) is not None


async def _of_workspace(
    session: Any, workspace_id: str, *conditions: Any, **values: Any
) -> list[Delivery]:
    """Change the deliveries of a workspace that `conditions` name.

    Nobody is told of each: the subscription's own notice tells of all.
    """
    ours = select(col(Connection.id)).where(col(Connection.workspace_id) == workspace_id)
    change = (
        update(Delivery)
        .where(col(Delivery.connection_id).in_(ours), *conditions)
        .values(updated_at=now(), **values)
        .returning(Delivery)
        .execution_options(synchronize_session=False)
    )
    return list((await session.scalars(change)).all())


async def _noted(session: Any, rows: list[Delivery], to: State, by: str) -> None:
    for row in rows:
        facts = {"to": to.value, "why": "subscription"}
        await append(session, "delivery.moved", row.id, facts, by)


def _told(row: Subscription, deliveries: list[Delivery]) -> Turned:
    posts = tuple(sorted({one.post_id for one in deliveries}))
    return Turned(row.id, row.status, len(deliveries), posts)
