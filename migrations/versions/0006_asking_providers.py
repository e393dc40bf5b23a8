"""Asking providers

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-29 12:45:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade():
    """How far each account was asked what happened there."""
    time = sa.TIMESTAMP(timezone=True)
    op.create_table(
        "account_cursors",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("account", sa.String(length=100), nullable=False),
        sa.Column("since", time, nullable=False),
        sa.Column("moved_at", time, nullable=False),
        sa.Column("asked_at", time, nullable=True),
        sa.Column("leased_until", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_cursors")),
        sa.UniqueConstraint("provider", "account", name="account_cursors_key"),
    )


def downgrade():
    """Nobody remembers how far."""
    op.drop_table("account_cursors")
