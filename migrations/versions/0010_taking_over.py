"""Taking over

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-29 14:58:00

"""

import sqlalchemy as sa
from alembic import op

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade():
    if big_tables.is_new("payments", "replacing_since"):
        op.add_column("payments", sa.Column("replacing_since", sa.DateTime(timezone=True), nullable=True))
    big_tables.create_index(
        "payments_replacing", "payments", ["replacing_since"], where="replacing_since IS NOT NULL"
    )


def downgrade():
    op.drop_index("payments_replacing", table_name="payments")
    op.drop_column("payments", "replacing_since")
