"""Budgets of mail, and waiting lines

Revision ID: 0018
Revises: 0017
Create Date: 2026-11-30 01:20:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TIME = sa.TIMESTAMP(timezone=True)


def upgrade():
    op.add_column("outbox", sa.Column("unproven", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("outbox", sa.Column("held_with", sa.String(120), nullable=True))
    op.create_index(
        "outbox_held",
        "outbox",
        ["next_attempt_at"],
        postgresql_where=sa.text("held_with IS NOT NULL AND state = 'due'"),
    )
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


def downgrade():
    op.drop_table("mail_requests")
    op.drop_table("mail_budgets")
    op.drop_index("outbox_held", table_name="outbox")
    for name in ("held_with", "unproven"):
        op.drop_column("outbox", name)
