"""What privacy needs: billing, support, usage, consents, holds, and the receipts of purges."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: Free text without what tells a person apart: addresses, links, handles, numbers. Idempotent.
_MASK = r"""
CREATE OR REPLACE FUNCTION privacy_mask(said text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT regexp_replace(
        regexp_replace(
            regexp_replace(
                regexp_replace(said, '[^\s<>"'',;:]+@[^\s<>"'',;:]+\.[[:alpha:]]{2,}', '[mail]', 'g'),
                '[a-zA-Z][a-zA-Z+.-]*://[^\s<>"'']+', '[link]', 'g'),
            '(^|[^[:alnum:]_@])@[[:alnum:]_.-]+', '\1[handle]', 'g'),
        '\+?[0-9](?:[0-9 ()/.:-]*[0-9]){4,}', '[number]', 'g')
$$
"""

#: The network of an address: /24 of IPv4, /48 of IPv6; NULL for what is none. Idempotent.
_NETWORK = """
CREATE OR REPLACE FUNCTION privacy_network(said text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    given inet;
BEGIN
    given := said::inet;
    RETURN network(set_masklen(given, least(masklen(given),
        CASE family(given) WHEN 4 THEN 24 ELSE 48 END)))::text;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END
$$
"""

#: One path of a document treated: `[]` steps into every item. Idempotent.
_JSON = """
CREATE OR REPLACE FUNCTION privacy_json(doc jsonb, path text[], how text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF doc IS NULL THEN
        RETURN NULL;
    ELSIF cardinality(path) = 0 THEN
        RETURN CASE
            WHEN how = 'clear' OR jsonb_typeof(doc) = 'null' THEN 'null'::jsonb
            WHEN how = 'blank' THEN '""'::jsonb
            WHEN how = 'empty' AND jsonb_typeof(doc) = 'array' THEN '[]'::jsonb
            WHEN how = 'empty' THEN '{}'::jsonb
            WHEN jsonb_typeof(doc) = 'string' THEN to_jsonb(privacy_mask(doc #>> '{}'))
            ELSE 'null'::jsonb
        END;
    ELSIF path[1] = '[]' THEN
        IF jsonb_typeof(doc) <> 'array' THEN
            RETURN doc;
        END IF;
        RETURN coalesce((
            SELECT jsonb_agg(privacy_json(item, path[2:], how) ORDER BY place)
            FROM jsonb_array_elements(doc) WITH ORDINALITY AS items (item, place)
        ), '[]'::jsonb);
    ELSIF jsonb_typeof(doc) = 'object' AND doc ? path[1] THEN
        RETURN doc || jsonb_build_object(
            path[1], privacy_json(doc -> path[1], path[2:], how));
    END IF;
    RETURN doc;
END
$$
"""


def upgrade() -> None:
    op.execute(_MASK)
    op.execute(_NETWORK)
    op.execute(_JSON)
    op.create_table(
        "doomed_file",
        sa.Column("stored_at", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("doomed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stored_at"),
    )
    op.create_table(
        "hold",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("scope", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("target", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("cite", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("placed_by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_hold_scope",
        "hold",
        ["scope", "target"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "purge_run",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("policy", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("policy_hash", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("data", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("found", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("flow_run_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_purge_run_open",
        "purge_run",
        ["policy"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "rollup",
        sa.Column("policy", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("month", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("people", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "month", "by"),
    )
    op.create_table(
        "purge_batch",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("after", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["purge_run.id"],
        ),
        sa.PrimaryKeyConstraint("run_id", "number"),
    )
    op.create_table(
        "subscription",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("plan", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("status", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("remote_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_subscription_workspace_id"), "subscription", ["workspace_id"], unique=False
    )
    op.create_table(
        "consent",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("purpose", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("wording", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("ip", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["member_id"],
            ["member.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_consent_member_id"), "consent", ["member_id"], unique=False)
    op.create_table(
        "inference",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["member_id"],
            ["member.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_inference_member_id"), "inference", ["member_id"], unique=False)
    op.create_table(
        "invoice",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("number", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("status", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("country", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("currency", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), nullable=False),
        sa.Column("billed_to", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("address", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("email", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("email_digest", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("tax_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("lines", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscription.id"],
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("number"),
    )
    op.create_index(op.f("ix_invoice_email_digest"), "invoice", ["email_digest"], unique=False)
    op.create_index("ix_invoice_issued_at", "invoice", ["issued_at"], unique=False)
    op.create_index(
        op.f("ix_invoice_subscription_id"), "invoice", ["subscription_id"], unique=False
    )
    op.create_index(op.f("ix_invoice_workspace_id"), "invoice", ["workspace_id"], unique=False)
    op.create_table(
        "preference",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("event", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("way", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["member_id"],
            ["member.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("member_id", "event", "way"),
    )
    op.create_index(op.f("ix_preference_member_id"), "preference", ["member_id"], unique=False)
    op.create_table(
        "ticket",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=True),
        sa.Column("member_id", sa.Text(), nullable=True),
        sa.Column("email", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("email_digest", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("title", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("status", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["member_id"],
            ["member.id"],
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_ticket_closed_at", "ticket", ["closed_at"], unique=False)
    op.create_index(op.f("ix_ticket_email_digest"), "ticket", ["email_digest"], unique=False)
    op.create_index(op.f("ix_ticket_member_id"), "ticket", ["member_id"], unique=False)
    op.create_index(op.f("ix_ticket_workspace_id"), "ticket", ["workspace_id"], unique=False)
    op.create_table(
        "usage_event",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=True),
        sa.Column("member_id", sa.Text(), nullable=True),
        sa.Column("event", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("ip", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("agent", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["member_id"],
            ["member.id"],
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_usage_event_at", "usage_event", ["at"], unique=False)
    op.create_index(op.f("ix_usage_event_member_id"), "usage_event", ["member_id"], unique=False)
    op.create_index(
        op.f("ix_usage_event_workspace_id"), "usage_event", ["workspace_id"], unique=False
    )
    op.create_table(
        "ticket_message",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("author", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("body", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["ticket_id"],
            ["ticket.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_ticket_message_ticket_id"), "ticket_message", ["ticket_id"], unique=False
    )
    op.create_table(
        "ticket_attachment",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("name", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("mime", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("stored_at", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["ticket_message.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_ticket_attachment_message_id"), "ticket_attachment", ["message_id"], unique=False
    )
    op.add_column(
        "member", sa.Column("email_digest", sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    )
    op.add_column("member", sa.Column("left_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_member_email_digest"), "member", ["email_digest"], unique=False)


def downgrade() -> None:
    raise RuntimeError("what these tables hold would be lost; restore a backup instead")
