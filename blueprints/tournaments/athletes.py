"""A member's own athletes and entries."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import DateField, SelectField, StringField
from wtforms.validators import InputRequired, Length

from blueprints import visitor
from blueprints.access import members_only
from blueprints.organiser.forms import by_rule, text
from domain.catalogue import grades, tournaments
from domain.errors import DomainError
from domain.orders import entries
from domain.people import athletes
from models import Athlete, Sex

bp = Blueprint("athletes", __name__, url_prefix="/account")
Page = str | Response | tuple[str, int]


@bp.before_request
@members_only
def _members_only() -> None:
    """Every page here is about somebody's children."""


bp.after_request(visitor.not_kept)


class BirthDate(DateField):
    """A date, which says in the reader's words what it is not."""

    def process_formdata(self, valuelist: list[str]) -> None:
        try:
            super().process_formdata(valuelist)
        except ValueError as error:
            raise ValueError("Type the date of birth, such as 2012-05-31.") from error


class AthleteForm(FlaskForm):
    name = StringField(
        "Name",
        validators=[InputRequired("Type the name."), Length(max=200)],
        description="As it stands on the start list.",
    )
    birth_date = BirthDate(
        "Born",
        validators=[InputRequired("Type the date of birth.")],
        description="Only you, the tournament’s organiser and our staff see it.",
    )
    sex = SelectField(choices=[("", "Not said"), (Sex.FEMALE, "Female"), (Sex.MALE, "Male")], default="")
    club = StringField(validators=[Length(max=200)])
    weight = StringField(
        "Weight in kg", validators=[Length(max=10)], description="It is forgotten after the tournament."
    )
    grade = SelectField(
        choices=[("", "None yet"), *((str(grade), words) for grade, words in grades.listed())], default=""
    )


@bp.get("/athletes")
def athlete_list() -> str:
    return render_template("tournaments/athletes.html", found=athletes.of(visitor.member()), say=_said)


@bp.route("/athletes/new", methods=["GET", "POST"])
def new_athlete() -> Page:
    form = AthleteForm()
    if form.validate_on_submit() and by_rule(lambda: athletes.add(visitor.member(), _values(form)), form):
        flash(f"{text(form.name)} can be entered now.", "success")
        return redirect(url_for(".athlete_list"), 303)
    page = render_template("tournaments/athlete.html", form=form, athlete=None)
    return (page, 400) if form.is_submitted() else page


@bp.route("/athletes/<public_id>", methods=["GET", "POST"])
def edit_athlete(public_id: str) -> Page:
    found = athletes.find(visitor.member(), public_id)
    form = AthleteForm(data=_shown(found))
    if form.validate_on_submit() and by_rule(lambda: athletes.change(found, _values(form)), form):
        flash("Saved.", "success")
        return redirect(url_for(".athlete_list"), 303)
    page = render_template("tournaments/athlete.html", form=form, athlete=found)
    return (page, 400) if form.is_submitted() else page


@bp.post("/athletes/<public_id>/remove")
def remove_athlete(public_id: str) -> Response:
    found = athletes.find(visitor.member(), public_id)
    name = found.name
    athletes.remove(found)
    flash(f"{name} is removed. Entries that were made stay.", "success")
    return redirect(url_for(".athlete_list"), 303)


@bp.get("/entries")
def entry_list() -> str:
    found = entries.of(visitor.member())
    return render_template(
        "tournaments/entries.html",
        found=found,
        unagreed=entries.without_consent(found),
        consent_text=athletes.consent_text(),
        consent_hash=athletes.consent_hash(),
        may_withdraw=entries.may_withdraw,
        gives_back=entries.gives_back,
    )


@bp.post("/athletes/<public_id>/consent")
def consent(public_id: str) -> Response:
    member = visitor.member()
    try:
        found = athletes.find(member, public_id)
        athletes.agree(found, member, request.form.get("consent_text", ""))
    except DomainError as error:
        flash(error.message, "danger")
    else:
        flash(f"Thank you. Entries of {found.name} can be paid now.", "success")
    return redirect(url_for(".entry_list"), 303)


@bp.post("/entries/<public_id>/withdraw")
def withdraw(public_id: str) -> Response:
    member = visitor.member()
    try:
        entries.withdraw(entries.find(member, public_id), actor_id=member.id, door="order_page")
    except DomainError as error:
        flash(error.message, "danger")
    else:
        flash("The entry is withdrawn.", "success")
    return redirect(url_for(".entry_list"), 303)


def _values(form: AthleteForm) -> dict[str, Any]:
    return {
        "name": text(form.name),
        "birth_date": form.birth_date.data,
        "sex": Sex(form.sex.data) if form.sex.data else None,
        "club": text(form.club),
        "weight_g": tournaments.grams(text(form.weight)),
        "grade": int(form.grade.data) if form.grade.data else None,
    }


def _shown(athlete: Athlete) -> dict[str, Any]:
    weight = tournaments.say_kilograms(athlete.weight_g) if athlete.weight_g is not None else ""
    grade = str(athlete.grade) if athlete.grade is not None else ""
    own = {name: getattr(athlete, name) for name in ("name", "birth_date", "club")}
    return own | {"sex": athlete.sex or "", "weight": weight, "grade": grade}


def _said(athlete: Athlete) -> str:
    """What is known of an athlete, in a line."""
    parts = [athlete.club]
    if athlete.weight_g is not None:
        parts.append(f"{tournaments.say_kilograms(athlete.weight_g)} kg")
    if athlete.grade is not None:
        parts.append(grades.say(athlete.grade))
    return ", ".join(part for part in parts if part)
