"""The order page: the one address a buyer needs, from before the payment until after the event.

It verifies as it loads, so that whoever looks at it sees what the payment provider says, not what we last
heard.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, g, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints.visitor import order_key, signed_in
from domain import clock, codes
from domain.catalogue import events
from domain.catalogue.availability import say_span
from domain.errors import DomainError
from domain.orders import managing, paying_again
from domain.payments import presenting, reconciling, starting, unplaced_money
from domain.people import athletes
from domain.providers import failure_reasons
from domain.tickets import documents, issuing
from extensions import limiter
from models import LineKind, Order, OrderState, Payment, PaymentState, Ticket, TicketState, User

bp = Blueprint("order", __name__)
_PAGE = "/o/<code>/<secret>"


# What the page shows for each final state of an order; the others depend on the latest payment.
_FACES = {
    OrderState.COMPLETED: "paid",
    OrderState.PARTIALLY_REFUNDED: "paid",
    OrderState.REFUNDED: "refunded",
    OrderState.REVIEW: "review",
    OrderState.FAILED: "closed",
    OrderState.EXPIRED: "closed",
    OrderState.CANCELLED: "closed",
}
# Where it can be paid from.
_UNPAID = ("starting", "again", "open", "confirming", "closed")
_PAYING = {
    PaymentState.CREATED: "starting",
    PaymentState.OPEN: "open",
    PaymentState.PROCESSING: "waiting",
    PaymentState.PAID: "waiting",
    PaymentState.REVIEW: "review",
}


@bp.after_request
def _not_shared(response: Response) -> Response:
    """What is behind a secret address belongs in no cache between here and its reader."""
    response.headers.setdefault("Cache-Control", "private, no-cache")
    return response


@bp.get(_PAGE)
def show(code: str, secret: str) -> str:
    order = _checked(code, secret)
    payment = _latest(order)
    face = _face(order, payment)
    paying, ended = presenting.of(payment), _ended_before(order, payment)
    if paying is not None and paying.origin:
        # Browsers hold a form's address against the policy of its page.
        g.form_origin = paying.origin
    event = order.event if order.sells_tickets else None
    kind = order.lines[0].ticket_type if len(order.lines) == 1 else None
    ways = (
        events.ways_to_pay(event, _payer(order), kind=kind) if face == "closed" and event is not None else ()
    )
    return render_template(
        "shop/order.html",
        order=order,
        payment=payment,
        paying=paying,
        presents=presenting.how(payment),
        ended=ended,
        ended_why=failure_reasons.words(ended.reason_code) if ended is not None else "",
        face=face,
        why=failure_reasons.words(order.failure_code),
        refused=failure_reasons.words(payment.reason_code) if payment is not None else "",
        ways=ways,
        notes=unplaced_money.notes(order),
        unagreed=athletes.unagreed(order) if face in _UNPAID else None,
        again=paying_again.offer(order) if face == "closed" and event is not None else None,
        now=clock.now(),
        version=_version(order, payment),
        is_top_up=any(line.kind is LineKind.TOP_UP for line in order.lines),
        is_fee=order.is_listing_fee,
        span=say_span(order.event) if order.event is not None else "",
        type_names=_type_names(order),
        qr=lambda ticket: documents.qr_data_uri(issuing.qr_text(ticket, order.code), scale=4),
        show_code=codes.show,
    )


@bp.get(f"{_PAGE}/qr.png")
@limiter.limit("120 per minute", key_func=order_key)
def qr(code: str, secret: str) -> Response:
    """The code that pays the order, while it can be paid by one."""
    return _picture(_latest(managing.find(code, secret)))


@bp.get("/pay/qr/<public_id>.png")
@limiter.limit("300 per minute")
def qr_of(public_id: str) -> Response:
    """The same for programs, which know the payment, and show it on pages of their own."""
    response = _picture(presenting.by_public_id(public_id))
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


def _picture(payment: Payment | None) -> Response:
    return Response(
        presenting.picture(payment),
        content_type="image/png",
        headers={"Cache-Control": "private, no-store"},
    )


@bp.get(f"{_PAGE}.json")
def status(code: str, secret: str) -> Response:
    order = _checked(code, secret)
    payment = _latest(order)
    names = _type_names(order)
    response = jsonify(
        code=order.code,
        state=order.state,
        payment_state=payment.state if payment is not None else None,
        reference=payment.reference if payment is not None else None,
        amount_minor=order.total_minor,
        currency=order.currency,
        version=_version(order, payment),
        tickets=[_ticket_json(ticket, order, names) for ticket in order.tickets],
    )
    response.headers["Cache-Control"] = "private, no-store"
    return response


@bp.post(f"{_PAGE}/check")
@limiter.limit("60 per minute", key_func=order_key)
def check(code: str, secret: str) -> BaseResponse:
    order = _checked(code, secret)
    now = _latest(order)
    if now is not None and now.is_active:
        flash("Still no final word. We keep asking, and will e-mail you.", "info")
    return _back(order)


@bp.post(f"{_PAGE}/pay")
@limiter.limit("30 per minute", key_func=order_key)
def pay(code: str, secret: str) -> BaseResponse:
    order = managing.find(code, secret)
    try:
        payer = _payer(order)
        paid_for, payment = paying_again.pay(
            order.id,
            request.form.get("provider") or _last_provider(order),
            payer_id=payer.id if payer is not None else None,
            shown=request.form.get("price", ""),
            method=request.form.get("method", ""),
        )
    except DomainError as error:
        flash(error.message, "error")
        return _back(order)
    return redirect(_payable_at(payment) or _address(paid_for), 303)


@bp.post(f"{_PAGE}/cancel")
@limiter.limit("30 per minute", key_func=order_key)
def cancel(code: str, secret: str) -> BaseResponse:
    order = managing.find(code, secret)
    try:
        managing.cancel(order, door="order_page")
    except DomainError as error:
        # That it is being cancelled still is what the page itself says.
        if error.code not in ("cancelling", "provider_silent"):
            flash(error.message, "error")
    return _back(order)


@bp.post(f"{_PAGE}/email")
@limiter.limit("10 per hour", key_func=order_key)
def correct_email(code: str, secret: str) -> BaseResponse:
    order = managing.find(code, secret)
    try:
        managing.correct_email(order, request.form.get("email", ""))
    except DomainError as error:
        flash(error.message, "error")
    else:
        flash("Thank you. We have sent this order's link to the new address.", "success")
    return _back(order)


@bp.post(f"{_PAGE}/resend")
@limiter.limit("5 per hour", key_func=order_key)
def resend(code: str, secret: str) -> BaseResponse:
    order = managing.find(code, secret)
    try:
        managing.resend(order, door="order_page")
    except DomainError as error:
        flash(error.message, "error")
    else:
        words = ("Your tickets are on their", "The code for the door is on its")[order.is_entry]
        flash(f"{words} way once more. Look in the spam folder too.", "success")
    return _back(order)


@bp.get(f"{_PAGE}/tickets.pdf")
@limiter.limit("60 per minute", key_func=order_key)
def tickets_pdf(code: str, secret: str) -> BaseResponse:
    order = managing.find(code, secret)
    if not _admitting(order):
        flash(f"There {('are no tickets', 'is no entry')[order.is_entry]} to print.", "error")
        return _back(order)
    name = documents.pdf_name(order)
    return attachment(documents.tickets_pdf(order), "application/pdf", name)


@bp.get(f"{_PAGE}/event.ics")
def calendar(code: str, secret: str) -> Response:
    order = managing.find(code, secret)
    return attachment(documents.calendar(order), "text/calendar; charset=utf-8", f"{order.code}.ics")


def onward(order: Order) -> str:
    """Where the buyer goes after ordering: to the provider's page, or to the order's where there is none."""
    if order.total_minor:
        try:
            payment = starting.open_at_provider(order)
        except DomainError as error:
            flash(error.message, "error")
        else:
            return _payable_at(payment) or _address(order)
    return _address(order)


def _payable_at(payment: Payment | None) -> str | None:
    """The provider's page, while the payment can be made there; None where our page says how to pay."""
    return presenting.page_of(payment)


def attachment(data: bytes, content_type: str, filename: str) -> Response:
    """A file to keep where its reader puts it. No cache stores it: an order's are behind a secret address."""
    headers = {
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Cache-Control": "private, no-store",
    }
    return Response(data, content_type=content_type, headers=headers)


def _checked(code: str, secret: str) -> Order:
    """The order as the payment provider knows it now."""
    order = managing.find(code, secret, whole=True)
    asked = reconciling.refresh(order, door="order_page")
    return managing.find(code, secret, whole=True) if asked else order


def _payer(order: Order) -> User | None:
    """The visitor, where the order is theirs: others who have its link cannot use their wallet for it."""
    user = signed_in()
    return user if user is not None and user.id == order.user_id else None


def _address(order: Order) -> str:
    return url_for("order.show", code=order.code, secret=order.secret)


def _back(order: Order) -> BaseResponse:
    return redirect(_address(order), 303)


def _latest(order: Order) -> Payment | None:
    """The payment that the buyer is told about: the one that bought the goods, else the latest attempt."""
    bought = next((payment for payment in order.payments if payment.fulfilled), None)
    return bought or (order.payments[-1] if order.payments else None)


def _last_provider(order: Order) -> str:
    payment = _latest(order)
    return payment.provider if payment is not None else ""


def _face(order: Order, payment: Payment | None) -> str:
    if order.state in _FACES:
        gone = order.tickets and all(ticket.state is TicketState.VOID for ticket in order.tickets)
        return "withdrawn" if gone and _FACES[order.state] == "paid" else _FACES[order.state]
    if payment is None:
        return "starting"
    if payment.state in (PaymentState.CREATED, PaymentState.OPEN) and payment.cancel_asked_at is not None:
        return "cancelling"
    if payment.awaits_buyer and payment.state is PaymentState.CREATED:
        return "again" if _ended_before(order, payment) is not None else "kept"
    if payment.state is PaymentState.OPEN and payment.returned_at is not None:
        return "confirming"
    return _PAYING.get(payment.state, "closed")


def _ended_before(order: Order, payment: Payment | None) -> Payment | None:
    """The attempt in whose place the buyer may ask for another one."""
    if payment is None or not payment.awaits_buyer:
        return None
    earlier = [other for other in order.payments if other.attempt < payment.attempt]
    return earlier[-1] if earlier else None


def _version(order: Order, payment: Payment | None) -> str:
    """Changes whenever the page would look different."""
    used = sum(1 for ticket in order.tickets if ticket.checked_in_at is not None)
    valid = sum(1 for ticket in order.tickets if ticket.state is TicketState.VALID)
    paying = "-"
    if payment is not None:
        known = (payment.url, payment.returned_at, payment.cancel_asked_at, payment.error_count)
        told = "".join("x" if thing else "-" for thing in known)
        paying = f"{payment.attempt}.{payment.state}.{told}.{payment.last_decline[-8:]}"
        paying += presenting.stage(payment)
    return f"{order.state}/{paying}/{valid}.{used}"


def _type_names(order: Order) -> dict[int, str]:
    """Ticket type id -> name, from the order's lines, which are there already."""
    return {
        line.ticket_type.id: line.ticket_type.name for line in order.lines if line.ticket_type is not None
    }


def _admitting(order: Order) -> list[Ticket]:
    return [ticket for ticket in order.tickets if ticket.state is TicketState.VALID]


def _ticket_json(ticket: Ticket, order: Order, names: dict[int, str]) -> dict[str, Any]:
    valid = ticket.state is TicketState.VALID
    return {
        "code": ticket.code,
        "number": ticket.number,
        "type": names.get(ticket.ticket_type_id, ""),
        "holder": ticket.holder,
        "state": ticket.state,
        "checked_in_at": ticket.checked_in_at.isoformat() if ticket.checked_in_at is not None else None,
        "qr": issuing.qr_text(ticket, order.code) if valid else None,
    }
