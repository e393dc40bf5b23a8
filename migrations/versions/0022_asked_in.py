"""Mailed codes: where they were asked for

Revision ID: 0022
Revises: 0021
Create Date: 2026-11-30 04:40:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column(
        "login_codes", sa.Column("asked_in", sa.String(length=64), server_default="", nullable=False)
    )


def downgrade():
    op.drop_column("login_codes", "asked_in")
