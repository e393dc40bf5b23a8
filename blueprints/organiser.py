"""The organisers' own pages: applying, the profile, and their events with ticket types.

Every page of one event has its slug in the address. It is taken out of it and the event is found before the
view, so that no view can forget whose event it is: others' answer 404, as if there were none. What is sold
for an event is in `blueprints/organiser_sales.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import StringField, TextAreaField
from wtforms.validators import InputRequired, Length

import config
from blueprints.access import ask_to_log_in
from blueprints.event_forms import (
    EventFields,
    TicketTypeFields,
    by_rule,
    event_values,
    shown_event,
    shown_type,
    type_values,
)
from blueprints.visitor import signed_in
from domain import addresses
from domain.catalogue import events, payees, takings
from domain.errors import DomainError, NotFound
from domain.ledger import transfers
from domain.office import organiser_events
from domain.orders import event_cancellation, publishing
from domain.people import organisers
from domain.people.organisers import FIELDS
from models import Role, TicketType, User

bp = Blueprint("organiser", __name__, url_prefix="/organiser")

# Whoever is logged in may ask to become an organiser.
_FOR_MEMBERS = ("organiser.application", "organiser.apply")
Page = str | Response | tuple[str, int]


def register(app: Flask) -> None:
    """Add the organisers' pages."""
    # Its views are on this module's blueprint, so it can be imported only once that is made.
    import_module("blueprints.organiser_sales")
    app.register_blueprint(bp)


# --- Who is there, and whose event it is ----------------------------------------------------------------


@bp.url_value_preprocessor
def _take_slug(endpoint: str | None, values: dict[str, Any] | None) -> None:
    g.event_slug = (values or {}).pop("slug", None)


@bp.url_defaults
def _give_slug(endpoint: str, values: dict[str, Any]) -> None:
    slug = g.event.slug if "event" in g else None
    if slug is not None and current_app.url_map.is_endpoint_expecting(endpoint, "slug"):
        values.setdefault("slug", slug)


@bp.before_request
def _guard() -> Page | None:
    """Strangers may log in, members read how to become an organiser, others' events are not there."""
    user = signed_in()
    if user is None:
        return ask_to_log_in()
    if request.endpoint in _FOR_MEMBERS:
        return None
    if user.role not in (Role.ORGANISER, Role.ADMIN):
        return render_template("organiser/not_yet.html", profile=organisers.of(user)), 403
    if g.event_slug is not None:
        g.event = organisers.event_for(user, g.event_slug)
    return None


@bp.after_request
def _not_kept(response: Any) -> Any:
    """Names and takings stay in no cache and behind no Back button."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def me() -> User:
    """The member whose pages these are."""
    member = signed_in()
    if member is None:
        abort(403)
    return member


def act(do: Callable[[], str], back: str) -> Response:
    """Do something, say how it went, and go to the page `back`."""
    try:
        flash(do(), "success")
    except DomainError as error:
        flash(error.message, "danger")
    return redirect(back, 303)


def event_page() -> str:
    """The address of the event's first page."""
    return url_for("organiser.event", slug=g.event.slug)


# --- Applying, and the profile --------------------------------------------------------------------------


class ProfileForm(FlaskForm):
    name = StringField(
        "Name",
        validators=[InputRequired("Type a name."), Length(max=FIELDS["name"])],
        description="As buyers know you: a club, a venue, a company, or yourself.",
    )
    contact_email = StringField(
        "Contact e-mail",
        validators=[InputRequired("Type an address.")],
        description="Buyers see it on your events and may write to it.",
    )
    description = TextAreaField(
        "What do you put on?", validators=[Length(max=FIELDS["description"])], render_kw={"rows": 5}
    )
    website = StringField("Website", validators=[Length(max=FIELDS["website"])])
    phone = StringField(
        "Phone", validators=[Length(max=FIELDS["phone"])], description="For us. Buyers do not see it."
    )


def _profile_form() -> ProfileForm:
    """The form with what is known already."""
    user = me()
    known = organisers.of(user)
    first = {"name": user.name, "contact_email": addresses.shown(user.email)}
    return ProfileForm(data={name: getattr(known, name) for name in FIELDS} if known is not None else first)


def _typed(form: FlaskForm) -> dict[str, str]:
    return {name: str(form[name].data or "") for name in FIELDS}


@bp.get("/apply")
def application() -> Page:
    if me().role in (Role.ORGANISER, Role.ADMIN):
        return redirect(url_for(".index"), 303)
    return render_template("organiser/apply.html", form=_profile_form(), profile=organisers.of(me()))


@bp.post("/apply")
def apply() -> Page:
    form = _profile_form()
    if form.validate() and by_rule(lambda: organisers.apply(me(), _typed(form)), form):
        flash("Thank you. We look at your application and mail you what was decided.", "success")
        return redirect(url_for(".application"), 303)
    return render_template("organiser/apply.html", form=form, profile=organisers.of(me())), 400


@bp.route("/profile", methods=["GET", "POST"])
def profile() -> Page:
    form = _profile_form()
    if form.validate_on_submit() and by_rule(lambda: organisers.edit(me(), _typed(form)), form):
        flash("Your profile is saved.", "success")
        return redirect(url_for(".index"), 303)
    page = render_template("organiser/profile.html", form=form)
    return (page, 400) if form.is_submitted() else page


# --- Events ---------------------------------------------------------------------------------------------


class EventForm(EventFields):
    """An event's fields, with the ways to pay that its organiser may choose from."""


def _offer_ways(form: EventForm, owner: int | None) -> None:
    """The form's ways to pay, and whose accounts they are."""
    form.providers.choices = organiser_events.ways(owner)
    form.providers.description = organiser_events.say_ways(owner)


@bp.get("/")
def index() -> str:
    return render_template("organiser/index.html", desk=organiser_events.desk(me()), fee=publishing.fee())


@bp.route("/events/new", methods=["GET", "POST"])
def new_event() -> Page:
    form, owner = EventForm(), None if me().role is Role.ADMIN else me().id
    _offer_ways(form, owner)
    if not form.is_submitted():
        form.providers.data = organiser_events.preselected(owner) if owner is not None else []
        form.timezone.data, form.currency.data = config.get().timezone, config.get().currency
    elif form.validate():
        made = by_rule(lambda: organiser_events.create(me(), event_values(form)), form)
        if made:
            flash("The event is saved as a draft. Add its tickets next.", "success")
            return redirect(url_for(".event", slug=made.slug), 303)
    page = render_template("organiser/event_form.html", form=form, event=None)
    return (page, 400) if form.is_submitted() else page


@bp.get("/events/<slug>")
def event() -> str:
    return render_template(
        "organiser/event.html",
        event=g.event,
        sales=takings.of_event(g.event),
        steps=organiser_events.steps(g.event),
        fee=publishing.due(g.event),
        lacks_a_way=payees.lacks_a_way(g.event),
        held=transfers.held_for(g.event.organiser_id) if g.event.organiser_id is not None else {},
        refunding=event_cancellation.progress(g.event) if g.event.state == "cancelled" else None,
    )


@bp.route("/events/<slug>/edit", methods=["GET", "POST"])
def edit_event() -> Page:
    form = EventForm(data=shown_event(g.event))
    _offer_ways(form, g.event.organiser_id)

    def save() -> bool:
        values = event_values(form)
        values["slug"] = values["slug"] or g.event.slug
        organiser_events.change(g.event, values, moves=bool(form.moves.data))
        return True

    if form.validate_on_submit() and by_rule(save, form):
        flash("The event is saved.", "success")
        return redirect(event_page(), 303)
    page = render_template("organiser/event_form.html", form=form, event=g.event)
    return (page, 400) if form.is_submitted() else page


@bp.post("/events/<slug>/duplicate")
def duplicate() -> Response:
    try:
        made = events.duplicate_event(g.event)
    except DomainError as error:
        flash(error.message, "danger")
        return redirect(event_page(), 303)
    flash("This is the copy, a draft one week later. Set its dates.", "success")
    return redirect(url_for(".edit_event", slug=made.slug), 303)


@bp.post("/events/<slug>/delete")
def delete_event() -> Response:
    try:
        events.delete_event(g.event)
    except DomainError as error:
        flash(error.message, "danger")
        return redirect(event_page(), 303)
    flash("The event is gone.", "success")
    return redirect(url_for(".index"), 303)


@bp.get("/events/<slug>/cancel")
def cancelling_page() -> str:
    return render_template(
        "organiser/cancel.html", event=g.event, progress=event_cancellation.progress(g.event)
    )


@bp.post("/events/<slug>/cancel")
def cancel() -> Response:
    refund = request.form.get("refund") == "yes"

    def do() -> str:
        event_cancellation.cancel(g.event, refund=refund, actor_id=me().id)
        return "The event is cancelled." + (" Its buyers are being paid back." if refund else "")

    return act(do, event_page())


# --- Ticket types ---------------------------------------------------------------------------------------


@bp.route("/events/<slug>/types/new", methods=["GET", "POST"])
def new_type() -> Page:
    form = TicketTypeFields()
    form.price.description = events.price_words(g.event)
    if not form.is_submitted():
        form.position.data = len(g.event.ticket_types)

    def save() -> TicketType:
        return events.add_ticket_type(g.event, **type_values(form, g.event))

    if form.validate_on_submit() and by_rule(save, form):
        flash("The ticket is added.", "success")
        return redirect(event_page(), 303)
    page = render_template("organiser/type_form.html", form=form, event=g.event, kind=None)
    return (page, 400) if form.is_submitted() else page


@bp.route("/events/<slug>/types/<int:type_id>", methods=["GET", "POST"])
def edit_type(type_id: int) -> Page:
    kind = _type(type_id)
    form = TicketTypeFields(data=shown_type(kind))
    form.price.description = events.price_words(g.event)

    def save() -> TicketType:
        return events.update_ticket_type(kind, **type_values(form, g.event))

    if form.validate_on_submit() and by_rule(save, form):
        flash("The ticket is saved.", "success")
        return redirect(event_page(), 303)
    page = render_template("organiser/type_form.html", form=form, event=g.event, kind=kind)
    return (page, 400) if form.is_submitted() else page


@bp.post("/events/<slug>/types/<int:type_id>/delete")
def delete_type(type_id: int) -> Response:
    def do() -> str:
        events.delete_ticket_type(_type(type_id))
        return "The ticket is gone."

    return act(do, event_page())


def _type(type_id: int) -> TicketType:
    """A ticket type of this event. NotFound for any other."""
    found: TicketType | None = next((kind for kind in g.event.ticket_types if kind.id == type_id), None)
    if found is None:
        raise NotFound("no_ticket_type", "This event has no such ticket.")
    return found
