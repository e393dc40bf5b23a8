"""Paying for an entry as a program does: begin a payment in one way or another, look at it, end it.

The entry is there before its payment. Its order is paid like any other; what stands here is what a program
asks differently from a page: it names the way to pay and the amount, and wants to know which payment it got.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from domain.catalogue import house_account, payees
from domain.catalogue.prices import PriceChanged
from domain.errors import DomainError, NotFound
from domain.orders import entries, managing
from domain.payments import for_programs, own_end, reconciling, replacements
from domain.providers import registry
from domain.providers.contract import ProviderError, can_present
from extensions import db
from models import Order, Participant, ParticipantState, Payment, PaymentState, TicketType, User


class PaymentInProgress(DomainError):
    """Another payment of the entry cannot be closed now, so that no second one may begin."""


class AlreadyPaid(DomainError):
    """There is nothing left to pay."""


class Unanswered(DomainError):
    """The provider did not answer: `payment` is begun, and goes on by itself."""

    def __init__(
        self,
        payment: Payment,
        message: str = "The payment service does not answer just now. The payment is begun, and we keep "
        "asking: look at its status.",
    ) -> None:
        super().__init__("provider_silent", message)
        self.payment = payment


@dataclass(frozen=True)
class Begun:
    """A payment that was asked for. `again`: it was there already."""

    payment: Payment
    participant: Participant
    again: bool


_BUSY = frozenset(("cancelling", "provider_silent", "confirming", "not_payable", "not_closable"))


def initiate(
    participant: Participant,
    method: str,
    *,
    amount_minor: int,
    currency: str,
    payer: User,
    return_url: str = "",
) -> Begun:
    """Begin to pay an entry's fee by `method`, or find the payment that is open in that way. Commits.

    One that is open in another way is closed at its provider first. DomainError in words: PaymentInProgress
    where it cannot be closed, AlreadyPaid, Unanswered, PriceChanged, and what `payments.creating` says.
    """
    order = participant.order
    _end_what_is_over(participant)
    _check_due(participant)
    if (amount_minor, currency) != (order.total_minor, order.currency):
        raise DomainError("amount_mismatch", "Payment amount must match tournament entry fee")
    try:
        payment, begun = managing.attempt(
            order.id,
            registry.of_method(method),
            payer_id=payer.id,
            door="api",
            method=method,
            return_url=return_url,
        )
    except PriceChanged as error:
        words = f"{error.message} Withdraw this entry, and enter again at the new fee."
        raise PriceChanged(error.code, words) from error
    except DomainError as error:
        raise _in_the_way(participant.id, error) from error
    if payment is None or (payment.is_active and payment.method != method):
        raise _in_the_way(participant.id, _busy())
    if return_url and payment.is_active and payment.return_url != return_url:
        # The buyer goes back to where the last request has come from.
        payment.return_url = return_url
        db.session.commit()
    if payment.state == "created":
        raise Unanswered(payment)
    return Begun(payment, participant, not begun)


def _end_what_is_over(participant: Participant) -> None:
    """Close an open payment whose time is up, as the next sweep would: nobody is given it to be paid now.

    PaymentInProgress where the provider does not confirm it. Paid in between wins.
    """
    order, participant_id = participant.order, participant.id
    current = reconciling.active(order)
    if current is None or current.state is not PaymentState.OPEN:
        return
    if not own_end.is_due(current, own_end.able(current)):
        return
    # Another takes its place, or a sweep tells its buyer that none did.
    payment_id = current.id
    replacements.begin(payment_id)
    if reconciling.reconcile(payment_id, door="api", quietly=True).error is not None:
        raise _in_the_way(participant_id, _busy())
    db.session.refresh(participant)
    db.session.refresh(order)
    db.session.expire(order, ["payments", "tickets"])


def _check_due(participant: Participant) -> None:
    """Whether there is a fee that is still to be paid."""
    if participant.state is ParticipantState.PAID and participant.order.total_minor:
        raise AlreadyPaid("already_paid", "This entry is paid already.")
    if not participant.order.total_minor:
        raise DomainError("free", "This category is free: the entry needs no payment.")
    if participant.state is ParticipantState.WITHDRAWN:
        raise AlreadyPaid(
            "withdrawn", "This entry was withdrawn. Enter the athlete again to pay for a place."
        )


def _in_the_way(participant_id: int, error: DomainError) -> DomainError:
    """What a program is told where no payment can begin: what came in between, else the rule's own words."""
    db.session.rollback()
    found = db.session.get_one(Participant, participant_id, populate_existing=True)
    db.session.refresh(found.order)
    if found.state is ParticipantState.PAID:
        return AlreadyPaid("already_paid", "This entry is paid already.")
    return PaymentInProgress("payment_in_progress", error.message) if error.code in _BUSY else error


def _busy() -> DomainError:
    return DomainError(
        "not_payable", "Another payment of this entry is under way. Wait until it has ended, or cancel it."
    )


# --- Looking --------------------------------------------------------------------------------------------


def shown(payment: Payment) -> for_programs.Shown:
    """Where, or with what, a payment is made now. Unanswered where the provider does not tell its secret."""
    payment_id = payment.id
    try:
        return for_programs.shown(payment)
    except ProviderError as error:
        raise _untold(payment_id) from error


def client_secret(payment: Payment) -> str | None:
    """Its secret alone, read from the provider again; None where it has none. Unanswered likewise."""
    payment_id = payment.id
    try:
        return for_programs.client_secret(payment)
    except ProviderError as error:
        raise _untold(payment_id) from error


def _untold(payment_id: int) -> Unanswered:
    return Unanswered(
        db.session.get_one(Payment, payment_id),
        "The payment service does not answer just now. The payment is begun: ask for it again as before.",
    )


def told_of(participant: Participant) -> Payment:
    """The payment that the status of an entry is about: the one that paid, else the newest.

    Asks its provider as the order page does. NotFound where there is none yet.
    """
    order = participant.order
    if reconciling.refresh(order, door="api"):
        db.session.refresh(order)
        db.session.expire(order, ["payments", "tickets"])
    bought = next((payment for payment in order.payments if payment.fulfilled), None)
    found = bought or (order.payments[-1] if order.payments else None)
    if found is None:
        raise NotFound("no_payment", "No payment has been begun for this entry.")
    return found


def find(public_id: str) -> Payment:
    """A payment by the id that programs know, with its order. NotFound."""
    query = select(Payment).where(Payment.public_id == public_id).options(joinedload(Payment.order))
    found = db.session.scalars(query).one_or_none()
    if found is None:
        raise NotFound("no_payment", "There is no such payment.")
    return found


def own(user: User, public_id: str) -> Payment:
    """A payment of one of the user's own orders. NotFound alike for another's."""
    found = find(public_id)
    if found.order.user_id != user.id:
        raise NotFound("no_payment", "There is no such payment.")
    return found


# --- Ending ---------------------------------------------------------------------------------------------


def cancel(payment: Payment, *, actor_id: int, door: str = "api") -> Payment:
    """End an open payment at its provider, and give its place back. Commits. Paid in between wins.

    PaymentInProgress where the provider does not confirm it; DomainError `not_cancellable` where it is final.
    """
    if not payment.is_active:
        raise DomainError("not_cancellable", f"This payment is {_said(payment)} already.")
    payment_id, order = payment.id, payment.order
    try:
        managing.cancel(order, door=door, actor_id=actor_id)
    except DomainError as error:
        if error.code in _BUSY:
            raise PaymentInProgress("payment_in_progress", error.message) from error
        raise
    return db.session.get_one(Payment, payment_id, populate_existing=True)


def _said(payment: Payment) -> str:
    return {"review": "looked at by a person"}.get(payment.state, payment.state)


def participant_of(order: Order) -> Participant | None:
    """Whose place an order pays for; None where it is about something else."""
    return entries.of_order(order)


def methods(kind: TicketType) -> list[str]:
    """By what an entry in a category can be paid now, in its order; nothing where it is free."""
    if not kind.price_minor:
        return []
    offered = payees.offered(kind.event, currency=kind.priced_in)
    if house_account.serves(kind.event):
        offered += [one for one in map(registry.get, registry.names()) if one.immediate]
    able = (one for one in offered if one.supports(kind.priced_in))
    return [method for one in able for method in one.methods if can_present(one, method)]
