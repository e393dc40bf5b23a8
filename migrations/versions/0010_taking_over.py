"""Taking over

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-29 14:58:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("payments", sa.Column("replacing_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "payments_replacing",
        "payments",
        ["replacing_since"],
        postgresql_where=sa.text("replacing_since IS NOT NULL"),
    )


def downgrade():
    op.drop_index("payments_replacing", table_name="payments")
    op.drop_column("payments", "replacing_since")
