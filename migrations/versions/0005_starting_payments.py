"""Starting payments: why one ended, by a code of ours; who came back from paying; what is being cancelled

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-29 12:45:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TEXTS = (("reason_code", 40), ("last_decline", 255))
_TIMES = ("returned_at", "cancel_asked_at")


def upgrade():
    op.add_column("orders", sa.Column("failure_code", sa.String(40), nullable=False, server_default=""))
    for name, length in _TEXTS:
        op.add_column("payments", sa.Column(name, sa.String(length), nullable=False, server_default=""))
    for name in _TIMES:
        op.add_column("payments", sa.Column(name, postgresql.TIMESTAMP(timezone=True), nullable=True))


def downgrade():
    for name in (*_TIMES, *(name for name, _ in _TEXTS)):
        op.drop_column("payments", name)
    op.drop_column("orders", "failure_code")
