"""Tournaments, their categories, the athletes who enter them, and their entries.

A tournament is an event and a category one of its ticket types, so that money, places, doors and calendars
are those of tickets; what stands here is what athletes need beside.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of, unguessable

if TYPE_CHECKING:
    from tables.catalogue import Event, TicketType
    from tables.orders import Order
    from tables.people import User


class Sex(StrEnum):
    FEMALE = "female"
    MALE = "male"


class Withdrawal(StrEnum):
    """What an athlete who withdraws in time gets back."""

    ALL = "all"
    NOTHING = "nothing"


class Tournament(Base):
    """What a tournament has beside its event."""

    __tablename__ = "tournaments"

    event_id: Mapped[int] = mapped_column(ForeignKey("events.id", ondelete="CASCADE"), primary_key=True)
    rules: Mapped[str] = mapped_column(Text, default="")
    # Until when an entry can be withdrawn by whoever made it. NULL: until the tournament begins.
    withdraw_until: Mapped[datetime | None] = mapped_column(Time)
    withdrawal: Mapped[Withdrawal] = mapped_column(one_of(Withdrawal), default=Withdrawal.ALL)
    # Whether everybody may read who is entered: names and clubs, nothing else.
    public_list: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))

    event: Mapped[Event] = relationship(back_populates="tournament")

    def copied(self) -> Tournament:
        """The same for another event; the deadline is that event's own."""
        return Tournament(rules=self.rules, withdrawal=self.withdrawal, public_list=self.public_list)


class Category(Base):
    """Whom a category of a tournament is for. NULL is no limit; limits are themselves allowed."""

    __tablename__ = "categories"

    ticket_type_id: Mapped[int] = mapped_column(
        ForeignKey("ticket_types.id", ondelete="CASCADE"), primary_key=True
    )
    # What programs know it by.
    public_id: Mapped[str] = mapped_column(String(41), unique=True, server_default=unguessable("category"))
    # Ages in years, on the tournament's first day.
    min_age: Mapped[int | None] = mapped_column(SmallInteger)
    max_age: Mapped[int | None] = mapped_column(SmallInteger)
    min_weight_g: Mapped[int | None] = mapped_column(Integer)
    max_weight_g: Mapped[int | None] = mapped_column(Integer)
    sex: Mapped[Sex | None] = mapped_column(one_of(Sex))
    # As domain/catalogue/grades.py numbers them.
    min_grade: Mapped[int | None] = mapped_column(SmallInteger)
    max_grade: Mapped[int | None] = mapped_column(SmallInteger)

    ticket_type: Mapped[TicketType] = relationship(back_populates="category")

    __table_args__ = (
        CheckConstraint("min_age <= max_age", name="categories_ages"),
        CheckConstraint("min_weight_g <= max_weight_g", name="categories_weights"),
        CheckConstraint("min_grade <= max_grade", name="categories_grades"),
    )

    def copied(self) -> Category:
        """The same limits for another ticket type."""
        limits = ("min_age", "max_age", "min_weight_g", "max_weight_g", "sex", "min_grade", "max_grade")
        return Category(**{name: getattr(self, name) for name in limits})


class Athlete(Base):
    """Somebody whom a member enters in tournaments: the member, or a child of theirs."""

    __tablename__ = "athletes"

    id: Mapped[int] = mapped_column(primary_key=True)
    # What programs know it by.
    public_id: Mapped[str] = mapped_column(String(40), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    birth_date: Mapped[date] = mapped_column(Date)
    sex: Mapped[Sex | None] = mapped_column(one_of(Sex))
    club: Mapped[str] = mapped_column(String(200), default="")
    weight_g: Mapped[int | None] = mapped_column(Integer)
    weight_at: Mapped[datetime | None] = mapped_column(Time)
    grade: Mapped[int | None] = mapped_column(SmallInteger)
    created_at: Mapped[datetime] = mapped_column(Time)
    removed_at: Mapped[datetime | None] = mapped_column(Time)
    folded: Mapped[str | None] = mapped_column(Text)

    user: Mapped[User] = relationship()
    consents: Mapped[list[Consent]] = relationship(back_populates="athlete", order_by="Consent.id")

    __table_args__ = (
        CheckConstraint("weight_g BETWEEN 1 AND 500000", name="athletes_weight"),
        Index("athletes_weighed", "weight_at", postgresql_where=text("weight_g IS NOT NULL")),
    )

    def __str__(self) -> str:
        return self.name


class Consent(Base):
    """A guardian's word that a minor may take part: who gave it, when, and to which text."""

    __tablename__ = "consents"

    id: Mapped[int] = mapped_column(primary_key=True)
    athlete_id: Mapped[int] = mapped_column(ForeignKey("athletes.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    text: Mapped[str] = mapped_column(Text)
    text_hash: Mapped[str] = mapped_column(String(64))
    given_at: Mapped[datetime] = mapped_column(Time)

    athlete: Mapped[Athlete] = relationship(back_populates="consents")
    user: Mapped[User] = relationship()


class ParticipantState(StrEnum):
    PENDING = "PENDING"
    PAID = "PAID"
    WITHDRAWN = "WITHDRAWN"


class Participant(Base):
    """One athlete in one category of one tournament, with one fee: what the order pays for."""

    __tablename__ = "participants"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    public_id: Mapped[str] = mapped_column(String(40), unique=True)
    athlete_id: Mapped[int] = mapped_column(ForeignKey("athletes.id"), index=True)
    ticket_type_id: Mapped[int] = mapped_column(ForeignKey("ticket_types.id"), index=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), unique=True)
    # The athlete as they were entered.
    club: Mapped[str] = mapped_column(String(200), default="")
    weight_g: Mapped[int | None] = mapped_column(Integer)
    grade: Mapped[int | None] = mapped_column(SmallInteger)
    created_at: Mapped[datetime] = mapped_column(Time)
    withdrawn_at: Mapped[datetime | None] = mapped_column(Time)

    athlete: Mapped[Athlete] = relationship()
    ticket_type: Mapped[TicketType] = relationship()
    order: Mapped[Order] = relationship()

    __table_args__ = (Index("participants_weighed", "id", postgresql_where=text("weight_g IS NOT NULL")),)

    @property
    def state(self) -> ParticipantState:
        """What the order says of the entry: it has its place, not yet, or not any more.

        The ticket decides: late money for an entry that was withdrawn unpaid buys its place all the same.
        """
        tickets = self.order.tickets
        if any(ticket.state != "void" for ticket in tickets):
            return ParticipantState.PAID
        gone = self.withdrawn_at is not None or bool(tickets) or self.order.state == "refunded"
        return ParticipantState.WITHDRAWN if gone else ParticipantState.PENDING
