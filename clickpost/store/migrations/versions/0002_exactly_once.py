"""Budgets, series, approvals, notices, and when an operator was asked."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "allowance",
        sa.Column("holder", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("what", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("window", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("left", sa.Integer(), nullable=False),
        sa.Column("resets_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("holder", "what", "window"),
    )
    op.create_table(
        "spend",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("holder", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("what", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivery_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_spend_holder_what_at", "spend", ["holder", "what", "at"], unique=False)
    op.create_table(
        "channel",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("name", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("events", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("data_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "name"),
    )
    op.create_index(op.f("ix_channel_workspace_id"), "channel", ["workspace_id"], unique=False)
    op.create_table(
        "notice",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("event", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("subject", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("once", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("emitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "once"),
    )
    op.create_index(op.f("ix_notice_subject"), "notice", ["subject"], unique=False)
    op.create_index(
        "ix_notice_waiting",
        "notice",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("emitted_at IS NULL"),
    )
    op.create_index(op.f("ix_notice_workspace_id"), "notice", ["workspace_id"], unique=False)
    op.create_table(
        "series",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("connection_ids", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("rrule", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("zone", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cap", sa.Integer(), nullable=True),
        sa.Column("made", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_series_workspace_id"), "series", ["workspace_id"], unique=False)
    op.create_table(
        "telling",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("notice_id", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("state", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.ForeignKeyConstraint(
            ["channel_id"],
            ["channel.id"],
        ),
        sa.ForeignKeyConstraint(
            ["notice_id"],
            ["notice.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("notice_id", "channel_id"),
    )
    op.create_index(op.f("ix_telling_channel_id"), "telling", ["channel_id"], unique=False)
    op.create_index(op.f("ix_telling_notice_id"), "telling", ["notice_id"], unique=False)
    op.create_index("ix_telling_state_not_before", "telling", ["state", "not_before"], unique=False)
    op.create_table(
        "approval",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("verdict", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("decided_by", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("note", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["delivery.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("delivery_id", "content_hash"),
    )
    op.create_index(op.f("ix_approval_delivery_id"), "approval", ["delivery_id"], unique=False)
    op.add_column(
        "connection",
        sa.Column("approval", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "connection", sa.Column("slots", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    )
    op.add_column("connection", sa.Column("burst", sa.Integer(), nullable=True))
    op.add_column("connection", sa.Column("url", sqlmodel.sql.sqltypes.AutoString(), nullable=True))
    op.add_column(
        "delivery", sa.Column("flow_run_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    )
    op.add_column(
        "delivery", sa.Column("fingerprint", sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    )
    op.create_index(
        "ix_delivery_connection_id_due_at", "delivery", ["connection_id", "due_at"], unique=False
    )
    op.create_index(
        "ix_delivery_connection_id_fingerprint",
        "delivery",
        ["connection_id", "fingerprint"],
        unique=False,
    )
    op.add_column("delivery", sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "delivery", sa.Column("waits_for", sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    )
    op.create_index("ix_delivery_waits_for", "delivery", ["waits_for"], unique=False)
    op.add_column("delivery", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "delivery", sa.Column("question_run_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    )
    op.add_column("delivery", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("delivery", sa.Column("absent_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "delivery", sa.Column("seen_hash", sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    )
    op.add_column("delivery", sa.Column("takedown_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("post", sa.Column("series_id", sa.Text(), nullable=True))
    op.create_index(op.f("ix_post_series_id"), "post", ["series_id"], unique=False)
    op.create_foreign_key("post_series_id_fkey", "post", "series", ["series_id"], ["id"])
    op.add_column(
        "workspace",
        sa.Column("approval", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )


def downgrade() -> None:
    raise RuntimeError("what these tables hold would be lost; restore a backup instead")
