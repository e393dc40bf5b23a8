"""Accounts: devices, mailed codes, second factors

Revision ID: 0016
Revises: 0015
Create Date: 2026-11-30 01:20:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TIME = sa.TIMESTAMP(timezone=True)


def _id():
    return sa.Column("id", sa.Integer(), nullable=False)


def _user(table):
    return (
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f(f"fk_{table}_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )


def upgrade():
    for name in ("second_factor_at", "second_factor_due"):
        op.add_column("users", sa.Column(name, _TIME, nullable=True))
    op.add_column("api_sessions", sa.Column("proved_at", _TIME, nullable=True))
    op.create_table(
        "devices",
        _id(),
        *_user("devices"),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME, nullable=False),
        sa.UniqueConstraint("user_id", "key_hash", name="devices_key"),
    )
    op.add_column("logins", sa.Column("label", sa.String(100), server_default="", nullable=False))
    op.add_column("logins", sa.Column("network", sa.String(64), server_default="", nullable=False))
    for name in ("last_seen_at", "proved_at"):
        op.add_column("logins", sa.Column(name, _TIME, nullable=True))
    op.add_column("logins", sa.Column("device_id", sa.Integer(), nullable=True))
    op.create_foreign_key(
        op.f("fk_logins_device_id"), "logins", "devices", ["device_id"], ["id"], ondelete="SET NULL"
    )
    op.create_index(op.f("ix_logins_device_id"), "logins", ["device_id"])
    op.create_table(
        "login_codes",
        _id(),
        *_user("login_codes"),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=True),
    )
    op.create_index(op.f("ix_login_codes_user_id"), "login_codes", ["user_id"])
    _second_factors()


def _second_factors():
    op.create_table(
        "second_factors",
        _id(),
        *_user("second_factors"),
        sa.Column(
            "kind",
            sa.Enum(
                "totp", "passkey", name="factorkind", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("credential_id", sa.Text(), nullable=True),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        *(sa.Column(name, _TIME, nullable=name != "created_at") for name in _TIMES),
        sa.UniqueConstraint("credential_id", name=op.f("uq_second_factors_credential_id")),
    )
    op.create_index(op.f("ix_second_factors_user_id"), "second_factors", ["user_id"])
    for name, counts in (("second_factors_one_app", "NOT NULL"), ("second_factors_one_new_app", "NULL")):
        which = sa.text(f"kind = 'totp' AND confirmed_at IS {counts}")
        op.create_index(name, "second_factors", ["user_id"], unique=True, postgresql_where=which)
    op.create_table(
        "recovery_codes",
        _id(),
        *_user("recovery_codes"),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("confirmed_at", _TIME, nullable=True),
        sa.Column("used_at", _TIME, nullable=True),
        sa.UniqueConstraint("code_hash", name=op.f("uq_recovery_codes_code_hash")),
    )
    op.create_index(op.f("ix_recovery_codes_user_id"), "recovery_codes", ["user_id"])


_TIMES = ("created_at", "confirmed_at", "last_used_at")


def downgrade():
    for table in ("recovery_codes", "second_factors", "login_codes"):
        op.drop_table(table)
    for name in ("device_id", "proved_at", "last_seen_at", "network", "label"):
        op.drop_column("logins", name)
    op.drop_table("devices")
    op.drop_column("api_sessions", "proved_at")
    for name in ("second_factor_due", "second_factor_at"):
        op.drop_column("users", name)
