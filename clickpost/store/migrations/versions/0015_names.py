"""Where people are named is found by an index, and files by where they are stored."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

#: All that is written in a document, in one text; no name goes over what stands between.
_SAID = r"""
CREATE OR REPLACE FUNCTION privacy_said(doc jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT string_agg(one #>> '{}', E'\x01')
    FROM jsonb_path_query(doc, 'strict $.** ? (@.type() == "string")') AS one
$$
"""

#: A number for each two words that follow each other, whatever the case and what is between.
#: What `privacy_pattern` finds has all numbers of the name: both tell words apart in the same way,
#: and upper(lower()) makes one of the letters that a pattern takes for the same. The dotted İ,
#: which full case mapping takes apart, is an I.
_PAIRS = r"""
CREATE OR REPLACE FUNCTION privacy_pairs(VARIADIC said text[]) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
DECLARE
    found integer[] := '{}';
    before text;
    word text;
BEGIN
    FOREACH word IN ARRAY
        regexp_split_to_array(array_to_string(said, E'\x01'), '[^[:alnum:]]+')
    LOOP
        CONTINUE WHEN word = '';
        word := translate(upper(lower(word)), U&'\0130\0307', 'I');
        IF before IS NOT NULL THEN
            found := array_append(found, hashtext(before || ' ' || word));
        END IF;
        before := word;
    END LOOP;
    RETURN found;
END
$$
"""

#: The columns in which people may name others; a document's after a `:`.
_WRITTEN = {
    "approval": ["content_hash", "run_id", "decided_by", "note"],
    "arrival": [":facts", "reason"],
    "attempt": [":intent", "flow_run_id"],
    "connection": [":options", ":slots"],
    "delivery": [
        "reason", "flow_run_id", "fingerprint", "content_hash", ":message", ":notes", "waits_for",
    ],
    "hold": ["placed_by"],
    "inference": [":value"],
    "invitation": [":options", "reason"],
    "invoice": [":lines"],
    "notice": [":facts"],
    "person": ["secret"],
    "post": ["client_key", ":body", "content_hash", "flow_run_id", "author"],
    "series": [":body", ":connection_ids", "author"],
    "spend": ["delivery_id"],
    "subject_request": [
        "code", "once", "member_id", "workspace_id", ":connection_ids", "authority",
        "verified_by", "note",
    ],
    "subscription": ["remote_id"],
    "telling": ["reason"],
    "ticket": ["title"],
    "ticket_attachment": ["name", "sha256"],
    "ticket_message": ["body"],
    "usage_event": ["agent", ":facts"],
    "variant": [":body"],
}  # fmt: skip
_FILES = ("asset", "rendition", "ticket_attachment")


def upgrade() -> None:
    op.execute(_SAID)
    op.execute(_PAIRS)
    for table, columns in _WRITTEN.items():
        said = ", ".join(
            f'privacy_said("{one[1:]}")' if one.startswith(":") else f'CAST("{one}" AS text)'
            for one in columns
        )
        # No list of what is pending: nobody's insert shall have to empty it.
        op.execute(
            f"CREATE INDEX ix_{table}_said ON {table}"
            f" USING gin (privacy_pairs(VARIADIC ARRAY[{said}])) WITH (fastupdate = off)"
        )
    for table in _FILES:
        op.create_index(f"ix_{table}_stored_at", table, ["stored_at"], unique=False)


def downgrade() -> None:
    for table in _FILES:
        op.drop_index(f"ix_{table}_stored_at", table_name=table)
    for table in _WRITTEN:
        op.execute(f"DROP INDEX ix_{table}_said")
    op.execute("DROP FUNCTION privacy_pairs(text[])")
    op.execute("DROP FUNCTION privacy_said(jsonb)")
