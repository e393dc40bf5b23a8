"""The forms of events and ticket types, for the plain records and the organisers' pages alike.

Times are typed in the event's own time zone. What is saved goes to the domain as typed, and a refusal of the
domain is shown beside its field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask import flash
from flask_wtf import FlaskForm
from flask_wtf.file import FileField
from wtforms import (
    BooleanField,
    DateTimeLocalField,
    Field,
    IntegerField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, NumberRange, Optional
from wtforms.widgets import CheckboxInput, ListWidget

from domain import money, zones
from domain.errors import DomainError
from models import Event, TicketType

# As browsers send a moment; the first is also how it is shown.
_MOMENTS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_EVENT_TEXTS = ("title", "slug", "description", "venue", "address", "currency")
_EVENT_TIMES = ("starts_at", "ends_at", "sales_open_at", "sales_close_at")
_TYPE_TIMES = ("sales_open_at", "sales_close_at")
# Where a rule is about a column that the form types otherwise.
_FIELDS = {"price_minor": "price", "not_an_amount": "price", "too_precise": "price", "too_much": "price"}
_FIELDS |= {"which_amount": "price", "email_invalid": "email"}
_FIELDS |= dict.fromkeys(("name_missing", "name_too_long", "name_strange"), "name")
_FIELDS |= {"unknown_currency": "currency", "blocked_currency": "currency"}


class Checks(SelectMultipleField):
    """A choice of several, as boxes to tick."""

    widget = ListWidget(prefix_label=False)
    option_widget = CheckboxInput()


class Number(IntegerField):
    """A whole number, which says in the reader's words what it is not."""

    def process_formdata(self, valuelist: list[str]) -> None:
        try:
            super().process_formdata(valuelist)
        except ValueError as error:
            raise ValueError("Type a whole number, such as 40.") from error


class Moment(DateTimeLocalField):
    """A date and a time, which says in the reader's words what it is not."""

    def process_formdata(self, valuelist: list[str]) -> None:
        try:
            super().process_formdata(valuelist)
        except ValueError as error:
            raise ValueError("Type a date and a time, such as 2026-12-31T20:00.") from error


def moment(label: str, *, needed: bool = False, note: str = "") -> Moment:
    """A date and a time, in the zone that the form names."""
    checks = [InputRequired("Type a date and a time.")] if needed else [Optional()]
    return Moment(label, format=_MOMENTS, validators=checks, description=note)


class Zone(SelectField):
    """A time zone of the list, or the one that an event has already."""

    def __init__(self, label: str, **named: Any) -> None:
        super().__init__(label, validate_choice=False, **named)

    def iter_choices(self) -> Iterator[Any]:
        listed = list(zones.listed())
        if self.data and self.data not in dict(listed):
            listed.append((self.data, self.data))
        self.choices = listed
        return super().iter_choices()


class Twice(SelectField):
    """Which is meant of the times that the clocks show twice. It is shown once that is asked."""

    def __init__(self, label: str = "A time that comes twice", **named: Any) -> None:
        choices = [
            ("", "Choose"),
            (zones.FIRST, "the first one, before the clocks go back"),
            (zones.SECOND, "the second one, after they went back"),
        ]
        super().__init__(label, choices=choices, default="", validate_choice=False, **named)
        self.asked = False


class EventFields(FlaskForm):
    """What an event is."""

    title = StringField(validators=[InputRequired("Give it a title."), Length(max=200)])
    slug = StringField(
        "Address",
        description="The last part of the event's link: summer-gala. Empty: made from the title.",
        validators=[Length(max=100)],
    )
    description = TextAreaField(render_kw={"rows": 6})
    venue = StringField(validators=[Length(max=200)])
    address = StringField("Venue's address", validators=[Length(max=300)])
    timezone = Zone(
        "Time zone",
        validators=[InputRequired("Choose a time zone."), Length(max=64)],
        description="All times on this form are in it.",
    )
    starts_at = moment("Starts", needed=True)
    ends_at = moment("Ends", needed=True)
    currency = StringField(
        validators=[InputRequired("Type a currency."), Length(max=3)],
        description="Three letters; fixed once there are orders.",
    )
    sales_open_at = moment("Sales open", note="Empty: at once.")
    sales_close_at = moment("Sales close", note="Empty: when the event ends.")
    twice = Twice()
    providers = Checks("Ways to pay", description="None ticked: all that are set up.")
    poll_minutes = Number(
        "Minutes to pay",
        validators=[Optional()],
        description="How long an order is kept for whoever pays, 31 to 1370. Empty: as this site is set up.",
    )
    picture = FileField(description="PNG, JPEG or WebP, at most 5 MB.")
    remove_picture = BooleanField("Show no picture")
    # Shown where it is needed: people hold tickets, and the date or the place changes.
    moves = BooleanField("Tell them by mail, with a new calendar file")


class TicketTypeFields(FlaskForm):
    """What a kind of ticket is."""

    name = StringField(validators=[InputRequired("Give it a name."), Length(max=100)])
    description = StringField(validators=[Length(max=300)])
    price = StringField(
        validators=[InputRequired("Type a price.")], description="In the event's currency; 0 is free."
    )
    capacity = Number(validators=[InputRequired("Type a number.")])
    per_order_limit = Number("Most in one order", default=10, validators=[InputRequired("Type a number.")])
    sales_open_at = moment("Sales open", note="In the event's time zone. Empty: with the event's.")
    sales_close_at = moment("Sales close", note="In the event's time zone. Empty: with the event's.")
    twice = Twice()
    position = Number(
        "Place in the list",
        default=0,
        validators=[
            InputRequired("Type a number."),
            NumberRange(0, 9999, "The place must be between 0 and 9,999."),
        ],
    )


# --- From the database to a form ------------------------------------------------------------------------


def shown_event(event: Event) -> dict[str, Any]:
    """What the form shows of an event."""
    times = {name: as_typed(getattr(event, name), event.timezone) for name in _EVENT_TIMES}
    texts = {name: getattr(event, name) for name in (*_EVENT_TEXTS, "timezone")}
    stored = [getattr(event, name) for name in _EVENT_TIMES]
    texts["twice"] = zones.which(stored, event.timezone)
    ways = {"providers": event.providers or [], "poll_minutes": event.poll_minutes}
    return texts | times | ways | {"picture": None}


def shown_type(kind: TicketType) -> dict[str, Any]:
    """What the form shows of a ticket type."""
    times = {name: as_typed(getattr(kind, name), kind.event.timezone) for name in _TYPE_TIMES}
    names = ("name", "description", "capacity", "per_order_limit", "position")
    price = money.plain(kind.price_minor, kind.priced_in)
    twice = zones.which([kind.sales_open_at, kind.sales_close_at], kind.event.timezone)
    return {name: getattr(kind, name) for name in names} | times | {"price": price, "twice": twice}


def as_typed(moment: datetime | None, zone: str) -> datetime | None:
    """A stored time as it is typed: in `zone`, without saying so."""
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) if moment is not None else None


# --- From a form to the domain --------------------------------------------------------------------------


def text(field: Field) -> str:
    """What was typed, without the blanks around it."""
    return str(field.data or "").strip()


def event_values(form: EventFields) -> dict[str, Any]:
    """The columns of an event as `events.create_event` and `update_event` take them."""
    zone = text(form.timezone)
    values: dict[str, Any] = {name: text(form[name]) for name in _EVENT_TEXTS}
    values |= {name: moment_of(form, name, zone) for name in _EVENT_TIMES}
    values |= {"providers": form.providers.data or None, "poll_minutes": form.poll_minutes.data}
    return values | {"timezone": zone} | picture_of(form)


def type_values(form: TicketTypeFields, event: Event, *, currency: str | None = None) -> dict[str, Any]:
    """The columns of a ticket type as `events.add_ticket_type` and `update_ticket_type` take them.

    `currency` is what its price is typed in; None: the event's.
    """
    numbers = {name: form[name].data for name in ("capacity", "per_order_limit", "position") if name in form}
    texts = {name: text(form[name]) for name in ("name", "description")}
    times = {name: moment_of(form, name, event.timezone) for name in _TYPE_TIMES}
    price = money.parse(text(form.price), currency or event.currency)
    return numbers | texts | times | {"price_minor": price}


def picture_of(form: EventFields) -> dict[str, bytes | None]:
    """The picture that was uploaded, or None where none is wanted, as the catalogue takes it; or no word."""
    if form.picture.data:
        return {"picture": form.picture.data.read()}
    return {"picture": None} if form.remove_picture.data else {}


def moment_of(form: EventFields | TicketTypeFields, name: str, zone: str) -> datetime | None:
    """A typed time as it is stored. DomainError for a zone or a time that there is not, or is twice."""
    typed = form[name].data
    if typed is None:
        return None
    try:
        return zones.moment(typed, zone, field=name, which=text(form.twice))
    except zones.ComesTwice:
        form.twice.asked = True
        raise


def by_rule(do: Callable[[], Any], form: FlaskForm | None) -> Any:
    """Do it; False where the domain refuses, with its words beside the field they are about."""
    try:
        return do()
    except DomainError as error:
        field = getattr(form, _FIELDS.get(error.code, error.code), None) if form is not None else None
        if isinstance(field, Field):
            field.errors = [*field.errors, error.message]
        else:
            flash(error.message, "danger")
        return False
