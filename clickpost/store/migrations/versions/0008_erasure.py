"""Erasures with the receipts of their batches, and the masks for what others wrote."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

#: What finds any of these names, as whole words and whatever the spaces; NULL for none.
_PATTERN = r"""
CREATE OR REPLACE FUNCTION privacy_pattern(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT string_agg(
        CASE WHEN one LIKE '%@%'
            THEN '(?<![[:alnum:]._%+-])' || escaped || '(?![[:alnum:]-])'
            ELSE '(?<![[:alnum:]])' || escaped || '(?![[:alnum:]])' END,
        '|' ORDER BY length(one) DESC, one)
    FROM (
        SELECT one, regexp_replace(
            regexp_replace(one, '([.*+?^${}()|\[\]\\])', '\\\1', 'g'), '\s+', '\s+', 'g')
            AS escaped
        FROM unnest(names) AS one WHERE one <> ''
    ) AS each
$$
"""

#: A text without the names that a pattern finds. Idempotent.
_UNNAME = """
CREATE OR REPLACE FUNCTION privacy_unname(said text, pattern text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN pattern IS NULL OR said IS NULL THEN said
        ELSE regexp_replace(said, pattern, '[erased]', 'gi') END
$$
"""

#: A document whose texts are without these names. Idempotent.
_UNNAME_JSON = """
CREATE OR REPLACE FUNCTION privacy_unname_json(doc jsonb, pattern text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN CASE jsonb_typeof(doc)
        WHEN 'string' THEN to_jsonb(privacy_unname(doc #>> '{}', pattern))
        WHEN 'array' THEN coalesce((
            SELECT jsonb_agg(privacy_unname_json(item, pattern) ORDER BY place)
            FROM jsonb_array_elements(doc) WITH ORDINALITY AS items (item, place)), '[]')
        WHEN 'object' THEN coalesce((
            SELECT jsonb_object_agg(pair.key, privacy_unname_json(pair.value, pattern))
            FROM jsonb_each(doc) AS pair), '{}')
        ELSE doc
    END;
END
$$
"""


def upgrade() -> None:
    op.execute(_PATTERN)
    op.execute(_UNNAME)
    op.execute(_UNNAME_JSON)
    op.create_table(
        "erasure",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("action", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("policy", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("policy_hash", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("subject", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("digest", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("nonce", sa.LargeBinary(), nullable=True),
        sa.Column("request", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("takedown", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("reason", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("plan", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("outcomes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("again_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_erasure_open",
        "erasure",
        ["again_at"],
        unique=False,
        postgresql_where=sa.text("state <> 'complete'"),
    )
    op.create_table(
        "erasure_batch",
        sa.Column("erasure_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("after", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"]),
        sa.PrimaryKeyConstraint("erasure_id", "number"),
    )
    op.add_column(
        "doomed_file", sa.Column("erasure_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    )
    op.create_index("ix_doomed_file_erasure_id", "doomed_file", ["erasure_id"], unique=False)


def downgrade() -> None:
    raise RuntimeError("what these tables hold would be lost; restore a backup instead")
