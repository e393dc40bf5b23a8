"""What somebody wants to buy, line by line, and what was observed and decided about it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Json, Time, one_of

if TYPE_CHECKING:
    from tables.catalogue import Event, TicketType
    from tables.payments import Payment
    from tables.people import User
    from tables.tickets import Ticket


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


# The kinds of lines that take a place and become a ticket.
ADMISSIONS = (LineKind.TICKET, LineKind.TOURNAMENT_ENTRY)


class Order(Base):
    """What somebody wants to buy: the one thing every purchase is."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    code: Mapped[str] = mapped_column(String(20), unique=True)
    secret: Mapped[str] = mapped_column(String(64))
    # Makes a form that is posted twice the same order.
    form_token: Mapped[str | None] = mapped_column(String(64), unique=True)
    event_id: Mapped[int | None] = mapped_column(ForeignKey("events.id"))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    email: Mapped[str] = mapped_column(String(254))
    currency: Mapped[str] = mapped_column(String(3))
    total_minor: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[OrderState] = mapped_column(one_of(OrderState), default=OrderState.PENDING)
    stock_state: Mapped[StockState] = mapped_column(one_of(StockState), default=StockState.NONE)
    # Why it ended unpaid, for staff; and by which of our codes (providers/failure_reasons.py), for the buyer.
    failure_reason: Mapped[str] = mapped_column(String(300), default="")
    failure_code: Mapped[str] = mapped_column(String(40), default="", server_default="")
    client_address: Mapped[str] = mapped_column(String(45), default="")
    # The network of that address: see extensions.network(). NULL on rows of earlier versions.
    network: Mapped[str | None] = mapped_column(String(45))
    # The organiser or admin who put the buyer on the guest list; NULL for what was bought.
    guest_of_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time)
    completed_at: Mapped[datetime | None] = mapped_column(Time)
    folded: Mapped[str | None] = mapped_column(Text)
    # Whether the words that find it are written: see domain/search_words.py. An earlier version does not.
    worded: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))

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
        Index("orders_unworded", "id", postgresql_where=text("NOT worded")),
        # Lists are read from their newest row on, of one event or in one state.
        Index("orders_of_event", "event_id", "id"),
        Index("orders_in_state", "state", "id"),
        Index("orders_of_event_in_state", "event_id", "state", "id"),
        Index("orders_of_guests", "event_id", "id", postgresql_where=text("guest_of_id IS NOT NULL")),
        Index("orders_state_created", "state", "created_at"),
        Index(
            "orders_holding",
            "created_at",
            postgresql_where=text("stock_state = 'held'"),
        ),
        Index("orders_held_of_event", "event_id", postgresql_where=text("stock_state = 'held'")),
    )

    @property
    def path(self) -> str:
        """The path of its own page, which is its secret, too."""
        return f"/o/{self.code}/{self.secret}"

    @property
    def sells_tickets(self) -> bool:
        """Whether it is about tickets: a listing fee has an event, too, and none of its tickets."""
        return any(line.kind in ADMISSIONS for line in self.lines)

    @property
    def is_entry(self) -> bool:
        """Whether it is about an athlete's place in a tournament."""
        return any(line.kind is LineKind.TOURNAMENT_ENTRY for line in self.lines)

    @property
    def is_listing_fee(self) -> bool:
        return any(line.kind is LineKind.LISTING_FEE for line in self.lines)

    def __str__(self) -> str:
        return self.code


class LinePlace(Base):
    """One address's place in an event's waiting line, from asking for it until it was used or has lapsed."""

    __tablename__ = "line_places"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    email: Mapped[str] = mapped_column(String(254))
    # Opens the place's page; mailed, so that whoever has it reads the address's mail.
    secret: Mapped[str] = mapped_column(String(64), unique=True)
    network: Mapped[str] = mapped_column(String(45))
    created_at: Mapped[datetime] = mapped_column(Time)
    # From when on it waits. NULL: nobody has opened the mailed link.
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    turn_at: Mapped[datetime | None] = mapped_column(Time)
    lapses_at: Mapped[datetime | None] = mapped_column(Time)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    ended_at: Mapped[datetime | None] = mapped_column(Time)

    order: Mapped[Order | None] = relationship()

    __table_args__ = (
        Index(
            "line_places_one_each",
            "event_id",
            "email",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("line_places_waiting", "event_id", "confirmed_at", postgresql_where=text("ended_at IS NULL")),
        Index("line_places_ended", "ended_at"),
    )

    @property
    def waits(self) -> bool:
        return self.ended_at is None and self.confirmed_at is not None and self.turn_at is None


class OrderLine(Base):
    """A quantity of one thing at one price, as it was when the order was made."""

    __tablename__ = "order_lines"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    kind: Mapped[LineKind] = mapped_column(one_of(LineKind))
    ticket_type_id: Mapped[int | None] = mapped_column(ForeignKey("ticket_types.id"), index=True)
    description: Mapped[str] = mapped_column(String(250))
    # Who comes in by its tickets; "": whoever the order is of.
    holder: Mapped[str] = mapped_column(String(200), default="", server_default="")
    quantity: Mapped[int] = mapped_column(Integer)
    unit_minor: Mapped[int] = mapped_column(BigInteger)

    order: Mapped[Order] = relationship(back_populates="lines")
    ticket_type: Mapped[TicketType | None] = relationship()

    __table_args__ = (
        CheckConstraint("quantity > 0", name="order_lines_quantity"),
        CheckConstraint("unit_minor >= 0", name="order_lines_unit"),
        CheckConstraint(
            "(kind IN ('ticket', 'tournament_entry')) = (ticket_type_id IS NOT NULL)",
            name="order_lines_ticket_type",
        ),
        # Which orders of an event are not for its tickets: see for_tickets in domain/catalogue/takings.py.
        Index("order_lines_of_fees", "order_id", postgresql_where=text("kind = 'listing_fee'")),
    )

    @property
    def total_minor(self) -> int:
        return self.quantity * self.unit_minor


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
