"""Another application's database: a shop, with keys, types and habits that are none of ours."""

from __future__ import annotations

#: Numbers, UUIDs, words and pairs as keys; names in two columns; JSON of both kinds; a thread of
#: messages; an invoice that a law keeps; another schema; constraints that are checked at the end.
TABLES = """
CREATE SCHEMA crm;
CREATE DOMAIN mail AS varchar(120) CHECK (length(VALUE) > 4);
CREATE TYPE channel AS ENUM ('web', 'phone');
CREATE TABLE customers (
    customer_id bigserial PRIMARY KEY, email mail NOT NULL UNIQUE, first_name text,
    last_name text, full_name text GENERATED ALWAYS AS (first_name || ' ' || last_name) STORED,
    born date, last_ip inet, settings json, via channel, created_at timestamp NOT NULL);
CREATE TABLE addresses (
    address_id serial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    street varchar(40) NOT NULL, city text);
CREATE TABLE orders (
    order_no uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id bigint NOT NULL REFERENCES customers DEFERRABLE INITIALLY DEFERRED,
    placed_at timestamp NOT NULL, ship_to jsonb NOT NULL, note text);
CREATE TABLE order_lines (
    order_no uuid NOT NULL REFERENCES orders, line int NOT NULL, sku text NOT NULL,
    engraving text, PRIMARY KEY (order_no, line));
CREATE TABLE invoices (
    invoice_no text PRIMARY KEY, order_no uuid NOT NULL REFERENCES orders,
    billed_to text NOT NULL, cents int NOT NULL, issued_on date NOT NULL);
CREATE TABLE messages (
    id bigserial PRIMARY KEY, customer_id bigint REFERENCES customers,
    parent_id bigint REFERENCES messages ON DELETE CASCADE, body text NOT NULL, meta jsonb);
CREATE TABLE newsletter (email text PRIMARY KEY, since timestamptz NOT NULL);
CREATE TABLE crm.leads (lead_id int PRIMARY KEY, member_ref text, phone varchar(20));
CREATE TABLE products (sku text PRIMARY KEY, title text NOT NULL);
"""
#: Three people; Bob writes of Ann, and answers her.
ROWS = """
INSERT INTO customers (customer_id, email, first_name, last_name, born, last_ip, settings, via,
                       created_at)
VALUES (1, 'Ann.Gone@Example.org', 'Ann', 'Gone', '1980-05-17', '198.51.100.7',
        '{"theme": "dark", "nick": "parrots-not-ravens"}', 'web', '2024-01-01'),
       (2, 'bob@example.org', 'Bob', 'Stays', '1990-01-01', '203.0.113.9', '{"theme": "light"}',
        'phone', '2024-01-01'),
       (3, 'eve@example.org', 'Eve', 'Stays', NULL, NULL, NULL, NULL, '2024-01-01');
INSERT INTO addresses (customer_id, street, city)
    SELECT c, 'Gone Street ' || c, 'Town' FROM generate_series(1, 3) c, generate_series(1, 4);
INSERT INTO orders (customer_id, placed_at, ship_to, note)
    SELECT c, '2026-02-01', jsonb_build_object('to', 'parrots-not-ravens ' || c, 'zip', 1),
           'leave it with Ann Gone'
    FROM generate_series(1, 2) c, generate_series(1, 10);
INSERT INTO order_lines SELECT order_no, n, 'sku', 'for Ann Gone'
    FROM orders, generate_series(1, 3) n;
INSERT INTO invoices SELECT 'I-' || row_number() OVER (), order_no, 'Ann Gone', 100, '2026-02-01'
    FROM (SELECT order_no FROM orders WHERE customer_id = 1 LIMIT 2) o;
INSERT INTO messages VALUES
    (1, 1, NULL, 'I am Ann Gone, ann.gone@example.org', '{"by": "Ann Gone"}'),
    (2, 2, 1, 'Dear Ann  Gone (ann.gone@example.org), yes', '{"cc": ["ann.gone@example.org"]}'),
    (3, 1, 2, 'parrots-not-ravens', NULL), (4, 2, NULL, 'of something else', NULL);
INSERT INTO newsletter VALUES ('ANN.gone@example.org', now()), ('bob@example.org', now());
INSERT INTO crm.leads VALUES (1, 'member_ann', '+49 30 5550123'), (2, 'member_bob', '+49 30 555');
INSERT INTO products VALUES ('sku', 'A mug');
"""
MAP = """
kind: data_map
name: shop_db
database: shop
tables:
  customers:
    what: Who buys.
    subject: [customer_id]
    found_by: {email: address}
    category: identity
    purpose: to sell and deliver
    origin: person
    columns:
      customer_id: {treatment: keep}
      email: {treatment: digest}
      first_name: {treatment: clear}
      last_name: {treatment: clear}
      full_name: {treatment: clear}
      born: {treatment: month}
      last_ip: {treatment: network}
      settings: {paths: {theme: {treatment: keep}, nick: {treatment: clear}}}
      via: {treatment: clear}
      created_at: {treatment: month}
  addresses:
    what: Where parcels go.
    subject: [customer_id]
    category: identity
    purpose: to deliver
    columns:
      address_id: {treatment: keep}
      customer_id: {treatment: keep}
      street: {treatment: blank}
      city: {treatment: keep}
  orders:
    what: What was bought.
    subject: [customer_id]
    category: billing
    purpose: to sell
    columns:
      order_no: {treatment: keep}
      customer_id: {treatment: keep}
      placed_at: {treatment: month}
      ship_to: {paths: {"*": {treatment: empty}}}
      note: {treatment: blank}
  order_lines:
    what: One line of an order.
    subject: [order_no.customer_id]
    category: billing
    purpose: to sell
    columns:
      order_no: {treatment: keep}
      line: {treatment: keep}
      sku: {treatment: keep}
      engraving: {treatment: clear}
  invoices:
    what: What was billed.
    subject: [order_no.customer_id]
    category: billing
    purpose: to account
    columns:
      invoice_no: {treatment: keep}
      order_no: {treatment: keep}
      billed_to: {treatment: blank, category: identity}
      cents: {treatment: keep}
      issued_on: {treatment: keep}
  messages:
    what: What customers and the shop wrote.
    subject: [customer_id, parent_id.customer_id]
    category: communications
    purpose: to answer
    columns:
      id: {treatment: keep}
      customer_id: {treatment: clear}
      parent_id: {treatment: keep}
      body: {treatment: blank}
      meta: {paths: {by: {treatment: clear}, cc: {treatment: mask}}}
  newsletter:
    what: Who reads the newsletter.
    subject: [email]
    found_by: {email: address}
    category: identity
    purpose: to write to them
    columns:
      email: {treatment: keep}
      since: {treatment: month}
  crm.leads:
    what: Who was talked to.
    subject: [lead_id]
    found_by: {member_ref: member}
    category: identity
    purpose: to talk to them
    columns:
      lead_id: {treatment: keep}
      member_ref: {treatment: clear}
      phone: {treatment: clear}
  products:
    what: What is sold.
    subject: []
    columns:
      sku: {not_personal: a number of ours}
      title: {not_personal: a name of a thing}
"""
INVOICES = """
kind: retention
name: shop_invoices
database: shop
data: invoices
purposes:
  - {why: to account, keep_for: 2920 d, from: [issued_on], basis: legal_obligation,
     cite: "AO §147", checked: 2026-11-24}
then: delete
limit: {rows: 1000, share: 1.0}
mode: dry_run
"""
#: What nobody may find in a database afterwards, in any case of letters.
PERSONAL = (
    "ann.gone", "ann gone", "ann  gone", "parrots-not-ravens 1", "198.51.100.7", "1980-05-17",
    "gone street 1", "5550123", "member_ann",
)  # fmt: skip
#: A log in parts without a key of its own, whose rows lie in places of the same names; what refers
#: to an order by something else than its key; two tables that need each other.
ODD = """
CREATE TABLE visits (at timestamptz NOT NULL, customer_id bigint REFERENCES customers, ip cidr,
    tags text[]) PARTITION BY RANGE (at);
CREATE TABLE visits_a PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE visits_b PARTITION OF visits FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO visits
    SELECT at, c, CAST('198.51.100.' || 6 + c AS cidr), (ARRAY['Ann Gone', 'Bob'])[c:c]
    FROM generate_series(1, 2) c, generate_series(1, 9) n,
         unnest(ARRAY[timestamptz '2026-02-01', '2026-08-01']) at;
CREATE TABLE engravings (id int PRIMARY KEY, order_no uuid, line int,
    FOREIGN KEY (order_no, line) REFERENCES order_lines ON DELETE CASCADE);
INSERT INTO engravings SELECT 1, order_no, 1 FROM orders WHERE customer_id = 1 LIMIT 1;
CREATE TABLE "Cards" ("Card No" text PRIMARY KEY, "owner" bigint REFERENCES customers);
ALTER TABLE customers ADD card text REFERENCES "Cards";
INSERT INTO "Cards" SELECT 'C' || customer_id, customer_id FROM customers;
UPDATE customers SET card = 'C' || customer_id;
DELETE FROM invoices; DELETE FROM messages;
"""
ODD_MAP = """
kind: data_map
name: shop_odd
database: shop
tables:
  visits:
    what: Who looked.
    subject: [customer_id]
    category: technical
    purpose: to count
    columns:
      at: {treatment: month}
      customer_id: {treatment: clear}
      ip: {treatment: network}
      tags: {treatment: clear}
  engravings:
    what: What the engraver got.
    subject: []
    columns:
      id: {not_personal: a number}
      order_no: {not_personal: a number}
      line: {not_personal: a number}
  Cards:
    what: Who has a card.
    subject: [owner]
    category: identity
    purpose: to know regulars
    columns:
      Card No: {treatment: keep}
      owner: {treatment: clear}
"""
