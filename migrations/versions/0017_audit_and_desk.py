"""The audit log, and who answers the telephone

Revision ID: 0017
Revises: 0016
Create Date: 2026-11-30 01:20:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_BY = ("member", "key", "visitor", "command", "job")
_AREAS = ("role", "price", "text", "setting", "event", "connection", "key", "person")
_DEEDS = ("made", "changed", "removed")
_ROLES = ("buyer", "organiser", "door", "admin")


def _one_of(*values, name):
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _time(name, nullable=True):
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def upgrade():
    if big_tables.is_new("refunds", "at_desk"):
        _audit_log()
        _desk()
        _privacy()
    big_tables.create_index("refunds_at_desk", "refunds", ["actor_id", "created_at"], where="at_desk")


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
    op.create_table(
        "settings_seen",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        _time("seen_at", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_settings_seen")),
    )
    op.create_index(op.f("ix_audit_log_actor_id"), "audit_log", ["actor_id"])
    op.create_index(op.f("ix_audit_log_about_id"), "audit_log", ["about_id"])
    op.create_index("audit_log_area", "audit_log", ["area", "id"])
    op.create_index("audit_log_words", "audit_log", ["words"], postgresql_using="gin")


def _desk():
    _roles(*_ROLES[:3], "desk", "admin")
    op.create_table(
        "desk_grants",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organiser_id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        _time("created_at", nullable=False),
        _time("revoked_at"),
        sa.ForeignKeyConstraint(["organiser_id"], ["users.id"], name=op.f("fk_desk_grants_organiser_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_desk_grants")),
    )
    op.create_index(
        "desk_grants_one",
        "desk_grants",
        ["organiser_id", sa.text("lower(email)")],
        unique=True,
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_index("desk_grants_email", "desk_grants", [sa.text("lower(email)")])
    op.add_column(
        "refunds", sa.Column("at_desk", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )


def _privacy():
    op.create_table(
        "erasures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("state", _one_of("asked", "taken_back", "done", name="erasurestate"), nullable=False),
        sa.Column("address", sa.String(length=254), nullable=False),
        sa.Column("line", sa.String(length=200), server_default="", nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("by_id", sa.Integer(), nullable=True),
        _time("asked_at", nullable=False),
        _time("due_at", nullable=False),
        _time("ended_at"),
        sa.Column("waits_for", sa.String(length=500), server_default="", nullable=False),
        _time("kept_until"),
        _time("finished_at"),
        sa.CheckConstraint("state = 'asked' OR address = ''", name=op.f("ck_erasures_erasures_forgotten")),
        sa.CheckConstraint("(state = 'done') = (line <> '')", name=op.f("ck_erasures_erasures_line")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_erasures_user_id")),
        sa.ForeignKeyConstraint(["by_id"], ["users.id"], name=op.f("fk_erasures_by_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_user_id"), "erasures", ["user_id"])
    op.create_index("erasures_due", "erasures", ["due_at"], postgresql_where=sa.text("state = 'asked'"))
    op.create_index(
        "erasures_one",
        "erasures",
        [sa.text("lower(address)")],
        unique=True,
        postgresql_where=sa.text("state = 'asked'"),
    )
    op.add_column(
        "events", sa.Column("thinned", sa.SmallInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("events", _time("thin_again_at"))
    op.create_index("events_unthinned", "events", ["ends_at"], postgresql_where=sa.text("thinned < 2"))


def _roles(*names):
    """Hold the column to these."""
    told = ", ".join(f"'{name}'" for name in names)
    op.drop_constraint(op.f("ck_users_role"), "users", type_="check")
    op.create_check_constraint(op.f("ck_users_role"), "users", f"role IN ({told})")


def downgrade():
    op.drop_index("events_unthinned", table_name="events")
    for name in ("thin_again_at", "thinned"):
        op.drop_column("events", name)
    op.drop_table("erasures")
    op.drop_index("refunds_at_desk", table_name="refunds")
    op.drop_column("refunds", "at_desk")
    op.drop_table("desk_grants")
    op.execute("UPDATE users SET role = 'buyer' WHERE role = 'desk'")
    _roles(*_ROLES)
    op.drop_table("settings_seen")
    op.drop_table("audit_log")
