"""Paused platforms: nothing is sent to them; what falls due meanwhile is held until a resume."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, exists, func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost.delivery import State
from clickpost.pausing import reason_of
from clickpost.people import Right
from clickpost.store._base import Base, append, now
from clickpost.store._deliveries import changed
from clickpost.store.people import permit
from clickpost.store.tables import Connection, Delivery, PausedPlatform


def is_open() -> ColumnElement[bool]:
    """Return the condition that the delivery's platform is not paused.

    It stands in the guarded UPDATE that begins an attempt: a pause counts also where it comes
    while a file goes up. A thread that is going out ends first.
    """
    paused = (
        exists()
        .where(
            col(Connection.id) == col(Delivery.connection_id),
            col(PausedPlatform.platform) == col(Connection.platform),
        )
        .correlate(Delivery)
    )
    return or_(~paused, col(Delivery.state) == State.SENDING)


@dataclass(frozen=True)
class Paused:
    """A paused platform: since when, by whom, and how many deliveries it holds."""

    platform: str
    paused_at: datetime
    paused_by: str
    held: int


class Pausing(Base):
    """Which platforms are paused, and what waits for them."""

    async def paused(self) -> list[Paused]:
        """Return the paused platforms, by name."""
        held = (
            select(col(Connection.platform), func.count())
            .join(Delivery, col(Delivery.connection_id) == col(Connection.id))
            .where(
                Delivery.state == State.HELD,
                col(Delivery.reason) == func.concat(Connection.platform, reason_of("")),
            )
            .group_by(col(Connection.platform))
        )
        async with self.session() as session:
            query = select(PausedPlatform).order_by(PausedPlatform.platform)
            rows = (await session.scalars(query)).all()
            counts = {str(row[0]): int(row[1]) for row in (await session.execute(held)).all()}
        return [
            Paused(one.platform, one.paused_at, one.paused_by, counts.get(one.platform, 0))
            for one in rows
        ]

    async def is_paused(self, platform: str) -> bool:
        """Say whether nothing is to be sent to a platform now."""
        async with self.session() as session:
            return await session.get(PausedPlatform, platform) is not None

    async def pause(self, platform: str, *, actor: str) -> bool:
        """Pause a platform; say whether it was not yet. Raises NotAllowed for who may not."""
        row = {"platform": platform, "paused_at": now(), "paused_by": actor}
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CANCEL)
            add = insert(PausedPlatform).values(row).on_conflict_do_nothing()
            made = await session.scalar(add.returning(col(PausedPlatform.platform)))
            if made is not None:
                await append(session, "platform.paused", platform, {}, actor)
        return made is not None

    async def resume(self, platform: str, *, actor: str) -> list[str] | None:
        """Let a platform go on, and return the deliveries that it held; None where it was going.

        They are planned again, and their posts' `late` decides about what is late by now. Raises
        NotAllowed for who may not pause it either.
        """
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CANCEL)
            row = col(PausedPlatform.platform)
            gone = delete(PausedPlatform).where(row == platform).returning(row)
            if await session.scalar(gone) is None:
                return None
            ours = select(Connection.id).where(Connection.platform == platform)
            change = (
                update(Delivery)
                .where(
                    col(Delivery.connection_id).in_(ours),
                    col(Delivery.state) == State.HELD,
                    col(Delivery.reason) == reason_of(platform),
                )
                .values(state=State.PLANNED, reason=None, who_acts=None, updated_at=now())
                .returning(col(Delivery.id))
            )
            released = sorted((await session.scalars(change)).all())
            for one in released:
                facts = {"from": State.HELD.value, "to": State.PLANNED.value}
                await append(session, "delivery.moved", one, facts, actor)
            facts_ = {"released": len(released)}
            await append(session, "platform.resumed", platform, facts_, actor)
        return released

    async def hold_if_paused(self, delivery: Delivery, platform: str) -> bool:
        """Hold a delivery whose platform is paused; say whether it is.

        Raises Conflict where the delivery went on meanwhile. A resume at the same moment waits,
        and releases it.
        """
        if not await self.is_paused(platform):
            return False
        async with self.transaction() as session:
            query = select(PausedPlatform).where(PausedPlatform.platform == platform)
            if await session.scalar(query.with_for_update(read=True)) is None:
                return False
            await changed(
                session,
                delivery.id,
                (delivery.state,),
                state=State.HELD,
                reason=reason_of(platform),
                who_acts="an operator",
            )
            facts = {"from": delivery.state.value, "to": State.HELD.value}
            await append(session, "delivery.moved", delivery.id, facts)
        return True
