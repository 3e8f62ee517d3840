"""Whom erasures mean in further databases, and the receipts of their batches there."""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_Text = sqlmodel.sql.sqltypes.AutoString


def upgrade() -> None:
    op.create_table(
        "erasure_elsewhere",
        sa.Column("erasure_id", sa.Text(), nullable=False),
        sa.Column("database", _Text(), nullable=False),
        sa.Column("ours", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("subjects", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"]),
        sa.PrimaryKeyConstraint("erasure_id", "database"),
    )
    op.create_table(
        "erasure_elsewhere_batch",
        sa.Column("erasure_id", sa.Text(), nullable=False),
        sa.Column("database", _Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("after", _Text(), nullable=False),
        sa.Column("counts", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("xid", _Text(), nullable=True),
        sa.Column("committed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"]),
        sa.PrimaryKeyConstraint("erasure_id", "database", "number"),
    )


def downgrade() -> None:
    raise RuntimeError("whom open erasures mean elsewhere would be lost; restore a backup instead")
