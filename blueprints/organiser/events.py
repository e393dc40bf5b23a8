"""The organisers' own pages: applying, the profile, and their events with ticket types.

Every page of one event has its slug in the address. It is taken out of it and the event is found before the
view, so that no view can forget whose event it is: others' answer 404, as if there were none. What is sold
for an event is in `blueprints/organiser/sales.py`.
"""

from __future__ import annotations

from flask import (
    flash,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response

import config
from blueprints import proofs
from blueprints.organiser.blueprint import Page, act, bp, event_page, me
from blueprints.organiser.forms import (
    EventFields,
    TicketTypeFields,
    by_rule,
    event_values,
    shown_event,
    shown_type,
    type_values,
)
from domain.catalogue import events, payees, takings
from domain.errors import DomainError, NotFound
from domain.ledger import transfers
from domain.office import organiser_events
from domain.orders import event_cancellation, line_switch, publishing
from models import LineMode, Role, TicketType

# --- Who is there, and whose event it is ----------------------------------------------------------------


# --- Applying, and the profile --------------------------------------------------------------------------


# --- Events ---------------------------------------------------------------------------------------------


class EventForm(EventFields):
    """An event's fields, with the ways to pay that its organiser may choose from."""


def offer_ways(form: EventForm, owner: int | None) -> None:
    """The form's ways to pay, and whose accounts they are."""
    form.providers.choices = organiser_events.provider_choices(owner)
    form.providers.description = organiser_events.describe_choices(owner)


@bp.get("/")
def index() -> str:
    return render_template("organiser/index.html", desk=organiser_events.desk(me()), fee=publishing.fee())


@bp.route("/events/new", methods=["GET", "POST"])
def new_event() -> Page:
    form, owner = EventForm(), None if me().role is Role.ADMIN else me().id
    offer_ways(form, owner)
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
        line=line_switch.standing(g.event),
        refunding=event_cancellation.progress(g.event) if g.event.state == "cancelled" else None,
    )


@bp.route("/events/<slug>/edit", methods=["GET", "POST"])
def edit_event() -> Page:
    if g.event.is_tournament:
        return redirect(url_for(".edit_tournament"))
    form = EventForm(data=shown_event(g.event))
    offer_ways(form, g.event.organiser_id)

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


@bp.post("/events/<slug>/line")
def line() -> Response:
    def switch() -> str:
        mode = request.form.get("line", "")
        line_switch.set_mode(g.event, mode)
        return line_switch.SWITCHED[LineMode(mode)]

    return act(switch, event_page())


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
    asked = proofs.for_deed() if refund else None
    if asked is not None:
        return asked

    def do() -> str:
        event_cancellation.cancel(g.event, refund=refund, actor_id=me().id)
        what, whom = (
            ("event", "Its buyers are") if not g.event.is_tournament else ("tournament", "All fees are")
        )
        return f"The {what} is cancelled." + (f" {whom} being paid back." if refund else "")

    return act(do, event_page())


# --- Ticket types ---------------------------------------------------------------------------------------


@bp.route("/events/<slug>/types/new", methods=["GET", "POST"])
def new_type() -> Page:
    if g.event.is_tournament:
        return redirect(url_for(".new_category"))
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
    if g.event.is_tournament:
        return redirect(url_for(".edit_category", type_id=type_id))
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
