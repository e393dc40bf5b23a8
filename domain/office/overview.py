"""The back office's reading: what whoever answers the buyers, and whoever runs Kassa, must see.

Everything here only reads. What a person may do about it is in orders/managing.py, payments/settling.py,
payments/refunds.py, payments/incident_decisions.py and post/outbox.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import joinedload, selectinload

import config
from domain import clock, codes, folding, paging, searching
from domain.catalogue.takings import for_tickets
from domain.errors import NotFound
from domain.office import health
from domain.payments import own_end, poll_schedule, refunds_by_hand, told_reports
from domain.providers import contract, registry
from domain.providers.contract import ProviderError
from extensions import db
from models import (
    PAYMENT_ACTIVE,
    Event,
    Incident,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Refund,
    SweepRun,
    Ticket,
    TimelineEntry,
    ToldReport,
    WebhookEvent,
)

SWEEPS = 50
EVENTS = 20
_CHOICES = 500


@dataclass(frozen=True)
class Takings:
    """What was paid today in one currency, in minor units, and by how many payments."""

    currency: str
    minor: int
    count: int


@dataclass(frozen=True)
class Dashboard:
    """The front page of the back office."""

    takings: list[Takings]
    pending: int
    review: int
    incidents: int
    mail_due: int
    mail_failed: int
    sweep: SweepRun | None
    health: health.Health


@dataclass(frozen=True)
class OrderFile:
    """Everything that is kept about one order."""

    order: Order
    timeline: list[TimelineEntry]
    incidents: list[Incident]
    mails: list[OutboxMail]
    # What was told of its payments, where their provider cannot be asked.
    told: list[ToldReport]

    def told_of(self, payment: Payment) -> list[ToldReport]:
        """What was told of one of them."""
        return [row for row in self.told if row.payment_id == payment.id]

    def is_told(self, payment: Payment) -> bool:
        """Whether people, or the provider's calls, say what became of a payment."""
        return not own_end.able(payment).ask

    def waits_for_hand(self, refund: Refund) -> bool:
        """Whether a person has to make a refund at the bank."""
        return refunds_by_hand.is_by_hand(refund)


@dataclass(frozen=True)
class Polled:
    """How long a payment was polled (minutes; until it was final), and whether sweeps go on polling it.

    `unreadable` is one past its end that nobody answers for, so that an admin may close it; `stuck` one that
    a bank has been confirming for so long that an admin may end it.
    """

    elapsed_minutes: float
    needed: bool
    unreadable: bool
    stuck: bool


@dataclass(frozen=True)
class Connection:
    """A provider as seen from here. `facts` never holds a key; `problem` is "" when it answered."""

    title: str
    ready: bool
    problem: str
    facts: Mapping[str, Any]
    webhook_secret: bool
    events: list[WebhookEvent]


# --- The front page -------------------------------------------------------------------------------------


def dashboard() -> Dashboard:
    """Today's takings and what wants somebody's eyes."""
    pending, review = db.session.execute(
        select(
            func.count().filter(Payment.state.in_(PAYMENT_ACTIVE)),
            func.count().filter(Payment.state == PaymentState.REVIEW),
        ).where(Payment.state.in_((*PAYMENT_ACTIVE, PaymentState.REVIEW)))
    ).one()
    due, failed = db.session.execute(
        select(
            func.count().filter(OutboxMail.state == MailState.DUE),
            func.count().filter(OutboxMail.state == MailState.FAILED),
        ).where(OutboxMail.state.in_((MailState.DUE, MailState.FAILED)))
    ).one()
    waiting = select(func.count()).select_from(Incident).where(Incident.resolved_at.is_(None))
    takings, last = _takings(), health.last_sweep()
    open_incidents = db.session.scalar(waiting) or 0
    return Dashboard(takings, pending, review, open_incidents, due, failed, last, health.report())


def _takings() -> list[Takings]:
    """Paid since midnight in the box office's time zone, without what was top-up of a wallet spent again."""
    zone = ZoneInfo(config.get().timezone)
    midnight = datetime.combine(clock.now().astimezone(zone).date(), time.min, zone)
    in_ledger = [name for name in registry.names() if registry.get(name).immediate]
    rows = db.session.execute(
        select(Payment.currency, func.sum(Payment.amount_minor), func.count())
        .where(Payment.paid_at >= midnight, Payment.fulfilled, Payment.provider.not_in(in_ledger))
        .group_by(Payment.currency)
        .order_by(Payment.currency)
    )
    return [Takings(currency, int(minor), count) for currency, minor, count in rows]


# --- Orders ---------------------------------------------------------------------------------------------


def orders(
    words: str = "",
    state: OrderState | None = None,
    before: int | None = None,
    *,
    event_id: int | None = None,
    guests: bool = False,
    organisers: Collection[int] | None = None,
) -> paging.Rows[Order]:
    """Orders by whatever `domain/search_words.py` writes of them, in whole or by its beginning; and by state.

    `event_id`: only the orders of that event's tickets; `guests`: only those of its guest list.
    `organisers`: only those of the tickets of their events, by their users' ids.
    """
    rows = select(Order)
    if event_id is not None:
        rows = rows.where(Order.event_id == event_id, for_tickets())
    if organisers is not None:
        rows = rows.where(*_of_organisers(organisers))
    if guests:
        rows = rows.where(Order.guest_of_id.is_not(None))
    if state is not None:
        rows = rows.where(Order.state == state)
    query = rows.options(joinedload(Order.event))
    if guests:
        query = query.options(selectinload(Order.tickets).joinedload(Ticket.ticket_type))
    if not folding.fold(words):
        return paging.page(query, Order.id, before)
    near = folding.matches(words, folding.searchable(Order))
    searched = searching.Searched(Order.id, Order.id, rows, rows, near)
    return searching.page(query, words, searched, before, _named(words.strip()))


def _named(name: str) -> list[Select[int]]:
    """Orders by what only one of them can have: the ids of its payments, and its tickets' codes."""
    at = Payment.provider.in_(registry.names())
    ids = [at & (Payment.provider_id == name), at & (Payment.charge_id == name)]
    found = [select(Payment.order_id).where(which) for which in (*ids, Payment.reference == name.upper())]
    code = codes.clean(name)
    return [*found, select(Ticket.order_id).where(Ticket.code == code)] if code else found


def _of_organisers(organisers: Collection[int]) -> tuple[ColumnElement[bool], ...]:
    events = select(Event.id).where(Event.organiser_id.in_(organisers))
    return Order.event_id.in_(events), for_tickets()


def order_file(
    code: str, *, event_id: int | None = None, organisers: Collection[int] | None = None
) -> OrderFile:
    """All about one order. NotFound when there is none of this code, for tickets of `event_id`, or of events
    of `organisers`, where these are given."""
    of_event: tuple[ColumnElement[bool], ...] = ()
    if event_id is not None:
        of_event = Order.event_id == event_id, for_tickets()
    if organisers is not None:
        of_event = _of_organisers(organisers)
    order = db.session.scalar(
        select(Order)
        .where(Order.code == code.upper(), *of_event)
        .options(
            joinedload(Order.event),
            joinedload(Order.user),
            selectinload(Order.lines),
            selectinload(Order.tickets),
            selectinload(Order.payments).selectinload(Payment.refunds),
            selectinload(Order.payments).selectinload(Payment.disputes),
            selectinload(Order.timeline).joinedload(TimelineEntry.actor),
        )
    )
    if order is None:
        raise NotFound("no_order", f"There is no order {code}.")
    incidents = select(Incident).where(Incident.order_id == order.id).order_by(Incident.id)
    mails = select(OutboxMail).where(OutboxMail.order_id == order.id).order_by(OutboxMail.id)
    asked = all(own_end.able(payment).ask for payment in order.payments)
    return OrderFile(
        order,
        list(order.timeline),
        list(db.session.scalars(incidents)),
        list(db.session.scalars(mails)),
        [] if asked else told_reports.of([payment.id for payment in order.payments]),
    )


# --- Payments, incidents, mail --------------------------------------------------------------------------


def payments(state: PaymentState | None = None, before: int | None = None) -> paging.Rows[Payment]:
    """Payments that have no final word, or wait for a person; of one state where asked."""
    states = (state,) if state is not None else (*PAYMENT_ACTIVE, PaymentState.REVIEW)
    query = select(Payment).options(joinedload(Payment.order)).where(Payment.state.in_(states))
    return paging.page(query, Payment.id, before)


def polled(payment: Payment) -> Polled:
    """A payment's polling as it stands now."""
    now = clock.now()
    until = now if payment.is_active else payment.state_since
    return Polled(
        payment.polling_elapsed_minutes(until),
        payment.needs_polling(now),
        poll_schedule.is_unreadable(payment, now),
        poll_schedule.is_stuck(payment, now),
    )


def incidents(*, decided: bool = False, before: int | None = None) -> paging.Rows[Incident]:
    """The money inbox, or what was decided before."""
    query = select(Incident).options(
        joinedload(Incident.order), joinedload(Incident.payment), joinedload(Incident.resolved_by)
    )
    past = Incident.resolved_at.is_not(None)
    return paging.page(query.where(past if decided else ~past), Incident.id, before)


def incident(incident_id: int) -> Incident:
    """One incident. NotFound when there is none."""
    found = db.session.get(Incident, incident_id)
    if found is None:
        raise NotFound("no_incident", "There is no such incident.")
    return found


def mails(state: MailState | None = None, before: int | None = None) -> paging.Rows[OutboxMail]:
    """Mail that is due or failed; of one state where asked."""
    states = (state,) if state is not None else (MailState.DUE, MailState.FAILED)
    query = select(OutboxMail).options(joinedload(OutboxMail.order)).where(OutboxMail.state.in_(states))
    return paging.page(query, OutboxMail.id, before)


def sweeps() -> list[SweepRun]:
    """The last fifty sweeps, newest first."""
    return list(db.session.scalars(select(SweepRun).order_by(SweepRun.id.desc()).limit(SWEEPS)))


def events() -> list[Event]:
    """The newest events in any state, to choose from."""
    return list(db.session.scalars(select(Event).order_by(Event.starts_at.desc()).limit(_CHOICES)))


def event(slug: str) -> Event:
    """An event in any state. NotFound when there is none at this address."""
    found = db.session.scalar(select(Event).filter_by(slug=slug))
    if found is None:
        raise NotFound("no_event", "There is no event at this address.")
    return found


# --- Providers ------------------------------------------------------------------------------------------


def connection(name: str) -> Connection:
    """Ask a provider who the platform is to it, and show the last rings of its doorbell."""
    provider, title = registry.get(name), registry.title(name)
    rings = isinstance(provider, contract.Doorbell) and provider.rings
    events = list(
        db.session.scalars(
            select(WebhookEvent)
            .where(WebhookEvent.provider == name)
            .order_by(WebhookEvent.id.desc())
            .limit(EVENTS)
        )
    )
    if not provider.ready:
        return Connection(title, False, "No key is set.", {}, rings, events)
    try:
        facts = provider.health()
    except ProviderError as error:
        return Connection(title, True, f"No usable answer: {error}", {}, rings, events)
    return Connection(title, True, "", facts, rings, events)
