"""Organisers and SumUp

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-21 13:24:39.660420

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import big_tables

# revision identifiers, used by Alembic.
revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade():
    if big_tables.is_new("payments", "poll_count"):
        _change_tables()
    # What was opened before has been polled since then; the application gives every later value itself.
    opened = "provider_id IS NOT NULL AND polling_started_at IS NULL"
    big_tables.update("payments", "polling_started_at = created_at", opened)
    big_tables.validate("fk_orders_guest_of_id", "orders")


def _change_tables():
    op.create_table(
        "connections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("account", sa.String(length=100), nullable=False),
        sa.Column("account_name", sa.String(length=200), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "connected",
                "broken",
                "disconnected",
                name="connectionstate",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("access_token", sa.Text(), nullable=False),
        sa.Column("refresh_token", sa.Text(), nullable=False),
        sa.Column("access_expires_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("scope", sa.String(length=300), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("leased_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(length=300), nullable=False),
        sa.Column("connected_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("refreshed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_connections_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
        sa.UniqueConstraint("provider", "account", name="connections_account_key"),
    )
    with op.batch_alter_table("connections", schema=None) as batch_op:
        batch_op.create_index(
            "connections_one_in_use",
            ["user_id", "provider"],
            unique=True,
            postgresql_where=sa.text("state <> 'disconnected'"),
        )
        batch_op.create_index(batch_op.f("ix_connections_user_id"), ["user_id"], unique=False)

    op.create_table(
        "organisers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("website", sa.String(length=300), nullable=False),
        sa.Column("phone", sa.String(length=40), nullable=False),
        sa.Column("contact_email", sa.String(length=254), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "approved",
                "rejected",
                "suspended",
                name="organiserstate",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("state_reason", sa.String(length=300), nullable=False),
        sa.Column("decided_by_id", sa.Integer(), nullable=True),
        sa.Column("decided_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["decided_by_id"], ["users.id"], name=op.f("fk_organisers_decided_by_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_organisers_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisers")),
        sa.UniqueConstraint("user_id", name=op.f("uq_organisers_user_id")),
    )
    op.add_column("orders", sa.Column("guest_of_id", sa.Integer(), nullable=True))
    big_tables.foreign_key("fk_orders_guest_of_id", "orders", "guest_of_id", "users")

    op.alter_column("payments", "last_checked_at", new_column_name="last_polled_at")
    op.alter_column("payments", "check_count", new_column_name="poll_count")
    op.add_column("payments", sa.Column("polling_started_at", postgresql.TIMESTAMP(timezone=True)))
    op.add_column(
        "payments",
        sa.Column("max_poll_duration_minutes", sa.Integer(), nullable=False, server_default="120"),
    )
    op.add_column(
        "payments", sa.Column("should_poll", sa.Boolean(), nullable=False, server_default=sa.true())
    )
    op.add_column("payments", sa.Column("asked_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("refunds", sa.Column("asked_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.alter_column("payments", "max_poll_duration_minutes", server_default=None)
    op.alter_column("payments", "should_poll", server_default=None)
    _event_states("draft", "published", "cancelled", "review")
    _link_purposes("confirm", "reset", "first_admin", "connect")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.add_column(sa.Column("refunding_since", postgresql.TIMESTAMP(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("refunding_by_id", sa.Integer(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_events_refunding_by_id"), "users", ["refunding_by_id"], ["id"]
        )
        batch_op.create_check_constraint(
            batch_op.f("ck_events_events_refunding"), "refunding_since IS NULL OR state = 'cancelled'"
        )
        batch_op.create_index(
            "events_refunding",
            ["id"],
            unique=False,
            postgresql_where=sa.text("refunding_since IS NOT NULL"),
        )


def _event_states(*states: str) -> None:
    """Hold events.state to these words."""
    op.drop_constraint(op.f("ck_events_eventstate"), "events", type_="check")
    words = ", ".join(f"'{state}'" for state in states)
    op.create_check_constraint(op.f("ck_events_eventstate"), "events", f"state IN ({words})")


def _link_purposes(*purposes: str) -> None:
    """Hold one_time_links.purpose to these words."""
    op.drop_constraint(op.f("ck_one_time_links_linkpurpose"), "one_time_links", type_="check")
    words = ", ".join(f"'{purpose}'" for purpose in purposes)
    op.create_check_constraint(
        op.f("ck_one_time_links_linkpurpose"), "one_time_links", f"purpose IN ({words})"
    )


def downgrade():
    op.execute("DELETE FROM one_time_links WHERE purpose = 'connect'")
    _link_purposes("confirm", "reset", "first_admin")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index("events_refunding", postgresql_where=sa.text("refunding_since IS NOT NULL"))
        batch_op.drop_constraint(batch_op.f("ck_events_events_refunding"), type_="check")
        batch_op.drop_constraint(batch_op.f("fk_events_refunding_by_id"), type_="foreignkey")
        batch_op.drop_column("refunding_by_id")
        batch_op.drop_column("refunding_since")

    # An event in review is off sale; the older application has no such word.
    op.execute("UPDATE events SET state = 'cancelled' WHERE state = 'review'")
    _event_states("draft", "published", "cancelled")
    op.drop_column("refunds", "asked_at")
    for name in ("asked_at", "should_poll", "max_poll_duration_minutes", "polling_started_at"):
        op.drop_column("payments", name)
    op.alter_column("payments", "poll_count", new_column_name="check_count")
    op.alter_column("payments", "last_polled_at", new_column_name="last_checked_at")
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_orders_guest_of_id"), type_="foreignkey")
        batch_op.drop_column("guest_of_id")

    op.drop_table("organisers")
    with op.batch_alter_table("connections", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_connections_user_id"))
        batch_op.drop_index("connections_one_in_use", postgresql_where=sa.text("state <> 'disconnected'"))

    op.drop_table("connections")
