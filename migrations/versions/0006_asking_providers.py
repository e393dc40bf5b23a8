"""Asking providers

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
