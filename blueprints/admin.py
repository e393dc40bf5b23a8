"""The back office: orders and their timelines, the money inbox, sweeps, jobs, mail, the provider's state."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from flask import Blueprint, Flask, abort, flash, jsonify, redirect, render_template, request, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import Field, IntegerField, SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired, Email, InputRequired, Length

import config
from blueprints import records, refunding
from blueprints.access import role_required
from blueprints.refunding import checked, payment_of
from blueprints.visitor import signed_in
from domain import addresses, jobs, money
from domain.catalogue import house_account as house
from domain.door import staff as doors
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import overview
from domain.orders import placing as orders_domain
from domain.payments import incident_decisions, incidents, poll_schedule, reconciling, refundable, settling
from domain.payments import poll_schedule as poll_rules
from domain.people import organisers
from domain.post import outbox
from models import MailState, OrderState, OrganiserState, PaymentState, Role

bp = Blueprint("admin", __name__, url_prefix="/admin")
debug_bp = Blueprint("debug", __name__)

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
S = TypeVar("S", bound=StrEnum)


def register(app: Flask) -> None:
    """Add the back office, the plain records, and the provider's page for development."""
    app.register_blueprint(bp)
    app.register_blueprint(debug_bp)
    records.register(app)


@bp.before_request
@role_required(Role.ADMIN)
def _only_admins() -> None:
    """Every page here is for admins."""


# --- Reading what was sent ------------------------------------------------------------------------------


class DecideForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    state = SelectField(choices=[(s.value, s.value) for s in PaymentState])
    note = StringField(validators=[DataRequired("Say why."), Length(max=300)])


class StopForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    reason = StringField(validators=[DataRequired("Say why."), Length(max=300)])


class ExtendForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    minutes = IntegerField(validators=[InputRequired("Give the minutes as a whole number.")])
    note = StringField(validators=[DataRequired("Say why."), Length(max=300)])


class ApproveForm(FlaskForm):
    payment_id = IntegerField(validators=[DataRequired()])
    note = StringField(validators=[DataRequired("Say why."), Length(max=300)])


class ResolveForm(FlaskForm):
    how = SelectField(choices=[(way, way) for way in incident_decisions.WAYS])
    reason = TextAreaField(validators=[DataRequired("Say why."), Length(max=1000)])


class TestMailForm(FlaskForm):
    address = StringField(validators=[DataRequired("Type an address."), Email("That is not an address.")])


def _text(field: Field) -> str:
    return str(field.data or "")


def _chosen(kind: type[S], name: str = "state") -> S | None:
    """A filter from the address; None for all, and for what there is not."""
    try:
        return kind(request.args.get(name, ""))
    except ValueError:
        return None


def _act(do: Callable[[], tuple[str, str]], back: str) -> Response:
    """Do something, say how it went, and go back to where it was asked."""
    try:
        category, words = do()
    except DomainError as error:
        category, words = "danger", error.message
    flash(words, category)
    return redirect(back, 303)


def _me() -> int:
    return int(current_user.id)


# --- The front page and orders --------------------------------------------------------------------------


@bp.get("/")
def index() -> str:
    return render_template("admin/desk.html", desk=overview.dashboard())


@bp.get("/orders")
def orders() -> str:
    words, state = request.args.get("q", "")[:200], _chosen(OrderState)
    found = overview.orders(words, state, request.args.get("before", type=int))
    return render_template("admin/orders.html", found=found, words=words, state=state, states=OrderState)


@bp.get("/orders/<code>")
def order(code: str) -> str:
    found = overview.order_file(code)
    left = {payment.id: refundable.refundable_minor(payment) for payment in found.order.payments}
    return render_template(
        "admin/order.html",
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
        return _OUTCOMES[reconciling.reconcile(payment, door="recheck", actor_id=_me()).verdict]

    return _act(do, _page_of(code))


def _payment(code: str, payment_id: int | None) -> int:
    return payment_of(overview.order_file(code).order, payment_id)


@bp.post("/orders/<code>/resend")
def resend(code: str) -> Response:
    def do() -> tuple[str, str]:
        found = overview.order_file(code).order
        orders_domain.resend(found, door="admin", actor_id=_me())
        return "success", f"The tickets are on their way to {addresses.shown(found.email)}."

    return _act(do, _page_of(code))


@bp.post("/orders/<code>/refund")
def refund(code: str) -> str | Response:
    """Send all or part of a payment back, and void the tickets that were chosen: shown first, then done."""
    order = overview.order_file(code).order
    return refunding.refund(
        order, actor_id=_me(), door="admin", page=_page_of(code), frame="admin/frame.html"
    )


@bp.post("/orders/<code>/decide")
def decide(code: str) -> Response:
    """Take a payment out of review."""

    def do() -> tuple[str, str]:
        form = DecideForm()
        checked(form)
        payment_id, state = _payment(code, form.payment_id.data), PaymentState(form.state.data)
        outcome = settling.decide(payment_id, state=state, actor_id=_me(), note=_text(form.note))
        return "success", f"The payment is {outcome.state} now."

    return _act(do, _page_of(code))


@bp.post("/orders/<code>/approve")
def approve(code: str) -> Response:
    """Hand over the goods for a payment in review."""

    def do() -> tuple[str, str]:
        form = ApproveForm()
        checked(form)
        payment_id = _payment(code, form.payment_id.data)
        incident_decisions.approve(payment_id, note=_text(form.note), actor_id=_me())
        return "success", "Approved: the goods are handed over, and the buyer gets a mail."

    return _act(do, _page_of(code))


@bp.post("/orders/<code>/stop-polling")
def stop_polling(code: str) -> Response:
    """Sweeps stop asking about a payment until it ends."""

    def do() -> tuple[str, str]:
        form = StopForm()
        checked(form)
        poll_rules.stop_polling(_payment(code, form.payment_id.data), _text(form.reason), _me())
        return "success", "Polling is stopped. The payment is read once more when it ends."

    return _act(do, _page_of(code))


@bp.post("/orders/<code>/extend")
def extend(code: str) -> Response:
    """Give a payment more minutes before it is closed."""

    def do() -> tuple[str, str]:
        form = ExtendForm()
        checked(form)
        minutes = form.minutes.data or 0
        poll_rules.extend(_payment(code, form.payment_id.data), minutes, _me(), _text(form.note))
        return "success", f"The payment has {minutes} minutes more, and is polled until then."

    return _act(do, _page_of(code))


@bp.post("/orders/<code>/cancel")
def cancel(code: str) -> Response:
    def do() -> tuple[str, str]:
        found = orders_domain.cancel(overview.order_file(code).order, door="admin", actor_id=_me())
        if found.state is OrderState.CANCELLED:
            return "success", "The order is cancelled and its tickets are on sale again."
        return "info", f"The order is {found.state} now."

    return _act(do, _page_of(code))


# --- Payments and the money inbox -----------------------------------------------------------------------


@bp.get("/payments")
def pending() -> str:
    state = _chosen(PaymentState)
    found = overview.payments(state, request.args.get("before", type=int))
    polled = {payment.id: overview.polled(payment) for payment in found.rows}
    return render_template(
        "admin/payments.html", found=found, polled=polled, state=state, states=PaymentState
    )


@bp.get("/incidents")
def inbox() -> str:
    decided = request.args.get("decided") == "1"
    found = overview.incidents(decided=decided, before=request.args.get("before", type=int))
    return render_template("admin/incidents.html", found=found, decided=decided, kinds=incidents.KINDS)


@bp.get("/incidents/<int:incident_id>")
def incident(incident_id: int) -> str:
    found = overview.incident(incident_id)
    return render_template(
        "admin/incident.html", incident=found, kinds=incidents.KINDS, ways=incident_decisions.ways(found)
    )


@bp.post("/incidents/<int:incident_id>/resolve")
def resolve(incident_id: int) -> Response:
    """Hand over the goods, send the money back, credit it to the wallet, or dismiss the incident."""

    def do() -> tuple[str, str]:
        form = ResolveForm()
        checked(form)
        found = incident_decisions.resolve(
            incident_id, how=form.how.data, reason=_text(form.reason), actor_id=_me()
        )
        return "success", f"Decided: {found.resolution}."

    return _act(do, url_for("admin.incident", incident_id=incident_id))


# --- Organisers -----------------------------------------------------------------------------------------


class OrganiserForm(FlaskForm):
    do = SelectField(choices=[(name, name) for name in ("approve", "reject", "suspend")])
    reason = StringField(validators=[Length(max=300)])


@bp.get("/organisers")
def organiser_list() -> str:
    state = _chosen(OrganiserState)
    found = organisers.listed(state, request.args.get("before", type=int))
    return render_template("admin/organisers.html", found=found, state=state, states=OrganiserState)


@bp.get("/organisers/<int:organiser_id>")
def organiser(organiser_id: int) -> str:
    found = organisers.find(organiser_id)
    events = organisers.events_of(found.user)
    return render_template(
        "admin/organiser.html",
        organiser=found,
        events=events,
        held=transfers.held_for(found.user_id),
        everybody=config.get().house_account_for_organisers,
    )


@bp.post("/organisers/<int:organiser_id>/house")
def house_account(organiser_id: int) -> Response:
    """Let an organiser sell through the house's account, or not any more."""

    def do() -> tuple[str, str]:
        found = house.allow(organiser_id, request.form.get("allowed") == "yes")
        may = "may sell" if found.house_account else "does not sell"
        return "success", f"{found.name} {may} through the house’s account now."

    return _act(do, url_for("admin.organiser", organiser_id=organiser_id))


@bp.post("/organisers/<int:organiser_id>")
def decide_organiser(organiser_id: int) -> Response:
    """Approve, reject or suspend."""

    def do() -> tuple[str, str]:
        form = OrganiserForm()
        checked(form)
        found = organisers.decide(organiser_id, form.do.data, reason=_text(form.reason), actor_id=_me())
        return "success", f"{found.name} is {found.state} now, and a mail tells them so."

    return _act(do, url_for("admin.organiser", organiser_id=organiser_id))


# --- Doors ----------------------------------------------------------------------------------------------


@bp.get("/events/<slug>/door")
def door(slug: str) -> str:
    event = overview.event(slug)
    return render_template("admin/door.html", event=event, passes=doors.passes(event), made=None, pin="")


@bp.post("/events/<slug>/door")
def make_pass(slug: str) -> str | Response:
    """Make a link and PIN for the staff of one door. The PIN is shown on this answer and never again."""
    event = overview.event(slug)
    try:
        made, pin = doors.make_pass(event, request.form.get("label", ""), signed_in())
    except DomainError as error:
        flash(error.message, "danger")
        return redirect(url_for("admin.door", slug=slug), 303)
    found = doors.passes(event)
    return render_template(
        "admin/door.html", event=event, passes=found, made=made, pin=pin, link=doors.url(made)
    )


@bp.post("/events/<slug>/door/<int:pass_id>/revoke")
def revoke_pass(slug: str, pass_id: int) -> Response:
    def do() -> tuple[str, str]:
        doors.revoke(overview.event(slug), pass_id)
        return "success", "The link no longer opens the door."

    return _act(do, url_for("admin.door", slug=slug))


# --- Sweeps, jobs and mail ------------------------------------------------------------------------------


@bp.get("/sweeps")
def sweeps() -> str:
    try:
        failed, scheduled, problem = jobs.failed(), jobs.scheduled(), ""
    except DomainError as error:
        failed, scheduled, problem = [], [], error.message
    return render_template(
        "admin/sweeps.html", sweeps=overview.sweeps(), failed=failed, scheduled=scheduled, problem=problem
    )


@bp.post("/jobs/<job_id>/requeue")
def requeue(job_id: str) -> Response:
    def do() -> tuple[str, str]:
        jobs.requeue(job_id)
        return "success", "The job will run again in a moment."

    return _act(do, url_for("admin.sweeps"))


@bp.get("/mail")
def mail() -> str:
    state = _chosen(MailState)
    found = overview.mails(state, request.args.get("before", type=int))
    return render_template("admin/mail.html", found=found, state=state, states=MailState)


@bp.post("/mail/<int:mail_id>/retry")
def retry_mail(mail_id: int) -> Response:
    def do() -> tuple[str, str]:
        outbox.retry(mail_id)
        return "success", "The mail will be tried again within a minute."

    return _act(do, url_for("admin.mail"))


@bp.post("/mail/test")
def test_mail() -> Response:
    """Send a test mail now, to prove that mail leaves."""

    def do() -> tuple[str, str]:
        form = TestMailForm()
        checked(form)
        return "success", outbox.send_test(_text(form.address))

    return _act(do, url_for("admin.mail"))


# --- The provider's state -------------------------------------------------------------------------------


@bp.get("/<any(stripe, sumup):name>")
def provider(name: str) -> Response | str:
    return _provider_page(name)


@debug_bp.get("/stripe/debug/")
def provider_debug() -> Response | str:
    """The same, for whoever develops: there is no such page in production."""
    if config.get().production:
        abort(404)
    return _provider_page("stripe")


def _provider_page(name: str) -> Response | str:
    found = overview.connection(name)
    if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json":
        return jsonify(
            ready=found.ready,
            connected=not found.problem,
            problem=found.problem,
            webhook_secret=found.webhook_secret,
            events=[
                {
                    "id": event.event_id,
                    "type": event.type,
                    "object": event.object_id,
                    "received_at": event.received_at.isoformat(),
                    "done_at": event.done_at.isoformat() if event.done_at is not None else None,
                    "outcome": event.outcome,
                }
                for event in found.events
            ],
            **{name: value for name, value in found.facts.items() if name != "webhook_secret"},
        )
    return render_template("admin/provider.html", found=found, debug=request.path.startswith("/stripe"))
