"""Invitations to connect an account in a browser, and our apps at platforms."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TEXT = sqlmodel.sql.sqltypes.AutoString
_JSON = postgresql.JSONB


def _moment(name: str, *, null: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def _sealed() -> list[sa.Column]:
    return [
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("data_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", _TEXT(), nullable=False),
    ]


def upgrade() -> None:
    op.add_column("connection", sa.Column("app_user_id", _TEXT(), nullable=True))
    op.add_column("connection", _moment("connected_at"))
    op.create_index(op.f("ix_connection_app_user_id"), "connection", ["app_user_id"], unique=False)
    op.create_table(
        "oauth_client",
        sa.Column("id", _TEXT(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("platform", _TEXT(), nullable=False),
        sa.Column("api_base", _TEXT(), nullable=False),
        sa.Column("redirect_uri", _TEXT(), nullable=True),
        *_sealed(),
        _moment("created_at", null=False),
        _moment("used_at"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "platform", "api_base"),
    )
    op.create_index(op.f("ix_oauth_client_workspace_id"), "oauth_client", ["workspace_id"])
    op.create_table(
        "invitation",
        sa.Column("id", _TEXT(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("platform", _TEXT(), nullable=False),
        sa.Column("name", _TEXT(), nullable=False),
        sa.Column("api_base", _TEXT(), nullable=False),
        sa.Column("options", _JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("link_digest", _TEXT(), nullable=False),
        sa.Column("state_digest", _TEXT(), nullable=True),
        sa.Column("browser_digest", _TEXT(), nullable=True),
        _moment("state_until"),
        _moment("state_used_at"),
        sa.Column("status", _TEXT(), nullable=False),
        sa.Column("reason", _TEXT(), nullable=True),
        sa.Column("connection_id", _TEXT(), nullable=True),
        *_sealed(),
        _moment("created_at", null=False),
        _moment("expires_at", null=False),
        _moment("finished_at"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspace.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("link_digest"),
        sa.UniqueConstraint("state_digest"),
    )
    op.create_index(op.f("ix_invitation_workspace_id"), "invitation", ["workspace_id"])


def downgrade() -> None:
    op.drop_table("invitation")
    op.drop_table("oauth_client")
    op.drop_index(op.f("ix_connection_app_user_id"), table_name="connection")
    op.drop_column("connection", "connected_at")
    op.drop_column("connection", "app_user_id")
