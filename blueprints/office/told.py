"""What a person has seen at the bank: that a payment came or did not, and that a refund was made."""

from __future__ import annotations

from datetime import date, datetime, time

from flask import flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import DateField, IntegerField, StringField
from wtforms.validators import DataRequired, Length, Optional

import config
from blueprints import refunding
from blueprints.office.blueprint import act, bp, me, text
from blueprints.refunding import checked, payment_of
from domain import money, zones
from domain.errors import DomainError
from domain.office import overview
from domain.payments import refunds_by_hand, statements, telling
from models import Order, PaymentState


class ToldForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    reference = StringField(validators=[Length(max=100)])
    amount = StringField(
        validators=[DataRequired("Type the amount as the statement says it."), Length(max=40)]
    )
    paid_on = DateField(validators=[Optional()])
    note = refunding.why()


class UnpaidForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    note = refunding.why()


class ConfirmForm(FlaskForm):
    told_id = IntegerField(validators=[DataRequired()])
    note = refunding.why()


class MadeForm(FlaskForm):
    refund_id = IntegerField(validators=[DataRequired()])
    reference = StringField(validators=[Length(max=100)])
    note = refunding.why()


class NotMadeForm(FlaskForm):
    refund_id = IntegerField(validators=[DataRequired()])
    note = refunding.why()


def _page_of(code: str) -> str:
    return url_for("admin.order", code=code)


# --- What came ------------------------------------------------------------------------------------------


@bp.post("/orders/<code>/told")
def tell_paid(code: str) -> Response:
    """Write down that money came for a payment, by the bank's reference."""

    def do() -> tuple[str, str]:
        form = ToldForm()
        checked(form)
        order = overview.order_file(code).order
        told = telling.tell_paid(
            payment_of(order, form.payment_id.data),
            reference=text(form.reference),
            amount_minor=money.parse(text(form.amount), order.currency),
            actor_id=me(),
            note=text(form.note),
            paid_at=_noon_of(form.paid_on.data),
        )
        if told.is_waiting:
            return "info", "Written down. So large a sum needs a second person, who confirms it on this page."
        return _came_of(order, told.payment.state)

    return act(do, _page_of(code))


def _noon_of(day: date | None) -> datetime | None:
    """A day of the statement, which tells no more, as a moment; None where it was left empty."""
    if day is None:
        return None
    return zones.moment(datetime.combine(day, time(12)), config.get().timezone, field="The day")


def _came_of(order: Order, state: PaymentState) -> tuple[str, str]:
    if state is PaymentState.PAID:
        return "success", "Confirmed. What it was paid for is handed over, or waits in the money inbox."
    if state is PaymentState.REVIEW:
        return (
            "warning",
            "Written down. It is another sum than the order costs: decide it in the money inbox.",
        )
    return "info", f"Written down. The payment is {state} now."


@bp.post("/orders/<code>/told/confirm")
def confirm_told(code: str) -> Response:
    """A second person, or whoever has the bank's statement, confirms what was told."""

    def do() -> tuple[str, str]:
        form = ConfirmForm()
        checked(form)
        file = overview.order_file(code)
        outcome = telling.confirm(_told_of(file, form.told_id.data), actor_id=me(), note=text(form.note))
        return _came_of(file.order, outcome.state)

    return act(do, _page_of(code))


@bp.post("/orders/<code>/told/withdraw")
def withdraw_told(code: str) -> Response:
    """What was told, and is not confirmed, was wrong."""

    def do() -> tuple[str, str]:
        form = ConfirmForm()
        checked(form)
        file = overview.order_file(code)
        telling.withdraw(_told_of(file, form.told_id.data), actor_id=me(), why=text(form.note))
        return "success", "Taken back. Its reference may be used for another payment."

    return act(do, _page_of(code))


def _told_of(file: overview.OrderFile, told_id: int | None) -> int:
    if told_id not in {row.id for row in file.told}:
        raise DomainError("no_report", "That was not told of this order.")
    return int(told_id or 0)


@bp.post("/orders/<code>/unpaid")
def tell_unpaid(code: str) -> Response:
    """Somebody has looked, and nothing came."""

    def do() -> tuple[str, str]:
        form = UnpaidForm()
        checked(form)
        order = overview.order_file(code).order
        payment_id = payment_of(order, form.payment_id.data)
        outcome = telling.tell_unpaid(payment_id, actor_id=me(), note=text(form.note))
        return "success", f"Written down. The payment is {outcome.state} now."

    return act(do, _page_of(code))


# --- What was sent back ---------------------------------------------------------------------------------


@bp.post("/orders/<code>/refunded")
def record_refund(code: str) -> Response:
    """A refund was made at the bank."""

    def do() -> tuple[str, str]:
        form = MadeForm()
        checked(form)
        refund_id = _refund_of(code, form.refund_id.data)
        made = refunds_by_hand.record(
            refund_id, reference=text(form.reference), note=text(form.note), actor_id=me()
        )
        return "success", f"The refund of {money.show(made.amount_minor, made.currency)} is written down."

    return act(do, _page_of(code))


@bp.post("/orders/<code>/not-refunded")
def refuse_refund(code: str) -> Response:
    """A refund cannot be made at the bank, or is not to be."""

    def do() -> tuple[str, str]:
        form = NotMadeForm()
        checked(form)
        refunds_by_hand.refuse(_refund_of(code, form.refund_id.data), why=text(form.note), actor_id=me())
        return "info", "The refund is ended, and its money stays here."

    return act(do, _page_of(code))


def _refund_of(code: str, refund_id: int | None) -> int:
    order = overview.order_file(code).order
    if refund_id not in {refund.id for payment in order.payments for refund in payment.refunds}:
        raise DomainError("no_refund", "That refund is not of this order.")
    return int(refund_id or 0)


# --- A whole statement ----------------------------------------------------------------------------------


@bp.get("/statements")
def statement() -> str:
    return render_template("office/statement.html", preview=None)


@bp.post("/statements")
def read_statement() -> str | Response:
    """Show what a bank's statement says of our payments. Nothing is confirmed by it."""
    sent = request.files.get("statement")
    try:
        found = statements.preview(sent.read(statements.MOST_BYTES + 1) if sent else b"", actor_id=me())
    except DomainError as error:
        flash(error.message, "danger")
        return redirect(url_for("admin.statement"), 303)
    return render_template("office/statement.html", preview=found, kinds=statements.Found)


@bp.post("/statements/confirm")
def confirm_statement() -> Response:
    """Confirm the lines that were ticked, one after the other."""

    def do() -> tuple[str, str]:
        sent = request.form.getlist("unpaid")
        unpaid = [int(one) for one in sent if one.isascii() and one.isdigit() and len(one) < 19]
        told = statements.tell(request.form.getlist("line"), unpaid, actor_id=me())
        for words in told.refused[:20]:
            flash(words, "danger")
        noun = "line is" if told.confirmed == 1 else "lines are"
        return ("success" if told.confirmed else "info"), f"{told.confirmed} {noun} written down."

    return act(do, url_for("admin.statement"))
