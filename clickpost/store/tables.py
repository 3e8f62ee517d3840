"""The tables, as SQLModel classes; all times are aware, all ids are ours."""

from __future__ import annotations

from collections.abc import Sequence
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
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import BigInteger, Field, SQLModel

from clickpost.delivery import State
from clickpost.store import said


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


def _perhaps(table: str) -> Any:
    return Field(
        default=None,
        sa_column=Column(Text, ForeignKey(f"{table}.id"), nullable=True, index=True),
    )


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
    email_digest: str | None = Field(default=None, index=True)
    """Keyed, of the address as mail knows it: by this a person is found; see `subjects`."""
    role: str = "publisher"
    created_at: datetime = _moment(null=False)
    left_at: datetime | None = _moment()
    """Since when they are no member any more."""


class Connection(SQLModel, table=True):
    """One connected account; its secrets are sealed with its own data key."""

    __table_args__ = (UniqueConstraint("workspace_id", "platform", "name"),)

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    platform: str
    name: str
    handle: str | None = None
    remote_id: str | None = None
    app_user_id: str | None = Field(default=None, index=True)
    """Under which id the platform's callbacks know the account, where that is another one."""
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
    connected_at: datetime | None = _moment()
    """When the owner last granted access; None where that was before we wrote it down."""
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
    stored_at: str = Field(index=True)
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
    stored_at: str = Field(index=True)
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
    approval: str | None = None
    """The trigger that requires an approval of it; None where none does."""
    flow_run_id: str | None = None
    author: str | None = None
    """The person who wrote what it says now; None where nobody had to say who they are."""
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
    author: str | None = None
    """The person who wrote it, as of each post that is made from it."""
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
    policy_hash: str | None = None
    """Which version of the platform's policy it followed; None of old ones."""


class PausedPlatform(SQLModel, table=True):
    """A platform to which nothing is sent, because an operator said so."""

    __tablename__ = "paused_platform"

    platform: str = Field(primary_key=True)
    paused_at: datetime = _moment(null=False)
    paused_by: str


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
    member_id: str | None = _perhaps("member")
    """Whom it tells, where that is one person: their preferences count."""
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
    heard_with: str | None = Field(default=None, index=True)
    """The call of a hook under whose name Prefect hears of this one: those of a moment are one."""


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


class Firing(SQLModel, table=True):
    """What one cause came to at one trigger."""

    __table_args__ = (UniqueConstraint("trigger", "cause"),)

    id: str = Field(primary_key=True)
    trigger: str
    cause: str = Field(index=True)
    """An accepted call's id, else an event's, else that of the run that asked."""
    verdict: str
    reason: str | None = None
    run_id: str | None = Field(default=None, index=True)
    """The run that was started; for a loop the run that found it."""
    chain: list[str] = _json(null=False)
    """The triggers that led here, first one first, this one last."""
    created_at: datetime = _moment(null=False)


class Subscription(SQLModel, table=True):
    """What a workspace pays for; `remote_id` is the payment processor's name of it."""

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    plan: str
    status: str = "active"
    remote_id: str | None = None
    started_at: datetime = _moment(null=False)
    ended_at: datetime | None = _moment()
    updated_at: datetime = _moment(null=False)


class Invoice(SQLModel, table=True):
    """A bill; `total` and `tax` are in the currency's smallest unit."""

    __table_args__ = (UniqueConstraint("number"), Index("ix_invoice_issued_at", "issued_at"))

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    subscription_id: str | None = _perhaps("subscription")
    number: str
    status: str
    country: str
    currency: str
    total: int = Field(sa_column=Column(BigInteger, nullable=False))
    tax: int = Field(sa_column=Column(BigInteger, nullable=False))
    billed_to: str | None = None
    address: str | None = None
    email: str | None = None
    email_digest: str | None = Field(default=None, index=True)
    tax_id: str | None = None
    lines: list[dict[str, Any]] = _json(null=False)
    issued_at: datetime = _moment(null=False)
    paid_at: datetime | None = _moment()


class Ticket(SQLModel, table=True):
    """One conversation with support; who wrote may be no member."""

    __table_args__ = (Index("ix_ticket_closed_at", "closed_at"),)

    id: str = Field(primary_key=True)
    workspace_id: str | None = _perhaps("workspace")
    member_id: str | None = _perhaps("member")
    email: str | None = None
    email_digest: str | None = Field(default=None, index=True)
    title: str
    status: str = "open"
    opened_at: datetime = _moment(null=False)
    closed_at: datetime | None = _moment()


class TicketMessage(SQLModel, table=True):
    """What somebody wrote in a ticket; `author` is `person` or `staff`."""

    __tablename__ = "ticket_message"

    id: str = Field(primary_key=True)
    ticket_id: str = _to("ticket")
    author: str
    body: str
    at: datetime = _moment(null=False)


class TicketAttachment(SQLModel, table=True):
    """A file that came with a message of a ticket."""

    __tablename__ = "ticket_attachment"

    id: str = Field(primary_key=True)
    message_id: str = _to("ticket_message")
    name: str
    mime: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    sha256: str
    stored_at: str = Field(index=True)


class UsageEvent(SQLModel, table=True):
    """Something that somebody did with the product."""

    __tablename__ = "usage_event"
    __table_args__ = (Index("ix_usage_event_at", "at"),)

    id: str = Field(primary_key=True)
    workspace_id: str | None = _perhaps("workspace")
    member_id: str | None = _perhaps("member")
    event: str
    ip: str | None = None
    agent: str | None = None
    facts: dict[str, Any] = _json(null=False)
    at: datetime = _moment(null=False)


class Consent(SQLModel, table=True):
    """What a person agreed to, in which version of the wording, and until when."""

    id: str = Field(primary_key=True)
    member_id: str = _to("member")
    purpose: str
    wording: str
    ip: str | None = None
    given_at: datetime = _moment(null=False)
    withdrawn_at: datetime | None = _moment()


class Preference(SQLModel, table=True):
    """Whether a person wants to be told of an event in one way (e-mail, chat, …)."""

    __table_args__ = (UniqueConstraint("member_id", "event", "way"),)

    id: str = Field(primary_key=True)
    member_id: str = _to("member")
    event: str
    way: str
    wanted: bool = Field(sa_column=Column(Boolean, nullable=False))
    updated_at: datetime = _moment(null=False)


class Inference(SQLModel, table=True):
    """Something that was concluded about a person from what they did."""

    id: str = Field(primary_key=True)
    member_id: str = _to("member")
    kind: str
    value: dict[str, Any] = _json(null=False)
    made_at: datetime = _moment(null=False)


class Hold(SQLModel, table=True):
    """Why something must stay, from when until when: of a row, a member or a workspace."""

    __table_args__ = (
        Index("ix_hold_scope", "scope", "target", postgresql_where=text("ended_at IS NULL")),
    )

    id: str = Field(primary_key=True)
    kind: str
    """`legal`, `dispute`, `tax`, `fraud` or `security`."""
    scope: str
    """`workspace`, `member`, or the table that holds the row."""
    target: str
    """The id of that workspace, member or row."""
    cite: str
    """The law, case or contract that demands it; no names."""
    placed_by: str
    placed_at: datetime = _moment(null=False)
    until: datetime | None = _moment()
    """When it ends by itself; None: when somebody ends it."""
    ended_at: datetime | None = _moment()


class SubjectKey(SQLModel, table=True):
    """The key of all digests of addresses, sealed; there is one."""

    __tablename__ = "subject_key"

    one: bool = Field(default=True, primary_key=True)
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    data_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key_id: str
    created_at: datetime = _moment(null=False)


class SubjectRequest(SQLModel, table=True):
    """What a person asks about their data, and how far that has come; see `store/requests.py`."""

    __tablename__ = "subject_request"
    __table_args__ = (Index("ix_subject_request_state_due_at", "state", "due_at"),)

    id: str = Field(primary_key=True)
    kind: str
    state: str
    about: str
    """`person`, or `account`: a whole workspace."""
    door: str
    jurisdiction: str
    """The name of the file in policies/requests by which it is answered."""
    code: str = Field(unique=True)
    """The confirmation code: random, and all that a person needs to see how far it has come."""
    once: str | None = Field(default=None, unique=True)
    """The digest of what came in: the same mail or callback twice is one request."""
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """Sealed: the address, what else was said; empty once the person was told the end."""
    data_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key_id: str
    address_digest: str | None = Field(default=None, index=True)
    """Keyed, as in `email_digest` elsewhere; None where a platform asks for its user."""
    member_id: str | None = Field(default=None, index=True)
    workspace_id: str | None = Field(default=None, index=True)
    """With `account`: which one."""
    connection_ids: list[str] = _json(null=False)
    """With `platform`: the accounts that its user had connected."""
    authority: str | None = None
    """Why the person may speak for the account: `owner`, or who of us looked."""
    takedown: bool = _flag()
    """Whether published posts shall be taken down as well."""
    dkim: str | None = None
    verified_by: str | None = None
    """`link`, `reply`, `platform` or who of us did."""
    link_digest: str | None = Field(default=None, unique=True)
    reply_digest: str | None = None
    challenge_until: datetime | None = _moment()
    challenge_at: datetime | None = _moment()
    """When the latest challenge was sent."""
    challenge_tries: int = 0
    """How many answers to it were wrong."""
    received_at: datetime = _moment(null=False)
    acknowledge_by: datetime | None = _moment()
    acknowledged_at: datetime | None = _moment()
    due_at: datetime = _moment(null=False)
    extended_at: datetime | None = _moment()
    paused_at: datetime | None = _moment()
    """Since when its clock stands still, where the law lets it."""
    verified_at: datetime | None = _moment()
    closed_at: datetime | None = _moment()
    """When it was answered, refused or withdrawn."""
    told_at: datetime | None = _moment()
    """When the person was told the end; then their address is forgotten here."""
    outcome: str | None = None
    """`done`, `nothing_held` or `by_hand`."""
    ground: str | None = None
    """Why it was refused: a word of the jurisdiction's file."""
    note: str | None = None
    """What an operator wrote to the person: why it takes longer, why not, what was done."""
    certificate_id: str | None = None
    updated_at: datetime = _moment(null=False)


class PurgeRun(SQLModel, table=True):
    """One purge under one policy; it keeps its cutoff, so that a resumed one asks the same."""

    __tablename__ = "purge_run"
    __table_args__ = (
        Index(
            "ix_purge_run_open",
            "policy",
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    policy: str
    policy_hash: str
    data: str
    asked_at: datetime = _moment(null=False)
    """The moment for which it asks what has expired."""
    found: int = Field(sa_column=Column(BigInteger, nullable=False))
    total: int = Field(sa_column=Column(BigInteger, nullable=False))
    flow_run_id: str | None = None
    started_at: datetime = _moment(null=False)
    finished_at: datetime | None = _moment()


class PurgeBatch(SQLModel, table=True):
    """The receipt of one batch, written in its own transaction: rows by table, no values."""

    __tablename__ = "purge_batch"

    run_id: str = Field(sa_column=Column(Text, ForeignKey("purge_run.id"), primary_key=True))
    number: int = Field(primary_key=True)
    after: str
    """The last key it reached: the next batch begins behind it."""
    counts: dict[str, int] = _json(null=False)
    at: datetime = _moment(null=False)


class DoomedFile(SQLModel, table=True):
    """A file whose last row is gone; it goes too, then this row."""

    __tablename__ = "doomed_file"

    stored_at: str = Field(primary_key=True)
    doomed_at: datetime = _moment(null=False)
    erasure_id: str | None = Field(default=None, index=True)
    """Which erasure waits until it is gone; None: a purge doomed it."""


class Erasure(SQLModel, table=True):
    """One erasure or anonymization of one subject, from its plan to its certificate."""

    __tablename__ = "erasure"
    __table_args__ = (
        Index("ix_erasure_open", "again_at", postgresql_where=text("state <> 'complete'")),
    )

    id: str = Field(primary_key=True)
    action: str
    policy: str
    policy_hash: str
    subject: str
    """The id of the row that the policy is about; an id of ours."""
    digest: str | None = None
    """By which rows of the same address are found; gone once nothing is held."""
    nonce: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """Of this and the master key pseudonyms are made; gone once nothing is held."""
    request: str | None = None
    takedown: bool = _flag()
    state: str
    reason: str | None = None
    plan: list[dict[str, Any]] = _json(null=False)
    outcomes: list[dict[str, Any]] = _json(null=False)
    asked_at: datetime = _moment(null=False)
    approved_at: datetime | None = _moment()
    begun_at: datetime | None = _moment()
    again_at: datetime | None = _moment()
    """When to look again: a hold ends, or a platform may be asked once more."""
    ended_at: datetime | None = _moment()


class ErasureBatch(SQLModel, table=True):
    """The receipt of one batch, written in its own transaction: where it ended, counts by table."""

    __tablename__ = "erasure_batch"

    erasure_id: str = Field(sa_column=Column(Text, ForeignKey("erasure.id"), primary_key=True))
    number: int = Field(primary_key=True)
    round: int
    """A parked erasure begins a new round when it goes on."""
    step: int
    after: str
    """The last key it reached in that step: the next batch begins behind it."""
    counts: dict[str, int] = _json(null=False)
    at: datetime = _moment(null=False)


class ErasureElsewhere(SQLModel, table=True):
    """Whom an erasure means in one further database; emptied once nothing is held."""

    __tablename__ = "erasure_elsewhere"

    erasure_id: str = Field(sa_column=Column(Text, ForeignKey("erasure.id"), primary_key=True))
    database: str = Field(primary_key=True)
    ours: dict[str, list[str]] = _json(null=False)
    """By table of ours, the ids by which rows there may name the subject."""
    subjects: dict[str, list[str]] = _json(null=False)
    """By table there, the keys of rows that were found to be about the subject."""


class ErasureElsewhereBatch(SQLModel, table=True):
    """The receipt of one batch in a further database, written before that one commits."""

    __tablename__ = "erasure_elsewhere_batch"

    erasure_id: str = Field(sa_column=Column(Text, ForeignKey("erasure.id"), primary_key=True))
    database: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    round: int
    step: int
    after: str
    """As in `erasure_batch`; empty once nothing is held, for it may be anything."""
    counts: dict[str, int] = _json(null=False)
    xid: str | None = None
    """The transaction there: it says whether the work was committed; None where nothing was."""
    committed: bool = _flag()
    """False until somebody saw that it was."""
    at: datetime = _moment(null=False)


class ProcessorAsk(SQLModel, table=True):
    """What a vendor is asked to erase, of one person: written before the call, and after it."""

    __tablename__ = "processor_ask"
    __table_args__ = (
        Index(
            "ix_processor_ask_open",
            "again_at",
            postgresql_where=text("state NOT IN ('erased', 'settled')"),
        ),
        UniqueConstraint("erasure_id", "processor", "digest"),
    )

    id: str = Field(primary_key=True)
    erasure_id: str = _to("erasure", index=False)
    processor: str
    digest: str | None = None
    """Keyed, of who it is: by which the same is not asked twice; gone with the erasure."""
    looked_for: bool = Field(sa_column=Column(Boolean, nullable=False))
    """Whether its records are found by asking; False: somebody told us their ids."""
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """Sealed: who it is, and the vendor's ids; empty once it is over."""
    data_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key_id: str
    state: str
    """`wanted`, `asking`, `wait`, `again`, `refused`; over are `erased` and `settled`."""
    step: str | None = None
    """Which step was asked last: written before the call."""
    calls: int = 0
    tries: int = 0
    """How often in a row the vendor was not to be had."""
    erased: int = 0
    """How many records it had, and erased."""
    reason: str | None = None
    made_at: datetime = _moment(null=False)
    asked_at: datetime | None = _moment()
    """When it was asked first."""
    again_at: datetime | None = _moment()
    due_at: datetime = _moment(null=False)
    ended_at: datetime | None = _moment()


class ErasureTrace(SQLModel, table=True):
    """An id of the subject's that Prefect may carry; gone once nothing of it is found there."""

    __tablename__ = "erasure_trace"

    erasure_id: str = Field(sa_column=Column(Text, ForeignKey("erasure.id"), primary_key=True))
    word: str = Field(primary_key=True)


class Rollup(SQLModel, table=True):
    """What remains of rows that were rolled up: counts of a month, of groups large enough."""

    policy: str = Field(primary_key=True)
    month: datetime = Field(sa_column=Column(DateTime(timezone=True), primary_key=True))
    by: str = Field(primary_key=True)
    """The group's values as JSON text, e.g. `["post.created"]`."""
    rows: int = Field(sa_column=Column(BigInteger, nullable=False))
    people: int = Field(sa_column=Column(BigInteger, nullable=False))


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


class Checkpoint(SQLModel, table=True):
    """A signed head of the ledger: who writes the chain anew cannot sign it; append-only."""

    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    at: datetime = _moment(null=False)
    key_id: str
    signature: str


class Certificate(SQLModel, table=True):
    """What was done for a request, signed; its text is kept as it was signed."""

    id: str = Field(primary_key=True)
    request: str = Field(index=True)
    """The id of the erasure, anonymization or export."""
    action: str
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    """The line of the ledger that names its digest."""
    document: str
    made_at: datetime = _moment(null=False)


class ComplianceSweep(SQLModel, table=True):
    """What one look at the privacy promises found: ids, rules and counts."""

    __tablename__ = "compliance_sweep"

    id: str = Field(primary_key=True)
    at: datetime = _moment(null=False)
    light: str
    """That of the worst finding: `green`, `amber` or `red`."""
    findings: list[dict[str, str]] = _json(null=False)
    flow_run_id: str | None = None


class OAuthClient(SQLModel, table=True):
    """An app of ours at a platform, or at one server; its id and secret are sealed."""

    __tablename__ = "oauth_client"
    __table_args__ = (UniqueConstraint("workspace_id", "platform", "api_base"),)

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    platform: str
    api_base: str
    redirect_uri: str | None = None
    """For which address it registered itself; None where an operator made it."""
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    data_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key_id: str
    created_at: datetime = _moment(null=False)
    used_at: datetime | None = _moment()


class Invitation(SQLModel, table=True):
    """Somebody is to connect an account by a link; of link, state and browser we keep digests."""

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    platform: str
    name: str
    api_base: str
    options: dict[str, str] = _json(null=False)
    link_digest: str = Field(unique=True)
    state_digest: str | None = Field(default=None, unique=True)
    browser_digest: str | None = None
    state_until: datetime | None = _moment()
    state_used_at: datetime | None = _moment()
    status: str = "waiting"
    reason: str | None = None
    """Why the latest sign-in connected nothing, in words for people."""
    connection_id: str | None = None
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    data_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key_id: str
    created_at: datetime = _moment(null=False)
    expires_at: datetime = _moment(null=False)
    finished_at: datetime | None = _moment()


class Person(SQLModel, table=True):
    """Somebody who acts in this house; the ledger knows them by the id, which says nothing."""

    id: str = Field(primary_key=True)
    name: str | None = Field(default=None, unique=True)
    roles: list[str] = _json(null=False)
    secret: str
    """Of their secret, made slowly (Argon2id); empty once they left."""
    created_at: datetime = _moment(null=False)
    left_at: datetime | None = _moment()


class SignOff(SQLModel, table=True):
    """A code with which a person signs off one decision in the Prefect UI, once."""

    __tablename__ = "sign_off"

    id: str = Field(primary_key=True)
    person_id: str = _to("person")
    may: str
    """The right that it uses."""
    about: str
    """The decision that it is about: ids and digests."""
    digest: str = Field(unique=True)
    """Keyed, of the code."""
    made_at: datetime = _moment(null=False)
    expires_at: datetime = _moment(null=False)
    used_at: datetime | None = _moment()
    run_id: str | None = None
    """The flow run that used it, and may use it again after it was killed."""


class Inlet(SQLModel, table=True):
    """Where a trigger looks for what arrives, and how far it has looked."""

    trigger: str = Field(primary_key=True)
    place: str
    """The digest of where it looks: another address is another place."""
    marks: dict[str, Any] = _json(null=False)
    """By what the other side knows how far we are: ETag, Last-Modified, UIDs."""
    looked_at: datetime = _moment(null=False)


class Arrival(SQLModel, table=True):
    """An entry, a file or a mail that a trigger saw: each once."""

    __table_args__ = (
        UniqueConstraint("trigger", "place", "key"),
        Index("ix_arrival_new", "trigger", postgresql_where=text("state = 'new'")),
        Index("ix_arrival_seen_at", "seen_at"),
    )

    id: str = Field(primary_key=True)
    workspace_id: str = _to("workspace")
    trigger: str
    place: str
    key: str
    """A digest: which entry, file or mail it is."""
    state: str = "new"
    facts: dict[str, Any] | None = _json()
    """What its post is made of; None once it is taken."""
    reason: str | None = None
    post_id: str | None = None
    asset_id: str | None = None
    at: datetime | None = _moment()
    """When its author says that it appeared."""
    arrived_at: datetime = _moment(null=False)
    seen_at: datetime = _moment(null=False)
    """When it was last there: what is gone for long is forgotten."""
    done_at: datetime | None = _moment()


#: The columns of the index by which it is found where a person is named; see `said`.
SEARCHED = {
    "approval": ("content_hash", "run_id", "decided_by", "note"),
    "arrival": ("facts", "reason"),
    "attempt": ("intent", "flow_run_id"),
    "connection": ("options", "slots"),
    "delivery": (
        "reason", "flow_run_id", "fingerprint", "content_hash", "message", "notes", "waits_for",
    ),
    "hold": ("placed_by",),
    "inference": ("value",),
    "invitation": ("options", "reason"),
    "invoice": ("lines",),
    "notice": ("facts",),
    "person": ("secret",),
    "post": ("client_key", "body", "content_hash", "flow_run_id", "author"),
    "series": ("body", "connection_ids", "author"),
    "spend": ("delivery_id",),
    "subject_request": (
        "code", "once", "member_id", "workspace_id", "connection_ids", "authority",
        "verified_by", "note",
    ),
    "subscription": ("remote_id",),
    "telling": ("reason",),
    "ticket": ("title",),
    "ticket_attachment": ("name", "sha256"),
    "ticket_message": ("body",),
    "usage_event": ("agent", "facts"),
    "variant": ("body",),
}  # fmt: skip


def _searched(table: Table, columns: Sequence[str]) -> None:
    kinds = {one.name: "json" if isinstance(one.type, JSONB) else "text" for one in table.columns}
    Index(
        f"ix_{table.name}_said",
        text(said.pairs_of(columns, kinds)),
        _table=table,  # A text does not know whose it is.
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )


for _name, _columns in SEARCHED.items():
    _searched(SQLModel.metadata.tables[_name], _columns)
