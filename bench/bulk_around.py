"""What else fills up in some years beside the orders: members, wallets, a tournament, doors, logs."""

# Statements of many columns, which are no easier to read in more lines.
# ruff: noqa: E501

from __future__ import annotations

from sqlalchemy import Connection

from bench.bulk import run_all

# A tournament; its orders but for some become another event's.
CUP = "bulk-2"
# Of every so many orders of a table one is of the member who is measured.
_AROUND = """
INSERT INTO users (email, name, password_hash, role, confirmed_at, login_epoch, created_at, folded)
SELECT 'member' || n || '@example.org', 'Member ' || n, '', 'buyer', :now, 0, :now, ' member ' || n || ' member' || n || '@example.org'
FROM generate_series(1, :members) AS n;
INSERT INTO organisers (user_id, name, description, website, phone, contact_email, state, state_reason, created_at, updated_at)
SELECT id, name, '', '', '', email, 'approved', '', :now, :now FROM users WHERE role = 'organiser';
INSERT INTO wallets (user_id, currency, balance_minor, held_minor, overdrawn, created_at)
SELECT id, 'EUR', 2000, 0, false, :now FROM users WHERE email LIKE 'member%@example.org' OR id = :boss;
INSERT INTO transfers (key, debit, credit, amount_minor, currency, kind, description, agent_slug, provider_reference, created_at)
SELECT 'bulk-gift-' || id, 'platform', 'wallet:' || id, 2000, 'EUR', 'gift', 'Gift', '', '', CAST(:now AS timestamptz) - interval '300 days'
FROM users WHERE email LIKE 'member%@example.org' OR id = :boss;
INSERT INTO transfers (key, debit, credit, amount_minor, currency, kind, description, agent_slug, provider_reference, created_at)
SELECT 'bulk-use-' || n, CASE WHEN n % 2 = 0 THEN 'platform' ELSE 'wallet:' || :boss END, CASE WHEN n % 2 = 0 THEN 'wallet:' || :boss ELSE 'platform' END,
       100, 'EUR', 'usage', 'Used', '', '', CAST(:now AS timestamptz) - n * interval '1 hour'
FROM generate_series(1, 2000) AS n;
UPDATE orders SET user_id = :boss WHERE id > :base AND id % 500 = 7;
CREATE TEMP TABLE moved ON COMMIT DROP AS
SELECT o.id, y.event_id, y.id AS ticket_type_id FROM orders o, ticket_types y
WHERE o.event_id = (SELECT id FROM events WHERE slug = :cup) AND y.event_id = (SELECT id FROM events WHERE slug = 'bulk-3')
  AND o.id NOT IN (SELECT id FROM orders WHERE event_id = (SELECT id FROM events WHERE slug = :cup) ORDER BY id LIMIT :entries);
UPDATE orders o SET event_id = m.event_id FROM moved m WHERE m.id = o.id;
UPDATE tickets t SET event_id = m.event_id, ticket_type_id = m.ticket_type_id FROM moved m WHERE m.id = t.order_id;
UPDATE order_lines l SET ticket_type_id = m.ticket_type_id FROM moved m WHERE m.id = l.order_id;
UPDATE ticket_types y SET sold = (SELECT count(*) FROM tickets t WHERE t.ticket_type_id = y.id),
    held = (SELECT count(*) FROM orders o JOIN order_lines l ON l.order_id = o.id
            WHERE o.stock_state = 'held' AND l.ticket_type_id = y.id)
WHERE y.event_id IN (SELECT id FROM events WHERE slug IN (:cup, 'bulk-3'));
UPDATE events SET kind = 'tournament' WHERE slug = :cup;
INSERT INTO tournaments (event_id, rules, withdrawal) SELECT id, '', 'all' FROM events WHERE slug = :cup;
INSERT INTO categories (ticket_type_id) SELECT y.id FROM ticket_types y JOIN events e ON e.id = y.event_id WHERE e.slug = :cup;
UPDATE order_lines l SET kind = 'tournament_entry' FROM ticket_types y JOIN events e ON e.id = y.event_id
WHERE e.slug = :cup AND l.ticket_type_id = y.id;
CREATE TEMP TABLE entered ON COMMIT DROP AS
SELECT o.id, o.name, o.created_at, o.event_id, row_number() OVER (ORDER BY o.id) AS n
FROM orders o JOIN events e ON e.id = o.event_id WHERE e.slug = :cup;
INSERT INTO athletes (public_id, user_id, name, birth_date, sex, club, created_at, folded)
SELECT 'athlete_' || lpad(n::text, 20, '0'), CASE WHEN n <= 200 THEN :boss ELSE (SELECT min(id) FROM users WHERE email LIKE 'member%') + n % :members END,
       name, '2000-01-01', 'female', 'Club ' || n % 100, created_at, ' ' || lower(name) FROM entered;
INSERT INTO participants (public_id, athlete_id, ticket_type_id, order_id, club, created_at)
SELECT 'participant_' || lpad(n::text, 20, '0'), (SELECT min(id) FROM athletes) + n - 1, (SELECT y.id FROM ticket_types y WHERE y.event_id = entered.event_id LIMIT 1),
       id, 'Club ' || n % 100, created_at FROM entered;
UPDATE orders SET user_id = :boss WHERE id IN (SELECT id FROM entered WHERE n <= 200);
INSERT INTO audit_log (at, by, door, actor_id, area, deed, subject, subject_id, label, changes, words)
SELECT CAST(:now AS timestamptz) - (CAST(:logs AS integer) - n) * interval '5 minutes', 'member', 'admin', :boss, (ARRAY['price','text','event','event','event','event'])[1 + n % 6],
       'changed', 'event', (n % 50)::text, 'Bulk ' || n % 50, jsonb_build_array(jsonb_build_array('capacity', n, n + 1)),
       to_tsvector('simple', 'event bulk ' || n % 50 || ' capacity ' || n)
FROM generate_series(1, :logs) AS n;
INSERT INTO sweep_runs (trigger, started_at, finished_at, found, verified, failed, pending, errors, provider_calls, mails, error)
SELECT 'clock', CAST(:now AS timestamptz) - (:logs / 2 - n) * interval '5 minutes', CAST(:now AS timestamptz) - (:logs / 2 - n) * interval '5 minutes' + interval '2 seconds', 3, 2, 0, 1, 0, 1, 2, ''
FROM generate_series(1, :logs / 2) AS n;
INSERT INTO incidents (key, kind, order_id, payment_id, provider, amount_minor, currency, evidence, created_at, resolution, resolution_reason, resolved_at)
SELECT 'bulk:' || id, 'late_money', id, id, 'stripe', 2500, 'EUR', '{}', created_at, CASE WHEN id % 300 <> 0 THEN 'dismiss' ELSE '' END, '',
       CASE WHEN id % 300 <> 0 THEN created_at END
FROM payments WHERE id > :base AND state = 'expired' AND id % 100 = 0;
INSERT INTO disputes (payment_id, provider_id, amount_minor, currency, state, reason, provider_status, created_at, closed_at)
SELECT id, 'dp_' || id, 2500, 'EUR', CASE WHEN id % 2 = 0 THEN 'won' ELSE 'lost' END, '', '', created_at, created_at
FROM payments WHERE id > :base AND state = 'paid' AND id % 1000 = 3;
UPDATE tickets SET checked_in_at = :now, checked_in_by = 'Main' WHERE event_id = (SELECT id FROM events WHERE slug = 'bulk-1') AND id % 4 = 0;
INSERT INTO check_ins (scan_id, event_id, ticket_id, verdict, detail, by, at, undone_by)
SELECT 'bulk-' || id, event_id, id, 'valid', jsonb_build_object('door', 'pass:1'), 'Main', :now, '' FROM tickets
WHERE event_id = (SELECT id FROM events WHERE slug = 'bulk-1') AND id % 4 = 0;
INSERT INTO one_time_links (user_id, purpose, token_hash, created_at, expires_at)
SELECT id, 'reset', md5('link' || id), :now, :now FROM users WHERE email LIKE 'member%@example.org';
UPDATE outbox SET state = 'failed', last_error = 'refused' WHERE id IN (SELECT id FROM outbox WHERE order_id > :base AND order_id % 5000 = 1)
"""


def fill(connection: Connection, orders: int, values: dict[str, object]) -> None:
    """Write what goes with so many orders, once they are there; `values`: now, boss (a member), base (an order)."""
    sizes: dict[str, object] = {
        "members": orders // 50,
        "logs": orders // 5,
        "entries": orders // 300,
        "cup": CUP,
    }
    run_all(connection, f"SET session_replication_role = replica;{_AROUND}", {**sizes, **values})
    run_all(connection, "SET session_replication_role = DEFAULT", {})
    connection.commit()
