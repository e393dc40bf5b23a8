"""Ways to pay, and the ids that programs use

Revision ID: 0012
Revises: 0011
Create Date: 2026-11-29 22:20:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("payments", _public_id("payment", 40))
    op.create_unique_constraint(op.f("uq_payments_public_id"), "payments", ["public_id"])
    for name in ("method", "used_method"):
        op.add_column("payments", sa.Column(name, sa.String(length=20), server_default="", nullable=False))
    op.add_column("payments", sa.Column("return_url", sa.Text(), server_default="", nullable=False))
    op.add_column("categories", _public_id("category", 41))
    op.create_unique_constraint(op.f("uq_categories_public_id"), "categories", ["public_id"])


def _public_id(what, length):
    made = sa.text(f"'{what}_' || replace(gen_random_uuid()::text, '-', '')")
    return sa.Column("public_id", sa.String(length=length), server_default=made, nullable=False)


def downgrade():
    op.drop_constraint(op.f("uq_categories_public_id"), "categories", type_="unique")
    op.drop_column("categories", "public_id")
    for name in ("return_url", "used_method", "method"):
        op.drop_column("payments", name)
    op.drop_constraint(op.f("uq_payments_public_id"), "payments", type_="unique")
    op.drop_column("payments", "public_id")
