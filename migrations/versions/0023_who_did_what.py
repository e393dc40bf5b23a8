"""Entries of the audit log that nobody changes, and indexes by which a person is found in mails

Revision ID: 0023
Revises: 0022
Create Date: 2026-11-30 04:40:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# What tables/audit.py says, as it was at this version.
_GUARD = """
CREATE OR REPLACE FUNCTION audit_log_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'entries of the audit log are never removed';
    END IF;
    IF to_jsonb(NEW) - ARRAY['label', 'changes', 'words'] IS DISTINCT FROM
            to_jsonb(OLD) - ARRAY['label', 'changes', 'words']
        OR NEW.label NOT IN (OLD.label, '')
        OR NOT (NEW.changes IN (OLD.changes, '[]')
            OR (NEW.changes::text LIKE '%…%' AND length(NEW.changes::text) <= length(OLD.changes::text)))
    THEN
        RAISE EXCEPTION 'entries of the audit log are never changed';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade():
    if big_tables.is_new("users", "worked_as"):
        text = sa.String(length=254)
        op.add_column("users", sa.Column("worked_as", text, server_default="", nullable=False))
        listed = sa.Column("kept_orders", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False)
        op.add_column("erasures", listed)
        op.execute(_GUARD)
        op.execute(
            "CREATE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE ON audit_log "
            "FOR EACH ROW EXECUTE FUNCTION audit_log_stays()"
        )
        op.execute(
            "CREATE TRIGGER audit_log_stays_whole BEFORE TRUNCATE ON audit_log "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_stays()"
        )
    big_tables.create_index("users_worked", "users", ["id"], where="worked_as <> ''")
    big_tables.create_index("audit_log_subject", "audit_log", ["subject", "subject_id"])
    kinds = "kind IN ('alert', 'new_admin', 'second_factor_reset')"
    big_tables.create_index("outbox_of_others", "outbox", ["id"], where=kinds)


def downgrade():
    for name in ("outbox_of_others", "audit_log_subject", "users_worked"):
        big_tables.drop_index(name)
    for name in ("audit_log_stays_whole", "audit_log_stays"):
        op.execute(f"DROP TRIGGER {name} ON audit_log")
    op.execute("DROP FUNCTION audit_log_stays()")
    op.drop_column("erasures", "kept_orders")
    op.drop_column("users", "worked_as")
