"""The plain records (events, ticket types, people, agents, texts) in Flask-Admin, through the domain's rules.

Flask-Admin lists, searches, sorts and pages; what is saved goes to the domain as typed, and a refusal of the
domain is shown beside its field. The templates are ours, so the pages need neither scripts nor styles inline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import flask_admin
from babel.dates import format_datetime
from flask import Flask, abort, g, request, url_for
from flask_admin.contrib.sqla import ModelView
from flask_admin.model.typefmt import BASE_FORMATTERS
from flask_wtf import FlaskForm
from markupsafe import Markup
from werkzeug.wrappers import Response
from wtforms import BooleanField, SelectField, StringField, TextAreaField
from wtforms.validators import InputRequired, Length

import config
import extensions
from blueprints import proofs
from blueprints.access import ask_to_log_in, safe_next
from blueprints.organiser import forms
from blueprints.organiser.forms import EventFields, TicketTypeFields, by_rule, text, type_values
from blueprints.visitor import is_admin, member, signed_in
from domain import folding, money, site_texts
from domain.catalogue import events
from domain.errors import DomainError
from domain.ledger import agents
from domain.office import organiser_events, overview
from domain.orders import publishing
from domain.people import accounts, factors
from models import Agent, DoorPass, Event, EventState, Page, Role, TicketType, User

_SHORT = "d MMM y, HH:mm"


def register(app: Flask) -> None:
    """Add the records under /admin/records/."""
    admin = flask_admin.Admin(
        app,
        name="Records",
        index_view=_Index(name="Records", endpoint="records", url="/admin/records", template=_Index.page),
        csp_nonce_generator=lambda: g.get("csp_nonce", ""),
    )
    db = extensions.db
    for view in (
        EventView(Event, db, name="Events", endpoint="records_events", url="events"),
        TicketTypeView(TicketType, db, name="Ticket types", endpoint="records_types", url="ticket-types"),
        UserView(User, db, name="People", endpoint="records_users", url="users"),
        AgentView(Agent, db, name="Agents", endpoint="records_agents", url="agents"),
        PageView(Page, db, name="Texts", endpoint="records_pages", url="pages"),
        DoorPassView(DoorPass, db, name="Door passes", endpoint="records_passes", url="door-passes"),
    ):
        admin.add_view(view)


class _ForAdmins:
    """Only for admins; strangers are asked to log in."""

    def is_accessible(self) -> bool:
        return is_admin()

    def inaccessible_callback(self, name: str, **arguments: Any) -> Response:
        if signed_in() is not None:
            abort(403)
        return ask_to_log_in()

    # Whether what is changed here opens doors to somebody.
    opens_doors = False

    def _handle_view(self, name: str, **arguments: Any) -> Any:
        """Flask-Admin asks this before each view; an answer takes the view's place."""
        # Where it leads back to: its own reading of an address is not as narrow as ours.
        if not all(safe_next(back, "") for back in request.values.getlist("url")):
            abort(400)
        refused = super()._handle_view(name, **arguments)  # type: ignore[misc]
        if refused is not None or not self.opens_doors or request.method != "POST":
            return refused
        return proofs.for_deed()


class _Index(_ForAdmins, flask_admin.AdminIndexView):
    page = "office/records/index.html"


class _Records(_ForAdmins, ModelView):
    """A list with our templates whose forms are ours and whose changes are the domain's.

    A subclass gives `form`, `values(form)`, and what `make`, `change` and `remove` do with the values.
    """

    list_template = "office/records/list.html"
    create_template = edit_template = "office/records/form.html"
    form_base_class = FlaskForm
    action_disallowed_list: ClassVar[list[str]] = ["delete"]
    column_display_actions = False
    can_delete = False
    page_size = 50
    column_type_formatters: ClassVar[Mapping[type, Any]] = BASE_FORMATTERS | {
        Enum: lambda view, value, name: value.value.capitalize(),
        # Flask-Admin's own is an icon from a font that these pages do not load.
        bool: lambda view, value, name: "Yes" if value else "No",
        type(None): lambda view, value, name: "–",
    }
    # What the list says of itself, and the column that names a row.
    words = ""
    title_column = "name"

    def read(self, row: Any) -> dict[str, Any]:
        """What the form shows of a row."""
        return {name: getattr(row, name) for name in self.form._fields_of(self.form) if hasattr(row, name)}

    def title_of(self, row: Any) -> str:
        """How a row's page is headed."""
        return str(getattr(row, self.title_column))

    def make(self, form: FlaskForm) -> Any:
        raise DomainError("not_here", "These cannot be made here.")

    def change(self, row: Any, form: FlaskForm) -> Any:
        raise DomainError("not_here", "These cannot be changed here.")

    def remove(self, row: Any) -> Any:
        raise DomainError("not_here", "These cannot be removed.")

    def create_form(self, obj: Any = None) -> FlaskForm:
        return self.prepared(self.form(), None)

    def edit_form(self, obj: Any = None) -> FlaskForm:
        return self.prepared(self.form(data=self.read(obj)), obj)

    def prepared(self, form: FlaskForm, row: Any) -> FlaskForm:
        """The form with its choices, before it reads what was sent."""
        return form

    def _apply_search(self, query: Any, count_query: Any, joins: Any, count_joins: Any, search: str) -> Any:
        """Flask-Admin's own tells accents and capitals of other scripts apart."""
        found = folding.matches(search, *folding.texts(self.model))
        count_query = count_query.filter(found) if count_query is not None else None
        return query.filter(found), count_query, joins, count_joins

    def create_model(self, form: FlaskForm) -> Any:
        return by_rule(lambda: self.make(form), form)

    def update_model(self, form: FlaskForm, model: Any) -> bool:
        return by_rule(lambda: self.change(model, form), form) is not False

    def delete_model(self, model: Any) -> bool:
        return by_rule(lambda: self.remove(model), None) is not False


# --- Forms ----------------------------------------------------------------------------------------------


class _Form(FlaskForm):
    @staticmethod
    def _fields_of(form: type[FlaskForm]) -> list[str]:
        return [name for name in dir(form) if hasattr(getattr(form, name), "field_class")]


class EventForm(_Form, EventFields):
    state = SelectField()


class TicketTypeForm(_Form, TicketTypeFields):
    event_id = SelectField("Event", coerce=int)


class UserForm(_Form):
    role = SelectField(choices=[(r.value, r.value.capitalize()) for r in Role])
    closed = BooleanField("Account is closed", description="It cannot log in. Nothing it bought is lost.")
    lost = BooleanField(
        "Second factor is lost",
        description="It is taken away, and a password alone opens the account until there is another. "
        "Be sure who asks you. Every admin is told by mail.",
    )
    out = BooleanField(
        "Log out everywhere",
        description="Ends every browser and program that is logged in now. The password stays as it is.",
    )


class AgentForm(_Form):
    name = StringField(validators=[InputRequired("Give it a name."), Length(max=100)])
    slug = StringField("Address", validators=[InputRequired("Type an address."), Length(max=100)])
    description = StringField(validators=[Length(max=500)])
    price = StringField(validators=[InputRequired("Type a price.")])
    currency = StringField(validators=[InputRequired("Type a currency."), Length(max=3)])
    service = SelectField(choices=[(name, name) for name in sorted(agents.SERVICES)])
    active = BooleanField("On offer", default=True)


class PageForm(_Form):
    title = StringField(validators=[InputRequired("Give it a title."), Length(max=200)])
    body = TextAreaField(
        "Text",
        validators=[InputRequired("Type the text."), Length(max=50_000)],
        description="An empty line begins a new paragraph.",
        render_kw={"rows": 18},
    )


# --- Views ----------------------------------------------------------------------------------------------


def _local(column: str) -> Callable[..., str]:
    """Shows a time in the time zone of the row's event."""

    def show(view: object, context: object, row: Any, name: str) -> str:
        moment = getattr(row, column)
        event = row if isinstance(row, Event) else getattr(row, "event", None)
        zone = event.timezone if event is not None else config.get().timezone
        if moment is None:
            return "–"
        return f"{format_datetime(moment.astimezone(ZoneInfo(zone)), _SHORT, locale='en')} ({zone})"

    return show


def _price(view: object, context: object, row: Any, name: str) -> str:
    currency = row.priced_in if isinstance(row, TicketType) else row.currency
    return money.show(row.price_minor, currency)


class EventView(_Records):
    words = "What is on. An event is cancelled on a page of its own, where its buyers are told and paid back."
    column_list = ("title", "slug", "starts_at", "venue", "currency", "state")
    column_labels: ClassVar[Mapping[str, str]] = {"slug": "Address", "starts_at": "Starts"}
    title_column = "title"
    column_searchable_list = ("title", "slug", "venue")
    column_sortable_list = ("title", "starts_at", "state")
    column_default_sort = ("starts_at", True)
    column_formatters: ClassVar[Mapping[str, Any]] = {"starts_at": _local("starts_at")}
    form = EventForm
    can_delete = True
    create_template = edit_template = "office/records/event.html"

    def read(self, row: Event) -> dict[str, Any]:
        return forms.shown_event(row) | {"state": row.state.value}

    def prepared(self, form: FlaskForm, row: Event | None) -> FlaskForm:
        owner = row.organiser_id if row is not None else None
        form.providers.choices = organiser_events.provider_choices(owner)
        form.providers.description = organiser_events.describe_choices(owner)
        # Cancelling has a page of its own, which tells the buyers; a fee that went back sets "review".
        states = dict.fromkeys((EventState.DRAFT, EventState.PUBLISHED))
        if row is not None:
            states[row.state] = None
        form.state.choices = [(state.value, state.value.capitalize()) for state in states]
        if row is None and not form.is_submitted():
            form.timezone.data, form.currency.data = config.get().timezone, config.get().currency
        return form

    def make(self, form: EventForm) -> Event:
        return events.create_event(**self._values(form))

    def change(self, row: Event, form: EventForm) -> None:
        values = self._values(form)
        values["slug"] = values["slug"] or row.slug
        publishing.change_record(row, moves=bool(form.moves.data), **values)

    def remove(self, row: Event) -> None:
        events.delete_event(row)

    def _values(self, form: EventForm) -> dict[str, Any]:
        return forms.event_values(form) | {"state": EventState(form.state.data)}


class TicketTypeView(_Records):
    words = "What can be bought for an event. The capacity never goes below what is sold and held."
    column_list = ("event", "name", "price_minor", "capacity", "sold", "held", "per_order_limit")
    column_labels: ClassVar[Mapping[str, str]] = {
        "price_minor": "Price",
        "per_order_limit": "Most in one order",
    }
    column_searchable_list = ("name", "event.title")
    column_sortable_list = ("name", "capacity", "sold")
    column_default_sort = ("id", True)
    column_formatters: ClassVar[Mapping[str, Any]] = {"price_minor": _price}
    form = TicketTypeForm
    can_delete = True

    def read(self, row: TicketType) -> dict[str, Any]:
        return forms.shown_type(row)

    def prepared(self, form: FlaskForm, row: TicketType | None) -> FlaskForm:
        # A tournament's categories are made on its own pages, which ask whom they are for.
        offered = (
            [row.event] if row is not None else [one for one in overview.events() if not one.is_tournament]
        )
        form.event_id.choices = [(event.id, f"{event.title} ({event.currency})") for event in offered]
        asked = request.args.get("event_id", type=int)
        if row is None and not form.is_submitted() and asked is not None:
            form.event_id.data = asked
        chosen = [event for event in offered if row is not None or event.id == asked]
        if chosen:
            form.price.description = events.price_words(chosen[0])
        return form

    def make(self, form: TicketTypeForm) -> TicketType:
        event = next(event for event in overview.events() if event.id == form.event_id.data)
        return events.add_ticket_type(event, **type_values(form, event))

    def change(self, row: TicketType, form: TicketTypeForm) -> None:
        events.update_ticket_type(row, **type_values(form, row.event, currency=row.currency))

    def remove(self, row: TicketType) -> None:
        events.delete_ticket_type(row)


class UserView(_Records):
    words = "Who has an account. Roles: buyer, organiser, door, desk (the telephone) and admin."
    column_list = ("email", "name", "role", "confirmed_at", "disabled_at", "created_at")
    title_column = "email"
    column_labels: ClassVar[Mapping[str, str]] = {
        "confirmed_at": "Address confirmed",
        "disabled_at": "Closed",
        "created_at": "Since",
    }
    column_searchable_list = ("email", "name")
    column_sortable_list = ("email", "role", "created_at")
    column_default_sort = ("id", True)
    column_formatters: ClassVar[Mapping[str, Any]] = {
        name: _local(name) for name in ("confirmed_at", "disabled_at", "created_at")
    }
    form = UserForm
    can_create = False
    opens_doors = True

    def read(self, row: User) -> dict[str, Any]:
        return {"role": row.role.value, "closed": row.disabled_at is not None, "lost": False, "out": False}

    def prepared(self, form: FlaskForm, row: User | None) -> FlaskForm:
        if row is None or row.second_factor_at is None:
            del form.lost
        return form

    def change(self, row: User, form: UserForm) -> None:
        user_id, closed = row.id, row.disabled_at is not None
        if "lost" in form and form.lost.data:
            factors.lose_by(user_id, member())
        if Role(form.role.data) is not row.role:
            accounts.change_role(user_id, Role(form.role.data))
        if form.closed.data and not closed:
            accounts.disable(user_id)
        elif closed and not form.closed.data:
            accounts.enable(user_id)
        if form.out.data:
            accounts.log_out(user_id)


class AgentView(_Records):
    words = "Services that members pay for by use. One that is not on offer keeps its transactions."
    column_list = ("name", "slug", "price_minor", "service", "active")
    column_labels: ClassVar[Mapping[str, str]] = {
        "slug": "Address",
        "price_minor": "Price",
        "active": "On offer",
    }
    column_searchable_list = ("name", "slug")
    column_sortable_list = ("name",)
    column_formatters: ClassVar[Mapping[str, Any]] = {"price_minor": _price}
    form = AgentForm

    def read(self, row: Agent) -> dict[str, Any]:
        return super().read(row) | {"price": money.plain(row.price_minor, row.currency)}

    def prepared(self, form: FlaskForm, row: Agent | None) -> FlaskForm:
        if row is None and not form.is_submitted():
            form.currency.data = config.get().wallet_currency
        return form

    def make(self, form: AgentForm) -> Agent:
        return agents.save(None, **self._values(form))

    def change(self, row: Agent, form: AgentForm) -> None:
        agents.save(row, **self._values(form))

    def _values(self, form: AgentForm) -> dict[str, Any]:
        currency = money.check_currency(text(form.currency))
        price = money.parse(text(form.price), currency)
        texts = {name: text(form[name]) for name in ("name", "slug", "description", "service")}
        return texts | {"active": bool(form.active.data), "currency": currency, "price_minor": price}


class PageView(_Records):
    words = (
        "The texts at /terms, /privacy and /contact, and the one at /consent that guardians agree to: when "
        "it changes, all of them are asked anew."
    )
    column_list = ("slug", "title", "updated_at")
    column_labels: ClassVar[Mapping[str, str]] = {"slug": "Address", "updated_at": "Changed"}
    title_column = "title"
    column_formatters: ClassVar[Mapping[str, Any]] = {"updated_at": _local("updated_at")}
    form = PageForm
    can_create = False

    def get_list(self, *arguments: Any, **named: Any) -> Any:
        site_texts.keep_all()
        return super().get_list(*arguments, **named)

    def change(self, row: Page, form: PageForm) -> None:
        site_texts.write(row.slug, title=text(form.title), body=text(form.body))


def _door_link(view: object, context: object, row: DoorPass, name: str) -> str:
    return Markup('<a href="{}">{}</a>').format(url_for("door.passes", slug=row.event.slug), row.event.title)


class DoorPassView(_Records):
    words = "The links and PINs that let door staff in. They are made on an event's own door page."
    column_list = ("event", "label", "created_at", "expires_at", "revoked_at")
    column_labels: ClassVar[Mapping[str, str]] = {
        "created_at": "Made",
        "expires_at": "Good until",
        "revoked_at": "Withdrawn",
    }
    column_searchable_list = ("label",)
    column_default_sort = ("id", True)
    column_formatters: ClassVar[Mapping[str, Any]] = {
        name: _local(name) for name in ("created_at", "expires_at", "revoked_at")
    } | {"event": _door_link}
    form = UserForm
    can_create = False
    can_edit = False
