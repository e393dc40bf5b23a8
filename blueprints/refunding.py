"""The refund form of an order's file, as admins and organisers send it: what it will do is shown first."""

from __future__ import annotations

from functools import partial

from flask import flash, redirect, render_template
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import IntegerField, SelectMultipleField, StringField
from wtforms.validators import DataRequired, Length

from blueprints import proofs
from domain import money
from domain.errors import DomainError
from domain.payments import desk_refunds, refund_plans, refundable, refunds
from domain.payments.refund_plans import Plan
from models import Order, RefundState


def why(longest: int = 300) -> StringField:
    """A form's field for the reason that must be given. Templates show it by `why` of office/parts.html."""
    return StringField(validators=[DataRequired("Say why."), Length(max=longest)])


class RefundForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    # Left empty, the ticked tickets say how much.
    amount = StringField(validators=[Length(max=40)])
    reason = why()
    tickets = SelectMultipleField(coerce=int, validate_choice=False)
    # What the page before said would happen; without it, that is said first.
    shown = StringField()


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


def refund(
    order: Order, *, actor_id: int, door: str, page: str, frame: str, at_desk: bool = False
) -> str | Response:
    """Say what the refund form will do, and do it when that was seen; then back to the order's `page`.

    `at_desk`: whoever asks answers the telephone, and may send back so much and no more.
    """
    form = RefundForm()
    try:
        checked(form)
        plan = _planned(order, form)
        if at_desk:
            desk_refunds.check(order, plan.amount_minor, actor_id)
            desk_refunds.check_stops(order, plan)
        if form.shown.data != plan.token:
            return render_template(
                "office/refund.html", frame=frame, order=order, plan=plan, form=form, page=page
            )
        in_all = refundable.in_all_minor(plan.payment, plan.amount_minor)
        asked = proofs.for_money(in_all, plan.payment.currency)
        if asked is not None:
            return asked
        category, words = _made(plan, form, actor_id=actor_id, door=door, at_desk=at_desk)
    except DomainError as error:
        category, words = "danger", error.message
    flash(words, category)
    return redirect(page, 303)


def _planned(order: Order, form: RefundForm) -> Plan:
    payment_id = payment_of(order, form.payment_id.data)
    payment = next(payment for payment in order.payments if payment.id == payment_id)
    typed = str(form.amount.data or "").strip()
    amount = money.parse(typed, payment.currency) if typed else None
    return refund_plans.plan(order, payment, amount, form.tickets.data or ())


def _made(plan: Plan, form: RefundForm, *, actor_id: int, door: str, at_desk: bool) -> tuple[str, str]:
    """Send it back; how it went, as the category and the words of a flash."""
    made = refunds.request(
        plan.payment.id,
        plan.amount_minor,
        actor_id=actor_id,
        reason=str(form.reason.data or ""),
        void_ticket_ids=[ticket.id for ticket in plan.stops],
        door=door,
        after=plan.before,
        bound=partial(desk_refunds.check, actor_id=actor_id) if at_desk else None,
    )
    shown = money.show(made.amount_minor, made.currency)
    if made.failure_reason:
        return "danger", f"The refund of {shown} was refused: {made.failure_reason}"
    if made.state is RefundState.SUCCEEDED:
        return "success", f"The refund of {shown} went through."
    if plan.by_hand:
        words = "No call sends it: a person makes it at the bank, and writes it down on the order's page."
        return "info", f"The refund of {shown} is asked for. {words}"
    return "info", f"The refund of {shown} has begun, but is not through yet. Its state is shown below."
