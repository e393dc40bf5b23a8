"""Ways to pay, and the ids that programs use

Revision ID: 0012
Revises: 0011
Create Date: 2026-11-29 22:20:00

"""

import sqlalchemy as sa
from alembic import op

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade():
    if big_tables.is_new("payments", "public_id"):
        _add_columns()
    big_tables.update("payments", f"public_id = {_made('payment')}", "public_id IS NULL")
    big_tables.not_null("payments", "public_id")
    big_tables.unique("uq_payments_public_id", "payments", "public_id")


def _add_columns():
    # A default that is another one for each row would write the whole table anew, and nobody could buy.
    op.add_column("payments", sa.Column("public_id", sa.String(length=40), nullable=True))
    op.alter_column("payments", "public_id", server_default=sa.text(_made("payment")))
    for name in ("method", "used_method"):
        op.add_column("payments", sa.Column(name, sa.String(length=20), server_default="", nullable=False))
    op.add_column("payments", sa.Column("return_url", sa.Text(), server_default="", nullable=False))
    own = sa.Column("public_id", sa.String(41), server_default=sa.text(_made("category")), nullable=False)
    op.add_column("categories", own)
    op.create_unique_constraint(op.f("uq_categories_public_id"), "categories", ["public_id"])


def _made(what):
    return f"'{what}_' || replace(gen_random_uuid()::text, '-', '')"


def downgrade():
    op.drop_constraint(op.f("uq_categories_public_id"), "categories", type_="unique")
    op.drop_column("categories", "public_id")
    for name in ("return_url", "used_method", "method"):
        op.drop_column("payments", name)
    op.drop_constraint(op.f("uq_payments_public_id"), "payments", type_="unique")
    op.drop_column("payments", "public_id")
