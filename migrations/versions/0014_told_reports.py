"""Reports that are told

Revision ID: 0014
Revises: 0013
Create Date: 2026-11-29 22:24:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def _one_of(*values, name):
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _time(name, nullable=True):
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def upgrade():
    op.add_column(
        "payments",
        sa.Column("awaits_buyer", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_table(
        "told_reports",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("state", _one_of("paid", "unpaid", "extra", name="toldstate"), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("reference", sa.String(length=100), nullable=False),
        _time("paid_at"),
        sa.Column("awaits", _one_of("nothing", "person", "statement", name="awaits"), nullable=False),
        sa.Column("by_id", sa.Integer(), nullable=True),
        sa.Column("note", sa.String(length=300), nullable=False),
        _time("created_at", nullable=False),
        _time("confirmed_at"),
        sa.Column("confirmed_by_id", sa.Integer(), nullable=True),
        _time("withdrawn_at"),
        sa.Column("withdrawn_by_id", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "(state = 'unpaid') = (reference = '') AND (state = 'unpaid') = (amount_minor = 0) "
            "AND amount_minor >= 0",
            name=op.f("ck_told_reports_told_reports_money"),
        ),
        sa.CheckConstraint(
            "awaits <> 'person' OR confirmed_by_id IS NULL OR confirmed_by_id <> by_id",
            name=op.f("ck_told_reports_told_reports_two_people"),
        ),
        sa.CheckConstraint(
            "(confirmed_at IS NULL) = (confirmed_by_id IS NULL) "
            "AND (confirmed_at IS NULL OR awaits <> 'nothing')",
            name=op.f("ck_told_reports_told_reports_confirmed"),
        ),
        sa.CheckConstraint(
            "withdrawn_at IS NULL OR (confirmed_at IS NULL AND awaits <> 'nothing')",
            name=op.f("ck_told_reports_told_reports_withdrawn"),
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_told_reports_payment_id")),
        sa.ForeignKeyConstraint(["by_id"], ["users.id"], name=op.f("fk_told_reports_by_id")),
        sa.ForeignKeyConstraint(
            ["confirmed_by_id"], ["users.id"], name=op.f("fk_told_reports_confirmed_by_id")
        ),
        sa.ForeignKeyConstraint(
            ["withdrawn_by_id"], ["users.id"], name=op.f("fk_told_reports_withdrawn_by_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_told_reports")),
    )
    op.create_index(op.f("ix_told_reports_payment_id"), "told_reports", ["payment_id"])
    op.create_index(
        "told_reports_reference",
        "told_reports",
        ["provider", "reference"],
        unique=True,
        postgresql_where=sa.text("reference <> '' AND withdrawn_at IS NULL"),
    )
    op.create_table(
        "biller_answers",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("txn_id", sa.String(length=100), nullable=False),
        sa.Column("account", sa.String(length=100), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("told_id", sa.BigInteger(), nullable=True),
        _time("answered_at", nullable=False),
        sa.ForeignKeyConstraint(["told_id"], ["told_reports.id"], name=op.f("fk_biller_answers_told_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_biller_answers")),
    )
    op.create_index("biller_answers_txn", "biller_answers", ["provider", "txn_id"], unique=True)


def downgrade():
    op.drop_table("biller_answers")
    op.drop_table("told_reports")
    op.drop_column("payments", "awaits_buyer")
