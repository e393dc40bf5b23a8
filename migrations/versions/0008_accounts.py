"""Accounts

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
