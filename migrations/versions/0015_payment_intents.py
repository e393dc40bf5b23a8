"""Payments without a page of the provider

Revision ID: 0015
Revises: 0014
Create Date: 2026-11-29 22:25:00

"""

# revision identifiers, used by Alembic.
revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade():
    pass


def downgrade():
    pass
