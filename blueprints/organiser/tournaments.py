"""An organiser's tournaments: making them, their categories, and who is entered."""

from __future__ import annotations

from typing import Any

from flask import Response, flash, g, redirect, render_template, request, stream_with_context, url_for
from wtforms import BooleanField, SelectField, StringField, TextAreaField
from wtforms.validators import Length, Optional

import config
from blueprints.organiser.blueprint import Page, bp, event_page, me
from blueprints.organiser.events import EventForm, offer_ways
from blueprints.organiser.forms import (
    Number,
    TicketTypeFields,
    as_typed,
    by_rule,
    event_values,
    moment,
    moment_of,
    shown_event,
    shown_type,
    text,
    type_values,
)
from domain.catalogue import grades, tournaments
from domain.errors import NotFound
from domain.office import organiser_events, participants
from models import Category, Event, ParticipantState, Role, Sex, TicketType, Withdrawal

# --- Tournaments ----------------------------------------------------------------------------------------


class TournamentForm(EventForm):
    """An event's fields, and what a tournament has beside."""

    rules = TextAreaField("Rules", render_kw={"rows": 8}, description="Equipment, weigh-in, draw, protests.")
    withdraw_until = moment("Entries can be withdrawn until", note="Empty: until it starts.")
    withdrawal = SelectField(
        "Who withdraws gets back",
        choices=[(Withdrawal.ALL, "the whole fee"), (Withdrawal.NOTHING, "nothing")],
    )
    public_list = BooleanField("Everybody may read the start list: names and clubs")


@bp.route("/tournaments/new", methods=["GET", "POST"])
def new_tournament() -> Page:
    form, owner = TournamentForm(), None if me().role is Role.ADMIN else me().id
    offer_ways(form, owner)
    if not form.is_submitted():
        form.providers.data = organiser_events.preselected(owner) if owner is not None else []
        form.timezone.data, form.currency.data = config.get().timezone, config.get().currency
    elif form.validate():
        made = by_rule(lambda: organiser_events.create_tournament(me(), _own(form), event_values(form)), form)
        if made:
            flash("The tournament is saved as a draft. Add its categories next.", "success")
            return redirect(url_for(".event", slug=made.slug), 303)
    page = render_template("organiser/event_form.html", form=form, event=None)
    return (page, 400) if form.is_submitted() else page


@bp.route("/events/<slug>/tournament", methods=["GET", "POST"])
def edit_tournament() -> Page:
    form = TournamentForm(data=shown_event(g.event) | _shown(_tournament()))
    offer_ways(form, g.event.organiser_id)

    def save() -> bool:
        values = event_values(form)
        values["slug"] = values["slug"] or g.event.slug
        organiser_events.change_tournament(g.event, _own(form), values, moves=bool(form.moves.data))
        return True

    if form.validate_on_submit() and by_rule(save, form):
        flash("The tournament is saved.", "success")
        return redirect(event_page(), 303)
    page = render_template("organiser/event_form.html", form=form, event=g.event)
    return (page, 400) if form.is_submitted() else page


def _tournament() -> Event:
    """This event, if it is a tournament. NotFound otherwise."""
    found: Event = g.event
    if not found.is_tournament:
        raise NotFound("no_tournament", "This event is not a tournament.")
    return found


def _shown(event: Event) -> dict[str, Any]:
    own = event.tournament
    if own is None:
        return {}
    until = as_typed(own.withdraw_until, event.timezone)
    return {
        "rules": own.rules,
        "withdraw_until": until,
        "withdrawal": own.withdrawal,
        "public_list": own.public_list,
    }


def _own(form: TournamentForm) -> dict[str, Any]:
    return {
        "rules": text(form.rules),
        "withdraw_until": moment_of(form, "withdraw_until", text(form.timezone)),
        "withdrawal": Withdrawal(form.withdrawal.data),
        "public_list": bool(form.public_list.data),
    }


# --- Categories -----------------------------------------------------------------------------------------

_GRADES = [("", "No limit"), *((str(grade), words) for grade, words in grades.listed())]


class CategoryForm(TicketTypeFields):
    """A ticket type's fields as a category's, and whom it is for."""

    kind_currency = StringField(
        "Currency", validators=[Length(max=3)], description="Empty: the tournament's."
    )
    min_age = Number(
        "Youngest, in years", validators=[Optional()], description="On the first day. Empty: no limit."
    )
    max_age = Number("Oldest, in years", validators=[Optional()])
    min_weight = StringField("Lightest, in kg", validators=[Length(max=10)])
    max_weight = StringField("Heaviest, in kg", validators=[Length(max=10)])
    sex = SelectField(
        "For",
        choices=[("", "everybody"), (Sex.FEMALE, "girls and women"), (Sex.MALE, "boys and men")],
        default="",
    )
    min_grade = SelectField("Lowest grade", choices=_GRADES, default="")
    max_grade = SelectField("Highest grade", choices=_GRADES, default="")


def _category_form(kind: TicketType | None) -> CategoryForm:
    form = CategoryForm(data=(shown_type(kind) | _limits_shown(kind)) if kind is not None else None)
    form.price.label.text, form.capacity.label.text = "Entry fee", "Places"
    form.sales_open_at.label.text = "Entries open"
    form.sales_close_at.label.text = "Entries close"
    form.price.description = "In the category's currency; 0 is free."
    # An entry is for one athlete.
    del form.per_order_limit
    return form


@bp.route("/events/<slug>/categories/new", methods=["GET", "POST"])
def new_category() -> Page:
    return _category_page(_tournament(), None)


@bp.route("/events/<slug>/categories/<int:type_id>", methods=["GET", "POST"])
def edit_category(type_id: int) -> Page:
    event = _tournament()
    return _category_page(event, tournaments.category(event, type_id))


def _category_page(event: Event, kind: TicketType | None) -> Page:
    """The form of a category, and what it sent; without a `kind` it makes one."""
    form = _category_form(kind)
    if kind is None and not form.is_submitted():
        form.position.data = len(event.ticket_types)

    def save() -> TicketType:
        limits, values = _limits(form), _category_values(form, event)
        if kind is None:
            return tournaments.add_category(event, limits, values)
        return tournaments.change_category(kind, limits, values)

    if form.validate_on_submit() and by_rule(save, form):
        flash("The category is added." if kind is None else "The category is saved.", "success")
        return redirect(event_page(), 303)
    page = render_template("organiser/type_form.html", form=form, event=event, kind=kind)
    return (page, 400) if form.is_submitted() else page


def _category_values(form: CategoryForm, event: Event) -> dict[str, Any]:
    currency = text(form.kind_currency).upper() or None
    if currency == event.currency:
        currency = None
    return type_values(form, event, currency=currency) | {"currency": currency}


def _limits(form: CategoryForm) -> dict[str, Any]:
    weights = {f"{name}_weight_g": tournaments.grams(text(form[f"{name}_weight"])) for name in ("min", "max")}
    chosen = {name: form[name].data for name in ("min_grade", "max_grade")}
    found = {name: int(value) if value else None for name, value in chosen.items()}
    return {
        "min_age": form.min_age.data,
        "max_age": form.max_age.data,
        "sex": Sex(form.sex.data) if form.sex.data else None,
        **weights,
        **found,
    }


def _limits_shown(kind: TicketType) -> dict[str, Any]:
    limits = kind.category or Category()
    weights = {
        f"{name}_weight": tournaments.say_kilograms(grams) if grams is not None else ""
        for name, grams in (("min", limits.min_weight_g), ("max", limits.max_weight_g))
    }
    found = {"min_grade": limits.min_grade, "max_grade": limits.max_grade}
    shown = {name: str(grade) if grade is not None else "" for name, grade in found.items()}
    ages = {"min_age": limits.min_age, "max_age": limits.max_age}
    return weights | shown | ages | {"sex": limits.sex or "", "kind_currency": kind.currency or ""}


# --- Who is entered -------------------------------------------------------------------------------------


@bp.get("/events/<slug>/entries")
def entry_list() -> str:
    event, words = _tournament(), request.args.get("q", "").strip()[:100]
    state, type_id = _state(), request.args.get("category", type=int)
    found = participants.find(event, words, state, type_id, request.args.get("before", type=int))
    return render_template(
        "organiser/entries.html",
        event=event,
        found=found,
        words=words,
        state=state,
        states=ParticipantState,
        type_id=type_id,
        tallies=participants.tallies(event),
        days=participants.revenue_by_day(event),
        consents=participants.consents(event, found.rows),
        misplaced=participants.misplaced(event, found.rows),
        age_on=tournaments.age_on,
        first_day=tournaments.first_day(event),
        kilograms=tournaments.say_kilograms,
        say_grade=grades.say,
    )


@bp.get("/events/<slug>/entries.csv")
def entry_file() -> Response:
    event = _tournament()
    headers = {"Content-Disposition": f'attachment; filename="entries-{event.slug}.csv"'}
    parts = stream_with_context(participants.as_csv(event))
    return Response(parts, content_type="text/csv; charset=utf-8", headers=headers)


@bp.get("/events/<slug>/start-list")
def start_list() -> str:
    event = _tournament()
    return render_template(
        "organiser/start_list.html",
        event=event,
        found=participants.start_list(event),
        ages=tournaments.say_ages,
        say_grade=grades.say,
    )


def _state() -> ParticipantState | None:
    try:
        return ParticipantState(request.args.get("state", ""))
    except ValueError:
        return None
