"""What is on sale: events, their ticket types and pictures."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Json, Time, one_of

if TYPE_CHECKING:
    from tables.people import Organiser
    from tables.tournaments import Category, Tournament


class EventKind(StrEnum):
    """What is sold for it: tickets to whoever orders them, or a tournament's places to athletes."""

    EVENT = "event"
    TOURNAMENT = "tournament"


class LineMode(StrEnum):
    """Whether who buys waits in a line: never, by itself when somebody hoards, or always."""

    OFF = "off"
    AUTO = "auto"
    ON = "on"


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
    kind: Mapped[EventKind] = mapped_column(
        one_of(EventKind), default=EventKind.EVENT, server_default=EventKind.EVENT
    )
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
    state: Mapped[EventState] = mapped_column(one_of(EventState), default=EventState.DRAFT)
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
    # When nobody was left to be told of its news, where it has many orders (domain/catalogue/event_news.py).
    news_told_at: Mapped[datetime | None] = mapped_column(Time)
    # What is left of its buyers, by their age: see domain/office/thinning.py; and when it is looked at again.
    thinned: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    thin_again_at: Mapped[datetime | None] = mapped_column(Time)
    # The waiting line: its mode, since when it is on by itself, and when turns were given last.
    line: Mapped[LineMode] = mapped_column(
        one_of(LineMode), default=LineMode.OFF, server_default=LineMode.OFF
    )
    line_since: Mapped[datetime | None] = mapped_column(Time)
    line_moved_at: Mapped[datetime | None] = mapped_column(Time)
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
    tournament: Mapped[Tournament | None] = relationship(
        back_populates="event", cascade="save-update, merge, delete, delete-orphan", passive_deletes=True
    )

    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="events_end_after_start"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="events_currency"),
        CheckConstraint("poll_minutes BETWEEN 31 AND 1370", name="events_poll_minutes"),
        CheckConstraint("refunding_since IS NULL OR state = 'cancelled'", name="events_refunding"),
        Index("events_unthinned", "ends_at", postgresql_where=text("thinned < 2")),
        Index("events_upcoming", "state", "ends_at"),
        Index("events_refunding", "id", postgresql_where=text("refunding_since IS NOT NULL")),
        Index("events_moved", "id", postgresql_where=text("moved_at IS NOT NULL")),
    )

    @property
    def is_tournament(self) -> bool:
        return self.kind is EventKind.TOURNAMENT

    @property
    def has_line(self) -> bool:
        """Whether who buys its tickets waits for a turn just now. A tournament's places have no line."""
        by_itself = self.line is LineMode.AUTO and self.line_since is not None
        return not self.is_tournament and (self.line is LineMode.ON or by_itself)

    @property
    def path(self) -> str:
        """The path of the page that sells it."""
        return f"/{'tournaments' if self.is_tournament else 'events'}/{self.slug}"

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
    # What the price is in. NULL: the event's currency.
    currency: Mapped[str | None] = mapped_column(String(3))
    capacity: Mapped[int] = mapped_column(Integer)
    held: Mapped[int] = mapped_column(Integer, default=0)
    sold: Mapped[int] = mapped_column(Integer, default=0)
    per_order_limit: Mapped[int] = mapped_column(Integer, default=10)
    sales_open_at: Mapped[datetime | None] = mapped_column(Time)
    sales_close_at: Mapped[datetime | None] = mapped_column(Time)
    position: Mapped[int] = mapped_column(Integer, default=0)
    folded: Mapped[str | None] = mapped_column(Text)

    event: Mapped[Event] = relationship(back_populates="ticket_types")
    category: Mapped[Category | None] = relationship(
        back_populates="ticket_type",
        cascade="save-update, merge, delete, delete-orphan",
        passive_deletes=True,
    )

    __table_args__ = (
        CheckConstraint("price_minor >= 0", name="ticket_types_price"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="ticket_types_currency"),
        CheckConstraint("held >= 0 AND sold >= 0", name="ticket_types_counts"),
        CheckConstraint("sold + held <= capacity", name="ticket_types_never_oversold"),
        CheckConstraint("per_order_limit BETWEEN 1 AND 100", name="ticket_types_limit"),
    )

    @property
    def priced_in(self) -> str:
        """The currency of its price."""
        return self.currency or self.event.currency

    @property
    def available(self) -> int:
        return self.capacity - self.sold - self.held

    def __str__(self) -> str:
        return self.name
