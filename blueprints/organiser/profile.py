"""Becoming an organiser, and the profile that buyers see."""

from __future__ import annotations

from flask import (
    flash,
    redirect,
    render_template,
    url_for,
)
from flask_wtf import FlaskForm
from wtforms import StringField, TextAreaField
from wtforms.validators import InputRequired, Length

from blueprints.organiser.blueprint import Page, bp, me
from blueprints.organiser.forms import (
    by_rule,
)
from domain import addresses
from domain.people import organisers
from domain.people.organisers import FIELDS
from models import Role


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


def _typed(form: FlaskForm) -> dict[str, str]:
    return {name: str(form[name].data or "") for name in FIELDS}
