"""Starting payments

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
