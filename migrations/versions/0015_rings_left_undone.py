"""Rings that were left undone, and by which names they are looked at again; what was paid, by its day

Revision ID: 0015
Revises: 0014
Create Date: 2026-11-29 22:26:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade():
    if big_tables.is_new("webhook_events", "names"):
        _add_columns()
    big_tables.create_index(
        "webhook_events_undone", "webhook_events", ["received_at"], where="done_at IS NULL"
    )
    big_tables.create_index("payments_bought", "payments", ["paid_at"], where="fulfilled")


def _add_columns():
    op.add_column("webhook_events", sa.Column("tries", sa.Integer(), server_default="0", nullable=False))
    for name in ("tried_at", "alerted_at"):
        op.add_column("webhook_events", sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("webhook_events", sa.Column("names", postgresql.JSONB(), nullable=True))


def downgrade():
    op.drop_index("payments_bought", table_name="payments")
    op.drop_index("webhook_events_undone", table_name="webhook_events")
    for name in ("names", "alerted_at", "tried_at", "tries"):
        op.drop_column("webhook_events", name)
