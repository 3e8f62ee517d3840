"""People's requests: one queue for all doors; each change of state is one guarded UPDATE and one
ledger line, which holds ids and words of ours, never a personal value.

How flows that carry a request out work with it:

- `policies/requests/default.yaml` names a flow for each kind (`everywhere.flows`). `handle-request`
  starts its deployment `NAME/NAME` with one parameter, `request_id`, once the request is verified.
- That flow reads `request(id)`: `kind`, `about` (`person` or `account`), `member_id`,
  `workspace_id`, `connection_ids`, `address_digest`, `takedown`, `due_at`. Who asks and what else
  they said (references at vendors, what is to be corrected) is `request_secrets(row)`.
- It tells how far it is: `request_planned` → (`request_approved`, where the plan needs it) →
  `request_executed` → `request_read_back` → `request_certified(id, certificate_id)`. Each may be
  called again by a run that is repeated: where the request is that far already, nothing happens.
  A look that finds something left calls `request_executed` again.
- Then it wakes `handle-request` (tasks/requests.py: `wake`), which tells the person and answers.
  Whoever forgets to is helped by the sweep.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids, requests
from clickpost.errors import Conflict, InvalidInput
from clickpost.requests import CLOSED, OPEN, About, Clocks, Door, Kind, State
from clickpost.store._base import append, now
from clickpost.store.subjects import Subjects
from clickpost.store.tables import Invoice, Member, SubjectRequest, Ticket
from clickpost.store.vault import Sealed

#: A reply to a challenge may be wrong so often; then only its link is left.
MOST_TRIES = 5
#: The order in which a request that is repeated finds itself already so far.
_FAR = (State.VERIFIED, State.PLANNED, State.APPROVED, State.EXECUTED, State.READ_BACK,
        State.CERTIFIED, State.ANSWERED)  # fmt: skip


@dataclass(frozen=True)
class NewRequest:
    """A request as it came in; `once` names what it came with, so that it counts once."""

    kind: Kind
    door: Door
    jurisdiction: str
    clocks: Clocks
    address: str | None = field(default=None, repr=False)
    details: str | None = field(default=None, repr=False)
    references: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What outside our tables the person is known as, e.g. {"stripe": "cus_…"}."""
    about: About = "person"
    workspace_id: str | None = None
    connection_ids: Sequence[str] = ()
    takedown: bool = False
    dkim: str | None = None
    once: str | None = None


@dataclass(frozen=True)
class Challenge:
    """What proves that an address is the person's own: a link's word, or a code in a reply."""

    link: str = field(repr=False)
    reply: str = field(repr=False)
    until: datetime


class Requests(Subjects):
    """The queue of requests."""

    async def open_request(
        self, new: NewRequest, actor: str = "engine"
    ) -> tuple[SubjectRequest, bool]:
        """Store a request; return it, and whether it is new: what came before comes to nothing."""
        request_id = ids.new("req")
        secrets = {"address": new.address or "", "details": new.details or ""}
        sealed = self.vault.seal(request_id, secrets | {"references": _json(new.references)})
        digest = await self.address_digest(new.address) if new.address else None
        moment = now()
        values = {
            "id": request_id,
            "kind": new.kind.value,
            "state": State.RECEIVED.value,
            "about": new.about,
            "door": new.door.value,
            "jurisdiction": new.jurisdiction,
            "code": requests.new_code(),
            "once": sha256(new.once.encode()).hexdigest() if new.once else None,
            "secrets": sealed.secrets,
            "data_key": sealed.data_key,
            "key_id": sealed.key_id,
            "address_digest": digest,
            "workspace_id": new.workspace_id,
            "connection_ids": list(new.connection_ids),
            "takedown": new.takedown,
            "dkim": new.dkim,
            "challenge_tries": 0,
            "received_at": new.clocks.received_at,
            "acknowledge_by": new.clocks.acknowledge_by,
            "due_at": new.clocks.due_at,
            "updated_at": moment,
        }
        made = insert(SubjectRequest).values(values).on_conflict_do_nothing(index_elements=["once"])
        facts = {"kind": new.kind.value, "door": new.door.value, "jurisdiction": new.jurisdiction}
        async with self.transaction() as session:
            row = (await session.scalars(made.returning(SubjectRequest))).one_or_none()
            if row is not None:
                await append(session, "request.received", request_id, facts, actor)
                return row, True
            query = select(SubjectRequest).where(SubjectRequest.once == values["once"])
            return (await session.scalars(query)).one(), False

    async def request(self, request_id: str) -> SubjectRequest:
        """Return a request by its id or its confirmation code; raise InvalidInput for none."""
        code = requests.code_of(request_id)
        query = select(SubjectRequest).where(
            (col(SubjectRequest.id) == request_id) | (col(SubjectRequest.code) == (code or ""))
        )
        async with self.session() as session:
            row: SubjectRequest | None = await session.scalar(query)
        if row is None:
            raise InvalidInput("there is no such request; see: clickpost privacy requests")
        return row

    def request_secrets(self, row: SubjectRequest) -> dict[str, str]:
        """Return `address`, `details`, and `references` as JSON; empty once all was told."""
        if not row.data_key:
            return {}
        return self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))

    async def note_request_seen(self, request_id: str, actor: str) -> None:
        """Write down who looked at who asks."""
        async with self.transaction() as session:
            await append(session, "request.seen", request_id, {}, actor)

    async def is_asked_already(self, address: str, kind: Kind) -> bool:
        """Say whether the same is asked for an address already, and waits to be confirmed."""
        query = select(SubjectRequest.id).where(
            col(SubjectRequest.address_digest) == await self.address_digest(address),
            col(SubjectRequest.kind) == kind.value,
            col(SubjectRequest.state) == State.RECEIVED.value,
            col(SubjectRequest.challenge_until).is_(None)
            | (col(SubjectRequest.challenge_until) > now()),
        )
        async with self.session() as session:
            return await session.scalar(query.limit(1)) is not None

    async def subject_requests(self, *, closed: bool = False) -> list[SubjectRequest]:
        """Return the open requests, the one that is due first before; or those that are closed."""
        states = [state.value for state in (CLOSED if closed else OPEN)]
        query = select(SubjectRequest).where(col(SubjectRequest.state).in_(states))
        order = col(SubjectRequest.closed_at).desc() if closed else col(SubjectRequest.due_at)
        async with self.session() as session:
            return list((await session.scalars(query.order_by(order).limit(1000))).all())

    async def requests_to_handle(self) -> list[str]:
        """Return the ids of requests that wait for nobody but `handle-request`, oldest first."""
        ready = col(SubjectRequest.state).in_([State.VERIFIED.value, State.CERTIFIED.value])
        begun = (col(SubjectRequest.state) == State.RECEIVED.value) & col(
            SubjectRequest.challenge_at
        ).is_(None)
        untold = col(SubjectRequest.state).in_([one.value for one in CLOSED]) & col(
            SubjectRequest.told_at
        ).is_(None)
        query = select(SubjectRequest.id).where(ready | begun | untold)
        async with self.session() as session:
            found = await session.scalars(query.order_by(col(SubjectRequest.received_at)))
            return list(found.all())

    async def challenges_since(self, digest: str, moment: datetime) -> int:
        """Return to how many requests of an address a challenge was sent since `moment`."""
        query = select(func.count()).where(
            col(SubjectRequest.address_digest) == digest,
            col(SubjectRequest.challenge_at) > moment,
        )
        async with self.session() as session:
            return int(await session.scalar(query) or 0)

    async def challenge_request(self, request_id: str, new: Challenge) -> None:
        """Keep the digests of a challenge before it is sent; an earlier one opens nothing more."""
        values = {
            "link_digest": _digest_of(new.link),
            "reply_digest": await self._reply_digest(request_id, new.reply),
            "challenge_until": new.until,
            "challenge_at": now(),
            "challenge_tries": 0,
        }
        await self._change(request_id, State.RECEIVED, values, "request.challenged", {}, "engine")

    async def unchallenge_request(self, request_id: str) -> None:
        """Take a challenge back whose letter did not leave: the next try makes another one."""
        values = {**_unchallenged(), "challenge_at": None}
        await self._change(request_id, State.RECEIVED, values, "request.unsent", {}, "engine")

    async def request_of_link(self, link: str, moment: datetime) -> SubjectRequest | None:
        """Return the request that a link confirms, None where it confirms none (any more)."""
        query = select(SubjectRequest).where(
            col(SubjectRequest.link_digest) == _digest_of(link),
            *_challenged(moment),
        )
        async with self.session() as session:
            found: SubjectRequest | None = await session.scalar(query)
        return found

    async def confirm_by_link(self, link: str) -> SubjectRequest | None:
        """Verify the request of a link, once; None where the link is not worth that any more."""
        where = (col(SubjectRequest.link_digest) == _digest_of(link), *_challenged(now()))
        return await self._confirmed(where, "link")

    async def confirm_by_reply(self, address: str, code: str) -> SubjectRequest | None:
        """Verify the request that `code` confirms, answered from `address`; None where it is wrong.

        Every wrong code counts against all open challenges of the address.
        """
        digest, moment = await self.address_digest(address), now()
        open_ = (
            col(SubjectRequest.address_digest) == digest,
            col(SubjectRequest.challenge_tries) < MOST_TRIES,
            *_challenged(moment),
        )
        async with self.session() as session:
            waiting = (await session.scalars(select(SubjectRequest).where(*open_))).all()
        for row in waiting:
            expected = await self._reply_digest(row.id, code)
            if hmac.compare_digest(expected, row.reply_digest or ""):
                return await self._confirmed((col(SubjectRequest.id) == row.id, *open_), "reply")
        wrong = (
            update(SubjectRequest)
            .where(*open_)
            .values(challenge_tries=SubjectRequest.challenge_tries + 1)
        )
        async with self.session() as session:
            await session.execute(wrong)
        return None

    async def _confirmed(
        self, where: tuple[ColumnElement[bool], ...], how: str
    ) -> SubjectRequest | None:
        query = select(SubjectRequest.id).where(*where)
        async with self.session() as session:
            request_id = await session.scalar(query)
        if request_id is None:
            return None
        try:
            return await self.verify_request(str(request_id), how, "subject", where)
        except Conflict:  # Somebody pressed the button twice.
            return None

    async def verify_request(
        self,
        request_id: str,
        how: str,
        actor: str,
        where: tuple[ColumnElement[bool], ...] = (),
        authority: str | None = None,
    ) -> SubjectRequest:
        """Say that a request comes from whom it is about, and match it to whom we know.

        `how` is `link`, `reply`, `platform` or `operator`. Its challenge opens nothing any more.
        Raises Conflict where it is not waiting for that.
        """
        row = await self.request(request_id)
        known = await self._matched(row)
        values = {
            "verified_at": now(),
            "verified_by": how,
            "member_id": known.id if known else None,
            "workspace_id": row.workspace_id or (known.workspace_id if known else None),
            "authority": authority or _authority(row, known),
            "link_digest": None,
            "reply_digest": None,
            "challenge_until": None,
            "paused_at": None,
        }
        if row.paused_at is not None:
            values["due_at"] = clocks_of(row).resumed(now())
        facts = {"by": how, "known": known is not None}
        return await self._moved(row, State.VERIFIED, values, facts, actor, where)

    async def grant_authority(self, request_id: str, authority: str, actor: str) -> SubjectRequest:
        """Say why somebody may speak for a business account, who is not its owner."""
        facts = {"authority": "operator"}
        values = {"authority": authority}
        return await self._change(
            request_id, State.VERIFIED, values, "request.authorized", facts, actor
        )

    async def _matched(self, row: SubjectRequest) -> Member | None:
        """Return the membership that a request is about, of several the one it names."""
        address = self.request_secrets(row).get("address")
        members = await self.members_at(address) if address else []
        if row.workspace_id is not None:
            members = [one for one in members if one.workspace_id == row.workspace_id]
        # The erasure of a person finds all their memberships by the address's digest.
        return members[0] if members else None

    async def request_planned(self, request_id: str, actor: str = "engine") -> SubjectRequest:
        """Say that it is known where the person's data is, and what becomes of it."""
        return await self.move_request(request_id, State.PLANNED, actor=actor)

    async def request_approved(self, request_id: str, actor: str) -> SubjectRequest:
        """Say that somebody looked at the plan."""
        return await self.move_request(request_id, State.APPROVED, actor=actor)

    async def request_executed(self, request_id: str, actor: str = "engine") -> SubjectRequest:
        """Say that the plan was carried out, or carried on after a look found something left."""
        return await self.move_request(request_id, State.EXECUTED, actor=actor)

    async def request_read_back(self, request_id: str, actor: str = "engine") -> SubjectRequest:
        """Say that a look over every mapped place found nothing left that is not held."""
        return await self.move_request(request_id, State.READ_BACK, actor=actor)

    async def request_certified(
        self, request_id: str, certificate_id: str | None, actor: str = "engine"
    ) -> SubjectRequest:
        """Say that it is done and proven; an access has its certificate too, or None."""
        values = {"certificate_id": certificate_id, "outcome": "done"}
        facts = {"certificate": certificate_id}
        return await self.move_request(request_id, State.CERTIFIED, values, facts, actor)

    async def answer_request(
        self, request_id: str, outcome: str, *, note: str | None = None, actor: str = "engine"
    ) -> SubjectRequest:
        """Say that there is an answer: `done`, `nothing_held` or `by_hand`.

        Telling it is what is left; `request_told` says that this happened.
        """
        values = {"outcome": outcome, "note": note, "closed_at": now()}
        return await self.move_request(
            request_id, State.ANSWERED, values, {"outcome": outcome}, actor
        )

    async def refuse_request(
        self, request_id: str, ground: str, note: str | None, actor: str
    ) -> SubjectRequest:
        """Refuse a request on a ground that its jurisdiction's file knows; the note is told."""
        values = {"ground": ground, "note": note, "closed_at": now(), **_unchallenged()}
        return await self.move_request(request_id, State.REFUSED, values, {"ground": ground}, actor)

    async def withdraw_request(self, request_id: str, actor: str) -> SubjectRequest:
        """Say that the person takes it back; nothing is told, and the address is forgotten."""
        values = {"closed_at": now(), "told_at": now(), **_unchallenged(), **_forgotten()}
        return await self.move_request(request_id, State.WITHDRAWN, values, {}, actor)

    async def request_told(self, request_id: str) -> None:
        """Say that the person was told the end, and forget their address here."""
        moment = now()
        change = (
            update(SubjectRequest)
            .where(
                col(SubjectRequest.id) == request_id,
                col(SubjectRequest.state).in_([one.value for one in CLOSED]),
                col(SubjectRequest.told_at).is_(None),
            )
            .values(told_at=moment, updated_at=moment, **_forgotten())
            .returning(col(SubjectRequest.id))
        )
        async with self.transaction() as session:
            if await session.scalar(change) is not None:
                await append(session, "request.told", request_id, {})

    async def acknowledge_request(self, request_id: str) -> None:
        """Say that receipt was confirmed; a second time nothing happens."""
        moment = now()
        change = (
            update(SubjectRequest)
            .where(
                col(SubjectRequest.id) == request_id, col(SubjectRequest.acknowledged_at).is_(None)
            )
            .values(acknowledged_at=moment, updated_at=moment)
            .returning(col(SubjectRequest.id))
        )
        async with self.transaction() as session:
            if await session.scalar(change) is not None:
                await append(session, "request.acknowledged", request_id, {})

    async def extend_request(
        self, request_id: str, due_at: datetime, note: str, actor: str
    ) -> SubjectRequest:
        """Give a request more time, once; raise Conflict where it had that, or is closed."""
        row = await self.request(request_id)
        moment = now()
        change = (
            update(SubjectRequest)
            .where(
                col(SubjectRequest.id) == row.id,
                col(SubjectRequest.state).in_([one.value for one in OPEN]),
                col(SubjectRequest.extended_at).is_(None),
                col(SubjectRequest.due_at) == row.due_at,
            )
            .values(due_at=due_at, extended_at=moment, note=note, updated_at=moment)
            .returning(SubjectRequest)
        )
        facts = {"due_at": due_at.isoformat()}
        return await self._one(change, row, "request.extended", facts, actor)

    async def pause_request(self, request_id: str, actor: str) -> SubjectRequest:
        """Stop its clock; raise Conflict where it stands already, or the request is closed."""
        row = await self.request(request_id)
        change = (
            update(SubjectRequest)
            .where(
                col(SubjectRequest.id) == row.id,
                col(SubjectRequest.state).in_([one.value for one in OPEN]),
                col(SubjectRequest.paused_at).is_(None),
            )
            .values(paused_at=now(), updated_at=now())
            .returning(SubjectRequest)
        )
        return await self._one(change, row, "request.paused", {}, actor)

    async def resume_request(self, request_id: str, actor: str) -> SubjectRequest:
        """Let its clock go on, later by as much as it stood; raise InvalidInput where it runs."""
        row = await self.request(request_id)
        due_at = clocks_of(row).resumed(now())
        change = (
            update(SubjectRequest)
            .where(col(SubjectRequest.id) == row.id, col(SubjectRequest.paused_at) == row.paused_at)
            .values(paused_at=None, due_at=due_at, updated_at=now())
            .returning(SubjectRequest)
        )
        facts = {"due_at": due_at.isoformat()}
        return await self._one(change, row, "request.resumed", facts, actor)

    async def move_request(
        self,
        request_id: str,
        after: State,
        values: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        actor: str = "engine",
    ) -> SubjectRequest:
        """Move a request to `after`, where the ways lead there, and write a ledger line.

        Where it is that far already nothing happens; raises Conflict from any other state.
        """
        row = await self.request(request_id)
        if _is_past(State(row.state), after):
            return row
        return await self._moved(row, after, values or {}, facts or {}, actor)

    async def _moved(
        self,
        row: SubjectRequest,
        after: State,
        values: Mapping[str, Any],
        facts: Mapping[str, Any],
        actor: str,
        where: tuple[ColumnElement[bool], ...] = (),
    ) -> SubjectRequest:
        change = (
            update(SubjectRequest)
            .where(
                col(SubjectRequest.id) == row.id,
                col(SubjectRequest.state).in_([one.value for one in requests.before(after)]),
                *where,
            )
            .values(state=after.value, updated_at=now(), **values)
            .returning(SubjectRequest)
        )
        return await self._one(change, row, f"request.{after.value}", facts, actor)

    async def _change(
        self,
        request_id: str,
        state: State,
        values: Mapping[str, Any],
        action: str,
        facts: Mapping[str, Any],
        actor: str,
    ) -> SubjectRequest:
        row = await self.request(request_id)
        change = (
            update(SubjectRequest)
            .where(col(SubjectRequest.id) == row.id, col(SubjectRequest.state) == state.value)
            .values(updated_at=now(), **values)
            .returning(SubjectRequest)
        )
        return await self._one(change, row, action, facts, actor)

    async def _one(
        self,
        change: Any,
        row: SubjectRequest,
        action: str,
        facts: Mapping[str, Any],
        actor: str,
    ) -> SubjectRequest:
        async with self.transaction() as session:
            changed: SubjectRequest | None = (await session.scalars(change)).one_or_none()
            if changed is None:
                what = action.partition(".")[2]
                raise Conflict(f"{row.id} is {row.state}, and cannot be {what} now")
            await append(session, action, row.id, facts, actor)
        return changed

    async def holds_anything(self, row: SubjectRequest) -> bool:
        """Say whether anything is held about whom a verified request is about.

        What vendors hold is theirs to say: a request with references is never about nothing.
        """
        references = json.loads(self.request_secrets(row).get("references") or "{}")
        if row.member_id or row.connection_ids or row.about == "account" or references:
            return True
        async with self.session() as session:
            for table in (Member, Invoice, Ticket):
                query = select(table.id).where(table.email_digest == row.address_digest).limit(1)
                if row.address_digest and await session.scalar(query) is not None:
                    return True
        return False

    async def seal_requests_anew(self) -> int:
        """Seal the key of digests and every open request under the current master key."""
        count = await self.seal_subject_key_anew()
        query = select(SubjectRequest.id).where(col(SubjectRequest.data_key) != b"")
        async with self.session() as session:
            known = (await session.scalars(query)).all()
        for request_id in known:
            count += await self._request_sealed_anew(request_id)
        return count

    async def _request_sealed_anew(self, request_id: str) -> int:
        async with self.transaction() as session:
            row = await session.get(SubjectRequest, request_id, with_for_update=True)
            if row is None or not row.data_key:  # It was told and forgotten meanwhile.
                return 0
            sealed = self.vault.seal(row.id, self.request_secrets(row))
            row.secrets, row.data_key = sealed.secrets, sealed.data_key
            row.key_id = sealed.key_id
            await session.flush()
            await append(session, "request.rekeyed", request_id, {"key_id": sealed.key_id})
        return 1

    async def _reply_digest(self, request_id: str, code: str) -> str:
        """Return the digest of a short code: keyed, for 40 bits of chance could be tried out."""
        key = await self.subject_key()
        said = f"{request_id}:{code.strip().upper()}".encode()
        return hmac.new(key, said, sha256).hexdigest()


def clocks_of(row: SubjectRequest) -> Clocks:
    """Return what of a request is due when."""
    return Clocks(row.received_at, row.due_at, row.acknowledge_by, row.extended_at, row.paused_at)


def until_tomorrow(moment: datetime) -> datetime:
    """Return since when challenges to an address count."""
    return moment - timedelta(days=1)


def _authority(row: SubjectRequest, known: Member | None) -> str | None:
    is_owner = row.about == "account" and known is not None and known.role == "owner"
    return "owner" if is_owner else None


def _is_past(state: State, after: State) -> bool:
    """Say whether a request was at `after` before; a look that found something left goes back."""
    if state == after:
        return True
    if after not in _FAR or state not in _FAR or after in requests.WAYS[state]:
        return False
    return _FAR.index(after) < _FAR.index(state)


def _challenged(moment: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        col(SubjectRequest.state) == State.RECEIVED.value,
        col(SubjectRequest.challenge_until) > moment,
    )


def _unchallenged() -> dict[str, Any]:
    return {"link_digest": None, "reply_digest": None, "challenge_until": None}


def _forgotten() -> dict[str, Any]:
    return {"secrets": b"", "data_key": b""}


def _digest_of(word: str) -> str:
    return sha256(word.encode()).hexdigest()


def _json(references: Mapping[str, str]) -> str:
    return json.dumps(dict(references))
