"""Attempts to pay, money that goes back, rings of providers, and money that waits for a person."""

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
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Json, Time, one_of, unguessable

if TYPE_CHECKING:
    from tables.orders import Order
    from tables.people import User


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
    # By a person, and recorded (settling.override), or by the word that alone was missing (unknown_ends.py).
    PaymentState.REVIEW: _LIVE,
}
# The states in which a payment keeps its order from starting another one.
PAYMENT_ACTIVE = frozenset({PaymentState.CREATED, PaymentState.OPEN, PaymentState.PROCESSING})


class Payment(Base):
    """One attempt to pay one order at one provider. Rows are never deleted or reused."""

    __tablename__ = "payments"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    # What programs know it by.
    public_id: Mapped[str] = mapped_column(String(40), unique=True, server_default=unguessable("payment"))
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    attempt: Mapped[int] = mapped_column(Integer)
    provider: Mapped[str] = mapped_column(String(20))
    # The way to pay that was asked for, and the one that was used, where the provider tells: see
    # `Provider.methods`. "" is a payment of before there was a choice.
    method: Mapped[str] = mapped_column(String(20), default="", server_default="")
    used_method: Mapped[str] = mapped_column(String(20), default="", server_default="")
    # Where a program that began it wants the buyer back; "" is our own page.
    return_url: Mapped[str] = mapped_column(Text, default="", server_default="")
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
    # The last digits of what it was paid with, by which buyers know it on their bank's list; "": not told.
    last_four: Mapped[str] = mapped_column(String(4), default="", server_default="")
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
    state: Mapped[PaymentState] = mapped_column(one_of(PaymentState), default=PaymentState.CREATED)
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
    # Another attempt of its order has ended while the order is kept: this one is opened when its buyer asks.
    awaits_buyer: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))

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
        # Lists are read from the newest on: of all of them, of some days, and of those that went back.
        Index("payments_created", "created_at", "id"),
        Index(
            "payments_reversed",
            "created_at",
            "id",
            postgresql_where=text("state = 'paid' AND reversed_at IS NOT NULL"),
        ),
        Index("payments_bought", "paid_at", postgresql_where=text("fulfilled")),
        # Those that expired and were not told of yet, for the digest of each sweep.
        Index(
            "payments_expired_untold",
            "state_since",
            postgresql_where=text(
                "state = 'expired' AND (stuck_alerted_at IS NULL OR stuck_alerted_at < state_since)"
            ),
        ),
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
    state: Mapped[RefundState] = mapped_column(one_of(RefundState), default=RefundState.CREATED)
    idempotency_key: Mapped[str] = mapped_column(String(100), unique=True)
    provider_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    # What the provider said was refunded before our call, where it has no id of ours to match by.
    refunded_before_minor: Mapped[int] = mapped_column(BigInteger, default=0)
    made_at_provider: Mapped[bool] = mapped_column(Boolean, default=False)
    reason: Mapped[str] = mapped_column(String(300), default="")
    failure_reason: Mapped[str] = mapped_column(String(300), default="")
    void_ticket_ids: Mapped[list[int]] = mapped_column(JSONB, default=list)
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    # Whether it was asked for by who answers the telephone, whose sums are bounded.
    at_desk: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
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
        Index("refunds_at_desk", "actor_id", "created_at", postgresql_where=text("at_desk")),
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
    state: Mapped[DisputeState] = mapped_column(one_of(DisputeState), default=DisputeState.OPEN)
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
    # What came of it; until it is done, what was in the way when it was last looked at.
    outcome: Mapped[str] = mapped_column(String(200), default="")
    tries: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    tried_at: Mapped[datetime | None] = mapped_column(Time)
    # By which names it speaks of its payment, until it is done; nothing of whoever paid. NULL: of a version
    # that did not keep them.
    names: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True))
    # When a person was told that it was left undone.
    alerted_at: Mapped[datetime | None] = mapped_column(Time)

    __table_args__ = (
        UniqueConstraint("provider", "event_id", name="webhook_events_key"),
        Index("webhook_events_received", "received_at"),
        Index("webhook_events_undone", "received_at", postgresql_where=text("done_at IS NULL")),
    )


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
