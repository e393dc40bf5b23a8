"""The refund form of an order's file, as admins and organisers send it."""

from __future__ import annotations

from flask_wtf import FlaskForm
from wtforms import IntegerField, SelectMultipleField, StringField
from wtforms.validators import DataRequired, Length

from domain import money, refunds
from domain.errors import DomainError
from models import Order, RefundState


class RefundForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    amount = StringField(validators=[DataRequired("Type an amount.")])
    reason = StringField(validators=[DataRequired("Say why."), Length(max=300)])
    tickets = SelectMultipleField(coerce=int, validate_choice=False)


def checked(form: FlaskForm) -> None:
    """Raise the form's first error as a DomainError, so that all refusals look alike."""
    if not form.validate_on_submit():
        errors = [message for messages in form.errors.values() for message in messages]
        raise DomainError("form", str(errors[0]) if errors else "The form could not be read.")


def payment_of(order: Order, payment_id: int | None) -> int:
    """The id, if it is a payment of this order."""
    if payment_id not in {payment.id for payment in order.payments}:
        raise DomainError("no_payment", "That payment is not of this order.")
    return int(payment_id or 0)


def refund(order: Order, *, actor_id: int, door: str) -> tuple[str, str]:
    """Send back what the form says; how it went, as the category and the words of a flash."""
    form = RefundForm()
    checked(form)
    made = refunds.request(
        payment_of(order, form.payment_id.data),
        money.parse(str(form.amount.data or ""), order.currency),
        actor_id=actor_id,
        reason=str(form.reason.data or ""),
        void_ticket_ids=form.tickets.data or (),
        door=door,
    )
    shown = money.show(made.amount_minor, made.currency)
    if made.failure_reason:
        return "danger", f"The refund of {shown} was refused: {made.failure_reason}"
    if made.state is RefundState.SUCCEEDED:
        return "success", f"The refund of {shown} went through."
    return "info", f"The refund of {shown} has begun, but is not through yet. Its state is shown below."
