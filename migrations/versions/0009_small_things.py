"""Small things

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-29 12:45:00

"""

import sqlalchemy as sa
from alembic import op

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade():
    if big_tables.is_new("payments", "provider_paid_at"):
        _change_tables()
    big_tables.validate("fk_transfers_actor_id", "transfers")


def _change_tables():
    op.add_column("events", sa.Column("poll_minutes", sa.Integer(), nullable=True))
    op.create_check_constraint("events_poll_minutes", "events", "poll_minutes BETWEEN 31 AND 1370")
    op.add_column("transfers", sa.Column("actor_id", sa.Integer(), nullable=True))
    big_tables.foreign_key("fk_transfers_actor_id", "transfers", "actor_id", "users")
    op.add_column("payments", sa.Column("provider_paid_at", sa.DateTime(timezone=True), nullable=True))


def downgrade():
    op.drop_column("payments", "provider_paid_at")
    op.drop_constraint(op.f("fk_transfers_actor_id"), "transfers", type_="foreignkey")
    op.drop_column("transfers", "actor_id")
    op.drop_constraint(op.f("ck_events_events_poll_minutes"), "events", type_="check")
    op.drop_column("events", "poll_minutes")
