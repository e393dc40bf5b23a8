"""What people type

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-29 12:45:00

"""

import sqlalchemy as sa
from alembic import op

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SEARCHED = ("users", "events", "ticket_types", "orders", "agents", "door_passes")


def upgrade():
    if big_tables.is_new("users", "folded"):
        for table in _SEARCHED:
            op.add_column(table, sa.Column("folded", sa.Text(), nullable=True))
    for table in ("users", "orders"):
        big_tables.create_index(f"{table}_unfolded", table, ["id"], where="folded IS NULL")


def downgrade():
    for table in ("orders", "users"):
        op.drop_index(f"{table}_unfolded", table_name=table)
    for table in reversed(_SEARCHED):
        op.drop_column(table, "folded")
