"""The audit log, and who answers the telephone

Revision ID: 0017
Revises: 0016
Create Date: 2026-11-30 01:20:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_BY = ("member", "key", "visitor", "command", "job")
_AREAS = ("role", "price", "text", "setting", "event", "connection", "key", "person")
_DEEDS = ("made", "changed", "removed")


def _one_of(*values, name):
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _time(name, nullable=True):
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def upgrade():
    _audit_log()


def _audit_log():
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), nullable=False),
        _time("at", nullable=False),
        sa.Column("by", _one_of(*_BY, name="actorkind"), nullable=False),
        sa.Column("door", sa.String(length=30), nullable=False),
        sa.Column("actor_id", sa.Integer(), nullable=True),
        sa.Column("actor_name", sa.String(length=100), server_default="", nullable=False),
        sa.Column("area", _one_of(*_AREAS, name="auditarea"), nullable=False),
        sa.Column("deed", _one_of(*_DEEDS, name="deed"), nullable=False),
        sa.Column("subject", sa.String(length=30), nullable=False),
        sa.Column("subject_id", sa.String(length=100), nullable=False),
        sa.Column("label", sa.String(length=300), server_default="", nullable=False),
        sa.Column("about_id", sa.Integer(), nullable=True),
        sa.Column("changes", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name=op.f("fk_audit_log_actor_id")),
        sa.ForeignKeyConstraint(["about_id"], ["users.id"], name=op.f("fk_audit_log_about_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_actor_id"), "audit_log", ["actor_id"])
    op.create_index(op.f("ix_audit_log_about_id"), "audit_log", ["about_id"])
    op.create_index("audit_log_area", "audit_log", ["area", "id"])
    op.create_index("audit_log_words", "audit_log", ["words"], postgresql_using="gin")


def downgrade():
    op.drop_table("audit_log")
