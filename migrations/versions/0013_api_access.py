"""Programs that act for members: logins, keys, and requests that are sent more than once

Revision ID: 0013
Revises: 0012
Create Date: 2026-11-29 22:23:00

"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

# revision identifiers, used by Alembic.
revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)


def upgrade():
    op.create_table(
        "api_sessions",
        sa.Column("id", sa.BigInteger(), nullable=False),
        _public_id("session"),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("login_epoch", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_api_sessions_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_sessions")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_sessions_public_id")),
    )
    op.create_index(op.f("ix_api_sessions_user_id"), "api_sessions", ["user_id"])
    op.create_index("api_sessions_over", "api_sessions", ["expires_at"])
    op.create_table(
        "api_refresh_tokens",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["api_sessions.id"],
            name=op.f("fk_api_refresh_tokens_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_refresh_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_refresh_tokens_token_hash")),
    )
    op.create_index(op.f("ix_api_refresh_tokens_session_id"), "api_refresh_tokens", ["session_id"])
    op.create_index(
        "api_refresh_tokens_used",
        "api_refresh_tokens",
        ["used_at"],
        postgresql_where=sa.text("used_at IS NOT NULL"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), nullable=False),
        _public_id("key"),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=20), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME, nullable=True),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_keys_public_id")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index(op.f("ix_api_keys_user_id"), "api_keys", ["user_id"])
    _requests()


def _requests():
    op.create_table(
        "api_requests",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("caller", sa.String(length=40), nullable=False),
        sa.Column("method", sa.String(length=10), nullable=False),
        sa.Column("path", sa.String(length=300), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.String(length=32), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (status IS NULL) AND (status IS NULL) = (answer IS NULL)",
            name=op.f("ck_api_requests_api_requests_finished"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_requests")),
        sa.UniqueConstraint("caller", "method", "path", "key", name="api_requests_key"),
    )
    op.create_index("api_requests_started", "api_requests", ["started_at"])


def _public_id(what):
    made = sa.text(f"'{what}_' || replace(gen_random_uuid()::text, '-', '')")
    return sa.Column("public_id", sa.String(length=40), server_default=made, nullable=False)


def downgrade():
    for name in ("api_requests", "api_keys", "api_refresh_tokens", "api_sessions"):
        op.drop_table(name)
