"""Refunds and disputes

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
