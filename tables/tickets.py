"""Admissions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of

if TYPE_CHECKING:
    from tables.catalogue import Event, TicketType
    from tables.orders import Order


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
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    ticket_type_id: Mapped[int] = mapped_column(ForeignKey("ticket_types.id"), index=True)
    number: Mapped[int] = mapped_column(Integer)
    code: Mapped[str] = mapped_column(String(12), unique=True)
    holder: Mapped[str] = mapped_column(String(200), default="")
    state: Mapped[TicketState] = mapped_column(one_of(TicketState), default=TicketState.VALID)
    state_reason: Mapped[str] = mapped_column(String(200), default="")
    issued_at: Mapped[datetime] = mapped_column(Time)
    checked_in_at: Mapped[datetime | None] = mapped_column(Time)
    checked_in_by: Mapped[str] = mapped_column(String(100), default="")

    order: Mapped[Order] = relationship(back_populates="tickets")
    event: Mapped[Event] = relationship()
    ticket_type: Mapped[TicketType] = relationship()

    __table_args__ = (
        UniqueConstraint("order_id", "number", name="tickets_number_key"),
        Index("tickets_of_event", "event_id", "id"),
        # What counts as sold of a type, and of an event; read without the rows themselves.
        Index("tickets_live", "ticket_type_id", postgresql_where=text("state <> 'void'")),
        Index(
            "tickets_admitted",
            "event_id",
            postgresql_where=text("checked_in_at IS NOT NULL AND state <> 'void'"),
        ),
    )

    def __str__(self) -> str:
        return self.code
