"""Refunds and disputes

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-29 12:45:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NEVER_MORE = "ck_payments_payments_never_asked_back_more"


def upgrade():
    if big_tables.is_new("payments", "asked_back_minor"):
        _add_columns()
    _fill()
    big_tables.validate(_NEVER_MORE, "payments")


def _add_columns():
    op.add_column(
        "payments",
        sa.Column("asked_back_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("payments", sa.Column("reversed_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("refunds", sa.Column("accepted_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.add_column(
        "disputes", sa.Column("took_money", sa.Boolean(), server_default=sa.text("true"), nullable=False)
    )
    op.add_column(
        "check_runs",
        sa.Column(
            "unchecked",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
    )
    big_tables.check(_NEVER_MORE, "payments", "asked_back_minor BETWEEN 0 AND coalesce(received_minor, 0)")


def _fill():
    # What was asked back so far. Where an older version let through more than was received, the sum is capped,
    # and the check that asks the same of the refunds themselves tells of it.
    ours = "r.payment_id = payments.id AND NOT r.made_at_provider AND r.state NOT IN ('failed', 'cancelled')"
    asked = f"(SELECT sum(r.amount_minor) FROM refunds r WHERE {ours})"
    big_tables.update(
        "payments",
        f"asked_back_minor = least({asked}, coalesce(received_minor, 0))",
        f"EXISTS (SELECT FROM refunds r WHERE {ours})",
    )
    went = (
        "SELECT r.created_at FROM refunds r WHERE r.payment_id = payments.id"
        " UNION ALL SELECT d.created_at FROM disputes d WHERE d.payment_id = payments.id"
    )
    big_tables.update(
        "payments", f"reversed_at = (SELECT max(created_at) FROM ({went}) AS went)", f"EXISTS ({went})"
    )
    refunds = "state IN ('pending', 'succeeded') AND accepted_at IS NULL"
    big_tables.update("refunds", "accepted_at = created_at", refunds)


def downgrade():
    op.drop_constraint("payments_never_asked_back_more", "payments", type_="check")
    op.drop_column("check_runs", "unchecked")
    op.drop_column("disputes", "took_money")
    op.drop_column("refunds", "accepted_at")
    op.drop_column("payments", "reversed_at")
    op.drop_column("payments", "asked_back_minor")
