"""Money whose order was lost: a person makes its order anew, with the goods that it bought.

The provider is read once more, so that the order gets what is there now and nothing that went back. Its code
is the lost one's, which its buyer has in a mail, and the attempt has the name that the provider knows it by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select

from domain import clock, locks, money, timeline
from domain.errors import DomainError, NotFound
from domain.ledger import transfers
from domain.orders import placing
from domain.payments import adopting, incident_decisions, settling
from domain.payments.fulfilment import SoldOut
from domain.providers import registry
from domain.providers.contract import ProviderError, Report
from extensions import db, queue
from models import Event, EventState, Incident, LineKind, Order, OrderLine, TicketType

HOW = "attach"
_CHOICES = 500


def can(incident: Incident) -> bool:
    """Whether its money can be given a new order: it is nobody's, and its provider can be asked about it."""
    named = incident.evidence.get("named") or {}
    return incident.kind == "unknown_payment" and bool(named.get("provider_id"))


def events(incident: Incident) -> Sequence[Event]:
    """What tickets can be chosen from, the next first."""
    kinds = select(TicketType.event_id).where(TicketType.currency.is_(None))
    priced = select(TicketType.event_id).where(TicketType.currency == incident.currency)
    query = select(Event).where(
        Event.state == EventState.PUBLISHED,
        Event.id.in_(priced) | (Event.id.in_(kinds) & (Event.currency == incident.currency)),
    )
    return db.session.scalars(query.order_by(Event.starts_at.desc()).limit(_CHOICES)).all()


def attach(
    incident_id: int,
    event: Event,
    quantities: Mapping[int, int],
    *,
    name: str,
    email: str,
    reason: str,
    actor_id: int,
) -> Order:
    """Make the order, give it the money, and settle it by what the provider says now. Commits.

    DomainError in words: another sum, no places, decided before, or a provider that does not answer.
    """
    if not reason.strip():
        raise DomainError("reason_needed", "Say why: the reason is kept on the order's timeline.")
    report = _read(incident_id)

    def work() -> tuple[int, int]:
        incident = incident_decisions.open_one(incident_id)
        order = _order(incident, report, event, quantities, name, email)
        payment = adopting.row(order, report)
        # It is the payment's own from here on, and no more nobody's.
        transfers.post(
            key=f"incident:{incident.id}:decided",
            debit=transfers.SUSPENSE,
            credit=transfers.provider_account(report.provider, report.account),
            amount_minor=incident.amount_minor,
            currency=incident.currency,
            kind="decision",
            description=f"unknown_payment {order.code}",
            order_id=order.id,
            payment_id=payment.id,
        )
        incident.order_id, incident.payment_id = order.id, payment.id
        incident.resolution, incident.resolution_reason = HOW, reason.strip()
        incident.resolved_at, incident.resolved_by_id = clock.now(), actor_id
        timeline.note(
            order, "decided", f"{HOW}: {reason.strip()}", door="admin", payment=payment, actor_id=actor_id
        )
        return order.id, payment.id

    order_id, payment_id = locks.in_one_transaction(work)
    settling.settle(payment_id, report, door="admin", actor_id=actor_id)
    queue.soon("deliver_mail")
    return db.session.get_one(Order, order_id, populate_existing=True)


def _read(incident_id: int) -> Report:
    """What the provider says of the money now."""
    incident = db.session.get(Incident, incident_id)
    if incident is None:
        raise NotFound("no_incident", "There is no such incident.")
    if not can(incident):
        raise DomainError(
            "not_attachable", "This money has an order, or its provider cannot be asked about it."
        )
    named, provider = incident.evidence["named"], incident.provider
    db.session.rollback()
    try:
        report = registry.get(provider, named["account"]).fetch(named["provider_id"], thorough=True)
    except ProviderError as error:
        raise DomainError(
            "provider_silent", "We could not reach the payment provider. Wait a minute, then try again."
        ) from error
    if report.state != "paid" or report.back_minor:
        raise DomainError(
            "not_whole",
            "The provider says that this money, or some of it, went back. Look there, then dismiss it.",
        )
    return report


def _order(
    incident: Incident,
    report: Report,
    event: Event,
    quantities: Mapping[int, int],
    name: str,
    email: str,
) -> Order:
    chosen = [
        (kind, quantities.get(kind.id, 0)) for kind in event.ticket_types if quantities.get(kind.id, 0) > 0
    ]
    if not chosen or event.is_tournament:
        raise DomainError("nothing_chosen", "Choose the tickets that this money is for.")
    lines = [
        OrderLine(
            kind=LineKind.TICKET,
            ticket_type=kind,
            description=f"{event.title}: {kind.name}"[:250],
            quantity=quantity,
            unit_minor=kind.price_minor,
        )
        for kind, quantity in chosen
    ]
    for kind, quantity in chosen:
        if quantity > kind.available:
            raise SoldOut("too_few_left", f"{kind.name}: only {kind.available} are left.")
    total = sum(line.total_minor for line in lines)
    if not total == report.amount_minor == incident.amount_minor or any(
        kind.priced_in != report.currency for kind, _ in chosen
    ):
        raise DomainError(
            "another_sum",
            f"These tickets cost {money.show(total, chosen[0][0].priced_in)}, and "
            f"{money.show(report.amount_minor, report.currency)} came. Choose tickets for just that sum.",
        )
    return placing.lost_order(event, lines, name=name, email=email, code=_free_code(report))


def _free_code(report: Report) -> str | None:
    """The lost order's own code, where it is free."""
    code = adopting.code_of(report.reference)
    taken = code is None or db.session.scalar(select(Order.id).where(Order.code == code)) is not None
    return None if taken else code
