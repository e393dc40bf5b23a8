"""Selling

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-29 12:45:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Who sold through the house's account before this was a choice, or has something on sale that may be: an event
# with a price that does not name SumUp alone, or whose organiser has connected no account there.
_SOLD_THROUGH_THE_HOUSE = """
    SELECT events.organiser_id FROM events
    WHERE events.organiser_id IS NOT NULL AND (
        (events.state = 'published'
            AND EXISTS (SELECT FROM ticket_types
                WHERE ticket_types.event_id = events.id AND ticket_types.price_minor > 0)
            AND (events.providers IS NULL OR events.providers <> '["sumup"]'
                OR NOT EXISTS (SELECT FROM connections
                    WHERE connections.user_id = events.organiser_id AND connections.state <> 'disconnected')))
        OR EXISTS (SELECT FROM orders
            JOIN order_lines ON order_lines.order_id = orders.id AND order_lines.kind = 'ticket'
            JOIN payments ON payments.order_id = orders.id
            WHERE orders.event_id = events.id AND NOT EXISTS (SELECT FROM connections
                WHERE connections.provider = payments.provider AND connections.account = payments.account)))
"""


def upgrade():
    with op.batch_alter_table("organisers", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("house_account", sa.Boolean(), server_default=sa.text("false"), nullable=False)
        )
    with op.batch_alter_table("payments", schema=None) as batch_op:
        batch_op.add_column(sa.Column("owed_to_id", sa.Integer(), nullable=True))
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("calendar_sequence", sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
        batch_op.add_column(sa.Column("moved_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("moved_from", postgresql.JSONB(), nullable=True))
        batch_op.create_index(
            "events_moved", ["id"], postgresql_where=sa.text("moved_at IS NOT NULL"), unique=False
        )
    # An organiser by an admin's own word may have no profile yet: the choice is kept with it.
    op.execute(
        f"""
        INSERT INTO organisers (user_id, name, description, website, phone, contact_email, state, state_reason,
            created_at, updated_at)
        SELECT users.id, left(coalesce(nullif(users.name, ''), users.email), 200), '', '', '', users.email, 'approved', '',
            users.created_at, users.created_at
        FROM users
        WHERE users.id IN ({_SOLD_THROUGH_THE_HOUSE})
        ON CONFLICT (user_id) DO NOTHING
        """
    )
    op.execute(f"UPDATE organisers SET house_account = true WHERE user_id IN ({_SOLD_THROUGH_THE_HOUSE})")


def downgrade():
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index("events_moved", postgresql_where=sa.text("moved_at IS NOT NULL"))
        batch_op.drop_column("moved_from")
        batch_op.drop_column("moved_at")
        batch_op.drop_column("calendar_sequence")
    with op.batch_alter_table("payments", schema=None) as batch_op:
        batch_op.drop_column("owed_to_id")
    with op.batch_alter_table("organisers", schema=None) as batch_op:
        batch_op.drop_column("house_account")
