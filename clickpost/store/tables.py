"""The tables, as SQLModel classes; all times are aware, all ids are ours."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import BigInteger, Field, SQLModel

from clickpost.delivery import State


def _moment(*, null: bool = True) -> Any:
    return Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=null))


def _json(*, null: bool = True) -> Any:
    return Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=null))


def _to(table: str, *, index: bool = True) -> Any:
    return Field(sa_column=Column(Text, ForeignKey(f"{table}.id"), nullable=False, index=index))


class Workspace(SQLModel, table=True):
    """A customer."""

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = _moment(null=False)


class Member(SQLModel, table=True):
    """A person in a workspace."""

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    name: str | None = None
    email: str | None = None
    role: str = "publisher"
    created_at: datetime = _moment(null=False)


class Connection(SQLModel, table=True):
    """One connected account; its secrets are sealed with its own data key."""

    __table_args__ = (UniqueConstraint("workspace_id", "platform", "name"),)

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    platform: str
    name: str
    handle: str | None = None
    remote_id: str | None = None
    api_base: str
    options: dict[str, str] = _json(null=False)
    limits: dict[str, Any] = _json(null=False)
    status: str = "active"
    status_reason: str | None = None
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    data_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key_id: str
    expires_at: datetime | None = _moment()
    created_at: datetime = _moment(null=False)
    updated_at: datetime = _moment(null=False)

    @property
    def ref(self) -> str:
        """How people name it: PLATFORM/NAME."""
        return f"{self.platform}/{self.name}"


class Asset(SQLModel, table=True):
    """A file that somebody uploaded, kept under its content's hash."""

    __table_args__ = (UniqueConstraint("workspace_id", "sha256"),)

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    sha256: str
    kind: str
    mime: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    width: int
    height: int
    duration: float | None = None
    stored_at: str
    created_at: datetime = _moment(null=False)


class Rendition(SQLModel, table=True):
    """What a platform gets of an asset."""

    __table_args__ = (UniqueConstraint("asset_id", "profile_hash"),)

    id: str = Field(primary_key=True)
    asset_id: str = _to("asset")
    profile_hash: str
    sha256: str
    kind: str
    mime: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    width: int
    height: int
    duration: float | None = None
    label: str
    stored_at: str
    created_at: datetime = _moment(null=False)


class Post(SQLModel, table=True):
    """What the author wrote."""

    __table_args__ = (UniqueConstraint("workspace_id", "client_key"),)

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    client_key: str | None = None
    body: dict[str, Any] = _json(null=False)
    content_hash: str
    draft: bool = False
    due_at: datetime | None = _moment()
    late: str = "publish"
    progress: float | None = None
    flow_run_id: str | None = None
    created_at: datetime = _moment(null=False)


class Variant(SQLModel, table=True):
    """What a post says otherwise for one platform or one account."""

    __table_args__ = (UniqueConstraint("post_id", "target"),)

    id: str = Field(primary_key=True)
    post_id: str = _to("post")
    target: str
    body: dict[str, Any] = _json(null=False)


class Delivery(SQLModel, table=True):
    """One post to one connection."""

    __table_args__ = (
        UniqueConstraint("post_id", "connection_id"),
        Index("ix_delivery_state_due_at", "state", "due_at"),
    )

    id: str = Field(primary_key=True)
    post_id: str = _to("post")
    connection_id: str = _to("connection")
    state: State = Field(
        sa_column=Column(
            Enum(
                State, native_enum=False, length=32, values_callable=lambda s: [x.value for x in s]
            ),
            nullable=False,
        )
    )
    reason: str | None = None
    who_acts: str | None = None
    key: str
    content_hash: str | None = None
    policy_hash: str | None = None
    message: list[dict[str, Any]] = _json()
    notes: list[str] = _json()
    prepared: list[dict[str, Any]] = _json()
    prepared_at: datetime | None = _moment()
    receipts: list[dict[str, Any]] = _json()
    ticket: dict[str, Any] | None = _json()
    remote_id: str | None = None
    url: str | None = None
    attempts: int = 0
    due_at: datetime | None = _moment()
    not_before: datetime | None = _moment()
    lease_owner: str | None = None
    lease_until: datetime | None = _moment()
    sent_at: datetime | None = _moment()
    live_at: datetime | None = _moment()
    created_at: datetime = _moment(null=False)
    updated_at: datetime = _moment(null=False)


class Attempt(SQLModel, table=True):
    """One try, with its verdict; without one, nobody knows what came of it."""

    __table_args__ = (UniqueConstraint("delivery_id", "number"),)

    id: str = Field(primary_key=True)
    delivery_id: str = _to("delivery")
    number: int
    part: int = 0
    intent: dict[str, Any] = _json(null=False)
    started_at: datetime = _moment(null=False)
    finished_at: datetime | None = _moment()
    seconds: float | None = None
    verdict: str | None = None
    status: int | None = None
    code: str | None = None
    detail: str | None = None
    worker: str
    flow_run_id: str | None = None


class LedgerLine(SQLModel, table=True):
    """One line of the audit log: append-only, each chained to the one before by its hash."""

    __tablename__ = "ledger"

    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    at: datetime = _moment(null=False)
    actor: str
    action: str
    subject: str = Field(index=True)
    facts: dict[str, Any] = _json(null=False)
    prev: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LedgerHead(SQLModel, table=True):
    """The last line's number and hash: the lock that orders the chain."""

    __tablename__ = "ledger_head"

    one: bool = Field(default=True, primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
