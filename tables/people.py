"""Members, their logins and one-time links, and organisers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from flask_login import UserMixin
from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of


class Role(StrEnum):
    BUYER = "buyer"
    ORGANISER = "organiser"
    DOOR = "door"
    # Answers the telephone: searches, reads, notes and resends; see domain/people/desks.py.
    DESK = "desk"
    ADMIN = "admin"


class User(UserMixin, Base):
    """A person with an account. Guests who buy tickets have none."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254))
    name: Mapped[str] = mapped_column(String(200), default="")
    password_hash: Mapped[str] = mapped_column(String(255), default="")
    role: Mapped[Role] = mapped_column(one_of(Role), default=Role.BUYER)
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    disabled_at: Mapped[datetime | None] = mapped_column(Time)
    # Rises with every change of password, so that older logins stop being valid.
    login_epoch: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Time)
    # What searches look through: see domain/folding.py. NULL in rows of earlier versions.
    folded: Mapped[str | None] = mapped_column(Text)
    # Since when a second factor is asked for at each login, and by when there should be one.
    second_factor_at: Mapped[datetime | None] = mapped_column(Time)
    second_factor_due: Mapped[datetime | None] = mapped_column(Time)
    # Of whoever was forgotten and had done something for others here: the address, for the audit log alone.
    worked_as: Mapped[str] = mapped_column(String(254), default="", server_default="")

    __table_args__ = (
        Index("users_email_key", func.lower(email), unique=True),
        Index("users_unfolded", "id", postgresql_where=text("folded IS NULL")),
        # Staff are few, and looked for by name in the audit log.
        Index("users_staff", "id", postgresql_where=text("role <> 'buyer'")),
        # So are those who were forgotten and are named there.
        Index("users_worked", "id", postgresql_where=text("worked_as <> ''")),
    )

    @property
    def known_as(self) -> str:
        """The address by which whoever did something here is known to admins, also once it was forgotten."""
        return self.worked_as or self.email

    @property
    def is_active(self) -> bool:
        return self.disabled_at is None

    def get_id(self) -> str:
        return f"{self.id}:{self.login_epoch}"

    def __str__(self) -> str:
        return self.email


class LinkPurpose(StrEnum):
    CONFIRM = "confirm"
    RESET = "reset"
    FIRST_ADMIN = "first_admin"
    CONNECT = "connect"


class OneTimeLink(Base):
    """A link that was mailed or logged, works once, and expires. Only its hash is kept."""

    __tablename__ = "one_time_links"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[LinkPurpose] = mapped_column(one_of(LinkPurpose))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    used_at: Mapped[datetime | None] = mapped_column(Time)

    user: Mapped[User] = relationship()


class Login(Base):
    """A browser that somebody is logged in with. Only a hash of what its cookies say is kept."""

    __tablename__ = "logins"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    # What its owner knows it by: the browser, where it was, and when it was last here, to the hour.
    label: Mapped[str] = mapped_column(String(100), default="", server_default="")
    network: Mapped[str] = mapped_column(String(64), default="", server_default="")
    last_seen_at: Mapped[datetime | None] = mapped_column(Time)
    # When the second factor was last shown in it.
    proved_at: Mapped[datetime | None] = mapped_column(Time)
    device_id: Mapped[int | None] = mapped_column(ForeignKey("devices.id", ondelete="SET NULL"), index=True)


class Device(Base):
    """A browser that an account has logged in by before, whether or not it is logged in now."""

    __tablename__ = "devices"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    # Of what the browser's cookie says, which is one for all who use the browser.
    key_hash: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[datetime] = mapped_column(Time)
    last_used_at: Mapped[datetime] = mapped_column(Time)

    __table_args__ = (UniqueConstraint("user_id", "key_hash", name="devices_key"),)


class LoginCode(Base):
    """A code that was mailed, for a login that a password alone does not open. Only its hash is kept."""

    __tablename__ = "login_codes"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    code_hash: Mapped[str] = mapped_column(String(64))
    # A hash of what only the browser has that it was asked in; "" of codes of the version before.
    asked_in: Mapped[str] = mapped_column(String(64), default="", server_default="")
    tries: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    used_at: Mapped[datetime | None] = mapped_column(Time)


class FactorKind(StrEnum):
    TOTP = "totp"
    PASSKEY = "passkey"


class SecondFactor(Base):
    """What a member shows beside the password: an app that counts codes, or a passkey."""

    __tablename__ = "second_factors"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    kind: Mapped[FactorKind] = mapped_column(one_of(FactorKind))
    name: Mapped[str] = mapped_column(String(100), default="")
    # Of an app: its secret, sealed (domain/security/keyring.py), and the last 30 seconds that were used up.
    sealed: Mapped[str] = mapped_column(Text, default="")
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    # Of a passkey: what it is known by, at which host, and how often it says that it was used.
    credential_id: Mapped[str | None] = mapped_column(Text, unique=True)
    public_key: Mapped[str] = mapped_column(Text, default="")
    sign_count: Mapped[int] = mapped_column(BigInteger, default=0)
    host: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[datetime] = mapped_column(Time)
    # Since when it counts; before that it is being set up.
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    last_used_at: Mapped[datetime | None] = mapped_column(Time)

    user: Mapped[User] = relationship()

    __table_args__ = (
        Index(
            "second_factors_one_app",
            "user_id",
            unique=True,
            postgresql_where=text("kind = 'totp' AND confirmed_at IS NOT NULL"),
        ),
        Index(
            "second_factors_one_new_app",
            "user_id",
            unique=True,
            postgresql_where=text("kind = 'totp' AND confirmed_at IS NULL"),
        ),
    )


class RecoveryCode(Base):
    """A code on a member's printed sheet, which stands in for the second factor once. Its hash is kept."""

    __tablename__ = "recovery_codes"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    code_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Time)
    # Since when it counts: its owner has shown that the sheet is at hand.
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    used_at: Mapped[datetime | None] = mapped_column(Time)


class OrganiserState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    SUSPENDED = "suspended"


class Organiser(Base):
    """Who sells events of their own: a member's application, and the profile that buyers see."""

    __tablename__ = "organisers"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")
    website: Mapped[str] = mapped_column(String(300), default="")
    phone: Mapped[str] = mapped_column(String(40), default="")
    # Where buyers of this organiser's tickets write to.
    contact_email: Mapped[str] = mapped_column(String(254), default="")
    state: Mapped[OrganiserState] = mapped_column(one_of(OrganiserState), default=OrganiserState.PENDING)
    state_reason: Mapped[str] = mapped_column(String(300), default="")
    # Whether their sales may be paid into the house's account: the operator's choice.
    house_account: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    decided_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    decided_at: Mapped[datetime | None] = mapped_column(Time)
    created_at: Mapped[datetime] = mapped_column(Time)
    updated_at: Mapped[datetime] = mapped_column(Time)

    user: Mapped[User] = relationship(foreign_keys=[user_id])
    decided_by: Mapped[User | None] = relationship(foreign_keys=[decided_by_id])

    def __str__(self) -> str:
        return self.name


class DeskGrant(Base):
    """That who reads an address answers the telephone for an organiser: their orders, and nobody else's."""

    __tablename__ = "desk_grants"

    id: Mapped[int] = mapped_column(primary_key=True)
    organiser_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    # In its normal form. Whoever has confirmed it may, with an account that may be made later.
    email: Mapped[str] = mapped_column(String(254))
    created_at: Mapped[datetime] = mapped_column(Time)
    revoked_at: Mapped[datetime | None] = mapped_column(Time)

    organiser: Mapped[User] = relationship()

    __table_args__ = (
        Index(
            "desk_grants_one",
            "organiser_id",
            func.lower(email),
            unique=True,
            postgresql_where=text("revoked_at IS NULL"),
        ),
        Index("desk_grants_email", func.lower(email)),
    )

    def __str__(self) -> str:
        return self.email
