"""Small things

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
