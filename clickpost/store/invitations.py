"""Invitations to connect an account, and our apps at platforms: digests of what is secret by
chance, and what has to be read again sealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from clickpost import ids
from clickpost.errors import Conflict
from clickpost.invitation import Started, Status, digest_of
from clickpost.people import Right
from clickpost.store._base import Base, append, now
from clickpost.store.people import permit
from clickpost.store.tables import Invitation, OAuthClient
from clickpost.store.vault import Sealed


@dataclass(frozen=True)
class NewInvitation:
    """What somebody is invited to connect; `link` is the word of chance in its address."""

    platform: str
    name: str
    api_base: str
    link: str = field(repr=False)
    expires_at: datetime
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sought:
    """An app of ours: one for each platform, or for each server that is its own platform."""

    workspace_id: str
    platform: str
    api_base: str


class Invitations(Base):
    """Invitations, and the apps through which people sign in."""

    async def invite(
        self, workspace_id: str, new: NewInvitation, *, actor: str = "operator"
    ) -> Invitation:
        """Store an invitation; raise NotAllowed for who may not connect accounts."""
        invitation_id = ids.new("inv")
        sealed = self.vault.seal(invitation_id, {"link": new.link})
        row = Invitation(
            id=invitation_id,
            workspace_id=workspace_id,
            platform=new.platform,
            name=new.name,
            api_base=new.api_base,
            options=dict(new.options),
            link_digest=digest_of(new.link),
            status=Status.WAITING,
            secrets=sealed.secrets,
            data_key=sealed.data_key,
            key_id=sealed.key_id,
            created_at=now(),
            expires_at=new.expires_at,
        )
        async with self.transaction() as session:
            await permit(session, self.rules, actor, Right.CONNECT)
            session.add(row)
            await session.flush()
            facts = {"platform": new.platform}
            await append(session, "invitation.made", row.id, facts, actor)
        return row

    async def invitation(self, invitation_id: str) -> Invitation:
        """Return an invitation by its id."""
        async with self.session() as session:
            return await session.get_one(Invitation, invitation_id)

    async def invitation_of_link(self, link: str, moment: datetime) -> Invitation | None:
        """Return the invitation that a link opens, None where it opens nothing any more."""
        query = select(Invitation).where(
            Invitation.link_digest == digest_of(link), Invitation.expires_at > moment
        )
        async with self.session() as session:
            found: Invitation | None = await session.scalar(query)
        return found

    async def invitation_of_state(self, state: str) -> Invitation | None:
        """Return the invitation whose latest sign-in has this state, whatever became of it."""
        query = select(Invitation).where(Invitation.state_digest == digest_of(state))
        async with self.session() as session:
            found: Invitation | None = await session.scalar(query)
        return found

    def invitation_secrets(self, row: Invitation) -> dict[str, str]:
        """Return what was sealed with it: `link`, and `verifier` once a sign-in began.

        Empty once it is done.
        """
        if not row.data_key:
            return {}
        return self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))

    async def begin(
        self, row: Invitation, state: str, browser: str, verifier: str, until: datetime
    ) -> bool:
        """Begin a sign-in, which ends an earlier one; False where the invitation is over."""
        secrets = {**self.invitation_secrets(row), "verifier": verifier}
        sealed = self.vault.seal(row.id, secrets)
        change = (
            update(Invitation)
            .where(col(Invitation.id) == row.id, _open_at(now()))
            .values(
                state_digest=digest_of(state),
                browser_digest=digest_of(browser),
                state_until=until,
                state_used_at=None,
                reason=None,
                secrets=sealed.secrets,
                data_key=sealed.data_key,
                key_id=sealed.key_id,
            )
            .returning(col(Invitation.id))
        )
        async with self.transaction() as session:
            if await session.scalar(change) is None:
                return False
            await append(session, "invitation.begun", row.id, {}, "owner")
        return True

    async def redeem(self, invitation_id: str, state: str) -> bool:
        """Use a state up, once: of two that come with it, one gets True."""
        moment = now()
        change = (
            update(Invitation)
            .where(
                col(Invitation.id) == invitation_id,
                col(Invitation.state_digest) == digest_of(state),
                col(Invitation.state_used_at).is_(None),
                col(Invitation.state_until) > moment,
                _open_at(moment),
            )
            .values(state_used_at=moment)
            .returning(col(Invitation.id))
        )
        async with self.transaction() as session:
            return await session.scalar(change) is not None

    async def note_refusal(self, invitation_id: str, why: str, reason: str) -> None:
        """Say why a sign-in connected nothing; `why` is a word of ours, `reason` for people."""
        change = update(Invitation).where(col(Invitation.id) == invitation_id).values(reason=reason)
        async with self.transaction() as session:
            await session.execute(change)
            await append(session, "invitation.refused", invitation_id, {"why": why}, "owner")

    async def finish(self, invitation_id: str, connection_id: str) -> None:
        """Say that the account is connected, and forget what was sealed.

        Raises Conflict where another sign-in was faster.
        """
        change = (
            update(Invitation)
            .where(
                col(Invitation.id) == invitation_id, col(Invitation.status) == Status.WAITING.value
            )
            .values(
                status=Status.DONE,
                reason=None,
                connection_id=connection_id,
                finished_at=now(),
                secrets=b"",
                data_key=b"",
            )
            .returning(col(Invitation.id))
        )
        async with self.transaction() as session:
            if await session.scalar(change) is None:
                raise Conflict(f"{invitation_id} is not waiting any more")
            facts = {"connection_id": connection_id}
            await append(session, "invitation.done", invitation_id, facts, "owner")

    async def keep_client(
        self, which: Sought, secrets: Mapping[str, str], redirect_uri: str | None = None
    ) -> None:
        """Keep an app of ours; one of the same server is replaced."""
        client_id = ids.new("app")
        sealed = self.vault.seal(client_id, secrets)
        values = {
            "id": client_id,
            "redirect_uri": redirect_uri,
            "secrets": sealed.secrets,
            "data_key": sealed.data_key,
            "key_id": sealed.key_id,
            "created_at": now(),
            "used_at": None,
        }
        same = ["workspace_id", "platform", "api_base"]
        made = insert(OAuthClient).values(
            workspace_id=which.workspace_id,
            platform=which.platform,
            api_base=which.api_base,
            **values,
        )
        async with self.transaction() as session:
            await session.execute(made.on_conflict_do_update(index_elements=same, set_=values))
            await append(session, "app.kept", client_id, {"platform": which.platform})

    async def client(self, which: Sought) -> OAuthClient | None:
        """Return our app at a server, None where there is none."""
        query = select(OAuthClient).where(
            OAuthClient.workspace_id == which.workspace_id,
            OAuthClient.platform == which.platform,
            OAuthClient.api_base == which.api_base,
        )
        async with self.session() as session:
            found: OAuthClient | None = await session.scalar(query)
        return found

    def client_secrets(self, row: OAuthClient) -> dict[str, str]:
        """Return an app's id, secret and permissions."""
        return self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))

    async def note_client_used(self, row: OAuthClient) -> None:
        """Remember that somebody signed in through an app: a server forgets none that is used."""
        change = update(OAuthClient).where(col(OAuthClient.id) == row.id).values(used_at=now())
        async with self.session() as session:
            await session.execute(change)

    async def forget_client(self, row: OAuthClient) -> None:
        """Forget an app that its platform does not know any more."""
        gone = delete(OAuthClient).where(col(OAuthClient.id) == row.id)
        async with self.transaction() as session:
            await session.execute(gone)
            await append(session, "app.forgotten", row.id, {"platform": row.platform})

    async def app_secrets(self, platform: str) -> list[str]:
        """Return the secrets of all our apps at a platform: with one of them its callbacks sign."""
        query = select(OAuthClient).where(OAuthClient.platform == platform)
        async with self.session() as session:
            rows = (await session.scalars(query)).all()
        return [self.client_secrets(row)["client_secret"] for row in rows]

    async def seal_invitations_anew(self) -> int:
        """Seal every open invitation and every app under the current master key."""
        async with self.session() as session:
            sealed = select(Invitation.id).where(col(Invitation.data_key) != b"")
            known = (await session.scalars(sealed)).all()
            apps = (await session.scalars(select(OAuthClient.id))).all()
        for invitation_id in known:
            await self._sealed_anew(Invitation, invitation_id)
        for client_id in apps:
            await self._sealed_anew(OAuthClient, client_id)
        return len(known) + len(apps)

    async def _sealed_anew(self, kind: Any, row_id: str) -> None:
        async with self.transaction() as session:
            row = await session.get(kind, row_id, with_for_update=True)
            if row is None or not row.data_key:  # It is over by now.
                return
            opened = self.vault.open(row.id, Sealed(row.secrets, row.data_key, row.key_id))
            sealed = self.vault.seal(row.id, opened)
            row.secrets, row.data_key = sealed.secrets, sealed.data_key
            row.key_id = sealed.key_id
            await session.flush()
            what = "invitation" if kind is Invitation else "app"
            await append(session, f"{what}.rekeyed", row_id, {"key_id": sealed.key_id})


def started_of(row: Invitation | None) -> Started | None:
    """Return what is known of an invitation's latest sign-in."""
    if row is None or row.state_until is None or row.browser_digest is None:
        return None
    return Started(row.platform, row.browser_digest, row.state_until, row.state_used_at)


def _open_at(moment: datetime) -> ColumnElement[bool]:
    return and_(col(Invitation.status) == Status.WAITING.value, col(Invitation.expires_at) > moment)
