"""Tokens, keys and repeated requests of the API

Revision ID: 0013
Revises: 0012
Create Date: 2026-11-29 22:23:00

"""

# revision identifiers, used by Alembic.
revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade():
    pass


def downgrade():
    pass
