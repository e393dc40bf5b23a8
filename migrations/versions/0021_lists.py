"""What lists of a million rows are read by

Revision ID: 0021
Revises: 0020
Create Date: 2026-11-30 05:00:00

"""

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# Name, table, columns, and which rows are in it. Made beside everybody's work, each in its own time.
_INDEXES = (
    ("payments_created", "payments", ["created_at", "id"], None),
    ("payments_reversed", "payments", ["created_at", "id"], "state = 'paid' AND reversed_at IS NOT NULL"),
    ("order_lines_of_fees", "order_lines", ["order_id"], "kind = 'listing_fee'"),
    ("outbox_to", "outbox", ['lower("to")'], None),
    ("outbox_of_member", "outbox", ["user_id"], "user_id IS NOT NULL"),
    ("users_staff", "users", ["id"], "role <> 'buyer'"),
)
# Each is the beginning of another one, which serves as well.
_SPARE = (("ix_orders_event_id", "orders"), ("ix_tickets_event_id", "tickets"))


def upgrade():
    for name, table, columns, rows in _INDEXES:
        big_tables.create_index(name, table, columns, where=rows)
    for name, _ in _SPARE:
        big_tables.drop_index(name)


def downgrade():
    for name, table in _SPARE:
        big_tables.create_index(name, table, ["event_id"])
    for name, _, _, _ in reversed(_INDEXES):
        big_tables.drop_index(name)
