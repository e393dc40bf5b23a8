"""Reports that are told, where a provider cannot be asked, and what was answered to one that calls us."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of

if TYPE_CHECKING:
    from tables.payments import Payment
    from tables.people import User


class ToldState(StrEnum):
    PAID = "paid"
    # A person has looked, and nothing came.
    UNPAID = "unpaid"
    # It came for a payment that was paid already: it waits in the money inbox, and is no part of a report.
    EXTRA = "extra"


class Awaits(StrEnum):
    """What has to come before a told report is evidence."""

    NOTHING = "nothing"
    PERSON = "person"
    STATEMENT = "statement"


class ToldReport(Base):
    """What somebody tells of a payment whose provider cannot be asked. Rows are never changed but to confirm
    or to withdraw them, and never deleted.
    """

    __tablename__ = "told_reports"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"), index=True)
    provider: Mapped[str] = mapped_column(String(20))
    state: Mapped[ToldState] = mapped_column(one_of(ToldState))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    # The bank's name for the money, or the provider's for its call; "" where nothing came.
    reference: Mapped[str] = mapped_column(String(100), default="")
    # When the buyer paid, where that is told.
    paid_at: Mapped[datetime | None] = mapped_column(Time)
    awaits: Mapped[Awaits] = mapped_column(one_of(Awaits), default=Awaits.NOTHING)
    # Who says so; NULL is the provider, by a call.
    by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    note: Mapped[str] = mapped_column(String(300), default="")
    created_at: Mapped[datetime] = mapped_column(Time)
    # Who has confirmed it after that, or has taken it back before anybody did.
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    confirmed_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    withdrawn_at: Mapped[datetime | None] = mapped_column(Time)
    withdrawn_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))

    payment: Mapped[Payment] = relationship()
    by: Mapped[User | None] = relationship(foreign_keys=[by_id])
    confirmed_by: Mapped[User | None] = relationship(foreign_keys=[confirmed_by_id])

    __table_args__ = (
        # Money has one name, and buys once.
        Index(
            "told_reports_reference",
            "provider",
            "reference",
            unique=True,
            postgresql_where=text("reference <> '' AND withdrawn_at IS NULL"),
        ),
        CheckConstraint(
            "(state = 'unpaid') = (reference = '') AND (state = 'unpaid') = (amount_minor = 0) "
            "AND amount_minor >= 0",
            name="told_reports_money",
        ),
        CheckConstraint(
            "awaits <> 'person' OR confirmed_by_id IS NULL OR confirmed_by_id <> by_id",
            name="told_reports_two_people",
        ),
        CheckConstraint(
            "(confirmed_at IS NULL) = (confirmed_by_id IS NULL) "
            "AND (confirmed_at IS NULL OR awaits <> 'nothing')",
            name="told_reports_confirmed",
        ),
        CheckConstraint(
            "withdrawn_at IS NULL OR (confirmed_at IS NULL AND awaits <> 'nothing')",
            name="told_reports_withdrawn",
        ),
    )

    @property
    def is_evidence(self) -> bool:
        """Whether it may be settled by."""
        return self.withdrawn_at is None and (self.awaits is Awaits.NOTHING or self.confirmed_at is not None)

    @property
    def is_waiting(self) -> bool:
        """Whether somebody has to confirm it, or to take it back."""
        return self.withdrawn_at is None and not self.is_evidence


class BillerAnswer(Base):
    """What was answered to a call that tells of a payment: the same call again gets the same answer."""

    __tablename__ = "biller_answers"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    provider: Mapped[str] = mapped_column(String(20))
    txn_id: Mapped[str] = mapped_column(String(100))
    account: Mapped[str] = mapped_column(String(100))
    answer: Mapped[str] = mapped_column(Text)
    told_id: Mapped[int | None] = mapped_column(ForeignKey("told_reports.id"))
    answered_at: Mapped[datetime] = mapped_column(Time)

    __table_args__ = (Index("biller_answers_txn", "provider", "txn_id", unique=True),)
