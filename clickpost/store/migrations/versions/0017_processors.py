"""What vendors are asked to erase, and the ids that are looked for in Prefect's records."""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_Text = sqlmodel.sql.sqltypes.AutoString


def upgrade() -> None:
    op.create_table(
        "processor_ask",
        sa.Column("id", _Text(), nullable=False),
        sa.Column("erasure_id", sa.Text(), nullable=False),
        sa.Column("processor", _Text(), nullable=False),
        sa.Column("digest", _Text(), nullable=True),
        sa.Column("looked_for", sa.Boolean(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("data_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", _Text(), nullable=False),
        sa.Column("state", _Text(), nullable=False),
        sa.Column("step", _Text(), nullable=True),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("erased", sa.Integer(), nullable=False),
        sa.Column("reason", _Text(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("again_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("erasure_id", "processor", "digest"),
    )
    op.create_index(
        "ix_processor_ask_open",
        "processor_ask",
        ["again_at"],
        postgresql_where=sa.text("state NOT IN ('erased', 'settled')"),
    )
    op.create_table(
        "erasure_trace",
        sa.Column("erasure_id", sa.Text(), nullable=False),
        sa.Column("word", _Text(), nullable=False),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"]),
        sa.PrimaryKeyConstraint("erasure_id", "word"),
    )


def downgrade() -> None:
    raise RuntimeError("who is still to be erased at a vendor would be forgotten; restore a backup")
