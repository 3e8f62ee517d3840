"""A database full of people, made by SQL: each has rows in eleven tables, a file and a post."""

from __future__ import annotations

import psycopg
from psycopg import sql

from benchmarks._postgres import bare

#: People share a workspace, as in a business of this size.
_IN_ONE = 10
#: `n` numbers people. Every tenth is named in what somebody else wrote; each is in a post.
_TABLES = (
    """
    INSERT INTO workspace (id, name, created_at)
    SELECT 'ws_' || lpad(n::text, 9, '0'), 'Studio ' || n, now()
    FROM generate_series(0, ({people} - 1) / {in_one}) n
    """,
    """
    INSERT INTO member (id, workspace_id, name, email, email_digest, role, created_at)
    SELECT 'member_' || k, 'ws_' || lpad(((n - 1) / {in_one})::text, 9, '0'),
           'Person' || n || ' Number' || n, 'person' || n || '@example.org', 'digest_' || k,
           'publisher', now() FROM people
    """,
    """
    INSERT INTO consent (id, member_id, purpose, wording, ip, given_at, withdrawn_at)
    SELECT 'consent_' || k, 'member_' || k, 'news', '1', '198.51.100.7',
           timestamptz '2008-01-01', timestamptz '2009-01-01' FROM people
    """,
    """
    INSERT INTO preference (id, member_id, event, way, wanted, updated_at)
    SELECT 'preference_' || k, 'member_' || k, 'post.live', 'mail', true, now() FROM people
    """,
    """
    INSERT INTO inference (id, member_id, kind, value, made_at)
    SELECT 'inference_' || k, 'member_' || k, 'taste',
           jsonb_build_object('likes', 'parrots number ' || n), now() FROM people
    """,
    """
    INSERT INTO usage_event (id, workspace_id, member_id, event, ip, agent, facts, at)
    SELECT 'event_' || k || m, 'ws_' || lpad(((n - 1) / {in_one})::text, 9, '0'), 'member_' || k,
           'post.created', '198.51.100.7', 'A browser of version ' || n % 50, '{{}}', now()
    FROM people, generate_series(1, 5) m
    """,
    """
    INSERT INTO ticket (id, member_id, email, email_digest, title, status, opened_at, closed_at)
    SELECT 'ticket_' || k, 'member_' || k, 'person' || n || '@example.org', 'digest_' || k,
           'Where is my post', 'closed', now(), now() FROM people
    """,
    """
    INSERT INTO ticket_message (id, ticket_id, author, body, at)
    SELECT 'message_' || k || m, 'ticket_' || k, CASE m WHEN 1 THEN 'person' ELSE 'staff' END,
           'The post of Monday ' || n || ' did not come out, or came late; can somebody look?'
           || CASE WHEN n % 10 = 0 AND m = 2
              THEN ' Person' || n + 1 || ' Number' || n + 1 || ' knows more.' ELSE '' END, now()
    FROM people, generate_series(1, 2) m
    """,
    """
    INSERT INTO ticket_attachment (id, message_id, name, mime, bytes, sha256, stored_at)
    SELECT 'file_' || k, 'message_' || k || '1', 'screen.png', 'image/png', 8, md5(k),
           {media} || '/' || k || '.png' FROM people
    """,
    """
    INSERT INTO channel (id, workspace_id, name, kind, member_id, events, secrets, data_key,
                         key_id, status, created_at)
    SELECT 'channel_' || k, 'ws_' || lpad(((n - 1) / {in_one})::text, 9, '0'), 'mail ' || n,
           'email', 'member_' || k, '[]', '', '', '', 'active', now() FROM people
    """,
    """
    INSERT INTO notice (id, workspace_id, event, subject, facts, once, created_at, emitted_at)
    SELECT 'notice_' || k, 'ws_' || lpad(((n - 1) / {in_one})::text, 9, '0'), 'post.live',
           'post_' || k, '{{}}', k, now(), now() FROM people
    """,
    """
    INSERT INTO telling (id, notice_id, channel_id, state, tries, told_at)
    SELECT 'telling_' || k, 'notice_' || k, 'channel_' || k, 'told', 1, now() FROM people
    """,
    """
    INSERT INTO invoice (id, workspace_id, number, status, country, currency, total, tax,
                         billed_to, email, email_digest, lines, issued_at)
    SELECT 'invoice_' || k, 'ws_' || lpad(((n - 1) / {in_one})::text, 9, '0'), k, 'paid', 'DE',
           'EUR', 900, 144, 'Person' || n || ' Number' || n, 'person' || n || '@example.org',
           'digest_' || k, '[]', timestamptz '2008-01-01' FROM people
    """,
    """
    INSERT INTO post (id, workspace_id, body, content_hash, draft, late, created_at)
    SELECT 'post_' || k, 'ws_' || lpad(((n - 1) / {in_one})::text, 9, '0'),
           jsonb_build_object('post', jsonb_build_object(
               'text', 'Today Person' || n || ' Number' || n || ' shows what we made, see you!',
               'tags', jsonb_build_array('monday', 'made'))),
           md5(k), false, 'publish', now() FROM people
    """,
)
_PEOPLE = (
    "WITH people AS (SELECT n, lpad(n::text, 9, '0') AS k FROM generate_series(1, {people}) n) "
)


def fill(url: str, people: int, media: str) -> int:
    """Fill an empty database of ours; the files of `media` are not made. Return its rows."""
    given = {
        "people": sql.Literal(people), "in_one": sql.Literal(_IN_ONE), "media": sql.Literal(media),
    }  # fmt: skip
    rows = 0
    with psycopg.connect(url, autocommit=True) as connection, bare(connection):
        for said in _TABLES:
            with_people = _PEOPLE + said if "FROM people" in said else said
            rows += connection.execute(sql.SQL(with_people).format(**given)).rowcount
    return rows
