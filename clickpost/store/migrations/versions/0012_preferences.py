"""A channel may be that of a member, whose preferences count."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("channel", sa.Column("member_id", sa.Text(), nullable=True))
    op.create_foreign_key(None, "channel", "member", ["member_id"], ["id"])
    op.create_index(op.f("ix_channel_member_id"), "channel", ["member_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_channel_member_id"), table_name="channel")
    op.drop_column("channel", "member_id")
