"""Web

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
