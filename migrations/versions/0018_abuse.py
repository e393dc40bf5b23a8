"""Budgets of mail, and waiting lines

Revision ID: 0018
Revises: 0017
Create Date: 2026-11-30 01:20:00

"""

import sqlalchemy as sa
from alembic import op

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TIME = sa.TIMESTAMP(timezone=True)


def upgrade():
    if big_tables.is_new("outbox", "held_with"):
        _change_tables()
    held = "held_with IS NOT NULL AND state = 'due'"
    big_tables.create_index("outbox_held", "outbox", ["next_attempt_at"], where=held)
    big_tables.create_index("orders_held_of_event", "orders", ["event_id"], where="stock_state = 'held'")


def _change_tables():
    op.add_column("outbox", sa.Column("unproven", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("outbox", sa.Column("held_with", sa.String(120), nullable=True))
    op.create_table(
        "mail_budgets",
        sa.Column("purpose", sa.String(120), nullable=False),
        sa.Column("who", sa.String(320), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("purpose", "who", name="pk_mail_budgets"),
    )
    op.create_index("ix_mail_budgets_since", "mail_budgets", ["since"])
    op.create_table(
        "mail_requests",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("address", sa.String(254), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mail_requests"),
    )
    op.create_index("ix_mail_requests_due_at", "mail_requests", ["due_at"])
    mode = sa.Enum("off", "auto", "on", name="linemode", native_enum=False, create_constraint=True, length=32)
    op.add_column("events", sa.Column("line", mode, server_default="off", nullable=False))
    for name in ("line_since", "line_moved_at"):
        op.add_column("events", sa.Column(name, _TIME, nullable=True))
    op.add_column("orders", sa.Column("network", sa.String(45), nullable=True))
    op.create_table(
        "line_places",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("network", sa.String(45), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("confirmed_at", _TIME, nullable=True),
        sa.Column("turn_at", _TIME, nullable=True),
        sa.Column("lapses_at", _TIME, nullable=True),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name="fk_line_places_event_id"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_line_places_order_id"),
        sa.PrimaryKeyConstraint("id", name="pk_line_places"),
        sa.UniqueConstraint("secret", name="uq_line_places_secret"),
    )
    open_place = sa.text("ended_at IS NULL")
    op.create_index(
        "line_places_one_each", "line_places", ["event_id", "email"], unique=True, postgresql_where=open_place
    )
    op.create_index(
        "line_places_waiting", "line_places", ["event_id", "confirmed_at"], postgresql_where=open_place
    )
    op.create_index("line_places_ended", "line_places", ["ended_at"])
    op.create_index("ix_line_places_order_id", "line_places", ["order_id"])


def downgrade():
    op.drop_table("line_places")
    op.drop_index("orders_held_of_event", table_name="orders")
    op.drop_column("orders", "network")
    for name in ("line_moved_at", "line_since", "line"):
        op.drop_column("events", name)
    op.drop_table("mail_requests")
    op.drop_table("mail_budgets")
    op.drop_index("outbox_held", table_name="outbox")
    for name in ("held_with", "unproven"):
        op.drop_column("outbox", name)
