"""When everybody was told of a large event's news

Revision ID: 0024
Revises: 0023
Create Date: 2026-11-30 05:15:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("events", sa.Column("news_told_at", postgresql.TIMESTAMP(timezone=True), nullable=True))


def downgrade():
    op.drop_column("events", "news_told_at")
