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
    with op.get_context().autocommit_block():
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
    op.execute(
        """
        UPDATE payments p SET asked_back_minor = least(r.asked, coalesce(p.received_minor, 0))
        FROM (SELECT payment_id, sum(amount_minor) AS asked FROM refunds
              WHERE NOT made_at_provider AND state NOT IN ('failed', 'cancelled') GROUP BY payment_id) r
        WHERE r.payment_id = p.id
        """
    )
    op.execute(
        """
        UPDATE payments p SET reversed_at = r.at
        FROM (SELECT payment_id, max(created_at) AS at
              FROM (SELECT payment_id, created_at FROM refunds
                    UNION ALL SELECT payment_id, created_at FROM disputes) both_ways
              GROUP BY payment_id) r
        WHERE r.payment_id = p.id
        """
    )
    op.execute("UPDATE refunds SET accepted_at = created_at WHERE state IN ('pending', 'succeeded')")


def downgrade():
    op.drop_constraint("payments_never_asked_back_more", "payments", type_="check")
    op.drop_column("check_runs", "unchecked")
    op.drop_column("disputes", "took_money")
    op.drop_column("refunds", "accepted_at")
    op.drop_column("payments", "reversed_at")
    op.drop_column("payments", "asked_back_minor")
