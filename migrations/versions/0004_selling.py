"""Selling

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
