"""Tournaments

Revision ID: 0011
Revises: 0010
Create Date: 2026-11-29 19:40:00

"""

import sqlalchemy as sa
from alembic import op

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TICKETS = "(kind = 'ticket') = (ticket_type_id IS NOT NULL)"
_OF_LINES = "ck_order_lines_order_lines_ticket_type"
_ADMISSIONS = "(kind IN ('ticket', 'tournament_entry')) = (ticket_type_id IS NOT NULL)"


def _one_of(*values, name):
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def upgrade():
    if big_tables.is_new("ticket_types", "currency"):
        _change_tables()
    big_tables.validate(_OF_LINES, "order_lines")


def _change_tables():
    op.add_column(
        "events",
        sa.Column(
            "kind", _one_of("event", "tournament", name="eventkind"), server_default="event", nullable=False
        ),
    )
    op.add_column("ticket_types", sa.Column("currency", sa.String(length=3), nullable=True))
    op.create_check_constraint(
        op.f("ck_ticket_types_ticket_types_currency"), "ticket_types", "currency ~ '^[A-Z]{3}$'"
    )
    op.add_column(
        "order_lines", sa.Column("holder", sa.String(length=200), server_default="", nullable=False)
    )
    op.drop_constraint(op.f(_OF_LINES), "order_lines", type_="check")
    big_tables.check(_OF_LINES, "order_lines", _ADMISSIONS)
    op.create_table(
        "tournaments",
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("withdraw_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawal", _one_of("all", "nothing", name="withdrawal"), nullable=False),
        sa.Column("public_list", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name=op.f("fk_tournaments_event_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_tournaments")),
    )
    op.create_table(
        "categories",
        sa.Column("ticket_type_id", sa.Integer(), nullable=False),
        sa.Column("min_age", sa.SmallInteger(), nullable=True),
        sa.Column("max_age", sa.SmallInteger(), nullable=True),
        sa.Column("min_weight_g", sa.Integer(), nullable=True),
        sa.Column("max_weight_g", sa.Integer(), nullable=True),
        sa.Column("sex", _one_of("female", "male", name="sex"), nullable=True),
        sa.Column("min_grade", sa.SmallInteger(), nullable=True),
        sa.Column("max_grade", sa.SmallInteger(), nullable=True),
        sa.CheckConstraint("min_age <= max_age", name=op.f("ck_categories_categories_ages")),
        sa.CheckConstraint("min_weight_g <= max_weight_g", name=op.f("ck_categories_categories_weights")),
        sa.CheckConstraint("min_grade <= max_grade", name=op.f("ck_categories_categories_grades")),
        sa.ForeignKeyConstraint(
            ["ticket_type_id"],
            ["ticket_types.id"],
            name=op.f("fk_categories_ticket_type_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("ticket_type_id", name=op.f("pk_categories")),
    )
    op.create_table(
        "athletes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("birth_date", sa.Date(), nullable=False),
        sa.Column("sex", _one_of("female", "male", name="sex"), nullable=True),
        sa.Column("club", sa.String(length=200), nullable=False),
        sa.Column("weight_g", sa.Integer(), nullable=True),
        sa.Column("weight_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("grade", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("folded", sa.Text(), nullable=True),
        sa.CheckConstraint("weight_g BETWEEN 1 AND 500000", name=op.f("ck_athletes_athletes_weight")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_athletes_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_athletes")),
        sa.UniqueConstraint("public_id", name=op.f("uq_athletes_public_id")),
    )
    op.create_index(op.f("ix_athletes_user_id"), "athletes", ["user_id"])
    op.create_index(
        "athletes_weighed", "athletes", ["weight_at"], postgresql_where=sa.text("weight_g IS NOT NULL")
    )
    op.create_table(
        "consents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("athlete_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_hash", sa.String(length=64), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["athlete_id"], ["athletes.id"], name=op.f("fk_consents_athlete_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_consents_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consents")),
    )
    op.create_index(op.f("ix_consents_athlete_id"), "consents", ["athlete_id"])
    op.create_table(
        "participants",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("athlete_id", sa.Integer(), nullable=False),
        sa.Column("ticket_type_id", sa.Integer(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("club", sa.String(length=200), nullable=False),
        sa.Column("weight_g", sa.Integer(), nullable=True),
        sa.Column("grade", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["athlete_id"], ["athletes.id"], name=op.f("fk_participants_athlete_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_participants_order_id")),
        sa.ForeignKeyConstraint(
            ["ticket_type_id"], ["ticket_types.id"], name=op.f("fk_participants_ticket_type_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_participants")),
        sa.UniqueConstraint("order_id", name=op.f("uq_participants_order_id")),
        sa.UniqueConstraint("public_id", name=op.f("uq_participants_public_id")),
    )
    op.create_index(op.f("ix_participants_athlete_id"), "participants", ["athlete_id"])
    op.create_index(op.f("ix_participants_ticket_type_id"), "participants", ["ticket_type_id"])
    op.create_index(
        "participants_weighed", "participants", ["id"], postgresql_where=sa.text("weight_g IS NOT NULL")
    )


def downgrade():
    for table in ("participants", "consents", "athletes", "categories", "tournaments"):
        op.drop_table(table)
    op.drop_constraint(op.f("ck_order_lines_order_lines_ticket_type"), "order_lines", type_="check")
    op.create_check_constraint(op.f("ck_order_lines_order_lines_ticket_type"), "order_lines", _TICKETS)
    op.drop_column("order_lines", "holder")
    op.drop_constraint(op.f("ck_ticket_types_ticket_types_currency"), "ticket_types", type_="check")
    op.drop_column("ticket_types", "currency")
    op.drop_column("events", "kind")
