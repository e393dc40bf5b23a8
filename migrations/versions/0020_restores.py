"""Backups, epochs, and erasures

Revision ID: 0020
Revises: 0019
Create Date: 2026-11-30 01:20:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade():
    time = sa.TIMESTAMP(timezone=True)
    op.create_table(
        "backups",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("began_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.Column("place", sa.String(length=500), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(length=64), server_default="", nullable=False),
        sa.Column("keys", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_index("backups_good", "backups", ["ended_at"], postgresql_where=sa.text("error = ''"))
    op.create_table(
        "epochs",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("backup_at", time, nullable=False),
        sa.Column("began_at", time, nullable=False),
        sa.Column("opened_at", time, nullable=True),
        sa.Column("opened_by_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["opened_by_id"], ["users.id"], name=op.f("fk_epochs_opened_by_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_epochs")),
    )
    op.create_index(op.f("ix_epochs_opened_by_id"), "epochs", ["opened_by_id"])


def downgrade():
    op.drop_table("epochs")
    op.drop_table("backups")
