"""What triggers saw at feeds, in folders and in mailboxes, and how far they looked."""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_Text = sqlmodel.sql.sqltypes.AutoString


def upgrade() -> None:
    op.create_table(
        "inlet",
        sa.Column("trigger", _Text(), nullable=False),
        sa.Column("place", _Text(), nullable=False),
        sa.Column("marks", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("trigger"),
    )
    op.create_table(
        "arrival",
        sa.Column("id", _Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("trigger", _Text(), nullable=False),
        sa.Column("place", _Text(), nullable=False),
        sa.Column("key", _Text(), nullable=False),
        sa.Column("state", _Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("reason", _Text(), nullable=True),
        sa.Column("post_id", _Text(), nullable=True),
        sa.Column("asset_id", _Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("arrived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("trigger", "place", "key"),
    )
    op.create_index(
        "ix_arrival_new", "arrival", ["trigger"], postgresql_where=sa.text("state = 'new'")
    )
    op.create_index("ix_arrival_seen_at", "arrival", ["seen_at"])
    op.create_index("ix_arrival_workspace_id", "arrival", ["workspace_id"])


def downgrade() -> None:
    raise RuntimeError("each entry and file would be taken again; restore a backup instead")
