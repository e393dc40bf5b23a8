"""The front page of the back office, and orders with all that was observed and decided about them."""

from __future__ import annotations

from flask import render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import IntegerField, SelectField
from wtforms.validators import DataRequired, InputRequired

from blueprints import proofs, refunding
from blueprints.office.blueprint import act, bp, chosen, me, text
from blueprints.refunding import checked, payment_of
from domain import addresses, money
from domain.office import overview
from domain.orders import managing
from domain.payments import incident_decisions, incidents, poll_schedule, reconciling, refundable, settling
from models import OrderState, PaymentState

_OUTCOMES = {
    "verified": ("success", "The provider says it is paid."),
    "still_pending": ("info", "The provider says it is not paid yet."),
    "failed": ("info", "The provider says that it will not be paid."),
    "review": ("warning", "It waits for a person's decision."),
    "error": (
        "warning",
        "The provider gave no usable answer, so nothing was changed. Try again in a minute.",
    ),
}


# --- Reading what was sent ------------------------------------------------------------------------------


class DecideForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    state = SelectField(choices=[(s.value, s.value) for s in PaymentState])
    note = refunding.why()


class StopForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    reason = refunding.why()


class ExtendForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    minutes = IntegerField(validators=[InputRequired("Give the minutes as a whole number.")])
    note = refunding.why()


class ApproveForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    note = refunding.why()


# --- The front page and orders --------------------------------------------------------------------------


@bp.get("/")
def index() -> str:
    return render_template("office/desk.html", desk=overview.dashboard())


@bp.get("/orders")
def orders() -> str:
    words, state = request.args.get("q", "")[:200], chosen(OrderState)
    found = overview.orders(words, state, request.args.get("before", type=int))
    return render_template("office/orders.html", found=found, words=words, state=state, states=OrderState)


@bp.get("/orders/<code>")
def order(code: str) -> str:
    found = overview.order_file(code)
    left = {payment.id: refundable.refundable_minor(payment) for payment in found.order.payments}
    return render_template(
        "office/order.html",
        file=found,
        order=found.order,
        left=left,
        plain=money.plain,
        kinds=incidents.KINDS,
        may_become=[s for s in PaymentState if s not in (PaymentState.CREATED, PaymentState.REVIEW)],
        polled={payment.id: overview.polled(payment) for payment in found.order.payments},
        most_minutes=poll_schedule.MOST_MINUTES,
    )


def _page_of(code: str) -> str:
    return url_for("admin.order", code=code)


@bp.post("/orders/<code>/recheck")
def recheck(code: str) -> Response:
    """Ask the provider about one payment of this order now."""

    def do() -> tuple[str, str]:
        payment = _payment(code, request.form.get("payment_id", type=int))
        return _OUTCOMES[reconciling.reconcile(payment, door="recheck", actor_id=me()).verdict]

    return act(do, _page_of(code))


def _asked_for(code: str) -> Response | None:
    """The second factor, where the payment that the form names is of a large sum."""
    found, payment_id = overview.order_file(code).order, request.form.get("payment_id", type=int)
    amount_minor = sum(payment.amount_minor for payment in found.payments if payment.id == payment_id)
    return proofs.for_money(amount_minor, found.currency)


def _payment(code: str, payment_id: int | None) -> int:
    return payment_of(overview.order_file(code).order, payment_id)


@bp.post("/orders/<code>/resend")
def resend(code: str) -> Response:
    def do() -> tuple[str, str]:
        found = overview.order_file(code).order
        managing.resend(found, door="admin", actor_id=me())
        return "success", f"The tickets are on their way to {addresses.shown(found.email)}."

    return act(do, _page_of(code))


@bp.post("/orders/<code>/refund")
def refund(code: str) -> str | Response:
    """Send all or part of a payment back, and void the tickets that were chosen: shown first, then done."""
    order = overview.order_file(code).order
    return refunding.refund(
        order, actor_id=me(), door="admin", page=_page_of(code), frame="office/frame.html"
    )


@bp.post("/orders/<code>/decide")
def decide(code: str) -> Response:
    """Take a payment out of review. To say that a large one was paid may fill a wallet with it."""
    asked = _asked_for(code) if request.form.get("state") == PaymentState.PAID else None
    if asked is not None:
        return asked

    def do() -> tuple[str, str]:
        form = DecideForm()
        checked(form)
        payment_id, state = _payment(code, form.payment_id.data), PaymentState(form.state.data)
        outcome = settling.override(payment_id, state=state, actor_id=me(), note=text(form.note))
        return "success", f"The payment is {outcome.state} now."

    return act(do, _page_of(code))


@bp.post("/orders/<code>/approve")
def approve(code: str) -> Response:
    """Hand over the goods for a payment in review."""

    def do() -> tuple[str, str]:
        form = ApproveForm()
        checked(form)
        payment_id = _payment(code, form.payment_id.data)
        incident_decisions.approve(payment_id, note=text(form.note), actor_id=me())
        return "success", "Approved: the goods are handed over, and the buyer gets a mail."

    return act(do, _page_of(code))


@bp.post("/orders/<code>/stop-polling")
def stop_polling(code: str) -> Response:
    """Sweeps stop asking about a payment until it ends."""

    def do() -> tuple[str, str]:
        form = StopForm()
        checked(form)
        poll_schedule.stop_polling(_payment(code, form.payment_id.data), text(form.reason), me())
        return "success", "Polling is stopped. The payment is read once more when it ends."

    return act(do, _page_of(code))


@bp.post("/orders/<code>/extend")
def extend(code: str) -> Response:
    """Give a payment more minutes before it is closed."""

    def do() -> tuple[str, str]:
        form = ExtendForm()
        checked(form)
        minutes = form.minutes.data or 0
        poll_schedule.extend(_payment(code, form.payment_id.data), minutes, me(), text(form.note))
        return "success", f"The payment has {minutes} minutes more, and is polled until then."

    return act(do, _page_of(code))


@bp.post("/orders/<code>/cancel")
def cancel(code: str) -> Response:
    def do() -> tuple[str, str]:
        found = managing.cancel(overview.order_file(code).order, door="admin", actor_id=me())
        if found.state is OrderState.CANCELLED:
            return "success", "The order is cancelled and its tickets are on sale again."
        return "info", f"The order is {found.state} now."

    return act(do, _page_of(code))


# --- Payments and the money inbox -----------------------------------------------------------------------


# --- Organisers -----------------------------------------------------------------------------------------


# --- Doors ----------------------------------------------------------------------------------------------


# --- Sweeps, jobs and mail ------------------------------------------------------------------------------


# --- The provider's state -------------------------------------------------------------------------------
