"""Bugs to plant in the domain, one at a time: each must be found. Only tests use them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select

from domain import locks
from domain.errors import DomainError
from domain.payments import fulfilment, reconciling, refunds, settling
from domain.post import outbox
from domain.providers import registry, sumup
from domain.providers.contract import ProviderError
from domain.providers.stripe import StripeProvider
from domain.providers.sumup_line import Line
from domain.sweep import lanes
from extensions import db
from models import MailState, Order, OrderState, OutboxMail, Payment, PaymentState, Refund
from tests.simulation.world import Habits

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Plant:
    """A bug, and the habits that bring it to light soon."""

    put: Callable[[Patch], None]
    habits: Habits = field(default_factory=Habits)
    # The seed that is looked at first: one that found it.
    first: int = 1

    def __str__(self) -> str:
        return self.put.__name__


def lock_taken_out(patch: Patch) -> None:
    """The rows are read without a lock."""

    def payment_and_order(payment_id: int) -> tuple[Payment, Order]:
        both = select(Order, Payment).join(Payment, Payment.order_id == Order.id)
        order, payment = db.session.execute(
            both.where(Payment.id == payment_id).execution_options(populate_existing=True)
        ).one()
        return payment, order

    patch.setattr(locks, "payment_and_order", payment_and_order)


def mismatch_check_skipped(patch: Patch) -> None:
    """Whatever the provider's record says, it is believed."""
    patch.setattr(settling, "mismatch", lambda payment, report: None)


def commit_split(patch: Patch) -> None:
    """The payment is committed as paid before its goods are handed over."""
    original = fulfilment.fulfil

    def fulfil(order: Order, payment: Payment | None, **more: Any) -> None:
        if payment is not None and not db.session().in_nested_transaction():
            db.session.commit()
        original(order, payment, **more)

    patch.setattr(fulfilment, "fulfil", fulfil)


def random_idempotency_key(patch: Patch) -> None:
    """Every call has a key of its own, so that a repeated call is another one."""
    create, refund = StripeProvider.create, StripeProvider.refund

    def other_create(adapter: StripeProvider, params: Any, key: str, **more: Any) -> Any:
        return create(adapter, params, secrets.token_hex(8), **more)

    def other_refund(adapter: StripeProvider, provider_id: str, amount: int, key: str, **more: Any) -> Any:
        return refund(adapter, provider_id, amount, secrets.token_hex(8), **more)

    patch.setattr(StripeProvider, "create", other_create)
    patch.setattr(StripeProvider, "refund", other_refund)


def unknown_is_failed(patch: Patch) -> None:
    """A call that is not answered means that the payment failed."""
    patch.setattr(settling, "unanswered", _fails)


def _fails(payment_id: int, error: ProviderError, *, door: str) -> settling.Outcome:
    """In place of `settling.unanswered`: the payment is closed for it."""

    def work() -> settling.Outcome:
        payment, order = locks.payment_and_order(payment_id)
        if payment.is_active:
            settling._close(order, payment, PaymentState.FAILED, str(error), "", door=door, actor_id=None)
        return settling.Outcome(payment_id, payment.state, True, error)

    return locks.in_one_transaction(work)


def hold_released_early(patch: Patch) -> None:
    """Stock is given back when we want to close a payment, before the provider has said its last word."""
    original = reconciling.reconcile

    def reconcile(payment_id: int, *, closing: bool = False, **more: Any) -> settling.Outcome:
        if closing:
            _, order = locks.payment_and_order(payment_id)
            fulfilment.release(order)
            db.session.commit()
        return original(payment_id, closing=closing, **more)

    patch.setattr(reconciling, "reconcile", reconcile)


def doorbell_done_too_soon(patch: Patch) -> None:
    """An event is marked as done as it comes in, and then acted on."""
    original = reconciling.reconcile

    def reconcile(payment_id: int, *, ring_id: int | None = None, **more: Any) -> settling.Outcome:
        if ring_id is not None:
            settling.mark_done(ring_id, "received")
            db.session.commit()
        return original(payment_id, **more)

    patch.setattr(reconciling, "reconcile", reconcile)


def mail_sent_before_sending(patch: Patch) -> None:
    """A letter is marked as sent, and then sent."""
    original = outbox._deliver

    def deliver(claim: Any, way: Any) -> Any:
        mail = db.session.get_one(OutboxMail, claim.mail_id)
        mail.state = MailState.SENT
        db.session.commit()
        return original(claim, way)

    patch.setattr(outbox, "_deliver", deliver)


def refund_without_intent(patch: Patch) -> None:
    """The provider is asked for a refund before its intent is committed."""

    def request(
        payment_id: int, amount_minor: int, *, actor_id: int | None, reason: str, **more: Any
    ) -> Refund:
        ids = sorted(more.get("void_ticket_ids", ()))
        refund_id = refunds._intend(payment_id, amount_minor, actor_id, reason, ids)
        refund = db.session.get_one(Refund, refund_id)
        provider = registry.get(refund.payment.provider)
        session = refund.payment.provider_id or ""
        try:
            report = provider.refund(session, amount_minor, refund.idempotency_key)
        except ProviderError:
            db.session.rollback()
            raise DomainError("refused", "The provider did not answer.") from None
        db.session.commit()
        locks.in_one_transaction(lambda: refunds._settle(refund_id, report, door="refund"))
        return db.session.get_one(Refund, refund_id)

    patch.setattr(refunds, "request", request)


def late_money_oversells(patch: Patch) -> None:
    """Stock is taken whether there is any or not."""

    def claim(wanted: dict[int, int], *, held: int, sold: int) -> None:
        db.session.flush()
        fulfilment._move(wanted, held=held, sold=sold)

    patch.setattr(fulfilment, "_claim", claim)


def second_payment_fulfils(patch: Patch) -> None:
    """An order that is complete is not looked at as such when more money comes."""
    original = settling._paid

    def paid(order: Order, payment: Payment, report: Any, **more: Any) -> None:
        if order.state is OrderState.COMPLETED:
            order.state = OrderState.PENDING_VERIFICATION
        original(order, payment, report, **more)

    patch.setattr(settling, "_paid", paid)


def sweep_forgets_processing(patch: Patch) -> None:
    """Payments that wait for a bank are never due."""
    original = lanes.due

    def due(work: Any) -> Any:
        return [*original(work), Payment.state != PaymentState.PROCESSING]

    patch.setattr(lanes, "due", due)


def failed_is_final(patch: Patch) -> None:
    """SumUp's FAILED, which is the word for the last attempt, is taken for the end of the checkout."""
    original = sumup._state

    def state(checkout: Any, attempts: Any, taken: Any, *, closed: bool) -> tuple[str, str]:
        return original(checkout, attempts, taken, closed=closed or checkout.status == "FAILED")

    patch.setattr(sumup, "_state", state)


def refused_access_is_failed(patch: Patch) -> None:
    """Who may not ask takes the payment for a failed one."""
    original = settling.unanswered

    def unanswered(payment_id: int, error: ProviderError, *, door: str) -> settling.Outcome:
        refused = error.code in ("unauthorised", "not_connected")
        return (_fails if refused else original)(payment_id, error, door=door)

    patch.setattr(settling, "unanswered", unanswered)


def refund_repeated_without_a_key(patch: Patch) -> None:
    """A call that is another refund each time is made again when its answer is lost, as a reading is."""

    def write(line: Line, ask: Any, *, patient: bool) -> Any:
        return line.read(ask, patient=True)

    patch.setattr(Line, "write", write)


_MORTAL = Habits(dies_one_in=2)
PLANTS = (
    Plant(lock_taken_out, Habits(two_at_once=0.5)),
    Plant(mismatch_check_skipped, Habits(often="_is_tampered")),
    Plant(commit_split, _MORTAL, first=2),
    Plant(random_idempotency_key, _MORTAL),
    Plant(unknown_is_failed, first=7),
    Plant(hold_released_early, Habits(dies_one_in=1, often="_cancels")),
    Plant(doorbell_done_too_soon, Habits(busy=("ring", "weather")), first=7),
    Plant(mail_sent_before_sending, Habits(dies_one_in=2, busy=("deliver",)), first=7),
    Plant(refund_without_intent, Habits(dies_one_in=2, busy=("refund",))),
    Plant(late_money_oversells, Habits(events=2, places=(2, 3), often="_pays_late"), first=3),
    Plant(second_payment_fulfils, Habits(two_tabs=1.0, often="_expires"), first=3),
    Plant(sweep_forgets_processing, Habits(often="_pays_later"), first=3),
    Plant(failed_is_final, Habits(often="_fails_twice")),
    Plant(refused_access_is_failed, Habits(reconnects=0.1, busy=("organiser", "sweep"))),
    Plant(refund_repeated_without_a_key, Habits(lost_refunds=True, busy=("refund",)), first=3),
)
