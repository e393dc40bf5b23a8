"""The data dictionary: every table, its constraints, and the tables of states.

Nothing here queries in order to decide, commits, speaks HTTP or sends mail. Amounts are integers in the
currency's minor unit beside an ISO 4217 code; times are timezone-aware UTC and are always given by the
caller from `domain.clock.now()`, so no column has a default that asks the wall clock or the database.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from flask_login import UserMixin
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column, relationship

from extensions import Base

Time = TIMESTAMP(timezone=True)
Json = dict[str, Any]


def _enum(kind: type[StrEnum]) -> Enum:
    """A text column that the database holds to the members of `kind` by a CHECK."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=32,
        name=kind.__name__.lower(),
        values_callable=lambda members: [m.value for m in members],
    )


# --- People ---------------------------------------------------------------------------------------------


class Role(StrEnum):
    BUYER = "buyer"
    ORGANISER = "organiser"
    DOOR = "door"
    ADMIN = "admin"


class User(UserMixin, Base):
    """A person with an account. Guests who buy tickets have none."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254))
    name: Mapped[str] = mapped_column(String(200), default="")
    password_hash: Mapped[str] = mapped_column(String(255), default="")
    role: Mapped[Role] = mapped_column(_enum(Role), default=Role.BUYER)
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    disabled_at: Mapped[datetime | None] = mapped_column(Time)
    # Rises with every change of password, so that older logins stop being valid.
    login_epoch: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Time)
    # What searches look through: see domain/folding.py. NULL in rows of earlier versions.
    folded: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("users_email_key", func.lower(email), unique=True),
        Index("users_unfolded", "id", postgresql_where=text("folded IS NULL")),
    )

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
    purpose: Mapped[LinkPurpose] = mapped_column(_enum(LinkPurpose))
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
    state: Mapped[OrganiserState] = mapped_column(_enum(OrganiserState), default=OrganiserState.PENDING)
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


class ConnectionState(StrEnum):
    CONNECTED = "connected"
    # The provider refuses our tokens: nothing can be asked until the organiser connects again.
    BROKEN = "broken"
    # The organiser has ended it. The tokens stay until the last payment through them is final.
    DISCONNECTED = "disconnected"


class Connection(Base):
    """An organiser's own account at a provider, with the tokens to speak for it, encrypted."""

    __tablename__ = "connections"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    provider: Mapped[str] = mapped_column(String(20))
    # The provider's name of the account (SumUp's merchant code), as payments and the ledger have it.
    account: Mapped[str] = mapped_column(String(100))
    account_name: Mapped[str] = mapped_column(String(200), default="")
    currency: Mapped[str] = mapped_column(String(3), default="")
    state: Mapped[ConnectionState] = mapped_column(_enum(ConnectionState), default=ConnectionState.CONNECTED)
    # Encrypted under a key of the ring that the text itself names; empty once they are forgotten.
    access_token: Mapped[str] = mapped_column(Text, default="")
    refresh_token: Mapped[str] = mapped_column(Text, default="")
    access_expires_at: Mapped[datetime | None] = mapped_column(Time)
    scope: Mapped[str] = mapped_column(String(300), default="")
    # Rises with each refresh; whoever refreshes holds the lease.
    generation: Mapped[int] = mapped_column(Integer, default=0)
    leased_until: Mapped[datetime | None] = mapped_column(Time)
    last_error: Mapped[str] = mapped_column(String(300), default="")
    connected_at: Mapped[datetime] = mapped_column(Time)
    refreshed_at: Mapped[datetime | None] = mapped_column(Time)
    ended_at: Mapped[datetime | None] = mapped_column(Time)

    user: Mapped[User] = relationship()

    __table_args__ = (
        # One row for each account of a provider, and one account in use for each organiser.
        UniqueConstraint("provider", "account", name="connections_account_key"),
        Index(
            "connections_one_in_use",
            "user_id",
            "provider",
            unique=True,
            postgresql_where=text("state <> 'disconnected'"),
        ),
    )


# --- Catalogue ------------------------------------------------------------------------------------------


class EventState(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"
    CANCELLED = "cancelled"
    # Its listing fee was refunded or disputed: off sale until an admin decides.
    REVIEW = "review"


class Picture(Base):
    """An uploaded picture. It lives in the database because a host's disk does not last."""

    __tablename__ = "pictures"

    id: Mapped[int] = mapped_column(primary_key=True)
    content_type: Mapped[str] = mapped_column(String(50))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    data: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    created_at: Mapped[datetime] = mapped_column(Time)


class Event(Base):
    """Something people buy tickets for. `organiser_id` NULL means a house event."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")
    venue: Mapped[str] = mapped_column(String(200), default="")
    address: Mapped[str] = mapped_column(String(300), default="")
    starts_at: Mapped[datetime] = mapped_column(Time)
    ends_at: Mapped[datetime] = mapped_column(Time)
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    currency: Mapped[str] = mapped_column(String(3))
    sales_open_at: Mapped[datetime | None] = mapped_column(Time)
    sales_close_at: Mapped[datetime | None] = mapped_column(Time)
    state: Mapped[EventState] = mapped_column(_enum(EventState), default=EventState.DRAFT)
    # The providers a buyer may choose from, in order. NULL: every one this Kassa is configured for.
    providers: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    picture_id: Mapped[int | None] = mapped_column(ForeignKey("pictures.id"))
    organiser_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    # For how many minutes its payments are kept and polled. NULL: as the provider's setting says.
    poll_minutes: Mapped[int | None] = mapped_column(Integer)
    # Once it is cancelled: since when, and by whose word, all that was paid for it is being sent back.
    refunding_since: Mapped[datetime | None] = mapped_column(Time)
    refunding_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    # Rises each time that who holds a ticket is told of another date or place; calendars know it by that.
    calendar_sequence: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    # When it was moved last, and from where: dates and places as they were told before.
    moved_at: Mapped[datetime | None] = mapped_column(Time)
    moved_from: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(Time)
    updated_at: Mapped[datetime] = mapped_column(Time)
    folded: Mapped[str | None] = mapped_column(Text)

    picture: Mapped[Picture | None] = relationship()
    # The profile of whoever `organiser_id` is; None for a house event.
    organiser: Mapped[Organiser | None] = relationship(
        primaryjoin="foreign(Event.organiser_id) == Organiser.user_id", viewonly=True
    )
    ticket_types: Mapped[list[TicketType]] = relationship(
        back_populates="event", order_by="TicketType.position, TicketType.id"
    )

    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="events_end_after_start"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="events_currency"),
        CheckConstraint("poll_minutes BETWEEN 31 AND 1370", name="events_poll_minutes"),
        CheckConstraint("refunding_since IS NULL OR state = 'cancelled'", name="events_refunding"),
        Index("events_upcoming", "state", "ends_at"),
        Index("events_refunding", "id", postgresql_where=text("refunding_since IS NOT NULL")),
        Index("events_moved", "id", postgresql_where=text("moved_at IS NOT NULL")),
    )

    def __str__(self) -> str:
        return self.title


class TicketType(Base):
    """One kind of ticket of an event, with its stock: `held` for unpaid orders, `sold` to paid ones."""

    __tablename__ = "ticket_types"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(String(300), default="")
    price_minor: Mapped[int] = mapped_column(BigInteger)
    capacity: Mapped[int] = mapped_column(Integer)
    held: Mapped[int] = mapped_column(Integer, default=0)
    sold: Mapped[int] = mapped_column(Integer, default=0)
    per_order_limit: Mapped[int] = mapped_column(Integer, default=10)
    sales_open_at: Mapped[datetime | None] = mapped_column(Time)
    sales_close_at: Mapped[datetime | None] = mapped_column(Time)
    position: Mapped[int] = mapped_column(Integer, default=0)
    folded: Mapped[str | None] = mapped_column(Text)

    event: Mapped[Event] = relationship(back_populates="ticket_types")

    __table_args__ = (
        CheckConstraint("price_minor >= 0", name="ticket_types_price"),
        CheckConstraint("held >= 0 AND sold >= 0", name="ticket_types_counts"),
        CheckConstraint("sold + held <= capacity", name="ticket_types_never_oversold"),
        CheckConstraint("per_order_limit BETWEEN 1 AND 100", name="ticket_types_limit"),
    )

    @property
    def available(self) -> int:
        return self.capacity - self.sold - self.held

    def __str__(self) -> str:
        return self.name


# --- Orders ---------------------------------------------------------------------------------------------


class OrderState(StrEnum):
    PENDING = "pending"
    PENDING_VERIFICATION = "pending_verification"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REVIEW = "requires_manual_review"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class StockState(StrEnum):
    NONE = "none"
    HELD = "held"
    SOLD = "sold"
    RELEASED = "released"


class LineKind(StrEnum):
    TICKET = "ticket"
    TOP_UP = "top_up"
    LISTING_FEE = "listing_fee"
    TOURNAMENT_ENTRY = "tournament_entry"


class Order(Base):
    """What somebody wants to buy: the one thing every purchase is."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    code: Mapped[str] = mapped_column(String(20), unique=True)
    secret: Mapped[str] = mapped_column(String(64))
    # Makes a form that is posted twice the same order.
    form_token: Mapped[str | None] = mapped_column(String(64), unique=True)
    event_id: Mapped[int | None] = mapped_column(ForeignKey("events.id"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    email: Mapped[str] = mapped_column(String(254))
    currency: Mapped[str] = mapped_column(String(3))
    total_minor: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[OrderState] = mapped_column(_enum(OrderState), default=OrderState.PENDING)
    stock_state: Mapped[StockState] = mapped_column(_enum(StockState), default=StockState.NONE)
    # Why it ended unpaid, for staff; and by which of our codes (providers/failure_reasons.py), for the buyer.
    failure_reason: Mapped[str] = mapped_column(String(300), default="")
    failure_code: Mapped[str] = mapped_column(String(40), default="", server_default="")
    client_address: Mapped[str] = mapped_column(String(45), default="")
    # The organiser or admin who put the buyer on the guest list; NULL for what was bought.
    guest_of_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time)
    completed_at: Mapped[datetime | None] = mapped_column(Time)
    folded: Mapped[str | None] = mapped_column(Text)

    event: Mapped[Event | None] = relationship()
    user: Mapped[User | None] = relationship(foreign_keys=[user_id])
    guest_of: Mapped[User | None] = relationship(foreign_keys=[guest_of_id])
    lines: Mapped[list[OrderLine]] = relationship(back_populates="order", order_by="OrderLine.id")
    payments: Mapped[list[Payment]] = relationship(back_populates="order", order_by="Payment.attempt")
    tickets: Mapped[list[Ticket]] = relationship(back_populates="order", order_by="Ticket.number")
    timeline: Mapped[list[TimelineEntry]] = relationship(order_by="TimelineEntry.id")

    __table_args__ = (
        CheckConstraint("total_minor >= 0", name="orders_total"),
        Index("orders_email", func.lower(email)),
        Index("orders_unfolded", "id", postgresql_where=text("folded IS NULL")),
        Index("orders_state_created", "state", "created_at"),
        Index(
            "orders_holding",
            "created_at",
            postgresql_where=text("stock_state = 'held'"),
        ),
    )

    @property
    def sells_tickets(self) -> bool:
        """Whether it is about tickets: a listing fee has an event, too, and none of its tickets."""
        return any(line.kind is LineKind.TICKET for line in self.lines)

    @property
    def is_listing_fee(self) -> bool:
        return any(line.kind is LineKind.LISTING_FEE for line in self.lines)

    def __str__(self) -> str:
        return self.code


class OrderLine(Base):
    """A quantity of one thing at one price, as it was when the order was made."""

    __tablename__ = "order_lines"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    kind: Mapped[LineKind] = mapped_column(_enum(LineKind))
    ticket_type_id: Mapped[int | None] = mapped_column(ForeignKey("ticket_types.id"), index=True)
    description: Mapped[str] = mapped_column(String(250))
    quantity: Mapped[int] = mapped_column(Integer)
    unit_minor: Mapped[int] = mapped_column(BigInteger)

    order: Mapped[Order] = relationship(back_populates="lines")
    ticket_type: Mapped[TicketType | None] = relationship()

    __table_args__ = (
        CheckConstraint("quantity > 0", name="order_lines_quantity"),
        CheckConstraint("unit_minor >= 0", name="order_lines_unit"),
        CheckConstraint("(kind = 'ticket') = (ticket_type_id IS NOT NULL)", name="order_lines_ticket_type"),
    )

    @property
    def total_minor(self) -> int:
        return self.quantity * self.unit_minor


# --- Payments -------------------------------------------------------------------------------------------


class PaymentState(StrEnum):
    CREATED = "created"
    OPEN = "open"
    PROCESSING = "processing"
    PAID = "paid"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REVIEW = "review"


_CLOSED = frozenset({PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED})
_LIVE = frozenset({PaymentState.OPEN, PaymentState.PROCESSING, PaymentState.PAID}) | _CLOSED
_REVIEW = frozenset({PaymentState.REVIEW})

# State -> the states allowed next. `created` may become whatever recovery finds it to be at the provider;
# late money is real money, so what is closed may still be paid; nothing leaves `paid` but into review.
PAYMENT_NEXT: dict[PaymentState, frozenset[PaymentState]] = {
    PaymentState.CREATED: _LIVE | _REVIEW,
    PaymentState.OPEN: (_LIVE - {PaymentState.OPEN}) | _REVIEW,
    PaymentState.PROCESSING: (_LIVE - {PaymentState.PROCESSING}) | _REVIEW,
    PaymentState.PAID: _REVIEW,
    PaymentState.FAILED: frozenset({PaymentState.PROCESSING, PaymentState.PAID}) | _REVIEW,
    PaymentState.CANCELLED: frozenset({PaymentState.PROCESSING, PaymentState.PAID}) | _REVIEW,
    PaymentState.EXPIRED: frozenset({PaymentState.PROCESSING, PaymentState.PAID}) | _REVIEW,
    # Only by a person, and recorded: see payments.decide().
    PaymentState.REVIEW: _LIVE,
}
# The states in which a payment keeps its order from starting another one.
PAYMENT_ACTIVE = frozenset({PaymentState.CREATED, PaymentState.OPEN, PaymentState.PROCESSING})


class Payment(Base):
    """One attempt to pay one order at one provider. Rows are never deleted or reused."""

    __tablename__ = "payments"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    attempt: Mapped[int] = mapped_column(Integer)
    provider: Mapped[str] = mapped_column(String(20))
    # The provider's account that receives the money, and whether it is real.
    account: Mapped[str] = mapped_column(String(100))
    # The organiser whose sale it is, where the money arrives in the house's account: it is owed to them.
    owed_to_id: Mapped[int | None] = mapped_column(Integer)
    livemode: Mapped[bool] = mapped_column(Boolean)
    reference: Mapped[str] = mapped_column(String(64), unique=True)
    idempotency_key: Mapped[str] = mapped_column(String(100), unique=True)
    # The exact parameters of the create call, so that a lost one can be repeated unchanged.
    params: Mapped[Json] = mapped_column(JSONB, default=dict)
    provider_id: Mapped[str | None] = mapped_column(String(255))
    provider_created_at: Mapped[datetime | None] = mapped_column(Time)
    url: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[datetime | None] = mapped_column(Time)
    charge_id: Mapped[str | None] = mapped_column(String(255))
    # What the provider says it took, in minor units of the payment's currency; NULL until it is paid.
    received_minor: Mapped[int | None] = mapped_column(BigInteger)
    # What we asked to send back of it, and what of that may have gone: never more than was received.
    asked_back_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    # When money of it last went back, or was here again; without it no refund or dispute is to be told of.
    reversed_at: Mapped[datetime | None] = mapped_column(Time)
    # Whether this payment's money bought the order's goods; at most one does (see the index below).
    fulfilled: Mapped[bool] = mapped_column(Boolean, default=False)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[PaymentState] = mapped_column(_enum(PaymentState), default=PaymentState.CREATED)
    # What the provider said about its last refusal, for staff; and our code for it, for the buyer.
    reason: Mapped[str] = mapped_column(String(300), default="")
    reason_code: Mapped[str] = mapped_column(String(40), default="", server_default="")
    # The newest refused attempt that is on the timeline, by the provider's name for it.
    last_decline: Mapped[str] = mapped_column(String(255), default="", server_default="")
    # When the buyer came back from the provider's page, where nothing is known yet of how it ended.
    returned_at: Mapped[datetime | None] = mapped_column(Time)
    # Since when a person wants it closed, whether or not its provider has answered yet.
    cancel_asked_at: Mapped[datetime | None] = mapped_column(Time)
    # Since when it is to be closed for another in its place; NULL once that is done (replacements.py).
    replacing_since: Mapped[datetime | None] = mapped_column(Time)
    created_at: Mapped[datetime] = mapped_column(Time)
    # When the hold ends: what is open still is read, closed at the provider, and read again. The provider's
    # page may live longer (`expires_at`).
    closes_at: Mapped[datetime | None] = mapped_column(Time)
    # Since when the call that opens it may have reached a connected account: see payments/never_opened.py.
    asked_at: Mapped[datetime | None] = mapped_column(Time)
    state_since: Mapped[datetime] = mapped_column(Time)
    paid_at: Mapped[datetime | None] = mapped_column(Time)
    # When the buyer paid, by the provider's clock, where it tells.
    provider_paid_at: Mapped[datetime | None] = mapped_column(Time)
    # The sweep's columns. NULL `next_check_at` means at rest: no sweep looks at the row.
    next_check_at: Mapped[datetime | None] = mapped_column(Time)
    leased_until: Mapped[datetime | None] = mapped_column(Time)
    last_polled_at: Mapped[datetime | None] = mapped_column(Time)
    poll_count: Mapped[int] = mapped_column(Integer, default=0)
    # From when, and for how long, an open payment is polled; a person may stop that, or give it longer. What
    # was stopped is still read at its end, because unknown is not unpaid.
    polling_started_at: Mapped[datetime | None] = mapped_column(Time)
    max_poll_duration_minutes: Mapped[int] = mapped_column(Integer, default=120)
    should_poll: Mapped[bool] = mapped_column(Boolean, default=True)
    error_count: Mapped[int] = mapped_column(Integer, default=0)
    last_error: Mapped[str] = mapped_column(String(300), default="")
    stuck_alerted_at: Mapped[datetime | None] = mapped_column(Time)

    order: Mapped[Order] = relationship(back_populates="payments")
    refunds: Mapped[list[Refund]] = relationship(back_populates="payment", order_by="Refund.id")
    disputes: Mapped[list[Dispute]] = relationship(back_populates="payment", order_by="Dispute.id")

    __table_args__ = (
        UniqueConstraint("order_id", "attempt", name="payments_attempt_key"),
        UniqueConstraint("provider", "provider_id", name="payments_provider_id_key"),
        UniqueConstraint("provider", "charge_id", name="payments_charge_key"),
        CheckConstraint("amount_minor > 0", name="payments_amount"),
        CheckConstraint(
            "asked_back_minor BETWEEN 0 AND coalesce(received_minor, 0)",
            name="payments_never_asked_back_more",
        ),
        CheckConstraint("state <> 'paid' OR paid_at IS NOT NULL", name="payments_paid_at"),
        CheckConstraint(
            "state NOT IN ('created', 'open', 'processing') OR next_check_at IS NOT NULL",
            name="payments_next_check",
        ),
        Index(
            "payments_one_active",
            "order_id",
            unique=True,
            postgresql_where=text("state IN ('created', 'open', 'processing')"),
        ),
        Index("payments_one_fulfils", "order_id", unique=True, postgresql_where=text("fulfilled")),
        Index(
            "payments_due",
            "next_check_at",
            postgresql_where=text("next_check_at IS NOT NULL"),
        ),
        Index("payments_state", "state", "created_at"),
        Index(
            "payments_replacing",
            "replacing_since",
            postgresql_where=text("replacing_since IS NOT NULL"),
        ),
    )

    def allows(self, state: PaymentState) -> bool:
        """Whether the state table lets this payment become `state`."""
        return state in PAYMENT_NEXT[self.state]

    @property
    def is_active(self) -> bool:
        return self.state in PAYMENT_ACTIVE

    @property
    def held_until(self) -> datetime | None:
        """Until when it can be paid: the end of the hold, or of the provider's page where that is sooner."""
        ends = [moment for moment in (self.closes_at, self.expires_at) if moment is not None]
        return min(ends, default=None)

    @property
    def has_reversals(self) -> bool:
        """Whether money of it went back, or was asked back: its charge may hint at no change of that."""
        return bool(self.refunds or self.disputes)

    @property
    def has_open_ends(self) -> bool:
        """Whether a dispute, or a refund made at the provider, has not come to its end."""
        return any(dispute.closed_at is None for dispute in self.disputes) or any(
            refund.made_at_provider and refund.state is RefundState.PENDING for refund in self.refunds
        )

    def polling_elapsed_minutes(self, now: datetime) -> float:
        """For how many minutes this payment has been polled at `now`; 0 before it was opened."""
        if self.polling_started_at is None:
            return 0.0
        return max(0.0, (now - self.polling_started_at).total_seconds() / 60)

    def needs_polling(self, now: datetime) -> bool:
        """Whether sweeps go on asking about this payment at `now`."""
        return (
            self.should_poll
            and self.state in (PaymentState.OPEN, PaymentState.PROCESSING)
            and self.polling_elapsed_minutes(now) < self.max_poll_duration_minutes
        )

    def __str__(self) -> str:
        return self.reference


class RefundState(StrEnum):
    CREATED = "created"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVIEW = "review"


class Refund(Base):
    """Money going back for a payment: ours (an intent, committed before the call) or the provider's own."""

    __tablename__ = "refunds"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"), index=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[RefundState] = mapped_column(_enum(RefundState), default=RefundState.CREATED)
    idempotency_key: Mapped[str] = mapped_column(String(100), unique=True)
    provider_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    # What the provider said was refunded before our call, where it has no id of ours to match by.
    refunded_before_minor: Mapped[int] = mapped_column(BigInteger, default=0)
    made_at_provider: Mapped[bool] = mapped_column(Boolean, default=False)
    reason: Mapped[str] = mapped_column(String(300), default="")
    failure_reason: Mapped[str] = mapped_column(String(300), default="")
    void_ticket_ids: Mapped[list[int]] = mapped_column(JSONB, default=list)
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time)
    resolved_at: Mapped[datetime | None] = mapped_column(Time)
    next_check_at: Mapped[datetime | None] = mapped_column(Time)
    leased_until: Mapped[datetime | None] = mapped_column(Time)
    check_count: Mapped[int] = mapped_column(Integer, default=0)
    # When the one call was made whose answer may be lost, where the provider keeps no key of ours.
    asked_at: Mapped[datetime | None] = mapped_column(Time)
    # When the provider accepted it, and the buyer was told so; kept where it fails afterwards.
    accepted_at: Mapped[datetime | None] = mapped_column(Time)

    payment: Mapped[Payment] = relationship(back_populates="refunds")
    actor: Mapped[User | None] = relationship()

    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="refunds_amount"),
        Index(
            "refunds_one_unresolved",
            "payment_id",
            unique=True,
            postgresql_where=text("state IN ('created', 'pending') AND NOT made_at_provider"),
        ),
        Index("refunds_due", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
    )


class DisputeState(StrEnum):
    OPEN = "open"
    WON = "won"
    LOST = "lost"


class Dispute(Base):
    """A buyer's bank taking the money back, or trying to; or only asking about it, so far."""

    __tablename__ = "disputes"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"), index=True)
    provider_id: Mapped[str] = mapped_column(String(255), unique=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[DisputeState] = mapped_column(_enum(DisputeState), default=DisputeState.OPEN)
    provider_status: Mapped[str] = mapped_column(String(50), default="")
    # False for an inquiry: the bank asks, and has taken nothing so far.
    took_money: Mapped[bool] = mapped_column(Boolean, default=True, server_default=text("true"))
    reason: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[datetime] = mapped_column(Time)
    closed_at: Mapped[datetime | None] = mapped_column(Time)

    payment: Mapped[Payment] = relationship(back_populates="disputes")

    @property
    def has_money(self) -> bool:
        """Whether the bank has the money, for now or for good."""
        return self.took_money and self.state is not DisputeState.WON


class WebhookEvent(Base):
    """A ring of a provider's doorbell. `done_at` is written in the transaction that acted on it."""

    __tablename__ = "webhook_events"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    provider: Mapped[str] = mapped_column(String(20))
    event_id: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(100))
    object_id: Mapped[str] = mapped_column(String(255), default="")
    received_at: Mapped[datetime] = mapped_column(Time)
    done_at: Mapped[datetime | None] = mapped_column(Time)
    outcome: Mapped[str] = mapped_column(String(200), default="")

    __table_args__ = (
        UniqueConstraint("provider", "event_id", name="webhook_events_key"),
        Index("webhook_events_received", "received_at"),
    )


class TimelineEntry(Base):
    """One observation or decision about an order, kept for good: what, by which door, and by whom."""

    __tablename__ = "timeline"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    payment_id: Mapped[int | None] = mapped_column(ForeignKey("payments.id"))
    at: Mapped[datetime] = mapped_column(Time)
    door: Mapped[str] = mapped_column(String(30))
    what: Mapped[str] = mapped_column(String(50))
    text: Mapped[str] = mapped_column(Text, default="")
    data: Mapped[Json] = mapped_column(JSONB, default=dict)
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))

    actor: Mapped[User | None] = relationship()


# The last hour's failures are counted at each new one.
Index("timeline_failures", TimelineEntry.at, postgresql_where=text("what IN ('declined', 'failed')"))


class Incident(Base):
    """Money that no rule could map to goods. It waits in the money inbox until a person decides."""

    __tablename__ = "incidents"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    kind: Mapped[str] = mapped_column(String(40))
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    payment_id: Mapped[int | None] = mapped_column(ForeignKey("payments.id"), index=True)
    provider: Mapped[str] = mapped_column(String(20), default="")
    charge_id: Mapped[str | None] = mapped_column(String(255))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    evidence: Mapped[Json] = mapped_column(JSONB, default=dict)
    created_at: Mapped[datetime] = mapped_column(Time)
    # 'issue', 'refund', 'wallet' or 'dismiss'; with the reason a person gave.
    resolution: Mapped[str] = mapped_column(String(20), default="")
    resolution_reason: Mapped[str] = mapped_column(Text, default="")
    resolved_at: Mapped[datetime | None] = mapped_column(Time)
    resolved_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))

    order: Mapped[Order | None] = relationship()
    payment: Mapped[Payment | None] = relationship()
    resolved_by: Mapped[User | None] = relationship()

    __table_args__ = (
        Index("incidents_open", "created_at", postgresql_where=text("resolved_at IS NULL")),
        CheckConstraint("resolved_at IS NULL OR resolution <> ''", name="incidents_resolution"),
    )


# --- Ledger and wallets ---------------------------------------------------------------------------------


class Wallet(Base):
    """A member's money in one currency: the only ledger account whose balance is stored."""

    __tablename__ = "wallets"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    currency: Mapped[str] = mapped_column(String(3))
    balance_minor: Mapped[int] = mapped_column(BigInteger, default=0)
    held_minor: Mapped[int] = mapped_column(BigInteger, default=0)
    # Set while a dispute or a refund at the provider has taken back money that was already spent.
    overdrawn: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime] = mapped_column(Time)

    user: Mapped[User] = relationship()

    __table_args__ = (
        UniqueConstraint("user_id", "currency", name="wallets_user_currency_key"),
        CheckConstraint("held_minor >= 0", name="wallets_held"),
        CheckConstraint("overdrawn OR balance_minor >= held_minor", name="wallets_not_below_zero"),
    )

    @property
    def account(self) -> str:
        """The wallet's name in the ledger."""
        return f"wallet:{self.user_id}"

    @property
    def available_minor(self) -> int:
        return self.balance_minor - self.held_minor


class Transfer(Base):
    """Minor units moved from one ledger account to another. Append-only; `key` makes it happen once.

    `debit` is the account the money comes from, `credit` the one it goes to.
    """

    __tablename__ = "transfers"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key: Mapped[str] = mapped_column(String(150), unique=True)
    debit: Mapped[str] = mapped_column(String(100))
    credit: Mapped[str] = mapped_column(String(100))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    # 'sale', 'top_up', 'agent_usage', 'refund', 'dispute', 'adjustment', ...
    kind: Mapped[str] = mapped_column(String(30))
    description: Mapped[str] = mapped_column(String(255), default="")
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    payment_id: Mapped[int | None] = mapped_column(ForeignKey("payments.id"))
    agent_slug: Mapped[str] = mapped_column(String(100), default="")
    # The provider's own id of the session or charge behind this transfer, shown to the member.
    provider_reference: Mapped[str] = mapped_column(String(255), default="")
    # Who decided it, where a person did.
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time)

    actor: Mapped[User | None] = relationship()

    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="transfers_amount"),
        CheckConstraint("debit <> credit", name="transfers_two_accounts"),
        Index("transfers_debit", "debit", "id"),
        Index("transfers_credit", "credit", "id"),
    )


class HoldState(StrEnum):
    HELD = "held"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"


class WalletHold(Base):
    """Wallet money kept for something that is being delivered: captured, voided, or expired by the sweep."""

    __tablename__ = "wallet_holds"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    wallet_id: Mapped[int] = mapped_column(ForeignKey("wallets.id"), index=True)
    key: Mapped[str] = mapped_column(String(100), unique=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[HoldState] = mapped_column(_enum(HoldState), default=HoldState.HELD)
    description: Mapped[str] = mapped_column(String(255), default="")
    agent_slug: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    ended_at: Mapped[datetime | None] = mapped_column(Time)

    wallet: Mapped[Wallet] = relationship()

    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="wallet_holds_amount"),
        Index("wallet_holds_due", "expires_at", postgresql_where=text("state = 'held'")),
    )


class Agent(Base):
    """A service that members pay for by use, from their wallet."""

    __tablename__ = "agents"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(String(500), default="")
    price_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    # Which built-in service runs it: a name in domain/ledger/agents.py.
    service: Mapped[str] = mapped_column(String(50))
    active: Mapped[bool] = mapped_column(Boolean, default=True)
    folded: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (CheckConstraint("price_minor > 0", name="agents_price"),)

    def __str__(self) -> str:
        return self.name


# --- Tickets and the door -------------------------------------------------------------------------------


class TicketState(StrEnum):
    VALID = "valid"
    SUSPENDED = "suspended"
    VOID = "void"


class Ticket(Base):
    """One admission. `code` is what a person types; the QR text adds a keyed signature."""

    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    order_line_id: Mapped[int] = mapped_column(ForeignKey("order_lines.id"))
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), index=True)
    ticket_type_id: Mapped[int] = mapped_column(ForeignKey("ticket_types.id"), index=True)
    number: Mapped[int] = mapped_column(Integer)
    code: Mapped[str] = mapped_column(String(12), unique=True)
    holder: Mapped[str] = mapped_column(String(200), default="")
    state: Mapped[TicketState] = mapped_column(_enum(TicketState), default=TicketState.VALID)
    state_reason: Mapped[str] = mapped_column(String(200), default="")
    issued_at: Mapped[datetime] = mapped_column(Time)
    checked_in_at: Mapped[datetime | None] = mapped_column(Time)
    checked_in_by: Mapped[str] = mapped_column(String(100), default="")

    order: Mapped[Order] = relationship(back_populates="tickets")
    event: Mapped[Event] = relationship()
    ticket_type: Mapped[TicketType] = relationship()

    __table_args__ = (UniqueConstraint("order_id", "number", name="tickets_number_key"),)

    def __str__(self) -> str:
        return self.code


class DoorPass(Base):
    """A link and PIN that let door staff scan for one event until it expires."""

    __tablename__ = "door_passes"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), index=True)
    label: Mapped[str] = mapped_column(String(100))
    token: Mapped[str] = mapped_column(String(64), unique=True)
    pin_hash: Mapped[str] = mapped_column(String(255))
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    revoked_at: Mapped[datetime | None] = mapped_column(Time)
    folded: Mapped[str | None] = mapped_column(Text)

    event: Mapped[Event] = relationship()


class Verdict(StrEnum):
    VALID = "valid"
    USED = "used"
    WRONG_EVENT = "wrong_event"
    VOID = "void"
    FORGED = "forged"
    UNKNOWN = "unknown"


class CheckIn(Base):
    """One scan at a door and its verdict. The device's `scan_id` makes a retry repeat the verdict."""

    __tablename__ = "check_ins"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    scan_id: Mapped[str] = mapped_column(String(64), unique=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    ticket_id: Mapped[int | None] = mapped_column(ForeignKey("tickets.id"), index=True)
    verdict: Mapped[Verdict] = mapped_column(_enum(Verdict))
    # What the verdict showed: holder, type, and who scanned first, as it was then.
    detail: Mapped[Json] = mapped_column(JSONB, default=dict)
    by: Mapped[str] = mapped_column(String(100), default="")
    at: Mapped[datetime] = mapped_column(Time)
    undone_at: Mapped[datetime | None] = mapped_column(Time)
    undone_by: Mapped[str] = mapped_column(String(100), default="")

    ticket: Mapped[Ticket | None] = relationship()

    __table_args__ = (
        Index("check_ins_event", "event_id", "at"),
        Index(
            "check_ins_one_admission",
            "ticket_id",
            unique=True,
            postgresql_where=text("verdict = 'valid' AND undone_at IS NULL"),
        ),
    )


# --- What is owed, and what happened --------------------------------------------------------------------


class MailState(StrEnum):
    DUE = "due"
    SENT = "sent"
    FAILED = "failed"


class OutboxMail(Base):
    """A mail owed, written in the transaction that caused it. `key` keeps one cause to one mail."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    # The name of a template pair in templates/mail/, 'tickets', 'alert', ...
    kind: Mapped[str] = mapped_column(String(40))
    to: Mapped[str] = mapped_column(String(254))
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    context: Mapped[Json] = mapped_column(JSONB, default=dict)
    message_id: Mapped[str] = mapped_column(String(200), unique=True)
    state: Mapped[MailState] = mapped_column(_enum(MailState), default=MailState.DUE)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Time)
    next_attempt_at: Mapped[datetime | None] = mapped_column(Time)
    leased_until: Mapped[datetime | None] = mapped_column(Time)
    sent_at: Mapped[datetime | None] = mapped_column(Time)
    last_error: Mapped[str] = mapped_column(String(500), default="")

    order: Mapped[Order | None] = relationship()
    user: Mapped[User | None] = relationship()

    __table_args__ = (
        CheckConstraint("state <> 'due' OR next_attempt_at IS NOT NULL", name="outbox_next_attempt"),
        Index("outbox_due", "next_attempt_at", postgresql_where=text("state = 'due'")),
        Index("outbox_state", "state", "created_at"),
    )


class SweepRun(Base):
    """One run of the sweep and what it did; its heartbeat is how the web process knows that sweeps go on."""

    __tablename__ = "sweep_runs"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    trigger: Mapped[str] = mapped_column(String(20))
    started_at: Mapped[datetime] = mapped_column(Time, index=True)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    found: Mapped[int] = mapped_column(Integer, default=0)
    verified: Mapped[int] = mapped_column(Integer, default=0)
    failed: Mapped[int] = mapped_column(Integer, default=0)
    pending: Mapped[int] = mapped_column(Integer, default=0)
    errors: Mapped[int] = mapped_column(Integer, default=0)
    provider_calls: Mapped[int] = mapped_column(Integer, default=0)
    mails: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[str] = mapped_column(Text, default="")


class AccountCursor(Base):
    """How far an account at a provider was asked what happened there: see domain/sweep/account_history.py."""

    __tablename__ = "account_cursors"

    id: Mapped[int] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(String(20))
    account: Mapped[str] = mapped_column(String(100))
    # All that happened until then is in our rows; and when that was last found.
    since: Mapped[datetime] = mapped_column(Time)
    moved_at: Mapped[datetime] = mapped_column(Time)
    asked_at: Mapped[datetime | None] = mapped_column(Time)
    leased_until: Mapped[datetime | None] = mapped_column(Time)

    __table_args__ = (UniqueConstraint("provider", "account", name="account_cursors_key"),)


class CheckRun(Base):
    """One run of the invariants of `domain/office/invariants.py`, with what did not hold."""

    __tablename__ = "check_runs"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(Time, index=True)
    violations: Mapped[list[Json]] = mapped_column(JSONB, default=list)
    # The codes of those that could not be asked in time: nothing is known of them.
    unchecked: Mapped[list[str]] = mapped_column(JSONB, default=list, server_default=text("'[]'"))


class Heartbeat(Base):
    """When a process of a name last said that it lives: 'worker', 'clock'."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    at: Mapped[datetime] = mapped_column(Time)
    detail: Mapped[Json] = mapped_column(JSONB, default=dict)


class Page(Base):
    """A text that the operator edits: terms, privacy, contact."""

    __tablename__ = "pages"

    slug: Mapped[str] = mapped_column(String(50), primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(Time)
