"""People who act, the codes with which they sign off, and who wrote a post."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXT = sqlmodel.sql.sqltypes.AutoString


def _moment(name: str, *, null: bool = True) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def upgrade() -> None:
    op.add_column("post", sa.Column("author", _TEXT(), nullable=True))
    op.add_column("series", sa.Column("author", _TEXT(), nullable=True))
    op.create_table(
        "person",
        sa.Column("id", _TEXT(), nullable=False),
        sa.Column("name", _TEXT(), nullable=True),
        sa.Column("roles", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("secret", _TEXT(), nullable=False),
        _moment("created_at", null=False),
        _moment("left_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "sign_off",
        sa.Column("id", _TEXT(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("may", _TEXT(), nullable=False),
        sa.Column("about", _TEXT(), nullable=False),
        sa.Column("digest", _TEXT(), nullable=False),
        _moment("made_at", null=False),
        _moment("expires_at", null=False),
        _moment("used_at"),
        sa.Column("run_id", _TEXT(), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index(op.f("ix_sign_off_person_id"), "sign_off", ["person_id"])


def downgrade() -> None:
    op.drop_table("sign_off")
    op.drop_table("person")
    op.drop_column("series", "author")
    op.drop_column("post", "author")
