"""Words to search by, and what a million orders need

Revision ID: 0019
Revises: 0018
Create Date: 2026-11-30 01:20:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# Name, table, columns, and which rows are in it. Made beside everybody's work, each in its own time.
_INDEXES = (
    ("orders_unworded", "orders", ["id"], "NOT worded"),
    ("orders_of_event", "orders", ["event_id", "id"], None),
    ("orders_in_state", "orders", ["state", "id"], None),
    ("orders_of_event_in_state", "orders", ["event_id", "state", "id"], None),
    ("orders_of_guests", "orders", ["event_id", "id"], "guest_of_id IS NOT NULL"),
    (
        "payments_expired_untold",
        "payments",
        ["state_since"],
        "state = 'expired' AND (stuck_alerted_at IS NULL OR stuck_alerted_at < state_since)",
    ),
    ("outbox_sent", "outbox", ["sent_at"], "sent_at IS NOT NULL"),
    ("outbox_whole", "outbox", ["sent_at"], "state = 'sent' AND context <> '{}'"),
    ("outbox_alerts", "outbox", ["created_at"], "kind = 'alert'"),
    ("tickets_of_event", "tickets", ["event_id", "id"], None),
    ("tickets_live", "tickets", ["ticket_type_id"], "state <> 'void'"),
    ("tickets_admitted", "tickets", ["event_id"], "checked_in_at IS NOT NULL AND state <> 'void'"),
)


def upgrade():
    if big_tables.is_new("payments", "last_four"):
        _change_tables()
    for name, table, columns, rows in _INDEXES:
        big_tables.create_index(name, table, columns, where=rows)


def _change_tables():
    op.create_table(
        "order_words",
        sa.Column("word", sa.String(length=60, collation="C"), nullable=False),
        sa.Column("order_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("word", "order_id", name=op.f("pk_order_words")),
    )
    op.create_index("order_words_order", "order_words", ["order_id"])
    op.create_table(
        "tallies",
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("upto_id", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("counts", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tallies")),
    )
    op.create_table(
        "whole_checks",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("began_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("upto_id", sa.BigInteger(), nullable=False),
        sa.Column("marks", postgresql.JSONB(), nullable=False),
        sa.Column("violations", postgresql.JSONB(), nullable=False),
        sa.Column("unchecked", postgresql.JSONB(), nullable=False),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_whole_checks")),
    )
    op.create_index(op.f("ix_whole_checks_began_at"), "whole_checks", ["began_at"])
    op.add_column("check_runs", sa.Column("marks", postgresql.JSONB(), nullable=True))
    op.add_column("orders", sa.Column("worded", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("payments", sa.Column("last_four", sa.String(length=4), server_default="", nullable=False))


def downgrade():
    for name, table, _, _ in reversed(_INDEXES):
        op.drop_index(name, table_name=table)
    op.drop_column("check_runs", "marks")
    op.drop_table("whole_checks")
    op.drop_table("tallies")
    op.drop_column("payments", "last_four")
    op.drop_column("orders", "worded")
    op.drop_table("order_words")
