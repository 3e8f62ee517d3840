"""The tables, as SQLModel classes; all times are aware, all ids are ours."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import BigInteger, Field, SQLModel

from clickpost.delivery import State


def _moment(*, null: bool = True) -> Any:
    return Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=null))


def _json(*, null: bool = True) -> Any:
    return Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=null))


def _flag() -> Any:
    return Field(
        default=False, sa_column=Column(Boolean, nullable=False, server_default=text("false"))
    )


def _to(table: str, *, index: bool = True) -> Any:
    return Field(sa_column=Column(Text, ForeignKey(f"{table}.id"), nullable=False, index=index))


class Workspace(SQLModel, table=True):
    """A customer."""

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    approval: bool = _flag()
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
    url: str | None = None
    """The account's page, as its platform told it."""
    api_base: str
    options: dict[str, str] = _json(null=False)
    limits: dict[str, Any] = _json(null=False)
    status: str = "active"
    status_reason: str | None = None
    approval: bool = _flag()
    slots: dict[str, Any] | None = _json()
    burst: int | None = None
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
    series_id: str | None = Field(
        default=None, sa_column=Column(Text, ForeignKey("series.id"), index=True)
    )
    created_at: datetime = _moment(null=False)


class Series(SQLModel, table=True):
    """A post that comes again and again: each time a post of its own is made from it."""

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    body: dict[str, Any] = _json(null=False)
    connection_ids: list[str] = _json(null=False)
    rrule: str
    zone: str
    starts_at: datetime = _moment(null=False)
    cap: int | None = None
    made: int = 0
    next_at: datetime | None = _moment()
    status: str = "active"
    created_at: datetime = _moment(null=False)
    updated_at: datetime = _moment(null=False)


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
        Index("ix_delivery_waits_for", "waits_for"),
        Index("ix_delivery_connection_id_due_at", "connection_id", "due_at"),
        Index("ix_delivery_connection_id_fingerprint", "connection_id", "fingerprint"),
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
    flow_run_id: str | None = None
    """The run of its own moment, where that is not the post's."""
    fingerprint: str | None = None
    """What of its words and files is compared, to notice that the same is said again."""
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
    queued_at: datetime | None = _moment()
    """Since when it waits for budget: its place in line."""
    waits_for: str | None = None
    """The holder of the budget that it waits for: whose line it stands in."""
    asked_at: datetime | None = _moment()
    """When an operator was asked what only people can know."""
    question_run_id: str | None = None
    checked_at: datetime | None = _moment()
    """When somebody last looked whether it is still there."""
    absent_at: datetime | None = _moment()
    """When a look first missed it; only a second look, some minutes later, says that it is gone."""
    seen_hash: str | None = None
    """Of its text as the platform first showed it: another one later says that it was edited."""
    takedown_at: datetime | None = _moment()
    """Since when somebody wants it taken down, until it is, or cannot be."""
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


class Approval(SQLModel, table=True):
    """One decision about exactly one content: any change of that asks anew."""

    __table_args__ = (UniqueConstraint("delivery_id", "content_hash"),)

    id: str = Field(primary_key=True)
    delivery_id: str = _to("delivery")
    content_hash: str
    due_at: datetime | None = _moment()
    asked_at: datetime = _moment(null=False)
    run_id: str | None = None
    verdict: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = _moment()
    note: str | None = None


class Spend(SQLModel, table=True):
    """What one attempt took from a budget; `holder` is whose budget: an account, app or address."""

    __table_args__ = (Index("ix_spend_holder_what_at", "holder", "what", "at"),)

    id: str = Field(primary_key=True)
    holder: str
    what: str
    amount: int
    at: datetime = _moment(null=False)
    delivery_id: str | None = None


class Allowance(SQLModel, table=True):
    """What a platform itself said is left of a budget, and until when that holds."""

    holder: str = Field(primary_key=True)
    what: str = Field(primary_key=True)
    window: int = Field(primary_key=True)
    total: int | None = None
    left: int
    resets_at: datetime = _moment(null=False)
    seen_at: datetime = _moment(null=False)


class Channel(SQLModel, table=True):
    """Where a workspace is told what happened; its address and key are sealed."""

    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    name: str
    kind: str
    events: list[str] = _json(null=False)
    status: str = "active"
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    data_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key_id: str
    created_at: datetime = _moment(null=False)


class Notice(SQLModel, table=True):
    """Something that somebody has to know: ids and reasons, no content."""

    __table_args__ = (
        UniqueConstraint("workspace_id", "once"),
        Index("ix_notice_waiting", "created_at", postgresql_where=text("emitted_at IS NULL")),
    )

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    event: str
    subject: str = Field(index=True)
    facts: dict[str, Any] = _json(null=False)
    once: str
    """The same happening is told once: a second notice with this key is none."""
    created_at: datetime = _moment(null=False)
    emitted_at: datetime | None = _moment()
    """When Prefect took it as an event; None while it waits for that."""


class Telling(SQLModel, table=True):
    """One notice on its way through one channel."""

    __table_args__ = (
        UniqueConstraint("notice_id", "channel_id"),
        Index("ix_telling_state_not_before", "state", "not_before"),
    )

    id: str = Field(primary_key=True)
    notice_id: str = _to("notice")
    channel_id: str = _to("channel")
    state: str = "waiting"
    tries: int = 0
    not_before: datetime | None = _moment()
    told_at: datetime | None = _moment()
    reason: str | None = None


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
