"""Payments for those who look after them: the list of all, and giving money back."""

from __future__ import annotations

from pydantic import Field

from blueprints.api import cursors
from blueprints.api.caller import NEEDED, UNSET, caller
from blueprints.api.endpoint import Area
from blueprints.api.errors import ApiProblem, Problem
from blueprints.api.payments import Method, Told, told
from blueprints.api.shapes import (
    Amount,
    Answer,
    Body,
    Currency,
    Day,
    Id,
    Moment,
    Money,
    Page,
    PageQuery,
    example,
    in_minor,
    sums,
)
from domain.errors import DomainError
from domain.office import payment_lists
from domain.orders import entry_payments
from domain.payments import refundable, refunds, refunds_by_hand
from domain.payments.status_words import PaymentStatus
from domain.security.scopes import Scope
from models import Refund

area = Area("admin", "Administration", "For admins: every payment, and giving money back.")


class Looked(Told):
    """A payment as an admin sees it."""

    order_code: str
    tournament: str | None = Field(description="The slug of the tournament or event that it is for.")
    athlete: str | None
    provider: str
    reference: str = Field(description="Ours, as the provider’s dashboard shows it.")


class PaymentPage(Page):
    """Some payments, the newest first."""

    items: list[Looked]


class PaymentQuery(PageQuery):
    """Which payments; what is left out is anything."""

    status: PaymentStatus | None = None
    method: Method | None = None
    tournament: str | None = Field(None, max_length=200, description="Its slug.")
    since: Day | None = Field(None, description="Begun on this day or later.")
    until: Day | None = Field(None, description="Begun on this day or before.")


@area.get("/payments/admin/payments", scope=Scope.ADMIN_PAYMENTS, answers=PaymentPage)
def list_payments(query: PaymentQuery) -> PaymentPage:
    """List all payments."""
    wanted = payment_lists.Wanted(query.status, query.method, query.tournament, query.since, query.until)
    page = payment_lists.find(wanted, cursors.read("payments", query.cursor))
    return PaymentPage(
        items=[_looked(found) for found in page.rows], next=cursors.write("payments", page.more)
    )


def _looked(found: payment_lists.Found) -> Looked:
    payment, participant = found.payment, found.participant
    event = payment.order.event
    return Looked(
        **told(payment, participant),
        order_code=payment.order.code,
        tournament=event.slug if event is not None else None,
        athlete=participant.athlete.name if participant is not None else None,
        provider=payment.provider,
        reference=payment.reference,
    )


_TOO_PRECISE = Problem(400, "too_precise", "EUR amounts have at most 2 digits after the point.")


class GiveBack(Body):
    """How much goes back, and why."""

    amount: Amount | None = Field(None, description="Without it, all that is left.")
    reason: str = Field(min_length=1, max_length=300, description="Kept with the refund, for staff.")

    model_config = example({"reason": "Injured before the tournament"})


class GivenBack(Answer):
    """A refund, as its provider tells of it so far."""

    payment_id: Id
    status: PaymentStatus = Field(description="The payment’s, now.")
    refund_state: str = Field(
        description="`created`, `pending`, `succeeded`, `failed`, `cancelled`, `review`."
    )
    amount: Money
    amount_minor: int
    currency: Currency
    created_at: Moment


@area.post(
    "/payments/<payment_id>/refund",
    scope=Scope.ADMIN_REFUNDS,
    answers={201: GivenBack},
    problems=(
        NEEDED,
        UNSET,
        Problem(404, "no_payment", "There is no such payment."),
        Problem(409, "refund_under_way", "A refund of this payment is under way.", lasting=False),
        Problem(409, "not_paid", "This payment was not paid, so there is nothing to give back."),
        Problem(409, "too_much", "At most 50.00 EUR can be given back.", lasting=False),
        Problem(
            409,
            "refunded_before_restore",
            "The same sum went back already, in a time that the restored backup does not hold.",
        ),
        Problem(409, "refunds_differ", "The provider has given back another sum.", lasting=False),
        Problem(409, "in_review", "A person has to decide about this payment first.", lasting=False),
        Problem(409, "not_connected", "The account that took this money is not connected.", lasting=False),
        Problem(400, "reason_needed", "Say why: the reason is kept with the refund."),
        _TOO_PRECISE,
        Problem(503, "provider_silent", "We could not reach the payment provider.", lasting=False),
    ),
)
def refund_payment(payment_id: str, body: GiveBack) -> tuple[GivenBack, int]:
    """Give a payment’s money back.

    All of it gives the place back, too. Above the shop's setting a token from just now is needed where the
    admin has a second factor, and an API key is refused; sums in pieces count as one. Where the provider is
    slow, the refund goes on by itself. Where no call sends money back, it is `created` until a person has
    made it at the bank, and that is recorded.
    """
    payment = entry_payments.find(payment_id)
    left = refundable.refundable_minor(payment)
    amount = left if body.amount is None else in_minor(body.amount, payment.currency)
    caller().check_giving_back(refundable.in_all_minor(payment, amount), payment.currency)
    if payment.received_minor is None:
        raise ApiProblem(409, "not_paid", "This payment was not paid, so there is nothing to give back.")
    try:
        made = refunds.request(payment.id, amount, actor_id=caller().user.id, reason=body.reason, door="api")
    except DomainError as error:
        if error.code == "provider_silent":
            raise ApiProblem(503, error.code, error.message, retry_after=60) from error
        if error.code in _CONFLICTS:
            raise ApiProblem(409, error.code, error.message) from error
        raise
    return _given(made), 201


_CONFLICTS = frozenset(("refund_under_way", "too_much", "refunds_differ", "in_review"))


def _given(refund: Refund) -> GivenBack:
    payment = entry_payments.find(refund.payment.public_id)
    return GivenBack(
        payment_id=payment.public_id,
        status=told(payment, None)["status"],
        refund_state=refund.state,
        **sums(refund.amount_minor, refund.currency),
        created_at=refund.created_at,
    )


class MadeByHand(Body):
    """A refund that a person has made at the bank."""

    reference: str = Field(min_length=1, max_length=100, description="The bank’s, from its receipt.")
    note: str = Field(min_length=1, max_length=300, description="How it was made; kept for staff.")

    model_config = example({"reference": "QR12800000001", "note": "Sent back in the bank’s app"})


@area.post(
    "/payments/<payment_id>/refund/made",
    scope=Scope.ADMIN_REFUNDS,
    answers=GivenBack,
    problems=(
        Problem(404, "no_payment", "There is no such payment."),
        Problem(404, "no_refund", "No refund of this payment waits for a person."),
        Problem(409, "reference_used", "Another refund was recorded with this reference before."),
        Problem(409, "not_waiting", "This refund is succeeded already, or is made by a call."),
        Problem(400, "note_needed", "Say how it was made: the note is kept on the order's timeline."),
        Problem(400, "reference_form", "“x” does not look like a reference of the bank."),
    ),
)
def record_refund(payment_id: str, body: MadeByHand) -> GivenBack:
    """Record a refund that was made at the bank, where no call makes it."""
    payment = entry_payments.find(payment_id)
    waiting = refunds_by_hand.of_payment(payment)
    actor_id = caller().user.id
    return _given(
        refunds_by_hand.record(waiting.id, reference=body.reference, note=body.note, actor_id=actor_id)
    )
