"""Members, what they agreed to, how they want to be told, and what they ask support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.errors import InvalidInput
from clickpost.people import Right
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.subjects import Subjects
from clickpost.store.tables import (
    Channel,
    Consent,
    Invoice,
    Member,
    Preference,
    Ticket,
    TicketMessage,
)

#: As an event: every one that has no preference of its own.
ALL = "*"
#: The kinds of channel, by which a person can be told.
WAYS = ("email", "webhook", "chat")
ROLES = ("owner", "publisher", "viewer")
AUTHORS = ("person", "staff")
#: So many addresses get their digest in one transaction.
_BATCH = 500


def wants(event: Any) -> ColumnElement[bool]:
    """Return the condition that whoever stands behind a channel wants to be told of `event`.

    What they said of the event counts, else what they said of all, else they want it. Who left is
    told nothing. A channel of nobody in particular is told.
    """

    def said(of: Any) -> Any:
        return (
            select(Preference.wanted)
            .where(
                col(Preference.member_id) == col(Channel.member_id),
                col(Preference.way) == col(Channel.kind),
                col(Preference.event) == of,
            )
            .correlate_except(Preference)
            .scalar_subquery()
        )

    left = (
        select(Member.id)
        .where(col(Member.id) == col(Channel.member_id), col(Member.left_at).is_not(None))
        .correlate_except(Member)
        .exists()
    )
    return func.coalesce(said(event), said(ALL), True) & ~left


@dataclass(frozen=True)
class NewTicket:
    """What somebody asks support; `member_id` where they are known."""

    workspace_id: str
    title: str
    text: str
    email: str | None = None
    member_id: str | None = None


class Members(Subjects, Base):
    """People in workspaces. What changes them raises NotAllowed for who may not serve."""

    async def members(self, workspace_id: str) -> list[Member]:
        """Return a workspace's members, oldest first; who left is among them."""
        query = select(Member).where(Member.workspace_id == workspace_id).order_by(Member.id)
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def member(self, member_id: str) -> Member:
        """Return a member; raise InvalidInput where there is none."""
        async with self.session() as session:
            found = await session.get(Member, member_id)
        if found is None:
            raise InvalidInput(f"there is no member {member_id}; see: clickpost workspaces show")
        return found

    async def add_member(
        self, workspace_id: str, email: str, name: str | None, role: str, by: str
    ) -> Member:
        """Record a member; raise InvalidInput for an unknown role, or who is one already."""
        if role not in ROLES:
            raise InvalidInput(f"--role: one of {', '.join(ROLES)}")
        if email.count("@") != 1 or not all(email.split("@")):
            raise InvalidInput("EMAIL: this is no e-mail address")
        digest = await self.address_digest(email)
        row = Member(
            id=ids.new("mem"),
            workspace_id=workspace_id,
            name=name,
            email=email.strip(),
            email_digest=digest,
            role=role,
            created_at=now(),
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            there = select(Member.id).where(
                Member.workspace_id == workspace_id,
                Member.email_digest == digest,
                col(Member.left_at).is_(None),
            )
            if known := await session.scalar(there):
                raise InvalidInput(f"this address is that of {known} already")
            session.add(row)
            await session.flush()
            await append(session, "member.added", row.id, {"role": role}, by)
        return row

    async def let_go(self, member_id: str, by: str) -> None:
        """Note that a member left: they are told nothing more, and the retention clock begins."""
        await self.member(member_id)
        change = (
            update(Member)
            .where(col(Member.id) == member_id, col(Member.left_at).is_(None))
            .values(left_at=now())
            .returning(col(Member.id))
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            if await session.scalar(change) is None:
                raise InvalidInput(f"{member_id} has left already")
            await append(session, "member.left", member_id, {}, by)

    async def consents(self, member_id: str) -> list[Consent]:
        """Return what a member agreed to, first to last."""
        query = select(Consent).where(Consent.member_id == member_id).order_by(Consent.id)
        async with self.session() as session:
            return list((await session.scalars(query)).all())

    async def give_consent(self, member_id: str, purpose: str, wording: str, by: str) -> Consent:
        """Record that a member agreed to a purpose, in this version of the wording."""
        await self.member(member_id)
        row = Consent(
            id=ids.new("cons"),
            member_id=member_id,
            purpose=purpose,
            wording=wording,
            given_at=now(),
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            session.add(row)
            await session.flush()
            await append(session, "consent.given", row.id, {"wording": wording}, by)
        return row

    async def withdraw_consent(self, consent_id: str, by: str) -> None:
        """Record that a consent was withdrawn; raise InvalidInput for one that does not hold."""
        change = (
            update(Consent)
            .where(col(Consent.id) == consent_id, col(Consent.withdrawn_at).is_(None))
            .values(withdrawn_at=now())
            .returning(col(Consent.id))
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            if await session.scalar(change) is None:
                raise InvalidInput(f"there is no consent {consent_id} that holds")
            await append(session, "consent.withdrawn", consent_id, {}, by)

    async def preferences(self, member_id: str) -> list[Preference]:
        """Return how a member wants to be told, by event and way."""
        query = select(Preference).where(Preference.member_id == member_id)
        async with self.session() as session:
            found = await session.scalars(query.order_by(Preference.event, Preference.way))
            return list(found.all())

    async def prefer(self, member_id: str, event: str, way: str, *, wanted: bool, by: str) -> None:
        """Record whether a member wants to be told of an event (`*`: of all) in one way."""
        await self.member(member_id)
        if way not in WAYS:
            raise InvalidInput(f"WAY: one of {', '.join(WAYS)}")
        moment = now()
        values = {
            "id": ids.new("pref"),
            "member_id": member_id,
            "event": event,
            "way": way,
            "wanted": wanted,
            "updated_at": moment,
        }
        upsert = (
            insert(Preference)
            .values(values)
            .on_conflict_do_update(
                index_elements=["member_id", "event", "way"],
                set_={"wanted": wanted, "updated_at": moment},
            )
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            await session.execute(upsert)
            facts = {"event": event, "way": way, "wanted": wanted}
            await append(session, "preference.set", member_id, facts, by)

    async def tickets(self, workspace_id: str) -> list[Ticket]:
        """Return a workspace's tickets, newest first."""
        query = select(Ticket).where(Ticket.workspace_id == workspace_id)
        async with self.session() as session:
            return list((await session.scalars(query.order_by(col(Ticket.id).desc()))).all())

    async def open_ticket(self, new: NewTicket, by: str) -> Ticket:
        """Record what somebody asks; their address is kept with its digest."""
        if new.member_id is not None:
            await self.member(new.member_id)
        row = Ticket(
            id=ids.new("tick"),
            workspace_id=new.workspace_id,
            member_id=new.member_id,
            email=new.email,
            email_digest=await self.address_digest(new.email) if new.email else None,
            title=new.title,
            opened_at=now(),
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            session.add(row)
            await session.flush()
            session.add(_message(row.id, "person", new.text))
            await session.flush()
            await append(session, "ticket.opened", row.id, {}, by)
        return row

    async def say_in_ticket(self, ticket_id: str, author: str, said: str, by: str) -> None:
        """Record what `person` or `staff` wrote; raise InvalidInput for a ticket not open."""
        if author not in AUTHORS:
            raise InvalidInput(f"--author: one of {', '.join(AUTHORS)}")
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            row = await session.get(Ticket, ticket_id, with_for_update=True)
            if row is None or row.closed_at is not None:
                raise InvalidInput(f"there is no open ticket {ticket_id}")
            session.add(_message(ticket_id, author, said))
            await session.flush()
            await append(session, "ticket.said", ticket_id, {"author": author}, by)

    async def messages(self, ticket_id: str) -> list[TicketMessage]:
        """Return what was written in a ticket, first to last."""
        query = select(TicketMessage).where(TicketMessage.ticket_id == ticket_id)
        async with self.session() as session:
            return list((await session.scalars(query.order_by(TicketMessage.id))).all())

    async def close_ticket(self, ticket_id: str, by: str) -> None:
        """Close a ticket: its retention clock begins."""
        change = (
            update(Ticket)
            .where(col(Ticket.id) == ticket_id, col(Ticket.closed_at).is_(None))
            .values(status="closed", closed_at=now())
            .returning(col(Ticket.id))
        )
        async with self.transaction() as session:
            await permit(session, self.rules, by, Right.SERVE)
            if await session.scalar(change) is None:
                raise InvalidInput(f"there is no open ticket {ticket_id}")
            await append(session, "ticket.closed", ticket_id, {}, by)

    async def fill_digests(self) -> int:
        """Give every address its digest that came in without one; return how many.

        A person is found by the digest, so that whoever imports rows need not know the key.
        """
        return sum([await self._filled(table) for table in (Member, Ticket, Invoice)])

    async def _filled(self, table: Any) -> int:
        count = 0
        query = (
            select(table)
            .where(col(table.email) != "", col(table.email_digest).is_(None))
            .order_by(table.id)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        while True:
            async with self.transaction() as session:
                rows = (await session.scalars(query)).all()
                for row in rows:
                    row.email_digest = await self.address_digest(row.email)
            count += len(rows)
            if len(rows) < _BATCH:
                return count


def _message(ticket_id: str, author: str, said: str) -> TicketMessage:
    return TicketMessage(id=ids.new("msg"), ticket_id=ticket_id, author=author, body=said, at=now())
