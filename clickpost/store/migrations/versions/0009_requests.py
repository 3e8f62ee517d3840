"""People's requests about their data, and the key of the digests by which people are found."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TEXT = sqlmodel.sql.sqltypes.AutoString


def _words(name: str, *, null: bool = True) -> sa.Column:
    return sa.Column(name, _TEXT(), nullable=null)


def _moment(name: str, *, null: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def _sealed() -> list[sa.Column]:
    return [
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("data_key", sa.LargeBinary(), nullable=False),
        _words("key_id", null=False),
    ]


def upgrade() -> None:
    op.create_table(
        "subject_key",
        sa.Column("one", sa.Boolean(), nullable=False),
        *_sealed(),
        _moment("created_at", null=False),
        sa.PrimaryKeyConstraint("one"),
    )
    op.create_table(
        "subject_request",
        _words("id", null=False),
        _words("kind", null=False),
        _words("state", null=False),
        _words("about", null=False),
        _words("door", null=False),
        _words("jurisdiction", null=False),
        _words("code", null=False),
        _words("once"),
        *_sealed(),
        _words("address_digest"),
        _words("member_id"),
        _words("workspace_id"),
        sa.Column("connection_ids", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        _words("authority"),
        sa.Column("takedown", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _words("dkim"),
        _words("verified_by"),
        _words("link_digest"),
        _words("reply_digest"),
        _moment("challenge_until"),
        _moment("challenge_at"),
        sa.Column("challenge_tries", sa.Integer(), nullable=False),
        _moment("received_at", null=False),
        _moment("acknowledge_by"),
        _moment("acknowledged_at"),
        _moment("due_at", null=False),
        _moment("extended_at"),
        _moment("paused_at"),
        _moment("verified_at"),
        _moment("closed_at"),
        _moment("told_at"),
        _words("outcome"),
        _words("ground"),
        _words("note"),
        _words("certificate_id"),
        _moment("updated_at", null=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("code"),
        sa.UniqueConstraint("once"),
        sa.UniqueConstraint("link_digest"),
    )
    for column in ("address_digest", "member_id", "workspace_id"):
        op.create_index(op.f(f"ix_subject_request_{column}"), "subject_request", [column])
    op.create_index("ix_subject_request_state_due_at", "subject_request", ["state", "due_at"])


def downgrade() -> None:
    raise RuntimeError("what these tables hold would be lost; restore a backup instead")
