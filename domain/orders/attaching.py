"""Money whose order was lost: a person makes its order anew, with the goods that it bought, or sends it back.

The provider is read once more, so that the order gets what is there now and nothing that went back. Where it
cannot be asked, what a person has written down is told as by hand. The order's code is the lost one's, which
its buyer has in a mail, and the attempt has the name that the provider knows it by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import select

from domain import clock, epochs, locks, timeline
from domain.errors import DomainError, NotFound
from domain.ledger import transfers
from domain.orders import lost_goods
from domain.orders.lost_goods import Buyer, Choice, Money
from domain.payments import adopting, incident_decisions, settling, telling
from domain.providers import registry
from domain.providers.contract import ProviderError, Report
from domain.providers.failure_reasons import Reason
from extensions import db, queue
from models import Incident, Order

HOW = "attach"


def can(incident: Incident) -> bool:
    """Whether its money can be given a new order, or sent back: it is nobody's, and has a name."""
    named = incident.evidence.get("named") or {}
    return incident.kind == "unknown_payment" and bool(named.get("provider_id"))


def money_of(incident: Incident) -> Money:
    """What came, as the things that it can have bought are looked for."""
    account = (incident.evidence.get("named") or {}).get("account", "")
    return Money(incident.amount_minor, incident.currency, incident.provider, account)


def attach(incident_id: int, word: str, buyer: Buyer, *, reason: str, actor_id: int) -> Order:
    """Make the order of what `word` chooses, give it the money, and settle it by what is said now. Commits.

    DomainError in words: another sum, no places, decided before, or a provider that does not answer.
    """
    report = _read(incident_id, reason)
    if report.back_minor:
        raise DomainError(
            "not_whole",
            "The provider says that some of this money went back. Send back the rest, or dismiss it.",
        )

    def make(incident: Incident, code: str | None) -> Order:
        came = money_of(incident)
        choice: Choice | None = lost_goods.chosen(came, word)
        if choice is None:
            raise DomainError("nothing_chosen", "Choose what this money has bought.")
        return lost_goods.make(choice, came, buyer, code)

    return _give(incident_id, report, make, goods=True, reason=reason, actor_id=actor_id)


def send_back(incident_id: int, buyer: Buyer, *, reason: str, actor_id: int) -> Order:
    """Send the money back that nobody can say what it bought: an order for it alone keeps who did. Commits.

    DomainError in words: the shop is closed still, the provider is silent, or refuses it. Then the money
    waits in the inbox, with its order.
    """
    epochs.refuse_if_closed()
    report = _read(incident_id, reason)

    def make(incident: Incident, code: str | None) -> Order:
        came = replace(money_of(incident), amount_minor=report.amount_minor)
        return lost_goods.make_for_return(came, buyer, code)

    order = _give(incident_id, report, make, goods=False, reason=reason, actor_id=actor_id)
    waits = select(Incident.id).where(Incident.order_id == order.id, Incident.resolved_at.is_(None))
    for waiting in db.session.scalars(waits).all():
        incident_decisions.resolve(waiting, how="refund", reason=reason, actor_id=actor_id)
    return order


def _give(
    incident_id: int,
    report: Report,
    make: Callable[[Incident, str | None], Order],
    *,
    goods: bool,
    reason: str,
    actor_id: int,
) -> Order:
    """Make the order, and settle it by the report, in which nobody's money becomes the payment's own."""

    def work() -> tuple[int, int]:
        incident = incident_decisions.open_one(incident_id)
        if incident.amount_minor != report.amount_minor - report.back_minor:
            raise DomainError("another_sum", "The provider names another sum by now. Look there.")
        order = make(incident, _free_code(report))
        payment = adopting.row(order, report)
        if not goods:
            # Nothing is handed over for it: the money waits, and then goes back.
            payment.reason_code = Reason.STAFF_ENDED
        transfers.post(
            key=f"incident:{incident.id}:decided",
            debit=transfers.SUSPENSE,
            credit=transfers.provider_account(report.provider, report.account),
            amount_minor=incident.amount_minor,
            currency=incident.currency,
            # Not a decision about what it buys: the payment's own report says that.
            kind="adopted",
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
    _settle(payment_id, report, reason, actor_id)
    queue.soon("deliver_mail")
    return db.session.get_one(Order, order_id, populate_existing=True)


def _settle(payment_id: int, report: Report, reason: str, actor_id: int) -> None:
    """By what the provider says; where it cannot be asked, by what the person has seen at the bank."""
    if registry.get(report.provider, report.account).can.ask:
        settling.settle(payment_id, report, door="admin", actor_id=actor_id)
        return
    telling.tell_paid(
        payment_id,
        reference=report.charge_id or "",
        amount_minor=report.amount_minor,
        actor_id=actor_id,
        note=reason,
    )


def _read(incident_id: int, reason: str) -> Report:
    """What is said of the money now. Ends the transaction; DomainError in words."""
    if not reason.strip():
        raise DomainError("reason_needed", "Say why: the reason is kept on the order's timeline.")
    incident = db.session.get(Incident, incident_id)
    if incident is None:
        raise NotFound("no_incident", "There is no such incident.")
    if not can(incident):
        raise DomainError(
            "not_attachable", "This money has an order, or its provider cannot be asked about it."
        )
    if incident.resolved_at is not None:
        raise DomainError("already_decided", f"This was decided before: {incident.resolution}.")
    named, provider = incident.evidence["named"], incident.provider
    adapter, reference = registry.get(provider, named["account"]), incident.evidence.get("reference", "")
    if not adapter.can.ask:
        return _written_down(incident)
    db.session.rollback()
    try:
        report = adapter.fetch(named["provider_id"], thorough=True)
    except ProviderError as error:
        words = "We could not reach the payment provider. Wait a minute, then try again."
        if error.permanent:
            words = f"The provider has no such money ({error}). Give it back there, then dismiss it."
        raise DomainError("provider_silent", words) from error
    if report.state != "paid" or report.back_minor >= report.amount_minor > 0:
        raise DomainError(
            "not_whole", "The provider says that this money went back. Look there, then dismiss it."
        )
    return _completed(report, incident_id, reference)


def _completed(report: Report, incident_id: int, reference: str) -> Report:
    """The report with what its provider does not tell, as it was written down when the money was found."""
    incident = db.session.get_one(Incident, incident_id, populate_existing=True)
    amount = incident.amount_minor if "amount" in report.untold else report.amount_minor
    named = reference if "reference" in report.untold else report.reference
    db.session.rollback()
    return replace(report, amount_minor=amount, reference=named)


def _written_down(incident: Incident) -> Report:
    """What a person wrote down of money that nobody can be asked about."""
    named = incident.evidence["named"]
    adapter = registry.get(incident.provider, named["account"])
    report = Report(
        provider=incident.provider,
        provider_id=named["provider_id"],
        state="paid",
        amount_minor=incident.amount_minor,
        currency=incident.currency,
        reference=incident.evidence.get("reference", ""),
        account=named["account"],
        livemode=adapter.livemode,
        charge_id=incident.charge_id,
    )
    db.session.rollback()
    return report


def _free_code(report: Report) -> str | None:
    """The lost order's own code, where it is free."""
    code = adopting.code_of(report.reference)
    taken = code is None or db.session.scalar(select(Order.id).where(Order.code == code)) is not None
    return None if taken else code
