"""What people type

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-29 12:45:00

"""

# revision identifiers, used by Alembic.
revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade():
    """Nothing yet."""


def downgrade():
    """Nothing yet."""
