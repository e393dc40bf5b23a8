"""A shop of many orders, written by the database itself: so many that every scan is felt.

In proportion to a shop of some years: 60% of the orders are paid, with a ticket each, and 40% expired; a
fifth of all is of one event; a twentieth is of the last 30 days. Each has its line, payment, mails, timeline
and words, and what the invariants ask for is true of all of it.
"""

# Statements of many columns, which are no easier to read in more lines.
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

# The ids begin here, so that what a database held before is in nobody's way.
_BATCH = 50_000
EVENTS = 50
_FIRST = (
    "ARRAY['Ada','Ben','Cara','Dora','Emil','Fay','Gus','Hana','Ivo','Jana','Kai','Lea','Max','Nina','Otto','Pia',"
    "'Quin','Rosa','Sven','Tara']"
)
_LAST = (
    "ARRAY['Abel','Brandt','Costa','Dietz','Ernst','Falk','Gross','Huber','Iver','Jung','Kranz','Lindquist','Moser',"
    "'Novak','Orth','Peter','Quist','Roth','Sommer','Thaler','Unger','Vogel','Weber','Xaver','Young','Zander']"
)
# As wide as what a Checkout Session is asked for with.
_PARAMS = (
    "jsonb_build_object('mode', 'payment', 'client_reference_id', code || '-1', 'customer_email', email, 'locale', 'en',"
    "'success_url', 'https://tickets.example.org/pay/' || code || '/back/' || md5(n::text), 'cancel_url',"
    "'https://tickets.example.org/pay/' || code || '/cancelled', 'expires_at', 1800000000 + n, 'line_items',"
    "jsonb_build_array(jsonb_build_object('quantity', 1, 'price_data', jsonb_build_object('currency', 'eur',"
    "'unit_amount', 2500, 'product_data', jsonb_build_object('name', 'Bulk: Standard')))), 'metadata',"
    "jsonb_build_object('site', 'tickets.example.org', 'reference', code || '-1', 'order', code))"
)
_CODE = "upper(substr(md5('c' || n), 1, 3) || lpad(to_hex(n), 5, '0'))"

_MEMBERS = """
INSERT INTO users (email, name, password_hash, role, confirmed_at, login_epoch, created_at, folded)
SELECT 'organiser' || n || '@example.org', 'Organiser ' || n, '', 'organiser', :now, 0, :now,
       ' organiser ' || n || ' organiser' || n || '@example.org'
FROM generate_series(1, 10) AS n ON CONFLICT DO NOTHING;
INSERT INTO events (slug, title, description, venue, address, starts_at, ends_at, timezone, currency, state,
                    organiser_id, created_at, updated_at, folded)
SELECT 'bulk-' || n, 'Bulk ' || n, '', 'Town Hall', '', CAST(:now AS timestamptz) + interval '30 days',
       CAST(:now AS timestamptz) + interval '31 days', 'Europe/Jersey', 'EUR', 'published',
       (SELECT id FROM users WHERE email = 'organiser' || (n % 10 + 1) || '@example.org'), :now, :now,
       ' bulk ' || n || ' bulk-' || n || ' town hall'
FROM generate_series(1, :events) AS n;
INSERT INTO ticket_types (event_id, name, description, price_minor, capacity, held, sold, per_order_limit,
                          position, folded)
SELECT id, 'Standard', '', 2500, 1000000, 0, 0, 10, 0, ' standard' FROM events WHERE slug LIKE 'bulk-%'
"""
_FILL = f"""
CREATE TEMP TABLE bulk ON COMMIT DROP AS
SELECT n, CAST(:base AS bigint) + n AS id, 'ORD-' || {_CODE} AS code, n % 5 >= 2 AS paid,
       n > :orders - 20 AS open,
       (SELECT min(id) FROM events WHERE slug = 'bulk-1') + CASE WHEN n / 5 % 5 = 3 THEN 0 ELSE 1 + n % 49 END AS event,
       ({_FIRST})[1 + n % 20] || ' ' || ({_LAST})[1 + n / 20 % 26] AS name,
       lower(({_FIRST})[1 + n % 20]) || '.' || n % 300000 || '@mail' || n % 7 || '.example.org' AS email,
       substr(md5('l' || n), 1, 4) AS four,
       CASE WHEN n <= :orders * 0.95
            THEN CAST(:now AS timestamptz) - interval '1080 days' + n / (:orders * 0.95) * interval '1050
            days' ELSE CAST(:now AS timestamptz) - interval '30 days' + (n - :orders * 0.95) / (:orders *
            0.05) * interval '30 days' END AS at
FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n;
UPDATE bulk SET paid = false WHERE open;
INSERT INTO orders (id, code, secret, event_id, name, email, currency, total_minor, state, stock_state,
                    failure_reason, client_address, created_at, completed_at, folded, worded)
SELECT id, code, md5(n::text), event, name, email, 'EUR', 2500,
       CASE WHEN open THEN 'pending_verification' WHEN paid THEN 'completed' ELSE 'expired' END,
       CASE WHEN open THEN 'held' WHEN paid THEN 'sold' ELSE 'released' END, '', '127.0.0.1', at,
       CASE WHEN paid THEN at + interval '1 minute' END,
       ' ' || lower(name || ' ' || email || ' ' || code), true FROM bulk;
INSERT INTO order_lines (id, order_id, kind, ticket_type_id, description, quantity, unit_minor)
SELECT b.id, b.id, 'ticket', y.id, 'Bulk: Standard', 1, 2500 FROM bulk b JOIN ticket_types y ON y.event_id = b.event;
INSERT INTO payments (id, order_id, attempt, provider, account, livemode, reference, idempotency_key, params,
                      provider_id, charge_id, last_four, received_minor, fulfilled, amount_minor, currency,
                      state, reason, created_at, provider_created_at, state_since, paid_at, provider_paid_at,
                      polling_started_at, max_poll_duration_minutes, should_poll, next_check_at, closes_at,
                      poll_count, error_count, last_error, stuck_alerted_at)
SELECT id, id, 1, 'stripe', 'platform', false, code || '-1', 'pay-' || code, {_PARAMS}, 'cs_test_' || md5(n::text),
       CASE WHEN paid THEN 'ch_' || md5(n::text) END, CASE WHEN paid THEN four ELSE '' END,
       CASE WHEN paid THEN 2500 END, paid, 2500, 'EUR',
       CASE WHEN open THEN 'open' WHEN paid THEN 'paid' ELSE 'expired' END, '', at, at,
       at + interval '1 minute', CASE WHEN paid THEN at + interval '1 minute' END,
       CASE WHEN paid THEN at + interval '55 seconds' END, at, 120, true,
       CASE WHEN open THEN CAST(:now AS timestamptz) + interval '1 day' END,
       CASE WHEN open THEN CAST(:now AS timestamptz) + interval '1 day' END, 3, 0, '',
       CASE WHEN NOT paid AND NOT open THEN at + interval '40 minutes' END FROM bulk;
INSERT INTO tickets (id, order_id, order_line_id, event_id, ticket_type_id, number, code, holder, state,
                     state_reason, issued_at, checked_in_by)
SELECT b.id, b.id, b.id, b.event, y.id, 1, upper(substr(md5('t' || b.n), 1, 4) || lpad(to_hex(b.n), 6, '0')), b.name, 'valid', '',
       b.at + interval '1 minute', ''
FROM bulk b JOIN ticket_types y ON y.event_id = b.event WHERE b.paid;
INSERT INTO outbox (id, key, kind, "to", order_id, context, message_id, state, attempts, created_at,
                    next_attempt_at, sent_at, last_error)
SELECT id * 2 + which, 'order:' || id || ':' || CASE which WHEN 0 THEN 'received' ELSE 'fulfilled' END,
       CASE which WHEN 0 THEN 'order_received' ELSE CASE WHEN paid THEN 'tickets' ELSE 'order_expired' END
       END, email, id, '{{}}', '<' || id || '.' || which || '@example.org>', 'sent', 1, at + which * interval
       '1 minute', at + which * interval '1 minute', at + which * interval '70 seconds', ''
FROM bulk, generate_series(0, 1) AS which WHERE which = 0 OR NOT open AND n % 10 <> 0 OR paid;
INSERT INTO timeline (id, order_id, payment_id, at, door, what, text, data)
SELECT id * 2 + which, id, id, at + which * interval '1 minute', 'test',
       CASE which WHEN 0 THEN 'opened' ELSE CASE WHEN paid THEN 'paid' ELSE 'expired' END END, '',
       jsonb_build_object('provider', 'stripe', 'provider_id', 'cs_test_' || md5(n::text))
FROM bulk, generate_series(0, 1) AS which WHERE which = 0 OR NOT open;
INSERT INTO transfers (id, key, debit, credit, amount_minor, currency, kind, description, order_id, payment_id,
                       agent_slug, provider_reference, created_at)
SELECT id, 'payment:' || id || '\\:ticket', 'provider:stripe:platform', 'sales:house', 2500, 'EUR', 'sale', '', id,
       id, '', '', at FROM bulk WHERE paid;
INSERT INTO refunds (id, payment_id, amount_minor, currency, state, idempotency_key, provider_id,
                     refunded_before_minor, made_at_provider, reason, failure_reason, void_ticket_ids,
                     created_at, resolved_at, check_count)
SELECT id, id, 500, 'EUR', 'succeeded', 'refund-' || id, 're_' || md5(n::text), 0, false, '', '', '[]', at, at, 1
FROM bulk WHERE paid AND n % 100 = 2;
INSERT INTO webhook_events (id, provider, event_id, type, object_id, received_at, done_at, outcome)
SELECT id, 'stripe', 'evt_' || md5(n::text), 'checkout.session.completed', '', at, at, 'paid' FROM bulk WHERE paid;
INSERT INTO order_words (order_id, word)
SELECT id, word FROM (SELECT DISTINCT id, word FROM bulk, unnest(ARRAY[
  lower(split_part(name, ' ', 1)), lower(split_part(name, ' ', 2)), email, substr(email, strpos(email, '.') +
  1), substr(email, strpos(email, '@') + 1), 'example.org', lower(code), lower(substr(code, 5)), '=25',
  at::date::text, lower(code) || '-1', CASE WHEN paid THEN 'cs_test_' || md5(n::text) END, CASE WHEN paid THEN
  'ch_' || md5(n::text) END, CASE WHEN paid THEN four END, CASE WHEN paid THEN lower(substr(md5('t' || n), 1,
  10)) END]) AS word
WHERE word IS NOT NULL) AS words ORDER BY id
"""
_AFTER = """
UPDATE ticket_types y SET sold = (SELECT count(*) FROM tickets t WHERE t.ticket_type_id = y.id),
    held = (SELECT count(*) FROM orders o JOIN order_lines l ON l.order_id = o.id
            WHERE o.stock_state = 'held' AND l.ticket_type_id = y.id)
WHERE y.event_id IN (SELECT id FROM events WHERE slug LIKE 'bulk-%');
UPDATE payments SET asked_back_minor = 500, reversed_at = paid_at + interval '1 day' WHERE id IN (SELECT payment_id FROM refunds WHERE id > :base);
UPDATE orders SET state = 'partially_refunded' WHERE id IN (SELECT payment_id FROM refunds WHERE id > :base)
"""
_TABLES = (
    "orders",
    "order_lines",
    "payments",
    "tickets",
    "outbox",
    "timeline",
    "transfers",
    "refunds",
    "webhook_events",
)


def _nobody(done: int) -> None:
    """Where nobody watches."""


def fill(connection: Connection, orders: int, now: object, tell: Callable[[int], None] = _nobody) -> None:
    """Add so many orders with all that belongs to them. Commits as it goes; needs a superuser of its own."""
    base = connection.scalar(text("SELECT coalesce(max(id), 0) FROM orders")) or 0
    values = {"now": now, "orders": orders, "base": base, "events": EVENTS}
    # Foreign keys are true of what is written here, and need not be looked up ten million times.
    run_all(connection, f"SET session_replication_role = replica;{_MEMBERS}", values)
    connection.commit()
    for first in range(1, orders + 1, _BATCH):
        last = min(first + _BATCH - 1, orders)
        run_all(connection, _FILL, values | {"first": first, "last": last})
        connection.commit()
        tell(last)
    run_all(connection, _AFTER, values)
    for table in _TABLES:
        following = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
        connection.execute(text(following))
    run_all(connection, "SET session_replication_role = DEFAULT", {})
    connection.commit()


def run_all(connection: Connection, statements: str, values: dict[str, object]) -> None:
    """Run statements that are parted by semicolons, each with those of the values that it names."""
    for statement in statements.split(";"):
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        connection.execute(text(statement), used)
